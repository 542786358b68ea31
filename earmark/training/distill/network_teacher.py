"""Teachers in earmark's own formats: checkpoints and model files.

Conventions: a checkpoint computes on the waveforms' device, a model file on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earmark.features.front_end import FrontEnd
from earmark.hub import registry
from earmark.inference.load import open_session
from earmark.model_file.info import Task
from earmark.models.checkpoint import load_checkpoint
from earmark.models.log_mel import TorchLogMel
from earmark.models.waveform_network import split_front_end
from earmark.training.distill.losses import Kind
from earmark.training.distill.stored_predictions import sha256_of
from earmark.training.distill.teacher_windows import BATCH_SIZE, at_rate, even_windows, mean_over_windows


class NetworkTeacher:
    """A network with its front-end.

    Args:
        path: A checkpoint (.safetensors), a model file, or the name of a downloaded model.

    Raises:
        ModelError: If it is not found or damaged.
    """

    kind: Kind | None = "logits"

    def __init__(self, path: str) -> None:
        self._front_end: nn.Module
        self._network: Callable[[Tensor], Tensor]
        self._modules: list[nn.Module] = []
        if Path(path).suffix == ".safetensors":
            file = Path(path)
            network, self.info = load_checkpoint(file)
            self._front_end, behind = split_front_end(network, self.info.front_end)
            self._modules.append(behind)
            self._network = lambda features: behind(features).logits
        else:
            file = registry.find(path)
            session, self.info = open_session(file, torch.get_num_threads())
            own = self.info.front_end
            self._front_end = TorchLogMel(own) if isinstance(own, FrontEnd) else nn.Identity()
            self._network = _session_logits(session, self.info.graph_input)
        self._modules.append(self._front_end)
        self.name, self.labels = self.info.name, self.info.labels
        self.task: Task | None = self.info.task
        self.sample_rate = self.info.front_end.sample_rate
        self.sha256 = sha256_of([file])

    @torch.no_grad()
    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Predicts as a :class:`~earmark.training.distill.teacher_model.TeacherModel` does."""
        window_s = self.info.window_s
        count = max(1, math.ceil(waveforms.shape[-1] / sample_rate / window_s - 1e-4))
        for module in self._modules:
            module.to(waveforms.device)
        resampled = at_rate(waveforms, sample_rate, self.sample_rate)
        windows = even_windows(resampled, round(window_s * self.sample_rate), count, self.info.padding)
        batches = torch.split(windows.flatten(0, 1), BATCH_SIZE)
        return mean_over_windows([self._network(self._front_end(batch)) for batch in batches], count)


def _session_logits(session: Any, name: str) -> Callable[[Tensor], Tensor]:
    def logits(features: Tensor) -> Tensor:
        [values] = session.run(["logits"], {name: features.cpu().numpy()})
        return torch.from_numpy(values).to(features.device)

    return logits
