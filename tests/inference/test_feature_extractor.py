"""Features of consecutive windows: those of each window alone, shared frames computed once."""

from dataclasses import replace

import numpy as np
import pytest

from earmark.features.learned import LEAF
from earmark.features.log_mel import LogMel
from earmark.features.presets import FRONT_ENDS
from earmark.inference.feature_extractor import FeatureExtractor


def noise(samples: int) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)


SHAPES = {
    **FRONT_ENDS,
    "standardized": replace(FRONT_ENDS["audax"], standardize=True),
    "a standardized log-mel": replace(FRONT_ENDS["audax"], standardize="log_mel"),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("hop_frames", [1, 7.5, 20, 200])
def test_windows_are_those_of_their_pieces(name: str, hop_frames: float) -> None:
    front_end = SHAPES[name]
    log_mel, rate, length = LogMel(front_end), front_end.sample_rate, front_end.sample_rate
    hop = round(hop_frames * front_end.hop_length)
    waveform = noise(length + 5 * hop)
    groups = FeatureExtractor(front_end).stream([waveform], rate, length, hop, "zero")
    windows = [window for group in groups for window in group]
    assert [round(window.start_s * rate) for window in windows] == [number * hop for number in range(6)]
    for window in windows:
        start = round(window.start_s * rate)
        wanted = log_mel(waveform[start : start + length])
        np.testing.assert_allclose(window.features, wanted, rtol=0, atol=1e-5)


def test_a_front_end_within_the_graph_takes_waveforms() -> None:
    waveform = noise(3 * LEAF.sample_rate)
    groups = FeatureExtractor(LEAF).stream([waveform], LEAF.sample_rate, LEAF.sample_rate, 8000, "zero")
    windows = [window.features for group in groups for window in group]
    assert len(windows) == 5
    np.testing.assert_array_equal(windows[1], waveform[8000:24000])


def test_frames_that_windows_share_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    front_end = FRONT_ENDS["efficientat"]
    computed, real = [], np.fft.rfft

    def counted(rows: np.ndarray) -> np.ndarray:
        computed.append(len(rows))
        return real(rows)

    monkeypatch.setattr(np.fft, "rfft", counted)
    length, hop = 5 * front_end.sample_rate, front_end.sample_rate // 2
    groups = FeatureExtractor(front_end).stream(
        [noise(20 * front_end.sample_rate)], 32000, length, hop, "zero"
    )
    count = sum(1 for group in groups for _ in group)
    assert count == 31
    assert sum(computed) < 2000 + 8 * count < count * front_end.num_frames(length) / 5
