"""Plots of models by score, size and cost, and of an evaluation by class, confusion and reliability.

Conventions: matplotlib is the extra "plot"; no global state of it changes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.hub.registry import PublishedModel
from earmark.model_file.atomic import write_atomically

SCORE = "mAP"
MOST_NAMES = 100
"""Names of more classes than these are left out."""
FORMATS = (".png", ".svg", ".pdf")
AXES = (
    ("params", 1e6, "parameters (millions)"),
    ("macs", 1e9, "multiply-accumulates, 10 s (billions)"),
    ("peak_memory_kb", 1e3, "peak memory of feature maps, 10 s, 16 bits (MB)"),
)


def plot_models(
    models: Iterable[PublishedModel], path: str | PathLike[str], compared: Iterable[PublishedModel] = ()
) -> None:
    """Draws the published score of each model against its size, cost and memory, on logarithmic axes.

    Args:
        models: Those without a published score are left out.
        path: Of the plot: png, svg or pdf.
        compared: Other published networks, drawn as crosses.

    Raises:
        ModelError: If the suffix is another one.
        OSError: If it cannot be written.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ModelError(f"{Path(path)}: a plot must be a file of {', '.join(FORMATS)}")
    shown = [known for known in models if SCORE in known.scores]
    others = list(compared)
    figure = Figure(figsize=(19, 6), layout="constrained")
    for axes, (field, unit, label) in zip(figure.subplots(1, len(AXES)), AXES, strict=True):
        _panel(axes, [known for known in shown if getattr(known, field)], field, unit)
        _crosses(axes, [known for known in others if getattr(known, field)], field, unit)
        axes.margins(x=0.15)
        axes.set(xscale="log", xlabel=label, ylabel=f"published {SCORE}")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=MOST_NAMES))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(visible=True, which="both", alpha=0.2)
    figure.axes[0].legend(loc="lower right")
    _save(figure, path)


def _save(figure: Figure, path: str | PathLike[str]) -> None:
    file = io.BytesIO()
    figure.savefig(file, format=Path(path).suffix[1:])
    write_atomically(path, file.getvalue())


def _panel(axes: Any, models: list[PublishedModel], field: str, unit: float) -> None:
    families: dict[str, list[PublishedModel]] = {}
    for known in models:
        families.setdefault(known.architecture.rstrip("0123456789"), []).append(known)
    for number, (family, members) in enumerate(families.items()):
        points = {known.name: (getattr(known, field) / unit, known.scores[SCORE]) for known in members}
        axes.scatter(*zip(*points.values(), strict=True), label=family, s=16, color=f"C{number}")
        front = _front(points)
        axes.plot(*zip(*front.values(), strict=True), linewidth=0.8, color=f"C{number}")
        place, side = ((4, -8), "left") if number == 0 else ((-4, 4), "right")
        for name, point in front.items():
            axes.annotate(name, point, xytext=place, textcoords="offset points", ha=side, fontsize=7)


def _crosses(axes: Any, models: list[PublishedModel], field: str, unit: float) -> None:
    """Draws networks to compare with; names are above and below in turn, so as not to overlap."""
    ordered = sorted(models, key=lambda known: -known.scores[SCORE])
    right = max((getattr(known, field) for known in models), default=0)
    for number, known in enumerate(ordered):
        value = getattr(known, field)
        point = (value / unit, known.scores[SCORE])
        x, side = (-6, "right") if value == right else (6, "left")
        place = {"xytext": (x, -8 if number % 2 else 3), "textcoords": "offset points", "ha": side}
        axes.scatter(*point, s=24, color="0.35", marker="x")
        axes.annotate(known.name, point, fontsize=7, color="0.35", **place)


