"""Timelines: the spectrogram of a recording above its events."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest
import soundfile
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from earmark.errors import AudioError, ModelError
from earmark.events.event import Event, RecordingEvents
from earmark.plots.style import COLOURS, COLUMN_MM, PAGE_MM
from earmark.plots.time_axis import ticks
from earmark.plots.timeline import FRONT_END, MOST_ROWS, plot_events, spectrogram

RATE = 16000
both_widths = pytest.mark.parametrize("width_mm", [COLUMN_MM, PAGE_MM])


@dataclass(frozen=True)
class Recording:
    """What is known of a recording."""

    path: str | None
    duration_s: float
    sample_rate: int = RATE
    model: str = "toy"
    calibrated: bool = False
    warnings: tuple[str, ...] = ()


def tone(path, seconds=24.0, frequency_hz=1000, start_s=21.0, level=0.3):
    """Faint noise, with a tone from a time on."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(time))
    soundfile.write(path, noise + level * np.sin(2 * np.pi * frequency_hz * time) * (time >= start_s), RATE)
    return str(path)


def events(path, *found, duration_s=24.0, recorded_at=None):
    return RecordingEvents(Recording(path, duration_s), found, recorded_at)


def test_a_spectrogram_has_a_tone_where_it_is(tmp_path):
    levels = spectrogram(tone(tmp_path / "a.wav"), 24, columns=48)
    assert levels.shape == (FRONT_END.n_mels, 48)
    band = int(levels[:, 45].argmax())
    assert band / FRONT_END.n_mels == pytest.approx(np.log1p(1000 / 700) / np.log1p(16000 / 700), abs=0.02)
    loud = np.flatnonzero(levels[band] > levels[band].max() - 10)
    assert loud.tolist() == list(range(42, 48))


@pytest.mark.parametrize("frequency_hz", [440, 1000, 4000])
def test_levels_are_relative_to_full_scale(tmp_path, frequency_hz):
    levels = spectrogram(tone(tmp_path / "a.wav", 2, frequency_hz, start_s=0, level=0.5), 2)
    assert levels.max() == pytest.approx(20 * np.log10(0.5), abs=1.5)


@pytest.mark.parametrize("seconds", [0.01, 0.4, 1.0, 24.0])
def test_every_column_of_a_spectrogram_is_filled(tmp_path, seconds):
    levels = spectrogram(tone(tmp_path / "a.wav", seconds, start_s=0), seconds)
    assert levels.shape[1] == min(600, max(1, round(seconds * 100)))
    assert np.ptp(levels.max(0)) < 10, "a steady tone"


def test_what_a_file_lacks_is_silent(tmp_path):
    levels = spectrogram(tone(tmp_path / "a.wav", 12, start_s=0), 24, columns=24)
    assert levels[:, :11].max() > -20
    assert levels[:, 14:].max() < -100


@both_widths
def test_events_are_where_they_happen(tmp_path, pictures, width_mm):
    path = tone(tmp_path / "a.wav")
    found = (Event("Whistle", 21, 24, 1, 1, 1), Event("Dog", 2, 4, 0.5, 0.5, 1))
    images = []
    for shown in (found[:1], found):
        plot_events(events(path, *shown), tmp_path / "a.png", width_mm)
        images.append(imread(tmp_path / "a.png"))
    assert images[0].shape[0] < images[1].shape[0], "a row for each label"
    one, two = pictures
    assert {"a.wav", "Whistle"} <= set(one.texts)
    assert one.labels == ["frequency (kHz)", "time (s)", "level (dBFS)"]
    assert "1.00" in two.texts, "the peak score is in the bar"
    axes = two.axes[1]
    scale, left = axes.get_window_extent().width / 24, axes.get_window_extent().x0
    coloured = np.abs(images[1][:, :, :3] - to_rgb(COLOURS[1])).max(2) < 0.05
    start, end = np.flatnonzero(coloured.any(0))[[0, -1]]
    assert (start - left) / scale == pytest.approx(2, abs=0.15)
    assert (end - left) / scale == pytest.approx(4, abs=0.15)


HOUR = 3600.0


