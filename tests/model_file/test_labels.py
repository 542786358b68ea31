"""Label sets are those of the published datasets, and label files are read in three layouts."""

import pytest

from earmark.errors import DataError, ModelError
from earmark.model_file.labels import label_set, read_labels


def test_label_sets() -> None:
    audioset = label_set("audioset")
    assert len(audioset) == len(set(audioset)) == 527
    assert (audioset[0], audioset[74], audioset[-1]) == ("Speech", "Dog", "Field recording")
    scenes = label_set("tau_scenes")
    assert len(scenes) == 10
    assert scenes == tuple(sorted(scenes))
    with pytest.raises(ModelError, match="audioset, fsd50k"):
        label_set("tau")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "dog\nrain, heavy\n\n"),
        ("labels", "\ufeffdog\nrain, heavy"),
        ("l.csv", 'index,mid,display_name\n0,/m/0,dog\n1,/m/1,"rain, heavy"\n'),
        ("l.csv", 'label\ndog\n"rain, heavy"\n'),
    ],
)
def test_a_label_file_is_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == read_labels(str(tmp_path / name)) == ("dog", "rain, heavy")


def test_a_label_set_is_read_by_name():
    assert read_labels("audioset") == label_set("audioset")
    with pytest.raises(ModelError):
        read_labels("audio")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("l.csv", b"mid\n/m/0\n"),
        ("l.csv", b"label,x\ndog,1\n,2\n"),
        ("l.txt", b"dog\ndog\n"),
        ("l.txt", b"dog\nrain\n dog \n"),
        ("l.csv", b"label,x\ndog,1\nrain,2,3\n"),
        ("l.csv", b"label,x\ndog,1\nrain"),
        ("l.txt", b""),
        ("l.txt", b"\xff\xfe"),
        ("none.txt", None),
    ],
)
def test_an_unusable_label_file_is_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_labels(tmp_path / name)
