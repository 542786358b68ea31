"""A training step: the reference's, and with one option after another.

    python -m benchmarks.step SIDE [STEPS]

takes steps of one side and prints, as JSON: seconds per step by wall clock and processor, the loss of the
first step, and the peak memory of the process.

A step is that of EfficientAT's training: 16 clips of 10 s to log-mels, mixup of log-mels, labels and the
teacher's scores, mn10 with 527 classes, 0.1 of the label loss and 0.9 of the distillation loss, backward
pass, Adam. The clips are noise and lie in memory.

Source: EfficientAT's ex_audioset.py (Schmid et al., arXiv:2211.04772), restated with earmark's own network.

Conventions: sides are named in SIDES. All run on two threads, in processes of their own, and alternate;
waiting threads do not spin (``OMP_WAIT_POLICY=passive``), so that processor time measures work.
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
"""Targets: clips per second and peak memory, relative to the reference."""
JEMALLOC = Path("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")


@dataclass(frozen=True)
class Side:
    """Options of a step.

    Args:
        channels_last: Memory layout of the activations.
        fused: One kernel of the optimizer instead of an operation per weight.
        log_mel: earmark's front-end instead of ``torch.stft``.
        checkpoint: Keep only the input of each stage and recompute the rest in the backward pass.
        precision: Precision of the network.
        compiled: ``torch.compile``, which needs a C++ compiler.
        jemalloc: Another allocator, loaded before the process starts, set to keep freed memory.
    """

    channels_last: bool = False
    fused: bool = False
    log_mel: bool = False
    checkpoint: bool = False
    precision: str = "fp32"
    compiled: bool = False
    jemalloc: bool = False


_EARMARK = {"channels_last": True, "fused": True, "log_mel": True}
SIDES = {
    REFERENCE: Side(),
    "channels last": Side(channels_last=True),
    "fused optimizer": Side(fused=True),
    "front-end of earmark": Side(log_mel=True),
    "jemalloc": Side(jemalloc=True),
    "the first three": Side(**_EARMARK),
    "all, for speed: jemalloc": Side(**_EARMARK, jemalloc=True),
    "all: jemalloc, every stage checkpointed": Side(**_EARMARK, checkpoint=True, jemalloc=True),
    "all: jemalloc, every stage checkpointed, bf16": Side(
        **_EARMARK, checkpoint=True, jemalloc=True, precision="bf16"
    ),
    "all: jemalloc, torch.compile": Side(**_EARMARK, jemalloc=True, compiled=True),
}


def stepper(side: Side) -> Callable[[], float]:
    """Sets up a step; each call takes one and returns its loss."""
    import numpy as np
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from benchmarks.reference import StftLogMel
    from earmark.data.augment import mixup
    from earmark.features.front_end import FrontEnd
    from earmark.models import create_model
    from earmark.models.activation_checkpointing import checkpoint_stages
    from earmark.models.log_mel import TorchLogMel

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    front_end = FrontEnd()
    log_mel = TorchLogMel(front_end) if side.log_mel else StftLogMel(front_end)
    network = create_model("mn10", num_classes=CLASSES).train()
    if side.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if side.checkpoint:
        checkpoint_stages(network)
    learner: Any = torch.compile(network) if side.compiled else network
    adam = torch.optim.Adam(network.parameters(), 1e-4, fused=side.fused, foreach=False)
    waveforms = torch.rand(BATCH, SECONDS * front_end.sample_rate) - 0.5
    labels = (torch.rand(BATCH, CLASSES) < 0.01).float()
    rows = torch.cat([labels, torch.rand(BATCH, CLASSES)], 1)
    generator = np.random.default_rng(0)

    def step() -> float:
        features, targets = mixup(log_mel(waveforms), rows, 0.3, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=side.precision == "bf16"):
            logits = learner(features).logits
        label_loss, distillation_loss = (
            binary_cross_entropy_with_logits(logits.float(), part) for part in targets.split(CLASSES, 1)
        )
        loss = 0.1 * label_loss + 0.9 * distillation_loss
        loss.backward()
        adam.step()
        adam.zero_grad()
        return loss.item()

    return step


def measure_side(name: str, steps: int) -> dict[str, float]:
    """Takes steps of one side in a process of its own."""
    side = SIDES[name]
    environment = dict(os.environ) | {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": str(THREADS)}
    if side.jemalloc:
        keeping = "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1"
        environment |= {"LD_PRELOAD": str(JEMALLOC), "MALLOC_CONF": keeping}
    command = [sys.executable, "-m", "benchmarks.step", name, str(steps)]
    found = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(found.stdout))


@dataclass(frozen=True)
class StepRow:
    """A row of the table: medians over the rounds, ratios within a round.

    Args:
        name: Name of the side.
        clock_s: Wall-clock time of a step.
        processor_s: Processor time of a step, over all threads.
        peak_mb: Peak memory of the process.
        faster: Ratio of clips per second to the reference, by wall-clock time.
        lighter: The same by processor time.
        share: Share of the reference's peak memory.
    """

    name: str
    clock_s: float
    processor_s: float
    peak_mb: float
    faster: float
    lighter: float
    share: float

    def cells(self) -> list[str]:
        """The cells of the row."""
        return [
            self.name,
            f"{BATCH / self.clock_s:.1f}",
            f"{self.faster:.2f} x",
            f"{self.processor_s:.2f} s",
            f"{self.lighter:.2f} x",
            f"{self.peak_mb:.0f}",
            f"{100 * self.share:.0f} %",
        ]


def measured(rounds: int, steps: int, names: Sequence[str] = ()) -> Iterator[StepRow]:
    """Measures all sides, alternating."""
    names = [name for name in names or SIDES if JEMALLOC.exists() or not SIDES[name].jemalloc]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, values in found.items():
            values.append(measure_side(name, steps))
            if abs(values[-1]["loss"] - found[REFERENCE][-1]["loss"]) > 1e-3:
                raise SystemExit(f"{name}: the loss of the first step differs from the reference's")
            print(name, values[-1], file=sys.stderr, flush=True)
    for name, values in found.items():
        pairs = list(zip(values, found[REFERENCE], strict=True))
        yield StepRow(
            name,
            *(median(value[key] for value in values) for key in ("clock_s", "processor_s", "peak_mb")),
            median(other["clock_s"] / own["clock_s"] for own, other in pairs),
            median(other["processor_s"] / own["processor_s"] for own, other in pairs),
            median(own["peak_mb"] / other["peak_mb"] for own, other in pairs),
        )


def table(rows: Sequence[StepRow]) -> str:
    """A Markdown table, and whether the targets are met."""
    head = ["step", "clips/s", "of the reference", "processor", "of the reference", "peak, MB", "share"]
    shown = markdown(head, [row.cells() for row in rows], numbers=head[1:])
    met = [row.name for row in rows if row.faster >= FASTER and row.share <= SMALLER]
    verdict = f"met by {', '.join(met)}" if met else "MISSED"
    return f"{shown}\n≥ {FASTER:g} x clips/s in ≤ {100 * SMALLER:.0f} % of the memory: {verdict}.\n"


def main(name: str, steps: str = "3") -> None:
    """Takes one step of warm-up, then the steps that are measured."""
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
