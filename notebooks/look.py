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
# # Tag and look
#
# What the default model hears in a recording, and what it hears it from: tags, scores along time, events,
# waveforms, log-mel spectrograms and embeddings. `RECORDING` may be any file of your own; the default one
# is [half a minute](../examples/README.md) of chickens, roosters, dogs and thunder.
#
# Needs `pip install 'earmark[plot]'`, no PyTorch and no network. [Next](own_sounds.py): your own classes.

# %% tags=["parameters"]
RECORDING = "../examples/farm.ogg"
WORK = "work/look"

# %%
from pathlib import Path

import numpy as np
from IPython.display import Audio, Image

import earmark
from earmark.audio import load_audio
from earmark.events.event import RecordingEvents
from earmark.features.front_end import FrontEnd
from earmark.features.log_mel import LogMel
from earmark.inference.local_scores import with_local_scores
from earmark.plots.style import LEVEL_MAP, PAGE_MM, QUIET_COLOUR, colour, picture
from earmark.plots.timeline import plot_events

work = Path(WORK)
work.mkdir(parents=True, exist_ok=True)
Audio(RECORDING)

# %% [markdown]
# ## Tags
#
# A recording is cut into windows of five seconds. Each window has a score for each of 527 labels, and a
# recording's score is the highest of its windows'. *Detected* is what reaches the model's own threshold of
# its label.

# %%
tagger = earmark.load()
result = tagger.tag(RECORDING)
print(f"{result.duration_s:.0f} s, {len(result.windows)} windows, {len(result.labels)} labels")
for tag in result.detected:
    print(f"{tag.score:.2f} {tag.label}, {tag.start_s:.0f} to {tag.end_s:.0f} s")

# %% [markdown]
# ## Scores along time
#
# With local scores the network still runs once per window, but its last feature map is classified piece by
# piece: a score about every 0.3 s. Dashed is the threshold that starts an event. Of labels that rise and
# fall together, such as "Dog" and "Animal", the highest is shown.

# %%
local = with_local_scores(tagger).tag(RECORDING)
series = local.score_series
times_s = (np.arange(len(series.scores)) + 0.5) * series.step_s
alike = np.corrcoef(series.scores, rowvar=False)  # (class, class)
shown: list[int] = []
for index in np.argsort(-series.scores.max(0))[:50]:
    if len(shown) < 4 and all(alike[index, other] < 0.7 for other in shown):
        shown.append(int(index))
shown.sort(key=lambda index: int(series.scores[:, index].argmax()))
with picture(work / "scores.png", PAGE_MM, 65) as figure:
    rows = figure.subplots(len(shown), 1, sharex=True, sharey=True)
    for number, (axes, index) in enumerate(zip(rows, shown, strict=True)):
        axes.fill_between(times_s, series.scores[:, index], color=colour(number), linewidth=0)
        axes.axhline(local.thresholds[index], color=QUIET_COLOUR, linewidth=0.7, linestyle="--")
        axes.set(ylim=(0, 1), xlim=(0, result.duration_s))
        axes.set_title(series.labels[index], loc="left")
    figure.supylabel("score", size=8)
    rows[-1].set(xlabel="time (s)")
Image(work / "scores.png")

# %% [markdown]
# ## Events
#
# An event starts where a score reaches the threshold, and ends where it falls clearly below: two
# thresholds, so that a score that wavers is not many events. A start and an end are known as precisely as
# the pieces are long, 1.25 s. `earmark tag FILE --events --plot events.png` draws the same. What is wrong
# can be seen as well: the crack of thunder at 25 s is taken for a gunshot.

# %%
events = local.events()
for event in events[:6]:
    print(f"{event.start_s:5.1f} to {event.end_s:4.1f} s {event.label}, peak {event.peak:.2f}")
plot_events(RecordingEvents(local, events), work / "events.png")
Image(work / "events.png")

# %% [markdown]
# ## Waveform and log-mel spectrogram
#
# The network does not hear the waveform. It sees a log-mel spectrogram: the energy of 128 bands, narrow
# where pitch is low and wide where it is high, a hundred times per second. Its constants, the *front-end*,
# are part of the model file, so a model cannot be run with others. One part of each kind of sound:

