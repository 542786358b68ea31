"""Tagging of recordings: windows, scores, and what cannot be tagged."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import soundfile
from scipy.special import expit, logit, softmax

import earmark
from earmark.errors import AudioError, ModelError
from earmark.features.log_mel import LogMel
from earmark.inference.load import open_session
from earmark.model_file.calibration import Platt, Temperature
from earmark.model_file.onnx_file import read_model_file

RATE = 8000
PLATT = Platt((0.5, 2.0), (-1.0, 0.25))


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Noise whose level and colour change, so that no two windows are alike."""
    generator = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (200 + 300 * time) * time)
    return (0.3 * tone + 0.1 * generator.standard_normal(len(time)) * (1 + np.sin(time))).astype(np.float32)


@pytest.fixture(scope="module")
def tagger(toy_model: Path) -> earmark.Tagger:
    return earmark.load(toy_model, threads=1)


def scores_of(model: Path, waveform: np.ndarray) -> np.ndarray:
    """The scores of one window, without the tagger."""
    content, info = read_model_file(model)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"log_mel": LogMel(info.front_end)(waveform)[None]})[0][0]
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_clip_of_one_window_is_one_forward_pass(tagger: earmark.Tagger, toy_model: Path) -> None:
    waveform = sound(0.5)
    result = tagger.tag(waveform, RATE)
    np.testing.assert_allclose(result.scores, scores_of(toy_model, waveform), atol=1e-5)
    assert [(window.start_s, window.end_s) for window in result.windows] == [(0.0, 0.5)]
    assert result.embedding.shape == (tagger.info.embedding_size,)
    assert result.duration_s == 0.5


def test_windows_of_a_long_clip(tagger: earmark.Tagger, toy_model: Path) -> None:
    waveform = sound(1.8)
    result = tagger.tag(waveform, RATE)
    spans = [(window.start_s, window.end_s) for window in result.windows]
    assert spans == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.3, 1.8)]
    for window, start in zip(result.windows, (0, 4000, 8000, 10400), strict=True):
        np.testing.assert_allclose(
            window.scores, scores_of(toy_model, waveform[start : start + 4000]), atol=1e-5
        )
    table = np.stack([window.scores for window in result.windows])
    np.testing.assert_array_equal(result.scores, table.max(0))
    np.testing.assert_allclose(
        result.embedding, np.mean([window.embedding for window in result.windows], 0), atol=1e-6
    )


@pytest.mark.parametrize("hop_s", [0.12, 0.05, 0.0375, 0.07])
def test_overlapping_windows_are_those_of_their_pieces(
    tagger: earmark.Tagger, toy_model: Path, hop_s: float
) -> None:
    """Frames are copied from the window before (0.12), from one further back (0.05), or not at all."""
    waveform = sound(2.0)
    result = tagger.tag(waveform, RATE, hop_s=hop_s)
    assert len(result.windows) == 1 + np.ceil(1.5 / hop_s)
    assert (result.windows[-1].start_s, result.windows[-1].end_s) == (1.5, 2.0)
    for window in result.windows:
        start = round(window.start_s * RATE)
        wanted = scores_of(toy_model, waveform[start : start + 4000])
        np.testing.assert_allclose(window.scores, wanted, atol=1e-5)


@pytest.mark.parametrize("tail_s", [1 / RATE, 0.03, 0.25])
def test_a_short_tail_is_heard_together_with_what_comes_before_it(
    tagger: earmark.Tagger, toy_model: Path, tail_s: float
) -> None:
    waveform = sound(1.0 + tail_s)
    *_, last = tagger.tag(waveform, RATE).windows
    assert (last.start_s, last.end_s) == pytest.approx((0.5 + tail_s, 1.0 + tail_s))
    np.testing.assert_allclose(last.scores, scores_of(toy_model, waveform[-4000:]), atol=1e-5)


def test_short_clip_is_repeated(tagger: earmark.Tagger) -> None:
    waveform = sound(0.2)
    np.testing.assert_array_equal(
        tagger.tag(waveform, RATE).scores, tagger.tag(np.resize(waveform, 4000), RATE).scores
    )


def test_file_equals_its_samples(tagger: earmark.Tagger, tmp_path: Path) -> None:
    waveform = sound(1.3, rate=22050)
    path = tmp_path / "straße.wav"
    soundfile.write(path, waveform, 22050, subtype="FLOAT")
    from_file = tagger.tag(path)
    np.testing.assert_allclose(from_file.scores, tagger.tag(waveform, 22050).scores, atol=1e-6)
    assert from_file.path == str(path)
    assert from_file.sample_rate == 22050
    assert from_file.duration_s == pytest.approx(1.3, abs=1e-3)
    assert from_file.warnings == ()
    with pytest.raises(AudioError):
        tagger.tag(path, 22050)


def test_channels_and_integers(tagger: earmark.Tagger) -> None:
    waveform = np.round(sound(0.5) * 20000).astype(np.int16)
    stereo = np.stack([waveform, waveform], 1)
    expected = tagger.tag(waveform / np.float32(32768), RATE).scores
    np.testing.assert_allclose(tagger.tag(waveform, RATE).scores, expected, atol=1e-6)
    np.testing.assert_allclose(tagger.tag(stereo, RATE).scores, expected, atol=1e-6)


