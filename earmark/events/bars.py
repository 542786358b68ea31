"""Pieces of tables in terminals: bars of scores, strips of times, clocks, shortened labels.

Conventions: block characters are optional, since not every terminal has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

BAR = 16
"""Characters of a full bar."""
LONGEST_LABEL = 32
LONGEST_STRIP = 60
STRIPS = 6
"""Most strips of one recording."""

Spans = Sequence[tuple[float, float]]
_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(score: float, blocks: bool) -> str:
    """A bar for a score in [0, 1], padded to its full width."""
    if not blocks:
        return f"{'#' * round(score * BAR):<{BAR}}"
    whole, eighths = divmod(round(score * BAR * 8), 8)
    return f"{('█' * whole + _EIGHTHS[eighths]):<{BAR}.{BAR}}"


def shortened(text: str, width: int, blocks: bool) -> str:
    """A text of at most ``width`` characters, with an ellipsis where it was cut."""
    ellipsis = "…" if blocks else "..."
    return text if len(text) <= width else text[: width - len(ellipsis)] + ellipsis


def duration(seconds: float) -> str:
    """A duration: seconds with a decimal, or a clock from a minute on."""
    return f"{seconds:.1f} s" if seconds < 60 else clock(seconds)


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def span(start_s: float, end_s: float, with_clock: bool) -> str:
    """A start and an end in seconds with a decimal, or on a clock."""
    if with_clock:
        return f"{clock(start_s)} - {clock(end_s)}"
    return f"{start_s:.1f} - {end_s:.1f} s"


def strips(rows: Sequence[tuple[str, Spans]], duration_s: float, width: int, blocks: bool) -> Iterator[str]:
    """Lines of a scale of time, and of a strip for each label, filled where its spans are.

    Args:
        rows: Labels, each with starts and ends in seconds; at least one.
        duration_s: Duration of the recording.
        width: Characters in a line.
        blocks: Whether to use block characters; else ASCII.
    """
    label_width = min(LONGEST_LABEL, width // 2, max(len(label) for label, _ in rows))
    cells = min(LONGEST_STRIP, width - label_width - 4)
    start, end = "0:00" if duration_s >= 60 else "0 s", duration(duration_s)
    yield f"  {'':<{label_width}}  {start}{end:>{cells - len(start)}}"
    on, off = ("█", "·") if blocks else ("#", ".")
    for label, spans in rows:
        strip = "".join(on if there else off for there in _filled(spans, duration_s, cells))
        yield f"  {shortened(label, label_width, blocks):<{label_width}}  {strip}"


def _filled(spans: Spans, duration_s: float, cells: int) -> list[bool]:
    """Which parts of a recording spans overlap: by at least half of the part, or of the span if shorter."""
    starts, ends = np.array(spans).T
    edges = np.linspace(0, duration_s, cells + 1)
    overlap = np.minimum(ends[:, None], edges[1:]) - np.maximum(starts[:, None], edges[:-1])
    needed = np.minimum(ends - starts, edges[1] - edges[0])[:, None] / 2
    return [bool(one) for one in (overlap >= needed - 1e-9).any(0)]
