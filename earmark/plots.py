"""Pictures of the table of published models: score against parameters, score against operations.

Conventions: matplotlib is the extra "plot"; nothing of it is touched but the figure that is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from earmark.errors import ModelError
from earmark.weights import Published

SCORE = "mAP"
FORMATS = (".png", ".svg", ".pdf")
AXES = (("params", 1e6, "parameters (millions)"), ("macs", 1e9, "multiply-accumulates, 10 s (billions)"))


def plot_models(models: Iterable[Published], path: str | PathLike[str]) -> None:
    """Draws the published score of each model against its size and its cost, on logarithmic axes.

    Args:
        models: Those without the score are left out.
        path: Of the picture: png, svg or pdf.

    Raises:
        ModelError: If the file's name ends in none of these.
        OSError: If it cannot be written.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ModelError(f"{Path(path)}: a picture's name ends in one of {', '.join(FORMATS)}")
    shown = [known for known in models if SCORE in known.scores]
    figure = Figure(figsize=(13, 6), layout="constrained")
    for axes, (field, unit, label) in zip(figure.subplots(1, 2), AXES, strict=True):
        _panel(axes, [known for known in shown if getattr(known, field)], field, unit)
        axes.margins(x=0.12)
        axes.set(xscale="log", xlabel=label, ylabel=f"published {SCORE}")
        axes.grid(visible=True, which="both", alpha=0.2)
    figure.axes[0].legend(loc="lower right")
    figure.savefig(path)


def _panel(axes: Any, models: list[Published], field: str, unit: float) -> None:
    families: dict[str, list[Published]] = {}
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


def _front(points: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Those that no other surpasses at the same cost or less: the others' names would cover each other."""
    front: dict[str, tuple[float, float]] = {}
    highest = 0.0
    for name, (cost, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if score > highest:
            front[name], highest = (cost, score), score
    return front