def test_pooling(tagger: earmark.Tagger, toy_single_label_model: Path) -> None:
    single = earmark.load(toy_single_label_model)
    result = single.tag(sound(1.5), RATE)
    table = np.stack([window.scores for window in result.windows])
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(result.scores, table.mean(0), atol=1e-6)
    np.testing.assert_array_equal(single.tag(sound(1.5), RATE, pooling="max").scores, table.max(0))
    assert (tagger.tag(sound(1.5), RATE).pooling, result.pooling) == ("max", "mean")
    with pytest.raises(ModelError, match="pooling must be 'max' or 'mean', got 'median'"):
        tagger.tag(sound(1), RATE, pooling="median")


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros(0, np.float32), RATE),
        (np.full(4000, np.nan, np.float32), RATE),
        (np.zeros((2, 4000), np.float32), RATE),
        (np.zeros(4000, np.complex64), RATE),
        (np.zeros(4000, np.float32), None),
        (np.zeros(4000, np.float32), 0),
    ],
)
def test_unusable_samples(tagger: earmark.Tagger, samples: np.ndarray, rate: int | None) -> None:
    with pytest.raises(AudioError):
        tagger.tag(samples, rate)


def test_a_sample_that_is_not_finite_is_named(tagger: earmark.Tagger) -> None:
    with pytest.raises(AudioError, match="sample 5000"):
        tagger.tag(np.r_[np.zeros(5000), np.inf].astype(np.float32), RATE)


@pytest.mark.parametrize("seconds", [1 / RATE, 0.01, 0.5, 3.0])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_constant_clips_have_finite_scores(tagger: earmark.Tagger, seconds: float, value: float) -> None:
    result = tagger.tag(np.full(round(seconds * RATE), value, np.float32), RATE)
    assert np.isfinite(result.scores).all()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"window_s": 0.001}, r"window_s must be between 0.\d+ and 600, got 0.001"),
        ({"window_s": float("nan")}, "window_s"),
        ({"hop_s": 0.0}, "hop_s must be between 0.000125 and 86400, got 0"),
        ({"hop_s": -1.0}, "hop_s"),
        ({"hop_s": float("inf")}, "hop_s"),
    ],
)
def test_unusable_lengths(tagger: earmark.Tagger, lengths: dict[str, float], message: str) -> None:
    for call in (lambda: tagger.tag(sound(1), RATE, **lengths), lambda: tagger.stream([], RATE, **lengths)):
        with pytest.raises(ModelError, match=message):
            call()


def test_embeddings(tagger: earmark.Tagger) -> None:
    result, found = (call(sound(1.2), RATE) for call in (tagger.tag, tagger.embed))
    np.testing.assert_array_equal(found.windows, [window.embedding for window in result.windows])
    np.testing.assert_array_equal(found.clip, result.embedding)
    np.testing.assert_array_equal(found.end_s, [0.5, 1.0, 1.2])
    chosen = tagger.embed_windows(sound(1.2), [0, 4000], 4000)
    np.testing.assert_allclose(chosen, found.windows[:2], atol=1e-5)


def tagged(model: Path, **changes: object) -> tuple[earmark.Tagger, earmark.Result]:
    """A model with other metadata, and its result for three windows."""
    session, info = open_session(model)
    tagger = earmark.Tagger(session, info.changed(**changes))
    return tagger, tagger.tag(sound(1.5), RATE)


def test_a_calibration_is_applied_to_every_window(toy_model: Path) -> None:
    plain, calibrated = tagged(toy_model)[1], tagged(toy_model, calibration=PLATT)[1]
    assert (plain.calibrated, calibrated.calibrated) == (False, True)
    for before, after in zip(plain.windows, calibrated.windows, strict=True):
        logits = logit(before.scores.astype(np.float64))
        np.testing.assert_allclose(after.scores, expit(logits * [0.5, 2] + [-1, 0.25]), atol=1e-5)
        np.testing.assert_array_equal(after.embedding, before.embedding)
    table = np.stack([window.scores for window in calibrated.windows])
    np.testing.assert_array_equal(calibrated.scores, table.max(0))
    tagger = tagged(toy_model, calibration=PLATT)[0].uncalibrated()
    np.testing.assert_array_equal(tagger.tag(sound(1.5), RATE).scores, plain.scores)
    assert (tagger.info.calibration, tagger.info.threshold) == (None, None)


def test_a_temperature_is_applied_before_windows_are_averaged(toy_single_label_model: Path) -> None:
    plain, calibrated = (tagged(toy_single_label_model, calibration=own)[1] for own in (None, Temperature(3)))
    logs = np.log(np.stack([window.scores for window in plain.windows]).astype(np.float64))
    np.testing.assert_allclose(calibrated.scores, softmax(logs / 3, 1).mean(0), atol=1e-5)
    assert calibrated.scores.max() < plain.scores.max()


def test_another_session(tagger: earmark.Tagger) -> None:
    class Doubled:
        def run(self, names, inputs):
            return [2 * one for one in tagger.session.run(names, inputs)]

    plain, doubled = (one.tag(sound(0.5), RATE) for one in (tagger, tagger.with_session(Doubled())))
    np.testing.assert_allclose(doubled.embedding, 2 * plain.embedding)


@pytest.mark.parametrize(
    ("logits", "embedding"),
    [([[np.nan, 0]], [[0]]), ([[0, 0]], [[np.inf]]), ([[0, 0, 0]], [[0]]), ([[0], [0]], [[0]])],
)
def test_outputs_that_no_tags_can_be_made_of(tagger: earmark.Tagger, logits: list, embedding: list) -> None:
    class Broken:
        def run(self, names, inputs):
            return [np.array(logits, np.float32), np.array(embedding, np.float32)]

    with pytest.raises(ModelError, match="model toy"):
        tagger.with_session(Broken()).tag(sound(0.5), RATE)


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        earmark.load("mn04_sa")
    for model in (tmp_path / "model.onnx", []):
        with pytest.raises(ModelError):
            earmark.load(model)
