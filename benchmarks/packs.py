"""Reading clips for training: each kind of pack, against h5py and PyAV on mp3 in HDF5.

Conventions: clips of 10 s at 32 kHz, from ../shared/data/esc18 if present, repeated to their length, else
chirps in noise. A job reads every clip once, in random order, into float32 batches of 16. All sides alternate
in one process with one thread. Rates are clips per second of processor time (one core), which other jobs of
the machine disturb less than wall-clock time, and medians; ratios are medians over the rounds. PyTorch
loaders of one and of two workers alternate as well: their ratio is given by processor time (as if two cores
were free) and by wall-clock time.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.tables import markdown
from earmark.audio import load_audio, pad, resample
from earmark.data.dataset import ClipDataset
from earmark.data.manifest import Clip
from earmark.data.shards.pack import HDF5, load_pack
from earmark.data.shards.writer import PackOptions, pack

RATE, SECONDS, BATCH = 32000, 10, 16
WANTED = 3000
"""Goal: clips of 10 s per second for one large GPU."""
CORES = 16
CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "esc18" / "audio"
REFERENCE = "mp3 in HDF5, h5py and PyAV"
SIDES: dict[str, PackOptions] = {
    "memmap": PackOptions("memmap"),
    "shards, FLAC": PackOptions(codec="flac"),
    "shards, mp3": PackOptions(codec="mp3"),
    "mp3 in HDF5": PackOptions("hdf5"),
}
JOBS = {"10 s": (SECONDS, RATE), "5 s of them": (5, RATE), "10 s at 16 kHz": (SECONDS, 16000)}
"""Seconds per clip, and sample rate."""


@dataclass(frozen=True)
class PackRow:
    """A row of the table.

    Args:
        name: Name of the side.
        kilobytes: Size of a clip.
        rates: Clips per second and core, for each job.
        ratios: Ratios of the rates to the reference's.
        scaling: Ratio of two workers to one, whole clips: by processor time and by wall-clock time.
    """

    name: str
    kilobytes: float
    rates: tuple[float, ...]
    ratios: tuple[float, ...]
    scaling: tuple[float, float]

    def cells(self) -> list[str]:
        """The cells of the row."""
        pairs = zip(self.rates, self.ratios, strict=True)
        return [
            self.name,
            f"{self.kilobytes:.0f}",
            *(f"{rate:.0f}, {ratio:.1f} x" for rate, ratio in pairs),
            ", ".join(f"{ratio:.2f} x" for ratio in self.scaling),
            f"{CORES * self.rates[0]:.0f}",
            f"{WANTED / self.rates[0]:.1f}",
        ]


class Published:
    """Reads clips as the published programs do: a whole mp3 through FFmpeg, then cut and resampled.

    Args:
        path: Path of the HDF5 file.
        seconds: Length of the crop.
        rate: Sample rate of the output, in Hz.
    """

    def __init__(self, path: Path, seconds: int, rate: int) -> None:
        self.path, self.seconds, self.rate = path, seconds, rate
        self.file: Any = None

    def __len__(self) -> int:
        return SECONDS

    def __getitem__(self, key: tuple[int, int]) -> NDArray[np.float32]:
        """One clip, by its index and the seed of its crop."""
        import av
        import h5py

        if self.file is None:
            self.file = h5py.File(self.path, "r", locking=False)
        with av.open(io.BytesIO(self.file["mp3"][key[0]].tobytes())) as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        waveform, length = np.concatenate(frames), self.seconds * RATE
        excess = len(waveform) - length
        start = int(np.random.default_rng(key[1]).integers(0, excess + 1)) if excess > 0 else 0
        waveform = resample(waveform[start : start + length], RATE, self.rate)
        return pad(waveform, self.seconds * self.rate, "zero")


def write_clips(folder: Path, count: int) -> list[Clip]:
    """Writes clips of 10 s as wav files."""
    folder.mkdir(parents=True, exist_ok=True)
    recordings = sorted(CLIPS.glob("*.ogg"))[: 8 * count : 8] if CLIPS.is_dir() else []
    clips = []
    for number in range(count):
        if number < len(recordings):
            waveform = load_audio(recordings[number], RATE)[0]
        else:
            moments = np.arange(5 * RATE) / RATE
            noise = np.random.default_rng(number).standard_normal(len(moments))
            waveform = 0.3 * np.sin(500 * (1 + number % 7) * moments**1.5) + 0.02 * noise
        waveform = np.tile(waveform, -(-SECONDS * RATE // len(waveform)))[: SECONDS * RATE]
        clips.append(Clip(folder / f"{number}.wav", ()))
        soundfile.write(clips[-1].path, np.clip(waveform, -1, 1), RATE)
    return clips


def measured(folder: Path, rounds: int, clips: int = 32) -> Iterator[PackRow]:
    """Measures all sides, alternating.

    Args:
        folder: Folder for clips and packs.
        rounds: Number of rounds.
        clips: Number of clips read in a round.
    """
    recordings = write_clips(folder / "clips", clips)
    packs = {name: folder / str(number) for number, name in enumerate(SIDES)}
    for name, packing in SIDES.items():
        pack(recordings, packs[name], packing)
    rates: dict[str, list[list[float]]] = {name: [] for name in (REFERENCE, *SIDES)}
    for seconds, rate in JOBS.values():
        data = _sides(packs, seconds, rate)
        found: dict[str, list[float]] = {name: [] for name in data}
        for turn in range(rounds + 1):
            for name, side in data.items():
                spent = _pass(side, clips, turn)
                if turn:  # the first round opens files
                    found[name].append(clips / spent)
        for name, values in found.items():
            rates[name].append(values)
    scaling = _scaling(_sides(packs, SECONDS, RATE), clips, rounds)
    for name, jobs in rates.items():
        ratios = [
            median(own / other for own, other in zip(values, others, strict=True))
            for values, others in zip(jobs, rates[REFERENCE], strict=True)
        ]
        files = packs["mp3 in HDF5" if name == REFERENCE else name].iterdir()
        size = sum(path.stat().st_size for path in files if path.suffix in (".npy", ".tar", ".hdf"))
        yield PackRow(name, size / clips / 1e3, tuple(map(median, jobs)), tuple(ratios), scaling[name])


def _sides(packs: dict[str, Path], seconds: int, rate: int) -> dict[str, Any]:
    sides: dict[str, Any] = {REFERENCE: Published(packs["mp3 in HDF5"] / HDF5, seconds, rate)}
    for name, folder in packs.items():
        clips = load_pack(folder)[1]
        sides[name] = ClipDataset(clips, ("none",), sample_rate=rate, length=seconds * rate, padding="zero")
    return sides


def _keys(clips: int, turn: int) -> list[list[tuple[int, int]]]:
    order = np.random.default_rng(turn).permutation(clips).tolist()
    return [[(index, turn) for index in order[first : first + BATCH]] for first in range(0, clips, BATCH)]


def _pass(side: Any, clips: int, turn: int) -> float:
    """Processor time of reading every clip once, in seconds."""
    from torch.utils.data import default_collate

    began = time.process_time()
    for batch in _keys(clips, turn):
        default_collate([side[key] for key in batch])
    return time.process_time() - began


def _scaling(data: dict[str, Any], clips: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Ratio of two workers to one: by processor time, and by wall-clock time."""
    processor: dict[str, list[float]] = {name: [] for name in data}
    wall: dict[str, list[float]] = {name: [] for name in data}
    for _ in range(rounds):
        for name, side in data.items():
            one, two = (_loaded(side, clips, workers) for workers in (1, 2))
            processor[name].append(2 * two[0] / one[0])
            wall[name].append(two[1] / one[1])
    return {name: (median(processor[name]), median(wall[name])) for name in data}


