"""A record comes back as it was, and a damaged one is refused."""

import json
import math
from dataclasses import FrozenInstanceError, fields

import pytest

from earmark.errors import ModelError
from earmark.model_file.calibration import Platt, Temperature
from earmark.model_file.info import RECORD_VERSION, ModelInfo


def stored(info, **changes) -> str:
    """The record as a program would find it, with some fields changed; None removes a field."""
    values = json.loads(info.to_json()) | changes
    return json.dumps({key: value for key, value in values.items() if value is not None})


def test_it_comes_back_as_it_was(info):
    assert ModelInfo.from_json(info.to_json()) == info
    assert ModelInfo.from_json(info.to_json().encode()) == info
    bare = info.changed(threshold=None, metrics={}, provenance={}, card="", arguments={"strides": [2, 2]})
    assert ModelInfo.from_json(bare.to_json()) == bare


def test_it_is_stored_with_every_field_and_its_version(info):
    values = json.loads(info.to_json())
    assert set(values) == {entry.name for entry in fields(ModelInfo)} | {"version"}
    assert values["version"] == RECORD_VERSION
    assert values["front_end"] == info.front_end.to_dict()
    assert "hört Töne" in info.to_json()


def test_equal_records_are_equal_texts(info):
    one = info.changed(metrics={"a": 1, "b": 2})
    other = info.changed(metrics={"b": 2, "a": 1})
    assert one.to_json() == other.to_json()
    assert one.to_json() != info.to_json()


def test_it_cannot_be_changed_in_place(info):
    with pytest.raises(FrozenInstanceError):
        info.name = "other"
    assert info.changed(name="other").name == "other"
    assert info.name == "toy"


def test_calibration_and_thresholds_come_back(info):
    several = info.changed(calibration=Platt((1.0, 0.5), (0, -1), {"clips": 9}), threshold=(0.25, 0.75))
    assert ModelInfo.from_json(several.to_json()) == several
    assert several.thresholds == (0.25, 0.75)
    assert info.thresholds == (0.5, 0.5)
    assert info.changed(threshold=None).thresholds is None
    single = info.changed(calibration=Temperature(2), task="single_label")
    assert ModelInfo.from_json(single.to_json()) == single


def test_a_record_of_version_1_still_loads(info):
    values = json.loads(info.to_json())
    del values["calibration"]
    assert ModelInfo.from_json(json.dumps(values | {"version": 1})) == info


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"calibration": Temperature(2)}, "temperature is not for task multi_label"),
        ({"calibration": Platt((1,), (0,))}, "is for 1 classes, there are 2 labels"),
        (
            {"calibration": Platt((1, 1), (0, 0)), "task": "single_label"},
            "platt is not for task single_label",
        ),
        ({"calibration": 2.0}, "must be a temperature, sigmoids or lines, not 2.0"),
        ({"threshold": (0.5,)}, "one for each label, not 1"),
        ({"threshold": ()}, "one for each label, not 0"),
        ({"threshold": (0.5, 1.5)}, r"must lie in \[0, 1\]"),
    ],
)
def test_what_does_not_fit_the_labels_is_refused(info, changes, said):
    with pytest.raises(ModelError, match=said):
        info.changed(**changes)


@pytest.mark.parametrize(
    "name", ["threshold", "calibration", "description", "license", "source", "metrics", "provenance", "card"]
)
def test_what_has_a_default_may_be_missing(info, name):
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
def test_what_has_none_may_not(info, name):
    with pytest.raises(ModelError, match=rf"lacks \['{name}'\]"):
        ModelInfo.from_json(stored(info, **{name: None}))


def test_an_unknown_field_is_refused(info):
    with pytest.raises(ModelError, match=r"unknown fields \['colour'\]"):
        ModelInfo.from_json(stored(info, colour="red"))


def test_a_newer_version_asks_for_an_upgrade(info):
    with pytest.raises(
        ModelError, match=rf"version {RECORD_VERSION + 1}.* up to {RECORD_VERSION}: upgrade earmark"
    ):
        ModelInfo.from_json(stored(info, version=RECORD_VERSION + 1, colour="red"))


@pytest.mark.parametrize("version", [None, 0, -1, "1", 1.0, [1], True])
def test_a_version_that_is_none_is_refused(info, version):
    with pytest.raises(ModelError, match="no valid version"):
        ModelInfo.from_json(stored(info, version=version))


@pytest.mark.parametrize("text", ["", "{", "not json", b"\xff\xfe\x00", "\x00"])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(ModelError, match="not valid JSON"):
        ModelInfo.from_json(text)


@pytest.mark.parametrize("text", ["[]", "1", '"record"', "null"])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(ModelError, match="not a JSON object"):
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
def test_a_value_that_cannot_be_is_refused(info, name, value):
    with pytest.raises(
        ModelError, match=name.replace("front_end", "front.end|malformed").replace("labels", "label")
    ):
        ModelInfo.from_json(stored(info, **{name: value}))


def test_a_front_end_with_a_wrong_value_is_refused(info):
    values = info.front_end.to_dict() | {"hop_length": 0}
    with pytest.raises(ModelError, match="hop_length"):
        ModelInfo.from_json(stored(info, front_end=values))


@pytest.mark.parametrize("threshold", [0, 1, 0.5])
def test_the_ends_of_the_range_are_thresholds(info, threshold):
    assert info.changed(threshold=threshold).threshold == threshold


def test_messages_are_one_line(info):
    for text in ("", "[]", stored(info, colour=1), stored(info, task="x"), stored(info, version=9)):
        with pytest.raises(ModelError) as caught:
            ModelInfo.from_json(text)
        assert "\n" not in str(caught.value)
