"""Augmentation: pure functions of tensors and a NumPy generator.

Conventions: waveforms are float32 (batch, time), log-mels float32 (batch, mel, frame), targets float32
(batch, class). Random numbers are drawn on the CPU, so a seed gives the same batch on any device and for any
number of loader workers; where several processes hold a batch together, see :mod:`earmark.data.batch_rng`. No
step waits for a device; no argument is changed in place. torchaudio has a few of these; the reference systems
draw otherwise (share of the larger item, linked stripes), and the goldens hold their draws.
"""

from earmark.data.augment.log_mels import (
    Stripes,
    filter_augment,
    low_pass,
    random_resized_crop,
    spec_augment,
)
from earmark.data.augment.mixing import freq_mixstyle, mix_waveforms, mixup
from earmark.data.augment.waveforms import add_noise, change_speed, convolve_ir, crop, gain, roll

__all__ = [
    "Stripes",
    "add_noise",
    "change_speed",
    "convolve_ir",
    "crop",
    "filter_augment",
    "freq_mixstyle",
    "gain",
    "low_pass",
    "mix_waveforms",
    "mixup",
    "random_resized_crop",
    "roll",
    "spec_augment",
]
