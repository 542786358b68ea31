"""Scores over time -> events: hysteresis or change points, merged gaps, minimum durations.

Conventions: a run is a first step and the step after its last; runs are in order of time and apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.events.change_points import change_point_runs
from earmark.events.event import ROUNDING_S, Event, ScoreSeries
from earmark.events.options import EventOptions

Runs = NDArray[np.intp]


def detect(series: ScoreSeries, options: EventOptions) -> list[Event]:
    """Detects events.

    For each label: its scores are smoothed, runs of steps are found by the method, runs that are close are
    merged, and short ones dropped. Peak and mean are those of the scores before smoothing.

    Args:
        series: Scores over time.
        options: With a threshold that is not "auto".

    Returns:
        Events in order of start, then of end and of the labels.

    Raises:
        ModelError: As :meth:`EventOptions.limits`.
    """
    limits = options.limits(series.labels)
    events = []
    for index in np.flatnonzero(series.scores.max(0) >= limits.on.astype(np.float32)):
        scores = series.scores[:, index]
        smooth = moving_median(scores, limits.smooth_s[index] / series.step_s)
        on, off = float(limits.on[index]), float(limits.off[index])
        if options.method == "hysteresis":
            runs = hysteresis_runs(smooth, on, off)
        else:
            runs = change_point_runs(smooth, on, on - off, series.resolution_s / series.step_s)
        events += [
            Event(
                label=series.labels[index],
                start_s=float(series.edges_s[first]),
                end_s=float(series.edges_s[last]),
                peak=float(scores[first:last].max()),
                mean=float(scores[first:last].mean()),
                resolution_s=series.resolution_s,
            )
            for first, last in _long_enough(
                runs, series.edges_s, limits.merge_gap_s[index], limits.min_duration_s[index]
            )
        ]
    return sorted(events, key=lambda event: (event.start_s, event.end_s))


def hysteresis_runs(scores: NDArray[np.float32], on: float, off: float) -> Runs:
    """Finds the runs of scores of at least ``off`` in which one is at least ``on``.

    Args:
        scores: Shape (step,).
        on: On threshold.
        off: Off threshold, at most ``on``.

    Returns:
        Runs, shape (run, 2).
    """
    inside = np.concatenate([[False], scores >= off, [False]])
    runs = np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2)
    reached = np.concatenate([[0], np.cumsum(scores >= on)])
    return np.asarray(runs[reached[runs[:, 1]] > reached[runs[:, 0]]])


def moving_median(scores: NDArray[np.float32], length: float) -> NDArray[np.float32]:
    """Smooths scores with a centred moving median; near the ends it takes in the first or last score again.

    Args:
        scores: Shape (step,).
        length: Steps, rounded to the next odd number; below 2: no smoothing.
    """
    reach = int(length / 2)
    if reach < 1:
        return scores
    padded = np.pad(scores, reach, "edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), 1))


def _long_enough(runs: Runs, edges_s: NDArray[np.float64], merge_gap_s: float, min_duration_s: float) -> Runs:
    """Merges runs that are at most a gap apart, then drops short ones."""
    gaps_s = edges_s[runs[1:, 0]] - edges_s[runs[:-1, 1]]
    apart = gaps_s > merge_gap_s + ROUNDING_S
    firsts = runs[np.concatenate([[True], apart])[: len(runs)], 0]
    lasts = runs[np.concatenate([apart, [True]])[: len(runs)], 1]
    durations_s = edges_s[lasts] - edges_s[firsts]
    return np.asarray(np.stack([firsts, lasts], 1)[durations_s >= min_duration_s - ROUNDING_S])
