"""Builds synthetic scenes with known events, to measure event detection with.

    python -m benchmarks.scenes --esc18 DIR --open-audio DIR --out DIR [--scenes 200] [--part tuning|judging]

A scene is 60 s of background with 6 to 10 events of esc18's categories, and 2 or 3 other sounds that no
category describes. Events are cut out of their clips by energy, long ones at random; they start anywhere, may
overlap events of other categories, and are 0 to 24 dB louder than the background. No recording that one part
is made of, nor another one from its source, is in the other part: tuning has the folds 1 to 3 of esc18,
judging fold 4, and the two share no repository of open_audio.

Conventions: waveforms are mono float32 at 32 kHz; times are in seconds; a scene depends on its part and its
number only. Truth is written as ``truth.csv``: file, label, start, end.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from runpy import run_path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from earmark.audio import load_audio
from earmark.audio.encode import encode, to_int16

Floats = NDArray[np.float32]
Part = Literal["tuning", "judging"]

RATE = 32000
SCENE_S = 60.0
HELD_OUT = Path(__file__).parents[1] / "recipes" / "general" / "held_out.py"
"""Names the repositories that the default model was not trained on; they are for judging."""
FOLDS = {"tuning": ("1", "2", "3"), "judging": ("4",)}
FRAME = RATE // 50
"""Samples over which energy is measured: 20 ms."""
DROP_DB = 30.0
"""A clip sounds where its energy is at most this far below that of its loud frames."""
BRIDGE_S, SHORTEST_S, LONGEST_S = 0.25, 0.15, 8.0
"""Pauses within one sound; lengths of events."""
LONG_S = 2.0
"""Of sounds longer than this a part is taken, half of it at least."""
FADE = RATE // 100
BACKGROUND_WORDS = """
ambience ambient background cave city crowd desert environment field hubbub meeting noise outdoor park people
road room soundscape traffic wind
"""
CATEGORY_WORDS = """
alarm animal animals aquarium baby bark barking bee bell bells bird birds birdsong blower break brush budgie
car cardinal cat caw chainsaw chicken chime chirp church cicada clock cock coyote crackle crash cricket crow
cry crying cutter dog engine farm fire flames flicker flycatcher forest frog glass gull hawk helicopter hen
honk horn howl howling insect jay jungle kitten lark lava lawn leaf lightning liquids loon meow metal motor
night ocean owl police puppy rain robin rooster sea seagull shatter siren smash sneeze snore snoring song
sparrow splash storm thunder tick trimmer tweet underwater vehicle warbler water waves weather whistle wolf
wolves woodpecker
"""
"""Words in titles of sounds that esc18's categories might describe: neither background nor other sounds."""


class Truth(NamedTuple):
    """An event: a category of esc18, start and end in seconds."""

    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Sources:
    """The recordings that scenes of one part are made of.

    Args:
        clips: Category -> paths.
        backgrounds: Paths of recordings of places.
        others: Paths of sounds that no category describes.
    """

    clips: dict[str, list[Path]] = field(default_factory=dict)
    backgrounds: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def find_sources(esc18: Path, open_audio: Path, part: Part) -> Sources:
    """Lists the recordings of a part.

    Args:
        esc18: Folder of esc18, with ``meta.csv``.
        open_audio: Folder of open_audio, with ``meta.csv``.
        part: "tuning" or "judging".
    """
    held = run_path(str(HELD_OUT))["HELD_SOURCES"]
    sources = Sources()
    of_places, of_categories = set(BACKGROUND_WORDS.split()), set(CATEGORY_WORDS.split())
    for row in _rows(esc18):
        if row["fold"] in FOLDS[part]:
            path = esc18 / "audio" / row["filename"]
            sources.clips.setdefault(row["category"], []).append(path)
    for row in _rows(open_audio):
        words = set(row["words"].lower().replace(";", " ").split())
        is_held = row["source"].partition("@")[0] in held
        if is_held != (part == "judging") or words & of_categories:
            continue
        fits = words & of_places and float(row["seconds"]) >= 5
        kind = sources.backgrounds if fits else sources.others
        kind.append(open_audio / "audio" / row["filename"])
    return sources


def build_scene(sources: Sources, part: Part, number: int) -> tuple[Floats, list[Truth]]:
    """Builds a scene.

    Args:
        sources: Of the part.
        part: "tuning" or "judging".
        number: From 0 on.

    Returns:
        Waveform (time,), peak at most 0.9, and its events in order of start.
    """
    rng = np.random.default_rng([list(FOLDS).index(part), number])
    scene = _background(rng, sources.backgrounds)
    level = _loud_rms(scene)
    events: list[Truth] = []
    for _ in range(rng.integers(6, 11)):
        label = str(rng.choice(sorted(sources.clips)))
        sound = _event(rng, sources.clips[label])
        start = _place(rng, events, label, len(sound) / RATE)
        if start is None:
            continue
        _add(scene, sound, start, level * 10 ** (rng.uniform(0, 24) / 20))
        events.append(Truth(label, start, start + len(sound) / RATE))
    for _ in range(rng.integers(2, 4)):
        sound = _event(rng, sources.others)
        start = rng.uniform(0, SCENE_S - len(sound) / RATE)
        _add(scene, sound, start, level * 10 ** (rng.uniform(0, 18) / 20))
    scene *= min(1.0, 0.9 / float(np.abs(scene).max()))
    return scene, sorted(events, key=lambda event: event.start_s)


