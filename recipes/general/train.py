"""Trains the general model: a fresh network learns from the published mn04_as, stage by stage, then whole.

    python recipes/general/train.py --bank runs/general/bank --teacher mn04_as_mAP_432.pt --run runs/general/1

Stops after the last phase of phases.json. What is interrupted goes on where it was: run the same command
again. Every 15 minutes a snapshot of the averaged weights, half precision, is added for judge.py.

First every stage is taught by itself: on the teacher's map of the stage before, to give the teacher's map,
both in coordinates of the student's own (block-wise distillation; FitNets' hints, arXiv:1412.6550, taken
literally). Then all learn together, on what the student itself gives.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mixing import Bank, Mixer, training_pieces
from soap import SOAP
from stages import (
    CHANNELS_LAST,
    SEED,
    Statistics,
    Teacher,
    apply_stage,
    draw_projections,
    initialise,
    measure,
    plain_student,
    project,
)
from torch import Tensor, nn
from torch.nn import functional

from earmark.errors import EarmarkError

PHASES = Path(__file__).with_name("phases.json")
FRAMES_PER_WORKER = 3840
LENGTHS = (64, 128, 256, 512, 1000)
"""Lengths of inputs in frames of 10 ms; a step has inputs of one length."""
EARLY_SHARES = {1: 0.1, 2: 0.2, 3: 0.2, 4: 0.3, 5: 0.3, 6: 0.3, 7: 0.3, 8: 0.6, 10: 0.6, 11: 0.6}
"""Share of a batch that a stage learns from when it learns alone: the maps of the first ones are large."""
WARM_UP_STEPS, WEIGHT_DECAY = 60, 0.001
EMBEDDING_CHANNELS = 384

SAVE_S, SNAPSHOT_S, LOG_STEPS, READ_STEPS = 300, 900, 100, 25


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of the training. The file is read again during a run, which can so be extended.

    Attributes:
        until_inputs: End of the phase, in inputs seen (pieces of 0.6 to 10 s).
        begin: End of the phase before; not in the file.
        forced: Each stage learns alone, on the teacher's map.
        rate: Learning rate.
        joint_from: Without forced: the first stage of 17 that the later ones' errors reach; those before it
            learn alone, on the student's own map.
        hint_weight: Of the mean error of the stages that learn jointly.
        ema_decay: Of the averaged weights.
        length_shares: How often a step has inputs of each length of LENGTHS; their sum is 1.
        final_rate: Learning rate at the end of the phase, reached in equal ratios; None keeps ``rate``.
    """

    until_inputs: int
    begin: int = 0
    forced: bool
    rate: float
    joint_from: int = 17
    hint_weight: float = 10.0
    ema_decay: float = 0.995
    length_shares: Sequence[float] = (0.08, 0.27, 0.45, 0.20, 0.0)
    final_rate: float | None = None

    def rate_after(self, inputs: int) -> float:
        """The learning rate after a number of inputs, all phases together."""
        if self.final_rate is None:
            return self.rate
        share = (inputs - self.begin) / (self.until_inputs - self.begin)
        return float(self.rate * (self.final_rate / self.rate) ** min(1.0, share))


def current_phase(path: Path, inputs: int) -> Phase | None:
    """The phase after a number of inputs, None after the last."""
    begin = 0
    for values in json.loads(path.read_text(encoding="utf-8")):
        phase = Phase(**values, begin=begin)
        if inputs < phase.until_inputs:
            return phase
        begin = phase.until_inputs
    return None


def logit_loss(logits: Tensor, wanted: Tensor, variances: Tensor) -> Tensor:
    """Cross-entropy with the teacher's scores, and squared errors of the logits, plain and standardised."""
    errors = (logits - wanted).square()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted.sigmoid())
    return 40 * entropy + 0.5 * errors.mean() / 1.5**2 + 0.25 * (errors / variances).mean()


@dataclass
class Start:
    """What a run starts with and does not change.

    Attributes:
        mixer: Makes the batches.
        projections: See draw_projections.
        statistics: See measure.
    """

    mixer: Mixer
    projections: dict[int, Tensor]
    statistics: Statistics


@dataclass
class Lesson:
    """What one worker computes in a step: gradients of all parameters, and the errors to log."""

    gradients: Sequence[Tensor | None]
    errors: list[float]
    inputs: int


