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
# # Your own sounds
#
# From a folder with four clips of each sound to a tagger, its report, a review of what it finds in an
# archive, and a better tagger. `ESC` is a folder of [ESC-50](https://github.com/karolpiczak/ESC-50), or of
# a part of it, whose labels play the part of your ears.
#
# Needs `pip install 'earmark[fit,plot]'`, no PyTorch and no network.

# %% tags=["parameters"]
ESC = "../data/esc50"
WORK = "work/own_sounds"
CLASSES = ("rain", "sea_waves", "crackling_fire", "helicopter", "chainsaw")
CLIPS_PER_CLASS = 4

# %%
import shutil
from pathlib import Path

import numpy as np
from IPython.display import Audio, Image, display

import earmark
from earmark.audio import load_audio
from earmark.custom import write_report
from earmark.custom.review import read_review, with_threshold, write_suggestions
from earmark.custom.suggest import Suggester
from earmark.data.corpora import load_corpus
from earmark.plots.metrics import plot_classes

work = Path(WORK)
for name in ("my_sounds", "review"):
    shutil.rmtree(work / name, ignore_errors=True)
work.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A folder per class
#
# Clips of one source recording share a fold. Folds 1 and 2 are what you have recorded, fold 3 is your
# archive, and fold 4 is the test. The default model, on which the tagger is built, has never heard a
# recording of fold 4; of folds 1 to 3 it has heard many, without these labels, so that the test counts for
# more than the cross-validation.
#
# A folder `background` holds other sounds. With it, the tagger knows what to be silent at.

# %%
clips = load_corpus("esc50", Path(ESC))
own = {name: [clip for clip in clips if clip.labels[0] == name and clip.fold <= 2] for name in CLASSES}
others = {clip.labels[0]: clip for clip in clips if clip.labels[0] not in CLASSES and clip.fold <= 2}
folders = {name: found[:: len(found) // CLIPS_PER_CLASS][:CLIPS_PER_CLASS] for name, found in own.items()}
folders["background"] = list(others.values())
for name, found in folders.items():
    (work / "my_sounds" / name).mkdir(parents=True)
    for clip in found:
        shutil.copy(clip.path, work / "my_sounds" / name)
print({name: len(found) for name, found in folders.items()})

# %% [markdown]
# ## Fit
#
# `earmark fit my_sounds --output my_sounds.onnx --report report` does the same. Logistic regression is put
# behind the default model; its numbers are those of clips whose sources were left out.

# %%
options = earmark.FitOptions(depth="probe")
report = earmark.fit(work / "my_sounds", work / "my_sounds.onnx", options)
print(report.summary())

# %% [markdown]
# The intervals of four clips a class are wide. [The report](../docs/fit.md#what-the-report-says) as a page
# has players and spectrograms of the clips that were named wrongly, the most certain mistakes first. Listen
# to them: a label may be wrong, or a clip may hold two sounds.

# %%
print(write_report(report, work / "report"))
for wrong in report.wrong[:3]:
    label = ", ".join(wrong.example.labels) or "background"
    print(f"{wrong.example.path.name} is {label}, named {wrong.predicted} ({wrong.score:.2f})")
    display(Audio(wrong.example.path))

# %% [markdown]
# ## Test
#
# On all clips of fold 4, of which no class but five is known. *Found* is the share of their clips whose
# label reaches its threshold, and *false* the share of all other clips in which any label does.

# %%
test_clips = [clip for clip in clips if clip.fold == 4]


def test(model: Path) -> dict[str, float]:
    """Share of the clips of each class that are found, and of other clips with a false alarm."""
    right = {name: [] for name in (*CLASSES, "false")}
    tagger = earmark.load(model)
    for clip, result in zip(test_clips, tagger.tag_many([clip.path for clip in test_clips]), strict=True):
        detected = {tag.label for tag in result.detected}
        label = clip.labels[0]
        if label in CLASSES:
            right[label].append(label in detected)
        right["false"].append(bool(detected - {label}))
    return {name: sum(found) / len(found) for name, found in right.items()}


def show(name: str, shares: dict[str, float]) -> None:
    """Prints the mean share of found clips, and that of false alarms."""
    found = sum(shares[label] for label in CLASSES) / len(CLASSES)
    print(f"{name}: found {found:.2f}, false {shares['false']:.2f}")


first = test(work / "my_sounds.onnx")
show("first", first)

# %% [markdown]
# ## Review what it finds
#
# The tagger chooses clips of the archive for you to listen to: some that it is sure of, some that it is
# not, none like another. Sort them into folders: the label, your other classes, and `other`; here the
# labels of the corpus do it. The threshold is then set by what you heard: the lowest with a precision of
# 0.9 *in the archive*, of which each clip stands for a part.

# %%
LABEL = "rain"
tagger = earmark.load(work / "my_sounds.onnx")
suggester = Suggester(tagger, LABEL, top=16)
archive = {str(clip.path): clip for clip in clips if clip.fold == 3}
for result in tagger.tag_many(list(archive)):
    suggester.add(result)
write_suggestions(suggester.suggestions(), LABEL, work / "review")

labels = {Path(path).stem: clip.labels[0] for path, clip in archive.items()}
for path in list((work / "review").glob("*.*")):
    label = next((label for stem, label in labels.items() if stem in path.name), None)
    if label is not None:  # a clip, not the table
        folder = work / "review" / (label if label in CLASSES else "other")
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
review = read_review(work / "review")
threshold = review.threshold(0.9)
print(f"{review.heard.sum()} of {len(review.heard)} have {LABEL}, {review.num_unsorted} are not sorted")
print(f"threshold {threshold.value:.2f}: precision {threshold.precision:.2f}, recall {threshold.recall:.2f}")
with_threshold(work / "my_sounds.onnx", review, threshold, work / "reviewed.onnx")

# %% [markdown]
# ## Fit again
#
# What was reviewed becomes data: each clip goes to its class or to the background. Features of the clips of
# the first fit come from the cache.

# %%
for path in (work / "review").glob("*/*"):
    name = path.parent.name
    shutil.copy(path, work / "my_sounds" / ("background" if name == "other" else name))
again = earmark.fit(work / "my_sounds", work / "again.onnx", options)
print(again.headline)
second = test(work / "again.onnx")
show("first", first)
show("again", second)


# %%
precisions = {label: values["average_precision"] for label, values in again.by_class.items()}
plot_classes(precisions, "cross-validated average precision", work / "classes.png")
Image(work / "classes.png")

# %% [markdown]
# ## Use it
#
# The model file works wherever a model does: `earmark tag`, `earmark listen`, `earmark export`. A scene of
# three clips of fold 4, one after the other:

# %%
scene_clips = [next(clip for clip in test_clips if clip.labels[0] == name) for name in CLASSES[:3]]
scene = np.concatenate([load_audio(clip.path, 32000)[0] for clip in scene_clips])
result = earmark.load(work / "again.onnx").tag(scene, 32000, window_s=4, hop_s=1)
for event in result.events(threshold="auto"):
    print(f"{event.start_s:4.1f} to {event.end_s:4.1f} s {event.label}, peak {event.peak:.2f}")

# %% [markdown]
# More clips help more than anything else; see [your own sounds](../docs/fit.md) and [finding
# examples](../docs/suggest.md). For a network of your own, [fine-tune one](fine_tune.py).
