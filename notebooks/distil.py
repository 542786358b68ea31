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
# # Distil and compress
#
# A large network with a few labels teaches a small one with many recordings. The teacher is a tagger that
# was fitted to four clips a class; the student is a network of a tenth of a million weights, which starts
# from random ones. Recordings without labels are enough for the teacher to tell it more than the labels do.
# Then the student is made smaller still, in 8 bits. `ESC` is a folder of
# [ESC-50](https://github.com/karolpiczak/ESC-50), or of a part of it.
#
# Needs `pip install 'earmark[train,fit,plot]'`, and no network. Two cores take two minutes; with more
# epochs, classes and recordings the student gets better ([Learn from a teacher](../docs/teach.md)).

# %% tags=["parameters"]
ESC = "../data/esc50"
WORK = "work/distil"
CLASSES = ("chainsaw", "church_bells", "clock_tick", "crying_baby", "dog", "rain")
LABELLED_PER_CLASS = 4
EPOCHS = 20

# %%
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

from IPython.display import Image
from matplotlib.ticker import LogLocator, NullFormatter

import earmark
from earmark.data.corpora import load_corpus
from earmark.data.manifest import Clip
from earmark.evaluation.comparison import compare
from earmark.evaluation.speed import Setting
from earmark.export.calibration_set import find_clips
from earmark.export.export import export
from earmark.export.options import ExportOptions
from earmark.export.source import open_source
from earmark.model_file.onnx_file import read_info
from earmark.plots.style import COLUMN_MM, colour, marker, picture

work = Path(WORK)
for name in ("alone", "taught"):
    shutil.rmtree(work / name, ignore_errors=True)
work.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Few labels, many recordings
#
# Of folds 1 to 3 of ESC-50, four clips a class have a label; of the others the label is hidden. Fold 4 is
# the test: neither teacher nor student is trained on it, and neither is the default model behind the
# teacher (which has heard many recordings of the other folds, without these labels).

# %%
clips = [clip for clip in load_corpus("esc50", Path(ESC)) if clip.labels[0] in CLASSES]
pool = {name: [clip for clip in clips if clip.labels[0] == name and clip.fold <= 3] for name in CLASSES}
labelled = [
    clip for own in pool.values() for clip in own[:: len(own) // LABELLED_PER_CLASS][:LABELLED_PER_CLASS]
]
unlabelled = [clip for own in pool.values() for clip in own if clip not in labelled]
test_clips = [clip for clip in clips if clip.fold == 4]


def write_manifest(name: str, chosen: list[Clip], has_labels: bool = True) -> Path:
    """Writes a table of clips."""
    with (work / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "labels", "fold"))
        writer.writerows(
            (clip.path.resolve(), clip.labels[0] if has_labels else "", int(clip.fold == 4))
            for clip in chosen
        )
    return work / name


labelled_csv = write_manifest("labelled.csv", labelled)
unlabelled_csv = write_manifest("unlabelled.csv", unlabelled, has_labels=False)
test_csv = write_manifest("test.csv", test_clips)
print(f"{len(labelled)} clips with a label, {len(unlabelled)} without, {len(test_clips)} to test on")

# %% [markdown]
# ## The teacher
#
# A classifier behind the default model, which has learned from many recordings what sounds are like.

# %%
earmark.fit(labelled_csv, work / "teacher.onnx", earmark.FitOptions(depth="probe"))
teacher_accuracy = earmark.evaluate(work / "teacher.onnx", test_csv).overall["accuracy"]
print(f"teacher: accuracy {teacher_accuracy:.3f} on {len(test_clips)} clips")

# %% [markdown]
# `earmark teach` runs it once over all recordings and stores what it says. Stored predictions cost nothing
# in training, however large the teacher.

# %%
command = [sys.executable, "-m", "earmark", "teach", labelled_csv, unlabelled_csv]
command += ["--model", work / "teacher.onnx", "--output", work / "teacher.npz"]
print(subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()[-1])

# %% [markdown]
# ## The student
#
# One recipe, twice: with the labels alone, and with the teacher's predictions for all recordings. Both are
# trained for as many steps. Crops of two seconds and 64 bands make steps cheap. The teacher weighs nine
# times as much as the labels, as in EfficientAT's recipes.

# %%
RECIPE = f"""
name = "student"
description = "Tells six everyday sounds apart"
source = "MobileNetV3 at width 0.1 (EfficientAT, arXiv:2211.04772), from random weights"
command = "notebooks/distil.py"
cost = "a minute"
expected = "see the notebook"
task = "single_label"
window_s = 5.0

[model]
architecture = "mn01"
arguments = {{ norm_momentum = 0.1 }}

[front_end]
n_mels = 64
hop_length = 640

[data]
folds = [1]
cache = true

[[data.sources]]
manifests = [{json.dumps(str(labelled_csv))}]

[[data.sources]]
manifests = [{json.dumps(str(test_csv))}]

[augment]
crop_s = 1.92
roll_s = 0.125
gain_db = [-6, 6]

[schedule]
warmup_epochs = 2

[optimizer]
learning_rate = 4e-3
batch_size = 8
epochs = NUM_EPOCHS
channels_last = true

[evaluation]
every_epochs = NUM_EPOCHS
"""
TEACHER = f"""
[[data.sources]]
manifests = [{json.dumps(str(unlabelled_csv))}]
labelled = false

[teacher]
path = {json.dumps(str(work / "teacher.npz"))}
distill_weight = 0.9
label_weight = 0.1
"""


