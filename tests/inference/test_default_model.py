"""The default model: 18 labels, and nothing detected in silence, tones, noise and other sounds."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import earmark
from earmark.hub import registry

RATE = 32000
LENGTH = round(5.12 * RATE)
ALLOWED_SHARE = 0.01
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tagger() -> earmark.Tagger:
    return earmark.load()


def detected(tagger: earmark.Tagger, waveform: np.ndarray, rate: int = RATE) -> list[str]:
    """Labels that reach the model's threshold."""
    return [tag.label for tag in tagger.tag(waveform.astype(np.float32), rate).detected]


def leveled(waveform: np.ndarray, level_db: float) -> np.ndarray:
    return waveform / np.sqrt(np.mean(waveform**2)) * 10 ** (level_db / 20)


def pink(generator: np.random.Generator) -> np.ndarray:
    spectrum = np.fft.rfft(generator.standard_normal(LENGTH))
    return np.fft.irfft(spectrum / np.sqrt(np.arange(1, len(spectrum) + 1)), LENGTH)


def test_the_file_is_small_and_names_its_sources(tagger: earmark.Tagger) -> None:
    assert registry.find().stat().st_size <= 4_000_000
    assert len(tagger.labels) == 18
    assert tagger.info.threshold is not None
    for word in ("accuracy", "Confusion", "CC-BY", "CC0", "licence", "author"):
        assert word in tagger.info.card


@pytest.mark.parametrize("seconds", [0.01, 1.0, 5.12, 12.0])
@pytest.mark.parametrize("value", [0.0, 1e-4, -0.5, 1.0])
def test_nothing_is_detected_in_silence_and_constants(
    tagger: earmark.Tagger, seconds: float, value: float
) -> None:
    assert detected(tagger, np.full(round(seconds * RATE), value)) == []


@pytest.mark.parametrize("frequency", [50, 117, 250, 440, 997, 1000, 2000, 3150, 5000, 8000, 12500])
@pytest.mark.parametrize("level", [0.5, 0.03])
def test_nothing_is_detected_in_pure_tones(tagger: earmark.Tagger, frequency: float, level: float) -> None:
    assert detected(tagger, level * np.sin(2 * np.pi * frequency * np.arange(LENGTH) / RATE)) == []


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "pink"])
def test_nothing_is_detected_in_noise(tagger: earmark.Tagger, kind: str) -> None:
    generator = np.random.default_rng(20261121)
    draw = {
        "gaussian": lambda: generator.standard_normal(LENGTH),
        "uniform": lambda: generator.uniform(-1, 1, LENGTH),
        "pink": lambda: pink(generator),
    }[kind]
    levels = np.linspace(-60, -3, 200)
    named = [found for level in levels if (found := detected(tagger, leveled(draw(), level).clip(-1, 1)))]
    assert len(named) <= ALLOWED_SHARE * len(levels), named


@pytest.fixture(scope="module")
def reached(
    tagger: earmark.Tagger, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[bool]]:
    """Whether clips without labels, made otherwise than those trained on, reach the threshold, by kind."""
    folder = tmp_path_factory.mktemp("negatives")
    command = [sys.executable, str(ROOT / "recipes" / "esc18" / "negatives.py"), "--split", "test"]
    places = ["--output", str(folder), "--sonic-pi", str(shared / "data" / "sonic_pi")]
    done = subprocess.run([*command, *places], capture_output=True, text=True, check=False)
    if "apt-get install" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    with (folder / "negatives.csv").open(encoding="utf-8", newline="") as lines:
        clips = list(csv.DictReader(lines))
    predictions: dict[str, list[bool]] = {}
    for clip in clips:
        predictions.setdefault(clip["kind"], []).append(bool(tagger.tag(folder / clip["path"]).detected))
    return predictions


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["white_noise", "pink_noise", "speech", "music"])
def test_nothing_is_detected_in_generated_negatives(reached: dict[str, list[bool]], kind: str) -> None:
    assert len(reached[kind]) >= 200
    assert sum(reached[kind]) <= ALLOWED_SHARE * len(reached[kind])
