"""``earmark evaluate``: a model and a manifest to numbers, files and exit codes."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy

import earmark
from earmark.data.manifest import read_manifest, targets
from earmark.evaluation import metrics
from earmark.models.checkpoint import save_checkpoint

Run = Callable[..., tuple[int, str, str]]
RATE = toy.SAMPLE_RATE


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tones and four noises in each of two folds."""
    return toy.write_clips(tmp_path_factory.mktemp("judged"), quiet=0)


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


def test_a_checkpoint_is_judged(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    code, out, err = run("evaluate", checkpoint, manifest, "--by", "license", "--out", tmp_path / "report")
    assert (code, err) == (0, "")
    truth, scores = scores_of(checkpoint, manifest)
    told = numbers(out)
    assert told["clips"] == 16
    assert told["accuracy"] == pytest.approx(metrics.accuracy(truth, scores), abs=1e-4)
    assert told["log_loss"] == pytest.approx(metrics.log_loss(truth, scores), abs=1e-4)
    assert [line.split()[0] for line in out.split("\n\n")[2].splitlines()] == [
        "group",
        "CC-BY",
        "CC-BY-NC",
        "CC0",
    ]
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["overall"]["accuracy"] == told["accuracy"]
    assert report["model"]["files"][0]["path"] == str(checkpoint)
    assert report["settings"]["by"] == "license"
    assert "torch" in report["versions"]
    with np.load(tmp_path / "report" / "scores.npz", allow_pickle=False) as stored:
        np.testing.assert_allclose(stored["scores"], scores, rtol=0, atol=1e-6)


def test_a_fold_or_a_few_clips_only(run: Run, checkpoint: Path, manifest: Path) -> None:
    truth, scores = scores_of(checkpoint, manifest)
    _, out, _ = run("evaluate", checkpoint, manifest, "--fold", 2)
    assert numbers(out)["clips"] == 8
    assert numbers(out)["log_loss"] == pytest.approx(metrics.log_loss(truth[8:], scores[8:]), abs=1e-4)
    assert numbers(run("evaluate", checkpoint, manifest, "--limit", 5)[1])["clips"] == 5
    code, out, err = run("evaluate", checkpoint, manifest, "--fold", 3)
    assert (code, out) == (2, "")
    assert err == "earmark: no clip of the manifest has fold 3: it has 1, 2\n"


def test_masked_passes_are_seeded(run: Run, checkpoint: Path, manifest: Path) -> None:
    def losses(*options: object) -> float:
        code, out, err = run("evaluate", checkpoint, manifest, *options)
        assert (code, err) == (0, "")
        return numbers(out)["log_loss"]

    masked = ("--tta", 4, "--tta-frames", 20, "--tta-mels", 9)
    plain, first = losses(), losses(*masked)
    assert losses(*masked) == first
    assert losses(*masked, "--seed", 1) != first
    assert losses("--tta", 1, "--tta-frames", 1, "--tta-mels", 1) == pytest.approx(plain, abs=1e-4)
    assert first != pytest.approx(plain, abs=1e-4)
    code, _, err = run("evaluate", checkpoint, manifest, "--tta-mels", 9)
    assert (code, "give --tta too" in err) == (2, True)


@pytest.mark.parametrize("way", ["--windows", "--whole", "--center"])
def test_ways_to_hear(run: Run, checkpoint: Path, manifest: Path, way: str) -> None:
    plain = numbers(run("evaluate", checkpoint, manifest)[1])
    code, out, err = run("evaluate", checkpoint, manifest, way)
    assert (code, err) == (0, "")
    same = way == "--windows"  # classes exclude each other: the mean is what the tagger takes
    assert (numbers(out) == plain) == same
    code, _, err = run("evaluate", checkpoint, manifest, way, "--whole", "--center")
    assert code == 2
    assert "exclude each other" in err


def test_a_bad_clip_is_named_and_counted(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    good = read_manifest(manifest)[0].path
    (tmp_path / "bad.wav").write_text("no audio")
    mixed = table(
        tmp_path / "m.csv", ("path", "labels"), (good, "tone"), ("bad.wav", "noise"), ("no.wav", "tone")
    )
    code, out, err = run("evaluate", checkpoint, mixed, "--out", tmp_path / "r", "--quiet")
    assert code == 1
    assert err.count("\n") == 2
    assert "bad.wav" in err.splitlines()[0]
    assert "no.wav" in err.splitlines()[1]
    assert numbers(out)["clips"] == 1
    report = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert [one["id"] for one in report["clips"]["failed"]] == ["bad", "no"]
    none = table(tmp_path / "n.csv", ("path", "labels"), ("bad.wav", "noise"))
    code, out, err = run("evaluate", checkpoint, none, "--out", tmp_path / "none")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([("x.wav", "dog")], [], "none of them fits"),
        ([("x.wav", "dog"), ("y.wav", "tone")], [], "a label that the model does not know: 'dog'"),
        ([("x.wav", "")], [], "no clip to judge by has a label"),
        ([("x.wav", "tone")], ["--by", "device"], "no column 'device' to group by"),
        ([("x.wav", "tone")], ["--dcase", "a/b"], "'a/b' is no name"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    run: Run, checkpoint: Path, tmp_path: Path, rows: list, options: list, said: str
) -> None:
    code, out, err = run(
        "evaluate", checkpoint, table(tmp_path / "m.csv", ("path", "labels"), *rows), *options
    )
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert "x.wav" not in err, "no clip was opened"


def test_missing_things_are_one_line(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    for arguments in (
        (checkpoint, tmp_path / "none.csv"),
        (tmp_path / "none.safetensors", manifest),
        ("mn04", manifest),
    ):
        code, out, err = run("evaluate", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), arguments


def test_recordings_may_lie_elsewhere(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    clip = read_manifest(manifest)[0].path
    moved = table(tmp_path / "m.csv", ("path", "labels"), (clip.name, "tone"))
    assert run("evaluate", checkpoint, moved)[0] == 2
    assert run("evaluate", checkpoint, moved, "--audio", clip.parent)[0] == 0


def test_the_challenge_has_its_files(run: Run, checkpoint: Path, manifest: Path, tmp_path: Path) -> None:
    code, _, err = run(
        "evaluate",
        checkpoint,
        manifest,
        "--dcase",
        "King_XY_1",
        "--author",
        "Ada King",
        "--out",
        tmp_path,
        "--by",
        "license",
    )
    assert (code, err) == (0, "")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "King_XY_1.output.csv").read_text()), delimiter="\t"))
    assert len(rows) == 16
    assert set(rows[0]) == {"filename", "scene_label", "tone", "noise"}
    meta = (tmp_path / "King_XY_1.meta.yaml").read_text(encoding="utf-8")
    assert 'lastname: "King"' in meta
    assert "device_wise:" in meta
    unlabelled = table(
        tmp_path / "u.csv", ("path", "labels"), *((clip.path, "") for clip in read_manifest(manifest))
    )
    code, out, err = run("evaluate", checkpoint, unlabelled, "--dcase", "none", "--out", tmp_path)
    assert code == 0
    assert (numbers(out), err) == ({"clips": 16}, "")
    assert (tmp_path / "none.output.csv").read_text() == (tmp_path / "King_XY_1.output.csv").read_text()


