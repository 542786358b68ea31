"""The default model: its file, and what it detects where there is nothing to hear."""

from pathlib import Path

import numpy as np
import pytest

import earmark
from earmark.hub import registry
from earmark.model_file.ontology import audioset_ontology

RATE = 32000
LENGTH = round(5.12 * RATE)


@pytest.fixture(scope="module")
def tagger() -> earmark.Tagger:
    return earmark.load()


def detected(tagger: earmark.Tagger, waveform: np.ndarray, rate: int = RATE) -> set[str]:
    """Labels that reach the model's thresholds."""
    return {tag.label for tag in tagger.tag(waveform.astype(np.float32), rate).detected}


def family(*names: str) -> set[str]:
    """Labels of AudioSet, and all that are below them or next above them in its ontology."""
    ontology = audioset_ontology()
    return {other for name in names for other in (name, *ontology.descendants(name), *ontology.parents[name])}


def leveled(waveform: np.ndarray, level_db: float) -> np.ndarray:
    return waveform / np.sqrt(np.mean(waveform**2)) * 10 ** (level_db / 20)


def pink(generator: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(generator.standard_normal(LENGTH))
    return np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), LENGTH)


def test_the_file_is_small_and_names_its_sources(tagger: earmark.Tagger) -> None:
    assert registry.find().stat().st_size <= 4_000_000
    assert tagger.info.thresholds is not None
    for word in ("CC-BY", "CC0", "licence", "author"):
        assert word.casefold() in tagger.info.card.casefold()


@pytest.mark.parametrize("seconds", [0.01, 1.0, 12.0])
@pytest.mark.parametrize("value", [0.0, 1e-4, -0.5, 1.0])
def test_nothing_but_silence_is_detected_in_constants(
    tagger: earmark.Tagger, seconds: float, value: float
) -> None:
    allowed = {"Silence"} if abs(value) < 0.1 else {"Silence", "Sine wave", "Chirp tone"}
    assert detected(tagger, np.full(round(seconds * RATE), value)) <= allowed


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "pink"])
def test_nothing_but_noise_is_detected_in_noise(tagger: earmark.Tagger, kind: str) -> None:
    generator = np.random.default_rng(20261121)
    draw = {
        "gaussian": lambda: generator.standard_normal(LENGTH),
        "uniform": lambda: generator.uniform(-1, 1, LENGTH),
        "pink": lambda: pink(generator),
    }[kind]
    allowed = family("Noise", "Static", "Hiss", "Silence", "Waterfall", "White noise")
    for level in np.linspace(-60, -3, 12):
        assert detected(tagger, leveled(draw(), level).clip(-1, 1)) <= allowed, level


def test_the_example_recording_is_recognised(tagger: earmark.Tagger) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "farm.ogg"
    result = tagger.tag(example)
    where = {tag.label.casefold(): tag.start_s for tag in result.detected}
    assert 10 <= where["dog"] < 20
    assert where["thunderstorm"] >= 20
    assert any("rooster" in label and start < 10 for label, start in where.items())
