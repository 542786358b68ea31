"""Makes the graphs without weights of the published networks: earmark/hub/skeletons.zip.

    python recipes/published/skeletons.py [--only TEXT] [--output FILE]

Each network is built with random weights, its batch norms are fused, and it is exported to ONNX. Every
initializer is found again among the tensors of the fused network by its values, and written down as computed
from the published state dict. Then other random weights are put into the graph, whose outputs must be those
of the network in PyTorch. Networks that the file has are kept, so that an interrupted run goes on: remove it
to make all of them again (about 15 minutes on one core). Needs the extra "train".
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper
from torch import nn

from earmark.hub.registry import PublishedModel, published
from earmark.hub.skeleton import FILE, Initializer, Skeleton, skeleton_name
from earmark.model_file.info import ModelInfo
from earmark.models import Network, create_model
from earmark.models.dynamic_layers import DynamicConv
from earmark.models.fuse_batch_norm import fuse_batch_norm, norms_and_layers
from earmark.models.onnx_graph import OUTPUT_NAMES, network_to_onnx

TOLERANCE = 1e-4
"""Largest difference between graph and network, relative to the largest value above 1."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
WRITTEN = (1980, 1, 1, 0, 0, 0)
"""The time that every file of the archive has, so that equal content makes equal files."""


