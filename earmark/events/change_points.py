"""Events as boxes between the changes of a score.

Source: the idea of Ebbers, Germain, Wichern and Le Roux, "Sound Event Bounding Boxes", arXiv:2406.04212, of
change-detection-based boxes: where an event starts and ends is read from the changes of its score, whatever
the threshold, and the threshold then decides on whole boxes by their mean. Written from that description.

Conventions: a run is a first step and the step after its last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def change_point_runs(
    scores: NDArray[np.float32], threshold: float, drop: float, span: float
) -> NDArray[np.intp]:
    """Finds boxes between a rise and the next fall of the score whose mean reaches a threshold.

    The change at a limit between two steps is the mean of the scores behind it less that before it, over half
    a span each. A box starts at a local maximum of the change and ends at the next local minimum. Boxes are
    merged while the mean score between two of them is less than ``drop`` below the higher mean of the two.

    Args:
        scores: Shape (step,).
        threshold: Lowest mean score of a box that is kept.
        drop: How much the score has to fall between two events.
        span: Steps that a change is measured over: the length of sound behind one score.

    Returns:
        Runs, shape (run, 2).
    """
    sums = np.concatenate([[0.0], np.cumsum(scores, dtype=np.float64)])

    def mean(first: int, last: int) -> float:
        return float(sums[last] - sums[first]) / (last - first)

    boxes: list[tuple[int, int]] = []
    for box in _boxes(scores, max(1, round(span / 2))):
        boxes.append(box)
        while len(boxes) > 1:
            (first, end), (start, last) = boxes[-2:]
            higher = max(mean(first, end), mean(start, last))
            if start > end and mean(end, start) <= higher - drop:
                break
            boxes[-2:] = [(first, last)]
    kept = [box for box in boxes if mean(*box) >= threshold]
    return np.array(kept, np.intp).reshape(-1, 2)


def _boxes(scores: NDArray[np.float32], reach: int) -> list[tuple[int, int]]:
    """Runs from a local maximum of the change to the next local minimum; the outside counts as silent."""
    padded = np.pad(scores.astype(np.float64), reach)
    sums = np.concatenate([[0.0], np.cumsum(padded)])
    middle = np.arange(len(scores) + 1) + reach
    change = (sums[middle + reach] - 2 * sums[middle] + sums[middle - reach]) / reach
    around = np.concatenate([[0.0], change, [0.0]])
    # Where the change stays the same over several steps, the first of them counts.
    rises = (change > 0) & (change > around[:-2]) & (change >= around[2:])
    falls = (change < 0) & (change < around[:-2]) & (change <= around[2:])
    extremes: list[int] = []  # rises and falls in turn; of several in a row, the greatest change
    for at in np.flatnonzero(rises | falls).tolist():
        if extremes and rises[extremes[-1]] == rises[at]:
            extremes[-1] = max(extremes[-1], at, key=lambda one: abs(change[one]))
        elif extremes or rises[at]:
            extremes.append(at)
    return list(zip(extremes[::2], extremes[1::2], strict=False))
