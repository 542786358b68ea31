"""Checkpointed stages give the gradients and statistics of the plain network, and keep less memory."""

import copy

import pytest
import torch
from torch import nn

from earmark.models import create_model
from earmark.models.activation_checkpointing import checkpoint_stages

NETWORKS = [
    "mn01",
    "dymn04",
    "efficientnet_b0",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("resnetish18", "resnet18")),
]


def pair(architecture):
    torch.manual_seed(0)
    plain = create_model(architecture, num_classes=5)
    checkpointed = copy.deepcopy(plain)
    assert checkpoint_stages(checkpointed) > 3
    return plain, checkpointed


def gradients(network, log_mel):
    torch.manual_seed(1)  # of dropout
    network.zero_grad()
    output = network(log_mel)
    (output.logits.sigmoid().sum() + output.embedding.square().sum()).backward()
    return output, {name: weight.grad for name, weight in network.named_parameters()}


@pytest.mark.parametrize("architecture", NETWORKS)
def test_gradients_and_statistics_are_equal(architecture):
    plain, checkpointed = pair(architecture)
    log_mel = torch.randn(2, 64, 64)
    for _ in range(2):
        (output, expected), (same, found) = (gradients(one, log_mel) for one in (plain, checkpointed))
        torch.testing.assert_close(same, output, rtol=0, atol=0)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(checkpointed.state_dict(), plain.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(checkpointed.eval()(log_mel), plain.eval()(log_mel), rtol=0, atol=0)


def test_a_copy_is_checkpointed_by_itself():
    _, checkpointed = pair("mn01")
    other = copy.deepcopy(checkpointed)
    gradients(other, torch.randn(2, 32, 24))
    assert all(weight.grad is None for weight in checkpointed.parameters())


def test_a_cumulative_average_counts_each_batch_once():
    plain, checkpointed = pair("mn01")
    for network in (plain, checkpointed):
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = None
        gradients(network, torch.ones(2, 32, 24))
    torch.testing.assert_close(checkpointed.state_dict(), plain.state_dict(), rtol=0, atol=0)


def kept_bytes(network, log_mel):
    """Size of the tensors that a forward pass keeps for the backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(log_mel)
    own = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)


def test_less_than_a_third_is_kept():
    plain, checkpointed = pair("mn10")
    log_mel = torch.randn(2, 128, 100)
    assert kept_bytes(checkpointed, log_mel) < kept_bytes(plain, log_mel) / 3


def test_networks_without_stages_are_left_alone():
    assert checkpoint_stages(create_model("cnn6_60k", num_classes=2)) == 0


def test_half_precision_keeps_float32_gradients():
    _, checkpointed = pair("mn01")
    with torch.autocast("cpu", torch.bfloat16):
        output = checkpointed(torch.randn(3, 32, 40))
    output.logits.float().sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in checkpointed.parameters())
