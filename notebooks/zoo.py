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
# # The zoo compared
#
# Which network for which budget? All published models of the table with parameters, operations and score,
# and the time that some of them take on this machine. Time does not depend on the values of weights, so the
# networks here have random ones: nothing is downloaded, and nothing they say is of use. Scores are those
# that the authors published; the default model's is measured.
#
# Needs `pip install 'earmark[plot]'`, no PyTorch and no network.

# %% tags=["parameters"]
MODELS = ("mn01_as", "mn04_as", "mn10_as", "dymn04_as", "dymn10_as", "cnn6_60k_focal")
SECONDS = 5.0
ROUNDS = 7
WORK = "work/zoo"

# %%
import time
from pathlib import Path
from statistics import median

import numpy as np
from IPython.display import Image
from matplotlib.ticker import LogLocator, NullFormatter

import earmark
from earmark.features.log_mel import LogMel
from earmark.hub.registry import PublishedModel, compared, published
from earmark.hub.skeleton import read_skeleton
from earmark.model_file.onnx_file import attach_info
from earmark.plots.cost import plot_models
from earmark.plots.style import COLUMN_MM, QUIET_COLOUR, colour, picture

work = Path(WORK)
work.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The table
#
# A name stands for weights, with architecture, front-end, labels, licence and published score. Where
# several weights have the same network, the best is shown.

# %%
tagging = [known for known in published().values() if known.labels and known.macs and known.scores]
best: dict[tuple[int, int], PublishedModel] = {}
for known in sorted(tagging, key=lambda known: max(known.scores.values())):
    best[known.params, known.macs] = known
print(f"{len(published())} weights, {len(best)} networks with labels and a score")
print(f"{'name':17} {'parameters, M':>13} {'MACs of 10 s, G':>15}  score")
for known in sorted(best.values(), key=lambda known: known.macs):
    metric = "mAP" if "mAP" in known.scores else "accuracy"
    score = f"{metric} {known.scores[metric]:.3f} on {known.scored_on}"
    print(f"{known.name:17} {known.params / 1e6:13.2f} {known.macs / 1e9:15.3f}  {score}")

# %% [markdown]
# `mAP` on AudioSet and accuracy on scenes are not to be compared with each other. For AudioSet:

# %%
plot_models(published().values(), work / "models.png", compared().values())
Image(work / "models.png")

# %% [markdown]
# From `mn01` to `mn10`, forty times the parameters gain 0.17 mAP; from `mn10` to `mn40`, fourteen times
# gain 0.016. Dynamic networks (`dymn`) are better at the same number of operations, with more parameters.
# But operations are not time.
#
# ## Random weights
#
# The graphs of all published networks ship with earmark, without weights. With any that fit, they are model
# files.

# %%
rng = np.random.default_rng(0)


def random_model(name: str) -> Path:
    """A model file of a published network with random weights."""
    known = published()[name]
    skeleton = read_skeleton(known)
    tensors = {}
    for tensor, (kind, shape) in skeleton.tensors.items():
        values = np.ones(shape) if tensor.endswith("running_var") else rng.normal(0, 0.05, shape)
        tensors[tensor] = values.astype(kind)
    path = work / f"random_{name}.onnx"
    path.write_bytes(attach_info(skeleton.fill(tensors), known.model_info(skeleton.embedding_size)))
    return path


files = {name: random_model(name) for name in MODELS}
taggers = {name: earmark.load(path, threads=1) for name, path in files.items()}
taggers[earmark.load().info.name] = earmark.load(threads=1)
print({name: f"{path.stat().st_size / 1e6:.1f} MB" for name, path in files.items()})

# %% [markdown]
# ## Time, as a ratio
#
# Milliseconds say much about a machine and what else it does; ratios within a round say more about the
# networks. They take turns with the same five seconds of noise, from samples to scores on one thread, and
# each round's times are divided by that of the reference. What the front-end alone takes is part of every
# one.


