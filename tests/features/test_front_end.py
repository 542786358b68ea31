import json
import math
from dataclasses import replace

import pytest

from earmark.errors import AudioError, ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.presets import EFFICIENTAT, FRONT_ENDS


@pytest.mark.parametrize(
    ("samples", "frames"), [(514, 2), (1000, 4), (3200, 10), (31_999, 100), (32_000, 100), (320_001, 1001)]
)
def test_number_of_frames(samples, frames):
    assert EFFICIENTAT.num_frames(samples) == frames


@pytest.mark.parametrize(
    ("name", "shortest", "frames"),
    [("efficientat", 514, 1000), ("sp4asc", 1025, 431), ("fsdkaggle", 513, 1001), ("audax", 513, 1004)],
)
def test_published_front_ends(name, shortest, frames):
    front_end = FRONT_ENDS[name]
    assert front_end.min_samples == shortest
    assert front_end.num_frames(10 * front_end.sample_rate) == frames
    with pytest.raises(AudioError):
        front_end.num_frames(shortest - 1)


@pytest.mark.parametrize("standardize", [False, True, "log_mel"])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_json_round_trip(name, standardize):
    wanted = replace(FRONT_ENDS[name], standardize=standardize, floor=1e-5)
    written = json.dumps(wanted.to_dict())
    assert ("standardize" in json.loads(written)) == bool(standardize), "files of earlier versions are read"
    front_end = FrontEnd.from_dict(json.loads(written))
    assert front_end == wanted
    assert json.dumps(front_end.to_dict()) == written


def test_whole_numbers_are_written_as_the_floats_they_stand_for():
    assert json.dumps(replace(EFFICIENTAT, f_max=14_000).to_dict()["f_max"]) == "14000.0"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 32_000.0),
        ("sample_rate", "32000"),
        ("n_fft", 1023),
        ("n_fft", True),
        ("n_fft", 2**40),
        ("win_length", 1025),
        ("win_length", 0),
        ("hop_length", 0),
        ("n_mels", -1),
        ("n_mels", None),
        ("f_min", 15_000.0),
        ("f_min", -1.0),
        ("f_max", 16_001.0),
        ("f_max", math.nan),
        ("preemphasis", 1.5),
        ("preemphasis", False),
        ("window", "hamming"),
        ("window", ["hann"]),
        ("window_symmetric", 1),
        ("standardize", 1),
        ("standardize", "waveform"),
        ("window_placement", "end"),
        ("padding", "constant"),
        ("power", 0.0),
        ("mel_scale", None),
        ("mel_norm", "htk"),
        ("log", "log10"),
        ("floor_mode", "max"),
        ("floor", -1e-5),
        ("floor", 1e-50),
        ("floor", 1e400),
        ("ceiling", 1e-6),
        ("ceiling", "none"),
        ("shift", math.inf),
        ("scale", 0.0),
    ],
)
def test_fields_out_of_range_raise(name, value):
    with pytest.raises(ModelError, match=f"front-end: {name} must be"):
        FrontEnd.from_dict(EFFICIENTAT.to_dict() | {name: value})


def test_unknown_and_missing_fields_raise():
    values = EFFICIENTAT.to_dict()
    with pytest.raises(ModelError, match=r"unknown fields.*hopsize"):
        FrontEnd.from_dict(values | {"hopsize": 320})
    del values["f_max"]
    with pytest.raises(ModelError, match=r"missing fields.*f_max"):
        FrontEnd.from_dict(values)
