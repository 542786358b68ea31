"""One step of training, as the reference takes it and with one lever after another.

    python -m benchmarks.step SIDE [STEPS]

takes steps of one side and prints, as JSON: seconds of a step by the clock and of the processor, clips per
second, and the peak memory of the process.

A step is that of EfficientAT's training: 16 clips of 10 s to log-mels, mixup of log-mels, labels and the
teacher's scores, mn10 with 527 classes, a tenth of the labels' loss and nine of the teacher's, backward pass,
Adam. The clips are noise and lie in memory.

Source: EfficientAT's ex_audioset.py (Schmid et al., arXiv:2211.04772), restated with earmark's own network.

Conventions: sides are named in SIDES. All run on two threads, in processes of their own, and in turns;
no thread spins while it waits (``OMP_WAIT_POLICY=passive``), so that the processor's time counts work.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import ROOT
from benchmarks.tables import markdown

BATCH, SECONDS, CLASSES, THREADS = 16, 10, 527, 2
REFERENCE = "the reference"
FASTER, SMALLER = 2.5, 0.5
"""What is aimed at: times its clips a second, in this share of its memory."""
JEMALLOC = Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")


@dataclass(frozen=True)
class Side:
    """How a step is taken.

    Args:
        channels_last: Layout of the maps.
        fused: The optimizer's one kernel instead of an operation for each weight.
        log_mel: The front-end of earmark's trainings instead of ``torch.stft``.
        keep_memory: See :func:`earmark.training.runtime.freed_memory.keep_freed_memory`.
        recompute: See :mod:`earmark.models.recompute`.
        checkpoint: Keep only what comes into each stage, and compute the rest anew, convolutions too.
        precision: What the network computes in.
        compiled: By ``torch.compile``, which needs a C++ compiler.
        jemalloc: Another allocator, loaded before the process starts, that gives nothing back.
        gives_back: glibc's allocator gives every map of 4 MB and more back at once (MALLOC_MMAP_THRESHOLD_).
    """

    channels_last: bool = False
    fused: bool = False
    log_mel: bool = False
    keep_memory: bool = False
    recompute: bool = False
    checkpoint: bool = False
    precision: str = "fp32"
    compiled: bool = False
    jemalloc: bool = False
    gives_back: bool = False


_EARMARK = {"channels_last": True, "fused": True, "log_mel": True}
SIDES = {
    REFERENCE: Side(),
    "channels last": Side(channels_last=True),
    "fused optimizer": Side(fused=True),
    "front-end of earmark": Side(log_mel=True),
    "freed memory kept": Side(keep_memory=True),
    "norms and activations recomputed": Side(recompute=True),
    "the first three": Side(**_EARMARK),
    "all, for speed: keep_memory": Side(**_EARMARK, keep_memory=True),
    "all, for memory: recompute": Side(**_EARMARK, recompute=True),
    "all: recompute, every map given back": Side(**_EARMARK, recompute=True, gives_back=True),
    "all: keep_memory, recompute": Side(**_EARMARK, keep_memory=True, recompute=True),
    "all: jemalloc, recompute": Side(**_EARMARK, recompute=True, jemalloc=True),
    "all: jemalloc, every stage checkpointed": Side(**_EARMARK, checkpoint=True, jemalloc=True),
    "all: jemalloc, recompute, bf16": Side(**_EARMARK, recompute=True, jemalloc=True, precision="bf16"),
    "all: keep_memory, torch.compile": Side(**_EARMARK, keep_memory=True, compiled=True),
}


def stepper(side: Side) -> Callable[[], float]:
    """Builds all that a step needs; each call takes one and gives its loss."""
    import numpy as np
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits
    from torch.utils.checkpoint import checkpoint

    from benchmarks.reference import StftLogMel
    from earmark.data.augment import mixup
    from earmark.features.front_end import FrontEnd
    from earmark.models import create_model
    from earmark.models.log_mel import TorchLogMel
    from earmark.models.mobilenet import InvertedResidual, MobileNet
    from earmark.training.runtime.freed_memory import keep_freed_memory

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    if side.keep_memory and not keep_freed_memory():
        raise SystemExit("this system's allocator cannot be told to keep memory")
    front_end = FrontEnd()
    log_mel = TorchLogMel(front_end) if side.log_mel else StftLogMel(front_end)
    network = create_model("mn10", num_classes=CLASSES).train()
    assert isinstance(network, MobileNet)
    for block in network.modules():
        if isinstance(block, InvertedResidual):
            block.recomputes = side.recompute
    if side.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if side.checkpoint:
        for stage in network.features:
            plain = stage.forward
            stage.forward = lambda values, plain=plain: checkpoint(plain, values, use_reentrant=False)
    learner: Any = torch.compile(network) if side.compiled else network
    adam = torch.optim.Adam(network.parameters(), 1e-4, fused=side.fused, foreach=False)
    waveforms = torch.rand(BATCH, SECONDS * front_end.sample_rate) - 0.5
    targets = (torch.rand(BATCH, CLASSES) < 0.01).float()
    rows = torch.cat([targets, torch.rand(BATCH, CLASSES)], 1)
    generator = np.random.default_rng(0)

    def step() -> float:
        features, told = mixup(log_mel(waveforms), rows, 0.3, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=side.precision == "bf16"):
            logits = learner(features).logits
        own, taught = (
            binary_cross_entropy_with_logits(logits.float(), part) for part in told.split(CLASSES, 1)
        )
        loss = 0.1 * own + 0.9 * taught
        loss.backward()
        adam.step()
        adam.zero_grad()
        return loss.item()

    return step


def measured(name: str, steps: int) -> dict[str, float]:
    """Takes steps of a side in a process of its own."""
    side = SIDES[name]
    environment = dict(os.environ) | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(THREADS)}
    if side.jemalloc:
        keeping = "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1"
        environment |= {"LD_PRELOAD": str(JEMALLOC), "MALLOC_CONF": keeping}
    if side.gives_back:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(4 << 20)
    command = [sys.executable, "-m", "benchmarks.step", name, str(steps)]
    found = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(found.stdout))


@dataclass(frozen=True)
class StepLine:
    """One line of the table: medians over the turns, ratios of the same turn.

    Args:
        name: Of the side.
        clock_s: Of a step.
        processor_s: Of a step, over all threads.
        peak_mb: Of the process.
        faster: Times the clips a second of the reference, by the clock.
        lighter: The same by the processor's time.
        share: Of the reference's peak memory.
    """

    name: str
    clock_s: float
    processor_s: float
    peak_mb: float
    faster: float
    lighter: float
    share: float

    def cells(self) -> list[str]:
        """The line of the table."""
        return [
            self.name,
            f"{BATCH / self.clock_s:.1f}",
            f"{self.faster:.2f} x",
            f"{self.processor_s:.2f} s",
            f"{self.lighter:.2f} x",
            f"{self.peak_mb:.0f}",
            f"{100 * self.share:.0f} %",
        ]


def lines(turns: int, steps: int, names: Sequence[str] = ()) -> Iterator[StepLine]:
    """Measures all sides, in turns."""
    names = [name for name in names or SIDES if JEMALLOC.exists() or not SIDES[name].jemalloc]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(turns):
        for name, values in found.items():
            values.append(measured(name, steps))
            if abs(values[-1]["loss"] - found[REFERENCE][-1]["loss"]) > 1e-3:
                raise SystemExit(f"{name}: the loss of the first step is another than the reference's")
            print(name, values[-1], file=sys.stderr, flush=True)
    for name, values in found.items():
        pairs = list(zip(values, found[REFERENCE], strict=True))
        yield StepLine(
            name,
            *(median(value[key] for value in values) for key in ("clock_s", "processor_s", "peak_mb")),
            median(other["clock_s"] / own["clock_s"] for own, other in pairs),
            median(other["processor_s"] / own["processor_s"] for own, other in pairs),
            median(own["peak_mb"] / other["peak_mb"] for own, other in pairs),
        )


def table(found: Sequence[StepLine]) -> str:
    """The lines as a Markdown table, and what is aimed at."""
    head = ["step", "clips/s", "of the reference", "processor", "of the reference", "peak, MB", "share"]
    shown = markdown(head, [line.cells() for line in found], numbers=head[1:])
    both = [line.name for line in found if line.faster >= FASTER and line.share <= SMALLER]
    said = f"met by {', '.join(both)}" if both else "MISSED"
    return f"{shown}\n≥ {FASTER:g} x clips/s in ≤ {100 * SMALLER:.0f} % of the memory: {said}.\n"


def main(name: str, steps: str = "3") -> None:
    """Takes one step that does not count, and then those that do."""
    step = stepper(SIDES[name])
    losses, clock, processor = [step()], [], []
    for _ in range(int(steps)):
        starts = time.perf_counter(), time.process_time()
        losses.append(step())
        clock.append(time.perf_counter() - starts[0])
        processor.append(time.process_time() - starts[1])
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    facts = {
        "clock_s": median(clock),
        "processor_s": median(processor),
        "peak_mb": peak_mb,
        "loss": losses[0],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main(*sys.argv[1:])
