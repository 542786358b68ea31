"""Batches come in order whatever a clip does to the process that reads it."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import toy
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from earmark.data import clip_cache
from earmark.data.manifest import Clip
from earmark.training.runtime.batch_loader import BatchLoader
from earmark.training.trainer import train_network

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core

BATCHES = [[(3 * batch + row, batch) for row in range(3)] for batch in range(6)]


class Clips:
    """Twenty clips of one number each; some kill the process that reads them."""

    def __init__(self, signals: dict[int, signal.Signals]) -> None:
        self.clips = [Clip(Path(f"{number}.wav"), ()) for number in range(20)]
        self.signals = signals

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        if key[0] in self.signals:
            os.kill(os.getpid(), self.signals[key[0]])
            time.sleep(60)
        return torch.tensor([10.0 * key[0] + key[1]]), torch.tensor([key[0]])

    def unreadable(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([torch.nan]), torch.tensor([index])

    def reason(self, index: int) -> str:
        return f"{index} has a reason"


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's loader looks every 0.2 s, not 5 s, whether its processes are alive."""
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.2,))


def expected(deadly: set[int]) -> list[list[float]]:
    return [
        [torch.nan if index in deadly else 10.0 * index + seed for index, seed in batch] for batch in BATCHES
    ]


def loaded(loader: BatchLoader) -> list[torch.Tensor]:
    return [waveforms[:, 0] for waveforms, _ in loader.load(BATCHES)]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_in_order(workers: int) -> None:
    loader = BatchLoader(Clips({}), workers, pin_memory=False)
    torch.testing.assert_close(torch.stack(loaded(loader)), torch.tensor(expected(set())))
    assert len(loader) == 20
    assert loader.reason(3) == "3 has a reason"


def test_a_clip_that_kills_its_process_is_left_out_for_good() -> None:
    data = Clips({4: signal.SIGSEGV, 14: signal.SIGABRT})
    loader = BatchLoader(data, 2, pin_memory=False)
    torch.manual_seed(0)
    found = torch.stack(loaded(loader))
    drawn = torch.rand(1)
    torch.testing.assert_close(found, torch.tensor(expected({4, 14})), equal_nan=True)
    assert loader.reason(4) == "4.wav: left out: the process that read it died (SIGSEGV)"
    assert loader.reason(14) == "14.wav: left out: the process that read it died (SIGABRT)"
    data.signals[4] = signal.SIGKILL  # which would end the loading, if it were met again
    torch.testing.assert_close(torch.stack(loaded(loader)), found, equal_nan=True)
    torch.manual_seed(0)
    loaded(BatchLoader(Clips({}), 2, pin_memory=False))
    assert torch.equal(drawn, torch.rand(1)), "new processes do not change what PyTorch draws"


def test_a_process_that_is_killed_from_outside_ends_the_loading() -> None:
    with pytest.raises(RuntimeError, match=r"^DataLoader worker \(pid \d+\) died \(SIGKILL\)$"):
        loaded(BatchLoader(Clips({7: signal.SIGKILL}), 2, pin_memory=False))


def test_the_programs_own_handler_of_such_signals_stays() -> None:
    def handler(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGCHLD, handler)
    try:
        loaded(BatchLoader(Clips({4: signal.SIGSEGV}), 2, pin_memory=False))
        assert signal.getsignal(signal.SIGCHLD) is handler
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
def test_a_training_goes_on_without_such_a_clip(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = clip_cache.read_piece

    def deadly(clip: Clip, *arguments: object) -> object:
        if clip.id == "fold2_3_noise":
            os.kill(os.getpid(), signal.SIGSEGV)
        return read(clip, *arguments)

    monkeypatch.setattr(clip_cache, "read_piece", deadly)  # the processes are forked
    data = {"workers": 1, "cache": False, "max_bad_fraction": 0.2}
    reported: list = []
    recipe = toy.toy_recipe(clips, data=data, optimizer={"epochs": 2})
    train_network(recipe, tmp_path / "run", 1, reported.append)
    [skipped] = [facts["skipped"] for facts in reported if "skipped" in facts]
    assert skipped.endswith("fold2_3_noise.wav: left out: the process that read it died (SIGSEGV)")
    again = tmp_path / "again"
    train_network(recipe, again, 1)
    assert (again / "last.safetensors").read_bytes() == (tmp_path / "run" / "last.safetensors").read_bytes()
