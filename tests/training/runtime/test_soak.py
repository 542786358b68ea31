"""A training that is killed again and again ends as if nothing had happened."""

import pytest

from benchmarks.soak import soak


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_equal(tmp_path):
    """``python -m benchmarks.soak`` does it for longer."""
    found = soak(tmp_path, steps=300, kills=8, full_disks=1)
    assert found["problems"] == []
    assert found["steps"] >= 300
    assert sum(found["disturbances"].values()) == 9
    assert found["disturbances"]["full disk"] == 1
