"""Taggers whose embedding comes from inside their network; they run in PyTorch.

    from earmark.inference.stages import load_stages

    tagger = load_stages("mn10_as", ["b5", "b11", "b13", "b15"])
    vector = tagger.embed("street.wav").clip

Conventions: stages and poolings are those of :class:`earmark.models.stage_embedding.StageEmbedding`; the
default stages scored best over the tasks of the HEAR benchmark.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from earmark.errors import ModelError, extra
from earmark.features.front_end import FrontEnd
from earmark.hub.pretrained import pretrained
from earmark.hub.registry import published
from earmark.inference.tagger import Tagger
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.models import Network


def load_stages(model: str | os.PathLike[str], stages: Sequence[str] = (), pool: str = "mean") -> Tagger:
    """Opens a checkpoint to embed by inner stages of its network; published weights are fetched first.

    Args:
        model: The path of a checkpoint (.safetensors), or the name of published weights.
        stages: In the order in which they are put end to end.
        pool: How feature maps become vectors.

    Raises:
        ModelError: If there is no such checkpoint, or the network has no such stage.
        MissingExtraError: If PyTorch is not installed.
    """
    with extra("embedding by inner stages", "train"):
        from earmark.models.checkpoint import load_checkpoint
    if os.fspath(model) in published():
        return with_stages(*pretrained(os.fspath(model)), stages, pool)
    if Path(model).suffix != ".safetensors":
        raise ModelError(
            f"{os.fspath(model)}: inner stages need the weights themselves: give a checkpoint (.safetensors) "
            "or the name of published weights"
        )
    return with_stages(*load_checkpoint(model), stages, pool)


def with_stages(network: Network, info: ModelInfo, stages: Sequence[str] = (), pool: str = "mean") -> Tagger:
    """A tagger that embeds by inner stages of a network.

    Args:
        network: On the CPU, in evaluation mode.
        info: The network's.
        stages: As for :func:`load_stages`.
        pool: As for :func:`load_stages`.

    Raises:
        ModelError: If the network has no such stage, or holds a front-end that learns.
    """
    from earmark.models.stage_embedding import DEFAULT_STAGES, StageSession

    front_end = info.front_end
    if not isinstance(front_end, FrontEnd):
        raise ModelError(
            f"{info.name}: inner stages are those of a network behind a log-mel, this front-end learns: "
            "embed without stages"
        )
    session = StageSession(network, stages or DEFAULT_STAGES, pool)
    frames = front_end.num_frames(round(info.window_s * front_end.sample_rate))
    silence = np.zeros((1, front_end.n_mels, frames), np.float32)
    [vectors] = session.run(["embedding"], {"log_mel": silence})
    return Tagger(session, info.changed(embedding_size=vectors.shape[1]))
