"""Converts the weights of audax's checkpoints, which flax wrote, to state dicts.

No library replaces this: flax and safetensors.flax only read files into arrays, whereas the names and layouts
that are converted here are audax's own.

Source: golden audax/models.json and frontend_shapes.json, which list audax's names and shapes.

Conventions: a variable is named by its path, such as "params/encoder/conv_init/kernel". audax's feature maps
are (batch, frame, mel, channel), its kernels (frame, mel, in, out): ours with all axes reversed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from earmark.errors import ModelError
from earmark.models.convnext import ConvNeXt
from earmark.models.efficientnet import EfficientNet
from earmark.models.layers import ConvNormActivation
from earmark.models.mobilenet import InvertedResidual
from earmark.models.network import Network
from earmark.models.resnet import ResidualBlock, ResNet
from earmark.models.waveform_network import WaveformNetwork

Names = dict[str, str]


def state_dict_from_flax(network: Network, variables: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Converts the variables of an audax Classifier.

    Args:
        network: A ResNet, EfficientNet or ConvNeXt of the same size, with or without a learned front-end.
        variables: Path -> array, of the collections "params" and "batch_stats".

    Returns:
        The state dict of ``network``.

    Raises:
        ModelError: If the network is of another family, a variable is missing, unknown or of another shape.
    """
    names = flax_names(network)
    missing, unknown = set(names.values()) - set(variables), set(variables) - set(names.values())
    if missing or unknown:
        raise ModelError(
            f"the variables do not fit {type(network).__name__}: missing {sorted(missing)[:3]}, "
            f"unknown {sorted(unknown)[:3]}"
        )
    state = {}
    for key, tensor in network.state_dict().items():
        if key in names:
            state[key] = _convert(key, np.asarray(variables[names[key]], np.float32), tensor.shape)
        else:
            state[key] = torch.zeros_like(tensor, device="cpu")  # num_batches_tracked, which audax lacks
    return state


_COLUMNS = {"features.centre": 0, "features.width": 1, "features.low": 0, "features.band": 1}
"""Parameters of front-ends that are a column of a variable."""


def _convert(key: str, array: NDArray[np.float32], shape: torch.Size) -> Tensor:
    shape_in_file = array.shape
    array = array[:, _COLUMNS[key]] if key in _COLUMNS else array.T
    if [size for size in array.shape if size > 1] != [size for size in shape if size > 1]:
        raise ModelError(f"{key} must have shape {tuple(shape)}, got {shape_in_file}")
    return torch.from_numpy(array.reshape(shape).copy())


def flax_names(network: Network) -> Names:
    """Maps the state dict of a network to the variables of an audax checkpoint.

    Args:
        network: A ResNet, EfficientNet or ConvNeXt, with or without a learned front-end.

    Returns:
        Key of the state dict -> path of the variable; without ``num_batches_tracked``.

    Raises:
        ModelError: If audax has no such network.
    """
    if isinstance(network, WaveformNetwork):
        behind = {f"network.{key}": path for key, path in flax_names(network.network).items()}
        front = _FRONT_ENDS[network.features.front_end.kind]
        return {f"features.{key}": f"params/frontend/{path}" for key, path in front.items()} | behind
    for family, modules in _FAMILIES.items():
        if isinstance(network, family):
            return _weights(network, modules(network))
    raise ModelError(f"audax has no {type(network).__name__}: use a ResNet, an EfficientNet or a ConvNeXt")


def _weights(network: Network, modules: Names) -> Names:
    """Expands names of modules, ours -> audax's, to names of weights."""
    names = {}
    for ours, theirs in modules.items():
        module = network.get_submodule(ours)
        is_norm = isinstance(module, nn.BatchNorm2d | nn.LayerNorm)
        leaves = {"weight": "params scale" if is_norm else "params kernel", "bias": "params bias"}
        leaves |= {"running_mean": "batch_stats mean", "running_var": "batch_stats var"}
        leaves |= {"gamma": "params gamma"}
        held = {name for name, _ in module.named_parameters(recurse=False)}
        held |= {name for name, _ in module.named_buffers(recurse=False)}
        for leaf in held & set(leaves):
            collection, name = leaves[leaf].split()
            names[f"{ours}.{leaf}"] = f"{collection}/{theirs}/{name}"
    return names


