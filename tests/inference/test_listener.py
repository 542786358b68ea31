"""Live sound: notices do not depend on the blocks, say what detection offline says, and come in time."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_model import INFO

import earmark
from earmark.errors import AudioError, ModelError
from earmark.events.online import Notice
from earmark.events.options import EventOptions, LabelOptions
from earmark.inference.listener import Listener

RATE = 8000
SOUND_S = (2.0, 4.0)
LOUD = 0.0
"""Log-mel between that of the tone and that of the noise."""


class ToneSession:
    """A network whose score for "tone" grows with the share of frames that are loud; "noise" has none."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, names: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.runs += 1
        [log_mel] = inputs["log_mel"]
        share = (log_mel.max(0) > LOUD).mean()
        logits = np.array([[12 * share - 6 + 1e-3 * log_mel.mean(), -9]], np.float32)
        return [logits, np.zeros((1, 96), np.float32)]


@pytest.fixture
def tagger() -> earmark.Tagger:
    return earmark.Tagger(ToneSession(), INFO)


def tone_in_silence(seconds: float = 6.0, rate: int = RATE, spans: tuple = (SOUND_S,)) -> np.ndarray:
    """A tone that sounds during the spans, over noise of -60 dB."""
    time = np.arange(round(seconds * rate)) / rate
    is_on = np.any([(time >= start) & (time < end) for start, end in spans], 0)
    noise = 0.001 * np.random.default_rng(0).standard_normal(len(time))
    return (0.5 * np.sin(2 * np.pi * 1000 * time) * is_on + noise).astype(np.float32)


def heard(listener: Listener, waveform: np.ndarray, cuts: list[int]) -> list[Notice]:
    notices = []
    for block in np.split(waveform, sorted(min(cut, len(waveform)) for cut in cuts)):
        notices += listener.feed(block)
    return notices + listener.flush()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, 50_000), max_size=12),
    rate=st.sampled_from([RATE, 11_025]),
    channels=st.sampled_from([1, 2]),
    hop_s=st.sampled_from([0.5, 0.2, 0.03, 0.7]),
    gate_db=st.sampled_from([None, -40.0]),
)
def test_any_blocks_have_the_same_notices(
    tagger: earmark.Tagger, cuts: list[int], rate: int, channels: int, hop_s: float, gate_db: float | None
) -> None:
    waveform = tone_in_silence(3.3, rate, spans=((0.4, 0.9), (1.3, 2.6)))
    if channels == 2:
        is_early = np.arange(len(waveform)) < 1.7 * rate
        waveform = np.stack([waveform, np.where(is_early, -0.999, 1) * waveform], 1)  # which cancel at first
    chosen = {"options": EventOptions(0.5), "window_s": 0.3, "hop_s": hop_s, "gate_db": gate_db}
    wanted = heard(tagger.listen(rate, **chosen), waveform, [])
    assert wanted
    assert heard(tagger.listen(rate, **chosen), waveform, cuts) == wanted


def test_live_events_are_those_of_the_recording(tagger: earmark.Tagger) -> None:
    waveform = tone_in_silence(12.0, spans=((1.1, 2.2), (2.6, 2.7), (5.0, 9.0), (11.5, 12.0)))
    for window_s, hop_s in ((0.5, 0.25), (0.3, 0.05), (0.5, 0.5)):
        for merge_gap_s in (0.1, 0.6, 5.0):
            chosen = EventOptions(0.5, merge_gap_s=merge_gap_s)
            result = tagger.tag(waveform, RATE, window_s=window_s, hop_s=hop_s)
            listener = tagger.listen(RATE, chosen, window_s=window_s, hop_s=hop_s)
            notices = heard(listener, waveform, [])
            found = sorted(
                (one.event for one in notices if one.kind == "end"), key=lambda event: event.start_s
            )
            wanted = result.events(options=chosen)
            assert wanted
            assert [event.label for event in found] == [event.label for event in wanted]
            for one, other in zip(found, wanted, strict=True):
                assert (one.start_s, one.end_s) == pytest.approx((other.start_s, other.end_s))
                assert (one.peak, one.mean) == pytest.approx((other.peak, other.mean), abs=1e-5)
                assert one.resolution_s == pytest.approx(other.resolution_s)


def test_one_event_per_sound_and_both_notices_within_two_seconds(tagger: earmark.Tagger) -> None:
    spans = ((2.03, 4.41), (7.28, 14.9))
    listener = tagger.listen(RATE, EventOptions(0.5), window_s=1.0)
    notices = heard(listener, tone_in_silence(20.0, spans=spans), list(range(0, 160_000, 800)))
    assert [one.kind for one in notices] == ["start", "end", "start", "end"]
    for notice, moment in zip(notices, np.ravel(spans), strict=True):
        assert moment < notice.at_s <= moment + 2.0
    assert [one.event.start_s for one in notices[::2]] == pytest.approx([2.0, 7.0], abs=0.5)
    assert listener.position_s == 20.0


def test_default_lengths_keep_the_promise_of_two_seconds(tagger: earmark.Tagger) -> None:
    wide = earmark.Tagger(tagger.session, tagger.info.changed(window_s=10.0)).listen(RATE)
    assert 2 * wide.window_s <= 2.0
    narrow = tagger.listen(RATE)
    assert narrow.window_s == tagger.info.window_s
    fixed = earmark.Tagger(tagger.session, tagger.info.changed(window_s=10.0, fixed_window=True)).listen(RATE)
    assert (fixed.window_s, fixed.hop_s) == (10.0, 0.5)


