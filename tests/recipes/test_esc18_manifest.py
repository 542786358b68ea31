"""The manifest of esc18."""

import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "esc18"
sys.path.insert(0, str(RECIPE))  # the recipe's scripts are no package
import manifest  # noqa: E402

sys.path.remove(str(RECIPE))

from earmark.errors import DataError  # noqa: E402


def test_it_lists_every_clip(shared: Path, tmp_path: Path) -> None:
    rows = manifest.rows(shared / "data/esc18", tmp_path)
    assert len(rows) == 576
    assert {row["fold"] for row in rows} == {"1", "2", "3", "4"}
    assert len({row["labels"] for row in rows}) == 18
    assert all((tmp_path / row["path"]).is_file() for row in rows)


def test_a_folder_without_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        manifest.rows(tmp_path, tmp_path)
    (tmp_path / "meta.csv").write_text("filename,fold\na.ogg,1\n")
    with pytest.raises(DataError):
        manifest.rows(tmp_path, tmp_path)