@both_widths
@pytest.mark.parametrize(("labels", "label"), [(1, "Dog"), (1, "x" * 200), (3, "Music, "), (45, "Label ")])
def test_many_and_long_labels_are_readable(tmp_path, pictures, width_mm, labels, label):
    found = [
        Event(f"{label}{number}", number, 50.0 + number, (number + 1) / labels, 0, 1)
        for number in range(labels)
    ]
    path = tone(tmp_path / "a.wav", 1)
    plot_events(events(path, *found, duration_s=100.0), tmp_path / "a.png", width_mm)
    [drawn] = pictures
    assert ("15 more labels" in drawn.texts) == (labels - MOST_ROWS == 15)
    kept = [f"{label}{number}" in drawn.texts for number in range(labels)]
    assert len(label) > 100 or kept == [number >= labels - MOST_ROWS for number in range(labels)]


@both_widths
@pytest.mark.parametrize("duration_s", [0.01, 119, 121, 3599, 10 * HOUR, 1e7])
def test_any_duration_is_readable(tmp_path, pictures, width_mm, duration_s):
    path, start = tone(tmp_path / "a.wav", 0.1), datetime(2026, 5, 1, 4, 30, tzinfo=UTC)
    found = Event("Dog", duration_s / 3, duration_s / 2, 0.5, 0.5, 1), Event("Click", 0, 1e-3, 0.5, 0.5, 1)
    plot_events(events(path, *found, duration_s=duration_s, recorded_at=start), tmp_path / "a.png", width_mm)
    [drawn] = pictures
    [label] = [label for label in drawn.labels if label.startswith("time")]
    unit = "s" if duration_s <= 120 else "min:s" if duration_s <= HOUR else "h:min"
    assert label == f"time ({unit}) after 2026-05-01T04:30:00.000+00:00"


@pytest.mark.parametrize(
    ("duration_s", "texts"),
    [
        (0.25, ["0", "0.05", "0.1", "0.15", "0.2", "0.25"]),
        (30, ["0", "5", "10", "15", "20", "25", "30"]),
        (300, ["0:00", "1:00", "2:00", "3:00", "4:00", "5:00"]),
        (2.5 * HOUR, ["0:00", "0:30", "1:00", "1:30", "2:00", "2:30"]),
        (100 * HOUR, ["0:00", "24:00", "48:00", "72:00", "96:00"]),
    ],
)
def test_ticks_are_round_numbers(duration_s, texts):
    positions, found, _ = ticks(duration_s, 6)
    assert found == texts
    assert positions[-1] <= duration_s


def test_short_events_of_long_recordings_are_visible(tmp_path):
    path, image = tone(tmp_path / "a.wav", 1), tmp_path / "a.png"
    plot_events(events(path, Event("Dog", 40_000.0, 40_000.3, 1, 1, 1), duration_s=80_000.0), image)
    assert (np.abs(imread(image)[:, :, :3] - to_rgb(COLOURS[0])).max(2) < 0.2).sum() > 20


@both_widths
def test_silence_without_events_is_dark_and_says_so(tmp_path, pictures, width_mm):
    soundfile.write(tmp_path / "a.wav", np.zeros(5 * RATE), RATE)
    plot_events(events(str(tmp_path / "a.wav"), duration_s=5.0), tmp_path / "a.png", width_mm)
    assert "no events" in pictures[0].texts
    image = imread(tmp_path / "a.png")
    assert image[image.shape[0] // 3, image.shape[1] // 2, :3].max() < 0.1


HOSTILE = ("$\\frac{", "$x$", "\x00\n\t", "犬の声", "half \ud800", "\\usepackage{x}", "", "%s{}")


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_labels_are_text_not_commands(tmp_path, suffix, pictures):
    path = tone(tmp_path / "a $x$ _^.wav", 1)
    found = [Event(label, 0, 1, 0.5, 0.5, 1) for label in HOSTILE]
    plot_events(events(path, *found, duration_s=1.0), tmp_path / f"a{suffix}")
    assert {"$\\frac{", "$x$", "%s{}", "a $x$ _^.wav"} <= set(pictures[0].texts)
    assert (tmp_path / f"a{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(("path", "error"), [(None, ModelError), ("-", ModelError), ("none.wav", AudioError)])
def test_recordings_that_cannot_be_plotted(tmp_path, path, error):
    with pytest.raises(error):
        plot_events(events(path), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_other_kinds_of_images_are_refused(tmp_path):
    with pytest.raises(ModelError, match="png"):
        plot_events(events("none.wav"), tmp_path / "a.jpg")
