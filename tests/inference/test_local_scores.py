import pickle
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

import earmark
from earmark.errors import ModelError
from earmark.inference.local_scores import finest_scores, piece_steps, with_local_scores
from earmark.inference.tagger import Tagger

RATE = 32000
STEP_S = 0.625
"""A step of the toy model: 32 frames of 20 ms, less what the last one lacks."""
FARM = Path(__file__).parents[2] / "examples" / "farm.ogg"


@pytest.fixture(scope="module")
def tagger(toy_model: Path) -> Tagger:
    return earmark.load(toy_model, threads=1)


def tone(seconds: float) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * 700 * time) + noise).astype(np.float32)


def test_one_piece_is_the_window(tagger: Tagger) -> None:
    """Where a piece takes in all of a window, its scores are those of the window."""
    waveform = tone(0.5)
    local = with_local_scores(tagger).tag(waveform, RATE, window_s=0.5)
    plain = tagger.tag(waveform, RATE, window_s=0.5)
    assert len(local.windows) == 1
    assert local.scores == pytest.approx(plain.scores, abs=1e-5)
    assert local.embedding == pytest.approx(plain.embedding, abs=1e-5)


def test_pieces_cover_a_recording(tagger: Tagger) -> None:
    result = with_local_scores(tagger).tag(tone(11.0), RATE, window_s=5.0)
    starts, ends = np.transpose([(one.start_s, one.end_s) for one in result.windows])
    assert result.hop_s == pytest.approx(STEP_S)
    assert starts[0] == 0
    assert ends[-1] == pytest.approx(result.duration_s)
    assert ends - starts == pytest.approx(np.full(len(starts), 1.25))
    assert np.diff(starts)[:6] == pytest.approx(np.full(6, STEP_S))
    steps = result.score_series
    assert steps.edges_s[-1] == pytest.approx(11.0)
    assert (steps.scores > 0).all()  # the last window, which overlaps the one before, counts too
    assert steps.resolution_s == pytest.approx(1.25)


def test_events_start_and_end_with_the_sounds() -> None:
    """A rooster, from 10 s to 20 s a dog, then thunder, found with windows of 5 s that do not overlap."""
    result = with_local_scores(earmark.load(threads=1)).tag(FARM)
    [dog] = result.filter("Dog").events()
    assert (dog.start_s, dog.end_s) == pytest.approx((10.0, 20.0), abs=0.4)
    [first, *_] = result.filter("Thunder").events()
    assert 20 < first.start_s < 22
    crows = result.filter("Crowing, cock-a-doodle-doo").events()
    assert [one.start_s for one in crows] == pytest.approx([0.2, 5.2, 8.0], abs=0.4)


def test_a_short_recording_has_no_pieces_of_padding(tagger: Tagger) -> None:
    result = with_local_scores(tagger).tag(tone(2.0), RATE, window_s=5.0)
    assert len(result.windows) > 1
    assert all(one.start_s < one.end_s <= 2.0 for one in result.windows)
    assert result.windows[-1].end_s == pytest.approx(2.0)


def test_many_files_and_streams_have_the_same_pieces(tagger: Tagger, tmp_path: Path) -> None:
    import soundfile

    waveform, path = tone(7.3), tmp_path / "tone.wav"
    soundfile.write(path, waveform, RATE, subtype="FLOAT")
    local = with_local_scores(tagger)
    wanted = local.tag(waveform, RATE, window_s=2.0)
    [many] = local.tag_many([path], window_s=2.0)
    streamed = list(local.stream([waveform[:999], waveform[999:]], RATE, window_s=2.0))
    for windows in (many.windows, streamed):
        assert [one.start_s for one in windows] == [one.start_s for one in wanted.windows]
        assert all((a.scores == b.scores).all() for a, b in zip(windows, wanted.windows, strict=True))


def test_thresholds_are_at_least_those_of_pieces(tagger: Tagger) -> None:
    low, high = (Tagger(tagger.session, tagger.info.changed(threshold=threshold)) for threshold in (0.2, 0.7))
    assert with_local_scores(low).info.thresholds == (0.5, 0.5)
    assert with_local_scores(high).info.thresholds == (0.7, 0.7)
    assert (
        with_local_scores(Tagger(tagger.session, tagger.info.changed(threshold=None))).info.thresholds is None
    )


def test_pickled(tagger: Tagger) -> None:
    local = with_local_scores(tagger)
    again = pickle.loads(pickle.dumps(local))
    assert type(again) is type(local)
    waveform = tone(3.0)
    assert (again.tag(waveform, RATE).scores == local.tag(waveform, RATE).scores).all()


def _scores(local: Tagger) -> np.ndarray:
    return local.tag(tone(1.0), RATE).scores


def test_in_a_forked_process(tagger: Tagger) -> None:
    local = with_local_scores(tagger)
    with get_context("fork").Pool(1) as pool:
        [found] = pool.map(_scores, [local])
    assert (found == _scores(local)).all()


def test_models_without_local_scores_have_overlapping_windows(tagger: Tagger, toy_model: Path) -> None:
    ensemble = earmark.load([toy_model, toy_model], threads=1)
    with pytest.raises(ModelError, match="overlapping windows"):
        with_local_scores(ensemble)
    assert finest_scores(ensemble) == (ensemble, 0.5, 0.125)
    found, window_s, hop_s = finest_scores(tagger)
    assert type(found) is not Tagger
    assert (window_s, hop_s) == (0.5, None)


@pytest.mark.parametrize(
    ("steps", "window_s", "wanted"), [(16, 5.0, 4), (32, 10.0, 4), (2, 0.5, 2), (62, 10.0, 8), (1, 10.0, 1)]
)
def test_steps_of_a_piece(steps: int, window_s: float, wanted: int) -> None:
    assert piece_steps(steps, window_s) == wanted
