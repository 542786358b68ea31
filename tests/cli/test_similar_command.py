"""``earmark similar``: hits of real embeddings, formats, and what cannot be searched."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earmark.model_file.onnx_file import read_model_file, replace_info

RATE = 8000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Tones of different height; the last two are nearly the same."""
    paths = []
    for number, hertz in enumerate((200, 900, 2500, 2510)):
        tone = 0.3 * np.sin(2 * np.pi * hertz * np.arange(2 * RATE) / RATE)
        soundfile.write(tmp_path / f"{number}.wav", tone, RATE)
        paths.append(tmp_path / f"{number}.wav")
    return paths


@pytest.fixture
def archive(run: Run, toy_model: Path, tmp_path: Path, clips: list[Path]) -> Path:
    path = tmp_path / "found.parquet"
    assert run("embed", *clips, "--model", toy_model, "--by-window", "--output", path)[0] == 0
    return path


def test_a_recording_finds_itself_and_then_the_next(
    run: Run, toy_model: Path, clips: list[Path], archive: Path
) -> None:
    code, out, _ = run("similar", clips[3], archive, "--model", toy_model, "--format", "jsonl")
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [hit["path"] for hit in hits[:2]] == [str(clips[3]), str(clips[2])]
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert len(hits) == len(clips)


def test_formats_hold_the_same_hits(run: Run, toy_model: Path, clips: list[Path], archive: Path) -> None:
    options = (
        clips[0],
        archive,
        "--model",
        toy_model,
        "--top",
        "3",
        "--every-window",
        "--where",
        "path~0.wav",
    )
    _, lines, _ = run("similar", *options, "--format", "jsonl")
    _, table, _ = run("similar", *options)
    _, text, _ = run("similar", *options, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["path"] for row in rows] == [json.loads(line)["path"] for line in lines.splitlines()]
    assert [row["start_s"] for row in rows] == [
        f"{json.loads(line)['start_s']:.3f}" for line in lines.splitlines()
    ]
    assert table.count("0.wav") == len(rows) > 1


def test_the_model_has_to_be_the_one_that_embedded(
    run: Run, toy_model: Path, clips: list[Path], tmp_path: Path
) -> None:
    assert run("embed", *clips, "--model", toy_model, "--output", tmp_path / "found")[0] == 0
    arguments = ("similar", clips[0], tmp_path / "found", "--top", "1", "--format", "csv", "--model")
    code, out, _ = run(*arguments, toy_model)
    assert (code, out.splitlines()[1].split(",")[:2]) == (0, ["1.0000", str(clips[0])])
    content, info = read_model_file(toy_model)
    (tmp_path / "other.onnx").write_bytes(replace_info(content, info.changed(description="another")))
    code, out, err = run(*arguments, tmp_path / "other.onnx")
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_what_cannot_be_searched_is_one_line(
    run: Run, toy_model: Path, clips: list[Path], archive: Path, tmp_path: Path
) -> None:
    for arguments in (
        (clips[0], tmp_path / "nothing"),
        (clips[0], archive, "--where", "duration"),
        (clips[0], archive, "--where", "duration_s>1"),
        (clips[0], archive, "--label", "Dog"),
        (clips[0], archive, "--index"),
        (clips[0], archive, "--index", "--label", "Dog"),
        (tmp_path / "nothing.wav", archive),
    ):
        code, out, err = run("similar", *arguments, "--model", toy_model)
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)
    code, _, err = run("similar", clips[0], archive)
    assert (code, err.count("\n")) == (2, 1)
