"""VGGish and AlexNet: parity with sound-clf-pytorch, and sizes of their input.

Untested without ../shared: names and shapes of the published state dicts.
"""

import pytest
import sound_clf
import torch
from onnx_parity import assert_exports
from torch import nn

from earmark.errors import ModelError
from earmark.models import create_model

COUNTS = {"vggish": 72_146_473, "alexnet": 44_575_721}
FEWEST = {"vggish": (8, 8), "alexnet": (21, 35)}
CASES = [case for case in sound_clf.cases() if case.startswith(tuple(COUNTS))]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_outputs_match_the_reference(case):
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
    assert network.min_size == FEWEST[name]
    assert network.features(torch.zeros(1, 1, mels, frames)).shape[2] >= 1
    for size in ((mels - 1, frames), (mels, frames - 1)):
        stack = network.features if name == "alexnet" else network.features[:-1]
        with pytest.raises(RuntimeError):
            stack(torch.zeros(1, 1, *size))


@pytest.mark.parametrize("name", COUNTS)
def test_too_few_mel_bands_raise(name):
    mels = FEWEST[name][0]
    with pytest.raises(ModelError, match=f"at least {mels} mel bands, got {mels - 1}"):
        small(name)(torch.zeros(1, mels - 1, 50))


def test_dropout_reaches_the_layers():
    network = create_model("alexnet", hidden=8, dropout=0.25)
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.25, 0.25]


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
@torch.no_grad()
def test_exports_with_batch_and_length_left_open(info, name):
    assert_exports(small(name), info, [(1, 1), (2, 7), (3, 36), (1, 71)])