def main() -> None:
    """Makes what is missing in the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="networks whose name contains this text")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()
    torch.set_num_threads(1)
    wanted = [entry for entry in networks() if options.only in skeleton_name(entry[0])]
    if not wanted:
        names = ", ".join(skeleton_name(known) for known, _ in networks())
        parser.error(f"no network's name contains {options.only!r}: there are {names}")
    for known, labelled in wanted:
        name = skeleton_name(known)
        if name in present(options.output):
            continue
        skeleton = make(known, labelled)
        add(options.output, skeleton)
        print(f"{name}: {len(skeleton.initializers)} initializers", flush=True)
    print(f"{options.output}: {options.output.stat().st_size / 1e3:.0f} kB")


def networks() -> list[tuple[PublishedModel, bool]]:
    """A published model for each network, and whether any of its weights have labels."""
    groups: dict[str, list[PublishedModel]] = {}
    for known in published().values():
        groups.setdefault(skeleton_name(known), []).append(known)
    return [(group[0], any(known.labels for known in group)) for group in groups.values()]


def present(path: Path) -> set[str]:
    """The networks that a file has."""
    if not path.exists():
        return set()
    with zipfile.ZipFile(path) as archive:
        return {Path(name).parent.name for name in archive.namelist()}


def add(path: Path, skeleton: Skeleton) -> None:
    """Adds a skeleton to a file."""
    content = {
        "embedding_size": skeleton.embedding_size,
        "tensors": skeleton.tensors,
        "initializers": {name: changed_fields(made) for name, made in skeleton.initializers.items()},
    }
    files = {"network.json": json.dumps(content, separators=(",", ":")).encode()}
    if skeleton.graph:
        files["graph.onnx"] = skeleton.graph
    with zipfile.ZipFile(path, "a") as archive:
        for file, data in files.items():
            entry = zipfile.ZipInfo(f"{skeleton.name}/{file}", WRITTEN)
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)


def changed_fields(made: Initializer) -> dict[str, Any]:
    """The fields of an initializer that are not the default."""
    defaults = asdict(Initializer(shape=()))
    return {key: value for key, value in asdict(made).items() if value != defaults[key] or key == "shape"}


def make(known: PublishedModel, labelled: bool) -> Skeleton:
    """Makes the skeleton of a published model and checks it; without a graph if it has no labels."""
    network = random_network(known, seed=1)
    tensors = {name: (str(v.numpy().dtype), tuple(v.shape)) for name, v in network.state_dict().items()}
    info = known.model_info(embedding_size=1)  # which the graph does not depend on
    log_mel = torch.zeros(1, known.front_end.n_mels, 100)
    embedding_size = network(log_mel).embedding.shape[1]
    graph, initializers = strip(network, info) if labelled else (b"", {})
    skeleton = Skeleton(
        name=skeleton_name(known),
        embedding_size=embedding_size,
        tensors=tensors,
        initializers=initializers,
        graph=graph,
    )
    if labelled:
        check(skeleton, random_network(known, seed=2), info)
    return skeleton


@torch.no_grad()
def random_network(known: PublishedModel, seed: int) -> Network:
    """A network with random weights, norms and buffers, none of which has the values of another."""
    torch.manual_seed(seed)
    network = create_model(known.architecture, num_classes=known.num_classes, **known.arguments)
    for module in network.modules():
        if isinstance(module, NORMS):
            module.momentum = 1.0
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0, 0.1)
    for name, buffer in network.named_buffers():
        if name.endswith(("lambdas", "init_v")):
            buffer.add_(0.1 * torch.rand_like(buffer))
    network.train()(torch.randn(4, known.front_end.n_mels, 100))  # statistics that fit the weights
    return network.eval()


def strip(network: Network, info: ModelInfo) -> tuple[bytes, dict[str, Initializer]]:
    """Exports a network and takes the values out of the initializers that are made of its weights.

    Returns:
        The graph, and how each of these initializers is computed.
    """
    state = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}  # before fusion
    sources = list(candidates(network))
    fuse_batch_norm(network)
    model: ModelProto = network_to_onnx(network, info)
    found = {}
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype != np.float32 or values.size == 1:
            continue  # shapes, axes, and constants of the network's formula
        found[initializer.name] = matching(initializer.name, values, sources, state)
        initializer.ClearField("raw_data")
    return model.SerializeToString(), found


def candidates(network: Network) -> Iterator[Initializer]:
    """What initializers may be made of: the tensors of the fused network, each in its own shape."""
    norms = norms_and_layers(network)
    layers = {layer: norm for norm, names in norms for layer in names}
    for name, module in network.named_modules():
        own = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
        norm = name if isinstance(module, NORMS) else layers.get(name, "")
        eps = network.get_submodule(norm).eps if norm else 0.0
        if isinstance(module, NORMS):
            shape = tuple(module.weight.shape)
            yield Initializer(norm=norm, part="offset", eps=eps, shape=shape)
            if norm not in dict(norms):
                yield Initializer(norm=norm, part="scale", eps=eps, shape=shape)
        elif norm:
            assert module.bias is None, f"{name}: a bias before a norm is not foreseen"
            kernels = module.weight.shape[2] if isinstance(module, DynamicConv) else 1
            shape = tuple(module.weight.shape)
            yield Initializer(tensor=f"{name}.weight", norm=norm, eps=eps, kernels=kernels, shape=shape)
            own.pop("weight")
        if not isinstance(module, NORMS):
            prefix = f"{name}." if name else ""
            for key, tensor in own.items():
                yield Initializer(tensor=f"{prefix}{key}", shape=tuple(tensor.shape))


def matching(
    name: str, values: NDArray[np.float32], sources: list[Initializer], state: dict[str, NDArray[Any]]
) -> Initializer:
    """Finds the only tensor that has the values of an initializer, in some shape, maybe transposed."""
    found = []
    for source in sources:
        for transposed in (False, True) if len(source.shape) == 2 else (False,):
            made = Initializer(**{**asdict(source), "transposed": transposed, "shape": values.shape})
            if np.prod(source.shape) == values.size and np.allclose(
                made.compute(state), values, rtol=1e-5, atol=1e-7
            ):
                found.append(made)
    assert len(found) == 1, f"{name} {values.shape} is {found or 'nothing that is known'}"
    return found[0]


@torch.no_grad()
def check(skeleton: Skeleton, network: Network, info: ModelInfo) -> None:
    """Fills the graph with other weights and compares it with their network."""
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    skeleton.check(state)
    session = onnxruntime.InferenceSession(skeleton.fill(state), providers=["CPUExecutionProvider"])
    for batch, frames in ((1, 1000), (3, 77)):
        log_mel = torch.randn(batch, info.front_end.n_mels, frames)
        outputs = session.run(list(OUTPUT_NAMES), {info.graph_input: log_mel.numpy()})
        for wanted, got in zip(network(log_mel), outputs, strict=True):
            scale = max(1.0, float(wanted.abs().max()))
            difference = float(np.abs(wanted.numpy() - got).max()) / scale
            assert difference <= TOLERANCE, f"{skeleton.name}: differs by {difference:.2g}"
            assert wanted.std() > 1e-3, "the input must matter"


if __name__ == "__main__":
    main()
