import threading
from collections.abc import Iterator
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
from earmark.inference.result import Result, Window
from earmark.inference.tagger import _ahead
from earmark.model_file.calibration import Platt, Temperature
from earmark.model_file.onnx_file import read_model_file

RATE = 8000


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
    assert result.embedding.shape == (96,)
    assert result.duration_s == 0.5


def test_windows_of_a_long_clip(tagger: earmark.Tagger, toy_model: Path) -> None:
    waveform = sound(1.8)
    result = tagger.tag(waveform, RATE)
    spans = [(window.start_s, window.end_s) for window in result.windows]
    assert spans == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 1.8)]
    for window, start in zip(result.windows, (0, 4000, 8000), strict=False):
        np.testing.assert_allclose(
            window.scores, scores_of(toy_model, waveform[start : start + 4000]), atol=1e-5
        )
    tail = np.concatenate([waveform[12000:], np.zeros(4000 - 2400, np.float32)])
    np.testing.assert_allclose(result.windows[3].scores, scores_of(toy_model, tail), atol=1e-5)
    table = np.stack([window.scores for window in result.windows])
    np.testing.assert_array_equal(result.scores, table.max(0))
    np.testing.assert_allclose(
        result.embedding, np.mean([window.embedding for window in result.windows], 0), atol=1e-6
    )


