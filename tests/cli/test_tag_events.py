"""``earmark tag --events``, ``--whole`` and ``--windows``."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from one_line import assert_one_line
from pyarrow import parquet

import earmark
from earmark.events.layout import TAG_FORMATS, Format

RATE = 8000
LOW = ("--threshold", "0.52", "--off-threshold", "0.52", "--min-duration", "0")


def write(path: Path, seconds: float = 3.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    loud = np.repeat(generator.choice([0.001, 0.3], 1 + len(time) // 4000), 4000)[: len(time)]
    soundfile.write(
        path, loud * np.sin(2 * np.pi * 700 * time) + 0.01 * generator.standard_normal(len(time)), RATE
    )
    return path


@pytest.fixture
def tag(run: Callable[..., tuple[int, str, str]], toy_model: Path):
    return lambda *arguments: run("tag", *arguments, "--model", toy_model)


@pytest.fixture(scope="module")
def tagger(toy_model: Path) -> earmark.Tagger:
    return earmark.load(toy_model, threads=1)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_events_are_those_of_the_result(tag, tagger: earmark.Tagger, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav")
    code, out, err = tag(path, "--events", "-f", "csv", *LOW, "--hop", "0.1", "--merge-gap", "0.25")
    assert (code, err) == (0, "")
    options = earmark.EventOptions(threshold=0.52, off_threshold=0.52, min_duration_s=0, merge_gap_s=0.25)
    expected = tagger.tag(path, hop_s=0.1, window_s=0.5).events(options=options)
    assert len(expected) > 2, "a test that compares something"
    found = [(row["label"], float(row["start_s"]), float(row["end_s"])) for row in rows_of(out)]
    assert found == [(one.label, round(one.start_s, 3), round(one.end_s, 3)) for one in expected]
    assert {row["path"] for row in rows_of(out)} == {str(path)}


def test_thresholds_of_a_result(tagger: earmark.Tagger, tmp_path: Path) -> None:
    result = tagger.tag(write(tmp_path / "a.wav"), window_s=0.5, hop_s=0.125)
    assert result.events("auto") == result.events() == result.events(0.5), "the model's own"
    assert result.events(0.6) == ()
    assert {one.label for one in result.filter("noise").events(0.1)} == {"noise"}
    assert max(one.end_s for one in result.events(0.0)) == pytest.approx(3.0)


@pytest.mark.parametrize("form", [form for form in Format if form is not Format.PARQUET])
def test_every_format_is_written(tag, tmp_path: Path, form: Format) -> None:
    path, target = write(tmp_path / "a.wav"), tmp_path / "out.x"
    code, out, err = tag(path, "--events", "-f", form, *LOW)
    assert (code, err) == (0, "")
    assert "noise" in out or "tone" in out
    assert tag(path, "--events", "-f", form, *LOW, "-o", target) == (0, "", "")
    if form is not Format.TABLE:
        assert target.read_text() == out


def test_several_files(tag, tmp_path: Path) -> None:
    paths = [write(tmp_path / "in" / name, seed=seed) for seed, name in enumerate(("a.wav", "b/a.wav"))]
    (tmp_path / "in" / "c.wav").write_text("no sound")
    code, out, err = tag(tmp_path / "in", "-r", "--events", "-f", "jsonl", *LOW)
    assert code == 1
    assert [json.loads(line)["path"] for line in out.splitlines()] == list(map(str, paths))
    assert "c.wav" in err

    target = tmp_path / "events.parquet"
    assert tag(tmp_path / "in", "-r", "--events", "-f", "parquet", *LOW, "-o", target)[0] == 1
    found = parquet.read_table(target).to_pylist()
    expected = [
        (line["path"], one["start_s"]) for line in map(json.loads, out.splitlines()) for one in line["events"]
    ]
    assert [(row["path"], row["start_s"]) for row in found] == expected

    assert tag(tmp_path / "in", "-r", "--events", "-f", "textgrid", *LOW, "-o", tmp_path / "grids")[0] == 1
    grids = sorted(path.relative_to(tmp_path / "grids") for path in (tmp_path / "grids").rglob("*.*"))
    assert grids == [Path("a.TextGrid"), Path("b/a.TextGrid")]


def test_a_format_of_one_recording_takes_one(tag, tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("a.wav", "b.wav")]
    code, out, err = tag(*paths, "--events", "-f", "audacity", *LOW)
    assert code == 1
    assert out == tag(paths[0], "--events", "-f", "audacity", *LOW)[1]
    assert_one_line(err, "b.wav")


def test_nothing_read_leaves_the_file_that_is_there(tag, tmp_path: Path) -> None:
    target = tmp_path / "events.parquet"
    target.write_text("before")
    assert tag(tmp_path / "none.wav", "--events", "-f", "parquet", "-o", target)[0] == 2
    assert target.read_text() == "before"


def test_times_of_day(tag, tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("20240131_235959.wav", "b.wav")]
    zone = ("--time-from", "name", "--time-zone", "Europe/Berlin")
    code, out, err = tag(*paths, "--events", "-f", "csv", *LOW, *zone)
    assert code == 0
    times = [row["start_time"] for row in rows_of(out) if row["path"] == str(paths[0])]
    assert times
    assert all(time.startswith(("2024-01-31T23:59:59", "2024-02-01T00:00:0")) for time in times)
    assert all(time.endswith("+01:00") for time in times)
    assert {row["start_time"] for row in rows_of(out) if row["path"] == str(paths[1])} == {""}
    assert_one_line(err, "b.wav")
    assert_one_line(tag(paths[0], "--events", "--time-from", "name", "--time-zone", "Mars")[2], "Mars")


def test_settings_of_labels(tag, tmp_path: Path) -> None:
    path, settings = write(tmp_path / "a.wav"), tmp_path / "events.toml"
    settings.write_text("threshold = 0.1\nmin_duration_s = 0\n[labels.tone]\nthreshold = 1.5\n")
    out = tag(path, "--events", "-f", "csv", "--settings", settings)[1]
    assert {row["label"] for row in rows_of(out)} == {"noise"}
    settings.write_text("[labels.Dog]\nthreshold = 0.5\n")
    code, _, err = tag(path, "--events", "--settings", settings)
    assert code == 2
    assert_one_line(err, "events.toml")


def test_plots(tag, tmp_path: Path) -> None:
    paths = [write(tmp_path / name) for name in ("a.wav", "b.wav")]
    assert tag(*paths, "--events", "--plot", tmp_path / "plots", "-q")[0] == 0
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["a.png", "b.png"]
    code, _, err = tag(*paths, "--events", "--plot", tmp_path / "one.svg", "-q")
    assert code == 1
    assert "<svg" in (tmp_path / "one.svg").read_text()
    assert_one_line(err, "b.wav")


@pytest.mark.parametrize(
    "options",
    [
        ("--off-threshold", "0.3"),
        ("--smooth", "1"),
        ("--plot", "a.png"),
        ("--time-from", "name"),
        *(("-f", form) for form in Format if form not in TAG_FORMATS),
        ("--events", "-f", "parquet"),
        ("--events", "--top", "3"),
        ("--events", "--windows"),
        ("--events", "--whole"),
        ("--events", "--min-duration", "-1"),
        ("--events", "--plot", "a.jpg"),
        ("--whole", "--hop", "1"),
        ("--whole", "--window", "1"),
    ],
)
def test_what_does_not_go_together(tag, tmp_path: Path, options: tuple[str, ...]) -> None:
    code, out, err = tag(write(tmp_path / "a.wav"), *options)
    assert (code, out) == (2, "")
    assert_one_line(err)


def test_whole_files_are_one_window(tag, tagger: earmark.Tagger, tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.wav", 3.0), write(tmp_path / "b.wav", 0.01)]
    code, out, _ = tag(*paths, "--whole", "-f", "jsonl")
    assert code == 0
    for path, line in zip(paths, map(json.loads, out.splitlines()), strict=True):
        (window,) = line["windows"]
        assert (window["start_s"], window["end_s"]) == (0.0, line["duration_s"])
        whole = tagger.tag(path, window_s="whole")
        assert line["tags"][0]["score"] == round(whole.tags[0].score, 4)
    three = tagger.tag(paths[0], window_s=3.0)
    np.testing.assert_array_equal(tagger.tag(paths[0], window_s="whole").scores, three.scores)


def test_a_file_beyond_the_longest_window_cannot_be_one(tag, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(601 * 1000, 1000, np.int16), 1000)
    code, out, err = tag(tmp_path / "long.wav", write(tmp_path / "a.wav"), "--whole", "-f", "jsonl")
    assert code == 1
    assert [json.loads(line)["path"] for line in out.splitlines()] == [str(tmp_path / "a.wav")]
    assert_one_line(err, "600 s")


def test_whole_needs_a_model_of_any_window(tmp_path: Path, toy_model: Path) -> None:
    tagger = earmark.load(toy_model)
    fixed = earmark.Tagger(tagger.session, tagger.info.changed(fixed_window=True))
    with pytest.raises(earmark.ModelError, match="only windows"):
        fixed.tag(write(tmp_path / "a.wav"), window_s="whole")


def test_windows_are_shown(tag, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 1.2)
    plain, out = tag(path)[1], tag(path, "--windows")[1]
    lines = out.removeprefix(plain).strip().splitlines()
    assert out.startswith(plain)
    assert [line.split(" s ")[0].strip() for line in lines] == ["0.0 - 0.5", "0.5 - 1.0", "0.7 - 1.2"]
    assert all("tone" in line and "noise" in line for line in lines)

    rows = rows_of(tag(path, "--windows", "-f", "csv")[1])
    (found,) = json.loads(tag(path, "-f", "json")[1])
    expected = [
        (one["start_s"], tag["label"], tag["score"]) for one in found["windows"] for tag in one["tags"]
    ]
    assert [(float(row["start_s"]), row["label"], float(row["score"])) for row in rows] == expected
