"""The time axis of recordings: seconds, minutes or hours, by their duration.

Conventions: positions are seconds from the start of a recording; the label of the axis names the unit.
"""

from __future__ import annotations

import math
from typing import Any

STEPS_S: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
STEPS_S += (60, 120, 300, 600, 900, 1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600)
"""Seconds between two ticks."""
SECONDS_UP_TO_S = 120
MINUTES_UP_TO_S = 3600


def ticks(duration_s: float, most: int) -> tuple[list[float], list[str], str]:
    """Chooses the ticks of a time axis.

    Args:
        duration_s: Duration in seconds, above 0.
        most: Most steps between ticks, at most 60.

    Returns:
        Positions in seconds, their texts, and the unit: "s", "min:s" or "h:min".
    """
    fitting = [step for step in STEPS_S if duration_s / step <= most]
    days = math.ceil(duration_s / most / STEPS_S[-1]) * STEPS_S[-1]
    step = fitting[0] if fitting else days
    positions = [number * step for number in range(int(duration_s / step + 1e-9) + 1)]
    if duration_s <= SECONDS_UP_TO_S:
        return positions, [f"{position:.10g}" for position in positions], "s"
    if duration_s <= MINUTES_UP_TO_S:
        return (
            positions,
            [f"{int(position) // 60}:{int(position) % 60:02}" for position in positions],
            "min:s",
        )
    return positions, [f"{int(at) // 3600}:{int(at) // 60 % 60:02}" for at in positions], "h:min"


def draw_time_axis(axes: Any, duration_s: float, most: int, after: str = "") -> None:
    """Sets limits, ticks and label of the x axis.

    Args:
        axes: Of matplotlib.
        duration_s: Duration in seconds, above 0.
        most: Most steps between ticks.
        after: What the label ends with, such as the time of day that the recording starts.
    """
    positions, texts, unit = ticks(duration_s, most)
    axes.set_xlim(0, duration_s)
    axes.set_xticks(positions, texts)
    axes.set_xlabel(f"time ({unit}){after}")
