"""Scores of windows, which may overlap -> scores over time.

Conventions: times are seconds from the start of the recording; windows are in order of time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.events.event import ROUNDING_S, ScoreSeries

MAX_OVERLAP = 10
"""Default hop of windows that have to be as long as their model was trained for: a tenth of them."""
WINDOW_S, HOP_S = 2.0, 0.5
"""Default window and hop for events."""


def event_lengths(
    window_s: float | None, hop_s: float | None, trained_s: float, fixed: bool
) -> tuple[float, float]:
    """Returns the lengths of window and hop for events.

    Args:
        window_s: Window that was asked for; None: 2 s, or that of the model if it takes no other.
        hop_s: Hop that was asked for; None: a quarter of the window, but at most 0.5 s.
        trained_s: Window that the model was trained for.
        fixed: Whether the model takes only windows of this length.
    """
    if window_s is None:
        window_s = trained_s if fixed else min(WINDOW_S, trained_s)
    return window_s, min(HOP_S, window_s / 4) if hop_s is None else hop_s


def average_windows(
    labels: tuple[str, ...],
    spans_s: Sequence[tuple[float, float]] | NDArray[np.float64],
    scores: NDArray[np.float32],
    hop_s: float,
) -> ScoreSeries:
    """Averages the scores of windows over steps of one hop.

    The score of a step is the mean of the windows that overlap it, weighted by how much of the step they
    cover. The last window of a recording ends with it, so that the last steps are those of real sound.

    Args:
        labels: One per class.
        spans_s: Start and end of each window, shape (window, 2), ascending from the recording's start.
        scores: Shape (window, class).
        hop_s: Seconds from one window to the next; windows may be closer, which takes longer.

    Returns:
        The series: as many steps as hops begin before the end of the last window, which it ends with.
    """
    spans = np.asarray(spans_s, np.float64)
    start_s, end_s = float(spans[0, 0]), float(spans[-1, 1])
    steps = max(1, int(np.ceil((end_s - start_s - ROUNDING_S) / hop_s)))
    edges = start_s + np.append(np.arange(steps) * hop_s, end_s - start_s)
    firsts = np.maximum(0, ((spans[:, 0] - start_s + ROUNDING_S) / hop_s).astype(int))
    lasts = np.minimum(steps, np.ceil((spans[:, 1] - start_s - ROUNDING_S) / hop_s).astype(int))
    total = np.zeros((steps, len(labels)), np.float32)
    weight = np.zeros(steps, np.float32)

    def add(windows: NDArray[np.intp], step: NDArray[np.intp]) -> None:
        """Adds windows to a step each, which differ."""
        overlap = np.minimum(edges[step + 1], spans[windows, 1]) - np.maximum(edges[step], spans[windows, 0])
        share = (overlap / hop_s).astype(np.float32)
        total[step] += share[:, None] * scores[windows]
        weight[step] += share

    closer = np.flatnonzero(np.diff(firsts) < 1)
    regular = int(closer[0]) + 1 if len(closer) else len(spans)
    on_grid = np.arange(regular)
    for number in reversed(range(int((lasts - firsts).max()))):  # in the order of the windows in each step
        inside = on_grid[firsts[:regular] + number < lasts[:regular]]
        add(inside, firsts[inside] + number)
    for window in range(regular, len(spans)):
        step = np.arange(firsts[window], lasts[window])
        add(np.full(len(step), window), step)
    total /= np.maximum(weight, np.finfo(np.float32).tiny)[:, None]
    resolution_s = max(hop_s, float((spans[:, 1] - spans[:, 0]).max()))
    return ScoreSeries(labels, total, hop_s, resolution_s, start_s, end_s)
