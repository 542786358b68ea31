"""Augmentation: the same draw gives the same batch, and each step does its own change and no more."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

from earmark.audio import resample
from earmark.data import augment
from earmark.data.augment.log_mels import resized, stripe_edges
from earmark.features.log_mel import LogMel
from earmark.features.mel import mel_filter_bank
from earmark.features.presets import EFFICIENTAT, SP4ASC

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
    "mask": lambda g, x, m, y: augment.spec_augment(m, 8, 10, FILL, g),
    "record_again": lambda g, x, m, y: augment.convolve_ir(x, [torch.tensor([0.5, 0.5])], 0.5, g),
    "mix_style": lambda g, x, m, y: augment.freq_mixstyle(m, 0.4, 1.0, g),
    "resize_crop": lambda g, x, m, y: augment.random_resized_crop(m, (0.5, 0.9), (0.5, 1.5), g),
    "equalize": lambda g, x, m, y: augment.filter_augment(m, 6.0, EFFICIENTAT, g),
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

    def test_torchs_rng_is_not_used(self, step):
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
        output = step(rng(), *given)
        found = output if isinstance(output, tuple) else (output,)
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


@pytest.mark.parametrize("snr_db", [0.0, 20.0])
def test_noise_lies_below_each_waveform_by_the_ratio(snr_db):
    quiet_and_loud = torch.tensor([[0.01], [1.0]]) * waveforms(2, 40_000)
    noise = augment.add_noise(quiet_and_loud, snr_db, rng()) - quiet_and_loud
    powers = quiet_and_loud.square().mean(-1) / noise.square().mean(-1)
    torch.testing.assert_close(10 * powers.log10(), torch.full((2,), snr_db), atol=0.2, rtol=0)
    assert noise.mean(-1).abs().max() < 0.02
    assert (augment.add_noise(torch.zeros(1, 8), snr_db, rng()) == 0).all()


def test_gains_are_uniform_in_decibels():
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


def test_the_probability_of_mixing_waveforms():
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


def test_mixing_is_that_of_audax():
    golden = np.load(GOLDEN / "audax_toy.npz")
    given, targets = torch.from_numpy(golden["mixup/x"])[..., 0], torch.from_numpy(golden["mixup/y"])
    drawn = Drawn(golden["mixup/lam"], golden["mixup/perm"])
    mixed, wanted = augment.mixup(given, targets, 1.0, drawn, larger=False)
    np.testing.assert_allclose(mixed, golden["mixup/x_out"][..., 0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(wanted, golden["mixup/y_out"], rtol=0, atol=1e-5)


def test_mixing_is_that_of_sp4asc(shared):
    """One share for the batch, not the larger one."""
    golden = np.load(shared / "golden/sp4asc/sp4asc_metrics.npz")
    drawn = Drawn(golden["mixup_lam"][None], golden["mixup_ind"])
    targets = torch.from_numpy(golden["mixup_tout"])
    mixed, _ = augment.mixup(
        torch.from_numpy(golden["mixup_x"])[:, 0], targets, 0.2, drawn, larger=False, per_batch=True
    )
    np.testing.assert_allclose(mixed, golden["mixup_xout"][:, 0], rtol=0, atol=1e-6)


def test_one_share_for_the_batch_is_one():
    _, alike = augment.mixup(log_mels(40), torch.eye(40), 0.3, rng(), larger=False, per_batch=True)
    _, each = augment.mixup(log_mels(40), torch.eye(40), 0.3, rng(), larger=False)
    assert alike.diagonal()[alike.diagonal() < 1].unique().numel() == 1
    assert each.diagonal().min() < 0.5


def test_mixstyle_is_efficientats(shared):
    golden = np.load(shared / "golden/efficientat/pipeline/mixstyle_toy.npz")
    given = torch.from_numpy(golden["x"])[:, 0]
    drawn = Drawn(golden["lam"].ravel(), golden["perm"])
    drawn.random = lambda: 0.0
    found = augment.freq_mixstyle(given, 0.4, 0.5, drawn)
    np.testing.assert_allclose(found, golden["out"][:, 0], rtol=0, atol=1e-6)
    drawn.random = lambda: 0.5
    assert torch.equal(augment.freq_mixstyle(given, 0.4, 0.5, drawn), given)


def test_resized_rectangle_of_the_reference(shared):
    golden = np.load(shared / "golden/sound_clf/sound_clf.npz")
    given = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 1, 64, 500)).astype(np.float32))
    begin, band, frames, bands = golden["rrc/params_i_j_h_w"].tolist()
    found = resized(given[0, 0], (band, begin, bands, frames))
    np.testing.assert_allclose(found, golden["rrc/out"][0], rtol=0, atol=1e-4)


def test_rectangles_have_the_area_and_aspect_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "earmark.data.augment.log_mels.resized", lambda row, rectangle: seen.append(rectangle) or row
    )
    augment.random_resized_crop(log_mels(300, 64, 500), (0.6, 0.8), (500 / 600, 500 / 400), rng())
    rectangles = np.array(seen)
    areas, aspects = rectangles[:, 2:].prod(1) / 32_000, rectangles[:, 2] / rectangles[:, 3]
    assert 0.58 < areas.min() < 0.65
    assert 0.75 < areas.max() < 0.82
    assert 0.1 < aspects.min() < 0.115
    assert 0.15 < aspects.max() < 0.165
    assert (rectangles[:, :2] >= 0).all()
    assert (rectangles[:, 0] + rectangles[:, 2] <= 64).all()
    assert (rectangles[:, 1] + rectangles[:, 3] <= 500).all()


def test_a_rectangle_that_does_not_fit_leaves_the_log_mel():
    given = log_mels(3)
    whole = augment.random_resized_crop(given, (1.0, 1.0), (50.0, 60.0), rng())
    torch.testing.assert_close(whole, given, rtol=0, atol=1e-5)


def test_convolve_ir():
    given = waveforms(40, 300)
    impulses = [torch.tensor([0.0, 0.0, 2.0]), torch.tensor([1.0, -0.9])]
    received = augment.convolve_ir(given, impulses, 0.5, rng())
    oracles = [
        given.numpy(),
        np.pad(given, ((0, 0), (2, 0)))[:, :300],
        scipy.signal.lfilter([1, -0.9], 1, given.numpy()),
    ]
    loud = [np.sqrt((each**2).mean(1, keepdims=True)) for each in oracles]
    level = np.sqrt((given.numpy() ** 2).mean(1, keepdims=True))
    found = [
        np.isclose(received, each * level / own, atol=1e-4).all(1)
        for each, own in zip(oracles, loud, strict=True)
    ]
    assert np.sum(found, 0).tolist() == [1] * 40
    assert found[0].sum() in range(12, 29)
    assert min(found[1].sum(), found[2].sum()) > 3
    assert torch.equal(augment.convolve_ir(torch.zeros(2, 300), impulses, 1.0, rng()), torch.zeros(2, 300))


def test_stripes_are_those_of_audax(shared):
    golden = np.load(shared / "golden/audax/transforms_metrics.npz")
    kept = np.ones((4, 104, 64), bool)
    for frequency, time in golden["specaug/u"]:
        for axis, (drawn, widest) in enumerate(((time, 50), (frequency, 8)), start=1):
            begins, ends = stripe_edges(drawn, drawn, kept.shape[axis], widest, whole=False)
            positions = np.arange(kept.shape[axis])
            inside = (positions >= begins[:, None]) & (positions < ends[:, None])
            kept &= ~np.expand_dims(inside, 3 - axis)
    np.testing.assert_array_equal(kept, golden["specaug/out"] == 1)


@pytest.mark.parametrize("stripes", ["linked", "independent"])
def test_the_place_of_a_linked_stripe_follows_from_its_width(stripes):
    masked = augment.spec_augment(torch.zeros(200, 8, 100), 0, 60, FILL, rng(), stripes=stripes)[:, 0] == FILL
    widths, first = masked.sum(1).numpy(), masked.int().argmax(1).numpy()
    foretold = widths / 60 * (100 - widths)
    assert (np.abs(first - foretold)[widths > 0] < 3).all() == (stripes == "linked")


def test_there_are_as_many_stripes_as_asked():
    masked = augment.spec_augment(torch.zeros(300, 200, 4), 12, 0, FILL, rng(), count=3)[:, :, 0] == FILL
    edges = torch.diff(masked.int(), dim=1).abs().sum(1)
    assert edges.max() >= 5


def test_a_mask_is_one_stripe_of_bands_and_one_of_frames():
    masked = augment.spec_augment(log_mels(300), 8, 10, FILL, rng()) == FILL
    for axis, widest in ((1, 8), (2, 10)):
        stripe = masked.all(3 - axis).numpy()
        widths = stripe.sum(1)
        edges = np.abs(np.diff(stripe.astype(int), axis=1, prepend=0, append=0)).sum(1)
        assert set(edges) <= {0, 2}
        assert widths.max() == widest - 1
        assert abs(widths.mean() - (widest - 1) / 2) < 0.6
        assert stripe[:, :-2].any(0).all()  # every place has its turn, the last ones hardly
    bands, frames = masked.all(2), masked.all(1)
    assert torch.equal(masked, bands[:, :, None] | frames[:, None, :])


@pytest.mark.parametrize(("mels", "frames"), [(0, 10), (8, 0), (0, 0)])
def test_a_width_of_zero_masks_nothing(mels, frames):
    given = log_mels(50)
    masked = augment.spec_augment(given, mels, frames, FILL, rng())
    changed = masked != given
    assert changed.all(2).any() == bool(mels)
    assert changed.all(1).any() == bool(frames)


def test_a_stripe_wider_than_there_is_masks_no_more_than_all():
    masked = augment.spec_augment(log_mels(50, 5, 6), 100, 100, FILL, rng())
    assert masked.shape == (50, 5, 6)
    assert (masked == FILL).any()
    assert not (masked == FILL).all()


@pytest.mark.parametrize("front_end", [EFFICIENTAT, SP4ASC], ids=["ln", "db"])
def test_filter_augment_is_a_gain_in_decibels(front_end):
    given = log_mels(100) + front_end.silence + 100
    change = augment.filter_augment(given, 6.0, front_end, rng()) - given
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change), rtol=0, atol=1e-3)
    in_db = change[:, :, 0] * front_end.scale * (1 if front_end.log == "db" else 10 / np.log(10))
    assert 5 < in_db.abs().max() <= 6.001
    assert abs(in_db.mean()) < 0.6


def test_filter_augment_is_smooth():
    given = log_mels(20, mels=128) + 100
    curves = (augment.filter_augment(given, 6.0, EFFICIENTAT, rng()) - given)[:, :, 0]
    bends = (curves[:, 2:] - 2 * curves[:, 1:-1] + curves[:, :-2]).abs() > 1e-4
    assert (bends.sum(1) <= 2 * 4).all()  # straight but for at most four inner nodes, which lie between bands


@pytest.mark.parametrize("front_end", [EFFICIENTAT, SP4ASC], ids=["ln", "db"])
def test_filter_augment_keeps_silence(front_end):
    floor = front_end.silence
    silence = torch.full((20, 32, 40), floor)
    assert torch.equal(augment.filter_augment(silence, 12.0, front_end, rng()), silence)
    nearly = silence + 0.01 * torch.rand(silence.shape, generator=torch.Generator().manual_seed(0))
    equalized = augment.filter_augment(nearly, 12.0, front_end, rng())
    assert equalized.min() == silence[0, 0, 0]
    assert equalized.max() > nearly.max()


def test_filter_augment_keeps_minus_infinity():
    bare = replace(EFFICIENTAT, floor=0.0)
    given = log_mels()
    given[:, :, 3] = -torch.inf
    equalized = augment.filter_augment(given, 6.0, bare, rng())
    assert (equalized[:, :, 3] == -torch.inf).all()
    assert equalized[:, :, 4:].isfinite().all()


class TestCrop:
    def test_a_crop_is_a_piece_of_the_looped_clip(self):
        clips = waveforms()
        cut = augment.crop(clips, 150, rng(3))
        assert cut.shape == (6, 150)
        for row, piece in zip(clips, cut, strict=True):
            twice = torch.cat([row, row])
            assert any(torch.equal(twice[start : start + 150], piece) for start in range(400))

    def test_a_crop_is_the_loudest_candidate(self):
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
    def test_low_pass_is_a_lower_sample_rate(self):
        """Against a real low-pass: resampled to 8 kHz and back."""
        draws = np.random.default_rng(0)
        clip = (0.1 * draws.standard_normal(32_000)).astype(np.float32)
        real = LogMel(EFFICIENTAT)(resample(resample(clip, 32_000, 8_000), 8_000, 32_000)[None])[0]
        plain = torch.from_numpy(LogMel(EFFICIENTAT)(clip[None]))
        cut = augment.low_pass(plain, 1.0, 15_999.0, EFFICIENTAT, Fixed(np.log(4_000))).numpy()[0]
        centres = mel_filter_bank(EFFICIENTAT).argmax(1) * 32_000 / 1024
        clear = (centres < 3_500) | (centres > 4_500)
        assert np.abs(real - cut)[clear].mean() < 0.1
        assert np.abs(real - plain.numpy()[0])[clear].mean() > 0.5

    def test_the_probability_of_low_pass(self):
        clips = torch.ones(400, 128, 3)
        limited = augment.low_pass(clips, 0.25, 3500.0, EFFICIENTAT, rng())
        share = (limited != 1).flatten(1).any(1).float().mean().item()
        assert share == pytest.approx(0.25, abs=0.06)
        below = mel_filter_bank(EFFICIENTAT).argmax(1) * 32_000 / 1024 <= 3500
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