def test_a_notice_comes_as_soon_as_its_sound_is_there(tagger: earmark.Tagger) -> None:
    listener = tagger.listen(RATE, EventOptions(0.5))
    for block in np.split(tone_in_silence(), 60):
        for notice in listener.feed(block):
            assert listener.position_s - 0.1 < notice.at_s <= listener.position_s


def test_an_event_is_rearmed_only_below_the_off_threshold(tagger: earmark.Tagger) -> None:
    waveform = tone_in_silence(6.0, spans=((1.0, 2.0), (3.0, 4.0)))
    kinds = [one.kind for one in heard(tagger.listen(RATE, EventOptions(0.5)), waveform, [])]
    assert kinds == ["start", "end", "start", "end"]
    never = EventOptions(0.5, off_threshold=0.0)
    assert [one.kind for one in heard(tagger.listen(RATE, never), waveform, [])] == ["start", "end"]


def test_thresholds_and_durations_of_single_labels(tagger: earmark.Tagger) -> None:
    waveform = tone_in_silence()
    for own in (LabelOptions(threshold=0.9999), LabelOptions(min_duration_s=5.0)):
        assert not heard(tagger.listen(RATE, EventOptions(0.5, per_label={"tone": own})), waveform, [])
        assert heard(tagger.listen(RATE, EventOptions(0.5, per_label={"noise": own})), waveform, [])
    assert tagger.listen(RATE).feed(waveform), "the model's own thresholds"


def test_the_gate_keeps_quiet_windows_from_the_network(tagger: earmark.Tagger) -> None:
    gated = tagger.listen(RATE, EventOptions(0.5), gate_db=-40)
    notices = heard(gated, tone_in_silence(12.0), [])
    assert [one.kind for one in notices] == ["start", "end"]
    assert 8 <= tagger.session.runs <= 12
    assert gated.level_db == pytest.approx(-60, abs=1)
    assert not gated.scores.any()


def test_lost_samples(tagger: earmark.Tagger) -> None:
    waveform = tone_in_silence(6.0, spans=((1.0, 5.0),))
    gapped = tagger.listen(RATE, EventOptions(0.5))
    notices = gapped.feed(waveform[: 3 * RATE]) + gapped.skip(400) + gapped.feed(waveform[3 * RATE + 400 :])
    notices += gapped.flush()
    assert [one.kind for one in notices] == ["start", "end"]
    assert (gapped.position_s, gapped.skipped_s) == (6.0, 0.05)

    apart = tagger.listen(RATE, EventOptions(0.5))
    notices = apart.feed(waveform[: 3 * RATE]) + apart.skip(100 * RATE) + apart.feed(waveform[3 * RATE :])
    notices += apart.flush()
    assert [one.kind for one in notices] == ["start", "end", "start", "end"]
    assert notices[1].event.end_s == notices[1].at_s == 3.0
    assert notices[2].event.start_s == pytest.approx(103.0)
    assert notices[3].event.end_s == pytest.approx(105.0, abs=0.6)


def test_nan_is_an_error_that_can_be_skipped(tagger: earmark.Tagger) -> None:
    waveform = tone_in_silence()
    listener = tagger.listen(RATE, EventOptions(0.5))
    notices = listener.feed(waveform[:24_000])
    with pytest.raises(AudioError, match="sample 24001"):
        listener.feed(np.array([0, np.nan, 0], np.float32))
    with pytest.raises(AudioError, match="channels"):
        listener.feed(np.zeros((4, 2), np.float32))
    notices += listener.skip(3) + listener.feed(waveform[24_003:]) + listener.flush()
    assert [one.kind for one in notices] == ["start", "end"]


def test_nothing_is_an_empty_recording(tagger: earmark.Tagger) -> None:
    listener = tagger.listen(RATE)
    assert listener.feed(np.zeros(0)) == listener.flush() == listener.skip(0) == []
    assert listener.position_s == 0


def test_impossible_settings(tagger: earmark.Tagger) -> None:
    with pytest.raises(AudioError):
        tagger.listen(0)
    for wrong in ({"gate_db": 3.0}, {"hop_s": 0.0}, {"window_s": 1e-6}):
        with pytest.raises(ModelError):
            tagger.listen(RATE, **wrong)
    for method in (EventOptions(method="change_points"), EventOptions(smooth_s=1.0)):
        with pytest.raises(ModelError):
            tagger.listen(RATE, method)


@pytest.mark.parametrize("sounding", [False, True])
def test_memory_does_not_grow_with_the_stream(tagger: earmark.Tagger, sounding: bool) -> None:
    """Long silence, and one long sound."""
    block = tone_in_silence(10.0, spans=((0, 10),) if sounding else ())
    listener = tagger.listen(RATE, EventOptions(0.5), hop_s=2.0)
    listener.feed(block)
    held = []
    tracemalloc.start()
    try:
        for _ in range(40):
            listener.feed(block)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert min(held[20:]) - min(held[:20]) < 60_000
    assert listener.active == (("tone",) if sounding else ())
