"""Sources of negative clips: noise, levels, rooms, and programs for speech, music and synthesis.

Conventions: sounds are float64 arrays of shape (time,) at RATE, a clip has SAMPLES of them; levels are RMS in
dBFS (a square wave of full scale is 0).
"""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import music
import numpy as np
import soundfile
import soxr
from scipy.signal import oaconvolve

from earmark.errors import DataError

RATE = 32_000
SAMPLES = 163_840  # 5.12 s
SOUNDFONTS = {
    "train": ("/usr/share/sounds/sf2/FluidR3_GM.sf2", "fluid-soundfont-gm"),
    "test": ("/usr/share/sounds/sf2/TimGM6mb.sf2", "timgm6mb-soundfont"),
}


@dataclass(frozen=True)
class Studio:
    """What the makers draw on: split, scratch folder, sentences by language, Sonic Pi recordings by name."""

    split: str
    scratch: Path
    sentences: dict[str, list[str]]
    samples: dict[str, np.ndarray] = field(default_factory=dict)


# --- signal -------------------------------------------------------------------------------------------------


def fit(samples: np.ndarray, start: int = 0) -> np.ndarray:
    """Cuts or zero-pads to one clip, from sample ``start`` on (negative: that many zeros first)."""
    placed = np.concatenate([np.zeros(max(0, -start)), samples[max(0, start) :]])[:SAMPLES]
    return np.pad(placed, (0, SAMPLES - len(placed)))


def at_level(samples: np.ndarray, level_db: float, clip: bool = False) -> np.ndarray:
    """Scales to an RMS level in dBFS; peaks above full scale are clipped, or the whole turned down to fit."""
    scaled = samples * (10 ** (level_db / 20) / max(float(np.sqrt(np.mean(samples**2))), 1e-12))
    return np.clip(scaled, -1, 1) if clip else scaled / max(1.0, float(np.abs(scaled).max()) / 0.99)


def shaped_noise(
    rng: np.random.Generator, exponent: float, band_hz: tuple[float, float] | None = None
) -> np.ndarray:
    """Gaussian noise, power ~ frequency ** -exponent (0 white, 1 pink, 2 brown), kept to a band if given."""
    spectrum = np.fft.rfft(rng.standard_normal(SAMPLES))
    frequency = np.fft.rfftfreq(SAMPLES, 1 / RATE)
    gain = np.maximum(frequency, 10.0) ** (-exponent / 2)
    if band_hz is not None:
        gain *= (frequency >= band_hz[0]) & (frequency <= band_hz[1])
    return np.fft.irfft(spectrum * gain, SAMPLES)


def voss_noise(rng: np.random.Generator, rows: int = 15) -> np.ndarray:
    """Pink noise after Voss and McCartney: a sum of random rows, each held twice as long as the last."""
    held = [np.repeat(rng.uniform(-1, 1, -(-SAMPLES >> row) + 1), 1 << row) for row in range(rows)]
    total = sum(row[offset : offset + SAMPLES] for row, offset in zip(held, _phases(rng, rows), strict=True))
    return np.asarray(total) - np.mean(total)


def _phases(rng: np.random.Generator, rows: int) -> list[int]:
    return [int(rng.integers(0, 1 << row)) if row else 0 for row in range(rows)]


def in_a_room(rng: np.random.Generator, samples: np.ndarray) -> np.ndarray:
    """Adds a room: a noise tail, 0.2 to 1.2 of the direct amplitude, that falls 60 dB in 0.2 to 1.3 s."""
    decay_s = rng.uniform(0.2, 1.3)
    time = np.arange(int(decay_s * RATE)) / RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay_s)
    tail *= rng.uniform(0.2, 1.2) / np.sqrt(np.sum(tail**2))
    tail[0] += 1
    return oaconvolve(samples, tail)


# --- other programs -----------------------------------------------------------------------------------------


def run(*command: str, text: str | None = None) -> bytes:
    """Runs a program and returns its standard output; a missing or failing one is a DataError of one line."""
    try:
        done = subprocess.run(command, input=text and text.encode(), capture_output=True, check=True)
    except FileNotFoundError as error:
        # Debian names these packages after their programs
        raise DataError(f"{command[0]} is not installed: apt-get install {command[0]} (Debian)") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(f"{command[0]} failed: {lines[-1] if lines else error.returncode}") from error
    return done.stdout


def read_sound(path: Path, speed: float = 1.0) -> np.ndarray:
    """Reads a recording as mono at RATE, played ``speed`` times as fast (and as high)."""
    samples, rate = soundfile.read(path, always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate * speed, RATE))


def espeak(studio: Studio, text: str, voice: str, pitch: int, speed: int) -> np.ndarray:
    """Speaks with espeak-ng; pitch 0 to 99, speed in words a minute."""
    wav = studio.scratch / "voice.wav"
    options = f"-v {voice} -p {pitch} -s {speed} -b 1 --stdin -w"
    run("espeak-ng", *options.split(), str(wav), text=text)
    return read_sound(wav)


def flite(studio: Studio, text: str, voice: str, stretch: float, pitch_hz: float) -> np.ndarray:
    """Speaks with flite; ``stretch`` lengthens, ``pitch_hz`` is the mean fundamental asked for."""
    wav = studio.scratch / "voice.wav"
    settings = ("--setf", f"duration_stretch={stretch:.2f}", "--setf", f"int_f0_target_mean={pitch_hz:.0f}")
    run("flite", "-voice", voice, *settings, "-t", text, "-o", str(wav))
    return read_sound(wav)


def sox(effect: str) -> np.ndarray:
    """What SoX synthesises for an effect such as "synth 5 sine 440"."""
    raw = run(*f"sox -R -n -r {RATE} -c 1 -b 32 -e floating-point -t raw - {effect}".split())
    return np.frombuffer(raw, np.float32).astype(np.float64)


@functools.cache
def sox_noise(shape: str) -> np.ndarray:
    """A long "whitenoise" or "pinknoise" of SoX to cut from: SoX seeds itself alike at every start."""
    return sox(f"synth 1300 {shape}")


def fluidsynth(studio: Studio, score: music.Score) -> np.ndarray:
    """Renders a score with the soundfont of the split, as mono at RATE."""
    font, package = SOUNDFONTS[studio.split]
    if not Path(font).is_file():
        raise DataError(f"soundfont {font} is missing: apt-get install {package} (Debian)")
    midi, raw = studio.scratch / "piece.mid", studio.scratch / "piece.raw"
    midi.write_bytes(music.midi_file(score))
    options = f"-q -n -i -r {RATE} -g 0.4 -T raw -O s16 -E little -o synth.dynamic-sample-loading=1 -F {raw}"
    run("fluidsynth", *options.split(), font, str(midi))
    return np.fromfile(raw, "<i2").reshape(-1, 2).mean(axis=1) / 32768
