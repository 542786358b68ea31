"""Chains that keep less answer and learn as the plain ones do, and do keep less."""

import copy

import pytest
import torch
from torch import nn

from earmark.models import create_model
from earmark.models import recompute as module
from earmark.models.layers import ConvNormActivation, SameConv2d, SqueezeExcitation
from earmark.models.mobilenet import HARDSWISH, Block, InvertedResidual


def in_both_ways(architecture, **arguments):
    torch.manual_seed(0)
    plain = create_model(architecture, num_classes=5, **arguments).to(memory_format=torch.channels_last)
    for part in plain.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    lean = copy.deepcopy(plain)
    for part in lean.modules():
        if isinstance(part, InvertedResidual):
            part.recomputes = True
    return plain, lean


def learned(network, log_mel):
    answer = network(log_mel)
    (answer.logits.sigmoid().sum() + answer.embedding.square().sum()).backward()
    return answer, {name: weight.grad for name, weight in network.named_parameters()}


def assert_all_as_without(plain, lean, features, learned):
    """In double precision, where nothing but rounding may differ: far below that of float32."""
    for _ in range(2):
        (answer, gradients), (same, theirs) = learned(plain, features), learned(lean, features)
        torch.testing.assert_close(same, answer, rtol=1e-9, atol=1e-11)
        largest = max(float(gradient.abs().max()) for gradient in gradients.values())
        for name, gradient in gradients.items():
            torch.testing.assert_close(theirs[name], gradient, rtol=1e-8, atol=1e-10 * largest)
    torch.testing.assert_close(lean.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(lean.eval()(features), plain.eval()(features), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("widest", [200, 2**23])
@pytest.mark.parametrize("padding", ["centred", "same"])
@pytest.mark.parametrize("expanded", [4, 6])
@pytest.mark.parametrize("excitation", [None, {"c": 6}, {"c": 6, "f": 4}])
def test_a_block_is_as_without(excitation, expanded, padding, widest, monkeypatch):
    monkeypatch.setattr(module, "WIDEST", widest)
    torch.manual_seed(0)
    block = Block(4, 5, expanded, 4, True, HARDSWISH, 2)
    sizes = excitation and {axis: expanded if axis == "c" else 4 for axis in excitation}
    plain = InvertedResidual(
        block, sizes and SqueezeExcitation(sizes, 2, "min"), nn.BatchNorm2d, padding=padding
    ).double()
    lean = copy.deepcopy(plain)
    lean.recomputes = True

    def learned_of(part, features):
        features = features.clone().requires_grad_()
        answer = part(features)
        part.zero_grad()
        answer.exp().sum().backward()
        return answer, {"": features.grad} | {name: own.grad for name, own in part.named_parameters()}

    assert_all_as_without(plain, lean, torch.randn(3, 4, 8, 6, dtype=torch.float64), learned_of)


def test_a_network_is_as_without():
    plain, lean = (network.double() for network in in_both_ways("mn01"))
    assert_all_as_without(plain, lean, torch.randn(2, 32, 24, dtype=torch.float64), learned)


def test_in_float32_only_rounding_differs():
    plain, lean = in_both_ways("mn01")
    log_mel = torch.randn(3, 32, 40)
    (answer, gradients), (same, theirs) = learned(plain, log_mel), learned(lean, log_mel)
    torch.testing.assert_close(same, answer, rtol=1e-4, atol=1e-5)
    for first, second in zip(gradients.values(), theirs.values(), strict=True):
        assert (first - second).norm() <= 1e-2 * first.norm() + 1e-4
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(lean.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("items", [1, 4])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish, nn.SiLU])
@pytest.mark.parametrize("padding", ["centred", "same"])
def test_gradients_are_those_of_small_steps(activation, padding, items, monkeypatch):
    monkeypatch.setattr(module, "WIDEST", items * 2 * 5 * 4)
    torch.manual_seed(1)
    norm, scaling = nn.BatchNorm2d(2, momentum=0.1), SqueezeExcitation({"c": 2}, 1, "max")
    second = ConvNormActivation(
        (2, 2), 3, stride=2, groups=2, norm=nn.BatchNorm2d, activation=None, padding=padding
    )[0]
    assert isinstance(second, SameConv2d) == (padding == "same")
    for part in (norm, scaling, second):
        part.double()
    nn.init.normal_(norm.weight)
    link = module.Link(norm, activation(inplace=True), scaling, second)
    features = torch.randn(4, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    apply = lambda values, *weights: module._Linked.apply(link, values, *weights)  # noqa: E731
    assert torch.autograd.gradcheck(apply, (features, *link.weights), fast_mode=True)


def kept_bytes(network, log_mel):
    """Of tensors that a forward pass keeps for the backward pass, each once."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(log_mel)
    own = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)


def test_half_is_kept():
    plain, lean = in_both_ways("mn10")
    log_mel = torch.randn(2, 128, 100)
    assert kept_bytes(lean, log_mel) < 0.56 * kept_bytes(plain, log_mel)


def test_half_precision_keeps_its_weights_whole():
    _, lean = in_both_ways("mn01")
    with torch.autocast("cpu", torch.bfloat16):
        answer = lean(torch.randn(3, 32, 40))
    answer.logits.float().sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in lean.parameters())
    assert all(weight.grad.isfinite().all() for weight in lean.parameters())
