"""Provenance of a run."""

import hashlib
import json
import subprocess

import pytest
import torch
import toy

from earmark.data.manifest import clips_hash
from earmark.errors import RecipeError
from earmark.training.runtime.provenance import git_state, provenance
from earmark.training.splits import split_clips
from earmark.training.trainer import train_network as train
from earmark.version import __version__

ONE_EPOCH = {"optimizer": {"epochs": 1, "ema_decay": 0.0}}


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.txt").write_text("a")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a")
    return folder


def test_nothing_that_a_repository_configures_is_run(checkout, tmp_path):
    ran = tmp_path / "ran"
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\necho $0 $* >> '{ran}'\ncat\n")
    script.chmod(0o755)
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "post-index-change").symlink_to(script)
    (checkout / ".gitattributes").write_text("*.txt filter=a.b=c\n*.md filter=x\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "b")
    git(checkout, "config", "core.fsmonitor", str(script))
    git(checkout, "config", "core.hooksPath", str(tmp_path / "hooks"))
    git(checkout, "config", "filter.a.b=c.clean", str(script))
    git(checkout, "config", "filter.a.b=c.required", "true")
    git(checkout, "config", "filter.x.process", str(script))
    (checkout / "a.txt").write_text("b")
    (checkout / "b.md").write_text("b")
    state = git_state(checkout)
    assert not ran.exists(), ran.read_text()
    assert state == {"commit": git(checkout, "-c", "core.fsmonitor=", "rev-parse", "HEAD"), "dirty": True}
    git(checkout, "status")
    assert ran.exists(), "git itself would have run the script"


def test_provenance_is_recorded_when_a_run_starts(clips, tmp_path, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    monkeypatch.setattr("sys.argv", ["earmark", "train", "toy.toml"])
    recipe = toy.toy_recipe(clips, evaluation={"negative_manifests": ["none.csv"]}, **ONE_EPOCH)
    train(recipe, tmp_path / "run", 1)
    noted = json.loads((tmp_path / "run" / "run.json").read_text())
    assert noted["command"] == ["earmark", "train", "toy.toml"]
    assert noted["versions"]["earmark"] == __version__
    assert noted["versions"]["torch"] == torch.__version__
    assert noted["files"] == {str(clips): hashlib.sha256(clips.read_bytes()).hexdigest(), "none.csv": None}
    split = split_clips(recipe, 1)
    assert noted["clips"] == [
        {"of": str(clips), "number": 12, "sha256": clips_hash(split.groups[0])},
        {"of": "evaluated", "number": 8, "sha256": clips_hash(split.evaluated)},
    ]
    assert noted["front_end"] == recipe.front_end.to_dict()
    assert noted["git"] == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    assert noted["started"].endswith("+00:00")


def test_provenance_is_recorded_once_and_not_checked(clips, tmp_path, monkeypatch):
    train(toy.toy_recipe(clips, **ONE_EPOCH), tmp_path, 1)
    noted = (tmp_path / "run.json").read_bytes()
    monkeypatch.setattr("sys.argv", ["another"])
    train(toy.toy_recipe(clips, logging={"loggers": ["wandb"]}, **ONE_EPOCH), tmp_path, 1)
    with pytest.raises(RecipeError):
        train(toy.toy_recipe(clips, seed=3, **ONE_EPOCH), tmp_path, 1)
    assert (tmp_path / "run.json").read_bytes() == noted


def test_a_run_of_an_earlier_version_gets_no_provenance(clips, tmp_path):
    train(toy.toy_recipe(clips, **ONE_EPOCH), tmp_path, 1)
    (tmp_path / "run.json").unlink()
    train(toy.toy_recipe(clips, **ONE_EPOCH), tmp_path, 1)
    assert not (tmp_path / "run.json").exists()


def test_initial_weights_and_teacher_are_recorded(clips, tmp_path):
    for name in ("base.safetensors", "teacher"):
        (tmp_path / name).write_text(name)
    recipe = toy.toy_recipe(
        clips,
        model={"init_from": str(tmp_path / "base.safetensors")},
        teacher={"path": str(tmp_path / "teacher"), "sample_rate": 8000, "imitation_weight": 1},
    )
    files = provenance(recipe, [[]])["files"]
    published = toy.toy_recipe(clips, model={"init_from": "mn01_as", "new_head": True})
    assert list(provenance(published, [[]])["files"]) == [str(clips)]
    assert [files[str(tmp_path / name)] for name in ("base.safetensors", "teacher")] == [
        hashlib.sha256(name.encode()).hexdigest() for name in ("base.safetensors", "teacher")
    ]


def test_changes_of_a_checkout_are_recorded(checkout):
    assert git_state(checkout)["dirty"] is False
    (checkout / "b.txt").write_text("b")
    assert git_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": True}


def test_without_a_checkout_or_git_there_is_no_commit(tmp_path, checkout, monkeypatch):
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(checkout) is None
