"""Graphs of the published networks without their weights, and how weights are put into them.

Source: exports of the networks in PyTorch, made by recipes/published/skeletons.py; folding of norms as in
:mod:`earmark.models.fuse_batch_norm` (Jacob et al., arXiv:1712.05877, section 3.2).

Conventions: ``skeletons.zip`` has a folder for each network: ``network.json`` (names, types and shapes of the
state dict, and what each initializer is made of) and, if the weights have labels, ``graph.onnx``, whose
weights have a name, a type and a shape, but no values. Batch norms are folded into the layers before them in
float64. Neither PyTorch nor onnx is needed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.hub.registry import PublishedModel
from earmark.model_file.protobuf import fields, find, header
from earmark.model_file.state_dict import misfits, summary

FILE = Path(__file__).with_name("skeletons.zip")
GRAPH, INITIALIZER = 7, 5
"""Fields of ModelProto and GraphProto."""
NAME, RAW_DATA = 8, 9
"""Fields of TensorProto."""
Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Initializer:
    """How an initializer of a graph is computed from a state dict.

    Args:
        tensor: Name of the tensor; "" for a norm that is folded into a bias, or stands alone.
        norm: Name of the batch norm that is folded into it; "" for none.
        part: What is taken: the tensor, multiplied by the norm's scale; that scale; or the norm's offset.
        eps: Epsilon of the norm.
        kernels: Kernels in the tensor, each of which is scaled.
        transposed: Whether a matrix is transposed.
        shape: Shape of the result.
    """

    tensor: str = ""
    norm: str = ""
    part: Literal["tensor", "scale", "offset"] = "tensor"
    eps: float = 0.0
    kernels: int = 1
    transposed: bool = False
    shape: tuple[int, ...]

    def compute(self, tensors: Tensors) -> NDArray[np.float32]:
        """Computes the values.

        Args:
            tensors: A state dict that fits.

        Returns:
            float32, of ``shape``.
        """
        with np.errstate(all="ignore"):  # what is not finite is found where the graph is filled
            values = self._folded(tensors) if self.norm else tensors[self.tensor]
            if self.transposed:
                values = values.T
            return np.ascontiguousarray(values, "<f4").reshape(self.shape)

    def _folded(self, tensors: Tensors) -> NDArray[np.float64]:
        """Folds the norm: y = scale * x + offset, in float64, so that it is rounded once."""
        weight, bias, mean, variance = (
            tensors[f"{self.norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + self.eps)
        if self.part == "scale":
            return scale
        if self.part == "offset":
            return bias - mean * scale
        kernels = tensors[self.tensor].astype(np.float64).reshape(self.kernels, len(scale), -1)
        folded: NDArray[np.float64] = kernels * scale[:, None]
        return folded.reshape(tensors[self.tensor].shape)


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """A network without its weights.

    Args:
        name: Name of the network, for messages.
        embedding_size: Length of its embedding.
        tensors: Name -> type and shape of the tensors of its state dict.
        initializers: Name -> how it is computed.
        graph: Serialised ModelProto; empty if the weights have no labels, and so no model file.
    """

    name: str
    embedding_size: int
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    initializers: Mapping[str, Initializer]
    graph: bytes

    def check(self, tensors: Tensors) -> None:
        """Checks that a state dict fits: no tensor missing, left over, or of another shape or type.

        Raises:
            ModelError: If it does not, or a value is not finite.
        """
        wanted = {name: shape for name, (_, shape) in self.tensors.items()}
        problems = misfits(wanted, {name: values.shape for name, values in tensors.items()})
        problems = problems or [
            f"{name} has type {tensors[name].dtype} instead of {kind}"
            for name, (kind, _) in self.tensors.items()
            if tensors[name].dtype != kind
        ]
        problems = problems or [
            f"{name} is not finite" for name, values in tensors.items() if not np.isfinite(values).all()
        ]
        if problems:
            raise ModelError(f"the weights do not fit {self.name}: {summary(problems)}")

    def fill(self, tensors: Tensors) -> bytes:
        """Puts weights into the graph.

        Args:
            tensors: A state dict that was checked.

        Returns:
            A serialised ModelProto.

        Raises:
            ModelError: If a folded norm is not finite.
        """
        chunks: list[bytes] = []
        for field in fields(self.graph):
            if field.number == GRAPH:
                inside = list(self._filled(tensors))
                chunks += [header(GRAPH, sum(map(len, inside))), *inside]
            else:
                chunks.append(bytes(field.encoded))
        return b"".join(chunks)

    def _filled(self, tensors: Tensors) -> Iterator[bytes]:
        """The fields of the graph; an initializer without values gets them."""
        for field in fields(find(self.graph, GRAPH)):
            name = bytes(find(field.value, NAME)).decode() if field.number == INITIALIZER else ""
            if name not in self.initializers:
                yield bytes(field.encoded)
                continue
            values = self.initializers[name].compute(tensors)
            if not np.isfinite(values).all():
                norm = self.initializers[name].norm
                raise ModelError(
                    f"the weights do not fit {self.name}: {norm} cannot be folded: its values are not finite"
                )
            yield header(INITIALIZER, len(field.value) + len(header(RAW_DATA, values.nbytes)) + values.nbytes)
            yield bytes(field.value) + header(RAW_DATA, values.nbytes)
            yield values.tobytes()


def skeleton_name(known: PublishedModel) -> str:
    """Returns the folder of a published model in ``skeletons.zip``; equal networks share one."""
    arguments = "".join(f" {key}={value}" for key, value in sorted(known.arguments.items()))
    return f"{known.architecture}{arguments}, {known.num_classes} classes, {known.front_end.n_mels} mel bands"


def read_skeleton(known: PublishedModel) -> Skeleton:
    """Reads the skeleton of a published model.

    Raises:
        ModelError: If there is none: the registry and the skeletons are of different versions.
    """
    name = skeleton_name(known)
    with zipfile.ZipFile(FILE) as archive:
        files = set(archive.namelist())
        if f"{name}/network.json" not in files:
            raise ModelError(f"{known.name}: no network of this version of earmark is {name}")
        content = json.loads(archive.read(f"{name}/network.json"))
        graph = f"{name}/graph.onnx"
        return Skeleton(
            name=name,
            embedding_size=content["embedding_size"],
            tensors={key: (kind, tuple(shape)) for key, (kind, shape) in content["tensors"].items()},
            initializers={
                key: Initializer(**{**values, "shape": tuple(values["shape"])})
                for key, values in content["initializers"].items()
            },
            graph=archive.read(graph) if graph in files else b"",
        )
