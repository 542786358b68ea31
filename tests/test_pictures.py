"""The plots that the documentation shows are what its commands draw, and are small."""

import re
from pathlib import Path

import numpy as np
import pictures
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOLERANCE = 3  # of 255, on average: processors and versions of matplotlib differ a little


@pytest.mark.parametrize("name", pictures.COMMANDS)
def test_plots_are_current(tmp_path, name):
    image = pytest.importorskip("matplotlib.image", reason="the extra 'plot' is not installed")
    assert (pictures.PICTURES / name).stat().st_size < 150_000
    pictures.draw(name, tmp_path / name)
    fresh, kept = (image.imread(folder / name)[..., :3] for folder in (tmp_path, pictures.PICTURES))
    assert fresh.shape == kept.shape, "run python docs/pictures.py"
    assert 255 * np.abs(fresh - kept).mean() < TOLERANCE, "run python docs/pictures.py"


def test_plots_are_shown_with_their_commands_and_described():
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name, command in pictures.COMMANDS.items():
        assert command in text
        assert re.search(rf"!\[[^\]]{{20,}}\]\((?:docs/)?images/{name}\)", text)
    for shown in re.findall(r"!\[[^\]]*\]\((?:docs/)?images/([^)]+)\)", text):
        assert (pictures.PICTURES / shown).is_file()
