"""Reading own sounds: folders, tables, annotations, and takes of one source."""

from pathlib import Path

import pytest
from own_sounds import write_folder

from earmark.custom import read_dataset
from earmark.custom.sources import source_name
from earmark.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_a_folder_per_class_and_background(tmp_path: Path) -> None:
    dataset = read_dataset(write_folder(tmp_path, clips=2))
    assert dataset.labels == ("hiss", "tone")
    assert dataset.counts() == {"hiss": 2, "tone": 2, "": 2}
    assert not dataset.exclusive


def test_an_empty_class_and_a_broken_name_are_problems(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.wav", "cat/2.wav", "bad\nname/3.wav")
    (tmp_path / "empty").mkdir()
    dataset = read_dataset(tmp_path)
    assert dataset.labels == ("cat", "dog")
    assert len(dataset.problems) == 2
    assert any("empty" in problem for problem in dataset.problems)


def test_labels_are_composed_unicode(tmp_path: Path) -> None:
    touch(tmp_path, "u\u0308ben; laut/1.wav", "b/2.wav")
    assert read_dataset(tmp_path).labels == ("b", "\u00fcben; laut")


def test_a_csv_with_several_labels_and_regions(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(
        "path,labels,start_s,end_s,group\na.wav,dog;cat,,,x\na.wav,dog,1,2.5,\nb.wav,background,,,\nc.wav,dog,3,2,\n"
    )
    dataset = read_dataset(tmp_path / "clips.csv")
    first, second, third = dataset.examples
    assert (first.labels, first.group, first.end_s) == (("dog", "cat"), "x", None)
    assert (second.labels, second.start_s, second.end_s) == (("dog",), 1.0, 2.5)
    assert second.group == str(tmp_path / "a.wav")
    assert third.labels == ()
    assert "line 5" in dataset.problems[0]


def test_rows_of_the_same_clip_are_merged(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("filename,category\na.wav,dog\na.wav,cat\n")
    [example] = read_dataset(tmp_path / "clips.csv", audio=tmp_path / "audio").examples
    assert example.labels == ("dog", "cat")
    assert example.path == tmp_path / "audio" / "a.wav"


def test_audacity_and_raven_tables_become_clips(tmp_path: Path) -> None:
    touch(tmp_path, "day1.wav", "day2.flac")
    (tmp_path / "day1.txt").write_text("1.5\t2.5\tdog\n\\\t100\t2000\n4\t4\tpoint\n")
    (tmp_path / "day2.Table.1.selections.txt").write_text(
        "Selection\tView\tBegin Time (s)\tEnd Time (s)\tAnnotation\n"
        "1\tWaveform 1\t0.5\t1.25\tcat\n1\tSpectrogram 1\t0.5\t1.25\tcat\n"
    )
    dataset = read_dataset(tmp_path)
    found = [(one.path.name, one.start_s, one.end_s, one.labels) for one in dataset.examples]
    assert found == [("day1.wav", 1.5, 2.5, ("dog",)), ("day2.flac", 0.5, 1.25, ("cat",))]
    assert len(dataset.problems) == 1
    assert "point" in dataset.problems[0]


def test_a_table_of_something_else_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "day1.wav")
    (tmp_path / "day1.txt").write_text("a note\n")
    with pytest.raises(DataError, match=r"day1\.txt, line 1"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    "content", ["path,place\na.wav,here\n", "path,labels\n", "path,label,start_s\na.wav,x,1\n"]
)
def test_a_table_that_lacks_something_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "clips.csv").write_text(content)
    with pytest.raises(DataError, match=r"clips\.csv"):
        read_dataset(tmp_path / "clips.csv")


@pytest.mark.parametrize(
    ("stem", "source"),
    [
        ("1-100032-A-0", "1-100032"),
        ("rec17_take2", "rec17"),
        ("0815 (3)", "0815"),
        ("20240501_123000", "20240501_123000"),
    ],
)
def test_marks_of_takes_are_dropped(stem: str, source: str) -> None:
    assert source_name(stem) == source


def test_takes_of_one_source_are_one_group(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "dog/100-A.wav",
        "dog/100-B.wav",
        "dog/200-A.wav",
        "cat/rex/1.wav",
        "cat/rex/2.wav",
        "cat/3.wav",
    )
    groups = {one.path.relative_to(tmp_path).as_posix(): one.group for one in read_dataset(tmp_path).examples}
    assert groups["dog/100-A.wav"] == groups["dog/100-B.wav"] != groups["dog/200-A.wav"]
    assert groups["cat/rex/1.wav"] == groups["cat/rex/2.wav"] != groups["cat/3.wav"]


def test_numbered_files_are_sources_of_their_own(tmp_path: Path) -> None:
    touch(tmp_path, "dog/dog_1.wav", "dog/dog_2.wav", "cat/rec2024_1.wav", "cat/rec2024_2.wav")
    assert len({one.group for one in read_dataset(tmp_path).examples}) == 4
