"""``earmark suggest`` and ``earmark review``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earmark.model_file.onnx_file import read_info

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    for number in range(3):
        noise = 0.05 * (number + 1) * np.random.default_rng(number).standard_normal(40_000)
        (tmp_path / "archive" / "deep").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "archive" / "deep" / f"{number}.wav", noise, 8000)
    return tmp_path / "archive"


def test_from_an_archive_to_a_threshold(run: Run, toy_model: Path, archive: Path, tmp_path: Path) -> None:
    label, folder = read_info(toy_model).labels[0], tmp_path / "review"
    (archive / "broken.wav").write_bytes(b"no sound")
    arguments = ("suggest", toy_model, archive, "--label", label, "--top", "6", "--output", folder)
    code, out, err = run(*arguments)
    assert (code, err.count("\n")) == (1, 1)
    clips = sorted(folder.glob("*.flac"))
    assert out.startswith(f"{len(clips)} clips")
    assert run(*arguments)[0] == 2
    assert run("review", toy_model, folder)[0] == 2
    for number, clip in enumerate(clips):
        clip.rename(folder / (label if number < 3 else "other") / clip.name)
    code, out, err = run("review", toy_model, folder, "--precision", "0.2", "--output", tmp_path / "new.onnx")
    assert (code, err) == (0, "")
    assert f"threshold {read_info(tmp_path / 'new.onnx').thresholds[0]:.3f}" in out
    code, _, err = run("review", toy_model, folder, "--precision", "2")
    assert (code, err.count("\n")) == (2, 1)
