"""External interruptions are errors of one line with the remedy."""

import errno
from pathlib import Path

import pytest
import torch
import toy
from torch import distributed

from earmark.errors import AudioError, RunError
from earmark.training.runtime.interruptions import interruptions
from earmark.training.trainer import train_network as train

FOLDER = Path("runs/mine")


def message(error: BaseException) -> str:
    with pytest.raises(RunError) as caught, interruptions(FOLDER):
        raise error
    text = str(caught.value)
    assert text.startswith("runs/mine: ")
    assert text.endswith("; the same command resumes from the last state")
    assert "\n" not in text
    return text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(number):
    assert "free some disk space" in message(OSError(number, "it is full"))


def test_a_worker_that_died():
    line = message(RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed. "))
    assert "a process that loads clips has died (DataLoader worker (pid 5) is killed" in line


def test_a_device_whose_memory_is_full():
    line = message(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore"))
    assert "the device's memory is full (CUDA out of memory): lower optimizer.batch_size" in line


def test_another_process_that_died(monkeypatch):
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_rank", lambda: 3)
    for error in (RuntimeError("[gloo/pair.cc:5] Connection closed"), distributed.DistBackendError("gone")):
        assert "process 3 has lost another process of the run" in message(error)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError(errno.ENOENT, "no file"), KeyError("x")])
def test_all_else_stays_what_it_is(error):
    with pytest.raises(type(error)) as caught, interruptions(FOLDER):
        raise error
    assert caught.value is error


@pytest.mark.slow
def test_a_clip_that_a_worker_cannot_read_is_named_in_one_line(tmp_path):
    manifest = toy.write_clips(tmp_path / "clips", clips_per_fold=4)
    (tmp_path / "clips" / "fold2_1_noise.wav").write_bytes(b"not audio")
    with pytest.raises(AudioError) as caught:
        train(toy.toy_recipe(manifest, data={"workers": 1}), tmp_path / "run", 1)
    assert "\n" not in str(caught.value)
