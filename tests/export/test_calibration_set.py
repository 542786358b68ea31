"""Calibration sets hold the inputs of a graph on clips, and measure its outputs as a tagger is evaluated."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import earmark
from earmark.data.manifest import Clip, read_manifest
from earmark.errors import AudioError, DataError
from earmark.evaluation.metrics import average_precision, macro
from earmark.export.calibration_set import CalibrationSet, collect, find_clips


def session_of(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def test_scores_are_those_of_a_tagger(toy_model: Path, manifest: Path, clip_set: CalibrationSet) -> None:
    tagger, clips = earmark.load(toy_model), read_manifest(manifest)
    expected = np.stack([tagger.tag(clip.path).scores for clip in clips])
    found = clip_set.scores(session_of(toy_model.read_bytes()))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert clip_set.num_clips == len(clips) < len(clip_set.inputs), "some are longer than a window"
    changed = found.copy()
    changed[:, 0] = 0.5
    first, second = (macro(average_precision(clip_set.targets, scores)) for scores in (expected, changed))
    assert clip_set.drop(expected, changed) == pytest.approx(first - second)
    assert clip_set.metric == "mAP"


def test_without_labels_the_drop_is_the_mean_largest_difference(clip_set: CalibrationSet) -> None:
    unlabelled = CalibrationSet(clip_set.info, clip_set.inputs, clip_set.clip_numbers, None)
    before = np.array([[0.5, 0.5], [0.1, 0.9]], np.float32)
    after = np.array([[0.4, 0.8], [0.1, 0.9]], np.float32)
    assert unlabelled.metric == "agreement"
    assert unlabelled.drop(before, after) == pytest.approx(0.15)


def test_single_label_models_are_measured_by_accuracy(clip_set: CalibrationSet) -> None:
    targets = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    info = clip_set.info.changed(task="single_label")
    single = CalibrationSet(info, clip_set.inputs, clip_set.clip_numbers, targets)
    right = np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]], np.float32)
    assert single.metric == "accuracy"
    assert single.drop(right, right[:, ::-1]) == 1.0
    assert single.drop(right, np.array([[0.9, 0.1], [0.6, 0.4], [0.9, 0.1]], np.float32)) == 0.5


def test_clips_need_every_label(info, manifest: Path, tmp_path: Path) -> None:
    only = tmp_path / "only.csv"
    lines = [line for line in manifest.read_text(encoding="utf-8").splitlines() if ",noise," not in line]
    only.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match="noise"):
        find_clips([only], info, manifest.parent)
    unlabelled = find_clips([manifest.parent, manifest.parent / "quiet_0.wav"], info)
    assert len(unlabelled) == 23
    assert not any(clip.labelled for clip in unlabelled)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="empty"):
        find_clips([tmp_path / "empty"], info)


def test_a_clip_that_cannot_be_read_is_an_error(toy_model: Path, info, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"a\.wav"):
        collect(session_of(toy_model.read_bytes()), info, [Clip(tmp_path / "a.wav", (), labelled=False)])
