"""Model info survives a round trip through JSON, and invalid values are refused."""

import json
import math
from dataclasses import FrozenInstanceError, fields

import pytest

from earmark.errors import ModelError
from earmark.model_file.calibration import Platt, Temperature
from earmark.model_file.info import INFO_VERSION, ModelInfo


def stored(info, **changes) -> str:
    """The JSON of a model info with some fields changed; None removes a field."""
    values = json.loads(info.to_json()) | changes
    return json.dumps({key: value for key, value in values.items() if value is not None})


def test_round_trip(info):
    assert ModelInfo.from_json(info.to_json()) == info
    assert ModelInfo.from_json(info.to_json().encode()) == info
    bare = info.changed(threshold=None, metrics={}, provenance={}, card="", arguments={"strides": [2, 2]})
    assert ModelInfo.from_json(bare.to_json()) == bare


def test_every_field_and_the_version_are_stored(info):
    values = json.loads(info.to_json())
    assert set(values) == {entry.name for entry in fields(ModelInfo)} | {"version"}
    assert values["version"] == INFO_VERSION
    assert values["front_end"] == info.front_end.to_dict()
    assert "hört Töne" in info.to_json()


def test_equal_infos_are_equal_strings(info):
    one = info.changed(metrics={"a": 1, "b": 2})
    other = info.changed(metrics={"b": 2, "a": 1})
    assert one.to_json() == other.to_json()
    assert one.to_json() != info.to_json()


def test_it_is_immutable(info):
    with pytest.raises(FrozenInstanceError):
        info.name = "other"
    assert info.changed(name="other").name == "other"
    assert info.name == "toy"


def test_round_trip_of_calibration_and_thresholds(info):
    several = info.changed(
        calibration=Platt((1.0, 0.5), (0, -1), {"clips": 9}),
        threshold=(0.25, 0.75),
        threshold_rule="precision=0.9 on 9 clips",
    )
    assert ModelInfo.from_json(several.to_json()) == several
    assert several.thresholds == (0.25, 0.75)
    assert info.thresholds == (0.5, 0.5)
    assert info.changed(threshold=None).thresholds is None
    single = info.changed(calibration=Temperature(2), task="single_label")
    assert ModelInfo.from_json(single.to_json()) == single


def test_version_1_still_loads(info):
    values = json.loads(info.to_json())
    del values["calibration"], values["threshold_rule"]
    assert ModelInfo.from_json(json.dumps(values | {"version": 1})) == info


@pytest.mark.parametrize(
    "changes",
    [
        {"calibration": Temperature(2)},
        {"calibration": Platt((1,), (0,))},
        {"calibration": Platt((1, 1), (0, 0)), "task": "single_label"},
        {"calibration": 2.0},
        {"threshold": (0.5,)},
        {"threshold": ()},
        {"threshold": (0.5, 1.5)},
        {"threshold": None, "threshold_rule": "precision=0.9"},
    ],
)
def test_values_that_do_not_fit_the_labels_or_task_are_refused(info, changes):
    with pytest.raises(ModelError):
        info.changed(**changes)


@pytest.mark.parametrize(
    "name",
    [
        "threshold",
        "threshold_rule",
        "calibration",
        "description",
        "license",
        "source",
        "metrics",
        "provenance",
        "card",
    ],
)
def test_optional_fields_may_be_missing(info, name):
    plain = ModelInfo.from_json(stored(info, **{name: None}))
    assert getattr(plain, name) in (None, "", {})


@pytest.mark.parametrize(
    "name",
    [
        "name",
        "labels",
        "front_end",
        "task",
        "architecture",
        "arguments",
        "window_s",
        "padding",
        "embedding_size",
    ],
)
def test_required_fields_may_not_be_missing(info, name):
    with pytest.raises(ModelError, match=rf"lacks \['{name}'\]"):
        ModelInfo.from_json(stored(info, **{name: None}))


def test_an_unknown_field_is_refused(info):
    with pytest.raises(ModelError, match="colour"):
        ModelInfo.from_json(stored(info, colour="red"))


def test_a_newer_version_asks_for_an_upgrade(info):
    with pytest.raises(ModelError, match="upgrade earmark"):
        ModelInfo.from_json(stored(info, version=INFO_VERSION + 1, colour="red"))


@pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, [1], True])
def test_an_invalid_version_is_refused(info, version):
    with pytest.raises(ModelError):
        ModelInfo.from_json(stored(info, version=version))


@pytest.mark.parametrize("text", ["", "{", "not json", b"\xff\xfe\x00", "\x00"])
def test_text_other_than_json_is_refused(text):
    with pytest.raises(ModelError):
        ModelInfo.from_json(text)


@pytest.mark.parametrize("text", ["[]", "1", '"record"', "null"])
def test_json_other_than_an_object_is_refused(text):
    with pytest.raises(ModelError):
        ModelInfo.from_json(text)


WRONG = [
    ("name", 7),
    ("labels", []),
    ("labels", "tone"),
    ("labels", {"tone": 1}),
    ("labels", 2),
    ("labels", ["tone", ""]),
    ("labels", ["tone", 2]),
    ("labels", [["tone"], "noise"]),
    ("labels", ["tone", "tone"]),
    ("task", "multi"),
    ("task", ["multi_label"]),
    ("padding", "reflect"),
    ("padding", 0),
    ("architecture", 4),
    ("arguments", []),
    ("arguments", "width"),
    ("window_s", 0),
    ("window_s", -1.0),
    ("window_s", "10"),
    ("window_s", True),
    ("window_s", math.nan),
    ("window_s", math.inf),
    ("window_s", 600.5),
    ("labels", ["tone", "\ud800"]),
    ("embedding_size", 0),
    ("embedding_size", 1.5),
    ("embedding_size", True),
    ("embedding_size", "96"),
    ("threshold", -0.1),
    ("threshold", 1.1),
    ("threshold", "0.5"),
    ("threshold", True),
    ("threshold", math.nan),
    ("threshold", [0.5, "0.5"]),
    ("calibration", 7),
    ("calibration", {"method": "platt"}),
    ("description", 1),
    ("license", ["MIT"]),
    ("source", {}),
    ("metrics", []),
    ("provenance", "a test"),
    ("card", 1),
    ("front_end", {}),
    ("front_end", "efficientat"),
    ("front_end", ["sample_rate"]),
    ("front_end", 3),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_an_invalid_value_is_refused(info, name, value):
    with pytest.raises(ModelError):
        ModelInfo.from_json(stored(info, **{name: value}))


def test_an_error_names_the_field(info):
    values = info.front_end.to_dict() | {"hop_length": 0}
    with pytest.raises(ModelError, match="hop_length"):
        ModelInfo.from_json(stored(info, front_end=values))


@pytest.mark.parametrize("threshold", [0, 1, 0.5])
def test_thresholds_include_0_and_1(info, threshold):
    assert info.changed(threshold=threshold).threshold == threshold


def test_messages_are_one_line(info):
    for text in ("", "[]", stored(info, colour=1), stored(info, task="x"), stored(info, version=9)):
        with pytest.raises(ModelError) as caught:
            ModelInfo.from_json(text)
        assert "\n" not in str(caught.value)


def test_a_window_of_gigabytes_is_refused(info):
    assert info.changed(window_s=600.0).window_s == 600
    dense = info.front_end.from_dict(info.front_end.to_dict() | {"hop_length": 1, "n_mels": 64})
    with pytest.raises(ModelError, match="window_s must be shorter"):
        info.changed(window_s=600.0, front_end=dense)
