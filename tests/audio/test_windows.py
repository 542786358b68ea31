import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.audio.windows import pad, plan_windows, window_chunks
from earmark.errors import AudioError


def test_plan_agrees_with_the_reference(shared):
    plans = json.loads((shared / "golden/efficientat/pipeline/window_plan.json").read_text())
    checked = 0
    for name, spans in plans.items():
        duration, length, hop = (float(part.lstrip("Nwinhop")) for part in name.split("_"))
        if not spans:  # the reference drops what is shorter than a window; here it has one
            spans = [[0, round(length * 32000)]]
        starts = plan_windows(round(duration * 32000), round(length * 32000), round(hop * 32000))
        assert [[start, start + round(length * 32000)] for start in starts] == spans, name
        checked += 1
    assert checked == 9


@pytest.mark.parametrize(
    ("num_samples", "length", "hop", "starts"),
    [
        (1, 10, 10, [0]),
        (10, 10, 10, [0]),
        (11, 10, 10, [0, 10]),
        (20, 10, 10, [0, 10]),
        (21, 10, 3, [0, 3, 6, 9, 12]),
        (50, 10, 50, [0]),  # the second window would start where the clip ends
        (51, 10, 50, [0, 50]),
        (100, 10, 50, [0, 50]),
    ],
)
def test_plan(num_samples, length, hop, starts):
    assert plan_windows(num_samples, length, hop) == starts


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 90))
def test_plan_covers_the_clip_and_wastes_no_window(num_samples, length, hop):
    starts = plan_windows(num_samples, length, hop)
    assert starts[0] == 0
    assert all(after - before == hop for before, after in pairwise(starts))
    assert starts[-1] < num_samples
    assert starts[-1] + max(length, hop) >= num_samples
    assert len(starts) == 1 or starts[-2] + length < num_samples


def test_pad():
    clip = np.array([1, 2, 3], np.float32)
    assert pad(clip, 8, "repeat").tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert pad(clip, 8, "zero").tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert pad(clip, 3, "repeat") is clip
    assert pad(clip, 2, "zero") is clip
    assert pad(clip, 8, "repeat").dtype == pad(clip, 8, "zero").dtype == np.float32
    with pytest.raises(ValueError, match="repeat or zero, not 'reflect'"):
        pad(clip, 8, "reflect")
    with pytest.raises(AudioError, match="no samples"):
        pad(clip[:0], 8, "repeat")


def test_sizes_below_one_are_refused():
    for sizes in ((5, 0, 1), (0, 5, 1), (5, 5, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            list(window_chunks([np.ones(9, np.float32)], sizes[0], sizes[1], "zero", sizes[2]))
    with pytest.raises(ValueError, match="at least 1"):
        plan_windows(5, 5, 0)
    with pytest.raises(AudioError, match="no samples"):
        plan_windows(0, 5, 5)


def test_no_samples_at_all():
    for blocks in ([], [np.zeros(0, np.float32)] * 3):
        with pytest.raises(AudioError, match="no samples"):
            list(window_chunks(blocks, 10, 5, "repeat", 2))


def test_a_misspelt_padding_is_refused_even_where_no_clip_is_short():
    with pytest.raises(ValueError, match="repeat or zero"):
        list(window_chunks([np.ones(100, np.float32)], 10, 10, "none", 2))


@given(
    sizes=st.lists(st.integers(0, 70), min_size=1, max_size=12).filter(any),
    length=st.integers(1, 50),
    hop=st.integers(1, 80),
    windows_per_chunk=st.integers(1, 5),
    padding=st.sampled_from(["repeat", "zero"]),
)
def test_a_stream_has_the_windows_of_the_whole_clip(sizes, length, hop, windows_per_chunk, padding):
    clip = np.arange(1, 1 + sum(sizes), dtype=np.float32)
    blocks = np.split(clip, np.cumsum(sizes)[:-1])
    expected = []
    for start in plan_windows(len(clip), length, hop):
        mode = padding if len(clip) < length else "zero"
        expected.append((start, pad(clip[start : start + length], length, mode).tolist()))

    chunks = list(window_chunks(blocks, length, hop, padding, windows_per_chunk))

    found = []
    for chunk in chunks:
        assert chunk.waveform.flags.c_contiguous
        assert chunk.waveform.dtype == np.float32
        assert chunk.waveform.shape == (chunk.starts[-1] + length,)
        for start in chunk.starts:
            found.append((chunk.first_sample + start, chunk.waveform[start : start + length].tolist()))
    assert found == expected
    assert chunks[-1].num_samples == len(clip)
    assert all(len(chunk.starts) <= windows_per_chunk for chunk in chunks)


@pytest.mark.parametrize("hop", [100, 250, 1000, 30_000])
def test_memory_is_bounded_by_a_chunk_and_a_block(hop):
    read = 0

    def blocks():
        nonlocal read
        for _ in range(2000):
            read += 500
            yield np.ones(500, np.float32)

    for chunk in window_chunks(blocks(), 1000, hop, "zero", 4):
        held = chunk.waveform if chunk.waveform.base is None else chunk.waveform.base
        assert held.size <= 1000 + 3 * min(hop, 1000) + 2 * 500
        if hop <= 1000:
            assert read <= chunk.first_sample + 1000 + 3 * hop + 2 * 500
    assert read == 1_000_000


def test_a_long_array_in_one_block_is_not_copied():
    clip = np.ones(1_000_000, np.float32)
    chunks = list(window_chunks([clip], 1000, 1000, "zero", 10))
    assert len(chunks) == 100
    assert all(np.shares_memory(chunk.waveform, clip) for chunk in chunks)
