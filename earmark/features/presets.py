"""Published front-ends, by name.

Conventions: values are those of the reference programs; the golden log-mels of tests/golden/front_end.npz
hold the first four.
"""

from __future__ import annotations

from collections.abc import Mapping

from earmark.features.front_end import FrontEnd

EFFICIENTAT = FrontEnd()
"""EfficientAT at 32 kHz (Schmid et al., arXiv:2211.04772)."""

SP4ASC = FrontEnd(
    sample_rate=44100,
    n_fft=2048,
    win_length=2048,
    hop_length=1024,
    n_mels=256,
    f_max=22050.0,
    preemphasis=0.0,
    window_symmetric=False,
    mel_scale="slaney",
    mel_norm="slaney",
    log="db",
    floor_mode="clip",
    floor=1e-10,
    shift=0.0,
    scale=1.0,
)
"""SP4ASC at 44.1 kHz (DCASE 2021, task 1a)."""

FSDKAGGLE = FrontEnd(
    sample_rate=44100,
    n_fft=1024,
    win_length=1024,
    hop_length=441,
    n_mels=64,
    f_max=22050.0,
    preemphasis=0.0,
    window_symmetric=False,
    mel_scale="htk",
    floor_mode="clip",
    floor=0.0,
    shift=0.0,
    scale=1.0,
)
"""sound-clf-pytorch's FSDKaggle2018 networks at 44.1 kHz; digital silence is minus infinity."""

AUDAX = FrontEnd(
    sample_rate=16000,
    n_fft=1024,
    win_length=400,
    hop_length=160,
    n_mels=64,
    f_min=60.0,
    f_max=7800.0,
    preemphasis=0.0,
    window_placement="start",
    mel_scale="htk",
    floor_mode="clip",
    floor=1e-8,
    ceiling=1e8,
    shift=0.0,
    scale=1.0,
)
"""audax at 16 kHz."""

PANNS = FrontEnd(
    n_fft=1024,
    win_length=1024,
    n_mels=64,
    f_min=50.0,
    f_max=14000.0,
    preemphasis=0.0,
    window_symmetric=False,
    mel_scale="slaney",
    mel_norm="slaney",
    log="db",
    floor_mode="clip",
    floor=1e-10,
    shift=0.0,
    scale=1.0,
)
"""PANNs at 32 kHz (Kong et al., arXiv:1912.10211); the same transform as SP4ASC's, torchlibrosa's."""

FRONT_ENDS: Mapping[str, FrontEnd] = {
    "efficientat": EFFICIENTAT,
    "sp4asc": SP4ASC,
    "fsdkaggle": FSDKAGGLE,
    "audax": AUDAX,
    "panns": PANNS,
}
"""Name, as in the registry of models and on the command line -> front-end."""