def _resnet(network: ResNet) -> Names:
    modules = {"conv1": "encoder/conv_init", "bn1": "encoder/bn_init", "fc": "fc"}
    kind = "BottleneckResNetBlock" if network.config.bottleneck else "ResNetBlock"
    blocks = ((name, part) for name, part in network.named_modules() if isinstance(part, ResidualBlock))
    for number, (ours, block) in enumerate(blocks):
        theirs = f"encoder/{kind}_{number}"
        for index in range(block.depth):
            modules[f"{ours}.conv{index + 1}"] = f"{theirs}/Conv_{index}"
            modules[f"{ours}.bn{index + 1}"] = f"{theirs}/BatchNorm_{index}"
        if isinstance(block.downsample, ConvNormActivation):
            modules[f"{ours}.downsample.0"] = f"{theirs}/conv_proj"
            modules[f"{ours}.downsample.1"] = f"{theirs}/norm_proj"
    return modules


def _efficientnet(network: EfficientNet) -> Names:
    modules = {"fc": "fc"}

    def enter(ours: str, theirs: str) -> None:
        modules[f"{ours}.0"] = f"{theirs}/Conv_0"
        modules[f"{ours}.1"] = f"{theirs}/BatchNorm_0"

    enter("stem", "encoder/ConvNormActivation_0")
    enter("tail", "encoder/ConvNormActivation_1")
    for number, block in enumerate(network.blocks):
        assert isinstance(block, InvertedResidual)
        convolutions = 0
        for index, part in enumerate(block.block):
            ours, theirs = f"blocks.{number}.block.{index}", f"encoder/MBConv_{number}"
            if isinstance(part, ConvNormActivation):
                enter(ours, f"{theirs}/ConvNormActivation_{convolutions}")
                convolutions += 1
            else:
                modules[f"{ours}.fc1"] = f"{theirs}/SqueezeAndExcitation_0/reduce"
                modules[f"{ours}.fc2"] = f"{theirs}/SqueezeAndExcitation_0/expand"
    return modules


def _convnext(network: ConvNeXt) -> Names:
    modules = {"head": "fc"}
    modules |= {"downsample_layers.0.0": "encoder/Conv_0", "downsample_layers.0.1": "encoder/LayerNorm_0"}
    for stage, depth in enumerate(network.config.depths):
        theirs = f"encoder/ConvNeXtStage_{stage}"
        if stage:
            modules[f"downsample_layers.{stage}.0"] = f"{theirs}/LayerNorm_0"
            modules[f"downsample_layers.{stage}.1"] = f"{theirs}/Conv_0"
        for index in range(depth):
            ours, block = f"stages.{stage}.{index}", f"{theirs}/ConvNeXtBlock_{index}"
            modules[ours] = block  # layer scale
            modules[f"{ours}.dwconv"] = f"{block}/Conv_0"
            modules[f"{ours}.norm"] = f"{block}/LayerNorm_0"
            modules[f"{ours}.pwconv1"] = f"{block}/Mlp_0/Dense_0"
            modules[f"{ours}.pwconv2"] = f"{block}/Mlp_0/Dense_1"
    return modules


_FAMILIES: dict[type[Network], Callable[..., Names]] = {
    ResNet: _resnet,
    EfficientNet: _efficientnet,
    ConvNeXt: _convnext,
}
_FRONT_ENDS: dict[str, Names] = {
    "leaf": {
        "centre": "complex_conv/gabor_kernel",
        "width": "complex_conv/gabor_kernel",
        "lowpass": "pooling/kernel",
        "alpha": "compression/alpha",
        "delta": "compression/delta",
        "root": "compression/root",
        "smooth": "compression/ExponentialMovingAverage_0/smooth",
    },
    "sincnet": {
        "low": "complex_conv/sinc_kernel",
        "band": "complex_conv/sinc_kernel",
        "norm.weight": "compression/scale",
        "norm.bias": "compression/bias",
    },
}
