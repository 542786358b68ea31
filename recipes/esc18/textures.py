"""Synthesises random textures and events, on which a teacher's predictions are distilled.

    python recipes/esc18/textures.py --count 4000 --seed 0 --output DIR

Each clip is a mixture of one to three layers; a layer is one event, an event repeated, or goes on throughout;
an event is a source (noise, gusts, pulses, harmonics, a throat, struck modes, frequency modulation, grains)
with a random colouring, envelope and tremolo. Source of the idea: Cherep and Singh, arXiv:2406.05923. One
layer in six is a few notes of any instrument or effect of the soundfont FluidR3 (MIT licence), at any pitch
and speed.

Conventions: as in studio.py; every clip has a random generator of its own, from (seed, number); the notes are
rendered a hundred clips at a time.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
from music import DRUM_KITS, DRUMS, Note, Score
from studio import RATE, SAMPLES, Studio, at_level, fit, fluidsynth, in_a_room

from earmark.model_file.atomic import write_atomically

COLUMNS = ("path", "labels", "fold", "kind", "license", "author", "source", "title")
Source = Callable[[np.random.Generator, int], np.ndarray]


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _path(rng: np.random.Generator, size: int, low: float, high: float) -> np.ndarray:
    """A value that stays, or glides over two to five nodes, on a logarithmic scale."""
    center = _log_uniform(rng, low, high)
    nodes = int(rng.integers(2, 6))
    swing = rng.choice([0.0, 0.05, 0.3, 0.9]) * rng.uniform(-1, 1, nodes)
    curve = np.interp(np.linspace(0, 1, size), np.linspace(0, 1, nodes), swing)
    return np.clip(center * np.exp(curve), low, high)


def noise(rng: np.random.Generator, size: int) -> np.ndarray:
    """Gaussian noise of a random slope."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.maximum(np.fft.rfftfreq(size, 1 / RATE), 20.0)
    return np.fft.irfft(spectrum * frequency ** -rng.uniform(-0.3, 1.3), size)


