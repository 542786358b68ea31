"""A training that is killed again and again, and must end as if nothing had happened.

    python -m benchmarks.soak [--steps 3000] [--kills 50] [--full-disks 2] [--folder FOLDER]

Trains twice on as many clips as esc18 has, each a fraction of a second: undisturbed, and with SIGKILLs at
random moments, of the trainer or of one of its loader processes, and with a disk that is full (a limit on the
size of files). Both must be equal to the last bit; memory must not grow.

Conventions: the trainers are forked from a server that has imported everything, so starting again is cheap.
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
"""What the memory of later epochs may be above that of earlier ones."""
_WORKERS = 2
_SHARE_OF_WORKERS = 0.3

_START = multiprocessing.get_context("forkserver")
_START.set_forkserver_preload(["earmark.training.trainer"])


def write_clips(folder: Path) -> Path:
    """Tones in noise, a pitch a class, in four folds; returns the manifest."""
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
    """A recipe with dropout, an average, mixing, gathered gradients and loader processes."""
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
            "learning_rate": 1e-3, "batch_size": BATCH, "epochs": epochs, "average_decay": 0.9,
            "accumulate": 2,
        },
        "judge": {"every": 10},
        "run": {"device": "cpu", "save_every_s": 0.3},
    }  # fmt: skip


def _train(values: dict[str, Any], folder: str, told: Connection, most_bytes: int | None) -> None:
    """What runs in the process of a trainer: tells of each step and of its memory."""
    import torch

    from earmark.cli.program import complain
    from earmark.errors import EarmarkError
    from earmark.training.config.recipe import Recipe
    from earmark.training.trainer import train

    torch.set_num_threads(1)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    said = os.open(f"{folder}.stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(said, 2)
    own = psutil.Process()

    def report(facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            told.send(((facts["epoch"] - 1) * facts["steps"] + facts["step"], own.memory_info().rss / 1e6))

    try:
        train(Recipe.model_validate(values), Path(folder), 1, report)
    except EarmarkError as error:
        complain(str(error))
        sys.exit(2)


class Trainer:
    """A trainer's process."""

    def __init__(self, values: dict[str, Any], folder: Path, most_bytes: int | None = None) -> None:
        self.folder = folder
        self.heard, told = _START.Pipe(duplex=False)
        self.process = _START.Process(target=_train, args=(values, str(folder), told, most_bytes))
        self.process.start()
        told.close()
        self.step, self.memory_mb = 0, []

    def runs_to(self, step: float) -> bool:
        """Waits for a step; False where the process ended before."""
        while self.step < step:
            try:
                self.step, memory_mb = self.heard.recv()
            except EOFError:
                return False
            self.memory_mb.append(memory_mb)
        return True

    def end(self) -> tuple[int, str]:
        """Exit code, and what was printed."""
        while self.runs_to(float("inf")):
            pass
        self.process.join()
        return self.process.exitcode, Path(f"{self.folder}.stderr").read_text(encoding="utf-8")

    def kill(self) -> None:
        """Ends it without a warning."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def kill_worker(self, generator: np.random.Generator) -> bool:
        """Kills one of the loader processes; False where there is none now."""
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
    """What happened to a run."""

    steps: int
    kills: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def disturb(self, values: dict[str, Any], folder: Path, kills: int, full_disks: int, seed: int) -> None:
        """Trains in a folder, with so many disturbances at random steps, until it is done."""
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
                self.problems.append(f"ended by itself: {trainer.end()}")
                break
            time.sleep(generator.exponential(0.02))
            wants_worker = generator.random() < _SHARE_OF_WORKERS
            if wants_worker and trainer.kill_worker(generator) and not trainer.runs_to(trainer.step + 20):
                self._expect_line(trainer, "a process that loads clips has died", "worker")
            else:  # which a worker that had done its part does not end
                trainer.kill()
                self.kills["trainer"] += 1
            reached = max(reached, trainer.step)
        last = Trainer(values, folder).end()
        if last != (0, ""):
            self.problems.append(f"at last: {last}")
        self.seconds = time.monotonic() - began

    def _expect_line(self, trainer: Trainer, wanted: str, kind: str) -> None:
        code, said = trainer.end()
        self.kills[kind] += 1
        if code != 2 or wanted not in said or said.count("\n") != 1:
            self.problems.append(f"{kind}: {code} {said}")

    def _fill_disk(self, values: dict[str, Any], folder: Path) -> None:
        states = [folder / name for name in ("state.safetensors", "state.previous.safetensors")]
        before = {path: path.read_bytes() for path in states if path.exists()}
        most = len(before[states[0]]) // 2 if before else 100_000
        self._expect_line(Trainer(values, folder, most), "free some space", "full disk")
        if any(path.read_bytes() != content for path, content in before.items()):
            self.problems.append("full disk: the states are not what they were")


def differences(one: Path, other: Path) -> list[str]:
    """What two runs' folders do not have in common, but for times."""
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
        Numbers, and under ``problems`` what was not as it should be.
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
    """Runs it as the command line says; exit code 1 where something was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--full-disks", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="Kept; by default a temporary one.")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        found = soak(folder, given.steps, given.kills, given.full_disks, given.seed)
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=1))
    sys.exit(bool(found["problems"]))


if __name__ == "__main__":
    main()
