"""Workflow files are valid YAML, call what exists, and may do no more than they must."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
WRITES = {("docs.yml", "deploy"): {"pages", "id-token"}, ("release.yml", "publish"): {"id-token"}}
"""What jobs may write, besides nothing."""


def content(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs(path):
    return content(path)["jobs"].items()


def commands(path):
    return "\n".join(step.get("run", "") for _, job in jobs(path) for step in job["steps"])


def test_there_is_one_for_each_purpose():
    assert [path.name for path in WORKFLOWS] == ["check.yml", "docs.yml", "release.yml"]


@each
def test_actions_are_pinned_to_a_commit_whose_version_is_named(path):
    used = re.findall(r"uses: *(.*)", path.read_text(encoding="utf-8"))
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_an_action_has_one_version():
    used = {
        line for path in WORKFLOWS for line in re.findall(r"uses: *(\S+)", path.read_text(encoding="utf-8"))
    }
    assert len({action.partition("@")[0] for action in used}) == len(used)


@each
def test_permissions_are_the_least(path):
    assert content(path)["permissions"] == {"contents": "read"}
    for name, job in jobs(path):
        writes = {scope for scope, level in job.get("permissions", {}).items() if level == "write"}
        assert writes == WRITES.get((path.name, name), set())
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
            assert "${{" not in step.get("run", ""), "values of events reach commands by env only"
    assert "pull_request_target" not in content(path)[True]  # "on" is YAML's true
    assert "secrets." not in path.read_text(encoding="utf-8")


@each
def test_what_is_called_exists(path):
    named = re.findall(r"(?<![\w/])(?:\.\./)?((?:\.ci|docs|examples|earmark)/[\w./]+)", commands(path))
    for name in named:
        assert (ROOT / name).exists(), name
    assert named


def test_the_check_is_ci_run_and_it_can_be_run():
    steps = dict(jobs(ROOT / ".github" / "workflows" / "check.yml"))["check"]["steps"]
    assert steps[-1] == {"run": ".ci/run"}
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_tag_of_a_release_has_to_be_the_version():
    from earmark import __version__

    [line] = [line for line in (ROOT / "earmark/version.py").read_text().splitlines() if "=" in line]
    assert line == f'__version__ = "{__version__}"'
    assert 'grep -qxF "__version__ = \\"${TAG#v}\\"" earmark/version.py' in commands(
        ROOT / ".github" / "workflows" / "release.yml"
    )


def test_publishing_waits_for_the_variable_of_its_repository():
    for name, job, variable in (("docs.yml", "deploy", "PAGES"), ("release.yml", "publish", "PYPI")):
        [found] = [value for key, value in jobs(ROOT / ".github" / "workflows" / name) if key == job]
        assert f"vars.{variable} == 'true'" in found["if"]
        assert found["needs"] == "build"
