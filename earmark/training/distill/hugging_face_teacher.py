"""Teachers from Hugging Face's transformers, such as AST.

Conventions: a folder written by ``save_pretrained``, with safetensors; nothing is downloaded. They compute on
the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from earmark.errors import ModelError, extra
from earmark.model_file.info import Task
from earmark.training.distill.losses import Kind
from earmark.training.distill.stored_predictions import sha256_of
from earmark.training.distill.teacher_windows import BATCH_SIZE, at_rate, even_windows, mean_over_windows

WINDOW_S = 10.0
"""Window of a model whose configuration does not set one."""
_TASKS: dict[str, Task] = {
    "single_label_classification": "single_label",
    "multi_label_classification": "multi_label",
}


class HuggingFaceTeacher:
    """An audio classifier with its feature extractor.

    Args:
        folder: With configuration, preprocessor and safetensors.

    Raises:
        MissingExtraError: If transformers is not installed.
        ModelError: If the folder does not hold a complete classifier.
    """

    kind: Kind | None = "logits"

    def __init__(self, folder: str) -> None:
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{folder}: holds no Hugging Face model (config.json): give a local folder; nothing is "
                "downloaded"
            )
        self._extractor, network = _from_pretrained(folder)
        self._network: nn.Module = network.eval()
        self.name = path.resolve().name
        self.sha256 = sha256_of(sorted([*path.glob("*.json"), *path.glob("*.safetensors")]))
        self.labels = tuple(network.config.id2label[index] for index in range(network.config.num_labels))
        self.task = _TASKS.get(str(network.config.problem_type))
        self.sample_rate = int(self._extractor.sampling_rate)
        self._length = round(WINDOW_S * self.sample_rate)
        if network.config.model_type == "audio-spectrogram-transformer":
            self._length = self._extractor.max_length * self.sample_rate // 100  # frames of 10 ms

    @torch.no_grad()
    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Predicts as a :class:`~earmark.training.distill.teacher_model.TeacherModel` does.

        Waveforms shorter than a window are padded by the feature extractor.
        """
        resampled = at_rate(waveforms, sample_rate, self.sample_rate).cpu()
        count = max(1, math.ceil(resampled.shape[-1] / self._length - 1e-4))
        windows = even_windows(resampled, min(self._length, resampled.shape[-1]), count, "zero")
        logits = []
        for batch in torch.split(windows.flatten(0, 1), BATCH_SIZE):
            inputs = self._extractor(list(batch.numpy()), sampling_rate=self.sample_rate, return_tensors="pt")
            logits.append(self._network(**inputs).logits.float().to(waveforms.device))
        return mean_over_windows(logits, count)


def _from_pretrained(folder: str) -> tuple[Any, Any]:
    """Feature extractor and classifier of a folder."""
    with extra("a Hugging Face teacher", "hf"):
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
    try:
        with _no_progress_bars():
            extractor: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
            network, loaded = AutoModelForAudioClassification.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:  # transformers raises whatever its parts do
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{folder}: transformers cannot load this classifier ({reason[0]})") from None
    lacking = sorted(loaded["missing_keys"]) + sorted(map(str, loaded["mismatched_keys"]))
    if lacking:
        raise ModelError(f"{folder}: the file lacks {len(lacking)} weights, first {lacking[0]}")
    return extractor, network


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Turns the progress bars of transformers off."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