def _front(points: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The Pareto front: models that no other surpasses at the same cost or less."""
    front: dict[str, tuple[float, float]] = {}
    highest = 0.0
    for name, (cost, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > highest:
            front[name], highest = (cost, score), score
    return front


def plot_tradeoff(
    points: Sequence[tuple[str, float, float]], chosen: int, score: str, path: str | PathLike[str]
) -> None:
    """Draws scores against the time of an audio file; a line joins the Pareto front.

    Args:
        points: Name, milliseconds, and score.
        chosen: Index of the point to mark.
        score: Name of the score.
        path: Of the plot.
    """
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    marks = "os^Dv*PX"
    for number, (name, cost, value) in enumerate(points):
        mark = marks[number // 10 % len(marks)]
        axes.scatter([cost], [value], label=name, s=36, color=f"C{number % 10}", marker=mark)
    front = _front({name: (cost, value) for name, cost, value in points})
    axes.plot(*zip(*front.values(), strict=True), linewidth=0.8, color="0.5", zorder=0)
    _, cost, value = points[chosen]
    axes.scatter([cost], [value], s=160, facecolors="none", edgecolors="black", label="recommended")
    axes.set(xscale="log", xlabel="milliseconds for the file", ylabel=score)
    axes.grid(visible=True, which="both", alpha=0.2)
    figure.legend(loc="outside right upper", fontsize=8)
    _save(figure, path)


def plot_classes(values: Mapping[str, float], metric: str, path: str | PathLike[str]) -> None:
    """Draws a metric of each class as a bar, the highest on top.

    Args:
        values: Label -> value in [0, 1].
        metric: Name of the metric.
        path: Of the plot.
    """
    ordered = sorted(values.items(), key=lambda item: item[1])
    figure = Figure(figsize=(8, 1.2 + min(len(ordered), MOST_NAMES) * 0.22), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(ordered)), [value for _, value in ordered], height=0.8)
    axes.set(xlim=(0, 1), xlabel=metric, ylim=(-0.6, len(ordered) - 0.4))
    _name_classes(axes.set_yticks, [label for label, _ in ordered])
    axes.grid(visible=True, axis="x", alpha=0.2)
    _save(figure, path)


def plot_confusion(
    table: NDArray[np.int64], rows: Sequence[str], columns: Sequence[str], path: str | PathLike[str]
) -> None:
    """Draws a confusion matrix, as shares of each row.

    Args:
        table: Number of clips, shape (row, column).
        rows: Labels of the true classes.
        columns: Labels of the predicted classes.
        path: Of the plot.
    """
    width, height = (2.5 + 0.28 * min(len(labels), MOST_NAMES) for labels in (columns, rows))
    figure = Figure(figsize=(width + 1, height), layout="constrained")
    axes = figure.subplots()
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set(xlabel="predicted", ylabel="true")
    _name_classes(axes.set_xticks, columns, rotation=90)
    _name_classes(axes.set_yticks, rows)
    figure.colorbar(image, label="share of the class's clips", shrink=0.7)
    _save(figure, path)


def plot_reliability(
    curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]],
    path: str | PathLike[str],
    x_label: str = "highest score",
    y_label: str = "clips",
) -> None:
    """Draws reliability curves over histograms of the scores.

    Args:
        curves: Name -> mean score, accuracy and number of scores of each bin, each of shape (bin,). A legend
            names several.
        path: Of the plot.
        x_label: Kind of the scores.
        y_label: Kind of what is counted.
    """
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), linewidth=0.8, color="0.6")
    for number, (name, (confidence, accuracy, clips)) in enumerate(curves.items()):
        filled, width = clips > 0, 0.9 / len(clips) / len(curves)
        look = {"color": f"C{number}", "label": name}
        upper.plot(confidence[filled], accuracy[filled], marker="o", markersize=4, **look)
        middles = (np.arange(len(clips)) + 0.5) / len(clips)
        lower.bar(middles + (number - (len(curves) - 1) / 2) * width, clips, width=width, **look)
    upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    lower.set(xlabel=x_label, ylabel=y_label)
    if len(curves) > 1:
        upper.legend(loc="upper left")
        lower.set(yscale="log")
    for axes in (upper, lower):
        axes.grid(visible=True, alpha=0.2)
    _save(figure, path)


def _name_classes(ticks: Any, labels: Sequence[str], **style: Any) -> None:
    if len(labels) <= MOST_NAMES:
        ticks(range(len(labels)), labels, fontsize=7, **style)
    else:  # unreadable
        ticks([])
