from dataclasses import replace

import numpy as np
import pytest
from front_end_cases import BANKS, SMALL, golden

from earmark.features.mel import analysis_window, mel_filter_bank
from earmark.features.presets import AUDAX, EFFICIENTAT


@pytest.mark.parametrize("name", BANKS)
def test_filter_bank_matches_golden(name):
    bank = mel_filter_bank(BANKS[name])
    assert bank.dtype == np.float64
    np.testing.assert_allclose(bank, golden(f"bank/{name}"), atol=5e-5 * bank.max(), rtol=0)


def test_narrow_bands_are_empty_as_in_the_reference():
    assert int((mel_filter_bank(replace(EFFICIENTAT, n_mels=256)).sum(axis=1) == 0).sum()) == 13


def test_window_matches_golden():
    np.testing.assert_allclose(analysis_window(EFFICIENTAT), golden("window/efficientat"), atol=3e-7)
    np.testing.assert_allclose(analysis_window(AUDAX), golden("window/audax"), atol=3e-7)
    np.testing.assert_allclose(
        analysis_window(replace(SMALL, window_symmetric=False))[[0, 25]], [0, 1], atol=1e-6
    )


def test_the_linear_scale_has_equal_triangles():
    bank = mel_filter_bank(replace(SMALL, mel_scale="linear", n_mels=3, f_min=0.0))
    step = SMALL.f_max / 4
    bins = np.arange(bank.shape[1]) * SMALL.sample_rate / SMALL.n_fft
    wanted = [
        np.interp(bins, [band * step, (band + 1) * step, (band + 2) * step], [0, 1, 0]) for band in range(3)
    ]
    np.testing.assert_allclose(bank, wanted, atol=1e-12)


def test_linear_bands_as_narrow_as_bins_are_the_bins():
    count = SMALL.n_fft // 2 - 1
    nyquist = SMALL.sample_rate / 2
    bank = mel_filter_bank(replace(SMALL, mel_scale="linear", n_mels=count, f_min=0.0, f_max=nyquist))
    np.testing.assert_allclose(bank, np.eye(count + 2)[1:-1], atol=1e-9)
