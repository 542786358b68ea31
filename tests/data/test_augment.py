"""Augmentation: the same draw gives the same batch, and each step does what it says and no more."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark.audio import resample
from earmark.data import augment
from earmark.frontend import EFFICIENTAT, SP4ASC, LogMel, mel_bank

GOLDEN = Path(__file__).parents[1] / "golden"
FILL = 9.0


def waveforms(batch: int = 6, length: int = 400) -> torch.Tensor:
    return torch.randn(batch, length, generator=torch.Generator().manual_seed(0)) + 0.3


def log_mels(batch: int = 6, mels: int = 32, frames: int = 40) -> torch.Tensor:
    return torch.randn(batch, mels, frames, generator=torch.Generator().manual_seed(1))


def one_label(batch: int = 6, classes: int = 4) -> torch.Tensor:
    return torch.eye(classes)[torch.arange(batch) % classes]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Drawn:
    """A generator that has drawn already."""

    def __init__(self, shares, partners, passed=0.0):
        self.shares, self.partners, self.passed = np.asarray(shares), np.asarray(partners), passed

    def beta(self, _a, _b, _size):
        return self.shares

    def permutation(self, _size):
        return self.partners

    def random(self, size):
        return np.full(size, self.passed)


STEPS = {
    "roll": lambda g, x, m, y: augment.roll(x, 100, g),
    "change_speed": lambda g, x, m, y: augment.change_speed(x, 0.8, 1.25, g),
    "gain": lambda g, x, m, y: augment.gain(x, -12, 6, g),
    "mix_waveforms": lambda g, x, m, y: augment.mix_waveforms(x, y, 2.0, 0.7, g),
    "mixup": lambda g, x, m, y: augment.mixup(m, y, 0.3, g),
    "mask": lambda g, x, m, y: augment.mask(m, 8, 10, FILL, g),
    "equalize": lambda g, x, m, y: augment.equalize(m, 6.0, EFFICIENTAT, g),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
class TestEveryStep:
    def test_the_same_seed_gives_the_same(self, step):
        given = waveforms(), log_mels(), one_label()
        first, again, other = (step(rng(seed), *given) for seed in (1, 1, 2))
        torch.testing.assert_close(first, again, rtol=0, atol=0)
        if isinstance(first, tuple):
            first, other = first[0], other[0]
        assert not torch.equal(first, other)

    def test_torchs_own_chance_is_left_alone(self, step):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        step(rng(), waveforms(), log_mels(), one_label())
        assert torch.equal(torch.get_rng_state(), before)

    def test_nothing_is_changed_in_place(self, step):
        given = waveforms(), log_mels(), one_label()
        kept = [tensor.clone() for tensor in given]
        step(rng(), *given)
        assert all(map(torch.equal, given, kept))

    def test_shape_and_type_stay(self, step):
        given = waveforms(), log_mels(), one_label()
        answer = step(rng(), *given)
        found = answer if isinstance(answer, tuple) else (answer,)
        assert {(tensor.shape, tensor.dtype) for tensor in found} <= {
            (each.shape, torch.float32) for each in given
        }

    def test_a_batch_of_one_will_do(self, step):
        step(rng(), waveforms(1), log_mels(1), one_label(1))


def test_roll_shifts_around_the_end():
    given = torch.arange(50.0).repeat(200, 1)
    starts = (-augment.roll(given, 7, rng())[:, 0]).numpy() % 50
    shifts = np.where(starts > 25, starts - 50, starts)
    assert set(shifts) == set(range(-7, 8))
    rolled = augment.roll(given, 7, rng())
    assert torch.equal(rolled.sort(-1).values, given)
    assert torch.equal((rolled[:, 1:] - rolled[:, :-1]) % 50, torch.ones(200, 49))


def test_gains_are_even_in_decibels():
    given = waveforms(400, 10)
    ratios = augment.gain(given, -18.0, 6.0, rng()) / given
    torch.testing.assert_close(ratios, ratios[:, :1].expand(-1, 10))
    drawn = 20 * ratios[:, 0].log10()
    assert -18 <= drawn.min() < -17
    assert 5 < drawn.max() <= 6
    assert abs(drawn.mean() + 6) < 1.5


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.5, 2.0])
def test_speed_changes_the_pitch_and_not_the_length(factor):
    time = torch.arange(8000) / 8000
    played = augment.change_speed(torch.sin(2 * torch.pi * 400 * time)[None], factor, factor, rng())
    assert played.shape == (1, 8000)
    assert int(torch.fft.rfft(played[0]).abs().argmax()) == round(400 * factor)


def test_speeds_are_even_on_a_logarithmic_scale():
    time = torch.arange(4000) / 4000
    played = augment.change_speed(torch.sin(2 * torch.pi * 500 * time).repeat(300, 1), 0.5, 2.0, rng())
    octaves = np.log2(torch.fft.rfft(played).abs().argmax(-1).numpy() / 500)
    assert -1 <= octaves.min() < -0.9
    assert 0.9 < octaves.max() <= 1
    assert abs(octaves.mean()) < 0.1


@pytest.mark.parametrize("alpha", [0.1, 0.3, 2.0])
@pytest.mark.parametrize("mixing", ["mixup", "mix_waveforms"])
def test_targets_keep_their_sum_and_the_original_the_larger_share(alpha, mixing):
    targets = torch.eye(40)
    if mixing == "mixup":
        _, mixed = augment.mixup(log_mels(40), targets, alpha, rng())
    else:
        _, mixed = augment.mix_waveforms(waveforms(40), targets, alpha, 1.0, rng())
    torch.testing.assert_close(mixed.sum(1), torch.ones(40))
    assert (mixed.diagonal() >= 0.5).all()
    assert (mixed.diagonal() < 1).sum() > 20
    assert mixed.diagonal().unique().numel() > 20  # a share of each one's own


def test_the_same_shares_go_to_sounds_and_targets():
    targets = torch.eye(6)
    given = log_mels(6)
    mixed, wanted = augment.mixup(given, targets, 0.3, rng())
    torch.testing.assert_close(mixed, torch.einsum("ij,jmf->imf", wanted, given))
    centred = waveforms(6) - waveforms(6).mean(-1, keepdim=True)
    mixed, wanted = augment.mix_waveforms(waveforms(6), targets, 2.0, 1.0, rng())
    torch.testing.assert_close(mixed, wanted @ centred, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixed.mean(-1), torch.zeros(6), rtol=0, atol=1e-6)


def test_as_many_waveforms_are_mixed_as_asked_and_the_others_are_left():
    given, targets = waveforms(400, 16), torch.arange(400.0)[:, None]
    for probability in (0.0, 0.3, 1.0):
        mixed, wanted = augment.mix_waveforms(given, targets, 2.0, probability, rng())
        left = (mixed == given).all(-1)
        assert torch.equal(left, (wanted == targets).all(-1))
        assert abs(1 - left.float().mean().item() - probability) < 0.07


def test_shares_are_those_of_efficientat():
    golden = json.loads((GOLDEN / "mixup_toy.json").read_text())
    size = len(golden["lam"])
    mixed, targets = augment.mixup(
        torch.ones(size, 1, 1),
        torch.eye(size),
        golden["alpha"],
        Drawn(golden["raw_beta"], np.roll(np.arange(size), 1)),
    )
    np.testing.assert_allclose(targets.diagonal(), golden["lam"], rtol=1e-6)
    torch.testing.assert_close(mixed, torch.ones(size, 1, 1))


def test_mixing_is_that_of_audax_where_the_share_is_the_larger_one():
    golden = np.load(GOLDEN / "audax_toy.npz")
    given, targets = torch.from_numpy(golden["mixup/x"])[..., 0], torch.from_numpy(golden["mixup/y"])
    drawn = Drawn(golden["mixup/lam"], golden["mixup/perm"])
    mixed, wanted = augment.mixup(given, targets, 1.0, drawn)
    # audax does not take the larger share: elsewhere our original has the share that its partner has
    flipped = golden["mixup/lam"] < 0.5
    assert flipped.sum() == 5
    ours = torch.where(torch.from_numpy(flipped)[:, None, None], given + given[drawn.partners] - mixed, mixed)
    np.testing.assert_allclose(ours, golden["mixup/x_out"][..., 0], rtol=0, atol=1e-5)
    ours = torch.where(torch.from_numpy(flipped)[:, None], targets + targets[drawn.partners] - wanted, wanted)
    np.testing.assert_allclose(ours, golden["mixup/y_out"], rtol=0, atol=1e-5)


def test_a_mask_is_one_stripe_of_bands_and_one_of_frames():
    masked = augment.mask(log_mels(300), 8, 10, FILL, rng()) == FILL
    for axis, widest in ((1, 8), (2, 10)):
        stripe = masked.all(3 - axis).numpy()
        widths = stripe.sum(1)
        edges = np.abs(np.diff(stripe.astype(int), axis=1, prepend=0, append=0)).sum(1)
        assert set(edges) <= {0, 2}
        assert widths.max() == widest
        assert abs(widths.mean() - widest / 2) < 0.6
        assert stripe.any(0).all()  # every place has its turn
    bands, frames = masked.all(2), masked.all(1)
    assert torch.equal(masked, bands[:, :, None] | frames[:, None, :])


@pytest.mark.parametrize(("mels", "frames"), [(0, 10), (8, 0), (0, 0)])
def test_a_width_of_zero_masks_nothing(mels, frames):
    given = log_mels(50)
    masked = augment.mask(given, mels, frames, FILL, rng())
    changed = masked != given
    assert changed.all(2).any() == bool(mels)
    assert changed.all(1).any() == bool(frames)


def test_a_stripe_wider_than_there_is_masks_no_more_than_all():
    masked = augment.mask(log_mels(50, 5, 6), 100, 100, FILL, rng())
    assert masked.shape == (50, 5, 6)
    assert (masked == FILL).any()
    assert not (masked == FILL).all()


@pytest.mark.parametrize("front_end", [EFFICIENTAT, SP4ASC], ids=["ln", "db"])
def test_equalizing_is_a_gain_of_each_band_in_decibels(front_end):
    given = log_mels(100) + front_end.silence + 100
    change = augment.equalize(given, 6.0, front_end, rng()) - given
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change), rtol=0, atol=1e-3)
    in_db = change[:, :, 0] * front_end.scale * (1 if front_end.log == "db" else 10 / np.log(10))
    assert 5 < in_db.abs().max() <= 6.001
    assert abs(in_db.mean()) < 0.6


def test_equalizing_is_smooth():
    given = log_mels(20, mels=128) + 100
    curves = (augment.equalize(given, 6.0, EFFICIENTAT, rng()) - given)[:, :, 0]
    bends = (curves[:, 2:] - 2 * curves[:, 1:-1] + curves[:, :-2]).abs() > 1e-4
    assert (bends.sum(1) <= 2 * 4).all()  # straight but for at most four inner nodes, which lie between bands


@pytest.mark.parametrize("front_end", [EFFICIENTAT, SP4ASC], ids=["ln", "db"])
def test_equalizing_leaves_silence_at_the_floor(front_end):
    floor = front_end.silence
    silence = torch.full((20, 32, 40), floor)
    assert torch.equal(augment.equalize(silence, 12.0, front_end, rng()), silence)
    nearly = silence + 0.01 * torch.rand(silence.shape, generator=torch.Generator().manual_seed(0))
    equalized = augment.equalize(nearly, 12.0, front_end, rng())
    assert equalized.min() == silence[0, 0, 0]
    assert equalized.max() > nearly.max()


def test_equalizing_without_a_floor_leaves_minus_infinity():
    bare = replace(EFFICIENTAT, floor=0.0)
    given = log_mels()
    given[:, :, 3] = -torch.inf
    equalized = augment.equalize(given, 6.0, bare, rng())
    assert (equalized[:, :, 3] == -torch.inf).all()
    assert equalized[:, :, 4:].isfinite().all()


class TestCrop:
    def test_it_is_a_piece_of_the_clip_joined_end_to_start(self):
        clips = waveforms()
        cut = augment.crop(clips, 150, rng(3))
        assert cut.shape == (6, 150)
        for row, piece in zip(clips, cut, strict=True):
            twice = torch.cat([row, row])
            assert any(torch.equal(twice[start : start + 150], piece) for start in range(400))

    def test_it_is_the_loudest_of_its_candidates(self):
        clips = torch.zeros(200, 1000)
        clips[:, 500:510] = 1.0
        missed = [
            (augment.crop(clips, 300, rng(), candidates=count).amax(1) == 0).float().mean().item()
            for count in (1, 3)
        ]
        assert missed == pytest.approx([0.71, 0.71**3], abs=0.1)

    def test_a_whole_clip_is_only_turned(self):
        clips = waveforms()
        cut = augment.crop(clips, 400, rng())
        torch.testing.assert_close(cut.sort(-1).values, clips.sort(-1).values)


class TestLimitBand:
    def test_it_is_what_a_lower_rate_leaves(self):
        """Against a real low-pass: resampled to 8 kHz and back."""
        draws = np.random.default_rng(0)
        clip = (0.1 * draws.standard_normal(32_000)).astype(np.float32)
        real = LogMel(EFFICIENTAT)(resample(resample(clip, 32_000, 8_000), 8_000, 32_000)[None])[0]
        plain = torch.from_numpy(LogMel(EFFICIENTAT)(clip[None]))
        cut = augment.limit_band(plain, 1.0, 15_999.0, EFFICIENTAT, Fixed(np.log(4_000))).numpy()[0]
        centres = mel_bank(EFFICIENTAT).argmax(1) * 32_000 / 1024
        clear = (centres < 3_500) | (centres > 4_500)
        assert np.abs(real - cut)[clear].mean() < 0.1
        assert np.abs(real - plain.numpy()[0])[clear].mean() > 0.5

    def test_so_many_are_limited(self):
        clips = torch.ones(400, 128, 3)
        limited = augment.limit_band(clips, 0.25, 3500.0, EFFICIENTAT, rng())
        share = (limited != 1).flatten(1).any(1).float().mean().item()
        assert share == pytest.approx(0.25, abs=0.06)
        below = mel_bank(EFFICIENTAT).argmax(1) * 32_000 / 1024 <= 3500
        assert (limited[:, below] == 1).all()
        assert (limited[:, ~below] != 1).flatten(1).any(1).any()


class Fixed:
    """A generator that draws one number only."""

    def __init__(self, value: float) -> None:
        self.value = value

    def uniform(self, _low, _high, size):
        return np.full(size, self.value)

    def random(self, size):
        return np.zeros(size)
