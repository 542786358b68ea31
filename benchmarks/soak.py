"""Soak test: a training that is killed again and again must end like an undisturbed one.

    python -m benchmarks.soak [--steps 3000] [--kills 50] [--full-disks 2] [--folder FOLDER]

Trains twice on as many clips as esc18 has, each a fraction of a second: undisturbed, and with SIGKILLs at
random moments, of the trainer or of one of its loader processes, and with a full disk (a limit on the size of
files). The results must be equal bit by bit, and memory must not grow.

Conventions: trainers are forked from a server that has imported everything, so restarting is cheap.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

CLASSES, CLIPS_PER_CLASS, RATE = 18, 40, 8000
BATCH = 8
GROWTH_MB = 8.0
"""Limit on the growth of memory from earlier to later epochs."""
_WORKERS = 2
_SHARE_OF_WORKERS = 0.3

_START = multiprocessing.get_context("forkserver")
_START.set_forkserver_preload(["earmark.training.trainer"])


def write_clips(folder: Path) -> Path:
    """Writes tones in noise, one pitch per class, in four folds; returns the manifest."""
    generator, lines = np.random.default_rng(0), ["path,labels,fold"]
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(CLASSES * CLIPS_PER_CLASS):
        kind = number % CLASSES
        moments = np.arange(round(generator.uniform(0.2, 0.5) * RATE)) / RATE
        tone = np.sin(2 * np.pi * 150 * 1.2**kind * moments)
        soundfile.write(
            folder / f"{number}.wav", 0.3 * tone + 0.1 * generator.normal(size=len(moments)), RATE
        )
        lines.append(f"{number}.wav,sound{kind:02},{1 + number // CLASSES % 4}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "clips.csv"


def recipe_values(manifest: Path, epochs: int) -> dict[str, Any]:
    """A recipe with dropout, weight averaging, mixup, gradient accumulation and loader processes."""
    words = dict.fromkeys(("description", "source", "command", "cost", "expected"), "a soak")
    return {
        "name": "soak",
        **words,
        "window_s": 0.4,
        "model": {"architecture": "mn01", "arguments": {"norm_momentum": 0.1}},
        "front_end": {
            "sample_rate": RATE, "n_fft": 256, "win_length": 256, "hop_length": 160, "n_mels": 16,
            "f_max": 3500.0,
        },
        "data": {"sources": [{"manifests": [str(manifest)]}], "folds": [1], "workers": _WORKERS},
        "augment": {"roll_s": 0.1, "mixup_alpha": 0.3, "mask_mels": 3},
        "optimizer": {
            "learning_rate": 1e-3, "batch_size": BATCH, "epochs": epochs, "ema_decay": 0.9,
            "grad_accum_steps": 2,
        },
        "evaluation": {"every_epochs": 10},
        "run": {"device": "cpu", "save_every_s": 0.3},
    }  # fmt: skip


def _train(values: dict[str, Any], folder: str, progress: Connection, most_bytes: int | None) -> None:
    """Runs in the process of a trainer: sends each step and the memory in use."""
    import torch

    from earmark.cli.terminal import complain
    from earmark.errors import EarmarkError
    from earmark.training.config.recipe import Recipe
    from earmark.training.trainer import train_network

    torch.set_num_threads(1)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    stderr = os.open(f"{folder}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(stderr, 2)
    own = psutil.Process()

    def report(facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            progress.send(
                ((facts["epoch"] - 1) * facts["steps"] + facts["step"], own.memory_info().rss / 1e6)
            )

    try:
        train_network(Recipe.model_validate(values), Path(folder), 1, report)
    except EarmarkError as error:
        complain(str(error))
        sys.exit(2)


class Trainer:
    """The process of a trainer."""

    def __init__(self, values: dict[str, Any], folder: Path, most_bytes: int | None = None) -> None:
        self.folder = folder
        self.progress, sender = _START.Pipe(duplex=False)
        self.process = _START.Process(target=_train, args=(values, str(folder), sender, most_bytes))
        self.process.start()
        sender.close()
        self.step, self.memory_mb = 0, []

    def runs_to(self, step: float) -> bool:
        """Waits for a step; False if the process ends before it."""
        while self.step < step:
            try:
                self.step, memory_mb = self.progress.recv()
            except EOFError:
                return False
            self.memory_mb.append(memory_mb)
        return True

    def end(self) -> tuple[int, str]:
        """Waits for the end; returns the exit code and standard error."""
        while self.runs_to(float("inf")):
            pass
        self.process.join()
        return self.process.exitcode, Path(f"{self.folder}.stderr").read_text(encoding="utf-8")

    def kill(self) -> None:
        """Kills the process."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def kill_worker(self, generator: np.random.Generator) -> bool:
        """Kills one of the loader processes; False if there is none."""
        try:
            workers = psutil.Process(self.process.pid).children()
            if not workers:
                return False
            workers[generator.integers(len(workers))].kill()
        except psutil.NoSuchProcess:
            return False
        return True


