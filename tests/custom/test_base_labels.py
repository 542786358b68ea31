"""Own labels beside those of the base model, in one pass; and data that are added."""

from pathlib import Path

import numpy as np
import pytest

import earmark
from earmark.custom import FitOptions, fit, merged, read_dataset
from earmark.errors import DataError
from earmark.model_file.calibration import Platt
from earmark.model_file.onnx_file import read_model_file, replace_info
from tests.custom.own_sounds import write_folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("sounds"))


@pytest.fixture
def base(toy_model: Path, tmp_path: Path) -> Path:
    """The toy model with other labels, a calibration and thresholds."""
    content, info = read_model_file(toy_model)
    info = info.changed(
        labels=("Tone", "Other"),
        task="multi_label",
        calibration=Platt((2.0, 0.5), (0.3, -0.2)),
        threshold=(0.2, 0.7),
    )
    (tmp_path / "base.onnx").write_bytes(replace_info(content, info))
    return tmp_path / "base.onnx"


def test_both_answer_as_they_do_alone(base: Path, sounds: Path, tmp_path: Path) -> None:
    alone = FitOptions(base=base, task="multi_label", cache=False)
    fit(sounds, tmp_path / "alone.onnx", alone)
    fit(sounds, tmp_path / "both.onnx", FitOptions(base=base, keep_base_labels=True, cache=False))
    old, own, both = map(earmark.load, (base, tmp_path / "alone.onnx", tmp_path / "both.onnx"))
    clip = next(sounds.glob("*/*.wav"))
    assert both.labels == ("Other", *own.labels), "an own label replaces that of the same name"
    found = both.tag(clip)
    np.testing.assert_allclose(found.scores[:1], old.tag(clip).scores[1:], atol=1e-5)
    np.testing.assert_allclose(found.scores[1:], own.tag(clip).scores, atol=1e-5)
    np.testing.assert_allclose(found.embedding, old.tag(clip).embedding, atol=1e-5)
    assert both.info.thresholds == pytest.approx((0.7, *own.info.thresholds))


def test_a_second_head_beside_the_first(base: Path, sounds: Path, tmp_path: Path) -> None:
    fit(sounds, tmp_path / "first.onnx", FitOptions(base=base, keep_base_labels=True, cache=False))
    renamed = write_folder(tmp_path / "more")
    (renamed / "hiss").rename(renamed / "sizzle")
    fit(
        renamed,
        tmp_path / "second.onnx",
        FitOptions(base=tmp_path / "first.onnx", keep_base_labels=True, cache=False),
    )
    first, second = earmark.load(tmp_path / "first.onnx"), earmark.load(tmp_path / "second.onnx")
    clip = next(sounds.glob("*/*.wav"))
    kept = [
        second.labels.index(label) for label in first.labels if label in second.labels and label != "tone"
    ]
    before = [first.labels.index(second.labels[number]) for number in kept]
    assert {"Other", "hiss"} <= {second.labels[number] for number in kept}
    assert "sizzle" in second.labels
    np.testing.assert_allclose(second.tag(clip).scores[kept], first.tag(clip).scores[before], atol=1e-5)


def test_labels_that_exclude_each_other_cannot_be_kept(toy_model: Path, sounds: Path, tmp_path: Path) -> None:
    content, info = read_model_file(toy_model)
    single = info.changed(task="single_label", calibration=None)
    (tmp_path / "single.onnx").write_bytes(replace_info(content, single))
    with pytest.raises(DataError, match="multi-label"):
        fit(sounds, tmp_path / "x.onnx", FitOptions(base=tmp_path / "single.onnx", keep_base_labels=True))
    with pytest.raises(DataError):
        FitOptions(keep_base_labels=True, task="single_label")


def test_data_are_added_and_clips_counted_once(sounds: Path, tmp_path: Path) -> None:
    more = write_folder(tmp_path / "more", clips=2)
    (more / "hiss").rename(more / "sizzle")
    both = merged([read_dataset(sounds), read_dataset(more), read_dataset(sounds)])
    first = read_dataset(sounds).counts()
    assert both.counts() == {**first, "tone": first["tone"] + 2, "sizzle": 2, "": first[""] + 2}
