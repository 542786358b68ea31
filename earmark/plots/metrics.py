"""Metrics of an evaluation: a bar for each class, the confusion matrix, and reliability curves.

Conventions: metrics and shares lie in [0, 1]; a class is named by its label.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.plots.style import (
    COLUMN_MM,
    LINE_MM,
    MM,
    PAGE_MM,
    QUIET_COLOUR,
    SHARE_MAP,
    TEXT_PT,
    colour,
    longest,
    marker,
    one_line,
    picture,
)

MOST_BARS = 60
"""Of more classes, the lowest and the highest have a bar."""
CELLS_MM = (2.45, 7.0)
"""Width of a cell of the confusion matrix: with a name beside it, and with a number in it."""
BAR_MM = 18
"""Width of the bar of colours."""
LOWEST_MM = 60.0
LETTER_MM, FEWEST_LETTERS = 1.4, 12
Curve = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]


def plot_classes(
    values: Mapping[str, float],
    metric: str,
    path: str | PathLike[str],
    clips: Mapping[str, int] | None = None,
    width_mm: float = COLUMN_MM,
) -> None:
    """Draws a metric of each class as a bar, the highest on top, and its mean as a line.

    Args:
        values: Label -> value in [0, 1], at least one.
        metric: Name of the metric.
        path: Of the plot: png, svg or pdf.
        clips: Label -> number of clips, written behind the label.
        width_mm: Width of the picture in mm, 90 to 180.

    Raises:
        ModelError: If the suffix is another one.
        OSError: If it cannot be written.
    """
    ordered = sorted(values, key=lambda label: values[label])
    half = MOST_BARS // 2
    omitted = len(ordered) - MOST_BARS if len(ordered) > MOST_BARS else 0
    shown = [*ordered[:half], *ordered[-half:]] if omitted else ordered
    places = [number + (number >= half and omitted > 0) for number in range(len(shown))]
    most = longest(shown, width_mm)
    names = [one_line(label, most) + (f" ({clips[label]})" if clips else "") for label in shown]
    with picture(path, width_mm, max(32.0, 16 + (len(shown) + bool(omitted)) * LINE_MM * 1.15)) as figure:
        axes: Any = figure.subplots()
        axes.barh(places, [values[label] for label in shown], height=0.75, color=colour(0))
        mean = float(np.mean(list(values.values())))
        axes.axvline(mean, color="black", linewidth=0.8, linestyle=(0, (4, 2)))
        axes.set_title(f"mean of {len(values)} classes (dashed): {mean:.3f}", size=TEXT_PT, loc="right")
        axes.set_yticks(places, names)
        if omitted:
            text = f"… {omitted} more class{'es'[: 2 * (omitted > 1)]} …"
            paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            look: dict[str, Any] = {"ha": "center", "va": "center", "color": QUIET_COLOUR, "bbox": paper}
            axes.text(0.5, half, text, size=TEXT_PT, **look)
        axes.set(xlim=(0, 1), ylim=(-0.7, places[-1] + 0.7), xlabel=f"{metric} (0 to 1)")
        axes.set_ylabel("class (clips)" if clips else "class")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=True, axis="x")


def plot_confusion(
    table: NDArray[np.int64],
    rows: Sequence[str],
    columns: Sequence[str],
    path: str | PathLike[str],
) -> None:
    """Draws a confusion matrix as shares of each row, with the numbers of clips where they fit.

    The picture is as wide as a column of a paper, or as a page where the classes need it. Where even that is
    too narrow for all names, every second class has one, or every third, and so on.

    Args:
        table: Number of clips, shape (row, column).
        rows: Labels of the true classes.
        columns: Labels of the predicted classes.
        path: Of the plot: png, svg or pdf.

    Raises:
        ModelError: If the suffix is another one.
        OSError: If it cannot be written.
    """
    left_mm = PAGE_MM - BAR_MM - 9 - CELLS_MM[0] * len(columns)
    most = min(longest([*rows, *columns], COLUMN_MM), max(FEWEST_LETTERS, int(left_mm / LETTER_MM)))
    names_mm = 9 + most * LETTER_MM
    needed_mm = names_mm + BAR_MM + CELLS_MM[1] * len(columns)
    width_mm = COLUMN_MM if needed_mm <= COLUMN_MM else PAGE_MM
    cell_mm = min(9.0, (width_mm - names_mm - BAR_MM) / len(columns), PAGE_MM / len(rows))
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    with picture(path, width_mm, max(LOWEST_MM, names_mm + 6 + cell_mm * len(rows))) as figure:
        axes: Any = figure.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap=SHARE_MAP)
        every = max(1, math.ceil(CELLS_MM[0] / cell_mm))
        note = "" if every == 1 else f" (1 of {every} named)"
        axes.set(xlabel=f"predicted class{note}", ylabel=f"true class{note}")
        _name_classes(axes.set_xticks, columns, every, most, rotation=90)
        _name_classes(axes.set_yticks, rows, every, most)
        if cell_mm >= CELLS_MM[1] * 0.9:
            _write_counts(axes, table, shares)
        axes.spines[:].set_visible(True)
        bar = figure.colorbar(image, label="share of row (0 to 1)", shrink=0.8, aspect=25)
        bar.outline.set_linewidth(0.6)
        figure.draw_without_rendering()  # cells are squares, so the height follows from the width
        height = axes.get_tightbbox().height / figure.dpi
        figure.set_figheight(max(LOWEST_MM * MM, height + 3 * MM))


def _name_classes(ticks: Any, labels: Sequence[str], every: int, most: int, **look: Any) -> None:
    named = range(0, len(labels), every)
    ticks(named, [one_line(labels[index], most) for index in named], **look)


def _write_counts(axes: Any, table: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(table), strict=True):
        ink = "white" if shares[row, column] > 0.55 else "black"
        look = {"size": TEXT_PT, "color": ink, "ha": "center", "va": "center"}
        axes.text(column, row, f"{table[row, column]}", **look)


def plot_reliability(
    curves: Mapping[str, Curve],
    path: str | PathLike[str],
    x_label: str = "highest score",
    y_label: str = "clips",
) -> None:
    """Draws reliability curves with intervals of 95 %, over histograms of the scores.

    Source of the intervals: Wilson (1927), from the number of scores in each bin.

    Args:
        curves: Name -> mean score, accuracy and number of scores of each bin, each of shape (bin,).
        path: Of the plot: png, svg or pdf.
        x_label: Kind of the scores.
        y_label: Kind of what is counted.

    Raises:
        ModelError: If the suffix is another one.
        OSError: If it cannot be written.
    """
    with picture(path, COLUMN_MM, 100) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        diagonal = {"color": QUIET_COLOUR, "linewidth": 0.8, "linestyle": (0, (4, 2))}
        upper.plot((0, 1), (0, 1), label="calibrated", **diagonal)
        for number, (name, (confidence, accuracy, clips)) in enumerate(curves.items()):
            filled = clips > 0
            limits = _wilson(accuracy[filled], clips[filled])
            look = {"color": colour(number), "label": name or "measured"}
            mark = {"fmt": marker(number), "markersize": 4, "capsize": 1.5, "elinewidth": 0.7}
            upper.errorbar(confidence[filled], accuracy[filled], yerr=limits, **look, **mark)
            middles, width = (np.arange(len(clips)) + 0.5) / len(clips), 0.9 / len(clips) / len(curves)
            lower.bar(middles + (number - (len(curves) - 1) / 2) * width, clips, width=width, **look)
        upper.set(ylabel="share that is right (0 to 1)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        lower.set(xlabel=f"{x_label} (0 to 1)", ylabel=f"number of {y_label}")
        if len(curves) > 1 and any(clips.any() for _, _, clips in curves.values()):
            lower.set(yscale="log")
            lower.yaxis.set_major_formatter("{x:g}")
        figure.legend(*upper.get_legend_handles_labels(), loc="outside upper center", ncols=3)
        for axes in (upper, lower):
            axes.grid(visible=True)


def _wilson(
    share: NDArray[np.float64], count: NDArray[np.int64], z: float = 1.96
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The distances from a share down and up to the limits of its interval."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return np.maximum(0.0, share - (middle - half)), np.maximum(0.0, middle + half - share)
