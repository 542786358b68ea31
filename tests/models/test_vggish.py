"""Parity with the tutorial's VGGish and AlexNet, and what the two take and refuse."""

import numpy as np
import onnxruntime
import pytest
import sound_clf
import torch
from torch import nn

from earmark.errors import ModelError
from earmark.export.export import TOLERANCE, export_model
from earmark.models import create_model

COUNTS = {"vggish": 72_146_473, "alexnet": 44_575_721}
FEWEST = {"vggish": (8, 8), "alexnet": (21, 35)}
CASES = [case for case in sound_clf.cases() if case.startswith(tuple(COUNTS))]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_answers_as_the_reference(case):
    assert sound_clf.difference(case) <= 2e-5


@pytest.mark.parametrize("name", COUNTS)
def test_has_the_published_weights(shared, name):
    published = sound_clf.published(shared, name)
    assert sound_clf.shapes(name) == published["shapes"]
    assert published["params"] == COUNTS[name]


@pytest.mark.parametrize("name", COUNTS)
def test_has_as_many_parameters_as_published(name):
    assert sound_clf.count(name) == COUNTS[name]


def small(name: str, **arguments):
    """A network with few hidden values."""
    return sound_clf.golden_network(name, hidden=16, num_classes=2, **arguments)


@pytest.mark.parametrize(("name", "layer"), [("vggish", "head"), ("alexnet", "classifier.6")])
@torch.no_grad()
def test_the_embedding_is_what_the_last_layer_sees(name, layer):
    network = small(name)
    output = network(sound_clf.golden_input(50))
    assert output.embedding.shape == (2, {"vggish": 128, "alexnet": 16}[name])
    assert output.embedding.min() >= 0
    torch.testing.assert_close(network.get_submodule(layer)(output.embedding), output.logits)


@pytest.mark.parametrize("name", COUNTS)
@torch.no_grad()
def test_a_clip_that_is_too_short_is_repeated(name):
    network, (_, frames) = small(name), FEWEST[name]
    log_mel = sound_clf.golden_input(5)
    repeated = log_mel.repeat(1, 1, 7)[:, :, :frames]
    torch.testing.assert_close(network(log_mel), network(repeated))
    assert not torch.allclose(network(repeated).logits, network(repeated.flip(2)).logits, rtol=1e-3)


@pytest.mark.parametrize("name", COUNTS)
def test_no_smaller_map_can_be_pooled(name):
    """Nor is a larger one asked for."""
    network = small(name)
    mels, frames = FEWEST[name]
    assert network.fewest == FEWEST[name]
    assert network.features(torch.zeros(1, 1, mels, frames)).shape[2] >= 1
    for size in ((mels - 1, frames), (mels, frames - 1)):
        stack = network.features if name == "alexnet" else network.features[:-1]
        with pytest.raises(RuntimeError, match="Output size is too small"):
            stack(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("name", COUNTS)
def test_too_few_mel_bands_are_refused(name):
    mels = FEWEST[name][0]
    with pytest.raises(ModelError, match=f"{mels - 1} mel bands, .* at least {mels}"):
        small(name)(torch.zeros(1, mels - 1, 50))


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("vggish", {"hidden": 0}, "at least 1"),
        ("vggish", {"embedding_size": 1.0}, "whole number"),
        ("alexnet", {"hidden": True}, "whole number"),
        ("alexnet", {"dropout": 1.0}, "below 1"),
    ],
)
def test_refuses_what_cannot_be_built(name, arguments, allowed):
    with pytest.raises(ModelError, match=allowed) as caught:
        create_model(name, **arguments)
    assert next(iter(arguments)) in str(caught.value)


def test_dropout_reaches_the_layers():
    network = create_model("alexnet", hidden=8, dropout=0.25)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.25, 0.25]


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
@torch.no_grad()
def test_exports_with_batch_and_length_left_open(info, tmp_path, name):
    network = small(name)
    assert export_model(network, info, tmp_path / "some.onnx") <= TOLERANCE
    session = onnxruntime.InferenceSession(tmp_path / "some.onnx", providers=["CPUExecutionProvider"])
    for batch, frames in [(1, 1), (2, 7), (3, 36), (1, 71)]:
        log_mel = torch.randn(batch, info.front_end.n_mels, frames)
        answers = session.run(["logits", "embedding"], {"log_mel": log_mel.numpy()})
        for got, wanted in zip(answers, network(log_mel), strict=True):
            np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
