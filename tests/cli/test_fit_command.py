"""``earmark fit``: own recordings in, a model file out."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy
from one_line import assert_one_line

import earmark

pytest.importorskip("scipy")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for number in range(5):
        for folder, kind in (("tone", "tone"), ("hiss", "noise")):
            path = tmp_path / "own" / folder / f"x{number:03d}x.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, toy.sound(kind, generator), toy.SAMPLE_RATE)
    return tmp_path / "own"


def test_a_folder_becomes_a_tagger(run: Run, toy_model: Path, sounds: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "own.onnx", tmp_path / "report"
    code, printed, err = run(
        "fit", sounds, "--output", out, "--base", toy_model, "--report", report, "--no-augment"
    )
    assert code == 0, err
    assert "2 classes, 10 clips" in printed
    assert earmark.load(out).labels == ("hiss", "tone")
    assert (report / "index.html").is_file()
    code, printed, _ = run("tag", "-m", out, sounds / "tone" / "x000x.wav", "--format", "jsonl")
    assert code == 0
    assert json.loads(printed)["tags"][0]["label"] == "tone"


def test_check_writes_nothing_and_names_what_is_wrong(run: Run, toy_model: Path, sounds: Path) -> None:
    (sounds / "tone" / "broken.wav").write_bytes(b"no sound")
    before = sorted(sounds.rglob("*"))
    code, printed, err = run("fit", sounds, "--check", "--base", toy_model, "--no-augment")
    assert code == 1  # a clip could not be read
    assert "broken.wav" in printed
    assert not err
    assert sorted(sounds.rglob("*")) == before


def test_json_is_the_report(run: Run, toy_model: Path, sounds: Path) -> None:
    code, printed, _ = run("fit", sounds, "--check", "--base", toy_model, "--json", "--quiet", "--no-augment")
    assert code == 0
    values = json.loads(printed)
    assert values["clips"] == {"hiss": 5, "tone": 5}
    assert values["folds"] == 5


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["missing", "-o", "x.onnx"], "missing"),
        (["own"], "--output"),
        (["own", "-o", "x.onnx", "--check"], "--check"),
        (["own", "-o", "x.onnx", "--base", "nothing_like_it"], "nothing_like_it"),
        (["own", "-o", "x.onnx", "--precision", "2"], "precision"),
        (["own/tone", "-o", "x.onnx"], "tone"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, sounds: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], part: str
) -> None:
    monkeypatch.chdir(sounds.parent)
    code, printed, err = run("fit", *arguments)
    assert code == 2
    assert not printed
    assert_one_line(err, part)
    assert not (sounds.parent / "x.onnx").exists()
