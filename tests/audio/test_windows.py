import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.audio.windows import WindowCutter, pad, plan_windows
from earmark.errors import AudioError


def cut(blocks, length, hop, padding="zero"):
    """All windows of a stream, and how many each block completes."""
    cutter = WindowCutter(length, hop, padding)
    groups = [cutter.push(block) for block in blocks]
    groups.append(cutter.finish())
    return [window for group in groups for window in group], [len(group) for group in groups]


def test_plan_agrees_with_the_reference(shared):
    plans = json.loads((shared / "golden/efficientat/pipeline/window_plan.json").read_text())
    checked = 0
    for name, spans in plans.items():
        duration, length, hop = (float(part.lstrip("Nwinhop")) for part in name.split("_"))
        if not spans:  # the reference drops what is shorter than a window; here it has one
            spans = [[0, round(length * 32000)]]
        samples = round(duration * 32000)
        starts = plan_windows(samples, round(length * 32000), round(hop * 32000))
        if (
            spans[-1][1] > samples >= length * 32000
        ):  # the reference pads the last one, here it ends with the clip
            spans[-1] = [samples - round(length * 32000), samples]
        assert [[start, start + round(length * 32000)] for start in starts] == spans, name
        checked += 1
    assert checked == 9


@pytest.mark.parametrize(
    ("num_samples", "length", "hop", "starts"),
    [
        (1, 10, 10, [0]),
        (10, 10, 10, [0]),
        (11, 10, 10, [0, 1]),
        (20, 10, 10, [0, 10]),
        (21, 10, 3, [0, 3, 6, 9, 11]),
        (50, 10, 50, [0]),  # the second window would start where the clip ends
        (51, 10, 50, [0, 41]),
        (100, 10, 50, [0, 50]),
    ],
)
def test_plan(num_samples, length, hop, starts):
    assert plan_windows(num_samples, length, hop) == starts


@given(st.integers(1, 500), st.integers(1, 60), st.integers(1, 90))
def test_plan_covers_the_clip_and_wastes_no_window(num_samples, length, hop):
    *starts, last = plan_windows(num_samples, length, hop)
    assert [*starts, last][0] == 0
    assert starts == [index * hop for index in range(len(starts))]
    assert last == max(0, min(len(starts) * hop, num_samples - length))
    assert last + max(length, hop) >= num_samples
    assert not starts or starts[-1] + max(length, hop) < num_samples, "none but the last reaches the end"


def test_pad():
    clip = np.array([1, 2, 3], np.float32)
    assert pad(clip, 8, "repeat").tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert pad(clip, 8, "zero").tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert pad(clip, 3, "repeat") is clip
    assert pad(clip, 2, "zero") is clip
    assert pad(clip, 8, "repeat").dtype == pad(clip, 8, "zero").dtype == np.float32
    with pytest.raises(ValueError, match="reflect"):
        pad(clip, 8, "reflect")
    with pytest.raises(AudioError):
        pad(clip[:0], 8, "repeat")


def test_unusable_sizes_and_streams():
    for length, hop in ((0, 5), (5, 0), (5, -1)):
        with pytest.raises(ValueError, match="at least 1"):
            WindowCutter(length, hop, "zero")
        with pytest.raises(ValueError, match="at least 1"):
            plan_windows(5, length, hop)
    with pytest.raises(ValueError, match="none"):
        WindowCutter(10, 10, "none")
    with pytest.raises(AudioError):
        plan_windows(0, 5, 5)
    for blocks in ([], [np.zeros(0, np.float32)] * 3):
        with pytest.raises(AudioError):
            cut(blocks, 10, 5)


@given(
    sizes=st.lists(st.integers(0, 70), min_size=1, max_size=12).filter(any),
    length=st.integers(1, 50),
    hop=st.integers(1, 80),
    padding=st.sampled_from(["repeat", "zero"]),
)
def test_a_stream_has_the_windows_of_the_whole_clip(sizes, length, hop, padding):
    clip = np.arange(1, 1 + sum(sizes), dtype=np.float32)
    expected, ends = [], []
    for start in plan_windows(len(clip), length, hop):
        expected.append((start, pad(clip[start : start + length], length, padding).tolist()))
        ends.append(start + length)

    windows, counts = cut(np.split(clip, np.cumsum(sizes)[:-1]), length, hop, padding)

    assert [(start, samples.tolist()) for start, samples in windows] == expected
    assert all(samples.flags.c_contiguous and samples.dtype == np.float32 for _, samples in windows)
    received = np.cumsum(sizes)
    regular = [end for index, end in enumerate(ends) if end == index * hop + length]
    complete = [sum(end <= total for end in regular) for total in received]
    assert np.cumsum(counts[:-1]).tolist() == complete, "as soon as its samples are there"


@pytest.mark.parametrize("hop", [100, 250, 1000, 30_000])
def test_what_is_held_is_bounded_by_a_window_and_a_block(hop):
    cutter = WindowCutter(1000, hop, "zero")
    for _ in range(2000):
        for _, samples in cutter.push(np.ones(500, np.float32)):
            held = samples if samples.base is None else samples.base
            assert held.size <= 1000 + 500 + min(hop, 1000)
    assert len(cutter.finish()) <= 1


def test_a_long_array_in_one_block_is_not_copied():
    clip = np.ones(1_000_000, np.float32)
    windows, _ = cut([clip], 1000, 1000)
    assert len(windows) == 1000
    assert all(np.shares_memory(samples, clip) for _, samples in windows)
