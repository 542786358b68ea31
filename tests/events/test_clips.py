"""Events that were written are read again and cut out of their recordings."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_events import EVENTS, made

from earmark.errors import AudioError, DataError, ModelError
from earmark.events.clips import ClipFolder
from earmark.events.event import Event
from earmark.events.formats import event_layout
from earmark.events.layout import Format
from earmark.events.parquet import parquet_writer
from earmark.events.read import read_events

RATE = 8000


def event(start_s: float, end_s: float, label: str = "Dog", peak: float = 0.5) -> Event:
    return Event(label, start_s, end_s, peak, peak, 1.0)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """10 s whose samples count up, in steps that 16 bits represent."""
    path = tmp_path / "street.wav"
    soundfile.write(path, (np.arange(10 * RATE) % 30000).astype(np.int16), RATE)
    return path


def expected(start_s: float, end_s: float) -> np.ndarray:
    return np.arange(round(start_s * RATE), round(end_s * RATE)) % 30000


def written(tmp_path: Path, suffix: str) -> Path:
    path = tmp_path / f"events.{suffix}"
    recordings = (made(), made(path="b.wav"), made(events=(), path="c.wav"))
    if suffix == "parquet":
        with path.open("wb") as stream, parquet_writer(stream, "toy") as add:
            for one in recordings:
                add(one)
    else:
        parts = event_layout(Format(suffix))
        path.write_text(parts.head + "".join(map(parts.render, recordings)), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_what_was_written_is_read(tmp_path: Path, suffix: str) -> None:
    found = read_events(written(tmp_path, suffix))
    assert found == {made().recording.path: list(EVENTS), "b.wav": list(EVENTS)}


def test_tables_in_a_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "events"
    folder.mkdir(parents=True)
    written(tmp_path, "parquet").rename(folder / "part-0.parquet")
    assert read_events(tmp_path / "results") == read_events(folder)
    assert set(read_events(folder)) == {made().recording.path, "b.wav"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,label,start_s\na.wav,Dog,1\n"),
        ("a.csv", "path,label,start_s,end_s\na.wav,Dog,1,x\n"),
        ("a.csv", "path,label,start_s,end_s\na.wav,Dog,2,1\n"),
        ("a.csv", "path,label,start_s,end_s\na.wav,Dog,nan,1\n"),
        ("a.jsonl", '{"path": "a.wav"\n'),
        ("a.jsonl", '{"path": "a.wav", "tags": []}\n'),
        ("a.jsonl", '{"path": null, "events": [{"label": "Dog", "start_s": 0, "end_s": 1}]}\n'),
        ("a.parquet", "PAR1"),
        ("a.txt", ""),
    ],
)
def test_files_that_are_not_of_events(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name):
        read_events(tmp_path / name)


@pytest.mark.parametrize("codec", ["flac", "wav"])
def test_clips_are_the_samples_of_events_with_context(tmp_path: Path, recording: Path, codec: str) -> None:
    folder = ClipFolder(tmp_path / "clips", 0.25, codec)
    events = [event(5, 6, "Regen, Wind"), event(0.125, 1), event(0.5, 7.5), event(9, 10)]
    assert folder.add(recording, "street.wav", events) == []
    assert folder.finish() == 4
    with (tmp_path / "clips" / "clips.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    spans = {"0.125": (0, 1.25), "0.500": (0.25, 7.75), "5.000": (4.75, 6.25), "9.000": (8.75, 10)}
    assert {row["start_s"] for row in rows} == set(spans)
    for row in rows:
        samples, rate = soundfile.read(tmp_path / "clips" / row["path"], dtype="int16")
        assert rate == RATE
        np.testing.assert_array_equal(samples, expected(*spans[row["start_s"]]))
        assert row["source"] == "street.wav"
        assert row["path"].endswith(codec)
    assert {row["labels"] for row in rows} == {"Dog", "Regen, Wind"}


def test_clips_of_one_name_are_numbered(tmp_path: Path, recording: Path) -> None:
    other = tmp_path / "other" / recording.name
    other.parent.mkdir()
    other.write_bytes(recording.read_bytes())
    folder = ClipFolder(tmp_path / "clips")
    for path in (recording, other):
        folder.add(path, str(path), [event(1, 2), event(1, 2)])
    assert folder.finish() == 4
    assert len(list((tmp_path / "clips").glob("*.flac"))) == 4


def test_events_beyond_the_end_are_a_warning(tmp_path: Path, recording: Path) -> None:
    folder = ClipFolder(tmp_path / "clips", 2)
    (warning,) = folder.add(recording, "street.wav", [event(1, 2), event(10.5, 11), event(40, 41)])
    assert "2 events" in warning
    assert folder.finish() == 1


def test_without_clips_there_is_no_table(tmp_path: Path) -> None:
    folder = ClipFolder(tmp_path / "clips")
    with pytest.raises(AudioError):
        folder.add(tmp_path / "none.wav", "none.wav", [event(1, 2)])
    assert folder.finish() == 0
    assert not (tmp_path / "clips").exists()


def test_a_recording_is_never_replaced(tmp_path: Path, recording: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "street_00001.000_Dog.wav").symlink_to(recording)
    before = recording.read_bytes()
    with pytest.raises(DataError, match="input"):
        ClipFolder(folder, 0, "wav").add(recording, "street.wav", [event(1, 2)])
    assert recording.read_bytes() == before


@pytest.mark.parametrize("context_s", [-1, 601, float("nan")])
def test_impossible_context(tmp_path: Path, context_s: float) -> None:
    with pytest.raises(ModelError, match="context_s"):
        ClipFolder(tmp_path, context_s)


@pytest.fixture
def table(tmp_path: Path, recording: Path) -> Path:
    events = [event(1, 2, "Dog", 0.5), event(3, 4, "Cat", 0.25), event(5, 6, "Dog", 0.75)]
    rows = [
        {"path": name, "events": [one.to_dict() for one in events]} for name in (recording.name, "none.wav")
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.flac"))


def test_command(run, tmp_path: Path, table: Path) -> None:
    code, out, err = run("clips", table, "--output", tmp_path / "a", "--audio", tmp_path)
    assert (code, out) == (1, "")
    assert "none.wav" in err
    assert names(tmp_path / "a") == [
        f"street_{start}.000_{label}.flac"
        for start, label in (("00001", "Dog"), ("00003", "Cat"), ("00005", "Dog"))
    ]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--label", "dog"], ["00001", "00005"]),
        (["--min-score", "0.5"], ["00001", "00005"]),
        (["--top", "1", "--label", "Dog"], ["00005"]),
    ],
)
def test_command_selects(run, tmp_path: Path, recording: Path, options: list[str], kept: list[str]) -> None:
    events = [event(1, 2, "Dog", 0.5), event(3, 4, "Cat", 0.25), event(5, 6, "Dog", 0.75)]
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps({"path": str(recording), "events": [one.to_dict() for one in events]}))
    assert run("clips", path, "-o", tmp_path / "a", "-q", *options) == (0, "", "")
    assert [name.split("_")[1].removesuffix(".000") for name in names(tmp_path / "a")] == kept


@pytest.mark.parametrize("options", [["--label", "Bird"], ["--min-score", "0.9"], ["--context", "-1"]])
def test_command_refuses(run, tmp_path: Path, table: Path, options: list[str]) -> None:
    code, out, err = run("clips", table, "-o", tmp_path / "a", *options)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "a").exists()
