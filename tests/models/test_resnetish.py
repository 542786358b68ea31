"""Parity with the tutorial's residual networks, and what a ResNetish takes and refuses."""

import pytest
import sound_clf
import torch
from golden_weights import settle
from onnx_parity import assert_exports
from torch.nn import functional

from earmark.errors import ModelError
from earmark.models.pooling_layers import AdaptivePool
from earmark.models.resnetish import ResNetish, ResNetishConfig

COUNTS = {"resnetish18": 11_674_089, "resnetish34": 21_782_249, "resnetish50": 25_517_033}
FAST = "resnetish18/he/T101"
CASES = [
    pytest.param(case, marks=[pytest.mark.slow] * (case != FAST))
    for case in sound_clf.cases()
    if case.startswith("resnetish")
]


def small(**choices) -> ResNetish:
    """A network of one block a stage."""
    torch.manual_seed(0)
    return ResNetish(ResNetishConfig(blocks=(1, 1, 1, 1), num_classes=2, **choices))


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


def test_the_older_variant_has_as_many_parameters_as_published():
    older = {"stem_stride": 2, "pool_stride": 1, "cells": (1, 1)}
    assert sound_clf.count("resnetish18", **older) == 11_674_089 - 41 * 512 * 23


@torch.no_grad()
def test_strides_and_cells_reach_the_layers():
    log_mel = torch.randn(1, 64, 50)
    assert small().eval().feature_maps(log_mel)[0].shape[2:] == (32, 25)
    assert small(stem_stride=2, pool_stride=1).eval().feature_maps(log_mel)[0].shape[2:] == (32, 25)
    assert small(stem_stride=2).eval().feature_maps(log_mel)[0].shape[2:] == (16, 13)
    assert small(cells=(2, 3)).fc.in_features == 512 * 6


@pytest.mark.parametrize(("bottleneck", "channels"), [(False, 512), (True, 2048)])
@torch.no_grad()
def test_the_embedding_is_the_mean_of_the_last_map(bottleneck, channels):
    network = settle(small(bottleneck=bottleneck))
    log_mel = torch.randn(2, 64, 40)
    embedding = network(log_mel).embedding
    assert embedding.shape == (2, channels)
    torch.testing.assert_close(embedding, network.feature_maps(log_mel)[-1].mean((2, 3)))


@torch.no_grad()
def test_takes_any_size_and_batch():
    network = settle(small())
    for batch, mels, frames in [(1, 64, 1), (3, 64, 37), (2, 1, 1)]:
        log_mel = torch.randn(batch, mels, frames)
        output = network(log_mel)
        assert output.logits.shape == (batch, 2)
        assert output.logits.isfinite().all()
        torch.testing.assert_close(network(log_mel[:1]).logits, output.logits[:1], rtol=1e-4, atol=1e-5)


def test_invalid_blocks_raise():
    with pytest.raises(ModelError, match="blocks"):
        ResNetishConfig(blocks=(2, 2, 2))


def test_lists_become_tuples():
    assert ResNetishConfig(cells=[4, 6], blocks=[2, 2, 2, 2]) == ResNetishConfig()


def test_starting_weights_have_the_published_spread():
    torch.manual_seed(0)
    network = small()
    spread = network.layer4[0].conv2.weight.std().item()
    assert spread == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)  # fan out
    assert network.fc.weight.abs().max().item() == pytest.approx(12288**-0.5, rel=0.01)  # uniform


@pytest.mark.parametrize(
    ("kind", "native"), [("mean", "adaptive_avg_pool2d"), ("max", "adaptive_max_pool2d")]
)
@pytest.mark.parametrize("size", [(4, 6), (1, 1), (3, 7), (8, 63), (9, 5)])
def test_adaptive_pool_matches_pytorch(kind, native, size):
    features = torch.randn(2, 3, *size)
    wanted = getattr(functional, native)(features, (4, 6))
    torch.testing.assert_close(AdaptivePool((4, 6), kind)(features), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", [False, True])
def test_exports_with_batch_and_length_left_open(info, bottleneck):
    network = settle(small(bottleneck=bottleneck))
    with torch.no_grad():
        network.fc.weight.mul_(30)
    assert_exports(network, info)
