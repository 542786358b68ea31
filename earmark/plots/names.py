"""Names beside points, placed so that none covers another, a point or a line.

Conventions: the layout of the figure is final, as after ``figure.draw_without_rendering()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from earmark.plots.style import QUIET_COLOUR, TEXT_PT

Floats = NDArray[np.float64]
Place = tuple[tuple[int, int], float]
"""Direction from the point, -1, 0 or 1 to the right and up, and distance in points."""

PLACES: tuple[Place, ...] = tuple(
    (direction, distance)
    for distance in (4, 9, 15, 22, 30, 40)
    for direction in ((-1, 1), (1, -1), (1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
)
"""Where a name may be, the best place first."""
LEADER_FROM_PT = 9
"""Names at least this far from their points are joined to them by a line."""
MARKER_PT, LINE_PT = 3.0, 0.8
"""What a name leaves free around the middle of a marker and of a line."""
SAMPLES = 60
"""Points that stand for a line between two points."""


class Names:
    """The names of one plot.

    Args:
        axes: Of matplotlib.
        points: Points that are not to be covered, shape (point, 2), in x and y of the axes.
        lines: Lines that are not to be covered, each of shape (point, 2).
    """

    def __init__(self, axes: Any, points: Floats, lines: Iterable[Floats] = ()) -> None:
        self._axes, self._scale = axes, axes.figure.dpi / 72
        self._points = self._pixels(points)
        parts = [_sampled(line) for line in map(self._pixels, lines) if len(line) > 1]
        self._lines = np.concatenate([np.empty((0, 2)), *parts])
        self._boxes: list[Bbox] = []

    def place(
        self,
        named: Sequence[tuple[str, tuple[float, float]]],
        always: bool = False,
        colors: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes names; one without a free place is left out.

        Args:
            named: Names with the x and y of their points, the most important first.
            always: Write a name even if no place is free.
            colors: Name -> its colour; of others: black.
        """
        for name, point in named:
            at, size = self._pixels(np.array([point]))[0], self._size(name)
            boxes = [_box(at, size, direction, distance * self._scale) for direction, distance in PLACES]
            leaders = [
                _sampled(np.stack([at, _nearest(box, at)])) if place[1] >= LEADER_FROM_PT else at[None]
                for box, place in zip(boxes, PLACES, strict=True)
            ]
            hits = [self._hits(box, leader) for box, leader in zip(boxes, leaders, strict=True)]
            best = int(np.argmin(hits))
            if always or not hits[best]:
                self._write(name, point, PLACES[best], (colors or {}).get(name, "black"))
                self._boxes.append(boxes[best])
                self._lines = np.concatenate([self._lines, leaders[best]])

    def _pixels(self, points: Floats) -> Floats:
        return np.reshape(self._axes.transData.transform(np.reshape(points, (-1, 2))), (-1, 2))

    def _size(self, name: str) -> tuple[float, float]:
        """Width and height in pixels."""
        text = self._axes.text(0, 0, name, size=TEXT_PT, in_layout=False)
        box = text.get_window_extent()
        text.remove()
        return float(box.width), float(box.height)

    def _hits(self, box: Bbox, leader: Floats) -> int:
        """How much a name and its leader cover; leaving the axes counts as one."""
        frame = self._axes.get_window_extent()
        outside = not (
            frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        )
        crossed = sum(_inside(other, leader, 0) for other in self._boxes)
        points = _inside(box, self._points, MARKER_PT * self._scale)
        lines = _inside(box, self._lines, LINE_PT * self._scale)
        return points + lines + crossed + 100 * box.count_overlaps(self._boxes) + outside

    def _write(self, name: str, point: tuple[float, float], place: Place, color: Any) -> None:
        (across, up), distance = place
        line = {"arrowstyle": "-", "color": QUIET_COLOUR, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
        note = self._axes.annotate(
            name,
            point,
            xytext=(across * distance, up * distance),
            textcoords="offset points",
            ha=("center", "left", "right")[across],
            va=("center", "bottom", "top")[up],
            size=TEXT_PT,
            color=color,
            arrowprops=line | {"relpos": (_START[across], _START[up])}
            if distance >= LEADER_FROM_PT
            else None,
        )
        note.set_in_layout(False)


_START = (0.5, 0.0, 1.0)
"""Where a leader starts in its name, by the direction (as the last item is -1's)."""


def _box(at: Floats, size: tuple[float, float], direction: tuple[int, int], distance: float) -> Bbox:
    """The place of a name in pixels: in a direction of its point, at a distance from it."""
    left, bottom = (
        at[axis] + direction[axis] * distance - size[axis] * _START[direction[axis]] for axis in (0, 1)
    )
    return Bbox.from_bounds(left, bottom, *size)


def _nearest(box: Bbox, at: Floats) -> Floats:
    """The point of a box that is nearest to another point."""
    return np.clip(at, box.min, box.max)


def _sampled(line: Floats) -> Floats:
    """Points along a line, shape (point, 2)."""
    steps = np.linspace(0, 1, SAMPLES)[:, None]
    parts = [start + steps * (end - start) for start, end in pairwise(line)]
    return np.concatenate(parts)


def _inside(box: Bbox, points: Floats, free: float) -> int:
    """How many points lie in a box, or nearer to it than is to be left free."""
    near = (points > np.subtract(box.min, free)) & (points < np.add(box.max, free))
    return int(near.all(1).sum())
