r"""Events in the formats of tools that show, play and correct annotations.

Sources: Audacity manual, "Importing and exporting labels"; Raven Pro user's manual, "Selection tables" (tab
separated, times count through all files of the table in order, ``File Offset (s)`` within one); NIST RT-09
evaluation plan, appendix A (RTTM); W3C WebVTT; Praat manual, "TextGrid file formats"; Label Studio
documentation, "Import pre-annotations".

Conventions: control characters in labels become blanks. Times are seconds from the start of the recording.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from earmark.events.layout import Layout

if TYPE_CHECKING:
    from earmark.events.event import Event, RecordingEvents

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_BLANKS = re.compile(r"\s+")
RAVEN_COLUMNS = (
    "Selection",
    "View",
    "Channel",
    "Begin Time (s)",
    "End Time (s)",
    "Low Freq (Hz)",
    "High Freq (Hz)",
    "Begin File",
    "File Offset (s)",
    "Annotation",
    "Score",
)
RAVEN_TIME = "Begin Date Time"


def audacity() -> Layout[RecordingEvents]:
    """Audacity's label tracks: start, end and label, separated by tabs; one recording."""

    def render(found: RecordingEvents) -> str:
        return "".join(
            f"{event.start_s:.6f}\t{event.end_s:.6f}\t{_one_line(event.label)}\n" for event in found.events
        )

    return Layout("", "", "", render, ".txt", one_recording=True)


def raven(times: bool = False) -> Layout[RecordingEvents]:
    """Raven's selection tables; selections span all frequencies.

    Args:
        times: Whether there is a column of dates and times.
    """
    selection, before_s = 0, 0.0

    def render(found: RecordingEvents) -> str:
        nonlocal selection, before_s
        known, lines = found.recording, []
        for event in found.events:
            selection += 1
            cells = [
                str(selection),
                "Spectrogram 1",
                "1",
                f"{before_s + event.start_s:.6f}",
                f"{before_s + event.end_s:.6f}",
                "0.0",
                f"{known.sample_rate / 2:.1f}",
                _one_line(os.path.basename(known.path or "samples")),
                f"{event.start_s:.6f}",
                _one_line(event.label),
                f"{event.peak:.4f}",
            ]
            if times:
                cells.append(_raven_time(found.time_at(event.start_s)))
            lines.append("\t".join(cells) + "\n")
        before_s += known.duration_s
        return "".join(lines)

    columns = (*RAVEN_COLUMNS, RAVEN_TIME) if times else RAVEN_COLUMNS
    return Layout("\t".join(columns) + "\n", "", "", render, ".selections.txt")


def rttm() -> Layout[RecordingEvents]:
    """Rich Transcription Time Marked: ten fields; the name of a speaker is the label, blanks as ``_``."""

    def render(found: RecordingEvents) -> str:
        name = os.path.splitext(os.path.basename(found.recording.path or "samples"))[0]
        return "".join(
            f"SPEAKER {_word(name)} 1 {event.start_s:.3f} {event.duration_s:.3f} <NA> <NA> "
            f"{_word(event.label)} {event.peak:.4f} <NA>\n"
            for event in found.events
        )

    return Layout("", "", "", render, ".rttm")


def webvtt() -> Layout[RecordingEvents]:
    """WebVTT: a cue per event, for video players; one recording."""

    def render(found: RecordingEvents) -> str:
        return "".join(
            f"\n{_clock(event.start_s)} --> {_clock(event.end_s)}\n{_cue(event)}\n" for event in found.events
        )

    return Layout("WEBVTT\n", "", "", render, ".vtt", one_recording=True)


def textgrid() -> Layout[RecordingEvents]:
    """Praat's TextGrid: a tier of intervals for each label; one recording."""
    return Layout("", "", "", _textgrid, ".TextGrid", one_recording=True)


def label_studio() -> Layout[RecordingEvents]:
    """Label Studio's tasks with predictions: a list to import into a project with an ``Audio`` tag "audio"
    and ``Labels`` named "label"."""  # noqa: D205, D209 - one sentence

    def render(found: RecordingEvents) -> str:
        return json.dumps(_task(found), ensure_ascii=False)

    return Layout("[", ",\n ", "]\n", render, ".json")


def _one_line(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def _word(text: str) -> str:
    return _BLANKS.sub("_", _one_line(text)) or "<NA>"


def _clock(position_s: float) -> str:
    milliseconds = round(position_s * 1000)
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"


def _cue(event: Event) -> str:
    label = _one_line(event.label).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{label} ({event.peak:.2f})"


def _raven_time(time: str | None) -> str:
    """Raven's form of a time in ISO 8601, which has no time zone."""
    return "" if time is None else time[:23].replace("-", "/").replace("T", " ")


def _textgrid(found: RecordingEvents) -> str:
    labels = list(dict.fromkeys(event.label for event in found.events))
    end = _number(found.recording.duration_s)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {max(1, len(labels))}", "item []:"]
    for number, label in enumerate(labels or ["events"], start=1):
        intervals = _intervals([event for event in found.events if event.label == label], end)
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quoted(label)}",
            "        xmin = 0",
            f"        xmax = {end}",
            f"        intervals: size = {len(intervals)}",
        ]
        for count, (start, stop, text) in enumerate(intervals, start=1):
            lines += [
                f"        intervals [{count}]:",
                f"            xmin = {start}",
                f"            xmax = {stop}",
                f"            text = {_quoted(text)}",
            ]
    return "\n".join(lines) + "\n"


def _intervals(events: list[Event], end: str) -> list[tuple[str, str, str]]:
    """The events of a label and the silence between them: a tier covers the whole recording."""
    intervals, at = [], "0"
    for event in events:
        start, stop = _number(event.start_s), _number(event.end_s)
        if start != at:
            intervals.append((at, start, ""))
        intervals.append((start, stop, event.label))
        at = stop
    return intervals if at == end else [*intervals, (at, end, "")]


def _number(position_s: float) -> str:
    return f"{position_s:.6f}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    return '"' + _one_line(text).replace('"', '""') + '"'


def _task(found: RecordingEvents) -> dict[str, Any]:
    known = found.recording
    results = [
        {
            "id": f"event{number}",
            "from_name": "label",
            "to_name": "audio",
            "type": "labels",
            "original_length": round(known.duration_s, 4),
            "score": round(event.peak, 4),
            "value": {
                "start": round(event.start_s, 3),
                "end": round(event.end_s, 3),
                "channel": 0,
                "labels": [event.label],
            },
        }
        for number, event in enumerate(found.events, start=1)
    ]
    best = max((event.peak for event in found.events), default=0.0)
    prediction = {"model_version": known.model, "score": round(best, 4), "result": results}
    return {"data": {"audio": known.path}, "predictions": [prediction]}
