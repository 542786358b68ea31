"""Generates the negative clips of the default model: noise, test signals, speech, music.

    python recipes/esc18/negatives.py --split train --sonic-pi DIR --output DIR

The two splits differ in how noise, speech and music are made. Noise is NumPy's Gaussian against SoX, uniform
samples and Voss-McCartney; speech is espeak-ng against flite and against espeak-ng voices and languages that
are not in the training split; music is keys and chord progressions by FluidR3 against modes and Euclidean
rhythms by TimGM6mb; a quarter of the Sonic Pi recordings (by a hash of the name) is kept for the test. Needs
SciPy and, from Debian, espeak-ng, flite, sox, fluidsynth, fluid-soundfont-gm and timgm6mb-soundfont.

Conventions: levels are RMS in dBFS; every clip has a random generator of its own, so that seed, split, batch
and number decide its content.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import sys
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import music
import numpy as np
import soundfile
import soxr
from studio import (
    RATE,
    SAMPLES,
    SOUNDFONTS,
    Studio,
    at_level,
    espeak,
    fit,
    flite,
    fluidsynth,
    in_a_room,
    read_sound,
    shaped_noise,
    sox,
    sox_noise,
    voss_noise,
)

from earmark.errors import DataError, EarmarkError
from earmark.model_file.atomic import write_atomically

SPLITS = ("train", "test")
COLUMNS = ("path", "labels", "fold", "kind", "group", "license", "author", "source", "title")
GROUPS = {"sampled_music": "music", "speech_music": "speech"}
"""Kinds that are counted together with another in the false-alarm rate."""

# Near one of the 18 classes by name (crow, bells, glass), or near enough to doubt: hot stones and vinyl are
# near fire, wooshes near surf, a deep boom near thunder, ticks near a clock, a printer near a saw, a burp
# near a snore, phones and the safari loop near sirens and animals; the till and the triangle ring.
SONIC_PI_LEFT_OUT = frozenset(
    """
    misc_crow misc_burp misc_cineboom perc_bell perc_bell2 perc_till perc_swash elec_bell elec_chime elec_tick
    elec_triangle drum_cowbell ambi_glass_hum ambi_glass_rub ambi_sauna ambi_swoosh ambi_dark_woosh
    loop_3d_printer loop_safari mehackit_phone1 mehackit_phone2 mehackit_phone3 mehackit_phone4 vinyl_hiss
    """.split()  # noqa: SIM905 (a list of names reads better as text)
)
TRAIN_VARIANTS = (
    "",
    *(f"+m{n}" for n in range(1, 8)),
    *(f"+f{n}" for n in range(1, 6)),
    "+croak",
    "+whisper",
)
TEST_VARIANTS = (
    *("+Alicia", "+Andrea", "+Andy", "+Gene", "+Denis", "+klatt", "+klatt4", "+aunty"),
    *("+boris", "+grandpa", "+shelby", "+victor", "+travis", "+Storm", "+zac"),
)
FLITE_VOICES = ("kal", "kal16", "awb", "rms", "slt")


@dataclass(frozen=True)
class Piece:
    """One negative clip: samples of shape (SAMPLES,), what made it, and a line that describes it."""

    samples: np.ndarray
    source: str
    title: str


Maker = Callable[[Studio, np.random.Generator, int], Piece]


@dataclass(frozen=True)
class Batch:
    """So many clips of one kind by one maker."""

    kind: str
    count: int
    make: Maker


# --- noise and test signals ---------------------------------------------------------------------------------


def train_noise(exponent: float) -> Maker:
    """Gaussian noise at any level, half of it with a slow change of gain."""

    def make(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
        noise = shaped_noise(rng, exponent)
        return _noise_piece(rng, noise * _slow_gain(rng), f"gaussian, power ~ f^-{exponent:g}")

    return make


def band_noise(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """Noise of a random slope between two random corner frequencies."""
    low, high = sorted(float(f) for f in np.exp(rng.uniform(np.log(30), np.log(15_500), 2)))
    high = max(high, 1.5 * low)
    slope = rng.uniform(-0.5, 2.5)
    noise = shaped_noise(rng, slope, (low, high))
    return _noise_piece(rng, noise * _slow_gain(rng), f"{low:.0f} to {high:.0f} Hz, power ~ f^{-slope:.1f}")


def _noise_piece(rng: np.random.Generator, noise: np.ndarray, title: str) -> Piece:
    level = rng.uniform(-70, -1)
    return Piece(at_level(noise, level, clip=True), "NumPy", f"{title}, {level:.0f} dBFS")


def _slow_gain(rng: np.random.Generator) -> np.ndarray:
    swing_db = rng.uniform(0, 12) * rng.integers(0, 2)
    return 10 ** (
        swing_db / 20 * np.interp(np.arange(SAMPLES), np.linspace(0, SAMPLES, 4), rng.uniform(-1, 1, 4))
    )


def test_noise(shape: str) -> Maker:
    """Noise by SoX, every second clip by another way: uniform samples (white), Voss-McCartney (pink)."""

    def make(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
        level = rng.uniform(-60, -1)
        if index % 2:
            white = shape == "whitenoise"
            noise = rng.uniform(-1, 1, SAMPLES) if white else voss_noise(rng)
            source = "NumPy, uniform" if white else "NumPy, Voss-McCartney"
        else:
            start = index * SAMPLES + int(rng.integers(0, SAMPLES))
            noise, source = sox_noise(shape)[start : start + SAMPLES], f"SoX {shape}"
        return Piece(at_level(noise, level, clip=True), source, f"{level:.0f} dBFS")

    return make


def silence(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """Digital silence, or nearly: nothing, or the last bit toggling at random."""
    chance = 0.0 if index % 2 == 0 else 10 ** rng.uniform(-4, -0.3)
    bits = (rng.random(SAMPLES) < chance) * rng.choice([-1, 1], SAMPLES)
    return Piece(bits / 32768, "NumPy", f"last bit set in {chance:.2%} of the samples")


def direct_current(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """A constant, some with a slow drift."""
    start = rng.choice([-1, 1]) * 10 ** (rng.uniform(-60, 0) / 20)
    end = start * (1 if index % 2 == 0 else rng.uniform(0, 1))
    return Piece(np.linspace(start, end, SAMPLES), "NumPy", f"{start:.4f} to {end:.4f}")


def train_tone(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """A sine, two sines, a harmonic tone, mains hum, or a slow one-way sweep."""
    time = np.arange(SAMPLES) / RATE
    frequency = float(np.exp(rng.uniform(np.log(25), np.log(15_500))))
    form = ("sine", "sine", "two sines", "harmonics", "hum", "sweep")[index % 6]
    if form == "sweep":
        other = float(np.exp(rng.uniform(np.log(25), np.log(15_500))))
        phase = np.cumsum(np.geomspace(frequency, other, SAMPLES)) / RATE
        tone = np.sin(2 * np.pi * phase)
    else:
        base = {"hum": float(rng.choice([50, 60]))}.get(form, frequency)
        factors = {"sine": [1.0], "two sines": [1.0, rng.uniform(0.2, 3)]}.get(form, list(range(1, 13)))
        audible = [factor for factor in factors if base * factor < RATE / 2]
        waves = [
            np.sin(2 * np.pi * (base * f * time + rng.random())) * rng.uniform(0.2, 1) / f for f in audible
        ]
        tone = np.sum(waves, axis=0)
    level = rng.uniform(-65, -3)
    return Piece(at_level(tone, level), "NumPy", f"{form} from {frequency:.0f} Hz, {level:.0f} dBFS")


def test_tone(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """A sine, triangle or square wave by SoX on a tempered or a round frequency."""
    wave = ("sine", "sine", "triangle", "square")[index % 4]
    tempered = 27.5 * 2 ** (int(rng.integers(0, 96)) / 12)
    frequency = tempered if index % 3 else float(rng.choice([60, 100, 440, 1000, 3000, 5000, 8000, 10_000]))
    level = rng.uniform(-60, -3)
    tone = sox(f"synth {SAMPLES / RATE} {wave} {frequency:.3f}")
    return Piece(at_level(fit(tone), level), "SoX", f"{wave} {frequency:.0f} Hz, {level:.0f} dBFS")


# --- speech -------------------------------------------------------------------------------------------------


def espeak_voice(studio: Studio, rng: np.random.Generator, index: int) -> tuple[np.ndarray, str]:
    """A few sentences and a number in the index-th language, by a random voice, pitch and speed."""
    languages = [name for name in studio.sentences if name != "flite"]
    language = languages[index % len(languages)]
    variants = TRAIN_VARIANTS if studio.split == "train" else TEST_VARIANTS
    voice = language + str(rng.choice(variants))
    text = _text(rng, studio.sentences[language])
    pitch, speed = int(rng.integers(20, 81)), int(rng.integers(110, 231))
    return espeak(studio, text, voice, pitch, speed), f"{voice}, pitch {pitch}, {speed} words/min"


def flite_voice(studio: Studio, rng: np.random.Generator, index: int) -> tuple[np.ndarray, str]:
    """A few English sentences by the index-th flite voice."""
    voice = FLITE_VOICES[index % len(FLITE_VOICES)]
    pitch = rng.uniform(85, 150) * (1.6 if voice == "slt" else 1)
    stretch = rng.uniform(0.75, 1.35)
    text = _text(rng, studio.sentences["flite"])
    return flite(studio, text, voice, stretch, pitch), f"{voice}, {pitch:.0f} Hz, stretched {stretch:.2f}"


def _text(rng: np.random.Generator, sentences: list[str]) -> str:
    picked = [sentences[i] for i in rng.permutation(len(sentences))[: int(rng.integers(1, 5))]]
    return " ".join([*picked[:1], f"{int(rng.integers(2, 3000))}.", *picked[1:]])


def _placed(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """A clip out of an utterance: a long one is cut anywhere, a short one put anywhere."""
    spare = len(samples) - SAMPLES
    return fit(samples, int(rng.integers(min(spare, 0), max(spare, 0) + 1)))


def speech(
    voice: Callable[[Studio, np.random.Generator, int], tuple[np.ndarray, str]], program: str
) -> Maker:
    """Speech of one speaker or two at once, dry or in a room, clean or over faint noise."""

    def make(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
        samples, title = voice(studio, rng, index)
        clip = at_level(_placed(rng, samples), -20)
        if rng.random() < 0.2:
            second, second_title = voice(studio, rng, int(rng.integers(0, 1000)))
            clip = clip + at_level(_placed(rng, second), rng.uniform(-30, -18))
            title += f"; with {second_title}"
        if rng.random() < 0.4:
            clip, title = fit(in_a_room(rng, clip)), title + "; room"
        if rng.random() < 0.35:
            noise = shaped_noise(rng, rng.uniform(0, 2))
            clip, title = clip + at_level(noise, rng.uniform(-55, -30)), title + "; faint noise"
        return Piece(at_level(clip, rng.uniform(-40, -3)), program, title)

    return make


# --- music --------------------------------------------------------------------------------------------------


def played(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """A composed piece by the soundfont: every second one a lone instrument, all programs in turn."""
    program = music.PROGRAMS[(index // 2) % len(music.PROGRAMS)]
    compose = music.tonal if studio.split == "train" else music.cyclic
    score = compose(rng, program, ensemble=index % 2 == 1)
    clip = fit(fluidsynth(studio, score), int(rng.uniform(-0.1, 1.5) * RATE))
    source = f"fluidsynth {Path(SOUNDFONTS[studio.split][0]).stem}"
    return Piece(
        at_level(clip, rng.uniform(-40, -6)), source, f"{compose.__name__}, programs {score.programs}"
    )


def sampled(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """Sonic Pi recordings: one-shots on a grid, a loop or an ambience, at times with a played piece."""
    layers, names = np.zeros(SAMPLES), list[str]()
    if index % 3 != 0:
        names, layers = _grid(studio, rng)
    if index % 3 != 1:
        beds = [
            n for n, samples in studio.samples.items() if n.startswith("loop_") or len(samples) > 1.5 * RATE
        ]
        name = str(rng.choice(beds))
        bed = _at_speed(studio.samples[name], rng.uniform(0.75, 1.3))
        layers, names = (
            layers + at_level(fit(np.tile(bed, -(-SAMPLES // len(bed)))), rng.uniform(-24, -15)),
            [*names, name],
        )
    title = " + ".join(names)
    if index % 4 == 3:
        over = played(studio, rng, 2 * int(rng.integers(0, len(music.PROGRAMS))))
        layers, title = layers + at_level(over.samples, rng.uniform(-24, -15)), f"{title} + {over.title}"
    return Piece(at_level(layers, rng.uniform(-40, -6)), "Sonic Pi samples (CC0)", title)


def _grid(studio: Studio, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Three to five one-shots, each on its own pattern: of 16 steps (training), Euclidean and odd (test)."""
    step = int(rng.uniform(0.09, 0.2) * RATE)
    cycle = 16 if studio.split == "train" else int(rng.choice([5, 7, 11]))
    shots = [name for name, samples in studio.samples.items() if len(samples) < 3 * RATE]
    names = [str(name) for name in rng.choice(shots, int(rng.integers(3, 6)), replace=False)]
    layers = np.zeros(SAMPLES + 4 * RATE)
    for name in names:
        shot = _at_speed(studio.samples[name], rng.uniform(0.8, 1.25))
        shot = shot / np.abs(shot).max() * rng.uniform(0.3, 1)
        strokes = int(rng.integers(2, min(cycle, 7)))
        spread = music.euclid(strokes, cycle, int(rng.integers(0, cycle)))
        drawn = rng.choice(cycle, strokes, replace=False).tolist()
        pattern = drawn if studio.split == "train" else spread
        for start in (step * i for i in range(SAMPLES // step) if i % cycle in pattern):
            layers[start : start + len(shot)] += shot[: len(layers) - start]
    return names, at_level(layers[:SAMPLES], -18)


def _at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    return np.asarray(soxr.resample(samples, RATE * speed, RATE))


def speech_over_music(studio: Studio, rng: np.random.Generator, index: int) -> Piece:
    """A voice over a played piece, the voice 6 dB below to 18 dB above the music."""
    voice, title = espeak_voice(studio, rng, index)
    tune = played(studio, rng, int(rng.integers(0, 2 * len(music.PROGRAMS))))
    mix = at_level(_placed(rng, voice), -20) + at_level(tune.samples, rng.uniform(-38, -14))
    return Piece(at_level(mix, rng.uniform(-40, -3)), f"espeak-ng, {tune.source}", f"{title}; {tune.title}")


# --- the two splits -----------------------------------------------------------------------------------------

BATCHES = {
    "train": (
        Batch("silence", 10, silence),
        Batch("dc", 10, direct_current),
        Batch("tone", 40, train_tone),
        Batch("white_noise", 30, train_noise(0)),
        Batch("pink_noise", 30, train_noise(1)),
        Batch("brown_noise", 15, train_noise(2)),
        Batch("band_noise", 25, band_noise),
        Batch("speech", 230, speech(espeak_voice, "espeak-ng")),
        Batch("speech_music", 40, speech_over_music),
        Batch("music", 210, played),
        Batch("sampled_music", 80, sampled),
    ),
    "test": (
        Batch("silence", 10, silence),
        Batch("dc", 10, direct_current),
        Batch("tone", 40, test_tone),
        Batch("white_noise", 220, test_noise("whitenoise")),
        Batch("pink_noise", 220, test_noise("pinknoise")),
        Batch("speech", 150, speech(flite_voice, "flite")),
        Batch("speech", 80, speech(espeak_voice, "espeak-ng")),
        Batch("music", 180, played),
        Batch("music", 60, sampled),
    ),
}


def sonic_pi(folder: Path, split: str) -> dict[str, np.ndarray]:
    """Reads the Sonic Pi recordings of a split, without those that resemble a class.

    Raises:
        DataError: If the folder holds none.
    """
    held_out = {
        p.stem: hashlib.sha256(p.stem.encode()).digest()[0] % 4 == 0 for p in sorted(folder.glob("*.flac"))
    }
    names = [n for n, test in held_out.items() if n not in SONIC_PI_LEFT_OUT and test == (split == "test")]
    if not names:
        raise DataError(f"{folder}: no Sonic Pi recordings (*.flac) here: give their folder as --sonic-pi")
    return {name: read_sound(folder / f"{name}.flac") for name in names}


def write_split(
    split: str, samples: dict[str, np.ndarray], out: Path, seed: int, every: int = 1
) -> list[dict[str, str]]:
    """Writes the clips of a split and then their manifest, ``negatives.csv``.

    Args:
        split: "train" or "test".
        samples: Recordings to sequence, by name, at RATE.
        out: Folder of the clips and the manifest.
        seed: The same seed gives the same clips.
        every: Makes one clip in so many of each batch (1: all), for a quick look.

    Returns:
        The manifest's rows.

    Raises:
        DataError: If a program or a soundfont is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    sentences = tomllib.loads(Path(__file__).with_name("sentences.toml").read_text(encoding="utf-8"))[split]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        studio = Studio(split, Path(scratch), sentences, samples)
        for number, batch in enumerate(BATCHES[split]):
            for index in range(0, batch.count, every):
                rng = np.random.default_rng([seed, SPLITS.index(split), number, index])
                piece = batch.make(studio, rng, index)
                name = f"{batch.kind}-{number:02d}-{index:03d}.flac"
                soundfile.write(out / name, piece.samples, RATE, subtype="PCM_16")
                rows.append(_row(name, batch.kind, piece))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(out / "negatives.csv", text.getvalue())
    return rows


def _row(name: str, kind: str, piece: Piece) -> dict[str, str]:
    made = {"license": "CC0", "author": "earmark", "source": piece.source, "title": piece.title}
    return {"path": name, "labels": "", "fold": "0", "kind": kind, "group": GROUPS.get(kind, kind), **made}


def main() -> int:
    """Reads the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=SPLITS, required=True)
    parser.add_argument(
        "--sonic-pi", type=Path, required=True, help="folder of the Sonic Pi recordings (*.flac)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the clips and negatives.csv")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        rows = write_split(given.split, sonic_pi(given.sonic_pi, given.split), given.output, given.seed)
    except EarmarkError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(rows)} clips and {given.output / 'negatives.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
