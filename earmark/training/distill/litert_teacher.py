"""Teachers as LiteRT (TensorFlow Lite) files, such as YAMNet.

Conventions: one input, a window of samples in [-1, 1]; any one tensor is the output. They compute on the CPU.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.errors import ModelError, extra
from earmark.model_file.info import Task
from earmark.model_file.labels import read_labels
from earmark.training.distill.losses import Kind
from earmark.training.distill.stored_predictions import sha256_of
from earmark.training.distill.teacher_windows import at_rate, even_windows


class LiteRTTeacher:
    """A LiteRT network from a window of samples to one row of numbers.

    Args:
        path: The file.
        sample_rate: Of its input, in Hz.
        tensor: Name of the tensor to read (default: the output).
        labels: A label set or label file (default: numbered outputs).
        kind: Kind of the outputs, if known.

    Raises:
        MissingExtraError: If LiteRT is not installed.
        ModelError: If the file cannot be used, or has no such tensor.
    """

    task: Task | None = None

    def __init__(
        self,
        path: str,
        sample_rate: int,
        tensor: str | None = None,
        labels: str | None = None,
        kind: Kind | None = None,
    ) -> None:
        self.path, self.sample_rate, self.kind = Path(path), sample_rate, kind
        self.name = self.path.stem
        self._interpreter = _open_interpreter(self.path, keep_tensors=tensor is not None)
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1 or inputs[0]["dtype"] is not np.float32 or inputs[0]["shape"].size != 1:
            raise ModelError(f"{path}: a teacher needs one input, float32 of shape (time,)")
        self._input, self.window_length = inputs[0]["index"], int(inputs[0]["shape"][0])
        self._output, (self._scale, self._zero_point) = self._find(tensor)
        outputs = self._run(np.zeros(self.window_length, np.float32)).size
        self.labels = (
            read_labels(labels) if labels else tuple(f"output {number}" for number in range(outputs))
        )
        if len(self.labels) != outputs:
            raise ModelError(f"{path}: has {outputs} outputs, but {labels} has {len(self.labels)} labels")
        self.sha256 = sha256_of([self.path])

    def _find(self, tensor: str | None) -> tuple[int, tuple[float, int]]:
        """Index of the tensor to read, and its quantisation."""
        details = self._interpreter.get_output_details()
        if tensor is not None:
            details = [one for one in self._interpreter.get_tensor_details() if one["name"] == tensor]
        if not details:
            raise ModelError(f"{self.path}: has no tensor named {tensor!r}")
        scale, zero_point = details[0]["quantization"]
        return details[0]["index"], (scale or 1.0, zero_point)  # a scale of 0: not quantised

    def _run(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input, window)
        self._interpreter.invoke()
        raw = self._interpreter.get_tensor(self._output).ravel().astype(np.float32)
        return np.asarray((raw - self._zero_point) * self._scale, np.float32)

    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Predicts as a :class:`~earmark.training.distill.teacher_model.TeacherModel` does."""
        resampled = at_rate(waveforms, sample_rate, self.sample_rate).clamp(-1, 1)
        count = max(1, round(resampled.shape[-1] / self.window_length))
        windows = even_windows(resampled, self.window_length, count, "repeat").cpu().numpy()
        outputs = np.stack([np.mean([self._run(window) for window in row], 0) for row in windows])
        return torch.from_numpy(outputs).to(waveforms.device)


def _open_interpreter(path: Path, keep_tensors: bool) -> Any:
    """The interpreter of a file; ``keep_tensors`` makes its inner tensors readable."""
    with extra("a LiteRT teacher", "litert"):
        from ai_edge_litert.interpreter import Interpreter
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            # LiteRT warns that keeping all tensors is meant for debugging, for its memory: small here.
            warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
            interpreter = Interpreter(
                model_content=content, num_threads=1, experimental_preserve_all_tensors=keep_tensors
            )
        interpreter.allocate_tensors()
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: is not a readable LiteRT file ({error})") from None
    return interpreter
