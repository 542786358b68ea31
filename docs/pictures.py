"""Draws the plots of the documentation again.

    python docs/pictures.py

Conventions: a plot is what a command writes; the pages that show it name the command. Screenshots of the page
in the browser are made by its tests.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "images"
COMMANDS = {
    "timeline.png": "earmark tag examples/farm.ogg --events --plot timeline.png",
    "models.png": "earmark models --plot models.png --highlight mn10_as",
}
"""File -> the command that writes it."""


def draw(name: str, path: Path) -> None:
    """Writes a plot to a path."""
    _, *words = shlex.split(COMMANDS[name])
    arguments = [str(path) if word == name else word for word in words]
    subprocess.run(
        [sys.executable, "-m", "earmark", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )


if __name__ == "__main__":
    for picture in COMMANDS:
        draw(picture, PICTURES / picture)
