"""``earmark evaluate``: a model and a manifest to numbers, files and exit codes."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import corpora_toys
import numpy as np
import pytest
import soundfile
import toy

import earmark
from earmark.data.manifest import read_manifest, targets
from earmark.evaluation import metrics
from earmark.model_file.info import ModelInfo
from earmark.model_file.labels import label_set
from earmark.models.checkpoint import save_checkpoint

Run = Callable[..., tuple[int, str, str]]
RATE = toy.SAMPLE_RATE


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tones and four noises in each of two folds."""
    return toy.write_clips(tmp_path_factory.mktemp("evaluated"), quiet=0)


@pytest.fixture(scope="session")
def checkpoint(info, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that needs no export, whose classes exclude each other."""
    path = tmp_path_factory.mktemp("checkpoint") / "toy.safetensors"
    info = info.changed(task="single_label", threshold=None)
    save_checkpoint(path, toy.lively_network(info), info)
    return path


def table(path: Path, *rows: tuple) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def numbers(out: str) -> dict[str, float]:
    """What stands on the console of all clips."""
    lines = out.split("\n\n")[1].splitlines()
    return {name: float(value) for name, value in (line.split() for line in lines)}


def scores_of(model: Path, manifest: Path) -> tuple[np.ndarray, np.ndarray]:
    tagger, clips = earmark.load(model), read_manifest(manifest)
    return targets(clips, tagger.labels), np.stack([tagger.tag(clip.path).scores for clip in clips])


def test_a_checkpoint_is_evaluated(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "evaluate", manifest, "-m", checkpoint, "--group-by", "license", "--output", tmp_path / "report"
    )
    assert (code, err) == (0, "")
    truth, scores = scores_of(checkpoint, manifest)
    values = numbers(out)
    assert values["clips"] == 16
    assert values["accuracy"] == pytest.approx(metrics.accuracy(truth, scores), abs=1e-4)
    assert values["log_loss"] == pytest.approx(metrics.log_loss(truth, scores), abs=1e-4)
    assert [line.split()[0] for line in out.split("\n\n")[2].splitlines()] == [
        "group",
        "CC-BY",
        "CC-BY-NC",
        "CC0",
    ]
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["overall"]["accuracy"] == values["accuracy"]
    assert report["model"]["files"][0]["path"] == str(checkpoint)
    assert report["settings"]["group_by"] == "license"
    assert "torch" in report["versions"]
    with np.load(tmp_path / "report" / "scores.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(stored["scores"], scores, rtol=0, atol=1e-6)


def test_a_fold_or_a_few_clips_only(run: Run, checkpoint: Path, manifest: Path) -> None:
    truth, scores = scores_of(checkpoint, manifest)
    _, out, _ = run("evaluate", manifest, "-m", checkpoint, "--fold", 2)
    assert numbers(out)["clips"] == 8
    assert numbers(out)["log_loss"] == pytest.approx(metrics.log_loss(truth[8:], scores[8:]), abs=1e-4)
    assert numbers(run("evaluate", manifest, "-m", checkpoint, "--limit", 5)[1])["clips"] == 5


def corpus_of(manifest: Path, folder: Path) -> Path:
    """The clips of a manifest as a corpus with a folder for each class."""
    for clip in read_manifest(manifest):
        path = folder / "held_out" / clip.labels[0] / clip.path.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip.path.read_bytes())
    return folder


def test_a_corpus_is_evaluated(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    corpus = corpus_of(manifest, tmp_path / "corpus")
    chosen = ("--corpus", "folders", "--split", "held_out")
    code, out, err = run("evaluate", corpus, *chosen, "-m", checkpoint, "-o", tmp_path / "r")
    assert (code, err) == (0, "")
    assert numbers(out) == numbers(run("evaluate", manifest, "-m", checkpoint)[1])
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert report["manifest"]["path"] == str(corpus)
    assert report["manifest"]["corpus"] == "folders held_out"
    assert f"- corpus folders held_out: `{corpus}`" in (tmp_path / "r" / "report.md").read_text("utf-8")


def test_a_corpus_with_unknown_labels_is_evaluated(run: Run, info: ModelInfo, tmp_path: Path) -> None:
    corpora_toys.make_openmic(tmp_path / "openmic")
    info = info.changed(labels=label_set("openmic"), threshold=None)
    save_checkpoint(tmp_path / "toy.safetensors", toy.lively_network(info), info)
    chosen = ("--corpus", "openmic", "--split", "test", "-o", tmp_path / "r")
    code, out, err = run("evaluate", tmp_path / "openmic", *chosen, "-m", tmp_path / "toy.safetensors")
    assert (code, err) == (0, "")
    assert numbers(out)["clips"] == 4
    with np.load(tmp_path / "r" / "scores.npz", allow_pickle=False) as stored:
        truth, scores = stored["targets"], stored["scores"]
    assert np.isnan(truth).sum() == 16
    assert numbers(out)["map_macro"] == pytest.approx(
        metrics.macro(metrics.average_precision(truth, scores)), abs=1e-4
    )


def test_clips_are_cut_or_filled_up(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    chosen = ("--crop-to", 0.6, "--pad-to", 0.45, "--windows", "whole", "-o", tmp_path)
    assert run("evaluate", manifest, "-m", checkpoint, *chosen)[0] == 0
    tagger, expected = earmark.load(checkpoint), []
    for clip in read_manifest(manifest):
        waveform = soundfile.read(clip.path, dtype="float32")[0][: round(0.6 * RATE)]
        waveform = np.pad(waveform, (0, max(0, round(0.45 * RATE) - len(waveform))))
        assert 3600 <= len(waveform) <= 4800
        expected.append(tagger.tag(waveform, RATE, window_s=len(waveform) / RATE).scores)
    with np.load(tmp_path / "scores.npz", allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["scores"], np.stack(expected))
    settings = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["crop_to_s"], settings["pad_to_s"]) == (0.6, 0.45)
    for wrong in ("0", "-1", "nan"):
        assert run("evaluate", manifest, "-m", checkpoint, "--pad-to", wrong)[0] == 2


def test_a_pack_of_another_rate_is_not_silent(
    run: Run, checkpoint: Path, manifest: Path, tmp_path: Path
) -> None:
    for rate in (RATE, RATE // 2):
        pack = tmp_path / str(rate)
        assert run("pack", manifest, "--sample-rate", rate, "-o", pack, "--workers", 1, "-q")[0] == 0
        code, out, err = run("evaluate", pack, "-m", checkpoint)
        assert (code, numbers(out)["clips"]) == (0, 16)
        assert err.count("\n") == (rate != RATE)
    assert err.startswith("earmark: warning: ")
    assert "4000 Hz" in err


def test_masked_passes_are_seeded(run: Run, checkpoint: Path, manifest: Path) -> None:
    def losses(*options: object) -> float:
        code, out, err = run("evaluate", manifest, "-m", checkpoint, *options)
        assert (code, err) == (0, "")
        return numbers(out)["log_loss"]

    masked = ("--tta", 4, "--tta-frames", 20, "--tta-mels", 9)
    plain, first = losses(), losses(*masked)
    assert losses(*masked) == first
    assert losses(*masked, "--seed", 1) != first
    assert losses("--tta", 1, "--tta-frames", 1, "--tta-mels", 1) == pytest.approx(plain, abs=1e-4)
    assert first != pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize("windows", ["all", "whole", "center"])
def test_windows(run: Run, checkpoint: Path, manifest: Path, windows: str) -> None:
    plain = numbers(run("evaluate", manifest, "-m", checkpoint)[1])
    code, out, err = run("evaluate", manifest, "-m", checkpoint, "--windows", windows)
    assert (code, err) == (0, "")
    same = windows == "all"  # classes exclude each other: the mean is what the tagger takes
    assert (numbers(out) == plain) == same


def test_a_bad_clip_is_named_and_counted(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    good = read_manifest(manifest)[0].path
    (tmp_path / "bad.wav").write_text("no audio")
    mixed = table(
        tmp_path / "m.csv", ("path", "labels"), (good, "tone"), ("bad.wav", "noise"), ("no.wav", "tone")
    )
    code, out, err = run("evaluate", mixed, "-m", checkpoint, "--output", tmp_path / "r", "--quiet")
    assert code == 1
    assert err.count("\n") == 2
    assert "bad.wav" in err.splitlines()[0]
    assert "no.wav" in err.splitlines()[1]
    assert numbers(out)["clips"] == 1
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert [one["id"] for one in report["clips"]["failed"]] == ["bad", "no"]
    none = table(tmp_path / "n.csv", ("path", "labels"), ("bad.wav", "noise"))
    code, out, err = run("evaluate", none, "-m", checkpoint, "--output", tmp_path / "none")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("rows", "options"),
    [
        ([("x.wav", "dog")], []),
        ([("x.wav", "dog"), ("y.wav", "tone")], []),
        ([("x.wav", "")], []),
        ([("x.wav", "tone")], ["--group-by", "device"]),
        ([("x.wav", "tone")], ["--dcase", "a/b"]),
        ([("x.wav", "tone")], ["--tta-mels", "9"]),
        ([("x.wav", "tone")], ["--fold", "3"]),
        ([("x.wav", "tone")], ["--split", "test"]),
        ([("x.wav", "tone")], ["--corpus", "esc50"]),
    ],
)
def test_bad_datasets_are_one_line(
    run: Run, checkpoint: Path, tmp_path: Path, rows: list, options: list
) -> None:
    code, out, err = run(
        "evaluate", table(tmp_path / "m.csv", ("path", "labels"), *rows), "-m", checkpoint, *options
    )
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "x.wav" not in err, "no clip was opened"


def test_missing_things_are_one_line(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    for arguments in (
        (tmp_path / "none.csv", "-m", checkpoint),
        (manifest, "-m", tmp_path / "none.safetensors"),
        (manifest, "-m", "mn04"),
    ):
        code, out, err = run("evaluate", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments


def test_recordings_may_lie_elsewhere(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    clip = read_manifest(manifest)[0].path
    moved = table(tmp_path / "m.csv", ("path", "labels"), (clip.name, "tone"))
    assert run("evaluate", moved, "-m", checkpoint)[0] == 2
    assert run("evaluate", moved, "-m", checkpoint, "--audio", clip.parent)[0] == 0


def test_dcase_files(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    named = ("-m", checkpoint, "--dcase", "King_XY_1", "--output", tmp_path)
    code, _, err = run("evaluate", manifest, *named, "--author", "Ada King", "--group-by", "license")
    assert code == 0
    files = [tmp_path / "King_XY_1.development.output.csv", tmp_path / "King_XY_1.meta.yaml"]
    assert err == f"wrote {files[0]}, {files[1]}\n"
    rows = list(csv.DictReader(io.StringIO(files[0].read_text()), delimiter="\t"))
    assert len(rows) == 16
    assert set(rows[0]) == {"filename", "scene_label", "tone", "noise"}
    meta = files[1].read_text(encoding="utf-8")
    assert 'lastname: "King"' in meta
    assert "device_wise:" in meta
    unlabelled = table(
        tmp_path / "u.csv", ("path", "labels"), *((clip.path, "") for clip in read_manifest(manifest))
    )
    code, out, err = run("evaluate", unlabelled, *named, "--quiet")
    assert (code, numbers(out), err) == (0, {"clips": 16}, "")
    assert (tmp_path / "King_XY_1.output.csv").read_text() == files[0].read_text()
    assert files[1].read_text(encoding="utf-8") == meta


def test_a_model_file_is_evaluated_without_pytorch(
    run: Run, toy_model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("earmark.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = run(
        "evaluate", manifest, "-m", toy_model, "--tta", 2, "--output", tmp_path, "--threads", 1
    )
    assert (code, err) == (0, "")
    assert numbers(out)["clips"] == 16
    settings = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["settings"]
    assert settings["masks"] == [{"frames": 128, "frame_stripes": 2, "mels": 32, "mel_stripes": 2}]
    assert (settings["passes"], settings["seed"]) == (2, 0)
    assert run("evaluate", manifest, "-m", toy_model, "--dcase", "x")[0] == 2, "labels may co-occur"


def test_members_of_an_ensemble_are_masked_separately(
    run: Run, toy_single_label_model: Path, checkpoint: Path, manifest: Path
) -> None:
    """The same weights as a model file and as a checkpoint, of the same scores."""
    alone = numbers(run("evaluate", manifest, "-m", checkpoint, "--tta", 3)[1])
    _, out, _ = run("evaluate", manifest, "-m", toy_single_label_model, "-m", checkpoint, "--tta", 3)
    assert numbers(out) == pytest.approx(alone, abs=2e-4)


def test_a_submission_has_a_prediction_for_each_clip(run: Run, toy_model: Path, tmp_path: Path) -> None:
    code, _, err = run("evaluate", tmp_path, "-m", toy_model, "--dcase", "a", "--pooling", "none")
    assert code == 2
    assert "--pooling none" in err


def test_windows_of_long_clips_are_pooled(run: Run, toy_model: Path, tmp_path: Path) -> None:
    noise = np.geomspace(1e-3, 0.5, 2 * RATE) * np.random.default_rng(0).standard_normal(2 * RATE)
    soundfile.write(tmp_path / "long.wav", noise, RATE)
    manifest = table(tmp_path / "m.csv", ("path", "labels"), ("long.wav", "noise"))
    windows = np.stack(
        [window.scores for window in earmark.load(toy_model).tag(tmp_path / "long.wav").windows]
    )
    for option, wanted in (([], windows.max(0)), (["--pooling", "mean"], windows.mean(0))):
        assert (
            run("evaluate", manifest, "-m", toy_model, *option, "--output", tmp_path / "r", "--quiet")[0] == 0
        )
        with np.load(tmp_path / "r" / "scores.npz", allow_pickle=False) as stored:
            np.testing.assert_allclose(stored["scores"][0], wanted, rtol=0, atol=1e-6)
