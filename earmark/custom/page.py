"""The report of a fit as an HTML page, with players and spectrograms of the clips that were named wrongly.

Conventions: the page needs no network and no script; clips lie beside it as Ogg Opus, spectrograms as PNG.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earmark.audio import load_piece, resample
from earmark.audio.encode import encode, to_int16
from earmark.errors import EarmarkError
from earmark.features.log_mel import LogMel
from earmark.features.presets import EFFICIENTAT
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.custom.example import Example
    from earmark.custom.report import FitReport, WrongClip

PLAYERS = 30
"""Clips with a player."""
LONGEST_S = 10.0
DARK_SHARE = 0.6
"""Share from which on white text has more contrast than dark text."""
RATE = 48000
ALT = "log-mel spectrogram, time to the right, frequency upwards"

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}
td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:.5em 1em .5em 0;width:21em;
vertical-align:top}img{width:100%;height:8em;image-rendering:pixelated}audio{width:100%}
.c td{text-align:center;padding:.1em .4em}.c th{font-weight:normal}.c th.v{writing-mode:vertical-rl}"""


def write_report(report: FitReport, folder: Path) -> Path:
    """Writes ``report.json`` and ``index.html``, with the wrong clips in a subfolder ``clips``.

    Args:
        report: Of the fit.
        folder: Created if necessary.

    Returns:
        The path of the page.

    Raises:
        OSError: If they cannot be written.
    """
    write_atomically(
        folder / "report.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n"
    )
    return _write_page(report, folder)


def _write_page(report: FitReport, folder: Path) -> Path:
    """Writes ``index.html`` and the clips that it plays.

    Args:
        report: The report.
        folder: Created if it is missing.

    Returns:
        The page.
    """
    figures = [_figure(wrong, number, folder) for number, wrong in enumerate(report.wrong[:PLAYERS], start=1)]
    sections = [
        f"<h1>{escape(report.model)}</h1>",
        f"<p><b>{escape(report.headline)}</b></p>",
        _facts(report),
        "<h2>Classes</h2>" + _table(report.class_rows()),
        _calibration(report),
        _confusion(report),
        f"<h2>Wrong clips ({len(report.wrong)})</h2>" + ("".join(figures) or "<p>None.</p>"),
        _findings(report),
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(report.model)}</title>"
    text = f"{head}<style>{_STYLE}</style>" + "\n".join(sections)
    write_atomically(folder / "index.html", text.encode("utf-8", "backslashreplace"))
    return folder / "index.html"


def _facts(report: FitReport) -> str:
    alarms = report.false_alarms_per_hour
    heard = "unknown (no background clips)" if alarms is None else f"{alarms:g} per hour of background"
    facts = {
        "base": report.base,
        "depth": f"{report.depth}: {report.depth_reason}",
        "task": report.task,
        "sources": str(report.num_sources),
        "duration": f"{report.hours * 60:.1f} minutes",
        "false alarms": heard,
    } | {name.replace("_", " "): f"{value:g}" for name, value in report.metrics.items()}
    return _table([("", ""), *facts.items()])


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows[1:])
    return f"<table><tr>{head}{body}</table>"


def _calibration(report: FitReport) -> str:
    if report.reliability is None:
        return ""
    columns = zip(*report.reliability, strict=True)
    rows = [(f"{score:.2f}", f"{right:.2f}", str(clips)) for score, right, clips in columns if clips]
    return "<h2>Calibration</h2>" + _table([("mean score", "share that is right", "scores"), *rows])


def _confusion(report: FitReport) -> str:
    if report.confusion is None:
        return ""
    head = "".join(f"<th class=v>{escape(label)}" for label in report.labels)
    rows = []
    for label, counts in zip(report.labels, report.confusion, strict=True):
        total = max(1, sum(counts))
        cells = "".join(_cell(count, count / total) for count in counts)
        rows.append(f"<tr><th>{escape(label)}{cells}")
    intro = "<h2>Confusion</h2><p>Rows: true; columns: predicted.</p>"
    return f"{intro}<table class=c><tr><th>{head}{''.join(rows)}</table>"


def _cell(count: int, share: float) -> str:
    """A cell of the confusion matrix: the darker, the higher the share; text is white on dark cells."""
    ink = ";color:#fff" if share > DARK_SHARE else ""
    return f"<td style='background:rgba(40,90,200,{share:.2f}){ink}'>{count or ''}"


def _findings(report: FitReport) -> str:
    if not report.findings:
        return ""
    lines = "".join(f"<li>{escape(one.kind)}: {escape(one.text)}" for one in report.findings)
    return f"<h2>Findings ({len(report.findings)})</h2><ul>{lines}</ul>"


def _figure(wrong: WrongClip, number: int, folder: Path) -> str:
    labels = " + ".join(wrong.example.labels) or "background"
    media = ""
    with suppress(EarmarkError):
        waveform = _sound(wrong.example)
        name = f"clips/{number:03d}"
        write_atomically(folder / f"{name}.ogg", encode(to_int16(waveform), RATE, "opus"))
        write_atomically(folder / f"{name}.png", spectrogram(waveform))
        media = f"<img src='{name}.png' alt='{ALT}'><audio controls preload=none src='{name}.ogg'></audio>"
    caption = f"{labels}, named {wrong.predicted} ({wrong.score:.2f})"
    shown = f"<b>{escape(caption)}</b><br><small>{escape(wrong.example.name)}</small>"
    return f"<figure>{media}<figcaption>{shown}</figcaption></figure>"


def _sound(example: Example) -> NDArray[np.float32]:
    longest = round(LONGEST_S * RATE)
    if example.end_s is None:
        return load_piece(str(example.path), RATE, longest, lambda excess: 0)[0]
    length = max(1, min(longest, round((example.end_s - example.start_s) * RATE)))
    first = round(example.start_s * RATE)
    return load_piece(str(example.path), RATE, length, lambda excess: min(first, excess))[0]


def spectrogram(waveform: NDArray[np.float32]) -> bytes:
    """A log-mel spectrogram as a PNG in shades of grey, low frequencies at the bottom.

    Args:
        waveform: float32, shape (time,), at ``RATE``.
    """
    front_end = EFFICIENTAT
    sound = resample(waveform, RATE, front_end.sample_rate)
    sound = np.pad(sound, (0, max(0, front_end.min_samples - len(sound))))
    log_mel = LogMel(front_end)(sound)[::-1]
    low, high = np.quantile(log_mel, (0.05, 0.999))
    shades = np.clip((log_mel - low) / max(float(high - low), 1e-6), 0, 1)
    return _png(np.asarray(255 * (1 - shades), np.uint8))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes grey pixels, (row, column), as PNG (ISO 15948)."""
    rows, columns = pixels.shape
    lines = np.pad(pixels, ((0, 0), (1, 0)))  # each line begins with its filter: none
    chunks: Iterable[tuple[bytes, bytes]] = (
        (b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines.tobytes())),
        (b"IEND", b""),
    )
    encoded = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(encoded)
