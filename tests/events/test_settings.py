"""Settings of events in TOML files."""

from pathlib import Path

import pytest

from earmark.errors import DataError, ModelError
from earmark.events.options import LabelOptions
from earmark.events.settings import read_settings

LABELS = ("Dog", "Chicken, rooster")


def test_a_file_has_settings_for_all_labels_and_for_single_ones(tmp_path: Path) -> None:
    path = tmp_path / "events.toml"
    path.write_text(
        'threshold = 0.4\nmethod = "change_points"\n[labels.dog]\nthreshold = 0.3\n'
        '[labels."chicken,rooster"]\nmerge_gap_s = 1\n'
    )
    options = read_settings(path, LABELS, {"threshold": None, "min_duration_s": 2.0})
    assert (options.threshold, options.min_duration_s, options.method) == (0.4, 2.0, "change_points")
    assert options.per_label == {
        "Dog": LabelOptions(threshold=0.3),
        "Chicken, rooster": LabelOptions(merge_gap_s=1),
    }


def test_without_a_file_there_are_only_the_changes() -> None:
    assert read_settings(None, LABELS, {"smooth_s": 1.5}).smooth_s == 1.5
    with pytest.raises(ModelError):
        read_settings(None, LABELS, {"smooth_s": -1.5})


@pytest.mark.parametrize(
    "text",
    [
        "threshold =",
        "treshold = 0.4",
        "per_label = 1",
        'threshold = "0.4"',
        "threshold = true",
        'min_duration_s = "auto"',
        "min_duration_s = -1",
        "labels = 3",
        "labels.Dog = 3",
        "labels.Cat.threshold = 0.3",
        "labels.Dog.method = 'hysteresis'",
        "labels.Dog.threshold = 'auto'",
        "labels.Dog.threshold = -1",
    ],
)
def test_mistakes_name_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "events.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"events\.toml: "):
        read_settings(path, LABELS, {})


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.toml"):
        read_settings(tmp_path / "none.toml", LABELS, {})
