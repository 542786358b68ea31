"""What a record says of a front-end that learns, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

from earmark.errors import AudioError, ModelError
from earmark.features.front_end import AUDAX
from earmark.features.learned import (
    LEAF,
    SINCNET,
    GraphFrontEnd,
    LearnedFrontEnd,
    Waveforms,
    front_end_from_dict,
)
from earmark.model_file.info import ModelInfo


@pytest.mark.parametrize("front_end", [LEAF, SINCNET, AUDAX, GraphFrontEnd(AUDAX)])
def test_it_comes_back_as_it_was(info, front_end):
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
    ],
)
def test_a_value_that_cannot_be_is_refused(field, value):
    with pytest.raises(ModelError, match=rf"front-end: {field.replace('f_max', 'f_m')}"):
        replace(LEAF, **{field: value})


def test_unknown_and_missing_fields_are_refused():
    values = LEAF.to_dict()
    with pytest.raises(ModelError, match=r"unknown fields \['colour'\]"):
        front_end_from_dict(values | {"colour": 1})
    del values["n_mels"]
    with pytest.raises(ModelError, match=r"missing fields \['n_mels'\]"):
        front_end_from_dict(values)


def test_a_log_mel_in_the_graph_is_told_from_one_before_it():
    within = GraphFrontEnd(AUDAX)
    assert (within.graph_input, within.sample_rate, within.n_mels) == ("waveform", 16000, 64)
    assert (within.min_samples, within.neutral) == (AUDAX.min_samples, AUDAX.neutral)
    assert within.num_frames(16000) == AUDAX.num_frames(16000)
    with pytest.raises(ModelError, match="in_graph must be true, not 1"):
        front_end_from_dict(AUDAX.to_dict() | {"in_graph": 1})
    with pytest.raises(ModelError, match=r"unknown fields \['colour'\]"):
        front_end_from_dict(within.to_dict() | {"colour": 1})


def test_whole_numbers_of_hertz_are_equal():
    assert LearnedFrontEnd(f_min=60).to_dict() == LEAF.to_dict()
    assert isinstance(LearnedFrontEnd(f_min=60).f_min, float)


@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (160, 1), (161, 2), (16000, 100)])
def test_frames(samples, frames):
    assert LEAF.num_frames(samples) == frames


def test_no_samples_have_no_frames():
    with pytest.raises(AudioError, match="no samples"):
        LEAF.num_frames(0)


def test_windows_are_cut_as_they_are():
    waveform = np.arange(10, dtype=np.float32)
    windows = Waveforms().windows(waveform, (0, 3), 4)
    assert windows.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert windows.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_what_is_no_audio_is_refused(value):
    with pytest.raises(AudioError, match="NaN"):
        Waveforms().windows(np.array([0, value], np.float32), (0,), 2)