# %%
front_end = tagger.info.front_end
waveform, warnings = load_audio(RECORDING, front_end.sample_rate)
parts = {"chickens": 0.0, "rooster": 5.0, "dog": 10.5, "thunder": 20.0}  # start in seconds


def cut(start_s: float, seconds: float = 2.5) -> np.ndarray:
    """A part of the recording."""
    start = round(start_s * front_end.sample_rate)
    return waveform[start : start + round(seconds * front_end.sample_rate)]


log_mel = LogMel(front_end)
with picture(work / "parts.png", PAGE_MM, 80) as figure:
    upper, lower = figure.subplots(2, len(parts), sharex=True, sharey="row", height_ratios=(1, 2))
    for above, below, (name, start_s) in zip(upper, lower, parts.items(), strict=True):
        samples = cut(start_s)
        seconds = len(samples) / front_end.sample_rate
        above.plot(np.arange(len(samples)) / front_end.sample_rate, samples, linewidth=0.25, color=colour(0))
        above.set(title=name, ylim=(-1, 1))
        values = log_mel(samples)  # (mel, frame)
        image = below.imshow(
            values, origin="lower", aspect="auto", cmap=LEVEL_MAP, extent=(0, seconds, 0, len(values))
        )
        below.set(xlabel="time (s)")
    upper[0].set(ylabel="amplitude")
    lower[0].set(ylabel="mel band")
Image(work / "parts.png")

# %% [markdown]
# ## What the constants do
#
# More bands and a shorter hop show more, and cost more: the operations of a network grow with both.

# %%
with picture(work / "constants.png", PAGE_MM, 55) as figure:
    row = figure.subplots(1, 3)
    for axes, (n_mels, hop_length) in zip(row, ((32, 640), (64, 320), (128, 160)), strict=True):
        other = FrontEnd.from_dict(front_end.to_dict() | {"n_mels": n_mels, "hop_length": hop_length})
        values = LogMel(other)(cut(parts["rooster"]))
        axes.imshow(values, origin="lower", aspect="auto", cmap=LEVEL_MAP)
        hop_ms = 1000 * hop_length / front_end.sample_rate
        axes.set(title=f"{n_mels} bands, hop {hop_ms:.0f} ms: {values.size:,} values", xlabel="frame")
    row[0].set(ylabel="mel band")
Image(work / "constants.png")

# %% [markdown]
# ## Embeddings of windows
#
# Before the last layer decides on labels, a window is a vector: its embedding. Windows that sound alike
# have embeddings that point the same way, whether or not there is a word for the sound. Windows of 2.5 s,
# one every 1.25 s, less their mean, which all of them have in common, each compared with each:

# %%
found = tagger.embed(RECORDING, window_s=2.5, hop_s=1.25)
centred = found.windows - found.windows.mean(0)  # (window, channel)
units = centred / np.linalg.norm(centred, axis=1, keepdims=True)
similarity = units @ units.T  # (window, window), cosines
with picture(work / "similarity.png", PAGE_MM / 2, 75) as figure:
    axes = figure.subplots()
    ends = (found.start_s[0], found.end_s[-1])
    image = axes.imshow(similarity, vmin=-1, vmax=1, cmap="RdBu_r", extent=(*ends, *ends[::-1]))
    axes.set(xlabel="time (s)", ylabel="time (s)")
    figure.colorbar(image, label="cosine similarity", shrink=0.8)
Image(work / "similarity.png")

# %% [markdown]
# The red squares along the diagonal are stretches of one kind of sound; where the rows of one cross the
# columns of another, red says that they sound alike. As numbers:

# %%
middles_s = (found.start_s + found.end_s) / 2
dogs, thunder = (np.flatnonzero((middles_s > low) & (middles_s < high)) for low, high in ((11, 19), (21, 29)))
among_dogs = similarity[np.ix_(dogs, dogs)][np.triu_indices(len(dogs), 1)].mean()
print(f"dogs to dogs {among_dogs:.2f}, dogs to thunder {similarity[np.ix_(dogs, thunder)].mean():.2f}")

# %% [markdown]
# [Embeddings and similarity](similarity.py) searches an archive in this way, and classifies with a few
# examples. The same from the command line: `earmark tag`, `earmark tag --events`, `earmark embed`; see
# [tagging](../docs/tag.md), [events](../docs/events.md), [front-ends](../docs/front-ends.md) and
# [embeddings](../docs/embeddings.md).
