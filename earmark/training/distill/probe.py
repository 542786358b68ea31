"""A linear probe: a classifier of the run's classes on a teacher's outputs.

Conventions: weights are (class, output), in float32; fitting is in float64. scikit-learn's logistic
regression does not fit soft targets with unknown rows, so ``torch.optim.LBFGS`` does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from earmark.errors import DataError
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import Task
from earmark.training.distill.losses import as_scores
from earmark.training.losses import label_loss


class Probe:
    """A linear classifier on a teacher's outputs.

    Args:
        weight: (class, output).
        bias: (class,).
        task: Decides between sigmoid and softmax.
    """

    def __init__(self, weight: Tensor, bias: Tensor, task: Task = "multi_label") -> None:
        self.weight, self.bias, self.task = weight, bias, task

    def __call__(self, outputs: Tensor) -> Tensor:
        """Scores (batch, class) of outputs (batch, output)."""
        return as_scores(outputs @ self.weight.T + self.bias, self.task)

    def to(self, device: torch.device) -> Probe:
        """A copy on a device."""
        return Probe(self.weight.to(device), self.bias.to(device), self.task)

    @classmethod
    def fit(cls, outputs: Tensor, targets: Tensor, task: Task = "multi_label", decay: float = 0.03) -> Probe:
        """Minimises the cross-entropy, summed over classes, with a penalty on standardised weights.

        Args:
            outputs: (clip, output).
            targets: (clip, class) in [0, 1]; rows with NaN are left out.
            task: Binary cross-entropy or cross-entropy.
            decay: Factor of half the squared weights.
        """
        known = ~targets.isnan().any(-1)
        outputs, targets = outputs[known].double(), targets[known].double()
        mean, std = outputs.mean(0), outputs.std(0).clamp(min=1e-3)
        standardised = (outputs - mean) / std
        weight = torch.zeros(targets.shape[1], outputs.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros(targets.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")
        terms = targets.shape[1] if task == "multi_label" else 1  # label_loss is a mean over these

        def loss() -> Tensor:
            optimizer.zero_grad()
            error = label_loss(standardised @ weight.T + bias, targets, task)
            total = error * terms + decay / 2 * weight.square().sum()
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            scaled = weight / std
            return cls(scaled.float(), (bias - scaled @ mean).float(), task)

    def save(self, path: Path) -> None:
        """Writes a safetensors file."""
        write_atomically(path, save({"weight": self.weight.cpu(), "bias": self.bias.cpu()}))

    @classmethod
    def load(cls, path: Path, task: Task, shape: tuple[int, int]) -> Probe:
        """Reads a file that :meth:`save` wrote, of the shape (classes, outputs).

        Raises:
            DataError: If the file is damaged or has another shape.
        """
        try:
            stored = load_file(path)
            weight, bias = stored["weight"], stored["bias"]
        except (SafetensorError, OSError, KeyError) as error:
            raise DataError(
                f"{path}: the probe cannot be read ({error}): delete it to fit it again"
            ) from None
        if weight.shape != shape or bias.shape != shape[:1]:
            raise DataError(f"{path}: has other classes or another teacher: delete it to fit it again")
        return cls(weight, bias, task)