def test_a_model_file_is_judged_without_pytorch(
    run: Run, toy_model: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("earmark.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = run("evaluate", toy_model, manifest, "--tta", 2, "--out", tmp_path, "--threads", 1)
    assert (code, err) == (0, "")
    assert numbers(out)["clips"] == 16
    settings = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["settings"]
    assert settings["masks"] == [{"frames": 128, "frame_stripes": 2, "mels": 32, "mel_stripes": 2}]
    assert (settings["tta"], settings["seed"]) == (2, 0)
    code, _, err = run("evaluate", toy_model, manifest, "--dcase", "x")
    assert code == 2
    assert "co-occur" in err


def test_members_are_masked_each_by_itself(
    run: Run, toy_single_label_model: Path, checkpoint: Path, manifest: Path
) -> None:
    """The same weights as a model file and as a checkpoint, of which the manifest's clips are heard alike."""
    alone = numbers(run("evaluate", checkpoint, manifest, "--tta", 3)[1])
    _, out, _ = run("evaluate", f"{toy_single_label_model}+{checkpoint}", manifest, "--tta", 3)
    assert numbers(out) == pytest.approx(alone, abs=2e-4)


def test_long_clips_vote(run: Run, toy_model: Path, tmp_path: Path) -> None:
    noise = np.geomspace(1e-3, 0.5, 2 * RATE) * np.random.default_rng(0).standard_normal(2 * RATE)
    soundfile.write(tmp_path / "long.wav", noise, RATE)
    manifest = table(tmp_path / "m.csv", ("path", "labels"), ("long.wav", "noise"))
    windows = np.stack(
        [window.scores for window in earmark.load(toy_model).tag(tmp_path / "long.wav").windows]
    )
    for option, wanted in (([], windows.max(0)), (["--windows"], windows.mean(0))):
        assert run("evaluate", toy_model, manifest, *option, "--out", tmp_path / "r", "--quiet")[0] == 0
        with np.load(tmp_path / "r" / "scores.npz", allow_pickle=False) as stored:
            np.testing.assert_allclose(stored["scores"][0], wanted, rtol=0, atol=1e-6)