class Lessons:
    """Computes the losses of student and teacher on the same batch.

    Args:
        student: See plain_student.
        guess_embedding: From the student's embedding to the teacher's; dropped when the training ends.
        teacher: The network to imitate.
        start: See prepare.
    """

    def __init__(self, student: Any, guess_embedding: nn.Linear, teacher: Teacher, start: Start) -> None:
        self.student, self.guess_embedding = student, guess_embedding
        self.teacher, self.start = teacher, start
        self.parameters = [*student.parameters(), *guess_embedding.parameters()]

    def __call__(self, step: int, worker: int, phase: Phase) -> Lesson:
        """The gradients of a step; everything drawn follows from the step and the worker."""
        rng = np.random.default_rng([SEED, step, 9])
        frames = int(rng.choice(LENGTHS, p=phase.length_shares))
        size = max(3, FRAMES_PER_WORKER // frames)
        log_mel = self.start.mixer.batch([SEED, 1, step, worker], size, frames)
        logits, embedding, maps = self.teacher(log_mel)
        wanted = project(maps, self.start.projections)
        features = log_mel.unsqueeze(1).contiguous(memory_format=CHANNELS_LAST)
        losses, joint = [], []
        for stage, target in wanted.items():
            if phase.forced or stage < phase.joint_from:
                losses.append(self._alone(stage, features, target, step))
                with torch.no_grad():
                    features = target if phase.forced else apply_stage(self.student, stage, features)
            else:
                features = apply_stage(self.student, stage, features)
                joint.append(((features - target).square() / self.start.statistics.maps[stage]).mean())
        last = self.student.features[-1](features)
        guess, error = self.student.classifier(last), self.guess_embedding(last.mean((2, 3))) - embedding
        _, embedding_variances = self.start.statistics.embedding
        _, logit_variances = self.start.statistics.logits
        ends = [(error.square() / embedding_variances).mean(), logit_loss(guess, logits, logit_variances)]
        total = torch.stack([*losses, *ends]).sum()
        if joint:
            total = total + phase.hint_weight * torch.stack(joint).mean()
        relative = (guess.detach() - logits).square().mean() / logit_variances.mean()
        errors = [one.item() for one in (*losses, *joint, ends[0], relative)]
        return Lesson(torch.autograd.grad(total, self.parameters, allow_unused=True), errors, size)

    def _alone(self, stage: int, source: Tensor, target: Tensor, step: int) -> Tensor:
        """A stage's error on a share of the batch, relative to what the stage adds."""
        size = len(source)
        count = max(1, round(size * EARLY_SHARES.get(stage, 1.0)))
        begin = step * 5 % max(1, size - count + 1)
        part = slice(begin, begin + count)
        errors = (apply_stage(self.student, stage, source[part]) - target[part]).square()
        return (errors / self.start.statistics.added[stage]).mean()


class Run:
    """A training that can be cut off at any time: state, its file, and snapshots.

    Args:
        folder: Where state and snapshots are written.
        student: See plain_student.
        guess_embedding: See Lessons.
        projections: See draw_projections; kept in snapshots.
    """

    def __init__(
        self, folder: Path, student: Any, guess_embedding: nn.Linear, projections: dict[int, Tensor]
    ) -> None:
        self.folder, self.student, self.guess_embedding = folder, student, guess_embedding
        self.projections = projections
        self.parameters = [*student.parameters(), *guess_embedding.parameters()]
        groups = [
            {"params": [one for one in self.parameters if one.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [one for one in self.parameters if one.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = SOAP(groups, lr=1e-3)
        self.average = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        self.step, self.inputs, self.seconds = 0, 0, 0.0
        if (folder / "state.pt").exists():
            state = torch.load(folder / "state.pt", weights_only=True)
            student.load_state_dict(state["net"])
            guess_embedding.load_state_dict(state["aux"])
            self.optimizer.load_state_dict(state["opt"])
            self.average, self.step, self.inputs = state["ema"], state["step"], state["seen"]
            self.seconds = state["t"]

    def update(self, lessons: Sequence[Lesson], phase: Phase) -> None:
        """One step of the optimizer on the mean of the workers' gradients."""
        with torch.no_grad():
            for parameter, *given in zip(
                self.parameters, *(lesson.gradients for lesson in lessons), strict=True
            ):
                present = [gradient for gradient in given if gradient is not None]
                parameter.grad = torch.stack(present).mean(0) if present else None
            for group in self.optimizer.param_groups:
                group["lr"] = phase.rate_after(self.inputs) * min(1.0, (self.step + 1) / WARM_UP_STEPS)
            self.optimizer.step()
            decay = min(phase.ema_decay, (self.step + 1) / (self.step + 20))
            for name, tensor in self.student.state_dict().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor, 1 - decay)
                else:
                    self.average[name].copy_(tensor)
        self.step += 1
        self.inputs += sum(lesson.inputs for lesson in lessons)

    def begin_from(self, snapshot: Path) -> None:
        """Takes the weights of a snapshot; the optimizer starts anew."""
        content = torch.load(snapshot, weights_only=True)
        tensors = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in content["ema"].items()
        }
        self.student.load_state_dict(tensors)
        self.average = {name: tensor.clone() for name, tensor in self.student.state_dict().items()}
        self.inputs = content["seen"]

    def save(self) -> None:
        """Writes all that the next step depends on."""
        state = {"net": self.student.state_dict(), "aux": self.guess_embedding.state_dict()}
        state |= {"opt": self.optimizer.state_dict(), "ema": self.average}
        self._write(state | {"step": self.step, "seen": self.inputs, "t": self.seconds}, "state.pt")

    def snapshot(self) -> None:
        """Writes the averaged weights in half precision."""
        half = {
            name: tensor.half() if tensor.is_floating_point() else tensor
            for name, tensor in self.average.items()
        }
        name = f"snapshot_{self.step:07d}.pt"
        content = {"ema": half, "projections": self.projections, "step": self.step, "seen": self.inputs}
        self._write(content | {"minutes": self.seconds / 60}, name)

    def _write(self, content: dict[str, Any], name: str) -> None:
        torch.save(content, self.folder / f"{name}.partial")
        os.replace(self.folder / f"{name}.partial", self.folder / name)


def prepare(path: Path, bank: Bank, teacher: Teacher, snapshot: Path | None) -> tuple[Any, nn.Linear, Start]:
    """Student and start of a run; what takes the teacher's answers is kept in a file."""
    student = plain_student()
    channels = student.features[-1][1].num_features
    guess_embedding = nn.Linear(channels, EMBEDDING_CHANNELS)
    if not path.exists():
        pieces, weights = training_pieces(bank, lambda log_mel: teacher(log_mel)[0])
        mixer = Mixer(bank, pieces, weights)
        given = {} if snapshot is None else torch.load(snapshot, weights_only=True)
        projections = given.get("projections") or draw_projections(student)
        statistics = measure(teacher, mixer, student, projections)
        initialise(student, guess_embedding, statistics, teacher, mixer, projections)
        content = {"pieces": pieces, "weights": weights.tolist(), "projections": projections}
        content |= {"net": student.state_dict(), "aux": guess_embedding.state_dict()}
        torch.save(content | {"statistics": vars(statistics)}, f"{path}.partial")
        os.replace(f"{path}.partial", path)
    content = torch.load(path, weights_only=True)
    student.load_state_dict(content["net"])
    guess_embedding.load_state_dict(content["aux"])
    mixer = Mixer(bank, content["pieces"], np.array(content["weights"]))
    return student, guess_embedding, Start(mixer, content["projections"], Statistics(**content["statistics"]))


def train(args: argparse.Namespace) -> None:
    """Runs, or goes on with, a training until its phases end."""
    args.run.mkdir(parents=True, exist_ok=True)
    bank = Bank(args.bank)
    teacher = Teacher(args.teacher, args.run / "teacher.onnx")
    student, guess_embedding, start = prepare(args.run / "start.pt", bank, teacher, args.init)
    run = Run(args.run, student, guess_embedding, start.projections)
    if args.init is not None and run.step == 0:
        run.begin_from(args.init)
    student.eval()
    lessons = Lessons(student, guess_embedding, teacher, start)
    saved = snapped = logged = time.monotonic()
    errors: list[list[float]] = []
    phase = current_phase(args.phases, run.inputs)
    with ThreadPoolExecutor(args.workers) as pool:
        while phase is not None:
            futures = [pool.submit(lessons, run.step, worker, phase) for worker in range(args.workers)]
            given = [future.result() for future in futures]
            run.update(given, phase)
            errors += [lesson.errors for lesson in given]
            now = time.monotonic()
            if run.step % LOG_STEPS == 0:
                run.seconds += now - logged
                logged = now
                means = " ".join(f"{np.mean(column):.3f}" for column in zip(*errors, strict=False))
                print(f"{time.strftime('%H:%M:%S')} step {run.step} inputs {run.inputs}: {means}", flush=True)
                errors = []
            if now - saved > SAVE_S:
                run.save()
                saved = now
            if now - snapped > SNAPSHOT_S:
                run.snapshot()
                snapped = now
            if run.step % READ_STEPS == 0:
                phase = current_phase(args.phases, run.inputs)
    run.save()
    run.snapshot()


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bank", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--teacher", type=Path, required=True, help="published weights of mn04_as")
    parser.add_argument("--run", type=Path, required=True, help="folder for state and snapshots")
    parser.add_argument("--init", type=Path, help="snapshot to begin from, instead of random weights")
    parser.add_argument("--phases", type=Path, default=PHASES)
    parser.add_argument("--workers", type=int, default=2, help="threads, each with a batch of its own")
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        train(args)
    except (EarmarkError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
