import json
from dataclasses import replace

import numpy as np
import pytest

from earmark.errors import AudioError, ModelError
from earmark.features.learned import (
    LEAF,
    SINCNET,
    GraphFrontEnd,
    LearnedFrontEnd,
    WaveformWindows,
    front_end_from_dict,
)
from earmark.features.presets import AUDAX
from earmark.model_file.info import ModelInfo


@pytest.mark.parametrize("front_end", [LEAF, SINCNET, AUDAX, GraphFrontEnd(AUDAX)])
def test_json_round_trip(info, front_end):
    assert front_end_from_dict(json.loads(json.dumps(front_end.to_dict()))) == front_end
    learned = info.changed(front_end=front_end)
    assert ModelInfo.from_json(learned.to_json()) == learned


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "mel"),
        ("kind", ["leaf"]),
        ("sample_rate", 0),
        ("n_mels", 64.0),
        ("n_mels", True),
        ("win_length", 400),
        ("hop_length", 402),
        ("hop_length", 0),
        ("f_min", 7800),
        ("f_max", 8001),
        ("f_max", float("nan")),
        ("f_min", "60"),
        ("initial_filters", "random"),
        ("initial_filters", None),
    ],
)
def test_fields_out_of_range_raise(field, value):
    with pytest.raises(ModelError, match=f"front-end: {field[:3]}"):
        replace(LEAF, **{field: value})


def test_initial_filters_are_written_only_where_they_are_random():
    assert "initial_filters" not in LEAF.to_dict(), "files of earlier versions are read"
    drawn = replace(LEAF, initial_filters="lecun_normal")
    assert front_end_from_dict(drawn.to_dict()) == drawn
    with pytest.raises(ModelError, match="initial_filters"):
        replace(SINCNET, initial_filters="randn")


def test_unknown_and_missing_fields_raise():
    values = LEAF.to_dict()
    with pytest.raises(ModelError):
        front_end_from_dict(values | {"colour": 1})
    del values["n_mels"]
    with pytest.raises(ModelError):
        front_end_from_dict(values)


def test_log_mel_in_the_graph():
    within = GraphFrontEnd(AUDAX)
    assert (within.graph_input, within.sample_rate, within.n_mels) == ("waveform", 16000, 64)
    assert (within.min_samples, within.mask_value) == (AUDAX.min_samples, AUDAX.mask_value)
    assert within.num_frames(16000) == AUDAX.num_frames(16000)
    with pytest.raises(ModelError):
        front_end_from_dict(AUDAX.to_dict() | {"in_graph": 1})
    with pytest.raises(ModelError):
        front_end_from_dict(within.to_dict() | {"colour": 1})


def test_whole_numbers_of_hertz_are_equal():
    assert LearnedFrontEnd(f_min=60).to_dict() == LEAF.to_dict()
    assert isinstance(LearnedFrontEnd(f_min=60).f_min, float)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (160, 1), (161, 2), (16000, 100)])
def test_frames(samples, frames):
    assert LEAF.num_frames(samples) == frames


def test_no_samples_raise():
    with pytest.raises(AudioError):
        LEAF.num_frames(0)


def test_windows_are_slices():
    waveform = np.arange(10, dtype=np.float32)
    windows = WaveformWindows().windows(waveform, (0, 3), 4)
    assert windows.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert windows.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_non_finite_waveforms_raise(value):
    with pytest.raises(AudioError):
        WaveformWindows().windows(np.array([0, value], np.float32), (0,), 2)
