"""The clips that the default model must not tag, and the manifest of those that it must."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "esc18"
sys.path.insert(0, str(RECIPE))  # the recipe's scripts are no package: they import one another by name
import manifest  # noqa: E402
import music  # noqa: E402
import negatives  # noqa: E402
import studio  # noqa: E402

sys.path.remove(str(RECIPE))

from earmark.errors import DataError  # noqa: E402

PROGRAMS = ("espeak-ng", "fluidsynth", "flite", "sox")
FONTS = [Path(font) for font, _ in studio.SOUNDFONTS.values()]


def octave_levels(samples: np.ndarray) -> np.ndarray:
    power = np.abs(np.fft.rfft(samples)) ** 2
    hz = np.fft.rfftfreq(len(samples), 1 / studio.RATE)
    lows = (125, 250, 500, 1000, 2000, 4000)
    return np.array([10 * np.log10(power[(hz >= low) & (hz < 2 * low)].sum()) for low in lows])


@pytest.fixture
def toy_samples() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    lengths = {"loop_a": 2.0, "b": 0.2, "c": 0.3, "d": 0.1, "e": 0.2, "f": 0.4}
    return {name: rng.standard_normal(int(length * studio.RATE)) / 4 for name, length in lengths.items()}


@pytest.mark.parametrize(("exponent", "slope_db"), [(0, 3.01), (1, 0), (2, -3.01)])
def test_noise_has_the_slope_of_its_colour(exponent: float, slope_db: float) -> None:
    levels = octave_levels(studio.shaped_noise(np.random.default_rng(0), exponent))
    np.testing.assert_allclose(np.diff(levels), slope_db, atol=0.5)


def test_voss_noise_is_pink() -> None:
    levels = np.mean(
        [octave_levels(studio.voss_noise(np.random.default_rng(seed))) for seed in range(4)], axis=0
    )
    assert np.abs(np.diff(levels)).max() < 0.7


@pytest.mark.parametrize("level_db", [-70.0, -20.0, -3.0])
def test_level_is_rms_and_nothing_exceeds_full_scale(level_db: float) -> None:
    noise = np.random.default_rng(0).standard_normal(studio.SAMPLES)
    clipped = studio.at_level(noise, level_db, clip=True)
    assert np.abs(clipped).max() <= 1
    assert 10 * np.log10(np.mean(clipped**2)) == pytest.approx(level_db, abs=0.01 if level_db < -12 else 1.5)
    assert np.abs(studio.at_level(noise, level_db)).max() <= 0.99


def test_midi_file_holds_program_notes_and_end() -> None:
    score = music.Score([music.Note(0.2, 0.3, 0, 69, 100)], {0: 5})
    track = bytes((0, 0xC0, 5, 0x81, 0x48, 0x90, 69, 100, 0x82, 0x2C, 0x80, 69, 0, 0, 0xFF, 0x2F, 0))
    header = b"MThd" + bytes((0, 0, 0, 6, 0, 0, 0, 1, 0x01, 0xF4))
    assert music.midi_file(score) == header + b"MTrk" + len(track).to_bytes(4, "big") + track


@pytest.mark.parametrize("compose", [music.tonal, music.cyclic])
@pytest.mark.parametrize("ensemble", [False, True])
def test_compositions_use_allowed_programs_and_fill_a_clip(compose, ensemble: bool) -> None:
    for seed in range(20):
        program = music.PROGRAMS[5 * seed]
        score = compose(np.random.default_rng(seed), program, ensemble)
        assert score.programs[0] == program
        assert all(p in music.PROGRAMS for channel, p in score.programs.items() if channel != music.DRUMS)
        assert len(score.programs) > 1 or not ensemble
        assert max(note.start_s + note.length_s for note in score.notes) > 6
        assert not {56, 80, 81} & {
            n.key for n in score.notes if n.channel == music.DRUMS
        }  # cowbell, triangles


def test_euclid_spreads_strokes_evenly() -> None:
    assert music.euclid(3, 8) == [0, 2, 5]
    assert music.euclid(4, 8, 1) == [1, 3, 5, 7]


def test_sonic_pi_splits_are_disjoint_and_leave_out_the_classes(shared: Path) -> None:
    train, test = (set(negatives.sonic_pi(shared / "data/sonic_pi", split)) for split in negatives.SPLITS)
    assert not train & test
    assert not (train | test) & negatives.SONIC_PI_LEFT_OUT
    assert len(train | test) == 186 - len(negatives.SONIC_PI_LEFT_OUT)
    assert 0.15 < len(test) / len(train | test) < 0.35


def test_splits_share_no_sentence_language_or_variant() -> None:
    with (RECIPE / "sentences.toml").open("rb") as file:
        tables = negatives.tomllib.load(file)
    assert not set(tables["train"]) & set(tables["test"])
    spoken = [{s for sentences in tables[split].values() for s in sentences} for split in negatives.SPLITS]
    assert not spoken[0] & spoken[1]
    assert not set(negatives.TRAIN_VARIANTS) & set(negatives.TEST_VARIANTS)


def test_test_split_has_two_hundred_of_each_kind() -> None:
    for kind in ("white_noise", "pink_noise", "speech", "music"):
        assert sum(batch.count for batch in negatives.BATCHES["test"] if batch.kind == kind) >= 220


@pytest.mark.skipif(
    not (all(map(shutil.which, PROGRAMS)) and all(font.is_file() for font in FONTS)),
    reason=f"needs {', '.join(PROGRAMS)} and both soundfonts",
)
@pytest.mark.parametrize("split", negatives.SPLITS)
def test_a_split_is_written_and_the_same_twice(
    split: str, toy_samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [negatives.Batch(batch.kind, 1, batch.make) for batch in negatives.BATCHES[split]]
    monkeypatch.setitem(negatives.BATCHES, split, few)
    rows = negatives.write_split(split, toy_samples, tmp_path / "a", seed=3)
    negatives.write_split(split, toy_samples, tmp_path / "b", seed=3)
    other = negatives.write_split(split, toy_samples, tmp_path / "c", seed=4)
    with (tmp_path / "a/negatives.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    changed = 0
    for row, other_row in zip(rows, other, strict=True):
        clip = tmp_path / "a" / row["path"]
        info = soundfile.info(clip)
        assert (info.samplerate, info.channels, info.frames) == (32_000, 1, studio.SAMPLES)
        assert info.subtype == "PCM_16"
        assert (row["labels"], row["fold"]) == ("", "0")
        assert clip.read_bytes() == (tmp_path / "b" / row["path"]).read_bytes()
        changed += clip.read_bytes() != (tmp_path / "c" / other_row["path"]).read_bytes()
        assert row["kind"] in ("silence", "dc") or np.std(soundfile.read(clip)[0]) > 1e-4
    assert changed >= len(rows) - 1  # all but the clip of digital silence


def test_missing_program_or_soundfont_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    place = studio.Studio("test", tmp_path, {})
    with pytest.raises(DataError):
        studio.espeak(place, "one", "en", 50, 160)
    monkeypatch.setitem(studio.SOUNDFONTS, "test", (str(tmp_path / "none.sf2"), "timgm6mb-soundfont"))
    with pytest.raises(DataError):
        studio.fluidsynth(place, music.Score([], {}))


def test_failing_program_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        studio.run("ls", str(tmp_path / "absent"))


def test_command_line_without_recordings_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE / "negatives.py"), "--split", "test"]
    done = subprocess.run(
        [*command, "--sonic-pi", str(tmp_path), "--output", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no Sonic Pi recordings" in done.stderr
    assert done.stderr.count("\n") == 1


def test_manifest_of_esc18_lists_every_clip(shared: Path, tmp_path: Path) -> None:
    rows = manifest.rows(shared / "data/esc18", tmp_path)
    assert len(rows) == 576
    assert {row["fold"] for row in rows} == {"1", "2", "3", "4"}
    assert len({row["labels"] for row in rows}) == 18
    assert all((tmp_path / row["path"]).is_file() for row in rows)


def test_manifest_of_a_folder_without_clips_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        manifest.rows(tmp_path, tmp_path)
    (tmp_path / "meta.csv").write_text("filename,fold\na.ogg,1\n")
    with pytest.raises(DataError):
        manifest.rows(tmp_path, tmp_path)
