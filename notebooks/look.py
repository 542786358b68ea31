# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Look at sounds
#
# What a network hears of a recording: its waveform, and the log-mel spectrogram that is computed of it.
# `ESC` is a folder of [ESC-50](https://github.com/karolpiczak/ESC-50), or of a part of it, and `RECORDING`
# any file of your own. [The next notebook](train.py) trains a tagger on these clips.

# %% tags=["parameters"]
ESC = "../data/esc50"
RECORDING = "../examples/farm.ogg"

# %%
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import earmark
from earmark.audio import load_audio
from earmark.data.corpora import load_corpus
from earmark.features.front_end import FrontEnd
from earmark.features.log_mel import LogMel

# %% [markdown]
# ## The clips
#
# A corpus is a list of clips, each with its path, its labels and its fold. Clips of one source recording
# share a fold, so that no network is tested on a recording that it has learned.

# %%
clips = load_corpus("esc50", Path(ESC))
classes = sorted({clip.labels[0] for clip in clips})
folds = Counter(clip.fold for clip in clips)
print(f"{len(clips)} clips of {len(classes)} classes; clips of each fold: {dict(sorted(folds.items()))}")
clips[0]

# %% [markdown]
# ## Waveforms
#
# A waveform is float32 in [-1, 1] at one sample rate, whatever the file's format, rate and channels. One clip
# of each class:

# %%
SAMPLE_RATE = 44100
examples = {label: next(clip for clip in clips if clip.labels[0] == label) for label in classes[:9]}
waveforms = {label: load_audio(clip.path, SAMPLE_RATE)[0] for label, clip in examples.items()}

figure, grid = plt.subplots(3, 3, figsize=(12, 6), layout="constrained", sharex=True, sharey=True)
for axes, (label, waveform) in zip(grid.flat, waveforms.items(), strict=False):
    axes.plot(np.arange(len(waveform)) / SAMPLE_RATE, waveform, linewidth=0.3)
    axes.set(title=label, xlabel="seconds", ylim=(-1, 1))
    axes.label_outer()
plt.show()

# %% [markdown]
# The duration of every clip decides on the window that a network is trained with: shorter clips are padded,
# of longer ones it sees one window after the other.

# %%
durations_s = [len(waveform) / SAMPLE_RATE for waveform in waveforms.values()]
print(f"{min(durations_s):.2f} to {max(durations_s):.2f} s")

# %% [markdown]
# ## Log-mel spectrograms
#
# A front-end has all constants of the transform. These are those of the recipe of the next notebook: frames
# of 1024 samples every 10 ms, 64 mel bands. [All constants](../docs/front-ends.md) are part of a model file,
# so a model cannot be run with others.

# %%
front_end = FrontEnd(
    sample_rate=SAMPLE_RATE,
    n_fft=1024,
    win_length=1024,
    hop_length=441,
    n_mels=64,
    f_max=22050,
    preemphasis=0,
    window_symmetric=False,
    mel_scale="htk",
    floor_mode="clip",
    floor=1e-8,
    shift=0,
    scale=1,
)
log_mel = LogMel(front_end)


def show(axes: plt.Axes, values: np.ndarray, title: str) -> None:
    """Draws a log-mel of shape (mel, frame)."""
    seconds = values.shape[1] * front_end.hop_length / front_end.sample_rate
    axes.imshow(values, origin="lower", aspect="auto", extent=(0, seconds, 0, len(values)), cmap="magma")
    axes.set(title=title, xlabel="seconds", ylabel="mel band")
    axes.label_outer()


figure, grid = plt.subplots(3, 3, figsize=(12, 6), layout="constrained", sharex=True, sharey=True)
for axes, (label, waveform) in zip(grid.flat, waveforms.items(), strict=False):
    show(axes, log_mel(waveform), label)
plt.show()

# %% [markdown]
# ## What the constants do
#
# More bands and a shorter hop show more, and cost more: the operations of a network grow with both.

# %%
label, waveform = max(waveforms.items(), key=lambda item: np.square(item[1]).mean())  # the loudest
figure, row = plt.subplots(1, 3, figsize=(12, 3), layout="constrained")
for axes, (n_mels, hop_length) in zip(row, ((32, 882), (64, 441), (128, 221)), strict=True):
    other = FrontEnd.from_dict(front_end.to_dict() | {"n_mels": n_mels, "hop_length": hop_length})
    values = LogMel(other)(waveform)
    axes.imshow(values, origin="lower", aspect="auto", cmap="magma")
    axes.set(title=f"{label}: {n_mels} bands, {1000 * hop_length / SAMPLE_RATE:.0f} ms", xlabel="frame")
plt.show()

# %% [markdown]
# ## A recording of your own, and what the default model makes of it

# %%
waveform, warnings = load_audio(RECORDING, SAMPLE_RATE)
figure, axes = plt.subplots(figsize=(12, 3), layout="constrained")
show(axes, log_mel(waveform), Path(RECORDING).name)
plt.show()

result = earmark.load().tag(RECORDING)
for tag in result.tags[:5]:
    print(f"{tag.score:.2f} {tag.label}, {tag.start_s:.1f} to {tag.end_s:.1f} s")