# %%
def seconds_of(tag, samples: np.ndarray, rate: int) -> float:
    """Processor time of one call, which other programs disturb less than the clock's."""
    start = time.process_time()
    tag(samples, rate)
    return time.process_time() - start


REFERENCE = MODELS[0] if "mn10_as" not in taggers else "mn10_as"
noise = {
    name: rng.uniform(-0.3, 0.3, round(SECONDS * tagger.info.front_end.sample_rate)).astype(np.float32)
    for name, tagger in taggers.items()
}
rounds = []
for number in range(ROUNDS + 1):
    order = list(taggers) if number % 2 else list(taggers)[::-1]
    times = {
        name: seconds_of(taggers[name].tag, noise[name], taggers[name].info.front_end.sample_rate)
        for name in order
    }
    rounds.append({name: own / times[REFERENCE] for name, own in times.items()})
ratios = {name: median(one[name] for one in rounds[1:]) for name in taggers}  # the first round warms up

front_end = taggers[REFERENCE].info.front_end
log_mel, samples = LogMel(front_end), noise[REFERENCE]
alone = []
for _ in range(ROUNDS):
    start = time.process_time()
    log_mel(samples)
    middle = time.process_time()
    taggers[REFERENCE].tag(samples, front_end.sample_rate)
    alone.append((middle - start) / (time.process_time() - middle))
front_end_share = median(alone)
for name, ratio in sorted(ratios.items(), key=lambda item: item[1]):
    print(f"{name:15} {ratio:5.2f} x the time of {REFERENCE}")
print(f"the front-end alone {front_end_share:.2f} x")

# %% [markdown]
# ## Operations are not time
#
# If time followed operations, all points would lie on the dashed line. Small networks lie above it: what
# does not shrink with the network, such as the front-end and the overhead of each layer, is most of their
# time, so a thirtieth of the operations is not a thirtieth of the time. Dynamic convolutions and the large
# feature maps of the Cnn6 cost more than their operations say, too.

# %%
macs = {name: published()[name].macs for name in MODELS}
with picture(work / "time.png", COLUMN_MM, 75) as figure:
    axes = figure.subplots()
    for number, name in enumerate(MODELS):
        x = macs[name] / macs[REFERENCE] if REFERENCE in macs else macs[name]
        axes.plot(x, ratios[name], "o", color=colour(number), markersize=4)
        place, side = ((4, 3), "left") if name.startswith("mn") else ((-5, 2), "right")
        axes.annotate(name, (x, ratios[name]), xytext=place, textcoords="offset points", ha=side, size=7)
    line = np.geomspace(0.02, 2, 20)
    axes.plot(line, line, color=QUIET_COLOUR, linestyle="--", linewidth=0.7, zorder=0)
    axes.axhline(front_end_share, color=QUIET_COLOUR, linestyle=":", linewidth=0.7, zorder=0)
    axes.annotate(
        "front-end alone", (0.02, front_end_share), xytext=(0, 3), textcoords="offset points", size=7
    )
    axes.set(xscale="log", yscale="log", xlim=(0.018, 2.5))
    axes.set(xlabel=f"operations / {REFERENCE}", ylabel=f"processor time / {REFERENCE}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True)
Image(work / "time.png")

# %% [markdown]
# ## Which one
#
# - On a laptop's CPU, take the default model, `mn04_as` or `mn10_as`: all are many times faster than the
#   sound.
# - `dymn04_as` is more accurate than `mn04_as` with as many operations, but see what it takes in time.
# - Below a quarter of a million parameters there are `mn01_as` and, for scenes, the Cnn6 of 60 thousand.
# - On an archive, decoding and front-end are a large part of the bill: see
#   [performance](../docs/performance.md).
#
# `earmark pull mn10_as` fetches weights, `earmark complexity` counts operations, and `earmark bench`
# measures speed on your machine: [models](../docs/models.md), [complexity](../docs/complexity.md),
# [results](../docs/results.md).
