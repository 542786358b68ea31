"""A recording's spectrogram with its events below it.

Conventions: levels are dB relative to a sine of full scale (dBFS), bands are in mel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.audio import open_audio, resample_blocks
from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.log_mel import LogMel
from earmark.plots.style import (
    COLUMN_MM,
    LEVEL_MAP,
    MM,
    PAGE_MM,
    QUIET_COLOUR,
    TEXT_PT,
    colour,
    ink_on,
    longest,
    one_line,
    picture,
    require_format,
)
from earmark.plots.time_axis import draw_time_axis

if TYPE_CHECKING:
    from earmark.events.event import Event, RecordingEvents

FRONT_END = FrontEnd(
    win_length=1024,
    f_max=16000.0,
    preemphasis=0.0,
    mel_scale="htk",
    log="db",
    floor_mode="clip",
    floor=1e-10,
    shift=0.0,
    scale=1.0,
)
FULL_SCALE_DB = float(20 * np.log10(FRONT_END.win_length / 4))
"""Level that the front-end gives a sine of full scale: half the sum of a Hann window, squared."""
COLUMNS = 600
"""Most columns of a spectrogram; longer recordings have the mean of several frames in each."""
BLOCK_S = 10
RANGE_DB = 80
FAINTEST_DB = -60
"""Lowest level of the brightest colour: a silent recording is dark."""
TICKS_HZ: tuple[float, ...] = (250, 500, 1000, 2000, 4000, 8000, 16000)
MOST_ROWS = 30
"""Labels with a row; of more, those with the highest peaks."""
SPECTROGRAM_MM, ROW_MM, AROUND_MM = 45.0, 4.2, 17.0
TICK_MM = 11
"""Width of an axis for each of its ticks."""
PEAK_MM = 6.0
"""Width of a score with its margins."""


def require_plot(path: str | os.PathLike[str]) -> None:
    """Checks that timelines can be written, before any work.

    Args:
        path: A file of png, svg or pdf, or a folder, whose name has no suffix.

    Raises:
        ModelError: If the suffix is another one.
    """
    if Path(path).suffix:
        require_format(path)


def plot_events(found: RecordingEvents, path: str | os.PathLike[str], width_mm: float = PAGE_MM) -> None:
    """Draws the spectrogram of a recording, and a row of its events for each label.

    A bar has the peak score of its event where that fits.

    Args:
        found: The events of a recording that is a file, which is read once more.
        path: Of the plot: png, svg or pdf.
        width_mm: Width of the picture in mm, 90 to 180.

    Raises:
        ModelError: If the recording is not a file, or the suffix is another one.
        AudioError: If the recording cannot be read.
        OSError: If the plot cannot be written.
    """
    require_format(path)
    known = found.recording
    if known.path in (None, "-"):
        raise ModelError("a plot needs a recording that can be read again: a file")
    duration_s = max(known.duration_s, 1 / FRONT_END.sample_rate)
    levels = spectrogram(str(known.path), duration_s)
    rows, omitted = _rows(found.events)
    lower_mm = ROW_MM * max(1, len(rows) + bool(omitted))
    with picture(path, width_mm, SPECTROGRAM_MM + lower_mm + AROUND_MM) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(SPECTROGRAM_MM, lower_mm))
        image = _draw_spectrogram(upper, levels, duration_s, known.sample_rate)
        figure.colorbar(image, ax=upper, label="level (dBFS)", pad=0.01, aspect=14)
        upper.set_title(one_line(os.path.basename(str(known.path)), 3 * longest((), width_mm)), loc="left")
        _draw_rows(lower, rows, omitted, longest([*rows, f"{omitted} more labels"], width_mm))
        start = f" after {found.time_at(0)}" if found.recorded_at else ""
        shown_mm = width_mm - (55 if width_mm > COLUMN_MM else 40)
        draw_time_axis(lower, duration_s, max(2, int(shown_mm / TICK_MM)), start)
        figure.draw_without_rendering()  # from now on the bars have a width
        _write_peaks(lower, rows)


def spectrogram(path: str, duration_s: float, columns: int = COLUMNS) -> NDArray[np.float32]:
    """Computes the log-mel spectrogram of a recording of any length, block by block.

    Args:
        path: Of the recording.
        duration_s: Its duration in seconds, above 0.
        columns: Number of columns, at most one per frame.

    Returns:
        Mean levels in dBFS, shape (mel, column).

    Raises:
        AudioError: If the recording cannot be read.
    """
    frames = max(1, int(duration_s * FRONT_END.sample_rate / FRONT_END.hop_length))
    columns = min(columns, frames)
    total, count = np.zeros((FRONT_END.n_mels, columns)), np.zeros(columns)
    for first, levels in _levels(path):
        at = np.minimum((first + np.arange(levels.shape[1])) * columns // frames, columns - 1)
        np.add.at(total.T, at, levels.T)
        np.add.at(count, at, 1)
    silence = 10 * np.log10(FRONT_END.floor)  # where a file is shorter than it says
    mean = np.where(count, total / np.maximum(count, 1), silence)
    return np.asarray(mean - FULL_SCALE_DB, np.float32)


def _levels(path: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The number of the first frame and the log-mel, (mel, frame), of each block."""
    log_mel, rate, hop = LogMel(FRONT_END), FRONT_END.sample_rate, FRONT_END.hop_length
    with open_audio(path) as stream:
        held, at = np.zeros(0, np.float32), 0
        for block in resample_blocks(stream.blocks(), stream.sample_rate, rate):
            held = np.concatenate([held, block])
            while len(held) >= 2 * BLOCK_S * rate:
                yield at // hop, log_mel(held[: BLOCK_S * rate])
                held, at = held[BLOCK_S * rate :], at + BLOCK_S * rate
    if len(held) < FRONT_END.min_samples:
        held = np.pad(held, (0, FRONT_END.min_samples - len(held)))
    yield at // hop, log_mel(held)


