"""Taggers whose embedding comes from inner stages of a network; they run in PyTorch.

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
from earmark.hub.pretrained import load_network
from earmark.hub.registry import published
from earmark.inference.tagger import Tagger
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.models import Network


def load_stages(model: str | os.PathLike[str], stages: Sequence[str] = (), pool: str = "mean") -> Tagger:
    """Opens a checkpoint to embed by inner stages of its network.

    Args:
        model: Path of a checkpoint (.safetensors), or name of a published model, downloaded on first use.
        stages: Stages whose vectors are concatenated, in this order; empty: the default stages.
        pool: How feature maps become vectors.

    Raises:
        ModelError: If there is no such checkpoint or model, or the network has no such stage.
        MissingExtraError: If PyTorch is not installed.
    """
    name = os.fspath(model)
    if Path(name).suffix != ".safetensors" and name not in published():
        raise ModelError(
            f"{name}: inner stages need weights: pass a checkpoint (.safetensors) or the name of a published "
            "model"
        )
    with extra("embedding by inner stages", "train"):
        return with_stages(*load_network(name), stages, pool)


def with_stages(network: Network, info: ModelInfo, stages: Sequence[str] = (), pool: str = "mean") -> Tagger:
    """Returns a tagger that embeds by inner stages of a network.

    Args:
        network: On the CPU, in evaluation mode.
        info: Model info of the network.
        stages: As for :func:`load_stages`.
        pool: As for :func:`load_stages`.

    Raises:
        ModelError: If the network has no such stage, or a learned front-end.
    """
    from earmark.models.stage_embedding import DEFAULT_STAGES, StageSession

    front_end = info.front_end
    if not isinstance(front_end, FrontEnd):
        raise ModelError(f"{info.name}: inner stages need a log-mel front-end, not a learned one")
    session = StageSession(network, stages or DEFAULT_STAGES, pool)
    frames = front_end.num_frames(info.num_samples(info.window_s))
    silence = np.zeros((1, front_end.n_mels, frames), np.float32)
    [vectors] = session.run(["embedding"], {"log_mel": silence})
    return Tagger(session, info.changed(embedding_size=vectors.shape[1]))
