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
# Preprocess clips, train a network on them, evaluate it, and tag recordings of your own. The recipe is the
# first one of [sound-clf-pytorch](https://github.com/daisukelab/sound-clf-pytorch), a tutorial that this one
# follows. [The notebook before](look.py) looks at the clips.
#
# `ESC` is a folder of [ESC-50](https://github.com/karolpiczak/ESC-50), or of a part of it, `RECORDING` a
# file of your own. On a CPU, the settings below take hours: lower `EPOCHS` and `CLIPS_PER_CLASS` first.

# %% tags=["parameters"]
ESC = "../data/esc50"
RECORDING = "../examples/farm.ogg"
RECIPE = "../recipes/fsdkaggle2018/tutorial_resnetish18.toml"
WORK = "work"
EPOCHS = 100
BATCH_SIZE = 64
WINDOW_S = 5.0
CLIPS_PER_CLASS = None  # of each fold; None: all

# %%
import csv
import json
from collections import Counter, defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import earmark
from earmark.data.corpora import load_corpus
from earmark.data.shards.writer import PackOptions, pack

work = Path(WORK)
work.mkdir(exist_ok=True)

# %% [markdown]
# ## Three parts
#
# The network learns from the training clips, and the best epoch is chosen by the validation clips. Neither
# says how good it is: that takes clips that nothing was chosen by. ESC-50 has folds, and clips of one source
# recording share one: the last fold is for the test, the first for validation.

# %%
clips = load_corpus("esc50", Path(ESC))
taken: Counter[tuple[str, int]] = Counter()
parts = defaultdict(list)
last_fold = max(clip.fold for clip in clips)
for clip in clips:
    taken[clip.labels[0], clip.fold] += 1
    if CLIPS_PER_CLASS is None or taken[clip.labels[0], clip.fold] <= CLIPS_PER_CLASS:
        parts["test" if clip.fold == last_fold else "train"].append(clip)
print({name: len(part) for name, part in parts.items()}, "clips; fold 1 of train is for validation")

# %% [markdown]
# ## Preprocess
#
# Decoding and resampling the same files in every epoch takes time. A [pack](../docs/pack.md) has them ready
# at the sample rate of the network; the log-mels are computed while training, so that augmentation can
# change the waveforms. A [manifest](../docs/train.md#the-manifest) does as well: a CSV file of paths, labels
# and folds.

# %%
header = pack(parts["train"], work / "train", PackOptions(sample_rate=44100))
print(f"{header.clips} clips, {header.seconds / 60:.1f} minutes")

with (work / "test.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(("path", "labels", "fold"))
    writer.writerows((clip.path.resolve(), clip.labels[0], clip.fold) for clip in parts["test"])

# %% [markdown]
# ## Train
#
# The recipe has all settings; what differs here is overridden by its key, as `earmark train --set` does.
# After an interruption, the same call goes on where it was.

# %%
overrides = [
    f"data.sources=[{{ shards = {json.dumps(str(work / 'train'))} }}]",
    "data.workers=0",
    f"optimizer.epochs={EPOCHS}",
    f"optimizer.batch_size={BATCH_SIZE}",
    f"window_s={WINDOW_S}",
]
trained = earmark.train(RECIPE, overrides=overrides, output=work / "run")
print(trained.model_file)

# %% [markdown]
# The log has a line for each epoch.

# %%
lines = (work / "run" / "fold1" / "log.jsonl").read_text(encoding="utf-8").splitlines()
log = [json.loads(line) for line in lines]
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3), layout="constrained")
left.plot([entry["epoch"] for entry in log], [entry["loss"] for entry in log], marker=".")
left.set(xlabel="epoch", ylabel="training loss")
scored = [entry for entry in log if "accuracy" in entry]
right.plot([entry["epoch"] for entry in scored], [entry["accuracy"] for entry in scored], marker=".")
right.set(xlabel="epoch", ylabel="accuracy on the validation clips", ylim=(0, 1))
plt.show()

# %% [markdown]
# ## Evaluate
#
# On the test clips: accuracy, and MAP@3, which counts a clip with 1, 1/2 or 1/3 if its class has the highest,
# second or third highest score.

# %%
found = earmark.evaluate(trained.model_file, work / "test.csv")
for metric in ("accuracy", "map_at_3", "log_loss", "map_macro"):
    print(f"{metric:10} {found.overall[metric]:.3f}")

# %% [markdown]
# What is mistaken for what: rows are the true classes, columns the predicted ones.

# %%
names = found.labels
figure, axes = plt.subplots(figsize=(2 + len(names) / 4, 2 + len(names) / 4), layout="constrained")
axes.imshow(
    found.confusion / np.maximum(found.confusion.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1
)
axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
axes.set_yticks(range(len(names)), names, fontsize=7)
axes.set(xlabel="predicted", ylabel="true")
plt.show()

# %% [markdown]
# The mistakes that are made most often:

# %%
mistakes = found.confusion * (1 - np.eye(len(names), dtype=int))
for index in np.argsort(-mistakes, axis=None)[:5]:
    true, predicted = np.unravel_index(index, mistakes.shape)
    if mistakes[true, predicted]:
        print(f"{mistakes[true, predicted]} clips of {names[true]} were predicted as {names[predicted]}")

# %% [markdown]
# ## Tag recordings of your own
#
# The model file has labels, front-end and window: nothing else is needed, not even PyTorch.
# `earmark tag FILE --model MODEL_FILE` does the same.

# %%
tagger = earmark.load(trained.model_file)
result = tagger.tag(RECORDING)
for tag in result.tags[:5]:
    print(f"{tag.score:.2f} {tag.label}, {tag.start_s:.1f} to {tag.end_s:.1f} s")
