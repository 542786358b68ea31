"""Makes the example recording out of seven CC0 sounds: a rooster crows, a dog barks, thunder rolls.

    python examples/make_farm.py ESC50_AUDIO [FILE]

ESC50_AUDIO is the folder of clips of ESC-50 (Piczak, ACM MM 2015); only clips whose licence is CC0 are used,
from a fold that the default model was not trained on. examples/README.md names their authors. Equal runs
produce equal samples (the Ogg file around them carries a random serial number).

Conventions: a signal is float32, shape (time,), at RATE; times are in seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Signal = NDArray[np.float32]

RATE = 32_000
SCENE_S = 10.0
PEAK = 0.5
FADE_S = 0.05

SCENES = (
    (("4-183487-A-1", 0.2, 4.5), ("4-208021-A-1", 5.2, 2.7), ("4-170078-A-1", 8.0, 2.0)),
    (("4-191687-A-0", 0.0, 5.0), ("4-192236-A-0", 5.0, 5.0)),
    (("4-161519-A-19", 0.0, 5.0), ("4-156993-A-19", 5.0, 5.0)),
)
"""Clips of each scene: name, start within the scene, and length."""


def main() -> None:
    """Writes the recording beside this script, or to the file that is named."""
    folder = Path(sys.argv[1])
    path = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).with_name("farm.ogg")
    soundfile.write(path, recording(folder), RATE, format="OGG", subtype="VORBIS", compression_level=1.0)
    print(f"{path}: {path.stat().st_size} bytes")


def recording(folder: Path) -> Signal:
    """The scenes, one after the other."""
    return np.concatenate([_scene(folder, clips) for clips in SCENES])


def _scene(folder: Path, clips: tuple[tuple[str, float, float], ...]) -> Signal:
    scene = np.zeros(round(SCENE_S * RATE), np.float32)
    for name, start_s, length_s in clips:
        [path] = folder.glob(f"{name}.*")
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        clip = soxr.resample(samples.mean(1), rate, RATE)[: round(length_s * RATE)]
        fade = np.linspace(0, 1, round(FADE_S * RATE), dtype=np.float32)
        clip[: len(fade)] *= fade
        clip[-len(fade) :] *= fade[::-1]
        start = round(start_s * RATE)
        scene[start : start + len(clip)] += clip[: len(scene) - start]
    return scene * np.float32(PEAK / np.abs(scene).max())


if __name__ == "__main__":
    main()