class TestAhead:
    """Windows are made in a thread of their own while the network is at work."""

    def test_nothing_changes(self) -> None:
        assert [list(_ahead(iter(range(count)))) for count in range(6)] == [
            list(range(count)) for count in range(6)
        ]

    def test_the_next_one_is_made_while_one_is_worked_on(self) -> None:
        made, threads = [threading.Event() for _ in range(5)], set()

        def windows() -> Iterator[int]:
            for index, event in enumerate(made):
                threads.add(threading.current_thread())
                event.set()
                yield index

        for index in _ahead(windows()):
            if 0 < index < 4:
                assert made[index + 1].wait(10)
        assert len(threads) == 2

    def test_no_thread_starts_for_one_window(self, tagger: earmark.Tagger, monkeypatch) -> None:
        monkeypatch.setattr(earmark.inference.tagger, "ThreadPoolExecutor", None)
        assert len(tagger.tag(sound(tagger.info.window_s), RATE).windows) == 1
        with pytest.raises(TypeError):
            tagger.tag(sound(3 * tagger.info.window_s), RATE)

    def test_what_cannot_be_read_is_said_as_ever(self, tagger: earmark.Tagger) -> None:
        def windows() -> Iterator[int]:
            yield from range(4)
            raise AudioError("damaged")

        heard = _ahead(windows())
        assert [next(heard) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(AudioError, match="damaged"):
            list(heard)


def test_overlapping_windows_share_frames_and_change_nothing(tagger: earmark.Tagger, toy_model: Path) -> None:
    waveform = sound(4.0)
    result = tagger.tag(waveform, RATE, hop_s=0.12)
    assert len(result.windows) == 31
    for window in result.windows:
        start = round(window.start_s * RATE)
        piece = waveform[start : start + 4000]
        if len(piece) == 4000:
            np.testing.assert_allclose(window.scores, scores_of(toy_model, piece), atol=1e-5)


def test_short_clip_is_repeated(tagger: earmark.Tagger) -> None:
    waveform = sound(0.2)
    np.testing.assert_array_equal(
        tagger.tag(waveform, RATE).scores, tagger.tag(np.resize(waveform, 4000), RATE).scores
    )


def test_tags_are_sorted_and_span_the_best_window(tagger: earmark.Tagger) -> None:
    result = tagger.tag(sound(1.8), RATE)
    assert [tag.label for tag in result.tags] == [
        tagger.labels[i] for i in np.argsort(-result.scores, kind="stable")
    ]
    for tag in result.tags:
        index = tagger.labels.index(tag.label)
        best = max(result.windows, key=lambda window: window.scores[index])
        assert (tag.start_s, tag.end_s) == (best.start_s, best.end_s)
        assert tag.score == pytest.approx(float(result.scores[index]))


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


def test_channels_and_integers(tagger: earmark.Tagger) -> None:
    waveform = np.round(sound(0.5) * 20000).astype(np.int16)
    stereo = np.stack([waveform, waveform], 1)
    expected = tagger.tag(waveform / np.float32(32768), RATE).scores
    np.testing.assert_allclose(tagger.tag(waveform, RATE).scores, expected, atol=1e-6)
    np.testing.assert_allclose(tagger.tag(stereo, RATE).scores, expected, atol=1e-6)


def test_single_label_model_answers_shares_and_averages(toy_single_label_model: Path) -> None:
    tagger = earmark.load(toy_single_label_model)
    result = tagger.tag(sound(1.5), RATE)
    table = np.stack([window.scores for window in result.windows])
    np.testing.assert_allclose(table.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(result.scores, table.mean(0), atol=1e-6)
    np.testing.assert_allclose(
        tagger.tag(sound(1.5), RATE, pooling="max").scores, table.max(0), atol=1e-6
    )


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(0, np.float32), RATE, "no samples"),
        (np.full(4000, np.nan, np.float32), RATE, "NaN"),
        (np.r_[np.zeros(5000), np.inf].astype(np.float32), RATE, "5000"),
        (np.zeros((2, 4000), np.float32), RATE, "channels"),
        (np.zeros(4000, np.complex64), RATE, "complex64"),
        (np.zeros(4000, np.float32), None, "sample rate"),
        (np.zeros(4000, np.float32), 0, "rate"),
    ],
)
def test_unusable_samples(
    tagger: earmark.Tagger, samples: np.ndarray, rate: int | None, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        tagger.tag(samples, rate)


@pytest.mark.parametrize("seconds", [1 / RATE, 0.01, 0.5, 3.0])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_constant_clips_have_finite_scores(tagger: earmark.Tagger, seconds: float, value: float) -> None:
    result = tagger.tag(np.full(round(seconds * RATE), value, np.float32), RATE)
    assert np.isfinite(result.scores).all()


@pytest.mark.parametrize(
    "lengths", [{"window_s": 0.001}, {"hop_s": 0.0}, {"hop_s": -1.0}, {"window_s": float("nan")}]
)
def test_unusable_lengths(tagger: earmark.Tagger, lengths: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=r"window|hop"):
        tagger.tag(sound(1), RATE, **lengths)


PLATT = Platt((0.5, 2.0), (-1.0, 0.25))


def recording(toy_model: Path, **changes) -> tuple[earmark.Tagger, earmark.Result]:
    """The toy model with another record, and what it says of three windows."""
    session, info = open_session(toy_model)
    tagger = earmark.Tagger(session, info.changed(**changes))
    return tagger, tagger.tag(sound(1.5), RATE)


def test_a_calibration_is_applied_to_every_window(toy_model: Path) -> None:
    plain, calibrated = recording(toy_model)[1], recording(toy_model, calibration=PLATT)[1]
    assert (plain.calibrated, calibrated.calibrated) == (False, True)
    for before, after in zip(plain.windows, calibrated.windows, strict=True):
        logits = logit(before.scores.astype(np.float64))
        np.testing.assert_allclose(after.scores, expit(logits * [0.5, 2] + [-1, 0.25]), atol=1e-5)
        np.testing.assert_array_equal(after.embedding, before.embedding)
    table = np.stack([window.scores for window in calibrated.windows])
    np.testing.assert_array_equal(calibrated.scores, table.max(0))
    tagger = recording(toy_model, calibration=PLATT)[0].uncalibrated()
    np.testing.assert_array_equal(tagger.tag(sound(1.5), RATE).scores, plain.scores)
    assert (tagger.info.calibration, tagger.info.threshold) == (None, None)


def test_a_temperature_is_applied_before_windows_are_averaged(toy_single_label_model: Path) -> None:
    plain, calibrated = (
        recording(toy_single_label_model, calibration=own)[1] for own in (None, Temperature(3.0))
    )
    logs = np.log(np.stack([window.scores for window in plain.windows]).astype(np.float64))
    np.testing.assert_allclose(calibrated.scores, softmax(logs / 3, 1).mean(0), atol=1e-5)
    assert calibrated.scores.max() < plain.scores.max()


def test_each_label_has_its_threshold(toy_model: Path) -> None:
    scores = recording(toy_model)[1].scores
    limits = (float(scores[0]) - 1e-6, float(scores[1]) + 1e-6)
    result = recording(toy_model, threshold=limits)[1]
    assert [tag.label for tag in result.heard] == ["tone"]
    assert result.chosen(threshold="auto") == result.heard == result.chosen(threshold=limits)
    assert result.only("noise").heard == ()
    assert [tag.label for tag in result.only("tone").heard] == ["tone"]
    assert len(result.chosen(threshold=np.float32(0))) == 2
    assert recording(toy_model)[1].thresholds == (0.5, 0.5)
    bare = recording(toy_model, threshold=None)[1]
    assert bare.heard == ()
    with pytest.raises(ModelError, match="has no threshold 'auto'"):
        bare.chosen(threshold="auto")
    with pytest.raises(ModelError, match="1 thresholds do not fit 2 labels"):
        bare.chosen(threshold=[0.5])


def test_a_parent_has_the_lowest_threshold_of_its_children() -> None:
    window = Window(0, 1, np.array([0.3, 0.5], np.float32), np.zeros(1, np.float32))
    labels = ("Bark", "Meow")
    rolled = Result(
        labels, (window,), 1, RATE, "toy", "max", calibrated=True, thresholds=(0.4, 0.5)
    ).rolled_up()
    limits = dict(zip(rolled.labels, rolled.thresholds or (), strict=True))
    assert (limits["Bark"], limits["Dog"], limits["Meow"], limits["Cat"]) == (0.4, 0.4, 0.5, 0.5)
    assert limits["Animal"] == 0.4
    heard = {tag.label for tag in rolled.heard}
    assert {"Meow", "Cat", "Animal"} <= heard
    assert not {"Bark", "Dog"} & heard
    assert not rolled.calibrated


def test_an_ensemble_is_not_calibrated(toy_model: Path) -> None:
    one, _ = recording(toy_model, calibration=PLATT, threshold=(0.1, 0.2))
    both = earmark.Tagger.together([one, one])
    assert (both.info.calibration, both.info.threshold) == (None, None)
    np.testing.assert_allclose(
        both.tag(sound(0.5), RATE).scores, one.uncalibrated().tag(sound(0.5), RATE).scores, atol=1e-6
    )
    assert earmark.Tagger.together([one]).info.calibration == PLATT


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean"):
        earmark.load("mn04_esc81")
    with pytest.raises(ModelError, match="no such model file"):
        earmark.load(tmp_path / "model.onnx")
