"""The training loop learns, is the same each time, and goes on where a run was cut short."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from safetensors import safe_open

from earmark.data.manifest import read_manifest, targets
from earmark.errors import AudioError, DataError, ModelError, RecipeError, RunError
from earmark.evaluation.evaluation import main_metrics
from earmark.models.checkpoint import load_checkpoint
from earmark.models.log_mel import TorchLogMel
from earmark.training import trainer as loop
from earmark.training.batch import Augmentation
from earmark.training.fold_evaluation import epoch_score, score_clips
from earmark.training.runtime.devices import Devices
from earmark.training.runtime.run_state import RunState
from earmark.training.schedules import cosine
from earmark.training.splits import epoch_draws, split_clips
from earmark.training.trainer import train_network as train

VARIANTS = {
    "plain": {},
    "everything": {
        "model": {"architecture": "mn01", "arguments": {"norm_momentum": 0.3}},
        "augment": {
            "crop_s": 0.3,
            "crop_epoch_fraction": 0.5,
            "speed": [0.8, 1.2],
            "waveform_mix_probability": 0.5,
            "equalize_db": 4,
            "low_pass_probability": 0.5,
            "mask_s": 0.1,
            "f_min_range": 5,
        },
        "loss": {"label_smoothing": 0.1, "focal_gamma": 1.0, "class_weights": "balanced"},
        "schedule": {"warmup_epochs": 0.7},
        "optimizer": {
            "channels_last": True,
            "checkpoint_stages": True,
            "weight_decay": 0.05,
            "decay_all": True,
            "max_grad_norm": 1.0,
            "grad_accum_steps": 2,
        },
    },
    "no average": {
        "optimizer": {"ema_decay": 0.0},
        "loss": {"ranking_weight": 0.5},
        "data": {"cache": False},
    },
    "half precision": {
        "model": {"arguments": {"n_mels": 16}},  # float16 is slow on CPUs
        "front_end": {"n_mels": 16},
        "optimizer": {"precision": "fp16"},
        "schedule": {"kind": "ramp", "ramp_down_epochs": 1, "interval": "epoch"},
    },
    "annealed": {
        "model": {"architecture": "dymn04", "arguments": {"temperature": 2.0}, "annealing": {"start": 6.0}}
    },
    "one class a clip": {"task": "single_label", "padding": "zero"},
}


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118


def assert_same_run(one: Path, other: Path) -> None:
    """To the last bit, but for how long it took."""
    untimed = [[{**line, "seconds": 0} for line in log_of(folder)] for folder in (one, other)]
    assert untimed[0] == untimed[1]
    names = {path.name for path in one.iterdir()}
    assert names == {path.name for path in other.iterdir()}
    for name in names - {"log.jsonl", "run.json", "state.safetensors", "state.previous.safetensors"}:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    ours, theirs = (tensors_of(folder / "state.safetensors") for folder in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


class InterruptionError(Exception):
    pass


def interrupt_at(**wanted):
    """A report that ends the run when the facts are these."""

    def report(facts):
        if wanted.items() <= facts.items() and ("step" in facts) == ("step" in wanted):
            raise InterruptionError

    return report


@pytest.fixture(scope="module")
def undisturbed(clips, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(toy.toy_recipe(clips), folder, 1)
    return folder


def test_its_log_has_a_line_an_epoch(undisturbed):
    lines = log_of(undisturbed)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    evaluation_clips = {"accuracy", "map_macro", "log_loss"}
    assert [evaluation_clips <= line.keys() for line in lines] == [False, True, True]
    assert all(line["loss"] > 0 and line["seconds"] >= 0 for line in lines)


def test_the_checkpoint_is_the_evaluated_network(clips, undisturbed):
    recipe = toy.toy_recipe(clips)
    network, info = load_checkpoint(undisturbed / "last.safetensors")
    scores = score_clips(recipe, network, split_clips(recipe, 1).evaluated)
    np.testing.assert_array_equal(scores, np.load(undisturbed / "scores.npy"))
    assert info.labels == ("noise", "tone")
    assert (info.name, info.task, info.window_s) == ("toy", "multi_label", 0.5)
    assert info.front_end == recipe.front_end
    assert info.arguments == {"n_mels": 32}
    assert info.embedding_size == network(torch.zeros(1, 32, 26)).embedding.shape[1]
    assert info.provenance["seed"] == 0
    assert info.provenance["clips"] == 8 + 4
    assert info.provenance["augment"]["mixup_alpha"] == recipe.augment.mixup_alpha > 0
    assert "init_from" not in info.provenance


def test_the_average_is_kept_where_there_is_one(clips, undisturbed, tmp_path):
    stored = tensors_of(undisturbed / "state.safetensors")
    kept = tensors_of(undisturbed / "last.safetensors")
    assert all(torch.equal(value, stored[f"average.module.{name}"]) for name, value in kept.items())
    assert not all(torch.equal(value, stored[f"trained.network.{name}"]) for name, value in kept.items())
    train(toy.toy_recipe(clips, optimizer={"ema_decay": 0.0, "epochs": 1}), tmp_path, 1)
    stored = tensors_of(tmp_path / "state.safetensors")
    kept = tensors_of(tmp_path / "last.safetensors")
    assert all(torch.equal(value, stored[f"trained.network.{name}"]) for name, value in kept.items())


def test_the_same_seed_gives_the_same_bits(clips, undisturbed, tmp_path):
    torch.manual_seed(77)
    np.random.default_rng().random()
    train(toy.toy_recipe(clips), tmp_path, 1)
    assert_same_run(undisturbed, tmp_path)


def test_another_seed_gives_another_network(clips, undisturbed, tmp_path):
    train(toy.toy_recipe(clips, seed=1), tmp_path, 1)
    ours, theirs = (tensors_of(folder / "last.safetensors") for folder in (undisturbed, tmp_path))
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "moment",
    [
        {"epoch": 1, "step": 1},
        {"epoch": 1},
        {"epoch": 2, "step": 2},
        {"epoch": 2},
        {"epoch": 3, "step": 3},
        {"epoch": 3},
    ],
    ids=str,
)
def test_an_interrupted_run_resumes(clips, undisturbed, tmp_path, moment):
    recipe = toy.toy_recipe(clips)
    with pytest.raises(InterruptionError):
        train(recipe, tmp_path, 1, interrupt_at(**moment))
    train(recipe, tmp_path, 1)
    assert_same_run(undisturbed, tmp_path)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name == "annealed" else ()) for name in VARIANTS],
)
def variant(request, clips, tmp_path_factory) -> tuple[dict, Path]:
    """Tables of a recipe, and the folder of an undisturbed run."""
    tables, folder = VARIANTS[request.param], tmp_path_factory.mktemp("variant")
    train(toy.toy_recipe(clips, **tables), folder, 2)
    return tables, folder


@pytest.mark.parametrize("save_every_s", [0, pytest.param(600, marks=pytest.mark.slow)])
def test_so_does_one_of_any_kind(clips, tmp_path, variant, save_every_s):
    tables, whole = variant
    often = toy.toy_recipe(clips, **tables, run={"save_every_s": save_every_s})
    with pytest.raises(InterruptionError):
        train(often, tmp_path / "cut", 2, interrupt_at(epoch=2, step=2))
    steps = []
    train(often, tmp_path / "cut", 2, lambda facts: steps.append(facts.get("step")))
    assert steps[0] == (1 if save_every_s else 3)
    assert_same_run(whole, tmp_path / "cut")


ACCUMULATING = {"optimizer": {"grad_accum_steps": 2}, "run": {"save_every_s": 0}}


@pytest.fixture(scope="module")
def accumulated(clips, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("accumulated")
    train(toy.toy_recipe(clips, **ACCUMULATING), folder, 1)
    return folder


@pytest.mark.parametrize("step", [1, 2, 3])
def test_one_goes_on_within_an_epoch_where_its_gradients_are_all_used(clips, accumulated, tmp_path, step):
    recipe = toy.toy_recipe(clips, **ACCUMULATING)
    with pytest.raises(InterruptionError):
        train(recipe, tmp_path / "cut", 1, interrupt_at(epoch=2, step=step))
    steps = []
    train(recipe, tmp_path / "cut", 1, lambda facts: steps.append(facts.get("step")))
    assert steps[0] == {1: 1, 2: 3, 3: None}[step]  # None: all steps of the epoch are done
    assert_same_run(accumulated, tmp_path / "cut")


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_one_cut_between_log_and_state_writes_no_line_twice(clips, undisturbed, tmp_path, monkeypatch, epoch):
    recipe = toy.toy_recipe(clips)
    save = RunState.save

    def die(self, path, facts):
        if facts["epoch"] == epoch:
            raise InterruptionError
        save(self, path, facts)

    with monkeypatch.context() as patched:
        patched.setattr(RunState, "save", die)
        with pytest.raises(InterruptionError):
            train(recipe, tmp_path, 1)
    assert len(log_of(tmp_path)) == epoch
    train(recipe, tmp_path, 1)
    assert_same_run(undisturbed, tmp_path)


def test_half_a_line_in_the_log_is_dropped(clips, undisturbed, tmp_path):
    recipe = toy.toy_recipe(clips)
    with pytest.raises(InterruptionError):
        train(recipe, tmp_path, 1, interrupt_at(epoch=2))
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write('{"epoch": 3, "lo')
    train(recipe, tmp_path, 1)
    assert_same_run(undisturbed, tmp_path)


@pytest.mark.slow
def test_a_killed_process_resumes(clips, tmp_path):
    tables = {"optimizer": {"epochs": 6}}
    train(toy.toy_recipe(clips, **tables), tmp_path / "undisturbed", 1)
    script = (
        "import sys, time, toy, pathlib\n"
        "from earmark.training.trainer import train_network as train\n"
        f"recipe = toy.toy_recipe(pathlib.Path({str(clips)!r}), **{tables!r})\n"
        f"train(recipe, pathlib.Path({str(tmp_path / 'killed')!r}), 1, lambda facts: time.sleep(0.05))\n"
    )
    folder, log = tmp_path / "killed", tmp_path / "killed" / "log.jsonl"
    for lines in (2, 4):
        paths = os.pathsep.join([str(Path(toy.__file__).parent), *sys.path])
        process = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": paths})
        try:
            deadline = time.monotonic() + 60
            while not log.exists() or len(log.read_text().splitlines()) < lines:
                assert process.poll() is None, "the run ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
    train(toy.toy_recipe(clips, **tables), folder, 1)
    assert_same_run(tmp_path / "undisturbed", folder)


@pytest.mark.slow
def test_workers_change_nothing(clips, undisturbed, tmp_path):
    train(toy.toy_recipe(clips, data={"workers": 2}), tmp_path, 1)
    for name in ("last.safetensors", "scores.npy"):
        assert (undisturbed / name).read_bytes() == (tmp_path / name).read_bytes()


def test_a_complete_run_is_not_repeated(clips, undisturbed):
    before = {
        path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir() if path.name != "recipe.json"
    }
    reported = []
    info = train(toy.toy_recipe(clips), undisturbed, 1, reported.append)
    assert reported == []
    assert info.provenance["epochs"] == 3
    content = (undisturbed / "log.jsonl").read_text()
    assert content.count("\n") == 3
    after = {path.name: path.stat().st_mtime_ns for path in undisturbed.iterdir()}
    assert all(after[name] == then for name, then in before.items() if name != "log.jsonl")


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"seed": 3}, ["seed: 0 -> 3"]),
        ({"optimizer": {"epochs": 4}, "window_s": 0.4}, ["optimizer.epochs: 3 -> 4", "window_s: 0.5 -> 0.4"]),
        ({"front_end": {"n_mels": 40}}, ["front_end.n_mels: 32 -> 40"]),
        ({"loss": {"focal_gamma": 2.0}}, ["loss.focal_gamma: 0.0 -> 2.0"]),
        ({"augment": {"impulse_responses": "rooms"}}, ['augment.impulse_responses: (nothing) -> "rooms"']),
        (
            {"model": {"arguments": {"n_mels": 32, "dropout": 0.1}}},
            ["model.arguments.dropout: (nothing) -> 0.1"],
        ),
    ],
    ids=str,
)
def test_another_recipe_in_the_same_folder_is_refused(clips, undisturbed, change, lines):
    before = {path.name: path.read_bytes() for path in undisturbed.iterdir()}
    with pytest.raises(RecipeError) as caught:
        train(toy.toy_recipe(clips, **change), undisturbed, 1)
    assert caught.value.__notes__ == lines
    with pytest.raises(RecipeError) as caught:
        train(toy.toy_recipe(clips), undisturbed, 2)
    assert caught.value.__notes__ == ["fold: 1 -> 2"]
    assert {path.name: path.read_bytes() for path in undisturbed.iterdir()} == before


def test_a_run_of_a_version_with_fewer_keys_resumes(clips, undisturbed, tmp_path):
    shutil.copytree(undisturbed, tmp_path / "run")
    stored = tmp_path / "run" / "recipe.json"
    known = json.loads(stored.read_text())
    assert known["optimizer"].pop("sync_batch_norm") is False
    stored.write_text(json.dumps(known))
    train(toy.toy_recipe(clips), tmp_path / "run", 1)
    stored.write_text(json.dumps(known))
    with pytest.raises(RecipeError) as caught:
        train(toy.toy_recipe(clips, optimizer={"sync_batch_norm": True}), tmp_path / "run", 1)
    assert caught.value.__notes__ == ["optimizer.sync_batch_norm: (nothing) -> true"]


@pytest.mark.parametrize("name", ["state.safetensors", "state.previous.safetensors"])
def test_where_a_state_is_damaged_the_other_serves(clips, undisturbed, tmp_path, name):
    recipe = toy.toy_recipe(clips)
    with pytest.raises(InterruptionError):
        train(recipe, tmp_path, 1, interrupt_at(epoch=2))
    content = bytearray((tmp_path / name).read_bytes())
    content[-100] ^= 1
    (tmp_path / name).write_bytes(content)
    message = []
    train(recipe, tmp_path, 1, message.append)
    warned = [facts["warning"] for facts in message if "warning" in facts]
    assert len(warned) == (name == "state.safetensors")
    assert all("SHA-256 does not match): resuming from the state before" in line for line in warned)
    assert_same_run(undisturbed, tmp_path)


def test_a_full_disk_is_an_error_and_leaves_the_last_state(clips, undisturbed, tmp_path):
    recipe = toy.toy_recipe(clips)
    with pytest.raises(InterruptionError):
        train(recipe, tmp_path, 1, interrupt_at(epoch=2))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".safetensors"}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(RunError) as caught:
            train(recipe, tmp_path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"{tmp_path}: File too large")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".safetensors"}
    assert after == before
    train(recipe, tmp_path, 1)
    assert_same_run(undisturbed, tmp_path)


def test_a_damaged_state_is_refused(clips, tmp_path):
    recipe = toy.toy_recipe(clips)
    with pytest.raises(InterruptionError):
        train(recipe, tmp_path, 1, interrupt_at(epoch=1))
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-5])
    with pytest.raises(DataError):
        train(recipe, tmp_path, 1)


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_last_state(
    clips, undisturbed, tmp_path, monkeypatch
):
    recipe = toy.toy_recipe(clips)
    calls = []

    def broken(logits, *rest):
        calls.append(len(logits))
        return loop_loss(logits, *rest) * (float("nan") if len(calls) == 5 else 1)

    loop_loss = loop.label_loss
    with monkeypatch.context() as patched:
        patched.setattr(loop, "label_loss", broken)
        with pytest.raises(RecipeError) as caught:
            train(recipe, tmp_path, 1)
    assert str(caught.value).startswith(str(tmp_path))
    assert len(log_of(tmp_path)) == 1
    train(recipe, tmp_path, 1)
    assert_same_run(undisturbed, tmp_path)


def test_losses_may_be_read_seldom(clips, undisturbed, tmp_path, monkeypatch):
    """As a GPU's are, so that the steps in between wait for nothing."""
    start = Devices.__init__

    def seldom(self, *place):
        start(self, *place)
        self.read_every = 2

    monkeypatch.setattr(Devices, "__init__", seldom)
    steps = []
    train(toy.toy_recipe(clips), tmp_path, 1, lambda facts: steps.append(facts.get("step")))
    assert steps == [2, 3, None] * 3
    assert_same_run(undisturbed, tmp_path)


