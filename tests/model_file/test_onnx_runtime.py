"""ONNX Runtime writes no file, opens no socket and leaves the environment alone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import toy_model

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import os, sys
before = dict(os.environ)
import earmark
tagger = earmark.load(sys.argv[1])
tagger.tag(sys.argv[2])
assert dict(os.environ) == before
"""


def files_of(home: Path, *command: object) -> list[Path]:
    """The files that a program leaves in an empty home."""
    home.mkdir()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home)}
    subprocess.run([*map(str, command)], cwd=ROOT, env=environment, check=True, capture_output=True)
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.fixture
def arguments(tmp_path: Path) -> list[object]:
    (tmp_path / "toy.onnx").write_bytes(toy_model.toy_content())
    return [sys.executable, "-c", PROBE, tmp_path / "toy.onnx", ROOT / "examples" / "siren_and_bell.ogg"]


def test_nothing_is_written_into_an_empty_home(tmp_path: Path, arguments: list[object]) -> None:
    assert files_of(tmp_path / "home", *arguments) == []


def test_nothing_is_looked_up(tmp_path: Path, arguments: list[object]) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=%network", "-o", trace)
    assert files_of(tmp_path / "home", *strace, *arguments) == []
    assert trace.read_text(encoding="utf-8").strip() == ""
