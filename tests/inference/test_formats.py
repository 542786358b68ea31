"""Results as a table, JSON, JSON lines and CSV."""

import csv
import io
import json

import numpy as np
import pytest

from earmark.inference.formats import Format, layout
from earmark.inference.result import Result, Window


def result(path: str | None = "stra,ße.wav", **changes) -> Result:
    windows = (
        Window(0.0, 0.5, np.array([0.9, 0.2, 0.1], np.float32), np.zeros(4, np.float32)),
        Window(0.5, 0.8, np.array([0.3, 0.6, 0.05], np.float32), np.ones(4, np.float32)),
    )
    values = {
        "labels": ("dog", 'door "knock"', "rain, wind"),
        "windows": windows,
        "duration_s": 0.8,
        "sample_rate": 8000,
        "model": "toy",
        "pooling": "max",
        "warnings": ("cut short",),
        "path": path,
    }
    return Result(**(values | changes))


def marked(threshold: float, path: str | None = "stra,ße.wav") -> Result:
    """Of a model with a threshold."""
    return result(path, thresholds=(threshold,) * 3)


def write(form: Format, results, top=None, threshold=None) -> str:
    """As the command line writes it."""
    parts = layout(form)
    filtered = [each.filter(threshold=threshold, top=top) for each in results]
    return parts.head + parts.between.join(map(parts.render, filtered)) + parts.tail


def test_json_is_one_list():
    predictions = json.loads(write(Format.JSON, [result(), result("b.wav")]))
    assert [found["path"] for found in predictions] == ["stra,ße.wav", "b.wav"]
    assert predictions[0] == {
        "path": "stra,ße.wav",
        "duration_s": 0.8,
        "sample_rate": 8000,
        "model": "toy",
        "calibrated": False,
        "tags": [
            {"label": "dog", "score": 0.9, "start_s": 0.0, "end_s": 0.5},
            {"label": 'door "knock"', "score": 0.6, "start_s": 0.5, "end_s": 0.8},
            {"label": "rain, wind", "score": 0.1, "start_s": 0.0, "end_s": 0.5},
        ],
        "windows": [
            {
                "start_s": 0.0,
                "end_s": 0.5,
                "tags": [
                    {"label": "dog", "score": 0.9},
                    {"label": 'door "knock"', "score": 0.2},
                    {"label": "rain, wind", "score": 0.1},
                ],
            },
            {
                "start_s": 0.5,
                "end_s": 0.8,
                "tags": [
                    {"label": 'door "knock"', "score": 0.6},
                    {"label": "dog", "score": 0.3},
                    {"label": "rain, wind", "score": 0.05},
                ],
            },
        ],
        "warnings": ["cut short"],
    }


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_of_any_number_of_results_is_json(count):
    assert len(json.loads(write(Format.JSON, [result()] * count))) == count


def test_json_lines_are_the_same_a_line_each():
    results = [result(), result("b.wav")]
    lines = write(Format.JSONL, results)
    assert lines.endswith("}\n")
    assert [json.loads(line) for line in lines.splitlines()] == json.loads(write(Format.JSON, results))
    assert write(Format.JSONL, []) == ""


def test_csv_has_a_row_a_tag():
    text = write(Format.CSV, [result(), result("b.wav")], top=2)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["path"], row["label"]) for row in rows] == [
        ("stra,ße.wav", "dog"),
        ("stra,ße.wav", 'door "knock"'),
        ("b.wav", "dog"),
        ("b.wav", 'door "knock"'),
    ]
    assert list(rows[1].values()) == ["stra,ße.wav", 'door "knock"', "0.6000", "0.500", "0.800", "false"]
    assert "\r" not in text
    assert write(Format.CSV, []) == "path,label,score,start_s,end_s,calibrated\n"


@pytest.mark.parametrize("form", [Format.JSON, Format.JSONL])
def test_top_and_threshold_hold_for_recording_and_windows(form):
    (found,) = json.loads("[" + write(form, [result()], top=2, threshold=0.25).strip("[]\n") + "]")
    assert [tag["label"] for tag in found["tags"]] == ["dog", 'door "knock"']
    assert [len(window["tags"]) for window in found["windows"]] == [1, 2]
    assert json.loads(write(Format.JSON, [result()], threshold=0.95))[0]["tags"] == []


def test_table():
    assert write(Format.TABLE, [marked(0.7), marked(0.7, None)], top=2) == (
        "stra,ße.wav  (0.8 s, toy)\n"
        ' * 0.900  dog           0.0 - 0.5 s\n   0.600  door "knock"  0.5 - 0.8 s\n'
        "\n"
        "samples  (0.8 s, toy)\n"
        ' * 0.900  dog           0.0 - 0.5 s\n   0.600  door "knock"  0.5 - 0.8 s\n'
    )


def test_a_table_of_nothing_detected():
    text = write(Format.TABLE, [marked(0.95)], top=1)
    assert "*" not in text
    assert text.endswith("   Nothing above the threshold (0.95).\n")
    for detected in (marked(0.75), result()):
        assert "Nothing" not in write(Format.TABLE, [detected])
    assert "Nothing" not in write(Format.TABLE, [marked(0.5)], top=0)


def test_probabilities_and_thresholds_per_label():
    own = result(calibrated=True, thresholds=(0.95, 0.6, 0.2))
    assert write(Format.TABLE, [own], top=2) == (
        "stra,ße.wav  (0.8 s, toy, probabilities)\n"
        '   0.900  dog           0.0 - 0.5 s\n * 0.600  door "knock"  0.5 - 0.8 s\n'
    )
    assert write(Format.TABLE, [own], threshold="auto").count("\n") == 2
    assert json.loads(write(Format.JSON, [own]))[0]["calibrated"] is True
    assert json.loads(write(Format.JSON, [own], threshold="auto"))[0]["windows"][0]["tags"] == []
    assert next(csv.DictReader(io.StringIO(write(Format.CSV, [own]))))["calibrated"] == "true"
    undetected = result(thresholds=(0.95, 0.7, 0.2))
    assert write(Format.TABLE, [undetected]).endswith("   Nothing above the threshold.\n")


def test_a_table_of_no_tags_is_its_head():
    assert write(Format.TABLE, [result()], threshold=0.99) == "stra,ße.wav  (0.8 s, toy)\n"