def test_a_rate_much_too_high_ends_the_run(clips, tmp_path):
    with pytest.raises(RecipeError):
        train(toy.toy_recipe(clips, optimizer={"learning_rate": 1e9}), tmp_path, 1)


def test_without_a_fold_it_trains_on_all_clips_without_evaluation(clips, tmp_path):
    info = train(toy.toy_recipe(clips, optimizer={"epochs": 2}), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "last.safetensors", "log.jsonl", "recipe.json", "run.json",
        "state.previous.safetensors", "state.safetensors",
    }  # fmt: skip
    assert info.provenance["clips"] == 20
    assert all("accuracy" not in line for line in log_of(tmp_path))


def test_every_step_of_every_epoch_draws_anew(clips, tmp_path, monkeypatch):
    drawn = []

    def watched(self, waveforms, wanted, generator, *_):
        drawn.append(generator.random())
        return self.front_end(waveforms), wanted, waveforms[:, :0]

    monkeypatch.setattr(Augmentation, "__call__", watched)
    for seed in (0, 1):
        train(toy.toy_recipe(clips, seed=seed), tmp_path / str(seed), 1)
    assert len(set(drawn)) == len(drawn) == 2 * 3 * 3


def test_half_precision_and_channels_last_train_too(clips, tmp_path):
    options = {"precision": "bf16", "channels_last": True, "epochs": 1}
    train(toy.toy_recipe(clips, optimizer=options), tmp_path, 1)
    assert log_of(tmp_path)[0]["loss"] < 2
    assert all(value.dtype != torch.bfloat16 for value in tensors_of(tmp_path / "last.safetensors").values())


