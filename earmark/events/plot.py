"""A recording's spectrogram with its events below it.

Conventions: matplotlib is the extra "plot"; no global state of it changes. Levels are dB relative to full
scale, bands are in mel.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.audio import open_audio, resample_blocks
from earmark.errors import ModelError, extra
from earmark.features.front_end import FrontEnd
from earmark.features.log_mel import LogMel
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.events.event import Event, RecordingEvents

FORMATS = (".png", ".svg", ".pdf")
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
COLUMNS = 1600
"""Most columns of a spectrogram; longer recordings have the mean of several frames in each."""
BLOCK_S = 10
RANGE_DB = 80
TICKS_HZ = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)


def require_plot(path: str | os.PathLike[str]) -> None:
    """Checks that a plot can be written, before any work.

    Args:
        path: A file of png, svg or pdf, or a folder, whose name has no suffix.

    Raises:
        ModelError: If the suffix is another one.
        MissingExtraError: If matplotlib is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix and suffix not in FORMATS:
        raise ModelError(f"{os.fspath(path)}: a plot must be a file of {', '.join(FORMATS)}")
    with extra("plotting events", "plot"):
        import matplotlib  # noqa: F401


def plot_events(found: RecordingEvents, path: str | os.PathLike[str]) -> None:
    """Draws the spectrogram of a recording, and a row of its events for each label.

    Args:
        found: The events of a recording that is a file, which is read once more.
        path: Of the plot: png, svg or pdf.

    Raises:
        ModelError: If the recording is not a file, or the suffix is another one.
        AudioError: If the recording cannot be read.
        MissingExtraError: If matplotlib is not installed.
        OSError: If the plot cannot be written.
    """
    require_plot(path)
    from matplotlib.figure import Figure

    known = found.recording
    if known.path in (None, "-"):
        raise ModelError("a plot needs a recording that can be read again: a file")
    rows = _rows(found.events)
    heights = (3.0, 0.6 + 0.22 * max(1, len(rows)))
    figure = Figure(figsize=(12, sum(heights) + 0.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    _draw_spectrogram(upper, spectrogram(str(known.path), known.duration_s), known.duration_s)
    top_hz = min(known.sample_rate / 2, FRONT_END.f_max)
    upper.set(ylabel="frequency (Hz)", ylim=(0, _band(top_hz)), title=os.path.basename(str(known.path)))
    _draw_events(lower, rows)
    start = f" after {found.time_at(0)}" if found.recorded_at else ""
    lower.set(xlabel=f"time (s){start}", xlim=(0, known.duration_s))
    file = io.BytesIO()
    figure.savefig(file, format=Path(path).suffix[1:].lower(), dpi=120)
    write_atomically(path, file.getvalue())


def spectrogram(path: str, duration_s: float, columns: int = COLUMNS) -> NDArray[np.float32]:
    """Computes the log-mel spectrogram of a recording of any length, block by block.

    Args:
        path: Of the recording.
        duration_s: Its duration in seconds.
        columns: Number of columns, at most one per frame.

    Returns:
        Mean levels in dB, shape (mel, column).

    Raises:
        AudioError: If the recording cannot be read.
    """
    frames = max(1, int(duration_s * FRONT_END.sample_rate / FRONT_END.hop_length))
    columns = min(columns, frames)
    total, count = np.zeros((FRONT_END.n_mels, columns)), np.zeros(columns)
    for start_s, levels in _levels(path):
        hop_s = FRONT_END.hop_length / FRONT_END.sample_rate
        times = start_s + np.arange(levels.shape[1]) * hop_s
        at = np.minimum((times / duration_s * columns).astype(int), columns - 1)
        np.add.at(total.T, at, levels.T)
        np.add.at(count, at, 1)
    return np.asarray(total / np.maximum(count, 1), np.float32)


def _levels(path: str) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """The start in seconds and the log-mel, (mel, frame), of each block."""
    log_mel, rate = LogMel(FRONT_END), FRONT_END.sample_rate
    with open_audio(path) as stream:
        held, at = np.zeros(0, np.float32), 0
        for block in resample_blocks(stream.blocks(), stream.sample_rate, rate):
            held = np.concatenate([held, block])
            while len(held) >= 2 * BLOCK_S * rate:
                yield at / rate, log_mel(held[: BLOCK_S * rate])
                held, at = held[BLOCK_S * rate :], at + BLOCK_S * rate
    if len(held) < FRONT_END.min_samples:
        held = np.pad(held, (0, FRONT_END.min_samples - len(held)))
    yield at / rate, log_mel(held)


def _rows(events: Sequence[Event]) -> dict[str, list[Event]]:
    """Labels in the order of their first events."""
    rows: dict[str, list[Event]] = {}
    for event in events:
        rows.setdefault(event.label, []).append(event)
    return rows


def _draw_spectrogram(axes: Any, levels: NDArray[np.float32], duration_s: float) -> None:
    loudest = float(np.percentile(levels, 99.9))
    axes.imshow(
        levels,
        origin="lower",
        aspect="auto",
        extent=(0, duration_s, 0, FRONT_END.n_mels),
        cmap="magma",
        vmin=loudest - RANGE_DB,
        vmax=loudest,
    )
    axes.set_yticks([_band(hz) for hz in TICKS_HZ], [f"{hz:g}" for hz in TICKS_HZ])


def _draw_events(axes: Any, rows: dict[str, list[Event]]) -> None:
    """A bar for each event, the more opaque the higher its peak."""
    for number, events in enumerate(rows.values()):
        colours = [(f"C{number % 10}", 0.3 + 0.7 * min(1.0, event.peak)) for event in events]
        spans = [(event.start_s, event.duration_s) for event in events]
        axes.broken_barh(spans, (number - 0.4, 0.8), facecolors=colours)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.grid(visible=True, axis="x", alpha=0.3)
    if not rows:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no events", transform=axes.transAxes, ha="center", va="center")


def _band(frequency_hz: float) -> float:
    """Position of a frequency among the bands: HTK's mel scale, 2595 log10(1 + f / 700)."""
    return float(FRONT_END.n_mels * np.log1p(frequency_hz / 700) / np.log1p(FRONT_END.f_max / 700))
