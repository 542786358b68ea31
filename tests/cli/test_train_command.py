"""``earmark train``: from a recipe to a model file that tags."""

import json
import sys
import tomllib

import numpy as np
import pytest
import torch
import toy

import earmark
from earmark.cli import main
from earmark.training import loggers
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
    manifest = toy.write_clips(tmp_path / "clips", clips_per_fold=24)
    quiet = toy.write_quiet(tmp_path / "quiet")
    values = toy.toy_values(
        manifest,
        model={"arguments": {"norm_momentum": 0.3, "dropout": 0.0}},
        optimizer={"epochs": 20, "learning_rate": 1e-2, "batch_size": 17, "ema_decay": 0.8},
        augment={"roll_s": 0, "gain_db": [0, 0], "mask_mels": 0, "f_max_range": 0},
        evaluation={"every_epochs": 50, "negative_manifests": [str(quiet)]},
    )
    path = tmp_path / "toy.toml"
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()), encoding="utf-8")
    return path


def toml(value) -> str:
    """A value as inline TOML; what is not said has its default."""
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


def test_a_recipe_becomes_a_model_file_that_tags(recipe, run, tmp_path):
    folder = tmp_path / "run"
    code, said = run("train", recipe, "--output", folder, "--threads", 1)
    assert code == 0, said
    assert f"wrote {folder / 'toy.onnx'} (equal to the network within " in said
    assert said.count("accuracy") == 2
    assert {path.name for path in folder.iterdir()} == {"all", "fold1", "fold2", "card.md", "toy.onnx"}

    tagger = earmark.load(folder / "toy.onnx", threads=1)
    info = tagger.info
    assert info.card == (folder / "card.md").read_text(encoding="utf-8")
    assert info.card.startswith("# toy\n")
    assert info.metrics["clips"] == 48
    assert 0.3 <= info.threshold <= 1
    generator = np.random.default_rng(5)
    for label in ("tone", "noise"):
        answers = [tagger.tag(toy.sound(label, generator), toy.SAMPLE_RATE) for _ in range(8)]
        assert sum(answer.tags[0].label == label for answer in answers) >= 6


def test_a_single_fold_is_trained_and_nothing_else(recipe, run, tmp_path):
    arguments = (
        "train",
        recipe,
        "--output",
        tmp_path / "run",
        "--fold",
        2,
        "--set",
        "optimizer.epochs=2",
        "--quiet",
    )
    assert run(*arguments) == (0, "")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["fold2"]
    assert len((tmp_path / "run" / "fold2" / "log.jsonl").read_text().splitlines()) == 2
    assert run(*arguments) == (0, "")


def test_by_default_a_run_lies_under_its_name(recipe, run, tmp_path, monkeypatch):
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
    assert "# without fold 2: 28 clips to train on, 24 to judge by; 1 steps an epoch, 7 in 7" in printed.out


def test_a_dry_run_of_a_fold_is_about_that_fold(recipe, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(recipe), "--dry-run", "--fold", "1"])
    printed = capsys.readouterr().out
    assert "# without fold 1: " in printed
    assert "without fold 2" not in printed


def test_numbers_go_where_the_recipe_and_the_command_say(recipe, run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(loggers, "open_loggers", lambda names: asked.append(names) or [])
    arguments = ("train", recipe, "--output", tmp_path / "run", "--fold", 1, "--quiet")
    arguments += ("--set", "optimizer.epochs=1", "--set", 'logging.loggers=["wandb"]')
    assert run(*arguments, "--log", "tensorboard") == (0, "")
    assert asked == [["wandb", "tensorboard"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--log", "tensorbord"], "there is no logger 'tensorbord': choose among tensorboard, wandb"),
        (["--set", 'logging.loggers=["csv"]'], "logging.loggers.0: Input should be 'tensorboard' or 'wandb'"),
        (["--dry-run", "--fold", "9"], "no clip has fold 9 to judge by"),
        (["--dry-run", "--set", "model.architecture=mn00"], "unknown architecture 'mn00'"),
        (["--set", "optimizer.epoch=3"], "unknown key 'optimizer.epoch'; allowed here: grad_accum_steps"),
        (["--set", "epochs"], "is not of the form table.key=value"),
        (["--fold", "9"], "no clip has fold 9 to judge by"),
        (["--fold", "0"], "--fold"),
        (["--device", "cuda:77"], "there is no GPU number 77 here"),
        (["--device", "tpu"], "run.device: must be auto, cpu, cuda, or one GPU such as cuda:0"),
        (["--set", "model.architecture=mn00"], "unknown architecture 'mn00'"),
        (["--set", 'evaluation.negative_manifests=["none.csv"]'], "none.csv: the manifest cannot be read"),
    ],
)
def test_a_mistake_is_one_line(recipe, run, tmp_path, arguments, said):
    code, error = run("train", recipe, "--output", tmp_path / "run", "--quiet", *arguments)
    assert code == 2
    assert error.startswith("earmark: ")
    assert said in error
    assert error.count("\n") == 1


def test_another_recipe_in_the_folder_is_told_line_by_line(recipe, run, tmp_path):
    arguments = (
        "train",
        recipe,
        "--output",
        tmp_path / "run",
        "--fold",
        1,
        "--quiet",
        "--set",
        "optimizer.epochs=1",
    )
    assert run(*arguments)[0] == 0
    code, error = run(*arguments, "--set", "seed=9")
    assert code == 2
    first, *lines = error.splitlines()
    assert "holds a run of another recipe" in first
    assert lines == ["  seed: 0 -> 9"]


def test_without_pytorch_the_extra_is_named(recipe, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, error = run("train", recipe)
    assert (code, error) == (
        2,
        "earmark: earmark train needs an optional part of earmark: pip install 'earmark[train]'\n",
    )
