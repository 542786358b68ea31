"""Dockerfiles consist of documented steps; no image is built here."""

import json
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


def stages(path):
    """The instructions of each stage, the last of which is what is built by default."""
    text = path.read_text().replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    found = []
    for instruction, rest in lines:
        if instruction == "FROM":
            found.append([])
        found[-1].append((instruction, rest.strip()))
    return found


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_images_hold_what_the_steps_need(path):
    text = path.read_text()
    minimum = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    versions = re.findall(r"^FROM python:(\d+)\.(\d+)-slim\b", text, re.MULTILINE)
    assert len(versions) == 2, "one stage builds, the other runs"
    assert versions[0] == versions[1], "a virtual environment belongs to one version of Python"
    assert tuple(map(int, versions[0])) >= tuple(map(int, minimum.removeprefix(">=").split(".")))
    build, run, *_ = stages(path)
    assert ("COPY", ". .") in build
    assert ("COPY", "--from=build /opt/earmark/.venv /opt/earmark/.venv") in run, "nothing else: small"
    assert ("WORKDIR", "/opt/earmark") in build, "the environment stays where it was made"
    assert ("ENTRYPOINT", '["earmark"]') in run
    assert ("USER", "earmark") in run, "not root"
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv*", "runs", "tests"} <= set(ignored)
    assert not {"earmark", "examples", "constraints.txt", "README.md", "LICENSE"} & set(ignored)


def test_the_image_of_the_server_checks_its_health():
    build, cli, server, last = stages(ROOT / "Dockerfile")
    assert last == [("FROM", "cli")], "without --target nothing is served"
    assert build[0][1].endswith("AS build")
    assert cli[0][1].endswith("AS cli")
    assert server[0] == ("FROM", "cli AS server")
    instructions = dict(server)
    command = json.loads(instructions["CMD"])
    assert command == ["serve", "--host", "0.0.0.0"]  # which is refused without a token
    check = json.loads(instructions["HEALTHCHECK"].partition(" CMD ")[2])
    assert check[:2] == ["python3", "-c"]
    compile(check[2], "HEALTHCHECK", "exec")
    assert "http://127.0.0.1:8000/healthz" in check[2]
    assert instructions["EXPOSE"] == "8000"


def test_a_container_serves_only_with_a_token(run):
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    code, _, err = run("serve", "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "--token" in err
