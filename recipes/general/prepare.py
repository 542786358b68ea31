"""Decodes recordings once and writes the bank that the general model is trained from.

    python recipes/general/prepare.py --open-audio DIR --esc18 DIR --sonic-pi DIR --bank runs/general/bank

A bank is two files. ``mel.f16`` holds log mel energies of every recording, one row of 128 values every 10 ms,
one recording behind the other. ``index.json`` lists the recordings: path, split, tag and, for each variant,
the first row and the number of rows. Splits: "train"; "held", whole sources that only the judge hears;
"judge", clips of ESC that are held out or whose licence is not open. Variant 0 is the recording as it is.
Recordings to train on have three more: another speed, a room, a lower sample rate, clipping.

Only recordings under CC0, CC-BY, MIT, BSD, Apache and in the public domain get the split "train".
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import soxr
import torch
from held_out import HELD_SOURCES
from numpy.typing import NDArray
from scipy.signal import fftconvolve

from earmark.audio import load_audio
from earmark.errors import DataError, EarmarkError
from earmark.features.presets import EFFICIENTAT
from earmark.model_file.atomic import atomic_writer, write_atomically
from earmark.models.log_mel import TorchLogMel

Floats = NDArray[np.float32]
RATE = EFFICIENTAT.sample_rate
NUM_VARIANTS = 4
NUM_SYNTHETIC = 160
BLOCK_S = 60
MIN_SAMPLES = 3200
OPEN_LICENCES = ("CC0", "CC-BY", "MIT", "BSD", "Apache", "Public domain")
CLOSED_MARKS = ("NC", "ND", "SA", "Sampling")
# The energies alone: mixing adds them, and the front-end's floor, shift and scale come after.
ENERGIES = replace(EFFICIENTAT, floor=1e-9, shift=0.0, scale=1.0)


@dataclass
class Recording:
    """A recording of the bank.

    Attributes:
        path: Of the file; "synthetic:N" for a synthetic sound.
        split: "train", "held" or "judge".
        tag: Where it comes from; "esc:CATEGORY:FOLD" for a clip of ESC.
        spans: First row and number of rows of each variant.
    """

    path: str
    split: str
    tag: str
    spans: list[tuple[int, int]] = field(default_factory=list)


def is_open(licence: str) -> bool:
    """Whether every licence named, separated by semicolons, allows what is trained to be shipped."""
    parts = [part.strip() for part in licence.split(";")]
    return all(
        part.startswith(OPEN_LICENCES) and not any(mark in part.upper().split("-") for mark in CLOSED_MARKS)
        for part in parts
    )


def list_recordings(args: argparse.Namespace) -> list[Recording]:
    """Lists what the bank will hold.

    Raises:
        DataError: If a recording of open_audio is not openly licensed.
    """
    recordings = []
    for row in _rows(args.open_audio):
        if not is_open(row["licence"]):
            raise DataError(f"{row['filename']}: licence {row['licence']!r} is not open: remove it")
        source = row["source"].split("@")[0]
        source = source.split("_")[0] if source.startswith("debian:") else source
        split = "held" if source in HELD_SOURCES else "train"
        recordings.append(Recording(str(args.open_audio / "audio" / row["filename"]), split, "open"))
    for row in _rows(args.esc18):
        trained = row["fold"] not in args.judged_folds and is_open(row["license"])
        path = str(args.esc18 / "audio" / row["filename"])
        tag = f"esc:{row['category']}:{row['fold']}"
        recordings.append(Recording(path, "train" if trained else "judge", tag))
    paths = sorted(args.sonic_pi.glob("*.flac"))
    recordings += [Recording(str(path), "train", "sonic") for path in paths]
    recordings += [Recording(f"synthetic:{number}", "train", "synthetic") for number in range(NUM_SYNTHETIC)]
    return recordings


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "meta.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _harmonics(rng: np.random.Generator, time: NDArray[np.float64]) -> NDArray[np.float64]:
    pitch = np.exp(rng.uniform(np.log(60), np.log(8000)))
    count = 1 + int(rng.integers(1, 8))
    partials = [number for number in range(1, count + 1) if number * pitch < 15500]
    shape = [np.sin(2 * np.pi * pitch * n * time + rng.uniform(0, 6)) * rng.uniform() / n for n in partials]
    return np.sum(shape, axis=0)


def _sweep(rng: np.random.Generator, time: NDArray[np.float64]) -> NDArray[np.float64]:
    ends = rng.uniform(np.log(80), np.log(9000), 2)
    return np.sin(2 * np.pi * np.cumsum(np.exp(np.linspace(*ends, len(time)))) / RATE)


def _clicks(rng: np.random.Generator, time: NDArray[np.float64]) -> NDArray[np.float64]:
    clicks = np.zeros(len(time))
    positions = (np.arange(1, 200) * RATE * np.exp(rng.uniform(np.log(0.03), 0.0))).astype(int)
    clicks[positions[positions < len(time)]] = 1
    decay = np.exp(-np.arange(2000) / rng.uniform(20, 600)) * rng.standard_normal(2000)
    return fftconvolve(clicks, decay)[: len(time)]


def _noise(rng: np.random.Generator, time: NDArray[np.float64]) -> NDArray[np.float64]:
    frequencies = np.fft.rfftfreq(len(time), 1 / RATE)
    frequencies[0] = frequencies[1]
    spectrum = np.fft.rfft(rng.standard_normal(len(time))) * frequencies ** -rng.uniform(0, 1.2)
    return np.fft.irfft(spectrum, len(time))


def _surges(rng: np.random.Generator, time: NDArray[np.float64]) -> NDArray[np.float64]:
    rate = np.exp(rng.uniform(np.log(0.3), np.log(20)))
    return rng.standard_normal(len(time)) * (0.5 + 0.5 * np.sin(2 * np.pi * rate * time)) ** 2


def _beeps(rng: np.random.Generator, time: NDArray[np.float64]) -> NDArray[np.float64]:
    pitch, rate = np.exp(rng.uniform(np.log(100), np.log(4000))), np.exp(rng.uniform(np.log(0.5), np.log(8)))
    return np.sign(np.sin(2 * np.pi * pitch * time)) * (np.sin(2 * np.pi * rate * time) > 0)


SYNTHETIC: tuple[Callable[[np.random.Generator, NDArray[np.float64]], NDArray[np.float64]], ...] = (
    lambda rng, time: np.zeros(len(time)),
    _noise,
    _noise,
    _harmonics,
    _sweep,
    _clicks,
    _surges,
    _beeps,
)


def synthesise(number: int) -> Floats:
    """A synthetic sound of 5 s: silence, noise, a tone, a sweep, clicks, surges or beeps."""
    rng = np.random.default_rng(number + 10**6)
    waveform = SYNTHETIC[number % len(SYNTHETIC)](rng, np.arange(RATE * 5) / RATE)
    peak = np.abs(waveform).max()
    gain = 10 ** (-rng.uniform(0, 40) / 20)
    return (waveform / peak * gain if peak > 0 else waveform).astype(np.float32)


def _room(rng: np.random.Generator) -> Floats:
    """An impulse response: the direct sound and a decaying noise with fewer high frequencies."""
    decay_s = np.exp(rng.uniform(np.log(0.15), np.log(2.5)))
    length = int(RATE * min(decay_s, 1.5))
    tail = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / (decay_s * RATE))
    corner = np.exp(rng.uniform(np.log(1500), np.log(9000)))
    damping = 1 / np.sqrt(1 + (np.fft.rfftfreq(length, 1 / RATE) / corner) ** 2)
    tail = np.fft.irfft(np.fft.rfft(tail) * damping, length)
    tail *= 10 ** (rng.uniform(-18, 0) / 20) / np.sqrt((tail**2).sum())
    tail[0] += 1
    return tail.astype(np.float32)


def vary(waveform: Floats, rng: np.random.Generator) -> Floats:
    """Plays a recording faster or slower, in a room, through a lower sample rate, clipped; each by chance."""
    if rng.random() < 0.75:
        waveform = soxr.resample(waveform, RATE, RATE / np.exp(rng.uniform(np.log(0.75), np.log(1.33))), "MQ")
    if rng.random() < 0.4:
        waveform = fftconvolve(waveform, _room(rng))[: len(waveform)].astype(np.float32)
    if rng.random() < 0.3:
        rate = int(rng.choice([8000, 11025, 16000, 16000, 22050]))
        waveform = soxr.resample(soxr.resample(waveform, RATE, rate), rate, RATE)
    if rng.random() < 0.12:
        limit = np.abs(waveform).max() * 10 ** (-rng.uniform(3, 15) / 20) + 1e-9
        waveform = np.clip(waveform, -limit, limit)
    return np.ascontiguousarray(waveform, dtype=np.float32)


def log_energies(waveform: Floats) -> NDArray[np.float16]:
    """The rows of a waveform: log mel energies, float16, shape (frame, mel)."""
    waveform = np.pad(waveform, (0, max(0, MIN_SAMPLES - len(waveform)))).clip(-8, 8)
    starts = [
        start for start in range(0, len(waveform), RATE * BLOCK_S) if len(waveform) - start >= MIN_SAMPLES
    ]
    transform = TorchLogMel(ENERGIES)
    blocks = [torch.from_numpy(waveform[None, start : start + RATE * BLOCK_S]) for start in starts]
    return np.concatenate([transform(block)[0].T.half().numpy() for block in blocks])


def process(numbered: tuple[int, Recording]) -> list[NDArray[np.float16]]:
    """The rows of every variant of a recording."""
    torch.set_num_threads(1)
    number, recording = numbered
    if recording.path.startswith("synthetic:"):
        waveform = synthesise(int(recording.path.split(":")[1]))
    else:
        waveform, _ = load_audio(recording.path, RATE)
    rng = np.random.default_rng(number)
    count = NUM_VARIANTS - 1 if recording.split == "train" else 0
    return [log_energies(waveform), *(log_energies(vary(waveform, rng)) for _ in range(count))]


def write_bank(recordings: list[Recording], bank: Path, workers: int) -> None:
    """Writes both files of a bank, the index last."""
    bank.mkdir(parents=True, exist_ok=True)
    position = 0
    with ProcessPoolExecutor(workers) as pool, atomic_writer(bank / "mel.f16") as file:
        variants: Iterator[list[NDArray[np.float16]]] = pool.map(process, enumerate(recordings), chunksize=4)
        for recording, rows in zip(recordings, variants, strict=True):
            for one in rows:
                file.write(one.tobytes())
                recording.spans.append((position, len(one)))
                position += len(one)
    write_atomically(bank / "index.json", json.dumps([asdict(recording) for recording in recordings]))
    print(f"{len(recordings)} recordings, {position} rows, {position / 360_000:.1f} h with all variants")


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    folder = partial(parser.add_argument, type=Path, required=True)
    folder("--open-audio", help="folder with meta.csv and audio/")
    folder("--esc18", help="folder with meta.csv and audio/")
    folder("--sonic-pi", help="folder of FLAC files")
    folder("--bank", help="folder to write")
    parser.add_argument("--judged-folds", nargs="*", default=["4"], help="folds of ESC not to train on")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    try:
        write_bank(list_recordings(args), args.bank, args.workers)
    except (EarmarkError, OSError) as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