def test_checkpointed_stages_learn_the_same(clips, tmp_path):
    model = {"architecture": "mn01", "arguments": {"norm_momentum": 0.3}}

    def losses(name, **options):
        recipe = toy.toy_recipe(clips, model=model, optimizer={"epochs": 2, **options})
        train(recipe, tmp_path / name, 1)
        return [epoch["loss"] for epoch in log_of(tmp_path / name)]

    assert losses("checkpointed", checkpoint_stages=True) == losses("plain")


def test_progress_is_reported_step_by_step(clips, tmp_path):
    reported = []
    train(toy.toy_recipe(clips, optimizer={"epochs": 2}), tmp_path, 1, reported.append)
    assert [facts.get("step") for facts in reported] == [1, 2, 3, None, 1, 2, 3, None]
    assert all(facts["steps"] == 3 and facts["clips_per_s"] > 0 for facts in reported if "step" in facts)
    assert [facts for facts in reported if "step" not in facts] == log_of(tmp_path)
    assert [facts["epoch"] for facts in reported] == [1] * 4 + [2] * 4
    assert reported[0]["left_min"] > 0
    assert reported[-2]["left_min"] == 0


def test_the_rate_follows_its_schedule(clips, tmp_path, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    options = {"epochs": 4, "learning_rate": 0.01}
    schedule = {"warmup_epochs": 1, "final_lr_scale": 0.1}
    train(toy.toy_recipe(clips, optimizer=options, schedule=schedule), tmp_path, 1)
    wanted = [cosine(number, 12, 3, 0.1) for number in range(12)]
    np.testing.assert_allclose(rates, 0.01 * np.array(wanted)[:, None].repeat(2, 1))
    assert max(wanted) == 1.0


def gradients(clips, folder, monkeypatch, **optimizer) -> list[float]:
    """Length of the gradient at each step of an epoch of three batches."""
    found = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments):
        every = [weight.grad for group in self.param_groups for weight in group["params"]]
        found.append(float(torch.stack([gradient.square().sum() for gradient in every]).sum().sqrt()))
        return step(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", watched)
        train(toy.toy_recipe(clips, optimizer={"epochs": 1, **optimizer}), folder, 1)
    return found


def test_gradients_of_several_batches_make_one_step(clips, tmp_path, monkeypatch):
    alone = gradients(clips, tmp_path / "1", monkeypatch)
    together = gradients(clips, tmp_path / "2", monkeypatch, grad_accum_steps=2)
    assert (len(alone), len(together)) == (3, 2)  # what is left at the end of an epoch is a step too
    assert together[0] < alone[0] + alone[1]


def test_a_gradient_is_no_longer_than_allowed(clips, tmp_path, monkeypatch):
    free = gradients(clips, tmp_path / "1", monkeypatch)
    held = gradients(clips, tmp_path / "2", monkeypatch, max_grad_norm=min(free) / 2)
    assert held == pytest.approx([min(free) / 2] * 3, rel=1e-4)


def test_the_best_epoch_is_that_of_the_best_accuracy_where_classes_exclude_each_other():
    found = {"map_macro": 0.4, "accuracy": 0.3}
    assert epoch_score(found, "multi_label") == 0.4
    assert epoch_score(found, "single_label") == 0.3
    assert epoch_score({"map_macro": 0.4}, "single_label") == 0.4, (
        "clips with several labels have no accuracy"
    )
    assert epoch_score({"loss": 1.0}, "multi_label") == -np.inf


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        ("multi_label", "map_macro"),
        pytest.param("single_label", "accuracy", marks=pytest.mark.slow),
    ],
)
def test_the_scores_kept_are_those_of_the_epoch_kept(clips, tmp_path, task, metric):
    def kept_epoch(keep, seed):
        folder = tmp_path / f"{keep}{seed}"
        options = {"epochs": 8, "learning_rate": 2e-2, "ema_decay": 0.0}
        recipe = toy.toy_recipe(
            clips, evaluation={"every_epochs": 1, "keep": keep}, optimizer=options, seed=seed, task=task
        )
        train(recipe, folder, 1)
        network, _ = load_checkpoint(folder / f"{keep}.safetensors")
        scores = score_clips(recipe, network, split_clips(recipe, 1).evaluated)
        np.testing.assert_array_equal(scores, np.load(folder / "scores.npy"))
        found = main_metrics(targets(split_clips(recipe, 1).evaluated, ("noise", "tone")), scores, task)
        epochs = log_of(folder)
        best = max(epochs, key=lambda line: line[metric])
        assert keep == "last" or found[metric] == pytest.approx(best[metric])
        return best["epoch"]

    kept_epoch("last", 0)
    # With which seed another epoch than the last is the best depends on how a processor rounds.
    assert any(kept_epoch("best", seed) < 8 for seed in range(6))


