"""One process or several: the same batch, the same draws, the same losses, and nothing waits for a device."""

import json
import os
import re
import subprocess
import sys
import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import toy
from processes import SCRIPT, together
from pydantic import ValidationError
from test_trainer import ON, assert_same_run, log_of, tensors_of
from torch import nn

from earmark.data.batch_rng import RowsGenerator
from earmark.errors import RecipeError
from earmark.models.log_mel import TorchLogMel
from earmark.training.batch import Augmentation
from earmark.training.runtime.devices import Devices, open_devices
from earmark.training.runtime.synchronized import SynchronizedNorm, synchronize_norms
from earmark.training.splits import split_clips
from earmark.training.trainer import Trainer
from earmark.training.trainer import train_network as train

LIKE_ONE = {
    "model": {"arguments": {"n_mels": 32, "dropout": 0.0}},
    "augment": {"waveform_mix_probability": 0.5, "mixstyle_probability": 1.0, "equalize_db": 4},
    "loss": {"class_weights": "balanced", "ranking_weight": 0.5},
    "optimizer": {
        "epochs": 2,
        "sync_batch_norm": True,
        "grad_accum_steps": 2,
        "max_grad_norm": 1.0,
        "learning_rate": 1e-4,
    },
    "evaluation": {"every_epochs": 1},
}  # fmt: skip
"""All that looks at more than one row, and no dropout, which each process draws for itself."""
FRESH = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
"""With this ``torchrun`` has a store of addresses for each of its attempts."""


def given(clips, folder, tables, **more):
    return {"clips": str(clips), "folder": str(folder), "tables": tables, **more}


class Shares:
    """As many threads as processes, each with its rows of a batch."""

    def __init__(self, count: int) -> None:
        self.count, self.barrier = count, threading.Barrier(count, timeout=30)
        self.values: list = [None] * count

    def gather(self, rank: int, values: torch.Tensor) -> torch.Tensor:
        self.values[rank] = values
        self.barrier.wait()
        together = torch.cat(self.values)
        self.barrier.wait()
        return together

    def run(self, total, seed, work):
        share, found = total // self.count, [None] * self.count

        def one(rank):
            rows = slice(rank * share, (rank + 1) * share)
            generator = RowsGenerator(seed, total, rows, lambda values: self.gather(rank, values))
            found[rank] = work(rows, generator)

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


