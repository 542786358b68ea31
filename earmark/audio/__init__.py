"""Files, standard input and arrays -> mono float32 windows at a model's sample rate.

Conventions: waveforms are float32 ``(time,)``; ``decode`` opens and mixes, ``resample`` changes the rate,
``windows`` cuts; each works on blocks, so that memory does not grow with a recording's length.
"""

from earmark.audio.decode import AudioStream, load_audio, load_piece, open_audio
from earmark.audio.mixing import Levels, Mixer, check_finite, mix_all, mixed
from earmark.audio.resample import Resampler, cut_piece, resample, resample_blocks
from earmark.audio.samples import to_channels
from earmark.audio.windows import WholeCutter, WindowCutter, pad, plan_windows

__all__ = [
    "AudioStream",
    "Levels",
    "Mixer",
    "Resampler",
    "WholeCutter",
    "WindowCutter",
    "check_finite",
    "cut_piece",
    "load_audio",
    "load_piece",
    "mix_all",
    "mixed",
    "open_audio",
    "pad",
    "plan_windows",
    "resample",
    "resample_blocks",
    "to_channels",
]
