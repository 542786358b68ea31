"""The events of a recording as plain text to read.

Conventions: lines are at most ``width`` characters long, apart from a long path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from earmark.events.bars import LONGEST_LABEL, STRIPS, bar, duration, shortened, span, strips

if TYPE_CHECKING:
    from earmark.events.event import RecordingEvents

SHORTEST_LABEL = 12
"""Where less than this is left for labels, there are no bars."""


def event_table(found: RecordingEvents, width: int = 80, blocks: bool = True) -> str:
    """Formats events for people: a line for each, and a timeline of the labels with the highest scores.

    Args:
        found: The events of a recording.
        width: Characters in a line, at least 40.
        blocks: Whether to use block characters; else ASCII.
    """
    known = found.recording
    started = f", from {found.time_at(0)}" if found.recorded_at else ""
    lines = [f"{known.path or 'samples'}  ({duration(known.duration_s)}, {known.model}{started})"]
    if not found.events:
        return "\n".join([*lines, "  No events."]) + "\n"
    times = [span(event.start_s, event.end_s, known.duration_s >= 60) for event in found.events]
    time_width = max(map(len, times))
    longest = max(len(event.label) for event in found.events)
    free = width - time_width - len("      0.00")
    bar_width = len("  ") + len(bar(0, blocks))
    with_bars = free - bar_width >= min(longest, SHORTEST_LABEL)
    label_width = min(LONGEST_LABEL, longest, free - bar_width if with_bars else free)
    for event, time in zip(found.events, times, strict=True):
        label = shortened(event.label, label_width, blocks)
        line = f"  {time:>{time_width}}  {label:<{label_width}}  {event.peak:.2f}"
        lines.append(f"{line}  {bar(event.peak, blocks)}".rstrip() if with_bars else line)
    return "\n".join([*lines, "", *_timeline(found, width, blocks)]) + "\n"


def _timeline(found: RecordingEvents, width: int, blocks: bool) -> list[str]:
    best = sorted(found.events, key=lambda event: -event.peak)
    labels = list(dict.fromkeys(event.label for event in best))[:STRIPS]
    spans = {label: [(e.start_s, e.end_s) for e in found.events if e.label == label] for label in labels}
    rows = sorted(spans.items(), key=lambda row: row[1])
    return list(strips(rows, found.recording.duration_s, width, blocks))
