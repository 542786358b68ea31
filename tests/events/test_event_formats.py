"""Formats of events, each read by a parser that is not earmark's, or checked against its specification."""

import csv
import io
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import webvtt
from made_events import EVENTS, Known, made
from praatio import textgrid as praat
from pyarrow import parquet

from earmark.errors import ModelError
from earmark.events.event import Event, RecordingEvents
from earmark.events.formats import event_layout
from earmark.events.layout import Format
from earmark.events.parquet import parquet_writer
from earmark.events.table import event_table

HALF_PAST = datetime(2024, 1, 31, 23, 59, 58, tzinfo=timezone(timedelta(hours=2)))


def write(form: Format, *recordings: RecordingEvents, times: bool = False) -> str:
    """As the command line writes it."""
    parts = event_layout(form, times=times)
    return parts.head + parts.between.join(map(parts.render, recordings or (made(),))) + parts.tail


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(write(Format.CSV, made(), made(path="b.wav")))))
    assert len(rows) == 2 * len(EVENTS)
    assert rows[1] == {
        "path": "a b/street (1).wav",
        "label": 'Door "knock" & <slam> -->',
        "start_s": "1.250",
        "end_s": "3.000",
        "peak": "0.7500",
        "mean": "0.6250",
        "resolution_s": "1.000",
        "calibrated": "false",
    }
    assert {row["path"] for row in rows[4:]} == {"b.wav"}


def test_csv_has_times_of_day_if_they_are_asked_for() -> None:
    text = write(Format.CSV, made(recorded_at=HALF_PAST), made(), times=True)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[3]["start_time"] == "2024-02-01T00:00:07.000+02:00"
    assert rows[3]["end_time"] == "2024-02-01T00:00:08.000+02:00"
    assert rows[4]["start_time"] == ""


def test_clocks_that_change_during_a_recording() -> None:
    start = datetime(2024, 3, 31, 1, 59, 58, tzinfo=ZoneInfo("Europe/Berlin"))
    rows = list(csv.DictReader(io.StringIO(write(Format.CSV, made(recorded_at=start), times=True))))
    assert (rows[3]["start_time"], rows[0]["start_time"]) == (
        "2024-03-31T03:00:07.000+02:00",
        "2024-03-31T01:59:58.000+01:00",
    )


@pytest.mark.parametrize("form", [Format.JSON, Format.JSONL])
def test_json(form: Format) -> None:
    text = write(form, made(recorded_at=HALF_PAST), made(events=(), warnings=("cut short",)))
    first, second = json.loads(text) if form is Format.JSON else map(json.loads, text.splitlines())
    assert first["recorded_at"] == "2024-01-31T23:59:58.000+02:00"
    assert first["events"][0] == {
        "label": "Dog",
        "start_s": 0.0,
        "end_s": 1.5,
        "peak": 0.875,
        "mean": 0.5,
        "resolution_s": 1.0,
    }
    assert (second["events"], second["warnings"], second["recorded_at"]) == ([], ["cut short"], None)
    assert second["path"] == Known.path


def test_audacity() -> None:
    """Lines of start, end and label with tabs (Audacity manual, "Importing and exporting labels")."""
    lines = write(Format.AUDACITY, made(events=(*EVENTS, Event("a\tb\nc", 3, 4, 1, 1, 1)))).splitlines()
    cells = [line.split("\t") for line in lines]
    assert [(float(start), float(end)) for start, end, _ in cells[:4]] == [
        (one.start_s, one.end_s) for one in EVENTS
    ]
    assert [label for *_, label in cells] == [*(one.label for one in EVENTS), "a b c"]


def test_raven() -> None:
    """Tab-separated with a header; times go on from file to file, offsets are within one (Raven's manual)."""
    text = write(
        Format.RAVEN, made(recorded_at=HALF_PAST), made(path="x/b.wav", sample_rate=8000), times=True
    )
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["Selection"] for row in rows] == list("12345678")
    assert {(row["View"], row["Channel"]) for row in rows} == {("Spectrogram 1", "1")}
    first, second = rows[1], rows[5]
    assert (first["Begin Time (s)"], first["End Time (s)"]) == ("1.250000", "3.000000")
    assert (second["Begin Time (s)"], second["End Time (s)"]) == ("11.250000", "13.000000")
    assert first["File Offset (s)"] == second["File Offset (s)"] == "1.250000"
    assert (first["Begin File"], second["Begin File"]) == ("street (1).wav", "b.wav")
    assert (float(first["Low Freq (Hz)"]), float(first["High Freq (Hz)"])) == (0, 8000)
    assert float(second["High Freq (Hz)"]) == 4000
    assert (first["Annotation"], first["Score"]) == (EVENTS[1].label, "0.7500")
    assert (first["Begin Date Time"], second["Begin Date Time"]) == ("2024/01/31 23:59:59.250", "")


