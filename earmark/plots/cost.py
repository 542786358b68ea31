"""Scores of models against their size, cost, memory or time.

Conventions: costs are on logarithmic axes. The Pareto front is the models that no other surpasses at the same
cost or less; they have names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from earmark.errors import ModelError
from earmark.plots.names import Names
from earmark.plots.style import (
    LINE_MM,
    MM,
    PAGE_MM,
    QUIET_COLOUR,
    TEXT_PT,
    colour,
    dark,
    marker,
    one_line,
    picture,
)

if TYPE_CHECKING:
    from earmark.hub.registry import PublishedModel

Points = dict[str, tuple[float, float]]

SCORE = "mAP"
AXES = (
    ("params", 1e6, "parameters (millions)"),
    ("macs", 1e9, "multiply-accumulates for 10 s (billions)"),
    ("peak_memory_kb", 1e3, "peak memory of feature maps for 10 s in 16 bits (MB)"),
)
PANEL_MM, LEGEND_COLUMN_MM = 62.0, 30.0
TRADEOFF_MM = 80.0
MOST_LETTERS = 60
RING: dict[str, Any] = {"s": 70, "facecolors": "none", "edgecolors": "black", "linewidths": 1.0}
"""Look of the mark around a model."""


def plot_models(
    models: Iterable[PublishedModel],
    path: str | PathLike[str],
    compared: Iterable[PublishedModel] = (),
    highlighted: Sequence[str] = (),
    width_mm: float = PAGE_MM,
) -> None:
    """Draws the published score of each model against its size, cost and memory.

    Args:
        models: Those without a published score are left out.
        path: Of the plot: png, svg or pdf.
        compared: Other published networks, drawn as crosses.
        highlighted: Names of models to mark and to name in any case.
        width_mm: Width of the picture in mm, 90 to 180.

    Raises:
        ModelError: If the suffix is another one, or a highlighted model has no published score.
        OSError: If it cannot be written.
    """
    shown = {known.name: known for known in models if SCORE in known.scores}
    others = {known.name: known for known in compared}
    if missing := [name for name in highlighted if name not in shown | others]:
        raise ModelError(f"{missing[0]}: no published {SCORE}, so it cannot be plotted; see earmark models")
    columns = int(width_mm / LEGEND_COLUMN_MM)
    legend_mm = LINE_MM * 1.5 * -(-(len(_families(shown.values())) + 1) // columns)
    with picture(path, width_mm, 2 + legend_mm + PANEL_MM * len(AXES)) as figure:
        panels = figure.subplots(len(AXES), 1)
        for axes, (field, unit, label) in zip(panels, AXES, strict=True):
            for number, (family, members) in enumerate(_families(shown.values()).items()):
                points = _points(members, field, unit)
                _scatter(axes, points, colour(number), marker(number), family)
                _join(axes, _front(points), colour(number))
            _scatter(axes, _points(others.values(), field, unit), QUIET_COLOUR, "x", "other systems")
            _cost_axes(axes, label, f"published {SCORE} (0 to 1)")
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside upper center", ncols=columns)
        figure.draw_without_rendering()  # from now on names have a size
        for axes, (field, unit, _) in zip(panels, AXES, strict=True):
            families = [_points(members, field, unit) for members in _families(shown.values()).values()]
            _name(axes, families, _points(others.values(), field, unit), highlighted)


def _families(models: Iterable[PublishedModel]) -> dict[str, list[PublishedModel]]:
    families: dict[str, list[PublishedModel]] = {}
    for known in models:
        families.setdefault(known.architecture.rstrip("0123456789"), []).append(known)
    return families


def _points(models: Iterable[PublishedModel], field: str, unit: float) -> Points:
    """Name -> cost and score, of the models whose cost is known."""
    return {
        known.name: (getattr(known, field) / unit, known.scores[SCORE])
        for known in models
        if getattr(known, field)
    }


def _front(points: Mapping[str, tuple[float, float]]) -> Points:
    """The Pareto front."""
    front: Points = {}
    highest = -np.inf
    for name, (cost, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > highest:
            front[name], highest = (cost, score), score
    return front


def _scatter(axes: Any, points: Points, color: str, shape: str, label: str) -> None:
    if points:
        look = {"linewidths": 0.8} if shape == "x" else {"linewidths": 0.3, "edgecolors": "white"}
        axes.scatter(
            *zip(*points.values(), strict=True), label=label, s=14, color=color, marker=shape, **look
        )


def _join(axes: Any, front: Points, color: str) -> None:
    if front:
        axes.plot(*zip(*front.values(), strict=True), linewidth=0.7, color=color, zorder=0)


def _cost_axes(axes: Any, cost: str, score: str) -> None:
    axes.margins(x=0.08, y=0.12)
    axes.set(xscale="log", xlabel=cost, ylabel=score)
    decades = np.log10(axes.get_xlim()[1] / axes.get_xlim()[0])
    wide = axes.figure.get_figwidth() >= PAGE_MM * 0.7 * MM
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide or decades < 2 else (1,), numticks=100))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True)


def _name(axes: Any, families: Sequence[Points], others: Points, highlighted: Sequence[str]) -> None:
    """Names highlighted models, then the fronts, then other systems, as long as there is space."""
    everything = {name: point for points in (*families, others) for name, point in points.items()}
    asked = {name: everything[name] for name in highlighted if name in everything}
    if asked:
        axes.scatter(*zip(*asked.values(), strict=True), in_layout=False, **RING)
    lines = [np.array(list(_front(points).values())) for points in families]
    colors = {name: dark(colour(number)) for number, points in enumerate(families) for name in points}
    colors |= dict.fromkeys(others, dark(QUIET_COLOUR))
    names = Names(axes, np.array(list(everything.values())), lines)
    names.place(list(asked.items()), always=True, colors=colors)
    fronts = {name: point for points in families for name, point in _front(points).items()}
    best_first = sorted(fronts.items(), key=lambda item: -item[1][1])
    for named in (best_first, others.items()):
        names.place([(name, point) for name, point in named if name not in asked], colors=colors)


def plot_tradeoff(
    points: Sequence[tuple[str, float, float]],
    chosen: int,
    score: str,
    path: str | PathLike[str],
    width_mm: float = PAGE_MM,
) -> None:
    """Draws scores against the time of an audio file, and names the Pareto front below.

    Args:
        points: Name, milliseconds, and score.
        chosen: Index of the point to mark.
        score: Name of the score.
        path: Of the plot: png, svg or pdf.
        width_mm: Width of the picture in mm, 90 to 180.

    Raises:
        ModelError: If the suffix is another one.
        OSError: If it cannot be written.
    """
    places = {str(index): (cost, value) for index, (_, cost, value) in enumerate(points)}
    front = _front(places)
    named = list(dict.fromkeys([*front, str(chosen)]))
    numbers = {key: str(number) for number, key in enumerate(named, start=1)}
    rows = [f"{numbers[key]}  {one_line(points[int(key)][0], MOST_LETTERS)}" for key in named]
    with picture(path, width_mm, TRADEOFF_MM + LINE_MM * 1.25 * (len(rows) + 2)) as figure:
        axes = figure.subplots()
        _scatter(axes, places, colour(0), marker(0), "setting")
        _join(axes, front, colour(0))
        axes.scatter(*places[str(chosen)], label=f"recommended: {numbers[str(chosen)]}", **RING)
        _cost_axes(axes, "time for the file (ms)", score)
        axes.legend(loc="lower right")
        figure.supxlabel("\n".join(rows), size=TEXT_PT, x=0.02, ha="left")
        figure.draw_without_rendering()
        names = Names(axes, np.array(list(places.values())), [np.array(list(front.values()))])
        names.place([(numbers[key], places[key]) for key in named], always=True)
