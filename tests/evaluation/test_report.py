"""What an evaluation leaves behind, as files and as words."""

import csv
import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earmark.data.clip_table import read_clips
from earmark.data.manifest import Clip
from earmark.evaluation.evaluation import Evaluation, evaluate_predictions
from earmark.evaluation.predictions import Predictions
from earmark.evaluation.report import markdown_report, summary, write_report
from earmark.evaluation.run import origin
from earmark.version import __version__

MANIFEST = "path,labels\na.wav,tone\n"
LABELS = ("tone", "noise", "a|b", "hum")
SCORES = np.array([[0.9, 0.1, 0, 0], [0.2, 0.7, 0.1, 0], [0.5, 0.4, 0.1, 0], [0, 0, 0.3, 0.7]], np.float32)


def found(several: bool = False, traced: dict | None = None) -> Evaluation:
    named = ("tone", "noise", "noise", "a|b")
    clips = [
        Clip(
            Path(f"{number}.wav"),
            (label, *(["hum"] if several else [])),
            0,
            {"id": f"clip {number}", "device": "ab"[number // 2]},
        )
        for number, label in enumerate(named)
    ]
    failed = ((Clip(Path("bad.wav"), ("tone",)), "bad.wav: no audio"),)
    predictions = Predictions(tuple(clips), SCORES, failed)
    evaluation = evaluate_predictions(predictions, LABELS, "multi_label", group_by="device")
    return replace(evaluation, origin=traced or {})


@pytest.fixture
def traced(info, tmp_path):
    model, manifest = tmp_path / "toy.onnx", tmp_path / "clips.csv"
    model.write_bytes(b"model")
    manifest.write_text(MANIFEST)
    return origin(info, [model], read_clips(manifest), {"windows": "all", "fold": None, "group_by": "device"})


def test_json_report(traced, tmp_path):
    evaluation = found(traced=traced)
    write_report(evaluation, tmp_path / "out")
    reported = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert reported["overall"] == evaluation.overall
    assert reported["by_class"]["noise"] == evaluation.by_class["noise"]
    assert reported["by_group"] == evaluation.by_group
    assert reported["confusion"] == {
        "labels": list(LABELS),
        "table": [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0] * 4],
    }
    assert sum(reported["reliability"]["clips"]) == 4
    assert reported["clips"] == {
        "evaluated": 4,
        "failed": [{"id": "bad", "path": "bad.wav", "reason": "bad.wav: no audio"}],
    }
    assert reported["model"]["files"][0]["sha256"] == hashlib.sha256(b"model").hexdigest()
    assert reported["manifest"]["sha256"] == hashlib.sha256(MANIFEST.encode()).hexdigest()
    assert reported["versions"]["earmark"] == __version__
    assert {"numpy", "onnxruntime", "python"} <= set(reported["versions"])
    assert reported["settings"] == {"windows": "all", "fold": None, "group_by": "device"}


def test_score_files(traced, info, tmp_path):
    write_report(replace(found(traced=traced), info=info), tmp_path)
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        assert stored["id"].tolist() == [f"clip {number}" for number in range(4)]
        assert stored["labels"].tolist() == list(LABELS)
        np.testing.assert_array_equal(stored["scores"], SCORES)
        np.testing.assert_array_equal(stored["targets"], np.eye(4)[[0, 1, 1, 2]])
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["id", *LABELS]
    np.testing.assert_allclose([[float(cell) for cell in row[1:]] for row in rows], SCORES, atol=1e-6)


def test_markdown_report(traced, info, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    written = write_report(replace(found(traced=traced), info=info), tmp_path)
    assert all(path.stat().st_size > 0 for path in written)
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    for line in (
        "# toy",
        "4 clips were evaluated, 1 could not be read.",
        "- settings: windows all, group_by device",
        "| accuracy | 0.5000 |",
        "| 2 noise | 1 | 1 | 0 | 0 |",
        "| 3 a\\|b | 0 | 0 | 0 | 1 |",
        "- `bad`: bad.wav: no audio",
        "## By device",
    ):
        assert line in page.splitlines(), line
    pictures = sorted(tmp_path.glob("*.png"))
    assert [picture.name for picture in pictures] == [
        "average_precision.png",
        "confusion.png",
        "reliability.png",
    ]
    for picture in pictures:
        assert picture in written
        assert f"]({picture.name})" in page
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_report_of_several_labels_has_no_confusion(tmp_path):
    write_report(found(several=True), tmp_path)
    reported = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert not {"confusion", "reliability"} & set(reported)
    assert not {"confusion.png", "reliability.png"} & {path.name for path in tmp_path.iterdir()}
    assert "Confusion" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_without_the_extra_there_are_no_plots(traced, info, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("earmark.plots")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    written = write_report(replace(found(traced=traced), info=info), tmp_path)
    assert {path.name for path in written} == {"report.json", "report.md", "scores.npz", "scores.csv"}
    assert "![" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_console_summary():
    lines = summary(found()).splitlines()
    assert lines[:2] == ["clips                              4", "accuracy                           0.5000"]
    assert "group  clips  accuracy  log_loss  map_macro  auroc_macro  lwlrap" in lines
    assert lines[-1].startswith("b          2    0.0000")


def test_a_group_without_a_name_and_a_cell_without_a_value():
    evaluation = found()
    clips = [
        Clip(clip.path, clip.labels, 0, {"device": "" if clip.id == "clip 0" else "x"})
        for clip in evaluation.predictions.clips
    ]
    predictions = Predictions(tuple(clips), SCORES)
    page = markdown_report(evaluate_predictions(predictions, LABELS, "multi_label", group_by="device"))
    [row] = [line for line in page.splitlines() if line.startswith("| (none) | 1 |")]
    assert "|  |" in row
    assert "nan" not in page
