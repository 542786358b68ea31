"""Plots of spectrograms and events, and the names of files of one recording each."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from made_events import Known, made
from matplotlib.image import imread

from earmark.errors import AudioError, DataError, ModelError
from earmark.events.event import Event
from earmark.events.plot import FRONT_END, plot_events, spectrogram
from earmark.events.targets import Targets

RATE = 16000


def tone(path: Path, seconds: float = 24, frequency_hz: float = 1000, start_s: float = 21) -> Path:
    """Faint noise, with a tone from a time on."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(time))
    soundfile.write(path, noise + 0.3 * np.sin(2 * np.pi * frequency_hz * time) * (time >= start_s), RATE)
    return path


def test_a_spectrogram_has_a_tone_where_it_is(tmp_path: Path) -> None:
    levels = spectrogram(str(tone(tmp_path / "a.wav")), 24, columns=48)
    assert levels.shape == (FRONT_END.n_mels, 48)
    assert np.ptp(levels[:, 10]) < np.ptp(levels[:, 45])
    band = int(levels[:, 45].argmax())
    assert band / FRONT_END.n_mels == pytest.approx(np.log1p(1000 / 700) / np.log1p(16000 / 700), abs=0.02)
    loud = np.flatnonzero(levels[band] > levels[band].max() - 10)
    assert loud.tolist() == list(range(42, 48))


def test_short_recordings_have_a_spectrogram(tmp_path: Path) -> None:
    assert spectrogram(str(tone(tmp_path / "a.wav", 0.01)), 0.01).shape == (FRONT_END.n_mels, 1)


def test_events_are_below_the_spectrogram(tmp_path: Path) -> None:
    path = str(tone(tmp_path / "a.wav"))
    events = (Event("Whistle", 21, 24, 1, 1, 1), Event("Dog", 2, 4, 0.5, 0.5, 1))
    images = []
    for shown in (events[:1], events):
        plot_events(made(shown, path=path, duration_s=24.0), tmp_path / "a.png")
        images.append(imread(tmp_path / "a.png"))
    assert images[0].shape[0] < images[1].shape[0], "a row for each label"
    lower = images[0][int(images[0].shape[0] * 0.85) :, :, :3]
    coloured = np.ptp(lower, axis=2).max(0) > 0.3  # columns with a bar
    assert coloured[int(coloured.size * 0.9) : int(coloured.size * 0.95)].any()
    assert not coloured[int(coloured.size * 0.3) : int(coloured.size * 0.8)].any()


@pytest.mark.parametrize(("path", "error"), [(None, ModelError), ("-", ModelError), ("none.wav", AudioError)])
def test_recordings_that_cannot_be_plotted(tmp_path: Path, path: str | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        plot_events(made(path=path), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_other_kinds_of_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="png"):
        plot_events(made(), tmp_path / "a.jpg")


def test_files_in_a_folder_lie_as_their_recordings_do(tmp_path: Path) -> None:
    (tmp_path / "archive" / "north").mkdir(parents=True)
    targets = Targets(tmp_path / "out", ".txt", [str(tmp_path / "archive"), "b.wav"])
    found = [
        targets.of(str(tmp_path / "archive" / name)) for name in ("a.wav", "north/a.wav", "a.flac", "a.wav")
    ]
    found.append(targets.of(f"elsewhere/{Known.path}"))
    assert [str(path.relative_to(tmp_path / "out")) for path in found] == [
        "a.txt",
        "north/a.txt",
        "a.flac.txt",
        "a.txt",
        "street (1).txt",
    ]


def test_a_file_holds_one_recording(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "a.vtt", ".vtt", ["a.wav", "b.wav"])
    assert targets.of("a.wav") == tmp_path / "a.vtt"
    with pytest.raises(DataError, match=r"b\.wav"):
        targets.of("b.wav")