def sounding(waveform: Floats) -> list[tuple[int, int]]:
    """Finds where a clip sounds, by energy.

    Args:
        waveform: Shape (time,).

    Returns:
        First sample and end of each sound of at least ``SHORTEST_S``; pauses of ``BRIDGE_S`` are bridged.
    """
    frames = waveform[: len(waveform) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.square(frames, dtype=np.float64).mean(1)
    is_loud = power > max(1e-10, float(np.percentile(power, 98)) * 10 ** (-DROP_DB / 10))
    padded = np.concatenate([[False], is_loud, [False]])
    runs = np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2) * FRAME
    found: list[tuple[int, int]] = []
    for first, end in runs.tolist():
        if found and first - found[-1][1] <= BRIDGE_S * RATE:
            found[-1] = (found[-1][0], end)
        else:
            found.append((first, end))
    return [(first, end) for first, end in found if end - first >= SHORTEST_S * RATE]


def _event(rng: np.random.Generator, paths: Sequence[Path]) -> Floats:
    """One sound of one of the clips."""
    for _ in range(100):
        waveform = _load(paths[rng.integers(len(paths))])
        sounds = sounding(waveform)
        if sounds:
            first, end = sounds[rng.integers(len(sounds))]
            if end - first > LONG_S * RATE:  # much of esc18 sounds from end to end
                length = int(rng.uniform(LONG_S / 2 * RATE, end - first))
                first += int(rng.integers(end - first - length + 1))
                end = min(first + length, first + int(LONGEST_S * RATE))
            sound = waveform[first:end].copy()
            ramp = np.linspace(0, 1, FADE, dtype=np.float32)
            sound[:FADE] *= ramp
            sound[-FADE:] *= ramp[::-1]
            return sound
    raise SystemExit("error: the recordings have no sounds in them")


def _place(rng: np.random.Generator, events: list[Truth], label: str, duration_s: float) -> float | None:
    """A start at which at most one other event sounds, none within a second of the same label."""
    for _ in range(50):
        start = float(rng.uniform(0, SCENE_S - duration_s))
        end = start + duration_s
        same = [one for one in events if one.label == label]
        apart = all(end + 1 < one.start_s or one.end_s + 1 < start for one in same)
        if apart and sum(one.start_s < end and start < one.end_s for one in events) <= 1:
            return start
    return None


def _background(rng: np.random.Generator, paths: Sequence[Path]) -> Floats:
    """A recording of a place, repeated with cross-fades, and pink noise 12 dB below it, at -45 to -30 dB."""
    length = int(SCENE_S * RATE)
    recording, fade = _load(paths[rng.integers(len(paths))]), RATE
    ramp = np.sqrt(np.linspace(0, 1, fade, dtype=np.float32))
    place = np.zeros(length + len(recording), np.float32)
    for start in range(0, length, len(recording) - fade):
        piece = recording.copy()
        if start:
            piece[:fade] *= ramp
        piece[-fade:] *= ramp[::-1]
        place[start : start + len(piece)] += piece
    spectrum = np.fft.rfft(rng.standard_normal(length)) / np.sqrt(np.arange(length // 2 + 1) + 1.0)
    pink = np.fft.irfft(spectrum, length).astype(np.float32)
    mixed = place[:length] / _loud_rms(place[:length]) + pink / _loud_rms(pink) * np.float32(0.25)
    return np.asarray(mixed * np.float32(10 ** (rng.uniform(-45, -30) / 20)), np.float32)


def _add(scene: Floats, sound: Floats, start_s: float, level: float) -> None:
    start = round(start_s * RATE)
    part = sound[: len(scene) - start]
    scene[start : start + len(part)] += part * np.float32(level / _loud_rms(sound))


def _loud_rms(waveform: Floats) -> float:
    """Root mean square of the louder half of the frames, so that pauses do not count."""
    frames = waveform[: len(waveform) // FRAME * FRAME].reshape(-1, FRAME)
    power = np.sort(np.square(frames, dtype=np.float64).mean(1))
    return max(1e-6, float(np.sqrt(power[len(power) // 2 :].mean())))


@lru_cache(maxsize=600)
def _load(path: Path) -> Floats:
    return load_audio(path, RATE)[0][: int(SCENE_S * RATE)]


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "meta.csv").open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--esc18", type=Path, required=True)
    parser.add_argument("--open-audio", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--part", choices=list(FOLDS), default="judging")
    args = parser.parse_args()
    sources = find_sources(args.esc18, args.open_audio, args.part)
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "truth.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "start_s", "end_s"])
        for number in range(args.scenes):
            scene, events = build_scene(sources, args.part, number)
            name = f"{args.part}_{number:03}.flac"
            (args.out / name).write_bytes(encode(to_int16(scene), RATE, "flac"))
            table.writerows([name, one.label, f"{one.start_s:.4f}", f"{one.end_s:.4f}"] for one in events)


if __name__ == "__main__":
    main()
