"""Cnn6_60k: parity with SP4ASC's trained networks, SpecAugment, and errors.

Untested without ../shared: parity with the three trained networks, at every stage and from the waveform.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from front_end_cases import chirp_and_tone
from safetensors.torch import load_file
from torch import Tensor, nn

import earmark
from earmark.errors import ModelError
from earmark.features.presets import SP4ASC
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info
from earmark.models import Network, create_model
from earmark.models.cnn6 import SeparableConv
from earmark.models.log_mel import TorchLogMel
from earmark.models.onnx_graph import network_to_onnx
from earmark.models.spec_augment import SpecAugment, zero_stripes

SCENES = (
    "airport", "bus", "metro", "metro_station", "park", "public_square", "shopping_mall",
    "street_pedestrian", "street_traffic", "tram",
)  # fmt: skip
WEIGHTS = ("mixup", "focal")
CLIPS = ("metro", "r9", "synth")


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "sp4asc"


@pytest.fixture(scope="module")
def numbers(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "sp4asc.npz"))


def test_merged_kernels_of_the_first_block_train_equally() -> None:
    block = SeparableConv((1, 8)).train()
    block.bn.eval()  # its statistics stay, so that the two forms differ by the convolutions alone
    features = torch.randn(2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    sums, gradients = [], []
    for learning in (True, False):
        block.training = learning
        block.zero_grad()
        found = block(features)
        found.square().sum().backward()
        sums.append(found.detach())
        gradients.append([weight.grad.clone() for weight in block.parameters()])
    torch.testing.assert_close(*sums, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def trained(golden: Path, weights: str) -> Network:
    network = create_model("cnn6_60k", num_classes=len(SCENES)).eval()
    network.load_state_dict(load_file(golden / f"cnn6_60k_{weights}.safetensors"))
    return network


@pytest.fixture(scope="module")
def committed() -> dict[str, np.ndarray]:
    """SP4ASC's "mixup" network, fused and rounded to float16, and its outputs for the synthetic clip."""
    with np.load(Path(__file__).parents[1] / "golden" / "cnn6_60k.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def fused(committed) -> Network:
    network = create_model("cnn6_60k", num_classes=len(SCENES), fused=True).eval()
    weights = {key.removeprefix("weights/"): value for key, value in committed.items() if "weights/" in key}
    state = network.state_dict()
    network.load_state_dict(
        {key: torch.from_numpy(value).reshape(state[key].shape) for key, value in weights.items()}
    )
    return network


@pytest.fixture(scope="module")
def synthetic() -> Tensor:
    return TorchLogMel(SP4ASC)(torch.from_numpy(chirp_and_tone(44_100))[None])


@torch.no_grad()
def test_committed_logits(committed, fused, synthetic):
    np.testing.assert_allclose(fused(synthetic).logits[0].numpy(), committed["logits"], rtol=0, atol=2e-3)


def log_mels(numbers: dict[str, np.ndarray], clip: str) -> Tensor:
    return torch.from_numpy(numbers[f"logmel/{clip}"].T.copy())[None]


def small(**arguments) -> Network:
    torch.manual_seed(0)
    return create_model("cnn6_60k", num_classes=2, n_mels=32, **arguments)


def test_number_of_parameters():
    network = create_model("cnn6_60k", num_classes=10)
    assert sum(parameter.numel() for parameter in network.parameters()) == 62_922
    assert sum(value.numel() for value in network.state_dict().values()) == 64_335


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("clip", CLIPS)
@torch.no_grad()
def test_logits_match_golden(golden, numbers, weights, clip):
    logits = trained(golden, weights)(log_mels(numbers, clip)).logits[0].numpy()
    np.testing.assert_allclose(logits, numbers[f"{weights}/fp32/{clip}/logits"], rtol=0, atol=1e-4)


@torch.no_grad()
def test_stages_match_golden(golden, numbers):
    network, log_mel = trained(golden, "mixup"), log_mels(numbers, "metro")
    for stage, features in enumerate(network.feature_maps(log_mel), 1):
        assert features.shape[2:] == (256 >> stage, 431 >> stage)
        wanted = numbers[f"mixup/act/metro/conv{stage}_mean_over_tf"]
        np.testing.assert_allclose(features.mean((0, 2, 3)).numpy(), wanted, rtol=0, atol=1e-5)
    embedding = network(log_mel).embedding[0].numpy()
    np.testing.assert_allclose(embedding, numbers["mixup/act/metro/pooled"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("clip", ["r9", "synth"])
@torch.no_grad()
def test_logits_match_golden_from_the_waveform(golden, numbers, weights, clip):
    waveform = torch.from_numpy(np.load(golden / "waveforms.npz")[clip])[None]
    logits = trained(golden, weights)(TorchLogMel(SP4ASC)(waveform)).logits[0].numpy()
    np.testing.assert_allclose(logits, numbers[f"{weights}/fp32/{clip}/logits"], rtol=0, atol=2e-3)


@torch.no_grad()
def test_masks_match_golden(committed, fused, synthetic):
    stripes = torch.from_numpy(committed["masked/stripes"])  # (draw, stripe, (axis, begin, width))
    assert stripes[:, :, 0].tolist() == [[2, 2, 3, 3]] * len(stripes)  # its maps are (frame, mel)

    def mask(_module: nn.Module, _inputs: tuple[Tensor, ...], features: Tensor) -> Tensor:
        features = zero_stripes(features, 3, stripes[:, :2, 1], stripes[:, :2, 2])
        return zero_stripes(features, 2, stripes[:, 2:, 1], stripes[:, 2:, 2])

    hook = fused.spec_augmenter.register_forward_hook(mask)
    logits = fused(synthetic.expand(len(stripes), -1, -1)).logits
    hook.remove()
    wanted = np.log(committed["masked/scores"])
    np.testing.assert_allclose(logits.log_softmax(1).numpy(), wanted, rtol=0, atol=2e-3)
    assert np.abs(fused(synthetic).logits.log_softmax(1).numpy() - wanted).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS)
@torch.no_grad()
def test_model_file_recognises_a_metro_station(shared, golden, numbers, tmp_path, weights):
    network, path = trained(golden, weights), tmp_path / "scenes.onnx"
    info = ModelInfo(
        name="scenes",
        labels=SCENES,
        front_end=SP4ASC,
        task="single_label",
        architecture="cnn6_60k",
        arguments={},
        window_s=10.0,
        padding="repeat",
        embedding_size=128,
    )
    path.write_bytes(attach_info(network_to_onnx(network, info).SerializeToString(), info))
    tagger = earmark.load(path, threads=1)
    result = tagger.tag(shared / "data" / "demo" / "metro_station-paris.wav")
    assert result.tags[0].label == "metro_station"
    assert len(result.windows) == 1
    np.testing.assert_allclose(result.scores, numbers[f"{weights}/fp32/metro/probs"], rtol=0, atol=1e-3)
    assert tagger.tag(np.zeros(4410), 44100, window_s=0.1).scores.sum() == pytest.approx(1, abs=1e-5)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch, frames in [(1, 5), (3, 17), (2, 302)]:
        log_mel = log_mels(numbers, "synth")[:, :, :frames].repeat(batch, 1, 1)
        outputs = session.run(["logits", "embedding"], {"log_mel": log_mel.numpy()})
        for got, wanted in zip(outputs, network(log_mel), strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_clip_that_is_too_short_is_repeated():
    network, log_mel = small().eval(), torch.randn(2, 32, 5)
    repeated = log_mel.repeat(1, 1, 4)[:, :, :16]
    torch.testing.assert_close(network(log_mel), network(repeated))
    assert not torch.allclose(network(log_mel).embedding, network(log_mel.repeat(1, 1, 9)).embedding)


def test_other_numbers_of_mel_bands_raise():
    with pytest.raises(ModelError, match=r"32 mel bands, got 40"):
        small()(torch.zeros(1, 40, 50))


def test_settings_of_training_reach_the_layers():
    network = create_model("cnn6_60k", dropout=0.5, spec_augment=[128, 2, 16, 2])
    assert network.config.spec_augment == (128, 2, 16, 2)
    assert network.spec_augmenter.stripes == {3: (128, 2), 2: (16, 2)}
    assert network.dropout.p == 0.5


@torch.no_grad()
def test_masks_in_training_only_and_when_asked_for():
    log_mel = torch.randn(3, 32, 60)
    plain, masking = small(dropout=0.0), small(dropout=0.0, spec_augment=(30, 2, 8, 2))
    assert torch.equal(plain.eval()(log_mel).logits, masking.eval()(log_mel).logits)
    state = torch.get_rng_state()
    wanted = plain.train()(log_mel).logits
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn where nothing is masked"
    torch.manual_seed(1)
    first = masking.train()(log_mel).logits
    torch.manual_seed(1)
    assert torch.equal(masking(log_mel).logits, first)
    assert not torch.allclose(first, wanted)


def test_stripes_are_as_wide_as_they_may_be():
    torch.manual_seed(0)
    masked = SpecAugment((5, 1), (3, 2))(torch.ones(2000, 1, 12, 20)) == 0
    frames, mels = masked.all(2)[:, 0], masked.all(3)[:, 0]  # (item, position)
    assert torch.equal(masked[:, 0], mels[:, :, None] | frames[:, None, :])
    assert frames.sum(1).unique().tolist() == [0, 1, 2, 3, 4]
    assert mels.sum(1).unique().tolist() == [0, 1, 2, 3, 4], "two stripes of up to 2, which may overlap"
    assert (frames.long().diff(dim=1) == 1).sum(1).max() == 1, "one stripe"
    assert frames.any(0).tolist() == [True] * 19 + [False], "a stripe leaves at least the last frame"
    share = frames.sum(1).bincount() / len(frames)
    assert share.tolist() == pytest.approx([0.2] * 5, abs=0.04)


def test_stripes_are_no_longer_than_the_clip():
    masked = SpecAugment((128, 2), (0, 0))(torch.ones(500, 1, 4, 3)) == 0
    assert masked[:, 0, 0].sum(1).unique().tolist() == [0, 1, 2]
    assert torch.equal(SpecAugment((128, 2), (0, 0))(torch.ones(1, 1, 4, 1)), torch.ones(1, 1, 4, 1))