def train(name: str, recipe: str) -> dict[str, float]:
    """Trains a student and evaluates it on the test clips, of which it has learned nothing."""
    path = work / f"{name}.toml"
    path.write_text(recipe, encoding="utf-8")
    trained = earmark.train(path, output=work / name)
    shutil.copy(trained.model_file, work / f"{name}.onnx")
    return earmark.evaluate(work / f"{name}.onnx", test_csv).overall


repeats = round((len(labelled) + len(unlabelled)) / len(labelled))  # for as many steps
alone = train("alone", RECIPE.replace("NUM_EPOCHS", str(EPOCHS * repeats)))
taught = train("taught", RECIPE.replace("NUM_EPOCHS", str(EPOCHS)) + TEACHER)
for name, found in {"labels alone": alone, "with the teacher": taught}.items():
    values = (f"{metric} {found[metric]:.3f}" for metric in ("accuracy", "map_macro", "log_loss"))
    print(f"{name:16} {', '.join(values)}")

# %% [markdown]
# The student of the labels alone knows its 24 clips by heart and is wrong with confidence, as its log loss
# says; the teacher's student has heard six times as many recordings. Accuracy on 48 clips is known to about
# seven points only. [Longer trainings](../docs/results.md) of this network with all labels of 18 classes
# reach 0.79.
#
# ## Compress
#
# A model file in 16 bits has half the size. In 8 bits, most layers compute with integers: the ranges of
# their values are measured on recordings, here some without labels. Layers in which 8 bits would change the
# scores by more than the limit stay as they are.

# %%
student = open_source(str(work / "taught.onnx"))
export(student, work / "taught_fp16.onnx", ExportOptions(precision="fp16"))
recordings = [clip.path for clip in unlabelled[::4]]
exported = export(
    student,
    work / "taught_int8.onnx",
    ExportOptions(precision="int8", max_drop=0.05),
    calibration_clips=find_clips(recordings, student.info),
)
print(exported.quantized.summary())

# %% [markdown]
# ## Size, speed, accuracy
#
# As `earmark report` measures them: accuracy on the test clips with each file, time of a recording in
# turns, as a ratio to the teacher's.

# %%
names = ("teacher", "taught", "taught_fp16", "taught_int8")
settings = [Setting(str(work / f"{name}.onnx"), "onnx", "fp32", 1) for name in names]
entries = compare(settings, test_clips[0].path, test_clips, rounds=5)
rows = {}
print(f"{'model':12} {'size, MB':>8} {'faster':>7} {'accuracy':>8}")
for name, entry in zip(names, entries, strict=True):
    rows[name] = entry.size.file_bytes / 1e6, entry.speed.speedup, entry.scores["accuracy"]
    print(f"{name:12} {rows[name][0]:8.2f} {rows[name][1]:6.1f}x {rows[name][2]:8.3f}")

with picture(work / "sizes.png", COLUMN_MM, 65) as figure:
    axes = figure.subplots()
    for number, (name, (size, _, accuracy)) in enumerate(rows.items()):
        axes.plot(size, accuracy, marker(number), color=colour(number), markersize=5, label=name)
    axes.set(
        xlabel="size of the model file (MB)", ylabel=f"accuracy on {len(test_clips)} clips", ylim=(0, 1.03)
    )
    axes.set(xscale="log", xlim=(0.1, 5))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True)
    axes.legend(loc="lower left")
Image(work / "sizes.png")

# %% [markdown]
# 8 bits bring little here: of a tenth of a million weights not much is left to save, and each layer in 8
# bits brings its ranges and conversions along, so that 16 bits are smaller. `mn04` becomes a third as
# large. Nor is it faster: the float kernels of depthwise convolutions are good already. Plain convolutions
# gain most ([8 bits](../docs/export.md#8-bits)). And much of the time is decoding and the front-end, which
# no compression of the network changes.
#
# The student's file knows its teacher:

# %%
info = read_info(work / "taught_int8.onnx")
print(f"{info.name}: {info.precision}, {len(info.labels)} labels, {info.front_end.n_mels} mel bands")
print(json.dumps(info.provenance.get("teachers", info.provenance), indent=1, default=str)[:400])

# %% [markdown]
# To run it elsewhere: [export](../docs/export.md) to other runtimes, and [engines](../docs/engines.md).