def _loaded(side: Any, clips: int, workers: int, passes: int = 6) -> tuple[float, float]:
    """Clips per second of processor and of wall-clock time, once all workers are running."""
    from torch.utils.data import DataLoader

    batches = [batch for turn in range(passes) for batch in _keys(clips, turn)]
    loader = DataLoader(side, batch_sampler=batches, num_workers=workers, collate_fn=_timed_batch)
    spent: dict[int, list[float]] = {}
    marks = []
    for _, process, moment in loader:
        marks.append(time.perf_counter())
        spent.setdefault(process, []).append(moment)
    first = 2 * workers
    by_wall = (len(marks) - 1 - first) / (marks[-1] - marks[first])
    by_processor = (len(marks) - workers) / sum(moments[-1] - moments[0] for moments in spent.values())
    return BATCH * by_processor, BATCH * by_wall


def _timed_batch(items: Sequence[Any]) -> tuple[Any, int, float]:
    """A batch, the process that made it, and the processor time of that process."""
    from torch.utils.data import default_collate

    return default_collate(items), os.getpid(), time.process_time()


def table(rows: Sequence[PackRow]) -> str:
    """A Markdown table, and whether each row meets its target."""
    head = ["reading", "kB a clip", *JOBS, "2 workers", f"{CORES} cores feed", f"cores for {WANTED}"]
    shown = markdown(head, [row.cells() for row in rows], numbers=head[1:])
    verdicts = []
    for row in rows[1:]:
        target = 3 if row.name == "memmap" else 1
        missed = [job for job, ratio in zip(JOBS, row.ratios, strict=True) if ratio <= target]
        sign = "≥ 3" if row.name == "memmap" else "> 1"
        verdict = "met" if not missed else f"MISSED for {', '.join(missed)}"
        verdicts.append(f"{row.name} {sign} x: {verdict}")
    return f"{shown}\n{'; '.join(verdicts)}.\n"