@pytest.mark.parametrize(
    "names", [*([name] for name in ON), list(ON)], ids=lambda names: "+".join(names)[:30]
)
def test_rows_are_augmented_as_in_the_whole_batch(clips, names):
    recipe = toy.toy_recipe(clips, augment={name: ON[name] for name in names})
    augmentation = Augmentation(recipe, TorchLogMel(recipe.front_end))
    waveforms = 0.1 * torch.randn(6, 4000, generator=torch.Generator().manual_seed(0))
    targets = torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    whole = augmentation(waveforms, targets, np.random.default_rng([3, 4]))
    shares = Shares(2).run(6, [3, 4], lambda rows, g: augmentation(waveforms[rows], targets[rows], g))
    for one, parts in zip(whole, zip(*shares, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(parts), one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_items_are_shared_out_once_and_gathered_in_order(count):
    scores = np.arange(14, dtype=np.float32).reshape(7, 2)
    devices = [Devices(torch.device("cpu"), rank, count) for rank in range(count)]
    shares = [one.own_items(range(7)) for one in devices]
    assert sorted(index for share in shares for index in share) == list(range(7))
    if count == 1:
        np.testing.assert_array_equal(devices[0].gather_items(scores, 7), scores)


def test_a_batch_that_does_not_divide_is_refused():
    Devices(torch.device("cpu"), 0, 2).require_divisible(6)
    with pytest.raises(RecipeError):
        Devices(torch.device("cpu"), 0, 2).require_divisible(7)


class TestNames:
    def test_what_is_there_is_found(self):
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
        for name, kind in (("auto", wanted), ("cpu", "cpu")):
            with open_devices(name) as devices:
                assert (devices.device.type, devices.rank, devices.world_size, devices.is_main) == (
                    kind, 0, 1, True
                )  # fmt: skip

    @pytest.mark.parametrize("name", ["cuda:99", "cuda:4096"])
    def test_what_is_not_there_is_refused(self, name):
        with (
            pytest.raises(RecipeError),
            open_devices(name),
        ):
            pass

    @pytest.mark.parametrize("name", ["gpu", "cuda:", "cpu:1", ""])
    def test_what_is_no_device_is_refused(self, clips, name):
        with pytest.raises(ValidationError):
            toy.toy_recipe(clips, run={"device": name})


def test_a_step_waits_for_no_device(clips, tmp_path, monkeypatch):
    """On the device "meta" nothing has a value: whatever asked for one, which waits for a GPU, would fail."""
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **_: torch.optim.SGD(groups, 0.1))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    augment = {**ON, "waveform_mix_alpha": 1, "crop_epoch_fraction": 1.0}
    tables = {"loss": {"ranking_weight": 0.5, "class_weights": "balanced"}, "augment": augment}
    recipe = toy.toy_recipe(clips, **tables, optimizer={"max_grad_norm": 1.0})
    devices = Devices(torch.device("meta"))
    assert devices.read_every > 1
    trainer = Trainer(recipe, split_clips(recipe, 1), tmp_path, 1, lambda facts: None, devices)
    trainer.network.train()
    keys = trainer.batches.clip_keys(0)[0]
    batch = torch.zeros(len(keys), 4000, device="meta"), torch.zeros(len(keys), 2, device="meta")
    loss = trainer.train_step(0, 0, trainer.batches.augment((keys, batch), [0, 0, 0], 0))
    assert (loss.device.type, loss.shape) == ("meta", ())
    with pytest.raises(RuntimeError):
        loss.item()


def test_a_norm_over_all_is_the_norm_of_the_whole_batch(monkeypatch):
    """In one process that gathers from itself; the trainings below test several."""
    from earmark.training.runtime import synchronized

    monkeypatch.setattr(synchronized.distributed, "get_world_size", lambda: 1)
    monkeypatch.setattr(synchronized, "gathered", lambda rows: rows)
    torch.manual_seed(0)
    plain, network = nn.BatchNorm2d(3, momentum=0.2), nn.Sequential(nn.BatchNorm2d(3, momentum=0.2))
    synchronize_norms(network, torch.device("cpu"))
    assert isinstance(network[0], SynchronizedNorm)
    assert list(network.state_dict()) == [f"0.{name}" for name in plain.state_dict()]
    for _ in range(2):
        values = 3 * torch.randn(4, 3, 5, 6) + 1
        torch.testing.assert_close(network(values), plain(values), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network[0].state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(network.eval()(values), plain.eval()(values))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A fold of seven clips, which do not divide among two processes, to evaluate on."""
    return toy.write_clips(tmp_path_factory.mktemp("odd"), clips_per_fold=7, quiet=5)


@pytest.mark.slow
@pytest.mark.parametrize("taught", [False, True])
def test_two_processes_train_as_one(odd, tmp_path, taught):
    tables = LIKE_ONE
    if taught:
        train(toy.toy_recipe(odd, optimizer={"epochs": 1}), tmp_path / "teacher", 1)
        path = str(tmp_path / "teacher" / "last.safetensors")
        stored_targets = {
            "path": path,
            "distill_weight": 0.5,
            "imitation_weight": 0.2,
            "probe_weight": 0.2,
            "probe_passes": 2,
        }
        tables = {**LIKE_ONE, "teacher": stored_targets}
    train(toy.toy_recipe(odd, **tables), tmp_path / "one", 1)
    assert together(2, **given(odd, tmp_path / "two", tables)) == [(0, ""), (0, "")]
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert len(one) == len(two) == 2
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=1e-5)
        assert theirs["log_loss"] == pytest.approx(ours["log_loss"], rel=1e-4)
    scores = [np.load(tmp_path / name / "scores.npy") for name in ("one", "two")]
    assert scores[0].shape == (7, 2)
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-3)
    ours, theirs = (tensors_of(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for name, value in ours.items():  # where a gradient is next to nothing Adam makes a step of its noise
        torch.testing.assert_close(theirs[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_norms_of_their_own_make_another_network(odd, tmp_path):
    tables = {**LIKE_ONE, "optimizer": {**LIKE_ONE["optimizer"], "sync_batch_norm": False, "epochs": 1}}
    train(toy.toy_recipe(odd, **tables), tmp_path / "one", 1)
    assert together(2, **given(odd, tmp_path / "two", tables)) == [(0, ""), (0, "")]
    [one], [two] = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert two["loss"] != pytest.approx(one["loss"], rel=1e-4)


@pytest.mark.slow
def test_a_dead_process_is_reported_and_the_run_resumes(clips, tmp_path):
    tables = {"run": {"save_every_s": 0}}
    assert together(2, **given(clips, tmp_path / "calm", tables)) == [(0, ""), (0, "")]
    dying = given(clips, tmp_path / "cut", tables, dies_at={"epoch": 2, "step": 2}, dying_rank=1)
    (code, message), (killed, _) = together(2, **dying)
    assert (code, killed) == (2, -9)
    lost = r"earmark: .*cut: process 0 has lost another process of the run .*last state\n"
    assert re.fullmatch(lost, message)
    assert together(2, **dying) == [(0, ""), (0, "")]
    assert_same_run(tmp_path / "calm", tmp_path / "cut")


def test_restarts_that_would_find_old_addresses_are_refused(clips, tmp_path, monkeypatch):
    started = {"WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in {**started, "TORCHELASTIC_MAX_RESTARTS": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError):
        train(toy.toy_recipe(clips), tmp_path / "run", 1)


@pytest.mark.slow
def test_torchrun_starts_again_what_died(clips, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    paths = os.pathsep.join(sys.path)
    for name, moment in (("calm", None), ("cut", {"epoch": 2, "step": 2})):
        wanted = given(clips, tmp_path / name, {"run": {"save_every_s": 0}}, dies_at=moment, dying_rank=1)
        command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
        done = subprocess.run(
            [sys.executable, *command, str(tmp_path / "script.py"), json.dumps(wanted)],
            env={**os.environ, **FRESH, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "cut.died").exists()
    assert_same_run(tmp_path / "calm", tmp_path / "cut")