def _rows(events: Sequence[Event]) -> tuple[dict[str, list[Event]], int]:
    """Labels in the order of their first events, and the number of those that are left out."""
    rows: dict[str, list[Event]] = {}
    for event in events:
        rows.setdefault(event.label, []).append(event)
    peaks = {label: max(event.peak for event in own) for label, own in rows.items()}
    kept = set(sorted(peaks, key=lambda label: -peaks[label])[:MOST_ROWS])
    return {label: own for label, own in rows.items() if label in kept}, len(rows) - len(kept)


def _draw_spectrogram(axes: Any, levels: NDArray[np.float32], duration_s: float, sample_rate: int) -> Any:
    loudest = max(float(np.percentile(levels, 99.9)), FAINTEST_DB)
    image = axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, FRONT_END.n_mels),
        cmap=LEVEL_MAP,
        interpolation="nearest",
        vmin=loudest - RANGE_DB,
        vmax=loudest,
    )
    top_hz = min(sample_rate / 2, FRONT_END.f_max)
    shown = [hz for hz in TICKS_HZ if hz <= top_hz] or [top_hz]
    axes.set_yticks([_band(hz) for hz in shown], [f"{hz / 1000:g}" for hz in shown])
    axes.set(ylabel="frequency (kHz)", ylim=(0, _band(top_hz)))
    return image


def _draw_rows(axes: Any, rows: Mapping[str, Sequence[Event]], omitted: int, most: int) -> None:
    """A bar for each event; the shortest are a line."""
    for number, events in enumerate(rows.values()):
        spans = [(event.start_s, event.duration_s) for event in events]
        axes.broken_barh(spans, (number - 0.4, 0.8), color=colour(number), linewidth=0.5)
    names = [one_line(label, most) for label in rows]
    if omitted:
        names.append(f"{omitted} more label{'s'[: omitted > 1]}")
    axes.set_yticks(range(len(names)), names)
    if omitted:
        axes.get_yticklabels()[-1].set_color(QUIET_COLOUR)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(1, len(names)) - 0.5, -0.5)
    axes.grid(visible=bool(rows), axis="x")
    if not rows:
        axes.text(0.5, 0.5, "no events", transform=axes.transAxes, ha="center", va="center")


def _write_peaks(axes: Any, rows: Mapping[str, Sequence[Event]]) -> None:
    """Writes the peak score into each bar that is wide enough."""
    start, end = axes.get_xlim()
    mm_per_s = axes.get_window_extent().width / axes.figure.dpi / MM / (end - start)
    for number, events in enumerate(rows.values()):
        for event in events:
            if event.duration_s * mm_per_s >= PEAK_MM:
                middle_s = (event.start_s + event.end_s) / 2
                look = {"size": TEXT_PT, "color": ink_on(colour(number)), "ha": "center", "va": "center"}
                axes.text(middle_s, number, f"{event.peak:.2f}", in_layout=False, clip_on=True, **look)


def _band(frequency_hz: float) -> float:
    """Position of a frequency among the bands: HTK's mel scale, 2595 log10(1 + f / 700)."""
    return float(FRONT_END.n_mels * np.log1p(frequency_hz / 700) / np.log1p(FRONT_END.f_max / 700))
