"""The clips that packs are made of here."""

import os
import signal
from pathlib import Path, PosixPath

import numpy as np

RATE = 8000
FORMATS = ("shards", "hdf5", "memmap")


def sound(number: int, rate: int = RATE) -> np.ndarray:
    """A tone in noise, int16 (time,), of another pitch and length for each number."""
    time = np.arange(rate // 2 + 777 * number) / rate
    tone = 0.4 * np.sin(2 * np.pi * (200 + 60 * number) * time)
    noise = 0.05 * np.random.default_rng(number).standard_normal(len(time))
    return np.round(20000 * (tone + noise)).astype(np.int16)


class Deadly(PosixPath):
    """A file that kills the process that opens it, by the signal that it is named for: ``x.SIGSEGV.wav``."""

    def __fspath__(self) -> str:
        os.kill(os.getpid(), signal.Signals[Path(self.stem).suffix[1:]])
        return ""
