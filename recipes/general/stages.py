"""The teacher with its stages, and a student of another width whose stages can be taught each by itself.

Between its stages the student works in spaces of its own: fixed random ones, a little wider than the
teacher's, which the teacher's maps are projected into. A stage learns from the projected map before it to
give the projected map after it. The projections are dropped when the training ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mixing import Mixer
from torch import Tensor, nn
from torch.nn import functional

from earmark.model_file.labels import label_set
from earmark.model_file.onnx_runtime import onnxruntime
from earmark.models.layers import ConvNormActivation
from earmark.models.network import Network
from earmark.models.registry import create_model
from earmark.models.weights import build_with_weights, read_state_dict

TEACHER_WIDTH, WIDTH = 0.4, 0.5
NUM_CLASSES = len(label_set("audioset"))
NUM_STAGES = 17
TAUGHT = range(1, NUM_STAGES - 1)
"""Stages with a target: the fifteen blocks. The first convolution learns with the first block, the last with
the head: an activation follows them, so that their maps cannot be told in other coordinates."""
SEED = 16
CHANNELS_LAST = torch.channels_last
MIN_VARIANCE = 0.03
"""Of a channel, as a share of the mean variance."""
MEASURED_BATCHES, NORM_BATCHES = 24, 12


class Teacher:
    """The published network in ONNX Runtime, with the output of every stage.

    Args:
        weights: File of its published weights.
        graph: Where to write its graph.
    """

    def __init__(self, weights: Path, graph: Path) -> None:
        if not graph.exists():
            tensors = read_state_dict(weights)
            _export_with_maps(
                build_with_weights("mobilenet", {"width": TEACHER_WIDTH}, NUM_CLASSES, tensors), graph
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options)

    def __call__(self, log_mel: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits (batch, class), embedding (batch, channel) and 17 maps (batch, channel, mel, frame)."""
        outputs = [torch.from_numpy(array) for array in self.session.run(None, {"log_mel": log_mel.numpy()})]
        return outputs[0], outputs[1], outputs[2:]


