"""From a model to a smaller one of the same kind: what was asked for, checked and written.

Conventions: an answer's difference is that of logits and embedding over a few windows of noise and silence,
relative to the largest value where that is above 1.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import nn

from earmark.data.manifest import Clip
from earmark.errors import ModelError
from earmark.export.calibration_set import listen
from earmark.export.export import export_model
from earmark.export.fuse import fuse, fused_record
from earmark.export.quantize import Engine, Quantized, quantize
from earmark.export.source import Source
from earmark.export.weight_precision import TOLERANCES, graph_of, narrowed, require_fp32, rounded
from earmark.features.front_end import FrontEnd
from earmark.features.log_mel import LogMel
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo, Precision
from earmark.model_file.onnx_file import read_model_file
from earmark.models.checkpoint import save_checkpoint
from earmark.models.network import Network

CHECKPOINT = ".safetensors"


@dataclass(frozen=True)
class Report:
    """What became of a model.

    Args:
        path: Where it was written.
        norms: How many batch norms were folded.
        parameters: Numbers before and after.
        precision: In which they are stored.
        difference: Of the answers, before against after.
        tolerance: What it may be; None where SP4ASC's way of fusing was asked for, which is not exact.
    """

    path: Path
    norms: int
    parameters: tuple[int, int]
    precision: Precision
    difference: float
    tolerance: float | None

    def summary(self) -> str:
        """For people, in a few lines."""
        before, after = self.parameters
        bits = {"fp32": 32}.get(self.precision, 16)
        allowed = "fused without an epsilon" if self.tolerance is None else f"allowed {self.tolerance:g}"
        return "\n".join(
            [
                f"{self.norms} batch norms folded, {after:,} parameters instead of {before:,}",
                f"{self.precision}: {after * bits / 8 / 1024:,.2f} KiB of parameters",
                f"answers differ by up to {self.difference:.1e} from those before ({allowed})",
                f"wrote {self.path}, {self.path.stat().st_size:,} bytes",
            ]
        )


def compress(
    model: Source,
    out: str | PathLike[str],
    *,
    fused: bool = False,
    eps: float | None = None,
    precision: Precision = "fp32",
) -> Report:
    """Fuses a model's norms, rounds its weights, and writes it.

    Args:
        model: Of float32.
        out: A checkpoint (.safetensors), or else a model file.
        fused: Whether to fold batch norms; see :func:`earmark.export.fuse.fuse`.
        eps: As for ``fuse``.
        precision: "fp32", "fp16" or "bf16"; see :mod:`earmark.export.weight_precision`.

    Raises:
        ModelError: If this cannot be done with this model, or its answers then differ by more than the
            precision's tolerance; nothing is written then.
    """
    require_fp32(model.info)
    path = Path(out)
    if model.network is None:
        made, norms = _smaller_graph(model, path, fused, precision), 0
    else:
        made, norms = _smaller_network(model.network, model.info, fused, eps, precision)
    found = difference(model, made)
    tolerance = None if eps is not None else TOLERANCES[precision]
    if tolerance is not None and not found <= tolerance:
        raise ModelError(
            f"{model.info.name}: answers differ by {found:.2g} once it is {precision}, more than "
            f"{tolerance:g}: keep it in a wider precision"
        )
    _write(made, path)
    return Report(path, norms, (_count(model), _count(made)), precision, found, tolerance)


def compress_to_int8(
    model: Source,
    out: str | PathLike[str],
    clips: Sequence[Clip],
    bound: float,
    *,
    engine: Engine = "onnx",
    say: Callable[[str], object] = lambda text: None,
) -> Quantized:
    """Has most layers of a model compute in 8 bits, and writes it as a model file.

    Args:
        model: Of float32; a network's norms are folded first.
        out: The model file.
        clips: By which ranges and loss are measured; see :func:`earmark.export.calibration_set.find_clips`.
        bound: The largest loss allowed.
        engine: As for :func:`earmark.export.quantize.quantize`.
        say: Is told what is being done.

    Raises:
        DataError: If a clip cannot be heard.
        ModelError: If the model cannot be quantised, or not within the bound; nothing is written then.
        MissingExtraError: If NNCF is needed and not installed.
    """
    if Path(out).suffix == CHECKPOINT:
        raise ModelError(f"{out}: a checkpoint cannot be of int8: write a model file (.onnx)")
    if model.network is not None:
        model, _ = _smaller_network(model.network, model.info, True, None, "fp32")
        say("writing the graph")
        model = Source(model.info, content=_exported(model))
    evidence = listen(model.session(), model.info, clips, before=lambda clip: say(str(clip.path)))
    made = quantize(model.content, model.info, evidence, bound, engine=engine, say=say)
    write_atomically(out, made.content)
    return made


def difference(model: Source, other: Source) -> float:
    """The largest difference between the answers of two models that hear alike."""
    largest, sessions = 0.0, (model.session(), other.session())
    for given in _heard(model.info):
        wanted, got = (session.run(["logits", "embedding"], given) for session in sessions)
        for want, answer in zip(wanted, got, strict=True):
            largest = max(largest, float(np.abs(want - answer).max() / max(1.0, np.abs(want).max())))
    return largest


def _heard(info: ModelInfo) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Windows of loud and soft noise, and of silence, as the graph takes them."""
    generator = np.random.default_rng(0)
    for level in (0.3, 0.003, 0.0):
        noise = generator.standard_normal((1, info.num_samples(info.window_s)))
        waveform = (level * noise).astype(np.float32)
        front_end = info.front_end
        features = LogMel(front_end)(waveform) if isinstance(front_end, FrontEnd) else waveform
        yield {info.graph_input: features}


def _smaller_network(
    network: Network, info: ModelInfo, fused: bool, eps: float | None, precision: Precision
) -> tuple[Source, int]:
    norms = 0
    if fused and not network.config.fused:
        norms = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())
        network, info = fuse(network, eps=eps), fused_record(info, eps=eps)
    info = info.changed(precision=precision)
    return Source(info, rounded(network, precision)), norms


def _smaller_graph(model: Source, out: Path, fused: bool, precision: Precision) -> Source:
    name = model.info.name
    if out.suffix == CHECKPOINT:
        raise ModelError(f"{name}: a graph gives no checkpoint: write a model file (.onnx)")
    if fused and any(node.op_type == "BatchNormalization" for node in graph_of(model.content).graph.node):
        raise ModelError(f"{name}: a graph's norms cannot be folded any more: give its checkpoint")
    content = narrowed(model.content, model.info, precision)
    return Source(model.info.changed(precision=precision), content=content)


def _write(made: Source, path: Path) -> None:
    if path.suffix == CHECKPOINT:
        assert made.network is not None
        save_checkpoint(path, made.network, made.info)
    elif made.network is None:
        write_atomically(path, made.content)
    else:
        plain = made.info.changed(precision="fp32")
        write_atomically(path, narrowed(_exported(made), plain, made.info.precision))


def _exported(made: Source) -> bytes:
    """The content of a network's model file, of float32."""
    assert made.network is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        export_model(made.network, made.info.changed(precision="fp32"), path)
        return read_model_file(path)[0]


@torch.no_grad()
def _count(model: Source) -> int:
    """Parameters of a network; of a graph, its numbers that are not single constants."""
    if model.network is not None:
        return sum(parameter.numel() for parameter in model.network.parameters())
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    tensors = graph_of(model.content).graph.initializer
    return sum(prod(tensor.dims) for tensor in tensors if tensor.data_type in floats and tensor.dims)
