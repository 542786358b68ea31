"""Damaged and hostile files are read or refused in one line, and never end the process.

``EARMARK_FUZZ=1000 pytest -m slow tests/fuzz`` reads a thousand of each kind.
"""

import os
from pathlib import Path
from random import Random

import pytest
from fuzz import fuzz
from kinds import KINDS
from mutations import bytes_changed, json_changed, text_changed

COUNT = int(os.environ.get("EARMARK_FUZZ", "40"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_ends_in_a_traceback_or_a_crash(kind: str, tmp_path: Path) -> None:
    report = fuzz(kind, COUNT, tmp_path)
    assert sum(report.counts.values()) == COUNT
    assert report.counts["accepted"], "all files are refused: are the intact ones read?"
    assert report.counts["typed"]
    assert not report.failures


@pytest.mark.parametrize("change", [bytes_changed, text_changed, json_changed])
def test_changes_are_those_of_their_number(change) -> None:
    content = b'{"a": [1, 2, {"b": "text"}], "c": 0.5}'
    changed = [change(Random(number), content) for number in range(50)]
    assert changed == [change(Random(number), content) for number in range(50)]
    assert len({*changed, content}) > 40