class TestSplit:
    def test_a_fold_is_set_apart(self, clips):
        split = split_clips(toy.toy_recipe(clips), 1)
        assert split.labels == ("noise", "tone")
        assert {clip.fold for clip in split.evaluated} == {1}
        assert Counter(clip.fold for clip in split.groups[0]) == {2: 8, 0: 4}
        assert split_clips(toy.toy_recipe(clips), None).evaluated == ()
        assert len(split_clips(toy.toy_recipe(clips), None).groups[0]) == 20

    def test_every_clip_of_a_fold_is_evaluated_whatever_is_trained_on(self, clips):
        sources = [{"manifests": [str(clips)], "train_filter": {"license": ["CC0"]}, "clips_per_epoch": 3}]
        recipe = toy.toy_recipe(clips, data={"sources": sources})
        split = split_clips(recipe, 2)
        assert len(split.evaluated) == 8
        assert {clip.extra["license"] for clip in split.groups[0]} == {"CC0"}
        assert [draw.count for draw in epoch_draws(recipe, split)] == [3]

    def test_each_source_is_a_group(self, clips, tmp_path):
        quiet = toy.write_quiet(tmp_path, 1)
        sources = [{"manifests": [str(clips)]}, {"manifests": [str(quiet)]}]
        split = split_clips(toy.toy_recipe(clips, data={"sources": sources}), 1)
        assert [len(group) for group in split.groups] == [12, 2]

    def test_a_group_may_be_of_several_manifests(self, clips, tmp_path):
        quiet = toy.write_quiet(tmp_path, 1)
        split = split_clips(
            toy.toy_recipe(clips, data={"sources": [{"manifests": [str(clips), str(quiet)]}]}), 1
        )
        assert [len(group) for group in split.groups] == [14]
        assert {clip.path.parent for clip in split.groups[0]} == {clips.parent, tmp_path}

    def test_labels_may_be_set(self, clips):
        split = split_clips(toy.toy_recipe(clips, data={"labels": ["tone", "noise"]}), 1)
        assert split.labels == ("tone", "noise")
        with pytest.raises(DataError):
            split_clips(toy.toy_recipe(clips, data={"labels": ["tone", "rain", "noise"]}), 1)
        with pytest.raises(DataError):
            split_clips(toy.toy_recipe(clips, data={"labels": ["tone"]}), 1)

    @pytest.mark.parametrize("fold", [3, 7])
    def test_a_fold_that_is_not_there_is_refused(self, clips, tmp_path, fold):
        with pytest.raises(DataError):
            train(toy.toy_recipe(clips), tmp_path / "run", fold)
        assert not (tmp_path / "run").exists()

    def test_nothing_to_train_on_is_refused(self, clips, tmp_path):
        sources = [{"manifests": [str(clips)], "train_filter": {"license": ["public domain"]}}]
        with pytest.raises(DataError):
            train(toy.toy_recipe(clips, data={"sources": sources}), tmp_path / "run", 1)

    def test_a_missing_manifest_is_named(self, tmp_path):
        with pytest.raises(DataError):
            train(toy.toy_recipe(tmp_path / "none.csv"), tmp_path / "run", 1)


