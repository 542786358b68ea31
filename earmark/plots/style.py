"""The style of all pictures: sizes, colours, fonts, and how a picture is written.

Conventions: lengths are mm, sizes of text are points. The style holds within :func:`picture` only;
matplotlib's global settings are the user's.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import matplotlib
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from earmark.errors import ModelError
from earmark.model_file.atomic import write_atomically

FORMATS = (".png", ".svg", ".pdf")
COLUMN_MM = 90.0
"""Width of a picture in a column of a paper."""
PAGE_MM = 180.0
"""Width of a picture across a page."""
MM = 1 / 25.4
"""One mm in inches, the unit of matplotlib's figures."""
TEXT_PT = 7
"""Smallest text."""
LINE_MM = 2.8
"""Height of a line of the smallest text."""
DPI = 200

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Colours of categories: Okabe and Ito (2008), without black, the text's, and yellow, faint on white."""
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Marker of each colour, so that no category is told by colour alone."""
QUIET_COLOUR = "0.45"
"""Grey of what is shown for comparison."""
LEVEL_MAP = "magma"
"""Colours of spectrograms; their lightness rises evenly."""
SHARE_MAP = "Blues"
"""Colours of shares from 0 to 1, on white."""

OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans",
    "WenQuanYi Zen Hei",
    "Noto Sans Devanagari",
)
"""Fonts for characters that matplotlib's own lacks, where they are installed."""
_NOT_LOOKS = ("backend", "interactive", "timezone", "toolbar")  # the user's, or what a picture does not show
_STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "figure.dpi": DPI,
    "figure.constrained_layout.h_pad": 1.2 * MM,
    "figure.constrained_layout.w_pad": 1.2 * MM,
    "font.size": 8,
    "grid.color": "0.88",
    "grid.linewidth": 0.5,
    "legend.fontsize": TEXT_PT,
    "legend.frameon": False,
    "lines.linewidth": 1.0,
    "pdf.fonttype": 42,  # TrueType: what publishers accept
    "savefig.dpi": DPI,
    "svg.hashsalt": "earmark",
    "text.parse_math": False,
    "xtick.labelsize": TEXT_PT,
    "ytick.labelsize": TEXT_PT,
}
_one_at_a_time = Lock()  # matplotlib's settings belong to the process, so two pictures would mix theirs


def require_format(path: str | os.PathLike[str]) -> None:
    """Checks that a picture can have this name, before any work.

    Args:
        path: A file of png, svg or pdf.

    Raises:
        ModelError: If the suffix is another one.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ModelError(f"{os.fspath(path)}: a plot must be a file of {', '.join(FORMATS)}")


@contextmanager
def picture(path: str | os.PathLike[str], width_mm: float, height_mm: float) -> Iterator[Figure]:
    """Opens an empty figure in the style, and writes it when the block ends.

    Args:
        path: A file of png, svg or pdf.
        width_mm: Width in mm.
        height_mm: Height in mm.

    Yields:
        The figure.

    Raises:
        ModelError: If the suffix is another one.
        OSError: If the picture cannot be written.
    """
    require_format(path)
    file = io.BytesIO()
    with _one_at_a_time, _settings():
        figure = Figure(figsize=(width_mm * MM, height_mm * MM), layout="constrained")
        yield figure
        kind = Path(path).suffix[1:].lower()
        undated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
        figure.savefig(file, format=kind, metadata=undated)
    write_atomically(path, _with_palette(file) if kind == "png" else file.getvalue())


def _with_palette(file: io.BytesIO) -> bytes:
    """A PNG with 256 colours, which is a third of the size; no pixel differs by more than 3 %."""
    packed = io.BytesIO()
    with Image.open(file) as image:
        small = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE)
        small.save(packed, "png", optimize=True, dpi=(DPI, DPI))
    return packed.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    """Matplotlib's own defaults with the style's changes, and no warning of a character without a glyph."""
    defaults: dict[str, Any] = {
        key: value for key, value in matplotlib.rcParamsDefault.items() if key not in _NOT_LOOKS
    }
    installed = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing", UserWarning)
        settings: Any = defaults | _STYLE | {"font.family": fonts}
        matplotlib.rcParams.update(settings)
        yield


def colour(number: int) -> str:
    """The colour of a category; after the last one they begin again."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """The marker of a category: another one for each round of the colours."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def dark(color: str) -> tuple[float, float, float]:
    """A colour that is dark enough for small text on white."""
    red, green, blue = to_rgb(color)
    return 0.75 * red, 0.75 * green, 0.75 * blue


def ink_on(background: str) -> str:
    """The colour of text on a background: black or white, whichever has more contrast (WCAG 2)."""
    linear = [
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in to_rgb(background)
    ]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def one_line(text: str, most: int) -> str:
    """A label or name as one line that can be drawn.

    Args:
        text: Any text.
        most: Most characters; what is longer is cut off and ends with an ellipsis.
    """
    drawable = text.encode("utf-8", "replace").decode()
    plain = " ".join("".join(c if c.isprintable() else " " for c in drawable).split())
    return plain if len(plain) <= most else f"{plain[: most - 1].rstrip()}…"


def longest(labels: Sequence[str], width_mm: float) -> int:
    """Characters of a label that fit into a third of a picture, at most those of the longest label."""
    fitting = max(8, int(width_mm / 3 / (0.56 * TEXT_PT / 72 / MM)))
    return min(fitting, max(map(len, labels), default=fitting))
