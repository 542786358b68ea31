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
# # Embeddings and similarity
#
# An archive becomes vectors once. After that, finding what sounds alike, drawing a map of all clips and
# classifying with a few examples are products of matrices. `ESC` is a folder of
# [ESC-50](https://github.com/karolpiczak/ESC-50), or of a part of it.
#
# Needs `pip install 'earmark[search,plot]'`, no PyTorch and no network.

# %% tags=["parameters"]
ESC = "../data/esc50"
WORK = "work/similarity"
FOLD = 4

# %%
from pathlib import Path

import numpy as np
from IPython.display import Audio, Image, display

import earmark
from earmark.data.corpora import load_corpus
from earmark.inference.embeddings import file_writer
from earmark.plots.metrics import plot_classes
from earmark.plots.style import PAGE_MM, colour, marker, picture
from earmark.search import Condition, EmbeddingArchive, Filters, most_similar

work = Path(WORK)
work.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Embed an archive
#
# Fold 4 is the archive, because the default model was trained on none of its recordings (of the other folds
# it has heard many). `earmark embed FOLDER --output embeddings.parquet` does the same, for archives of any
# size.

# %%
clips = [clip for clip in load_corpus("esc50", Path(ESC)) if clip.fold == FOLD]
tagger = earmark.load()
embedded = [tagger.embed(clip.path) for clip in clips]
file_writer(work / "embeddings.parquet")(embedded, False)

vectors = np.stack([one.clip for one in embedded])  # (clip, channel)
labels = np.array([clip.labels[0] for clip in clips])
classes = sorted(set(labels))
print(f"{len(clips)} clips of {len(classes)} classes, {vectors.shape[1]} channels")
print(f"{(work / 'embeddings.parquet').stat().st_size / 1024:.0f} KB")

# %% [markdown]
# ## What sounds like this?
#
# A query is an embedding as well. The search is exact and reads the archive in blocks; conditions on
# columns restrict it. The first hit of a clip of the archive is the clip itself.

# %%
query = next(clip for clip in clips if clip.labels[0] == "rooster")
archive = EmbeddingArchive(work / "embeddings.parquet")
label_of = {str(clip.path): clip.labels[0] for clip in clips}
for hit in most_similar(tagger.embed(query.path).clip, archive, top=6):
    print(f"{hit.similarity:.3f} {label_of[hit.path]:12} {Path(hit.path).name}")
    display(Audio(hit.path))
short = Filters(conditions=[Condition.parse("end_s<4.9")])
found = most_similar(vectors[0], archive, top=len(clips), filters=short)
print(f"shorter than 4.9 s: {[Path(hit.path).name for hit in found]}")

# %% [markdown]
# ## How good is the neighbourhood?
#
# Every clip as the query: which share of its five nearest clips is of its class? Other takes of the same
# source recording do not count, or the answer would be too kind. By chance it would be one in eighteen.
#
# All embeddings share a large part, so cosines lie close to 1. Their order says more if the mean of the
# archive is taken off first.


# %%
def neighbours(embeddings: np.ndarray) -> np.ndarray:
    """The order of the other clips by similarity, most similar first, (clip, clip)."""
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = units @ units.T
    similarity[sources[:, None] == sources] = -np.inf
    return np.argsort(-similarity, axis=1)


sources = np.array([clip.extra["src_file"] for clip in clips])
for name, embeddings in {"as they are": vectors, "centred": vectors - vectors.mean(0)}.items():
    right = labels[neighbours(embeddings)[:, :5]] == labels[:, None]  # (clip, rank)
    print(f"{name:11} precision at 5: {right.mean():.3f}")
by_class = {name.replace("_", " "): right[labels == name].mean() for name in classes}
plot_classes(by_class, "precision at 5, centred", work / "classes.png")
Image(work / "classes.png")

# %% [markdown]
# ## A map
#
# Principal components are the two directions along which the clips differ most. Neither labels nor training
# are needed, and they show most of the classes as groups.

# %%
centred = vectors - vectors.mean(0)
_, strengths, directions = np.linalg.svd(centred, full_matrices=False)
places = centred @ directions[:2].T  # (clip, 2)
explained = strengths[:2] ** 2 / (strengths**2).sum()
with picture(work / "map.png", PAGE_MM, 110) as figure:
    axes = figure.subplots()
    for number, name in enumerate(classes):
        own = places[labels == name]
        look = {"color": colour(number), "marker": marker(number), "s": 18, "linewidth": 0}
        axes.scatter(*own.T, label=name.replace("_", " "), alpha=0.85, **look)
    axes.set(
        xlabel=f"first component ({explained[0]:.0%} of the variance)", ylabel=f"second ({explained[1]:.0%})"
    )
    figure.legend(loc="outside right upper")
Image(work / "map.png")

# %% [markdown]
# Two dimensions hold only a part of what the vectors know: classes that overlap here are apart in others.
#
# ## A few examples
#
# The simplest classifier with embeddings: the mean of a few examples of each class; a clip belongs to the
# nearest mean. Examples and tested clips are of fold 4, which the model has not heard, and never of one
# source. Twenty draws of examples:


# %%
def few_shot_accuracy(shots: int, rng: np.random.Generator) -> float:
    """Accuracy on the clips of all sources that no example is of."""
    chosen = np.concatenate([one_per_source(np.flatnonzero(labels == name), shots, rng) for name in classes])
    means = np.stack([centred[chosen[labels[chosen] == name]].mean(0) for name in classes])
    tested = ~np.isin(sources, sources[chosen])
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    return float((np.array(classes)[(centred[tested] @ units.T).argmax(1)] == labels[tested]).mean())


def one_per_source(candidates: np.ndarray, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Random clips, each of another source."""
    shuffled = rng.permutation(candidates)
    _, first = np.unique(sources[shuffled], return_index=True)
    return shuffled[np.sort(first)][:shots]


rng = np.random.default_rng(0)
for shots in (1, 2):
    accuracies = [few_shot_accuracy(shots, rng) for _ in range(20)]
    print(
        f"{shots} examples: accuracy {np.mean(accuracies):.3f}, standard deviation {np.std(accuracies):.3f}"
    )

# %% [markdown]
# `earmark fit` has a better classifier, calibration, thresholds and a report: [your own
# sounds](own_sounds.py). These are kinds of sound that AudioSet has labels for, and so has the model; of
# other kinds expect less. See also [embeddings](../docs/embeddings.md) and [search](../docs/search.md).