def test_rttm() -> None:
    """Ten fields, separated by blanks (NIST RT-09 evaluation plan, appendix A)."""
    lines = [line.split(" ") for line in write(Format.RTTM, made(), made(path="b.wav")).splitlines()]
    assert {len(line) for line in lines} == {10}
    assert lines[1] == [
        *("SPEAKER", "street_(1)", "1", "1.250", "1.750", "<NA>", "<NA>"),
        *('Door_"knock"_&_<slam>_-->', "0.7500", "<NA>"),
    ]
    assert lines[-1][1] == "b"


def test_webvtt() -> None:
    (hours,) = (Event("Late", 3661.5, 36000.25, 0.5, 0.5, 1),)
    text = write(Format.WEBVTT, made(events=(*EVENTS, hours)))
    captions = list(webvtt.from_string(text))
    assert [(one.start_in_seconds, one.end_in_seconds) for one in captions[:4]] == [
        (int(event.start_s), int(event.end_s)) for event in EVENTS
    ]
    assert (captions[1].start, captions[1].end) == ("00:00:01.250", "00:00:03.000")
    assert (captions[4].start, captions[4].end) == ("01:01:01.500", "10:00:00.250")
    assert captions[1].raw_text == 'Door "knock" &amp; &lt;slam&gt; --&gt; (0.75)'
    assert list(webvtt.from_string(write(Format.WEBVTT, made(events=())))) == []


def test_textgrid(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    text = write(Format.TEXTGRID, made())
    path.write_text(text, encoding="utf-8")
    assert 'text = "Door ""knock"" & <slam> -->"' in text, "quotes are doubled"
    grid = praat.openTextgrid(str(path), includeEmptyIntervals=True)
    assert (grid.minTimestamp, grid.maxTimestamp) == (0, 10)
    assert list(grid.tierNames) == ["Dog", EVENTS[1].label, "Regen, Wind"]
    dog = grid.getTier("Dog").entries
    assert [tuple(entry) for entry in dog] == [
        (0, 1.5, "Dog"),
        (1.5, 2.25, ""),
        (2.25, 2.75, "Dog"),
        (2.75, 10, ""),
    ]
    assert grid.getTier(EVENTS[1].label).entries[1].label == EVENTS[1].label
    assert [entry.end for entry in grid.getTier("Regen, Wind").entries] == [9, 10]


def test_a_textgrid_without_events_is_one_empty_tier(tmp_path: Path) -> None:
    path = tmp_path / "a.TextGrid"
    path.write_text(write(Format.TEXTGRID, made(events=())), encoding="utf-8")
    grid = praat.openTextgrid(str(path), includeEmptyIntervals=True)
    assert [[tuple(entry) for entry in tier.entries] for tier in grid.tiers] == [[(0, 10, "")]]


def test_label_studio() -> None:
    """Tasks with predictions, as in "Import pre-annotated data" of its documentation."""
    tasks = json.loads(write(Format.LABEL_STUDIO, made(), made(events=(), path="b.wav")))
    assert [task["data"] for task in tasks] == [{"audio": Known.path}, {"audio": "b.wav"}]
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("toy", 0.9375)
    regions = prediction["result"]
    assert len({region["id"] for region in regions}) == len(EVENTS)
    assert {(region["from_name"], region["to_name"], region["type"]) for region in regions} == {
        ("label", "audio", "labels")
    }
    assert regions[1]["value"] == {"start": 1.25, "end": 3.0, "channel": 0, "labels": [EVENTS[1].label]}
    assert tasks[1]["predictions"][0]["result"] == []


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with path.open("wb") as stream, parquet_writer(stream, "toy") as add:
        add(made(recorded_at=HALF_PAST))
        add(made(path="b\udcff.wav"))
    table = parquet.read_table(path)
    assert table.schema.metadata[b"model"] == b"toy"
    rows = table.to_pylist()
    assert len(rows) == 2 * len(EVENTS)
    assert rows[3]["label"] == "Regen, Wind"
    assert (rows[3]["start_s"], rows[3]["end_s"], rows[3]["peak"]) == (9.0, 10.0, 0.9375)
    assert rows[3]["start_time"] == HALF_PAST + timedelta(seconds=9)
    assert str(table.schema.field("start_time").type) == "timestamp[ms, tz=UTC]"
    assert (rows[4]["path"], rows[4]["start_time"]) == ("b\\xff.wav", None)


def test_parquet_without_events_has_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with path.open("wb") as stream, parquet_writer(stream, "toy"):
        pass
    assert parquet.read_table(path).num_rows == 0
    assert {"path", "label", "start_s", "end_s", "peak"} <= set(parquet.read_schema(path).names)


def test_tables_fit_their_width_and_list_every_event() -> None:
    for width, blocks in ((40, False), (80, True), (100, True)):
        lines = event_table(made(), width, blocks).splitlines()
        assert max(map(len, lines[1:])) <= width
        assert len([line for line in lines if re.search(r"\d\.\d - \d+\.\d s", line)]) == len(EVENTS)
        assert blocks or all(map(str.isascii, lines))
    assert "No events" in event_table(made(events=()))
    assert "2024-01-31T23:59:58" in event_table(made(recorded_at=HALF_PAST))


def test_a_format_that_is_no_text_is_refused() -> None:
    with pytest.raises(ModelError, match="parquet"):
        event_layout(Format.PARQUET)
