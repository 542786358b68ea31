"""The golden log-mels, as cases for both implementations of the transform; see golden/README.md."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from earmark.features.front_end import FrontEnd
from earmark.features.presets import AUDAX, EFFICIENTAT, FSDKAGGLE, SP4ASC

Array = npt.NDArray[np.float32]


@cache
def golden(key: str) -> npt.NDArray[Any]:
    """An array of the committed golden file."""
    with np.load(Path(__file__).parent / "golden" / "front_end.npz") as stored:
        return stored[key]


SMALL = FrontEnd(sample_rate=8000, n_fft=64, win_length=50, hop_length=20, n_mels=8, f_max=4000)
FAT2018 = replace(FSDKAGGLE, n_fft=2048, win_length=2048)
SPEECH_COMMANDS = replace(
    FSDKAGGLE,
    sample_rate=16000,
    n_fft=400,
    win_length=400,
    hop_length=160,
    f_max=8000,
    floor_mode="add",
    floor=float(np.finfo(np.float32).eps),
)
EVAR = replace(
    SP4ASC,
    sample_rate=16000,
    n_fft=512,
    win_length=512,
    hop_length=160,
    n_mels=64,
    f_min=50,
    f_max=8000,
)


@cache
def chirps_and_clicks() -> Array:
    """EfficientAT's synthetic clip: 10 s at 32 kHz, with 0.4 s of digital silence."""
    t = np.arange(320_000) / 32_000
    wave = 0.25 * np.sin(2 * np.pi * (100 * t + 0.5 * (12_000 - 100) / 10 * t**2))
    wave += 0.15 * np.sin(2 * np.pi * 200 * (40 ** (t / 10) - 1) * 10 / np.log(40))
    wave += 0.02 * np.random.default_rng(1234).standard_normal(320_000)
    tau = np.arange(3840) / 32_000
    for click in range(19):
        start = 8000 + 16_000 * click
        wave[start : start + 3840] += (
            0.5 * np.exp(-tau / 0.02) * np.sin(2 * np.pi * 400 * (1 + click % 7) * tau)
        )
    wave[224_000:236_800] = 0
    return wave.astype(np.float32)


@cache
def chirp_and_tone(sample_rate: int) -> Array:
    """The other references' synthetic clip: 10 s at any rate."""
    t = np.arange(10 * sample_rate) / sample_rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    wave = 0.3 * np.sin(2 * np.pi * (100 * t + 0.5 * (5900 / 10) * t**2))
    wave += 0.2 * np.sin(2 * np.pi * 440 * t) * (np.sin(2 * np.pi * 0.5 * t) > 0)
    wave += 0.05 * noise * (1 + np.sin(2 * np.pi * 3 * t)) / 2
    return wave.astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One golden log-mel: the front-end and clip that it is of, and how near to it one must come."""

    front_end: FrontEnd
    clip: Callable[[], Array]
    largest: float
    mean: float

    def assert_close(self, log_mel: Array, golden: Array) -> None:
        assert log_mel.dtype == np.float32
        assert log_mel.shape == golden.shape
        difference = np.abs(log_mel - golden)
        assert difference.max() <= self.largest
        assert difference.mean() <= self.mean


def _efficientat(samples: int = 320_000, **changes: float) -> Case:
    front_end = replace(EFFICIENTAT, **changes)  # type: ignore[arg-type]
    return Case(front_end, lambda: chirps_and_clicks()[:samples], 1e-3, 1e-5)


def _other(front_end: FrontEnd, seconds: float, largest: float, mean: float) -> Case:
    rate = front_end.sample_rate
    return Case(front_end, lambda: chirp_and_tone(rate)[: int(seconds * rate)], largest, mean)


#: The references' own tolerances; EVAR's is theirs in decibels.
CASES = {
    "efficientat/mel/synth_m128_h320": _efficientat(),
    "efficientat/mel/synth_m40_h320": _efficientat(n_mels=40),
    "efficientat/mel/synth_m256_h320": _efficientat(n_mels=256),
    "efficientat/mel/synth_m128_h160": _efficientat(hop_length=160),
    "efficientat/mel/synth_m128_h480": _efficientat(hop_length=480),
    "efficientat/mel/synth_m128_h800": _efficientat(hop_length=800),
    "efficientat/mel/synth_first_514_samples": _efficientat(514),
    "efficientat/mel/synth_first_3200_samples": _efficientat(3200),
    "efficientat/mel/synth3s_fmin50_fmax14000": _efficientat(96_000, f_min=50, f_max=14_000),
    "efficientat/mel/synth3s_fmaxaug1000": _efficientat(96_000, f_max=15_500),
    "efficientat/mel/synth3s_nfft2048_win2048": _efficientat(96_000, n_fft=2048, win_length=2048),
    "sp4asc/logmel/synth": _other(SP4ASC, 10, 0.05, 1e-3),
    "sound_clf/logmel/config/synth2.5s": _other(FSDKAGGLE, 2.5, 1e-3, 1e-5),
    "sound_clf/logmel/fat2018/synth2.5s": _other(FAT2018, 2.5, 1e-3, 1e-5),
    "sound_clf/logmel/spcv2/synth1s": _other(SPEECH_COMMANDS, 1, 1e-3, 1e-5),
    "sound_clf/evar/logmel_synth1s": _other(EVAR, 1, 4.3e-3, 1e-4),
    "audax/logmel/synth1s": _other(AUDAX, 1, 2e-3, 1e-4),
    "audax/logmel/synth5s": _other(AUDAX, 5, 2e-3, 1e-4),
}

BANKS = {
    "efficientat/b128": EFFICIENTAT,
    "efficientat/b40": replace(EFFICIENTAT, n_mels=40),
    "efficientat/b64": replace(EFFICIENTAT, n_mels=64),
    "efficientat/b256": replace(EFFICIENTAT, n_mels=256),
    "efficientat/b128_aug_7_14321": replace(EFFICIENTAT, f_min=7, f_max=14_321),
    "efficientat/b128_aug_9_14001": replace(EFFICIENTAT, f_min=9, f_max=14_001),
    "efficientat/b128_aug_0_16000": replace(EFFICIENTAT, f_max=16_000),
    "sp4asc/melW": SP4ASC,
    "sound_clf/melfb/config": FSDKAGGLE,
    "sound_clf/melfb/fat2018": FAT2018,
    "audax/melfb": AUDAX,
}


def kept_frames(num_frames: int) -> npt.NDArray[np.int64]:
    """The frames that the committed goldens hold: every twentieth, and those at both ends."""
    ends = np.r_[:3, num_frames - 3 : num_frames]
    return np.unique(np.r_[np.arange(0, num_frames, 20), ends.clip(0, num_frames - 1)])