def test_a_clip_that_cannot_be_read_is_named(tmp_path):
    manifest = toy.write_clips(tmp_path / "clips", clips_per_fold=4)
    (tmp_path / "clips" / "fold2_1_noise.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError):
        train(toy.toy_recipe(manifest), tmp_path / "run", 1)


def test_it_starts_from_other_weights_where_the_recipe_names_them(clips, undisturbed, tmp_path):
    base = {"init_from": str(undisturbed / "last.safetensors")}
    train(toy.toy_recipe(clips, model=base, optimizer={"epochs": 1, "learning_rate": 1e-9}), tmp_path, 1)
    weights = [tensors_of(folder / "last.safetensors") for folder in (undisturbed, tmp_path)]
    for name in (name for name in weights[0] if name.endswith("weight")):
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=0, atol=1e-7)


@pytest.mark.parametrize("model", [{"architecture": "mn00"}, {"arguments": {"wings": 2}}])
def test_a_network_that_cannot_be_built_is_refused(clips, tmp_path, model):
    with pytest.raises(ModelError):
        train(toy.toy_recipe(clips, model=model), tmp_path, 1)


OFF = {
    "low_pass_min_hz": 500,
    "roll_s": 0,
    "gain_db": [0, 0],
    "mixup_alpha": 0,
    "mask_mels": 0,
    "f_max_range": 0,
}
ON = {
    "crop_s": 0.3,
    "roll_s": 0.1,
    "resized_crop_scale": [0.5, 0.8],
    "mixstyle_probability": 1,
    "speed": [0.5, 0.9],
    "gain_db": [-6, -3],
    "waveform_mix_probability": 1,
    "mixup_alpha": 1,
    "mask_mels": 8,
    "mask_s": 0.2,
    "equalize_db": 6,
    "low_pass_probability": 1,
    "f_min_range": 50,
    "f_max_range": 200,
}


