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
# # Fine-tune and calibrate
#
# A network that was trained on AudioSet learns the classes of another data set from four clips of each, and
# its scores become probabilities. `ESC` is a folder of [ESC-50](https://github.com/karolpiczak/ESC-50), or
# of a part of it.
#
# The base is EfficientAT's `mn04_as`, which has not seen ESC-50. Its first use downloads 4 MB (without a
# network: `earmark pull mn04_as --from FILE`). Needs `pip install 'earmark[train,plot]'`; two cores take a
# minute.

# %% tags=["parameters"]
ESC = "../data/esc50"
WORK = "work/fine_tune"
BASE = "mn04_as"
CLIPS_PER_CLASS = 4
EPOCHS = 6

# %%
import csv
import json
import shutil
from pathlib import Path

import numpy as np
from IPython.display import Image

import earmark
from earmark.data.corpora import load_corpus
from earmark.data.manifest import Clip
from earmark.evaluation.calibration.run import CalibrationOptions, calibrate_model
from earmark.evaluation.calibration.thresholds import ThresholdTarget
from earmark.plots.metrics import plot_confusion, plot_reliability
from earmark.plots.style import COLUMN_MM, colour, picture

work = Path(WORK)
shutil.rmtree(work / "run", ignore_errors=True)
work.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Three parts
#
# What a network has learned from says nothing about how good it is, nor do clips that something was chosen
# by. So there are three parts, and clips of one source recording are never in two of them: folds 1 and 2 to
# train on, fold 3 to calibrate, fold 4 to test.

# %%
clips = load_corpus("esc50", Path(ESC))
labels = sorted({clip.labels[0] for clip in clips})


def some(folds: tuple[int, ...], count: int) -> list[Clip]:
    """The same number of clips of each class, spread over the folds."""
    own = {
        label: [clip for clip in clips if clip.labels[0] == label and clip.fold in folds] for label in labels
    }
    return [clip for found in own.values() for clip in found[:: max(1, len(found) // count)][:count]]


def write_manifest(name: str, chosen: list[Clip], fold: int) -> Path:
    """Writes a table of clips, all of one fold."""
    with (work / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "labels", "fold"))
        writer.writerows((clip.path.resolve(), clip.labels[0], fold) for clip in chosen)
    return work / name


train_csv = write_manifest("train.csv", some((1, 2), CLIPS_PER_CLASS), 0)  # fold 0: never evaluated
held_out_csv = write_manifest("held_out.csv", some((3,), CLIPS_PER_CLASS), 1)
test_csv = write_manifest("test.csv", some((4,), 8), 1)
print({path.stem: path.read_text().count("\n") - 1 for path in (train_csv, held_out_csv, test_csv)})

# %% [markdown]
# ## The recipe
#
# A recipe has all settings of a training, and a wrong key is an error before the first step. `init_from`
# names the weights to start with, `new_head` replaces the last layer, whose classes are others. The other
# layers know about sound already: they learn ten times as slowly.

# %%
recipe = work / "recipe.toml"
recipe.write_text(
    f"""
name = "fine_tuned"
description = "Classifies {len(labels)} everyday sounds"
source = "EfficientAT's {BASE} (arXiv:2211.04772), fine-tuned"
command = "notebooks/fine_tune.py"
cost = "a minute"
expected = "see the notebook"
task = "single_label"
window_s = 5.0

[model]
architecture = "mn04"
init_from = "{BASE}"
new_head = true

[data]
folds = [1]
cache = true

[[data.sources]]
manifests = [{json.dumps(str(train_csv))}, {json.dumps(str(held_out_csv))}]

[augment]
roll_s = 0.5
gain_db = [-6, 6]

[schedule]
warmup_epochs = 1

[optimizer]
learning_rate = 4e-3
backbone_lr_scale = 0.1
batch_size = 8
epochs = {EPOCHS}
channels_last = true

[evaluation]
every_epochs = {EPOCHS}
""",
    encoding="utf-8",
)
trained = earmark.train(recipe, output=work / "run")
log = [json.loads(line) for line in (work / "run" / "fold1" / "log.jsonl").read_text().splitlines()]
with picture(work / "loss.png", COLUMN_MM, 50) as figure:
    axes = figure.subplots()
    axes.plot(
        [entry["epoch"] for entry in log],
        [entry["loss"] for entry in log],
        "o-",
        color=colour(0),
        markersize=3,
    )
    axes.axhline(np.log(len(labels)), color=colour(1), linestyle="--", linewidth=0.7, label="guessing")
    axes.set(xlabel="epoch", ylabel="training loss (nats)", ylim=(0, None))
    axes.legend()
Image(work / "loss.png")

# %% [markdown]
# ## Calibrate
#
# The highest softmax is not the chance of being right. One number, a temperature that divides the logits,
# is fitted to clips that were not trained on, here those of fold 3; what it brings is measured on fold 4.
# The labels' thresholds are chosen for a precision of 0.9 on the clips of fold 3. `earmark calibrate
# held_out.csv -m MODEL -o OUTPUT` does the same.

# %%
calibrated = work / "calibrated.onnx"
options = CalibrationOptions(test_dataset=test_csv, threshold_target=ThresholdTarget("precision", 0.9))
run = calibrate_model(trained.model_file, held_out_csv, calibrated, options)
metrics = run.result.metrics
print(f"temperature {run.result.calibration.temperature:.2f}, measured on {metrics.measured_on}")
for name in ("accuracy", "log_loss", "expected_calibration_error"):
    print(f"{name:27} {metrics.before[name]:.3f} before, {metrics.after[name]:.3f} after")

# %% [markdown]
# In a reliability diagram, clips are grouped by their highest score. Where a point lies above the diagonal,
# the network is right more often than its score says, as here before: after so few epochs it is too modest.
# Bars are intervals of 95 %; a group of few clips says little.

# %%
plot_reliability(metrics.curves, work / "reliability.png")
Image(work / "reliability.png")

# %% [markdown]
# ## Evaluate
#
# The probabilities on the test clips. Accuracy does not change with a temperature, which keeps the order of
# the classes.

# %%
found = earmark.evaluate(calibrated, test_csv)
for name in ("clips", "accuracy", "map_macro"):
    print(f"{name:9} {found.overall[name]:.3g}")
names = [label.replace("_", " ") for label in found.labels]
plot_confusion(found.confusion, names, names, work / "confusion.png")
Image(work / "confusion.png")

# %% [markdown]
# ## Thresholds
#
# What a class is called, and when nothing is said: a label counts as detected from its threshold on. With
# four clips a class they are rough; more held-out clips make them sharp.

# %%
scores = found.predictions.scores  # (clip, class)
limits = np.array(run.info.thresholds)
named, right = scores >= limits, found.targets > 0
precision, recall = (named & right).sum() / named.sum(), (named & right).sum() / right.sum()
print(f"precision {precision:.3f}, recall {recall:.3f} on the test clips")
for label, limit in sorted(zip(labels, limits, strict=True), key=lambda pair: -pair[1])[:4]:
    print(f"{label}: from {limit:.2f}")

# %% [markdown]
# The calibrated file works wherever a model does, and says that its scores are probabilities:

# %%
clip = found.predictions.clips[0]
result = earmark.load(calibrated).tag(clip.path)
print(f"{clip.labels[0]}: {result.tags[0].label} {result.tags[0].score:.2f}, calibrated {result.calibrated}")

# %% [markdown]
# [From random weights](train.py) the same takes many more clips and epochs. All keys of a recipe:
# [training](../docs/train.md); methods and metrics: [calibration](../docs/calibrate.md),
# [evaluation](../docs/evaluate.md).