@dataclass
class Soak:
    """Disturbs a run and records what happened."""

    steps: int
    kills: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def disturb(self, values: dict[str, Any], folder: Path, kills: int, full_disks: int, seed: int) -> None:
        """Trains in a folder to the end, with disturbances at random steps."""
        generator, began, reached = np.random.default_rng(seed), time.monotonic(), 0
        full_at = set(generator.choice(kills, full_disks, replace=False).tolist()) if full_disks else set()
        while sum(self.kills.values()) < kills + full_disks:
            done = sum(self.kills.values())
            mean = (self.steps - reached) / (kills + full_disks - done + 2)
            target = reached + max(1, round(generator.uniform(0, 2) * mean))
            if done in full_at:
                full_at.discard(done)
                self._fill_disk(values, folder)
                continue
            trainer = Trainer(values, folder)
            if generator.random() < 0.05:  # before its first step
                time.sleep(generator.uniform(0, 0.3))
            elif not trainer.runs_to(min(target, self.steps - 1)):
                self.problems.append(f"ended early: {trainer.end()}")
                break
            time.sleep(generator.exponential(0.02))
            wants_worker = generator.random() < _SHARE_OF_WORKERS
            if wants_worker and trainer.kill_worker(generator) and not trainer.runs_to(trainer.step + 20):
                self._expect_line(trainer, "a process that loads clips has died", "worker")
            else:  # a worker that had finished does not end the trainer
                trainer.kill()
                self.kills["trainer"] += 1
            reached = max(reached, trainer.step)
        last = Trainer(values, folder).end()
        if last != (0, ""):
            self.problems.append(f"last run: {last}")
        self.seconds = time.monotonic() - began

    def _expect_line(self, trainer: Trainer, wanted: str, kind: str) -> None:
        code, stderr = trainer.end()
        self.kills[kind] += 1
        if code != 2 or wanted not in stderr or stderr.count("\n") != 1:
            self.problems.append(f"{kind}: {code} {stderr}")

    def _fill_disk(self, values: dict[str, Any], folder: Path) -> None:
        states = [folder / name for name in ("state.safetensors", "state.previous.safetensors")]
        before = {path: path.read_bytes() for path in states if path.exists()}
        most = len(before[states[0]]) // 2 if before else 100_000
        self._expect_line(Trainer(values, folder, most), "free some disk space", "full disk")
        if any(path.read_bytes() != content for path, content in before.items()):
            self.problems.append("full disk: the states have changed")


def differences(one: Path, other: Path) -> list[str]:
    """Differences between the folders of two runs, except for times."""
    from safetensors.torch import load_file

    logs = [(folder / "log.jsonl").read_text(encoding="utf-8").splitlines() for folder in (one, other)]
    untimed = [[{**json.loads(line), "seconds": 0} for line in lines] for lines in logs]
    found = [] if untimed[0] == untimed[1] else ["log.jsonl"]
    for name in ("recipe.json", "last.safetensors", "best.safetensors", "scores.npy"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    ours, theirs = (load_file(folder / "state.safetensors") for folder in (one, other))
    if ours.keys() != theirs.keys() or not all(bool((ours[name] == theirs[name]).all()) for name in ours):
        found.append("state.safetensors")
    names = [{path.name for path in folder.iterdir()} for folder in (one, other)]
    return found + sorted(names[0] ^ names[1])


def soak(folder: Path, steps: int, kills: int, full_disks: int, seed: int = 0) -> dict[str, Any]:
    """Trains undisturbed and disturbed, and compares.

    Returns:
        Measurements, and under ``problems`` what went wrong.
    """
    manifest = write_clips(folder / "clips")
    per_epoch = CLASSES * CLIPS_PER_CLASS * 3 // 4 // BATCH
    epochs = -(-steps // per_epoch)
    values = recipe_values(manifest, epochs)
    began = time.monotonic()
    calm = Trainer(values, folder / "calm")
    ended = calm.end()
    calm_s = time.monotonic() - began
    disturbed = Soak(epochs * per_epoch)
    disturbed.disturb(values, folder / "disturbed", kills, full_disks, seed)
    if ended != (0, ""):
        disturbed.problems.append(f"undisturbed: {ended}")
    else:
        disturbed.problems += [
            f"differs: {name}" for name in differences(folder / "calm", folder / "disturbed")
        ]
    fifth = len(calm.memory_mb) // 5
    earlier, later = np.median(calm.memory_mb[fifth : 2 * fifth]), np.median(calm.memory_mb[-fifth:])
    if later - earlier > GROWTH_MB:
        disturbed.problems.append(f"memory grew from {earlier:.0f} to {later:.0f} MB")
    return {
        "steps": disturbed.steps,
        "epochs": epochs,
        "disturbances": dict(disturbed.kills),
        "undisturbed_s": round(calm_s, 1),
        "disturbed_s": round(disturbed.seconds, 1),
        "memory_mb": {"second fifth": round(float(earlier), 1), "last fifth": round(float(later), 1)},
        "problems": disturbed.problems,
    }


def main() -> None:
    """Runs the soak test; exits with code 1 if there was a problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--full-disks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Folder to keep (default: a temporary one).")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    try:
        found = soak(folder, arguments.steps, arguments.kills, arguments.full_disks, arguments.seed)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["problems"]))


if __name__ == "__main__":
    main()
