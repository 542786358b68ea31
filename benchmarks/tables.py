"""Markdown tables, a description of the machine, and updating both in a page.

Conventions: a page has ``<!-- NAME -->`` and ``<!-- /NAME -->`` around a table.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "onnxruntime", "soundfile", "soxr", "torch")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]) -> str:
    """A Markdown table with right-aligned columns of numbers."""
    rule = ["--:" if name in numbers else "---" for name in head]
    lines = [head, rule, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |\n"
        for line in lines
    )


def machine() -> str:
    """The machine and the versions of the packages, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return f"{_processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )


def update(page: Path, name: str, measured: str) -> None:
    """Replaces the text between the marks of a page.

    Raises:
        SystemExit: If the page has no such marks.
    """
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, also, after = rest.partition(end)
    if not (found and also):
        raise SystemExit(f"{page}: has no marks {start.strip()} and {end.strip()}")
    page.write_text(f"{before}{start}{measured}{end}{after}", encoding="utf-8")
