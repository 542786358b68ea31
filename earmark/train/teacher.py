"""Teachers: trained networks that say what they make of the very audio that a student hears.

Conventions: a teacher answers waveforms (batch, time) at the student's rate, augmented and mixed as they are,
with (batch, output): the mean over its own windows. It has other classes than the student, so the student
imitates it through a linear layer of its own, which is dropped when training ends.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from earmark.audio import pad
from earmark.audio.resample import resample
from earmark.errors import MissingExtraError, RecipeError
from earmark.files import write_atomically
from earmark.train.recipe import Imitation

Floats = NDArray[np.float32]


class Teacher(Protocol):
    """What the loop asks of a teacher."""

    num_outputs: int

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Answers waveforms (batch, time) with (batch, output)."""


class LiteRTTeacher:
    """A LiteRT (TensorFlow Lite) network from a window of samples to one row of numbers, such as YAMNet.

    Args:
        settings: Its file, rate, output and scaling.
        sample_rate: Of the waveforms that it is given, in Hz.

    Raises:
        MissingExtraError: If LiteRT is not installed.
        RecipeError: If the file cannot be used, or has no such output.
    """

    def __init__(self, settings: Imitation, sample_rate: int) -> None:
        self.settings, self.sample_rate = settings, sample_rate
        self._interpreter = _open(settings.path, inner=settings.output is not None)
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1 or inputs[0]["dtype"] is not np.float32 or inputs[0]["shape"].size != 1:
            raise RecipeError(f"{settings.path}: a teacher takes one input, float32 of shape (time,)")
        self._input, self.window_length = inputs[0]["index"], int(inputs[0]["shape"][0])
        self._output, (self._step, self._zero) = self._find_output()
        self.num_outputs = self._answer(np.zeros(self.window_length, np.float32)).size

    def _find_output(self) -> tuple[int, tuple[float, int]]:
        wanted = self.settings.output
        details = self._interpreter.get_output_details()
        if wanted is not None:
            details = [one for one in self._interpreter.get_tensor_details() if one["name"] == wanted]
        if not details:
            raise RecipeError(f"{self.settings.path}: has no tensor named {wanted!r}")
        step, zero = details[0]["quantization"]
        return details[0]["index"], (step or 1.0, zero)  # a step of 0 says: not quantized

    def _answer(self, window: Floats) -> Floats:
        self._interpreter.set_tensor(self._input, window)
        self._interpreter.invoke()
        raw = self._interpreter.get_tensor(self._output).ravel().astype(np.float32)
        value = (raw - self._zero) * self._step
        return np.asarray((value - self.settings.center) / self.settings.spread, np.float32)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Answers each waveform by the mean over windows that cover it evenly.

        Args:
            waveforms: float32 (batch, time), clipped here to [-1, 1].

        Returns:
            float32 (batch, output), less ``settings.center``, divided by ``settings.spread``.
        """
        return torch.from_numpy(np.stack([self._mean(row) for row in waveforms.numpy()]))

    def _mean(self, waveform: Floats) -> Floats:
        heard = np.clip(resample(waveform, self.sample_rate, self.settings.sample_rate), -1, 1)
        heard = pad(heard, max(len(heard), self.window_length), "repeat")
        count = max(1, round(len(heard) / self.window_length))
        starts = np.linspace(0, len(heard) - self.window_length, count).round().astype(int)
        return np.asarray(
            np.mean([self._answer(heard[start : start + self.window_length]) for start in starts], 0)
        )


class Probe:
    """A linear classifier of the student's classes on a teacher's answers.

    Args:
        weight: (class, output).
        bias: (class,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, answers: Tensor) -> Tensor:
        """Scores (batch, class) in [0, 1] of answers (batch, output)."""
        return torch.sigmoid(answers @ self.weight.T + self.bias)

    @classmethod
    def fit(cls, answers: Tensor, targets: Tensor, decay: float = 0.03) -> Probe:
        """Fits by binary cross-entropy, summed over the classes, with a penalty on standardised weights.

        Args:
            answers: (clip, output).
            targets: (clip, class) in [0, 1]; rows with NaN are left out.
            decay: Of half the squared weights.
        """
        known = ~targets.isnan().any(-1)
        answers, targets = answers[known].double(), targets[known].double()
        mean, spread = answers.mean(0), answers.std(0).clamp(min=1e-3)
        standard = (answers - mean) / spread
        weight = torch.zeros(targets.shape[1], answers.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            error = functional.binary_cross_entropy_with_logits(standard @ weight.T + bias, targets)
            total = error * targets.shape[1] + decay / 2 * weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            scaled = weight / spread
            return cls(scaled.float(), (bias - scaled @ mean).float())

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        write_atomically(path, save({"weight": self.weight, "bias": self.bias}))

    @classmethod
    def load(cls, path: Path) -> Probe:
        """Reads what :meth:`save` wrote."""
        return cls(**load_file(path))


def _open(path: Path, inner: bool) -> Any:
    """The interpreter of a file; with ``inner`` its tensors between input and output can be read too."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        raise MissingExtraError("a LiteRT teacher", "litert") from None
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            # Keeping all tensors is announced as meant for debugging, for the memory it takes: here, little.
            warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors")
            interpreter = Interpreter(
                model_content=content, num_threads=1, experimental_preserve_all_tensors=inner
            )
        interpreter.allocate_tensors()
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(f"{path}: is no LiteRT file that can be read ({error})") from None
    return interpreter


def open_teacher(settings: Imitation, sample_rate: int) -> Teacher:
    """Opens the teacher that a recipe names.

    Args:
        settings: The recipe's section.
        sample_rate: Of the waveforms that it will be given, in Hz.

    Raises:
        MissingExtraError: If the package that runs it is not installed.
        RecipeError: If the file cannot be used.
    """
    return LiteRTTeacher(settings, sample_rate)
