"""What all commands share: exit codes, errors in one line, a real process."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from one_line import assert_one_line

import earmark
from earmark.cli import main


@pytest.mark.parametrize(
    "arguments",
    [
        ["tag"],
        ["tag", "a.wav", "--top", "0"],
        ["tag", "a.wav", "--format", "yaml"],
        ["tag", "a.wav", "--threshold", "2"],
        ["tag", "a.wav", "--threshold", "high"],
        ["tag", "a.wav", "--window", "soon"],
        ["tag", "a.wav", "--precision", "f32"],
        ["sing"],
        ["tag", "a.wav", "--loud"],
        ["info", "mn04_sa"],
        ["info", "missing.onnx"],
        ["train", "missing.toml"],
    ],
)
def test_wrong_commands_are_one_line_and_code_2(run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert_one_line(err)


def test_version(run) -> None:
    assert run("--version") == (0, f"{earmark.__version__}\n", "")


def test_ctrl_c_ends_with_code_130(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("earmark.hub.registry.find", interrupted)
    assert run("info") == (130, "", "earmark: interrupted\n")


def test_a_reader_that_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def gone(*arguments: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "broken pipe")

    kept = os.dup(1)
    try:
        with (tmp_path / "out").open("w") as out:
            monkeypatch.setattr("sys.stdout", out)
            monkeypatch.setattr("earmark.hub.registry.find", gone)
            with pytest.raises(SystemExit) as ended:
                main(["info"])
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert ended.value.code == 0


def test_as_a_process_from_standard_input(tmp_path: Path, toy_model: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.2 * np.random.default_rng(0).standard_normal(5600), 8000)
    command = [sys.executable, "-m", "earmark", "tag", "-", "--format", "json", "--model", str(toy_model)]
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    done = subprocess.run(command, input=path.read_bytes(), capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)[0]["path"] == "-"
