"""Recordings out of packages: found in archives, cut, and kept apart from the clips of ESC-50."""

import csv
import gzip
import io
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "esc18"
sys.path.insert(0, str(RECIPE))  # the recipe's scripts are no package: they import one another by name
import lookalikes  # noqa: E402
import packed  # noqa: E402
import recordings  # noqa: E402
import studio  # noqa: E402

sys.path.remove(str(RECIPE))

from earmark.errors import DataError  # noqa: E402

FREE = ("CC0-1.0", "public-domain", "CC-BY", "CC-BY-3.0", "CC-BY-4.0", "MIT", "WTFPL", "Zlib")
ROW = {"package": "game", "from": "debian", "version": "1", "license": "CC0-1.0", "author": "someone"}


def sound(seed: int, seconds: float) -> np.ndarray:
    """Bursts of coloured noise at uneven moments: no two alike."""
    rng = np.random.default_rng(seed)
    total = np.zeros(int(seconds * studio.RATE))
    for start in rng.integers(0, len(total), int(8 * seconds) + 1):
        burst = np.cumsum(rng.standard_normal(4000)) * np.exp(-np.arange(4000) / rng.integers(200, 2000))
        burst += 5 * np.sin(rng.uniform(0.02, 0.8) * np.arange(4000)) * np.exp(-np.arange(4000) / 900)
        total[start : start + 4000] += burst[: len(total) - start]
    return total / np.abs(total).max() / 2


def encoded(samples: np.ndarray, rate: int = studio.RATE, form: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form)
    return file.getvalue()


def openclonk_group(members: dict[str, bytes]) -> bytes:
    header = bytearray(204)
    struct.pack_into("<i", header, 36, len(members))
    for at in range(0, 202, 3):
        header[at], header[at + 2] = header[at + 2], header[at]
    entries, contents = b"", b""
    for name, data in members.items():
        is_group = int(name.endswith(".ocg"))
        entry = name.encode().ljust(260, b"\0") + struct.pack("<5i", 1, is_group, len(data), 0, len(contents))
        entries, contents = entries + entry.ljust(316, b"\0"), contents + data
    return bytes(byte ^ 237 for byte in header) + entries + contents


def doom_wad(name: str, samples: np.ndarray) -> bytes:
    tones = np.round(samples * 127 + 128).astype(np.uint8).tobytes()
    lump = struct.pack("<HHI", 3, 11025, len(tones) + 32) + bytes(16) + tones + bytes(16)
    entry = struct.pack("<II8s", 12, len(lump), name.encode())
    return b"IWAD" + struct.pack("<II", 1, 12 + len(lump)) + lump + entry


def sound_bank(name: str, samples: np.ndarray) -> bytes:
    tones = np.round(samples * 32767).astype("<i2").tobytes()
    header = struct.pack("<20s5I", name.encode(), 0, len(samples), 0, 0, 22050).ljust(46, b"\0")
    chunks = (b"smpl" + struct.pack("<I", len(tones)) + tones, b"shdr" + struct.pack("<I", 46) + header)
    return b"RIFF" + bytes(4) + b"sfbk" + b"".join(chunks)


def test_recordings_are_found_in_files_archives_and_banks(tmp_path: Path) -> None:
    door, wave = sound(1, 0.5), encoded(sound(1, 0.5))
    inner = openclonk_group({"Door.wav": wave})
    group = openclonk_group({"authors.txt": b"somebody", "Doors.ocg": inner})
    with zipfile.ZipFile(tmp_path / "data.pk3", "w") as archive:
        archive.writestr("sound/door.ogg", encoded(door, form="OGG"))
    (tmp_path / "Sound.ocg").write_bytes(b"\x1e\x8c" + gzip.compress(group)[2:])
    (tmp_path / "game.wad").write_bytes(doom_wad("DSDOOR", door))
    (tmp_path / "bank.sf2").write_bytes(sound_bank("Door", door))
    (tmp_path / "door").write_bytes(wave)
    (tmp_path / "readme").write_text("no sound")
    patterns = ["door", "readme", "data.pk3!sound/*", "Sound.ocg!*.wav", "game.wad!DS*", "bank.sf2!D*"]
    found = dict(packed.recordings(tmp_path, patterns))
    names = [
        "Sound.ocg!Doors.ocg/Door.wav",
        "bank.sf2!Door",
        "data.pk3!sound/door.ogg",
        "door",
        "game.wad!DSDOOR",
    ]
    assert sorted(found) == names
    assert [rate for _, rate in found.values()] == [32_000, 22_050, 32_000, 32_000, 11_025]
    for samples, _ in found.values():
        assert np.corrcoef(samples, door)[0, 1] > 0.98


