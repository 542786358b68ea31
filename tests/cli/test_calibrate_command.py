"""``earmark calibrate``: a model and held-out clips to a model whose scores are probabilities."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy
from one_line import assert_one_line

import earmark
from earmark.data.manifest import read_manifest, targets
from earmark.evaluation import metrics
from earmark.model_file.calibration import Platt, Temperature
from earmark.model_file.onnx_file import read_info, read_model_file
from earmark.models.checkpoint import load_checkpoint, save_checkpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tones and six noises in each of two folds."""
    return toy.write_clips(tmp_path_factory.mktemp("held_out"), clips_per_fold=12, quiet=0)


def metrics_of(out: str) -> dict[str, list[float]]:
    """Metrics before and after."""
    lines = [line.split() for line in out.split("\n\n")[1].splitlines()]
    assert lines[0] == ["before", "after"]
    return {name: [float(value) for value in values] for name, *values in lines[1:]}


def scores_of(model: Path, manifest: Path) -> tuple[np.ndarray, np.ndarray]:
    tagger, clips = earmark.load(model), read_manifest(manifest)
    return targets(clips, tagger.labels), np.stack([tagger.tag(clip.path).scores for clip in clips])


def test_a_model_file_is_calibrated_without_pytorch(
    run: Run, toy_model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("earmark.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    out = tmp_path / "made" / "toy.onnx"
    report = tmp_path / "report"
    code, printed, err = run(
        "calibrate",
        manifest,
        "-m",
        toy_model,
        "--threshold-target",
        "f1",
        "--output",
        out,
        "--report",
        report,
        "--quiet",
    )
    assert (code, err) == (0, "")
    truth, raw = scores_of(toy_model, manifest)
    assert metrics_of(printed)["binary_log_loss"][0] == pytest.approx(
        metrics.binary_log_loss(truth, raw), abs=1e-4
    )
    assert metrics_of(printed)["binary_brier"][0] == pytest.approx(metrics.binary_brier(truth, raw), abs=1e-4)
    info = read_info(out)
    assert isinstance(info.calibration, Platt)
    assert info.calibration.fitted_on["clips"] == 24
    assert info.calibration.fitted_on["manifest"] == "clips.csv"
    assert len(info.threshold) == 2
    assert "## Calibration" in info.card
    content, _ = read_model_file(toy_model)
    assert read_model_file(out)[0][:1000] == content[:1000]
    assert scores_of(out, manifest)[1] != pytest.approx(raw)
    numbers = json.loads((report / "calibration.json").read_text(encoding="utf-8"))
    assert numbers["thresholds"] == dict(zip(info.labels, info.threshold, strict=True))


def test_results_of_a_calibrated_model(run: Run, toy_model: Path, manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy.onnx"
    assert (
        run("calibrate", manifest, "-m", toy_model, "--method", "shared", "--output", out, "--quiet")[0] == 0
    )
    clip = manifest.parent / "fold1_0_tone.wav"
    _, table, _ = run("tag", clip, "--model", out)
    assert ", probabilities)" in table
    _, found, _ = run("tag", clip, "--model", out, "--format", "json", "--threshold", "auto")
    assert json.loads(found)[0]["calibrated"] is True
    assert "calibration: platt" in run("info", out)[1]
    truth, after = scores_of(out, manifest)
    _, evaluated, _ = run("evaluate", manifest, "-m", out)
    values = dict(line.split() for line in evaluated.split("\n\n")[1].splitlines())
    assert float(values["binary_brier"]) == pytest.approx(metrics.binary_brier(truth, after), abs=1e-4)
    recalled = metrics.macro(metrics.recall(truth, after, read_info(out).threshold))
    assert float(values["recall_at_threshold_macro"]) == pytest.approx(recalled, abs=1e-4)


def test_a_checkpoint_stays_one(run: Run, info, manifest: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "toy.safetensors", tmp_path / "out.safetensors"
    own = info.changed(task="single_label", threshold=0.5)
    predictions = {}
    for labels in (own.labels, own.labels[::-1]):  # of random weights, one names clips better than by chance
        save_checkpoint(path, toy.lively_network(own), own.changed(labels=labels))
        code, *predictions[code] = run("calibrate", manifest, "-m", path, "--test-fold", 2, "--output", out)
    assert_one_line(predictions[2][1])
    assert "warning: " in predictions[0][1], "the threshold is dropped"
    _, made = load_checkpoint(out)
    assert isinstance(made.calibration, Temperature)
    assert made.calibration.fitted_on["clips"] == 12
    assert made.threshold is None


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "temperature"],
        ["--threshold-target", "auc"],
        ["--fold", "3"],
        ["--fold", "1", "--test-fold", "1"],
        ["--output", "x.safetensors"],
    ],
)
def test_bad_calibrations_are_one_line(
    run: Run, toy_model: Path, manifest: Path, tmp_path: Path, options: list[str]
) -> None:
    output = [] if "--output" in options else ["--output", tmp_path / "out.onnx"]
    code, out, err = run("calibrate", manifest, "-m", toy_model, *options, *output)
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert not list(tmp_path.iterdir())


def test_clips_that_lack_a_class_are_refused_before_they_are_read(
    run: Run, toy_model: Path, tmp_path: Path
) -> None:
    table = tmp_path / "clips.csv"
    table.write_text("path,labels\n" + "".join(f"missing{n}.wav,tone\n" for n in range(6)), encoding="utf-8")
    code, _, err = run("calibrate", table, "-m", toy_model, "--output", tmp_path / "out.onnx")
    assert code == 2
    assert_one_line(err, "noise")


def test_a_clip_that_cannot_be_read_is_named(
    run: Run, toy_model: Path, manifest: Path, tmp_path: Path
) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(manifest.read_text(encoding="utf-8") + "gone.wav,tone,1,,,,,\n", encoding="utf-8")
    out = tmp_path / "out.onnx"
    code, printed, err = run("calibrate", table, "-m", toy_model, "--audio", manifest.parent, "--output", out)
    assert code == 1
    assert "gone.wav" in err
    assert "24 clips" in printed
    assert out.is_file()


def test_splits_of_a_corpus(run: Run, toy_model: Path, manifest: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    for clip in read_manifest(manifest):
        path = corpus / f"part{clip.fold}" / clip.labels[0] / clip.path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip.path.read_bytes())
    chosen = ("--corpus", "folders", "--split", "part1", "--test-split", "part2", "-m", toy_model, "--quiet")
    code, out, err = run("calibrate", corpus, *chosen, "-o", tmp_path / "a.onnx")
    assert (code, err) == (0, "")
    by_fold = run(
        "calibrate", manifest, "--fold", 1, "--test-fold", 2, "-m", toy_model, "-o", tmp_path / "b.onnx"
    )
    assert metrics_of(out) == metrics_of(by_fold[1])
    fitted_on = read_info(tmp_path / "a.onnx").calibration.fitted_on
    assert (fitted_on["clips"], fitted_on["manifest"]) == (12, "folders part1")
    code, _, err = run(
        "calibrate", manifest, "--test-split", "part2", "-m", toy_model, "-o", tmp_path / "c.onnx"
    )
    assert code == 2
    assert_one_line(err, "part2")
