"""``earmark train``: from a recipe to a model file."""

import json
import os
import sys
import tomllib

import numpy as np
import pytest
import torch
import toy
from one_line import assert_one_line

from earmark.cli import main
from earmark.model_file.lock import locked_folder
from earmark.model_file.onnx_file import read_info
from earmark.training.config.recipe import Recipe, load_recipe


@pytest.fixture(autouse=True)
def threads():
    """The command may set how many threads PyTorch uses."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recipe(tmp_path):
    """A recipe's file."""
    manifest = toy.write_clips(tmp_path / "clips", clips_per_fold=8)
    quiet = toy.write_quiet(tmp_path / "quiet")
    values = toy.toy_values(
        manifest,
        optimizer={"epochs": 2, "learning_rate": 1e-2, "batch_size": 8, "ema_decay": 0.8},
        augment={"roll_s": 0, "gain_db": [0, 0], "mask_mels": 0, "f_max_range": 0},
        evaluation={"every_epochs": 50, "negative_manifests": [str(quiet)]},
    )
    path = tmp_path / "toy.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()), encoding="utf-8")
    return path


def toml(value) -> str:
    """A value as inline TOML; None is left out."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert captured.out == ""
        return ended.value.code, captured.err

    return call


def test_a_recipe_becomes_a_model_file(recipe, run, tmp_path):
    folder = tmp_path / "run"
    code, err = run("train", recipe, "--output", folder, "--threads", 1)
    assert code == 0, err
    assert str(folder / "toy.onnx") in err.splitlines()[-1]
    assert err.count("accuracy") == 2
    assert {path.name for path in folder.iterdir()} == {"all", "fold1", "fold2", "card.md", "toy.onnx"}
    info = read_info(folder / "toy.onnx")
    assert info.card == (folder / "card.md").read_text(encoding="utf-8")
    assert info.metrics["clips"] == 16


def test_a_single_fold(recipe, run, tmp_path):
    arguments = ("train", recipe, "--output", tmp_path / "run", "--fold", 2, "--quiet")
    assert run(*arguments) == (0, "")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["fold2"]
    assert len((tmp_path / "run" / "fold2" / "log.jsonl").read_text().splitlines()) == 2
    assert run(*arguments) == (0, "")


def test_the_default_run_folder(recipe, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _ = run("train", recipe.name, "--fold", 1, "--set", "optimizer.epochs=1", "--set", "name=other")
    assert code == 0
    assert (tmp_path / "runs" / "other" / "fold1" / "last.safetensors").is_file()


def test_a_dry_run_prints_the_whole_recipe_and_writes_nothing(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe), "--dry-run", "--set", "optimizer.epochs=7"])
    assert ended.value.code == 0
    assert set(tmp_path.rglob("*")) == before
    printed = capsys.readouterr()
    assert printed.err == ""
    resolved = load_recipe(recipe, ["optimizer.epochs=7"])
    assert Recipe.model_validate(tomllib.loads(printed.out)) == resolved
    assert tomllib.loads(printed.out)["evaluation"]["min_threshold"] == 0.3
    assert "# 2 labels: noise, tone\n" in printed.out


def test_a_dry_run_of_a_fold_is_about_that_fold(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(recipe), "--dry-run", "--fold", "1"])
    printed = capsys.readouterr().out
    assert "# without fold 1: " in printed
    assert "without fold 2" not in printed


def test_loggers_of_recipe_and_command(recipe, run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("earmark.training.run.open_loggers", lambda names: asked.append(names) or [])
    arguments = ("train", recipe, "--output", tmp_path / "run", "--fold", 1, "--quiet")
    arguments += ("--set", "optimizer.epochs=1", "--set", 'logging.loggers=["wandb"]')
    assert run(*arguments, "--log", "tensorboard") == (0, "")
    assert asked == [["wandb", "tensorboard"]]


def test_clips_that_cannot_be_read_are_named_and_the_code_is_1(recipe, run, tmp_path):
    for name in ("fold1_0_tone.wav", "fold2_0_tone.wav"):
        (tmp_path / "clips" / name).write_bytes(b"no sound")
    (tmp_path / "quiet" / "unseen_0.wav").unlink()
    arguments = ("train", recipe, "--quiet", "--set", "data.folds=[1]", "--set", "data.max_bad_fraction=0.2")
    code, err = run(*arguments, "--output", tmp_path / "run")
    assert code == 1
    assert (tmp_path / "run" / "toy.onnx").exists()
    lines = err.splitlines()
    for name in ("fold2_0_tone.wav", "fold1_0_tone.wav", "unseen_0.wav"):
        assert sum(f"{name}: " in line and line.endswith(" (skipped)") for line in lines) == 1, (name, err)
    scores = np.load(tmp_path / "run" / "fold1" / "scores.npy")
    assert np.isnan(scores).all(1).tolist() == [True, *[False] * 7]
    accuracy = read_info(tmp_path / "run" / "toy.onnx").metrics["accuracy"]
    assert accuracy * 7 == pytest.approx(round(accuracy * 7), abs=1e-3)


def test_a_run_folder_has_one_process(recipe, run, tmp_path):
    with locked_folder(tmp_path / "run" / "fold1"):
        code, err = run("train", recipe, "--output", tmp_path / "run", "--quiet", "--fold", 1)
    assert code == 2
    assert_one_line(err, f"{tmp_path}/run/fold1: is in use by process {os.getpid()} on ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--log", "tensorbord"],
        ["--set", 'logging.loggers=["csv"]'],
        ["--dry-run", "--fold", "9"],
        ["--dry-run", "--set", "model.architecture=mn00"],
        ["--set", "optimizer.epoch=3"],
        ["--set", "judge.every=3"],
        ["--set", "epochs"],
        ["--fold", "9"],
        ["--fold", "0"],
        ["--device", "cuda:77"],
        ["--device", "tpu"],
        ["--set", "model.architecture=mn00"],
        ["--set", 'evaluation.negative_manifests=["none.csv"]'],
    ],
)
def test_mistakes_are_one_line(recipe, run, tmp_path, arguments):
    code, err = run("train", recipe, "--output", tmp_path / "run", "--quiet", *arguments)
    assert code == 2
    assert_one_line(err)


def test_the_differences_of_another_recipe_are_listed(recipe, run, tmp_path):
    arguments = ("train", recipe, "--output", tmp_path / "run", "--fold", 1, "--quiet")
    arguments += ("--set", "optimizer.epochs=1")
    assert run(*arguments)[0] == 0
    code, error = run(*arguments, "--set", "seed=9")
    assert code == 2
    assert error.splitlines()[1:] == ["  seed: 0 -> 9"]


def test_without_pytorch_the_extra_is_named(recipe, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, err = run("train", recipe)
    assert code == 2
    assert_one_line(err, "pip install 'earmark[train]'")
