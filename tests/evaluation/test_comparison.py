"""A report compares models, and names the one to ship by its rule."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

import earmark
from earmark.evaluation import comparison
from earmark.evaluation.comparison import Entry, Size
from earmark.evaluation.speed import Setting, Speed
from earmark.hub import registry
from earmark.inference import engines

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "siren_and_bell.ogg"


def line(model: str, clip_s: float, accuracy: float | None, precision: str = "fp32") -> Entry:
    scores = (
        {} if accuracy is None else {"clips": 8, "accuracy": accuracy, "log_loss": 0.5, "binary_brier": 0.1}
    )
    setting = Setting(model, "openvino", precision, 1)
    own = Speed(clip_s / 2, clip_s, clip_s / 20, clip_s / 10, 1.5)
    return Entry(setting, Size(2_500_000, "fp32"), own, 90_000_000, scores)


def test_the_recommended_entry() -> None:
    lines = [line("a.onnx", 0.05, 0.900), line("b.onnx", 0.03, 0.896), line("c.onnx", 0.01, 0.894)]
    assert comparison.recommended(lines) is lines[1]
    assert comparison.recommended([replace(one, scores={}) for one in lines]).setting.model == "c.onnx"
    assert (
        "b with --engine openvino --precision fp32 --threads 1, the fastest within 0.005 of the best score"
        in (comparison.summary(lines))
    )


def test_comparison_table() -> None:
    head, *rows = comparison.table([line("some/a.onnx", 0.05, 0.9), line("b", 0.03, None, "bf16")])
    first, second = (dict(zip(head, row, strict=True)) for row in rows)
    assert first["model"] == "a (fp32)"
    assert (first["file, MB"], first["peak, MB"], first["clip, ms"], first["faster"]) == (
        "2.50",
        "90",
        "50.0",
        "1.50 x",
    )
    assert (first["accuracy"], first["log loss"], first["parameters, M"]) == ("0.9000", "0.5000", "")
    assert "binary Brier" not in head, "each clip has one label, so calibration is measured by clip"
    assert (second["engine"], second["accuracy"], second[""]) == ("openvino bf16", "", "")
    assert first[""] == "*"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "clips.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("path", "labels", "fold"), (EXAMPLE, "tone", 1), ("none.ogg", "noise", 2)]
        )
    return path


def test_a_report_is_written_and_printed(
    run, manifest: Path, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(toy_model)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)  # as if OpenVINO were not there
    out = tmp_path / "out"
    options = ("--fold", 1, "--threads", 1, "--rounds", 1, "--output", out)
    code, printed, error = run("report", model, "--dataset", manifest, *options)
    assert (code, error) == (0, "")
    reported = json.loads((out / "report.json").read_text())
    [only] = reported["entries"]
    assert only["file_bytes"] == toy_model.stat().st_size
    assert (only["model"], only["engine"], only["stored"]) == (model, "onnx", "fp32")
    assert only["scores"]["clips"] == 1
    best = earmark.load(toy_model).tag(EXAMPLE).tags[0].label
    assert only["scores"]["accuracy"] == (best == "tone")
    assert reported["recommended"]["setting"]["model"] == model
    assert reported["manifest"]["path"] == str(manifest)
    assert only["clip_s"] > 0
    assert only["peak_bytes"] > 30e6
    assert "recommended (*): toy with --engine onnx --precision fp32 --threads 1" in printed
    assert "| accuracy |" in (out / "report.md").read_text()
    pytest.importorskip("matplotlib", reason="earmark[plot] is not installed")
    assert (out / "tradeoff.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_manifest_there_are_no_scores(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    code, printed, _ = run("report", registry.DEFAULT, "--threads", 1, "--rounds", 1, "--json")
    [only] = json.loads(printed)["entries"]
    assert (code, only["scores"]) == (0, {})


def test_bench_measures_installed_engines(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    code, printed, error = run("bench", "--threads", 1, "--rounds", 1)
    assert (code, error) == (0, "")
    assert "fastest here: --engine onnx --precision fp32 --threads 1" in printed
    code, printed, _ = run("bench", "--threads", 1, "--rounds", 1, "--json", "--recording", EXAMPLE)
    reported = json.loads(printed)
    assert reported["clip"] == str(EXAMPLE)
    assert reported["settings"][0]["clip_factor"] == pytest.approx(
        reported["settings"][0]["clip_s"] / 12, rel=1e-3
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing_like_it",), "nothing_like_it"),
        ((registry.DEFAULT, "--dataset", "nowhere.csv"), "nowhere.csv"),
        (("some.safetensors",), "some.safetensors"),
    ],
)
def test_errors_of_a_comparison_are_one_line(run, arguments: tuple[str, ...], message: str) -> None:
    code, printed, error = run("report", *arguments)
    assert (code, printed) == (2, "")
    assert message in error
    assert error.count("\n") == 1