class _WithMaps(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        maps = self.network.feature_maps(log_mel)
        return self.network.classifier(maps[-1]), maps[-1].mean((2, 3)), *maps


def _export_with_maps(network: Network, graph: Path) -> None:
    names = ["logits", "embedding", *(f"map_{stage}" for stage in range(NUM_STAGES))]
    axes = {name: {0: "batch"} for name in names} | {"log_mel": {0: "batch", 2: "frame"}}
    torch.onnx.export(
        _WithMaps(network),
        (torch.zeros(2, 128, 251),),
        str(graph),
        input_names=["log_mel"],
        output_names=names,
        dynamic_axes=axes,
        dynamo=False,
        opset_version=17,
    )


def plain_student() -> Any:
    """The student with random weights; norms that follow no batch are fused while it computes."""
    torch.manual_seed(SEED)
    student: Any = create_model("mobilenet", width=WIDTH, num_classes=NUM_CLASSES, dropout=0.0)
    student.to(memory_format=CHANNELS_LAST)
    for module in student.modules():
        if isinstance(module, ConvNormActivation):
            module.forward = _with_fused_norm(module)  # type: ignore[method-assign]
    return student


def _with_fused_norm(layers: ConvNormActivation) -> Callable[[Tensor], Tensor]:
    convolution: Any = layers[0]
    norm: Any = layers[1]

    def forward(features: Tensor) -> Tensor:
        if norm.training:
            return nn.Sequential.forward(layers, features)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        weight = convolution.weight * scale.view(-1, 1, 1, 1)
        bias = norm.bias - norm.running_mean * scale
        result = convolution._conv_forward(features, weight, bias)
        return layers[2](result) if len(layers) > 2 else result

    return forward


def apply_stage(student: Any, stage: int, features: Tensor) -> Tensor:
    """A taught stage of the student; the first takes the log-mel, (batch, 1, mel, frame)."""
    if stage == TAUGHT[0]:
        features = student.features[0](features)
    return student.features[stage](features)  # type: ignore[no-any-return]


def draw_projections(student: Any) -> dict[int, Tensor]:
    """Random orthonormal columns for every taught stage: teacher's channels -> student's channels.

    Blocks joined by a residual connection share one space.
    """
    plain: Any = create_model("mobilenet", width=TEACHER_WIDTH, num_classes=NUM_CLASSES)
    generator = torch.Generator().manual_seed(SEED + 1)
    projections: dict[int, Tensor] = {}
    for stage in TAUGHT:
        if student.features[stage].residual and stage > TAUGHT[0]:
            projections[stage] = projections[stage - 1]
            continue
        sides = [network.features[stage].block[-1][1].num_features for network in (student, plain)]
        projections[stage] = torch.linalg.qr(torch.randn(*sides, generator=generator))[0].contiguous()
    return projections


def project(maps: Sequence[Tensor], projections: dict[int, Tensor]) -> dict[int, Tensor]:
    """The teacher's maps in the student's spaces, by stage."""
    return {
        stage: functional.conv2d(
            maps[stage].contiguous(memory_format=CHANNELS_LAST), projections[stage][:, :, None, None]
        )
        for stage in TAUGHT
    }


@dataclass
class Statistics:
    """Moments of the targets over mixed inputs.

    Attributes:
        means: By stage, of what it adds: its map, less its input where it has a residual connection.
        added: By stage, variances of the same, shape (1, channel, 1, 1).
        maps: By stage, variances of the maps, shape (1, channel, 1, 1).
        logits: Means and variances of the logits.
        embedding: Means and variances of the teacher's embedding.
    """

    means: dict[int, Tensor]
    added: dict[int, Tensor]
    maps: dict[int, Tensor]
    logits: tuple[Tensor, Tensor]
    embedding: tuple[Tensor, Tensor]


def measure(teacher: Teacher, mixer: Mixer, student: Any, projections: dict[int, Tensor]) -> Statistics:
    """Measures the statistics of the targets."""
    rows: list[list[Tensor]] = []
    for number in range(MEASURED_BATCHES):
        logits, embedding, maps = teacher(mixer.batch([SEED, 7, number, number], 24, 256))
        wanted = project(maps, projections)
        added = [
            one - wanted[stage - 1] if student.features[stage].residual and stage > TAUGHT[0] else one
            for stage, one in wanted.items()
        ]
        flat = [one.transpose(0, 1).flatten(1).T for one in (*added, *wanted.values())]
        rows.append(
            [moment for one in (*flat, logits, embedding) for moment in (one.mean(0), one.square().mean(0))]
        )
    moments = [torch.stack(column).mean(0) for column in zip(*rows, strict=True)]
    means, squares = moments[::2], moments[1::2]
    variances = [square - mean.square() for mean, square in zip(means, squares, strict=True)]
    variances = [variance.clamp_min(MIN_VARIANCE * float(variance.mean())) for variance in variances]
    wide = [variance.view(1, -1, 1, 1) for variance in variances]
    count = len(TAUGHT)
    return Statistics(
        dict(zip(TAUGHT, means[:count], strict=True)),
        dict(zip(TAUGHT, wide[:count], strict=True)),
        dict(zip(TAUGHT, wide[count : 2 * count], strict=True)),
        (means[-2], variances[-2]),
        (means[-1], variances[-1]),
    )


def initialise(
    student: Any,
    guess_embedding: nn.Linear,
    statistics: Statistics,
    teacher: Teacher,
    mixer: Mixer,
    projections: dict[int, Tensor],
) -> None:
    """Gives every norm the statistics it keeps; blocks and heads start at the moments of their targets."""
    with torch.no_grad():
        for stage in TAUGHT:
            norm = student.features[stage].block[-1][1]
            norm.weight.copy_(statistics.added[stage].flatten().sqrt())
            norm.bias.copy_(statistics.means[stage])
        student.classifier[-1].bias.copy_(statistics.logits[0])
        guess_embedding.bias.copy_(statistics.embedding[0])
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the mean over all batches
                module.reset_running_stats()
        student.train()
        for number in range(NORM_BATCHES):
            log_mel = mixer.batch([SEED, 8, number, number], 24, 256)
            wanted = project(teacher(log_mel)[2], projections)
            source = log_mel.unsqueeze(1).contiguous(memory_format=CHANNELS_LAST)
            for stage in TAUGHT:
                apply_stage(student, stage, source)
                source = wanted[stage]
            student.features[-1](source)
        student.eval()