class TestAugmented:
    def batch(self, clips, settings, seed=0):
        recipe = toy.toy_recipe(clips, augment={**OFF, **settings})
        augmentation = Augmentation(recipe, TorchLogMel(recipe.front_end))
        waveforms = 0.1 * torch.randn(4, 4000, generator=torch.Generator().manual_seed(0))
        targets = torch.eye(4)[:, :2]
        plain = augmentation.front_end(waveforms)
        found = augmentation(waveforms, targets, np.random.default_rng(seed))
        return found[:2], (plain, targets)

    def test_switched_off_it_is_the_evaluations_log_mel(self, clips):
        found, plain = self.batch(clips, {})
        torch.testing.assert_close(found, plain, rtol=0, atol=0)

    @pytest.mark.parametrize("name", ON)
    def test_each_setting_does_something(self, clips, name):
        found, plain = self.batch(clips, {name: ON[name]})
        again, _ = self.batch(clips, {name: ON[name]})
        assert (found[0].shape == plain[0].shape) == (name != "crop_s")
        assert not torch.equal(found[0], plain[0])
        assert torch.equal(found[1], plain[1]) == (name not in ("waveform_mix_probability", "mixup_alpha"))
        torch.testing.assert_close(found, again, rtol=0, atol=0)

    def test_crops_come_first_and_whole_windows_after(self, clips):
        recipe = toy.toy_recipe(
            clips, augment={**OFF, "crop_s": 0.25, "crop_epoch_fraction": 0.5}, optimizer={"epochs": 4}
        )
        log_mel, waveforms = TorchLogMel(recipe.front_end), torch.randn(2, 4000)
        lengths = []
        for epoch in range(4):
            draws = np.random.default_rng(0)
            augmentation = Augmentation(recipe, log_mel)
            features, *_ = augmentation(waveforms, torch.zeros(2, 2), draws, epoch)
            lengths.append(features.shape[2])
        assert lengths == [log_mel(torch.zeros(1, 2000)).shape[2]] * 2 + [log_mel(waveforms).shape[2]] * 2

    def test_log_mels_are_mixed_in_the_first_epochs_only(self, clips):
        tables = {**OFF, "mixup_alpha": 0.3, "mixup_epoch_fraction": 0.75}
        recipe = toy.toy_recipe(clips, augment=tables, optimizer={"epochs": 4})
        augmentation, waveforms = Augmentation(recipe, TorchLogMel(recipe.front_end)), torch.randn(2, 4000)
        plain = augmentation.front_end(waveforms)
        mixed = [
            augmentation(waveforms, torch.zeros(2, 2), np.random.default_rng(2), epoch)[0]
            for epoch in range(4)
        ]
        assert [torch.equal(features, plain) for features in mixed] == [False, False, False, True]

    def test_masks_are_within_their_width(self, clips):
        found, plain = self.batch(clips, {"mask_s": 0.2})
        changed = (found[0] != plain[0]).any(1).sum(1)
        assert 0 < changed.max() <= round(0.2 * 8000 / 160)


def test_every_manifest_of_a_toy_is_read(clips):
    """So that the tests above are about what they seem to be about."""
    found = read_manifest(clips)
    assert Counter((clip.labels, clip.fold) for clip in found) == {
        (("tone",), 1): 4, (("noise",), 1): 4, (("tone",), 2): 4, (("noise",), 2): 4, ((), 0): 4
    }  # fmt: skip
    assert all(one.path != other.path for one, other in pairwise(found))
