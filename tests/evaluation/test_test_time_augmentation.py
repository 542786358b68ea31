"""Test-time augmentation: SP4ASC's own passes, what is drawn, and what is masked."""

from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import earmark
from earmark.errors import ModelError
from earmark.evaluation.test_time_augmentation import (
    FRAME,
    MEL,
    MaskedPasses,
    Masks,
    Stripe,
    draw_stripes,
    mask_stripes,
    mask_value,
    mean_logits,
)
from earmark.features.learned import LEAF
from earmark.features.presets import EFFICIENTAT, SP4ASC
from earmark.inference.torch_session import NetworkSession
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file, read_weights
from earmark.models import create_model

RECORD = ModelInfo(
    name="scenes",
    labels=tuple(f"scene {number}" for number in range(10)),
    front_end=SP4ASC,
    task="single_label",
    architecture="cnn6_60k",
    arguments={},
    window_s=10.0,
    padding="repeat",
    embedding_size=128,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


@torch.no_grad()
def merged_and_rounded(weights: dict) -> "torch.nn.Module":
    """SP4ASC's network as it is tested: norms merged, without their epsilon, all rounded to 16 bits."""
    network = create_model("cnn6_60k", num_classes=10).eval()
    network.load_state_dict(weights)
    parts = [network.conv1, network.conv2, network.conv3, network.conv4]
    for norm in (network.bn0, *(part.bn for part in parts)):
        scale = norm.weight / norm.running_var.sqrt()
        norm.bias -= norm.running_mean * scale
        norm.weight.copy_(scale)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
    for part in parts:
        for conv in (part.sp_conv1, part.sp_conv2):
            conv.weight *= part.bn.weight[:, None, None, None]
        part.bn.weight.fill_(1)
    for tensor in network.parameters():
        tensor.copy_(tensor.half().float())
    return network


def stored_stripes(rows: np.ndarray) -> list[Stripe]:
    return [Stripe({2: FRAME, 3: MEL}[axis], begin, width) for axis, begin, width in rows.tolist()]


FIRST, *OTHERS = product(("mixup", "focal"), ("r9", "metro", "synth"))


@pytest.mark.parametrize(
    ("weights", "clip", "passes"),
    [(*FIRST, 6), *(pytest.param(*case, 30, marks=pytest.mark.slow) for case in (FIRST, *OTHERS))],
)
def test_tta30_golden(shared, weights, clip, passes):
    golden = np.load(shared / "golden" / "sp4asc" / "sp4asc.npz")
    network = merged_and_rounded(load_file(shared / "golden" / "sp4asc" / f"cnn6_60k_{weights}.safetensors"))
    state = {name: values.numpy() for name, values in network.state_dict().items()}
    fill, log_mel = mask_value(RECORD, state), golden[f"logmel/{clip}"].T[None]
    wanted = golden[f"{weights}/tta30/{clip}/probs_each"]
    session, logits = NetworkSession(network), []
    for rows in golden[f"{weights}/tta30/{clip}/stripes"][:passes]:
        masked = mask_stripes(log_mel, stored_stripes(rows), fill)
        logits.append(session.run(["logits"], {"log_mel": masked})[0][0])
    np.testing.assert_allclose(softmax(np.array(logits)), wanted[:passes], rtol=0, atol=1e-4)
    every = np.concatenate([logits, np.log(wanted[passes:])])
    together = softmax(mean_logits(every, single_label=True))
    np.testing.assert_allclose(together, golden[f"{weights}/tta30/{clip}/probs"], rtol=0, atol=1e-4)
    [plain] = session.run(["logits"], {"log_mel": log_mel})
    np.testing.assert_allclose(softmax(plain[0]), golden[f"{weights}/fp16/{clip}/probs"], rtol=0, atol=1e-4)
    assert np.abs(softmax(plain[0]) - wanted).max() > 1e-2


def test_the_stripes_of_the_reference_could_have_been_drawn(shared):
    golden = np.load(shared / "golden" / "sp4asc" / "sp4asc.npz")
    for weights, mels in (("focal", 32), ("mixup", 16)):
        stripes = np.concatenate([golden[f"{weights}/tta30/{clip}/stripes"] for clip in ("r9", "synth")])
        drawn = [draw_stripes((256, 431), Masks(mels=mels), np.random.default_rng(n)) for n in range(60)]
        for rows in (stripes[:, :2], np.array([stripes[:2] for stripes in drawn])):
            assert 100 < rows[..., 2].max() < 128
        for rows in (stripes[:, 2:], np.array([stripes[2:] for stripes in drawn])):
            assert mels - 4 < rows[..., 2].max() < mels


def test_stripes_are_drawn_within_their_limits():
    generator, masks = np.random.default_rng(0), Masks(5, 1, 3, 2)
    drawn = [draw_stripes((12, 20), masks, generator) for _ in range(3000)]
    assert {tuple(stripe.axis for stripe in stripes) for stripes in drawn} == {(FRAME, MEL, MEL)}
    frames, mels = np.array(drawn)[:, 0], np.array(drawn)[:, 1:].reshape(-1, 3)
    for rows, limit, size in ((frames, 5, 20), (mels, 3, 12)):
        shares = np.bincount(rows[:, 2]) / len(rows)
        assert shares.tolist() == pytest.approx([1 / limit] * limit, abs=0.03)
        ends = rows[:, 1] + rows[:, 2]
        assert ends.max() == size - 1, "a stripe leaves at least the last position"
        assert rows[:, 1].min() == 0
    assert {stripe.width for stripe in draw_stripes((1, 1), Masks(), generator)} == {0}


def test_masking_overwrites_stripes_and_nothing_else():
    log_mel = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    before, fill = log_mel.copy(), np.arange(4, dtype=np.float32) + 10
    masked = mask_stripes(log_mel, [Stripe(FRAME, 1, 2), Stripe(MEL, 3, 1), Stripe(FRAME, 0, 0)], fill)
    wanted = log_mel.copy()
    wanted[:, :, 1:3] = fill[:, None]
    wanted[:, 3] = 13
    np.testing.assert_array_equal(masked, wanted)
    np.testing.assert_array_equal(log_mel, before)
    np.testing.assert_array_equal(
        mask_stripes(log_mel, [Stripe(MEL, 0, 4)], -1.5), np.full_like(log_mel, -1.5)
    )
    assert masked.dtype == np.float32


@torch.no_grad()
def test_the_first_norm_maps_the_mask_value_to_zero():
    network = create_model("cnn6_60k", num_classes=10).eval()
    torch.manual_seed(0)
    for values in (network.bn0.weight, network.bn0.bias, network.bn0.running_mean):
        values.normal_(0, 20)
    network.bn0.running_var.uniform_(0.5, 900)
    network.bn0.weight[7] = 0
    fill = mask_value(RECORD, {name: values.numpy() for name, values in network.state_dict().items()})
    normed = network.bn0(torch.from_numpy(fill)[None, :, None, None])[0, :, 0, 0]
    normed[7] = 0
    assert normed.abs().max() < 1e-3
    assert np.isfinite(fill).all()


def test_the_mask_value_of_training():
    assert mask_value(RECORD.changed(front_end=EFFICIENTAT), {}) == EFFICIENTAT.mask_value == 0.9


def test_masks_of_the_model_info():
    assert Masks.of(RECORD) == Masks(128, 2, 32, 2)
    assert Masks.of(RECORD.changed(arguments={"spec_augment": [128, 2, 16, 2]})) == Masks(mels=16)
    assert Masks.of(RECORD.changed(arguments={"spec_augment": [0, 0, 0, 0]})) == Masks()


def test_a_learned_front_end_is_refused():
    with pytest.raises(ModelError):
        mask_value(RECORD.changed(front_end=LEAF), {})


@pytest.mark.parametrize("single_label", [True, False])
def test_scores_are_averaged_not_logits(single_label):
    logits = np.random.default_rng(0).normal(0, 5, (7, 2, 4)).astype(np.float32)
    logits[:, 0, 0] = -800
    back = softmax if single_label else (lambda values: 1 / (1 + np.exp(-values.astype(np.float64))))
    with np.errstate(over="ignore"):
        wanted, together = back(logits).mean(0), mean_logits(logits, single_label)
        np.testing.assert_allclose(back(together), wanted, rtol=0, atol=1e-6)
    assert np.abs(back(logits.mean(0)[..., 1:]) - back(together[..., 1:])).max() > 0.01


class Heights:
    """Its logits are the first bands of its input, which it keeps."""

    def __init__(self):
        self.given = []

    def run(self, names, inputs):
        [log_mel] = inputs.values()
        self.given.append(log_mel)
        return [log_mel[:, :2].mean(-1), log_mel.mean(-1)]


def test_masks_follow_from_seed_and_clip():
    log_mel, masks = np.ones((1, 256, 40), np.float32), Masks(mels=200)

    def passes(*clips: str, seed: int = 0) -> list[np.ndarray]:
        heights = Heights()
        session = MaskedPasses(heights, RECORD, 3, masks, 0.0, seed)
        for clip in clips:
            session.restart(clip)
            logits, embedding = session.run(["logits", "embedding"], {"log_mel": log_mel})
            assert (logits.shape, embedding.shape) == ((1, 2), (1, 256))
        np.testing.assert_allclose(embedding[0], np.mean(heights.given[-3:], (0, 1, 3)), atol=1e-6)
        return heights.given

    alone, second, other_seed = passes("b"), passes("a", "b"), passes("b", seed=1)
    np.testing.assert_array_equal(alone, second[3:])
    assert not np.array_equal(second[:3], second[3:])
    assert not np.array_equal(alone, other_seed)
    assert not np.array_equal(alone[0], alone[1])
    assert all((given == 0).any() for given in alone), "the pass without a mask is not among them"


@pytest.mark.slow
@torch.no_grad()
def test_first_norm_of_a_model_file(tmp_path):
    from earmark.export.export import export_model

    torch.manual_seed(0)
    network = create_model("cnn6_60k", num_classes=10)
    for values in (network.bn0.weight, network.bn0.bias, network.bn0.running_mean, network.bn0.running_var):
        values.uniform_(1, 9)
    export_model(network, RECORD, tmp_path / "scenes.onnx")
    stored = read_weights(read_model_file(tmp_path / "scenes.onnx")[0], "bn0.")
    state = {name: values.numpy() for name, values in network.state_dict().items()}
    np.testing.assert_array_equal(mask_value(RECORD, stored), mask_value(RECORD, state))
    incomplete = {name: values for name, values in stored.items() if name != "bn0.bias"}
    for weights in (incomplete, stored | {"bn0.bias": np.zeros(3)}):
        with pytest.raises(ModelError):
            mask_value(RECORD, weights)


def test_a_tagger_runs_masked_passes(toy_model):
    tagger, noise = earmark.load(toy_model), np.random.default_rng(0).normal(0, 0.1, 4000)
    fill = mask_value(tagger.info, {})
    augmented, nothing = (
        tagger.with_session(MaskedPasses(tagger.session, tagger.info, passes, masks, fill))
        for passes, masks in ((8, Masks(20, 2, 9, 2)), (2, Masks(1, 2, 1, 2)))
    )
    plain = tagger.tag(noise, 8000).scores
    np.testing.assert_allclose(nothing.tag(noise, 8000).scores, plain, rtol=0, atol=1e-6)
    assert np.abs(augmented.tag(noise, 8000).scores - plain).max() > 1e-3