def test_broken_recording_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "door.ogg").write_bytes(b"OggS and nothing more")
    with pytest.raises(DataError):
        list(packed.recordings(tmp_path, ["*"]))


def test_long_recordings_are_cut_and_silence_is_dropped() -> None:
    clip = studio.SAMPLES
    assert [len(piece) for piece in recordings.pieces(sound(2, 0.3))] == [9_600]
    three = np.concatenate([sound(3, 5.12), np.zeros(clip), sound(4, 5.12), sound(5, 0.3)])
    cut = recordings.pieces(three)
    assert [len(piece) for piece in cut] == [clip, clip]
    np.testing.assert_array_equal(cut[1], three[2 * clip : 3 * clip])
    assert recordings.pieces(np.full(clip, 1e-4)) == []
    numbered = np.repeat(np.arange(1.0, 61.0), clip)
    spread = [piece[0] for piece in recordings.pieces(numbered)]
    assert len(spread) == 24
    assert (spread[0], spread[-1]) == (1, 60)
    assert np.diff(spread).max() <= 3


@pytest.mark.parametrize("seconds", [0.4, 0.8, 3.0])
def test_clip_is_recognised_cut_quieter_resampled_and_encoded(seconds: float) -> None:
    known = lookalikes.Clips({str(seed): sound(seed, 5) for seed in range(6)})
    part = sound(4, 5)[40_123 : 40_123 + int(seconds * studio.RATE)] / 2
    samples, rate = soundfile.read(
        io.BytesIO(encoded(soxr.resample(part, studio.RATE, 22_050), 22_050, "OGG"))
    )
    near, _, name = known.closest(soxr.resample(samples, rate, studio.RATE))
    assert near > 0
    assert name == "4"
    assert known.closest(sound(7, seconds))[0] < 0


def test_clips_are_written_and_what_esc_has_is_left_out(tmp_path: Path, monkeypatch, capsys) -> None:
    package, out, received = tmp_path / "packages/game", tmp_path / "out", tmp_path / "esc18/audio"
    package.mkdir(parents=True)
    received.mkdir(parents=True)
    for name, seconds in (("door", 1.0), ("engine", 6.0), ("jingle", 1.0)):
        soundfile.write(package / f"{name}.wav", sound(len(name), seconds), 44_100)
    known = soxr.resample(soundfile.read(package / "door.wav")[0], 44_100, studio.RATE)
    soundfile.write(
        received / "1-1-A-0.wav", np.concatenate([np.zeros(20_000), known, np.zeros(60_000)]), studio.RATE
    )
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*ROW, "path"])
        writer.writeheader()
        writer.writerows([{**ROW, "license": "", "path": "jingle*"}, {**ROW, "path": "*.wav"}])
    monkeypatch.setattr(recordings, "TABLE", table)
    command = [
        "recordings.py",
        "--esc18",
        tmp_path / "esc18",
        "--packages",
        tmp_path / "packages",
        "--output",
        out,
    ]
    monkeypatch.setattr(sys, "argv", [str(word) for word in command])
    assert recordings.main() == 0
    with (out / "recordings.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["labels"], row["fold"], row["kind"], row["license"]) == ("", "0", "recording", "CC0-1.0")
    assert (row["source"], row["title"]) == ("game 1: engine.wav", "engine")
    info = soundfile.info(out / row["path"])
    assert (info.samplerate, info.channels, info.subtype) == (32_000, 1, "PCM_16")
    assert "left out: game door.wav occurs in 1-1-A-0.wav" in capsys.readouterr().out


def test_table_lists_free_licences_and_where_each_package_is_from() -> None:
    with recordings.TABLE.open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["license"] for row in table} - {""} <= {*FREE, "BSD-2-Clause", "BSD-3-Clause"}
    assert {row["from"] for row in table} <= {"debian", "pypi", "npm"}
    assert all(row["version"] and row["author"] and row["path"] for row in table)
    assert "timgm6mb-soundfont" not in {row["package"] for row in table}  # the test's
    assert len({(row["package"], row["version"]) for row in table}) == len({row["package"] for row in table})


def test_command_line_without_clips_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE / "recordings.py"), "--esc18", str(tmp_path)]
    done = subprocess.run([*command, "--output", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 2
    assert "has no clips" in done.stderr
    assert done.stderr.count("\n") == 1
