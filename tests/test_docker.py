"""Dockerfiles consist of documented steps; no image is built here."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = sorted(ROOT.glob("Dockerfile*"))
CI = ROOT / ".ci"


def check(*paths: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, CI / "docker_steps.py", *paths]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_steps_are_documented_commands():
    done = check()
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["Dockerfile", "Dockerfile.cuda"]
    assert "docker_steps.py" in (CI / "run").read_text()


def test_the_step_of_the_small_image_is_the_command_that_ci_runs():
    readme = subprocess.run(
        [sys.executable, CI / "readme_command.py", "1"], capture_output=True, text=True, check=True
    )
    assert check(ROOT / "Dockerfile").stdout == f"Dockerfile: {readme.stdout}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("FROM x\nRUN pip install \\\n  something", "'pip install something' is in none of README.md"),
        ("FROM x\nCOPY . .\n", "has no step"),
    ],
)
def test_other_steps_are_refused(tmp_path, text, problem):
    (tmp_path / "Dockerfile").write_text(text)
    done = check(tmp_path / "Dockerfile")
    assert done.returncode == 1
    assert problem in done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_hold_what_the_steps_need(path):
    text = path.read_text()
    minimum = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    version = re.search(r"^FROM python:(\d+)\.(\d+)-slim$", text, re.MULTILINE)
    assert tuple(map(int, version.groups())) >= tuple(map(int, minimum.removeprefix(">=").split(".")))
    assert re.findall(r"^(?:COPY|ENTRYPOINT) .*", text, re.MULTILINE) == [
        "COPY . .",
        'ENTRYPOINT ["earmark"]',
    ]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv*", "runs"} <= set(ignored)
    assert not {"earmark", "examples", "constraints.txt", "README.md", "LICENSE"} & set(ignored)
