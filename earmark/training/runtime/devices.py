"""Where a training computes: one device a process, and one process or several, as ``torchrun`` started them.

Conventions: a batch is the whole batch of all processes; each holds as many of its rows, in the order of
ranks. The process of rank 0 writes all files. One process alone does nothing of all this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from earmark.data.batch_rng import RowsGenerator
from earmark.errors import RecipeError
from earmark.training.runtime.synchronized import gathered, synchronize_norms

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

READ_EVERY = 50
"""Steps after which the losses of an accelerator are read, which waits for it."""

Keys = list[tuple[int, int]]
Batch = tuple[Keys, tuple[Tensor, Tensor]]
"""Clips by position and seed of the cut, their waveforms and targets."""

Item = TypeVar("Item")


class Devices:
    """This process's device, and its place among the processes of the run.

    Args:
        device: Of this process.
        rank: Of this process.
        world: Number of processes.
    """

    def __init__(self, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.device, self.rank, self.world = device, rank, world
        self.writes = rank == 0
        """Whether this process writes the run's files."""
        self.read_every = 1 if device.type == "cpu" else READ_EVERY
        """Steps after which losses are read."""
        self.pins = device.type == "cuda"
        """Whether batches come in pinned memory."""

    def require_shares(self, rows: int) -> None:
        """Refuses a batch that does not divide among the processes.

        Raises:
            RecipeError: If it does not.
        """
        if rows % self.world:
            raise RecipeError(
                f"a batch of {rows} clips does not divide among {self.world} processes: change "
                "optimizer.batch_size or the number of processes"
            )

    def own_rows(self, batch: list[Item]) -> list[Item]:
        """This process's rows of a batch."""
        return batch[self._rows(len(batch) // self.world)]

    def _rows(self, share: int) -> slice:
        return slice(self.rank * share, (self.rank + 1) * share)

    def generator(self, seed: Sequence[int], own: int) -> np.random.Generator:
        """Draws for a batch of which so many rows are this process's own."""
        if self.world == 1:
            return np.random.default_rng(seed)
        return RowsGenerator(seed, own * self.world, self._rows(own), gathered)

    def seed(self, number: int) -> None:
        """Seeds PyTorch, each process otherwise, rank 0 with the number itself."""
        torch.manual_seed(number + self.rank)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of the whole batch, gradients included."""
        return rows if self.world == 1 else gathered(rows)

    def move(self, values: Tensor) -> Tensor:
        """A tensor on the device, copied from pinned memory, so that nothing waits for it."""
        if self.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def feed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches on the device, each copied while the one before is worked on."""
        return batches if self.device.type == "cpu" else self._ahead(batches)

    def _ahead(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        copying = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def copied() -> Batch | None:
            batch = next(batches, None)
            if batch is None:
                return None
            keys, (waveforms, wanted) = batch
            with torch.cuda.stream(copying):
                return keys, (self.move(waveforms), self.move(wanted))

        coming = copied()
        while coming is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(copying)
            for values in coming[1]:
                values.record_stream(computing)
            batch, coming = coming, copied()
            yield batch

    def autocast(self, precision: str) -> torch.autocast:
        """Lets operations within compute in a precision."""
        return torch.autocast(self.device.type, PRECISIONS[precision], enabled=precision != "fp32")

    def scaler(self, precision: str) -> torch.amp.GradScaler:
        """Keeps gradients in 16 bit from vanishing; does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def synchronized(self, network: nn.Module) -> None:
        """Makes batch norms see the whole batch, where there are several processes."""
        if self.world > 1:
            synchronize_norms(network, self.device)

    def learning(self, trained: nn.Module, answering: nn.Module) -> nn.Module:
        """What to call in a step so that the processes learn as one.

        Args:
            trained: All that learns.
            answering: The part of it that answers to features.
        """
        if self.world == 1:
            return answering
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            _Answering(trained, answering), device_ids=ids, gradient_as_bucket_view=True
        )

    def alone(self, learner: nn.Module, wanted: bool) -> AbstractContextManager[Any]:
        """Within it, if wanted, gradients are gathered by each process for itself."""
        still = wanted and isinstance(learner, DistributedDataParallel)
        return cast(DistributedDataParallel, learner).no_sync() if still else nullcontext()

    def align(self, network: nn.Module) -> None:
        """Gives all processes the norm statistics of rank 0, which are those that are kept."""
        if self.world > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)

    def agree(self, said: bool) -> bool:
        """What rank 0 says."""
        if self.world == 1:
            return said
        flag = torch.tensor(int(said), device=self.device)
        distributed.broadcast(flag, 0)
        return bool(flag)

    def wait(self) -> None:
        """Waits until all processes are here."""
        self.agree(True)

    def judged(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of all items that this process answers for: every so many-th."""
        return items[self.rank :: self.world]

    def together(self, answers: NDArray[np.float32], total: int) -> NDArray[np.float32]:
        """All answers (total, ...), in order, of those that the processes have for their :meth:`judged`."""
        if self.world == 1:
            return answers
        most = -(-total // self.world)
        padded = torch.zeros(most, *answers.shape[1:])
        padded[: len(answers)] = torch.from_numpy(answers)
        every = gathered(padded.to(self.device)).cpu().reshape(self.world, most, *answers.shape[1:])
        return cast(NDArray[np.float32], every.transpose(0, 1).flatten(0, 1)[:total].numpy())

    def chance(self) -> list[list[str]]:
        """The state of PyTorch's generators in every process, as text."""
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        everywhere = [self.gather(state[None].to(self.device)).cpu() for state in states]
        return [[bytes(state.numpy()).hex() for state in states] for states in zip(*everywhere, strict=True)]

    def take_chance(self, stored: Sequence[Sequence[str]]) -> None:
        """Sets this process's generators as :meth:`chance` found them, where it did."""
        if self.rank >= len(stored):
            return
        own = [torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8) for state in stored[self.rank]]
        torch.set_rng_state(own[0])
        if self.device.type == "cuda" and len(own) > 1:
            torch.cuda.set_rng_state(own[1], self.device)


class _Answering(nn.Module):
    """Holds all that learns, and calls the part of it that answers."""

    def __init__(self, trained: nn.Module, answering: nn.Module) -> None:
        super().__init__()
        self.trained, self.answering = trained, answering

    def forward(self, features: Tensor) -> Any:
        return self.answering(features)


@contextmanager
def open_devices(name: str) -> Iterator[Devices]:
    """The device of a recipe, among the processes that ``torchrun`` started; joins them where it must.

    Args:
        name: "cpu", "cuda" (with several processes each its own), "cuda:1" and the like, or "auto".

    Raises:
        RecipeError: If there is no such device, or ``torchrun`` could not start the run again.
    """
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    several = world > 1 and "RANK" in os.environ
    device = _device(name, local if several else None)
    if not several:
        yield Devices(device)
        return
    joins = not distributed.is_initialized()
    if joins:
        _require_fresh_addresses()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Devices(device, distributed.get_rank(), distributed.get_world_size())
    if joins:
        distributed.destroy_process_group()


def _require_fresh_addresses() -> None:
    """Refuses a run whose restarted processes would look for each other where those that died were.

    By default ``torchrun`` keeps one store for all its attempts, and each finds the addresses of the one
    before in it (PyTorch 2.13); whoever reads them too early waits for half an hour.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        raise RecipeError(
            "torchrun --max-restarts finds its processes again only with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment: set that, or leave the option out"
        )


def _device(name: str, local: int | None) -> torch.device:
    """The device of that name; of the process that is so-and-so-many-th of its machine, where it has one."""
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        kind = "cuda" if count else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    if number and local is not None:
        raise RecipeError(f"run.device = {name!r} is one device for several processes: give cuda")
    wanted = int(number or local or 0)
    if wanted >= count:
        raise RecipeError(
            f"run.device = {name!r}: there is no GPU number {wanted} here (PyTorch sees {count}): "
            "give cpu, another number, or start fewer processes"
        )
    return torch.device("cuda", wanted)
