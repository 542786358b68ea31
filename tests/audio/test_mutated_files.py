"""Mutated files of every format end in tags or in one typed line; ``mutated_files.py`` tries more of them."""

import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="limits of processes as Linux has them"),
]


def test_mutated_files_are_tagged_or_refused_in_one_line():
    from mutated_files import fuzz

    counts, remarks = fuzz(300)
    assert not remarks, "\n".join(remarks)
    assert counts["tagged"] > 50
    assert counts["typed"] > 50
    assert counts.total() == 300
