"""Cuts events out of recordings as small files, to listen to or to train on.

Conventions: a clip is mono, of 16 bits, at the sample rate of its recording, which is read once, block by
block. The table ``clips.csv`` in the folder of clips is a dataset: it has the columns path and labels.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.audio import open_audio
from earmark.audio.encode import SUFFIXES, Codec, check_rate, encode, to_int16
from earmark.errors import ModelError
from earmark.events.event import Event
from earmark.events.formats import csv_rows
from earmark.model_file.atomic import require_other_files, write_atomically

Floats = NDArray[np.float32]
TABLE = "clips.csv"
COLUMNS = ("path", "labels", "source", "start_s", "end_s", "peak")
MAX_CONTEXT_S = 600.0
_NO_NAME = re.compile(r"[^\w.-]+")
_LONGEST_NAME = 60


@dataclass(frozen=True)
class Clip:
    """A file that was cut out: its name within the folder, and the event and recording it is of."""

    name: str
    source: str
    event: Event


class ClipFolder:
    """A folder that clips of events are written to.

    Args:
        folder: Created if necessary.
        context_s: Seconds of sound before and after each event, 0 to 600, where the recording has them.
        codec: "flac", "wav", "mp3" or "opus".

    Attributes:
        clips: What has been cut.

    Raises:
        ModelError: If the context is out of range.
    """

    def __init__(self, folder: Path, context_s: float = 0.5, codec: Codec = "flac") -> None:
        if not 0 <= context_s <= MAX_CONTEXT_S:
            raise ModelError(f"context_s must be between 0 and {MAX_CONTEXT_S:g}, got {context_s:g}")
        self._folder, self._context_s, self._codec = folder, context_s, codec
        self.clips: list[Clip] = []
        self._names: set[str] = set()

    def add(self, recording: Path, source: str, events: Sequence[Event]) -> list[str]:
        """Cuts the events of a recording.

        Args:
            recording: The file.
            source: Its path as the table states it.
            events: In any order.

        Returns:
            Warnings: faults of the recording, and events that lie beyond its end.

        Raises:
            AudioError: If the recording cannot be read, or its sample rate does not fit the codec; clips that
                were complete before are kept.
            DataError: If a clip would replace the recording.
            OSError: If a clip cannot be written.
        """
        with open_audio(os.fspath(recording)) as stream:
            check_rate(self._codec, stream.sample_rate)
            beyond = list(events)
            for event, samples in _cut(stream.blocks(), stream.sample_rate, events, self._context_s):
                beyond.remove(event)
                target = self._folder / self._name(recording, event)
                require_other_files([target], [recording])
                write_atomically(target, encode(to_int16(samples), stream.sample_rate, self._codec))
                self.clips.append(Clip(target.name, source, event))
            warnings = list(stream.warnings)
        if beyond:
            warnings.append(f"{recording}: {len(beyond)} events lie beyond its end: is it the recording?")
        return warnings

    def finish(self) -> int:
        """Writes the table of all clips, and returns their number."""
        rows = [
            (
                clip.name,
                clip.event.label,
                clip.source,
                f"{clip.event.start_s:.3f}",
                f"{clip.event.end_s:.3f}",
                f"{clip.event.peak:.4f}",
            )
            for clip in self.clips
        ]
        if rows:
            content = csv_rows([COLUMNS, *rows]).encode("utf-8", "surrogateescape")
            write_atomically(self._folder / TABLE, content)
        return len(rows)

    def _name(self, recording: Path, event: Event) -> str:
        """A name that sorts by time and says what sounds; a number follows where it is taken."""
        stem, label = (_NO_NAME.sub("_", text)[:_LONGEST_NAME] for text in (recording.stem, event.label))
        first = f"{stem}_{event.start_s:09.3f}_{label}"
        name, number = first, 1
        while name in self._names:
            number += 1
            name = f"{first}_{number}"
        self._names.add(name)
        return name + SUFFIXES[self._codec]


def _cut(
    blocks: Iterator[Floats], sample_rate: int, events: Sequence[Event], context_s: float
) -> Iterator[tuple[Event, Floats]]:
    """Each event that begins within the blocks, and its samples with context, as soon as they are there."""
    waiting = sorted(events, key=lambda event: event.start_s)
    pieces: dict[int, list[Floats]] = {}
    spans = [
        (round(max(0.0, one.start_s - context_s) * sample_rate), round((one.end_s + context_s) * sample_rate))
        for one in waiting
    ]
    at = done = 0
    for block in blocks:
        end = at + len(block)
        for index in range(done, len(waiting)):
            first, last = spans[index]
            if first >= end:
                break
            if last > at:
                pieces.setdefault(index, []).append(block[max(0, first - at) : last - at])
        at = end
        for index in [one for one in pieces if spans[one][1] <= at]:
            yield waiting[index], np.concatenate(pieces.pop(index))
        while done < len(waiting) and spans[done][1] <= at:
            done += 1
        if done == len(waiting):
            return
    for index in pieces:
        if waiting[index].start_s * sample_rate < at:
            yield waiting[index], np.concatenate(pieces[index])
