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
# # Train a tagger, from clips to tags
#
# Preprocess clips, train a network on them from random weights, evaluate it, and tag recordings of your
# own, as [sound-clf-pytorch](https://github.com/daisukelab/sound-clf-pytorch) teaches it. [Tag and
# look](look.py) shows what the network sees of a clip; with few clips, [fine-tune](fine_tune.py) instead.
#
# `ESC` is a folder of [ESC-50](https://github.com/karolpiczak/ESC-50), or of a part of it, `RECORDING` a
# file of your own. With the settings below two cores take about a minute: six classes, a small network, few
# epochs. The first recipe of sound-clf-pytorch takes hours: `RECIPE =
# "../recipes/fsdkaggle2018/tutorial_resnetish18.toml"`, `SETTINGS = ()`, `CLASSES = None`, `SAMPLE_RATE =
# 44100`, `EPOCHS = 100`, `BATCH_SIZE = 64`.
#
# Needs `pip install 'earmark[train,plot]'`, and no network.

# %% tags=["parameters"]
ESC = "../data/esc50"
RECORDING = "../examples/farm.ogg"
RECIPE = "../recipes/esc18/scratch_mn01.toml"
SETTINGS = (  # few steps need larger ones, and no averaging
    "optimizer.learning_rate=4e-3",
    "optimizer.ema_decay=0",
    "augment.mixup_alpha=0",
    "augment.crop_epoch_fraction=1",
    "evaluation.every_epochs=6",
)
WORK = "work/train"
CLASSES = ("chainsaw", "church_bells", "clock_tick", "crying_baby", "dog", "rain")  # None: all
SAMPLE_RATE = 32000
EPOCHS = 24
BATCH_SIZE = 8
WINDOW_S = 5.0

# %%
import csv
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from IPython.display import Audio, Image, display

import earmark
from earmark.data.corpora import load_corpus
from earmark.data.shards.writer import PackOptions, pack
from earmark.plots.metrics import plot_confusion
from earmark.plots.style import PAGE_MM, colour, picture

work = Path(WORK)
for name in ("train", "run"):  # without this, an interrupted training goes on where it was
    shutil.rmtree(work / name, ignore_errors=True)
work.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The clips
#
# A corpus is a list of clips, each with its path, its labels and its fold. The network learns from the
# training clips, and validation clips show how it gets on. How good it is takes clips that nothing was
# chosen by. ESC-50 has folds, and clips of one source recording share one: the last fold is for the test,
# the first for validation.

# %%
clips = load_corpus("esc50", Path(ESC))
if CLASSES is not None:
    clips = [clip for clip in clips if clip.labels[0] in CLASSES]
last_fold = max(clip.fold for clip in clips)
parts = defaultdict(list)
for clip in clips:
    parts["test" if clip.fold == last_fold else "train"].append(clip)
print({name: len(part) for name, part in parts.items()}, "clips; fold 1 of train is for validation")
print(dict(Counter(clip.labels[0] for clip in parts["train"])))
display(Audio(parts["train"][0].path))

# %% [markdown]
# ## Preprocess
#
# Decoding and resampling the same files in every epoch takes time. A [pack](../docs/pack.md) has them ready
# at the sample rate of the network; the log-mels are computed while training, so that augmentation can
# change the waveforms. A [manifest](../docs/train.md#the-manifest) does as well: a CSV file of paths,
# labels and folds.

# %%
header = pack(parts["train"], work / "train", PackOptions(sample_rate=SAMPLE_RATE))
print(f"{header.clips} clips, {header.seconds / 60:.1f} minutes")

with (work / "test.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(("path", "labels", "fold"))
    writer.writerows((clip.path.resolve(), clip.labels[0], clip.fold) for clip in parts["test"])

# %% [markdown]
# ## Train
#
# The recipe has all settings; what differs here is overridden by its key, as `earmark train --set` does.

# %%
overrides = [
    f"data.sources=[{{ shards = {json.dumps(str(work / 'train'))} }}]",
    "data.workers=0",
    "data.folds=[1]",
    f"optimizer.epochs={EPOCHS}",
    f"optimizer.batch_size={BATCH_SIZE}",
    f"window_s={WINDOW_S}",
    *SETTINGS,
]
trained = earmark.train(RECIPE, overrides=overrides, output=work / "run")
print(trained.model_file)

# %% [markdown]
# The log has a line for each epoch.

# %%
lines = (work / "run" / "fold1" / "log.jsonl").read_text(encoding="utf-8").splitlines()
log = [json.loads(line) for line in lines]
scored = [entry for entry in log if "accuracy" in entry]
with picture(work / "log.png", PAGE_MM, 55) as figure:
    left, right = figure.subplots(1, 2)
    left.plot([entry["epoch"] for entry in log], [entry["loss"] for entry in log], color=colour(0))
    left.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, None))
    right.plot([one["epoch"] for one in scored], [one["accuracy"] for one in scored], "o-", color=colour(1))
    right.set(xlabel="epoch", ylabel="validation accuracy", ylim=(0, 1), xlim=left.get_xlim())
Image(work / "log.png")

# %% [markdown]
# ## Evaluate
#
# On the test clips: accuracy, and MAP@3, which counts a clip with 1, 1/2 or 1/3 if its class has the
# highest, second or third highest score.

# %%
found = earmark.evaluate(trained.model_file, work / "test.csv")
for metric in ("accuracy", "map_at_3", "log_loss", "map_macro"):
    print(f"{metric:10} {found.overall[metric]:.3f}")

# %% [markdown]
# What is mistaken for what: rows are the true classes, columns the predicted ones.

# %%
names = found.labels
plot_confusion(found.confusion, names, names, work / "confusion.png")
Image(work / "confusion.png")

# %% [markdown]
# The mistakes that are made most often:

# %%
mistakes = found.confusion * (1 - np.eye(len(names), dtype=int))
for index in np.argsort(-mistakes, axis=None)[:5]:
    true, predicted = np.unravel_index(index, mistakes.shape)
    if mistakes[true, predicted]:
        print(f"{mistakes[true, predicted]} x {names[true]}, predicted as {names[predicted]}")

# %% [markdown]
# ## Tag recordings of your own
#
# The model file has labels, front-end and window: nothing else is needed, not even PyTorch. `earmark tag
# FILE --model MODEL_FILE` does the same. Classes that exclude each other have scores that sum to 1, also
# where none of them sounds: a network that knows six sounds takes a rooster for one of them.

# %%
tagger = earmark.load(trained.model_file)
result = tagger.tag(RECORDING)
for tag in result.tags[:5]:
    print(f"{tag.score:.2f} {tag.label}, {tag.start_s:.1f} to {tag.end_s:.1f} s")
