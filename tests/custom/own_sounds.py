"""Folders of own sounds: tones, noise, and hums as background."""

from pathlib import Path

import numpy as np
import soundfile
import toy

NAMES = {"tone": "tone", "noise": "hiss", "": "background"}
"""Kind of sound -> folder; "noise" as a folder would mean background."""


def write_folder(folder: Path, clips: int = 5, kinds: tuple[str, ...] = ("tone", "noise", "")) -> Path:
    """Writes a folder per class; clips have 0.3 to 1.8 s, so some are longer than a window."""
    generator = np.random.default_rng(0)
    for kind in kinds:
        (folder / NAMES[kind]).mkdir(parents=True, exist_ok=True)
        for number in range(clips):
            parts = [toy.sound(kind, generator) for _ in range(1 + number % 2)]
            path = folder / NAMES[kind] / f"rec{number:03d}x.wav"
            soundfile.write(path, np.concatenate(parts), toy.SAMPLE_RATE)
    return folder
