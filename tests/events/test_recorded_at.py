"""Times of recordings, from names and headers."""

import struct
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from earmark.errors import AudioError, ModelError
from earmark.events.recorded_at import recorded_at, time_zone

LATE = datetime(2024, 1, 31, 23, 59, 58, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("20240131_235958.WAV", LATE),
        ("20240131_235958T.WAV", LATE),
        ("SM4_20240131_235958.wav", LATE),
        ("S4A01234_20240131$235958.wav", LATE),
        ("2024-01-31T23-59-58_site 3.flac", LATE),
        ("2024-01-31 23.59.58.mp3", LATE),
        ("20240131235958.ogg", LATE),
        ("rec_20240131T235958+0200_a.wav", LATE.replace(tzinfo=EAST)),
        ("20240131T235958Z.wav", LATE),
        (
            "2024-01-31T23:59:58.125-05:00.wav",
            LATE.replace(tzinfo=timezone(timedelta(hours=-5)), microsecond=125000),
        ),
        ("5B3A6F20.WAV", datetime(2018, 7, 2, 18, 29, 52, tzinfo=UTC)),
        ("2024-01-31_23-59-58/a.wav", None),
        ("20241331_235958.wav", None),
        ("20240230_235958.wav", None),
        ("1234567890123456.wav", None),
        ("20240131_2359581.wav", None),
        ("street.wav", None),
    ],
)
def test_names(name: str, expected: datetime | None) -> None:
    if expected is None:
        with pytest.raises(AudioError, match="no date"):
            recorded_at(name, "name")
    else:
        found = recorded_at(name, "name")
        assert (found, found.utcoffset()) == (expected, expected.utcoffset())


def test_the_time_zone_is_that_of_the_caller_unless_the_name_states_one() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    found = recorded_at("20240731_120000.wav", "name", berlin)
    assert found.isoformat() == "2024-07-31T12:00:00+02:00"
    assert recorded_at("20240731_120000Z.wav", "name", berlin).utcoffset() == timedelta(0)


def wav(path: Path, *chunks: tuple[bytes, bytes], data: bytes = b"\0" * 32) -> Path:
    """A WAV file whose further chunks come after its samples."""
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
    parts = [(b"fmt ", fmt), (b"data", data), *chunks]
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in parts
    )
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


BEXT = b"\0" * 320 + b"2024-01-31" + b"23:59:58" + b"\0" * 264
GUANO = b"GUANO|Version: 1.0\nTimestamp: 2024-01-31T23:59:58.5+02:00\nMake: X"
IXML = (
    b"<BWFXML><BEXT><BWF_ORIGINATION_DATE>2024-01-31</BWF_ORIGINATION_DATE>"
    b"<BWF_ORIGINATION_TIME>23:59:58</BWF_ORIGINATION_TIME></BEXT></BWFXML>"
)
COMMENT = (
    b"INFOICMT" + struct.pack("<I", 80) + b"Recorded at 23:59:58 31/01/2024 (UTC+2) by AudioMoth 24".ljust(80)
)


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ((b"bext", BEXT), LATE),
        ((b"guan", GUANO), LATE.replace(tzinfo=EAST, microsecond=500000)),
        ((b"iXML", IXML), LATE),
        ((b"LIST", COMMENT), LATE.replace(tzinfo=EAST)),
    ],
)
def test_headers(tmp_path: Path, chunk: tuple[bytes, bytes], expected: datetime) -> None:
    path = wav(tmp_path / "a.wav", (b"junk", b"abc"), chunk)
    assert recorded_at(path, "header") == expected
    later = recorded_at(path, "header", EAST)
    assert later.utcoffset() == EAST.utcoffset(None)


def test_guano_is_read_before_bext(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", (b"bext", BEXT.replace(b"2024", b"1999")), (b"guan", GUANO))
    assert recorded_at(path, "header").year == 2024


def test_headers_behind_more_than_4_gb_of_samples(tmp_path: Path) -> None:
    """RF64: the size of the samples is in the chunk ds64 (EBU Tech 3306)."""
    path = tmp_path / "long.wav"
    size = (1 << 32) + 10
    head = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, size, size, size // 2, 0)
    with path.open("wb") as file:
        file.write(head + b"data\xff\xff\xff\xff")
        file.seek(size, 1)  # a hole: no space on disk
        file.write(b"guan" + struct.pack("<I", len(GUANO)) + GUANO)
    assert recorded_at(path, "header").microsecond == 500000


@pytest.mark.parametrize(
    "chunk", [(b"bext", b"\0" * 602), (b"guan", b"Make: X"), (b"bext", b"short"), (b"LIST", b"")]
)
def test_headers_without_a_time(tmp_path: Path, chunk: tuple[bytes, bytes]) -> None:
    with pytest.raises(AudioError, match="no date"):
        recorded_at(wav(tmp_path / "a.wav", chunk), "header")


def test_files_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("20240131_235958")
    with pytest.raises(AudioError, match="no date"):
        recorded_at(tmp_path / "a.txt", "header")
    with pytest.raises(AudioError, match=r"none\.wav"):
        recorded_at(tmp_path / "none.wav", "header")


@pytest.mark.parametrize(
    ("text", "hours"),
    [("UTC", 0), ("z", 0), ("+02:00", 2), ("-0330", -3.5), ("UTC-5", -5), ("Asia/Tokyo", 9)],
)
def test_time_zones(text: str, hours: float) -> None:
    assert time_zone(text).utcoffset(datetime(2024, 1, 1)) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "Berlin", "../etc", "+25:00", "+02:75"])
def test_unknown_time_zones(text: str) -> None:
    with pytest.raises(ModelError, match="time zone"):
        time_zone(text)
