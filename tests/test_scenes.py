"""Tests the generator of synthetic scenes: parts share nothing, and truth is where the sound is."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks import scenes
from benchmarks.event_detection import METHODS, NAMES, ORDINARY, Scored, judge
from benchmarks.scenes import RATE, build_scene, find_sources, sounding
from earmark.events.event import Event, ScoreSeries

CATEGORIES = ("dog", "siren")


def tone(hz: float, start_s: float, end_s: float, duration_s: float = 3.0) -> np.ndarray:
    time = np.arange(round(duration_s * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * hz * time) * ((start_s <= time) & (time < end_s))).astype(np.float32)


def write(folder: Path, clips: dict[str, np.ndarray], rows: list[dict[str, str]]) -> None:
    (folder / "audio").mkdir(parents=True)
    for name, waveform in clips.items():
        soundfile.write(folder / "audio" / name, waveform, RATE)
    with (folder / "meta.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sounds")
    esc18, open_audio = root / "esc18", root / "open_audio"
    names = [(fold, label) for fold in "1234" for label in CATEGORIES]
    rows = [{"filename": f"{fold}-{label}.wav", "fold": fold, "category": label} for fold, label in names]
    pitches = {"dog": 2000.0, "siren": 5000.0}
    write(esc18, {f"{f}-{label}.wav": tone(pitches[label], 1.0, 1.8) for f, label in names}, rows)
    noise = 0.01 * np.random.default_rng(0).standard_normal(RATE * 6).astype(np.float32)
    kinds = {"room tone": 6.0, "click": 3.0, "dog bark": 3.0}
    sources = {"librosa/data@1:a": "judging", "else/where@2:b": "tuning"}
    rows = [
        {"filename": f"{part}-{words}.wav", "seconds": str(length), "source": source, "words": words}
        for source, part in sources.items()
        for words, length in kinds.items()
    ]
    write(open_audio, {row["filename"]: noise[: round(float(row["seconds"]) * RATE)] for row in rows}, rows)
    return esc18, open_audio


def test_parts_share_no_recording(folders: tuple[Path, Path]) -> None:
    paths = []
    for part in ("tuning", "judging"):
        sources = find_sources(*folders, part)
        assert sorted(sources.clips) == sorted(CATEGORIES)
        assert [path.stem for path in sources.backgrounds] == [f"{part}-room tone"]
        assert [path.stem for path in sources.others] == [f"{part}-click"]  # no dog: a category
        paths.append({path for found in sources.clips.values() for path in found})
    assert not paths[0] & paths[1]
    assert {path.name[0] for path in paths[1]} == {"4"}


def test_events_are_where_the_truth_is(folders: tuple[Path, Path]) -> None:
    sources = find_sources(*folders, "judging")
    scene, events = build_scene(sources, "judging", 0)
    assert len(scene) == 60 * RATE
    assert np.abs(scene).max() <= 0.9 + 1e-6
    assert len(events) >= 2
    assert [one.start_s for one in events] == sorted(one.start_s for one in events)
    spectrum = np.abs(np.fft.rfft(scene[: 60 * RATE].reshape(-1, RATE // 50)))
    for event in events:
        assert event.end_s - event.start_s == pytest.approx(0.8, abs=0.05)
        bin_ = {"dog": 40, "siren": 100}[event.label]
        first, last = round(event.start_s * 50) + 2, round(event.end_s * 50) - 2
        assert spectrum[first:last, bin_].mean() > 2 * np.median(spectrum[:, bin_])


def test_a_scene_depends_on_part_and_number_only(folders: tuple[Path, Path]) -> None:
    sources = find_sources(*folders, "tuning")
    first, again, other = (build_scene(sources, "tuning", number) for number in (3, 3, 4))
    assert first[1] == again[1] != other[1]
    assert (first[0] == again[0]).all()


def test_sounds_are_found_by_energy() -> None:
    waveform = tone(1000, 0.5, 1.0) + tone(1000, 1.1, 1.4) + tone(1000, 2.0, 2.5)
    found = np.array(sounding(waveform)) / RATE
    assert found == pytest.approx(np.array([[0.5, 1.4], [2.0, 2.5]]), abs=0.03)
    assert sounding(np.zeros(RATE, np.float32)) == []


def test_command(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--esc18", folders[0], "--open-audio", folders[1], "--out", tmp_path / "s", "--scenes", 1]
    monkeypatch.setattr("sys.argv", ["scenes", *map(str, arguments)])
    scenes.main()
    assert [path.name for path in sorted((tmp_path / "s").iterdir())] == ["judging_000.flac", "truth.csv"]
    assert (
        (tmp_path / "s" / "truth.csv").read_text().startswith("file,label,start_s,end_s\njudging_000.flac,")
    )


def test_the_threshold_of_a_method_is_that_of_the_tuning_scenes() -> None:
    """What suits the tuning scenes, 0.15, is too low where nothing scores 0.35 instead of 0.1."""
    method, events = METHODS[0], [[Event("dog", 10.0, 20.0, 1.0, 1.0, 1.0)]]

    def scored(nothing: float) -> Scored:
        scores = np.full((120, len(NAMES)), 0.0, np.float32)
        scores[:, NAMES.index("dog")] = nothing
        scores[20:40, NAMES.index("dog")] = 0.45
        series = {method: [ScoreSeries(NAMES, scores, 0.5, 1.0)]}
        return Scored(events, series, {method: 6.0, ORDINARY: 2.0})

    row = judge(method, scored(0.1), scored(0.1))
    assert row[0].startswith("1.000 (")
    assert row[-1] == "3.00"
    assert judge(method, scored(0.1), scored(0.35))[0].startswith("0.286 (")  # 10 of 60 s
