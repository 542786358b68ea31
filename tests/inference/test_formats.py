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


def test_a_table_has_the_tags_of_each_result():
    text = write(Format.TABLE, [result(), result(None)], top=2)
    first, second = text.split("\n\n")
    assert first.startswith("stra,ße.wav  (0.8 s, toy)\n")
    assert second.startswith("samples  (0.8 s, toy)\n")
    assert "rain" not in text


def test_results_tell_whether_scores_are_probabilities():
    own = result(calibrated=True, thresholds=(0.95, 0.6, 0.2))
    assert write(Format.TABLE, [own]).startswith("stra,ße.wav  (0.8 s, toy, probabilities)\n")
    assert json.loads(write(Format.JSON, [own]))[0]["calibrated"] is True
    assert json.loads(write(Format.JSON, [own], threshold="auto"))[0]["windows"][0]["tags"] == []
    assert next(csv.DictReader(io.StringIO(write(Format.CSV, [own]))))["calibrated"] == "true"
