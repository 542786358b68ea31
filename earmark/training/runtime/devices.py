"""Devices and processes of a training: one device per process, one or several processes (``torchrun``).

Conventions: a batch is the global batch of all processes; each holds an equal number of its rows, in the
order of ranks. Rank 0 writes all files. With a single process all collectives are no-ops.
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
"""Steps between two reads of the losses on an accelerator: a read waits for it."""

Keys = list[tuple[int, int]]
Batch = tuple[Keys, tuple[Tensor, Tensor]]
"""Position and crop seed of each clip, waveforms and targets."""

Item = TypeVar("Item")


class Devices:
    """The device and rank of this process.

    Args:
        device: Of this process.
        rank: Of this process.
        world_size: Number of processes.
    """

    def __init__(self, device: torch.device, rank: int = 0, world_size: int = 1) -> None:
        self.device, self.rank, self.world_size = device, rank, world_size
        self.is_main = rank == 0
        """Whether this process writes the run's files."""
        self.read_every = 1 if device.type == "cpu" else READ_EVERY
        """Steps between two reads of the losses."""
        self.pin_memory = device.type == "cuda"
        """Whether batches are loaded into pinned memory."""

    def require_divisible(self, rows: int) -> None:
        """Checks that a batch divides among the processes.

        Raises:
            RecipeError: If it does not.
        """
        if rows % self.world_size:
            raise RecipeError(
                f"a batch of {rows} clips does not divide among {self.world_size} processes: change "
                "optimizer.batch_size or the number of processes"
            )

    def own_rows(self, batch: list[Item]) -> list[Item]:
        """This process's rows of a batch."""
        return batch[self._rows(len(batch) // self.world_size)]

    def _rows(self, share: int) -> slice:
        return slice(self.rank * share, (self.rank + 1) * share)

    def generator(self, seed: Sequence[int], own: int) -> np.random.Generator:
        """Random draws for a batch of which this process holds ``own`` rows."""
        if self.world_size == 1:
            return np.random.default_rng(seed)
        return RowsGenerator(seed, own * self.world_size, self._rows(own), gathered)

    def seed(self, number: int) -> None:
        """Seeds PyTorch with the number plus the rank."""
        torch.manual_seed(number + self.rank)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of the global batch, with gradients."""
        return rows if self.world_size == 1 else gathered(rows)

    def move(self, values: Tensor) -> Tensor:
        """Copies a tensor to the device without blocking."""
        if self.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def prefetch(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Batches on the device, each copied during the step before."""
        return batches if self.device.type == "cpu" else self._copied_ahead(batches)

    def _copied_ahead(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        copying = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def copied() -> Batch | None:
            batch = next(batches, None)
            if batch is None:
                return None
            keys, (waveforms, targets) = batch
            with torch.cuda.stream(copying):
                return keys, (self.move(waveforms), self.move(targets))

        coming = copied()
        while coming is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(copying)
            for values in coming[1]:
                values.record_stream(computing)
            batch, coming = coming, copied()
            yield batch

    def autocast(self, precision: str) -> torch.autocast:
        """Autocast to a precision."""
        return torch.autocast(self.device.type, PRECISIONS[precision], enabled=precision != "fp32")

    def scaler(self, precision: str) -> torch.amp.GradScaler:
        """Gradient scaler for fp16; disabled for other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")

    def synchronize_norms(self, network: nn.Module) -> None:
        """Makes batch norms use the global batch."""
        if self.world_size > 1:
            synchronize_norms(network, self.device)

    def distributed(self, trained: nn.Module, network: nn.Module) -> nn.Module:
        """The module to call in a step, so that gradients are averaged over the processes.

        Args:
            trained: Holds all trained parameters.
            network: The part of it that is called with features.
        """
        if self.world_size == 1:
            return network
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            _Forward(trained, network), device_ids=ids, gradient_as_bucket_view=True
        )

    def no_sync(self, module: nn.Module, enabled: bool) -> AbstractContextManager[Any]:
        """Accumulates gradients in each process, without averaging them, if enabled."""
        if enabled and isinstance(module, DistributedDataParallel):
            return module.no_sync()
        return nullcontext()

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Copies the norm statistics of rank 0, which are kept, to all processes."""
        if self.world_size > 1:
            for buffer in network.buffers():
                distributed.broadcast(buffer, 0)

    def broadcast_flag(self, value: bool) -> bool:
        """The value of rank 0."""
        if self.world_size == 1:
            return value
        flag = torch.tensor(int(value), device=self.device)
        distributed.broadcast(flag, 0)
        return bool(flag)

    def barrier(self) -> None:
        """Waits for all processes."""
        self.broadcast_flag(True)

    def own_items(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's share of items: every world_size-th."""
        return items[self.rank :: self.world_size]

    def gather_items(self, values: NDArray[np.float32], total: int) -> NDArray[np.float32]:
        """Values (total, ...) of all items, in order, from those of each process's :meth:`own_items`."""
        if self.world_size == 1:
            return values
        most = -(-total // self.world_size)
        padded = torch.zeros(most, *values.shape[1:])
        padded[: len(values)] = torch.from_numpy(values)
        every = gathered(padded.to(self.device)).cpu().reshape(self.world_size, most, *values.shape[1:])
        return cast(NDArray[np.float32], every.transpose(0, 1).flatten(0, 1)[:total].numpy())

    def rng_state(self) -> list[list[str]]:
        """The state of PyTorch's generators in every process, in hexadecimal."""
        states = [torch.get_rng_state()]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        everywhere = [self.gather(state[None].to(self.device)).cpu() for state in states]
        return [[bytes(state.numpy()).hex() for state in states] for states in zip(*everywhere, strict=True)]

    def set_rng_state(self, stored: Sequence[Sequence[str]]) -> None:
        """Restores this process's generators from :meth:`rng_state`, if it is stored."""
        if self.rank >= len(stored):
            return
        own = [torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8) for state in stored[self.rank]]
        torch.set_rng_state(own[0])
        if self.device.type == "cuda" and len(own) > 1:
            torch.cuda.set_rng_state(own[1], self.device)


class _Forward(nn.Module):
    """Holds all trained parameters, and calls the network among them."""

    def __init__(self, trained: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.trained, self.network = trained, network

    def forward(self, features: Tensor) -> Any:
        return self.network(features)


@contextmanager
def open_devices(name: str) -> Iterator[Devices]:
    """Opens the device of a recipe, and joins the processes that ``torchrun`` started.

    Args:
        name: "auto", "cpu", "cuda" (one GPU per process), or "cuda:N".

    Raises:
        RecipeError: If there is no such device, or ``torchrun`` could not restart the run.
    """
    world_size, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    several = world_size > 1 and "RANK" in os.environ
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
    """Refuses restarts that would find the addresses of dead processes.

    By default ``torchrun`` keeps one store for all attempts, which still holds the addresses of the attempt
    before (PyTorch 2.13); a process that reads them too early waits for half an hour.
    """
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)):
        raise RecipeError(
            "torchrun --max-restarts needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment: set it, "
            "or remove the option"
        )


def _device(name: str, local: int | None) -> torch.device:
    """The device of a name; ``local`` is the rank of the process on its machine, if there are several."""
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        kind = "cuda" if count else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    if number and local is not None:
        raise RecipeError(f"run.device = {name!r} is one device for several processes: use cuda")
    index = int(number or local or 0)
    if index >= count:
        raise RecipeError(
            f"run.device = {name!r}: there is no GPU {index} here (PyTorch finds {count}): use cpu, another "
            "number, or fewer processes"
        )
    return torch.device("cuda", index)