def gusts(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise whose strength and colour wander, as wind, surf, applause and breath have it."""
    total = np.zeros(size)
    nodes = max(2, int(_log_uniform(rng, 0.3, 20) * size / RATE) + 2)
    for _ in range(int(rng.integers(1, 4))):
        strength = np.interp(np.linspace(0, nodes - 1, size), np.arange(nodes), rng.exponential(1, nodes))
        total += strength ** rng.uniform(0.5, 2) * noise(rng, size)
    return total


def throat(rng: np.random.Generator, size: int) -> np.ndarray:
    """A hoarse or clear voice without words: pulses of a gliding pitch through three moving resonances."""
    pitch = _path(rng, size, 60, 1500) * (1 + rng.choice([0, 0.02, 0.06]) * rng.standard_normal())
    time = np.arange(size) / RATE
    pitch = pitch * (1 + rng.choice([0, 0.03]) * np.sin(2 * np.pi * rng.uniform(4, 30) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    resonances = [
        (_path(rng, size, low, high), rng.uniform(0.08, 0.5))
        for low, high in ((250, 1500), (700, 4000), (2000, 9000))
    ]
    total = np.zeros(size)
    for k in range(1, min(60, int(15_500 / pitch.max())) + 1):
        partial = k * pitch
        gain = sum(
            np.exp(-((np.log(partial / center) / width) ** 2)) * 0.6**number
            for number, (center, width) in enumerate(resonances)
        )
        total += (gain + 0.01) * k ** -rng.uniform(0, 0.6) * np.sin(k * phase)
    rough = 1 + rng.choice([0, 0.4, 0.9]) * np.sin(phase / rng.integers(2, 5))
    breath = noise(rng, size) * np.interp(time, [0, size / RATE], rng.uniform(0, 1, 2))
    return total * rough + rng.choice([0, 0.05, 0.4]) * float(np.std(total)) * breath


def pulses(rng: np.random.Generator, size: int) -> np.ndarray:
    """A train of uneven pulses, as motors and wings make them, with some noise."""
    rate = _path(rng, size, 6, 250)
    beat = np.floor(np.cumsum(rate) / RATE)
    train = np.diff(beat, prepend=0.0) * (1 + rng.uniform(0, 0.5) * rng.standard_normal(size))
    ring = np.exp(-np.arange(2048) / RATE / _log_uniform(rng, 0.0003, 0.02)) * rng.standard_normal(2048)
    return np.convolve(train, ring)[:size] + rng.uniform(0, 0.1) * noise(rng, size)


def harmonics(rng: np.random.Generator, size: int) -> np.ndarray:
    """A pitch with overtones, steady, gliding or trembling, as voices and horns have it."""
    pitch = _path(rng, size, 60, 3000)
    time = np.arange(size) / RATE
    pitch = pitch * (1 + rng.choice([0, 0.01, 0.05]) * np.sin(2 * np.pi * rng.uniform(2, 12) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    slope, step = rng.uniform(0.2, 2.5), int(rng.choice([1, 1, 1, 2]))
    highest = min(40, int(15_500 / pitch.max()))
    waves = [rng.uniform(0.3, 1) * k**-slope * np.sin(k * phase) for k in range(1, highest + 1, step)]
    return np.sum(waves, axis=0) + rng.choice([0, 0.02, 0.3]) * noise(rng, size)


def modes(rng: np.random.Generator, size: int) -> np.ndarray:
    """Something struck: partials at random frequencies that die away, the high ones sooner."""
    time, total = np.arange(size) / RATE, np.zeros(size)
    low, decay = _log_uniform(rng, 80, 3000), _log_uniform(rng, 0.01, 1.5)
    for _ in range(int(rng.integers(2, 20))):
        frequency = min(low * _log_uniform(rng, 1, 12), 15_500)
        fall = decay * (low / frequency) ** rng.uniform(0, 1)
        total += (
            rng.uniform(0.1, 1) * np.exp(-time / fall) * np.sin(2 * np.pi * (frequency * time + rng.random()))
        )
    return total + 0.5 * np.exp(-time / 0.004) * rng.standard_normal(size)


def modulated(rng: np.random.Generator, size: int) -> np.ndarray:
    """A tone whose pitch swings fast or slowly, as sirens, birds and crickets have it."""
    time = np.arange(size) / RATE
    carrier = _path(rng, size, 250, 7000)
    swing = np.sin(2 * np.pi * _log_uniform(rng, 0.2, 90) * time + rng.uniform(0, 6))
    if rng.random() < 0.4:
        swing = np.sign(swing)
    phase = 2 * np.pi * np.cumsum(carrier * (1 + rng.uniform(0, 0.6) * swing)) / RATE
    return np.sin(phase) + rng.choice([0, 0.3]) * np.sin(2 * phase) + rng.choice([0, 0.2]) * np.sin(3 * phase)


def grains(rng: np.random.Generator, size: int) -> np.ndarray:
    """Drops, clicks and crackles at random moments."""
    total = np.zeros(size + RATE // 10)
    count = min(600, int(_log_uniform(rng, 3, 300) * size / RATE) + 1)
    low, high = sorted((_log_uniform(rng, 200, 12_000), _log_uniform(rng, 200, 12_000)))
    length = int(_log_uniform(rng, 0.002, 0.08) * RATE)
    time = np.arange(length) / RATE
    rough = rng.random() < 0.4
    for start in rng.integers(0, size, count):
        wave = rng.standard_normal(length) if rough else np.sin(2 * np.pi * rng.uniform(low, high) * time)
        total[start : start + length] += rng.exponential() * wave * np.exp(-5 * time / time[-1])
    return total[:size]


SOURCES: tuple[Source, ...] = (noise, gusts, pulses, harmonics, throat, modes, modulated, grains)
SLOT_S = 6.0  # of a rendered group of notes, the last of them fading
GROUP = 100


def event(rng: np.random.Generator, size: int) -> np.ndarray:
    """A source, coloured by a few broad peaks, under an envelope, half of them trembling."""
    wave = SOURCES[int(rng.integers(len(SOURCES)))](rng, size)
    if rng.random() < 0.7:
        octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / RATE), 20.0))
        gain_db = np.full(len(octaves), -30.0)
        for _ in range(int(rng.integers(1, 5))):
            peak, width = rng.uniform(np.log2(80), np.log2(14_000)), rng.uniform(0.15, 2)
            gain_db = np.maximum(gain_db, rng.uniform(-12, 0) - 12 * ((octaves - peak) / width) ** 2)
        wave = np.fft.irfft(np.fft.rfft(wave) * 10 ** (np.maximum(gain_db, -50) / 20), size)
    time = np.arange(size) / RATE
    rise, length = _log_uniform(rng, 0.001, 0.4), size / RATE
    envelope = np.minimum(1, time / rise) * np.minimum(1, (length - time) / _log_uniform(rng, 0.005, 0.5))
    if rng.random() < 0.5:
        envelope = envelope * np.exp(-time / _log_uniform(rng, 0.03, 3))
    if rng.random() < 0.5:
        beat = 0.5 + 0.5 * np.sin(2 * np.pi * _log_uniform(rng, 0.3, 40) * time + rng.uniform(0, 6))
        envelope = envelope * (1 - rng.uniform(0.2, 1) * beat ** rng.choice([1, 4]))
    return at_level(wave * envelope, -20)


def _notes(rng: np.random.Generator, start_s: float, channel: int) -> list[Note]:
    """A few notes, or one repeated, of one channel within a slot."""
    every, low = _log_uniform(rng, 0.06, 3), int(rng.integers(10, 100))
    moments = (
        np.arange(0, SLOT_S - 1.5, every) if rng.random() < 0.5 else rng.uniform(0, 4, rng.integers(1, 5))
    )
    length = _log_uniform(rng, 0.05, 4)
    span = int(rng.choice([1, 3, 25]))
    return [
        Note(
            start_s + float(moment),
            min(length, SLOT_S - 0.5 - float(moment)),
            channel,
            low + int(rng.integers(span)),
            int(rng.integers(40, 128)),
        )
        for moment in moments[:40]
    ]


@functools.lru_cache(maxsize=1)
def _played(seed: int, group: int) -> np.ndarray:
    """Notes of a random instrument in each of ``GROUP`` slots, (slot, time)."""
    rng = np.random.default_rng([seed, group, 1])
    pieces = []
    with tempfile.TemporaryDirectory() as scratch:
        studio = Studio("train", Path(scratch), {})
        for _ in range(GROUP // 10):
            # A program belongs to a channel, so each slot has a channel of its own; one of ten is the drums'
            channels = [channel for channel in range(10) if channel != DRUMS] + [DRUMS]
            programs = {channel: int(rng.integers(128)) for channel in channels}
            programs[DRUMS] = int(rng.choice(DRUM_KITS))
            notes = [
                note for slot, channel in enumerate(channels) for note in _notes(rng, slot * SLOT_S, channel)
            ]
            sound = fluidsynth(studio, Score(notes, programs))
            size = int(SLOT_S * RATE)
            sound = np.pad(sound, (0, max(0, 10 * size - len(sound))))[: 10 * size]
            pieces.append(sound.reshape(10, size))
    return np.concatenate(pieces)


def played(rng: np.random.Generator, seed: int, number: int) -> np.ndarray:
    """Some notes of an instrument, at any speed: (SAMPLES,)."""
    slot = _played(seed, number // GROUP)[number % GROUP]
    return fit(soxr.resample(slot, RATE * float(rng.choice([1.0, rng.uniform(0.4, 2.5)])), RATE, "QQ"))


def layer(rng: np.random.Generator) -> np.ndarray:
    """One event going on throughout, a few of them, or one repeated with small differences."""
    form = rng.choice(["throughout", "few", "repeated"], p=[0.35, 0.3, 0.35])
    if form == "throughout":
        return event(rng, SAMPLES)
    total = np.zeros(SAMPLES)
    if form == "few":
        starts = rng.integers(0, SAMPLES, int(rng.integers(1, 4)))
        sounds = [event(rng, int(_log_uniform(rng, 0.05, 3) * RATE)) for _ in starts]
    else:
        every = _log_uniform(rng, 0.08, 1.6)
        count = min(40, int(SAMPLES / RATE / every) + 1)
        starts = ((np.arange(count) + rng.uniform(0, 0.4) * rng.random(count)) * every * RATE).astype(int)
        once = event(rng, int(_log_uniform(rng, 0.03, min(1.0, 2 * every)) * RATE))
        sounds = [once * rng.uniform(0.5, 1) for _ in starts]
    for start, sound in zip(starts, sounds, strict=True):
        total += fit(sound, -int(start))
    return total


def texture(seed: int, number: int) -> np.ndarray:
    """A clip of one to three layers, some in a room, at any level: (SAMPLES,)."""
    rng = np.random.default_rng([seed, number])
    sounds = [layer(rng) for _ in range(int(rng.integers(1, 4)))]
    if rng.random() < 0.35:
        sounds[0] = played(rng, seed, number)
    layers = [at_level(sound, rng.uniform(-38, -18)) for sound in sounds]
    clip = np.sum(layers, axis=0)
    if rng.random() < 0.3:
        clip = fit(in_a_room(rng, clip))
    return at_level(clip, rng.uniform(-40, -6))


def main() -> None:
    """Writes the clips and their manifest, ``textures.csv``."""
    parser = argparse.ArgumentParser(description="Makes random textures and events.")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number in range(arguments.count):
        name = f"texture_{number:05d}.flac"
        samples = texture(arguments.seed, number)
        soundfile.write(arguments.output / name, samples, RATE, subtype="PCM_16")
        writer.writerow((name, "", 0, "texture", "MIT", "earmark", "NumPy", "random texture"))
    write_atomically(arguments.output / "textures.csv", table.getvalue())
    print(f"{arguments.count} clips and {arguments.output / 'textures.csv'}")


if __name__ == "__main__":
    main()
