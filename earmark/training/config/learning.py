"""The tables ``model``, ``loss``, ``schedule``, ``optimizer`` and ``teacher`` of a recipe.

Conventions: weights of losses are zero where a term is off; epochs may be fractional where a schedule is
meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from earmark.training.config.section import Count, Fraction, NonNegative, Positive, Section


class Annealing(Section):
    """Temperature annealing of DyMN's dynamic convolutions: steeply to 1, then slowly to the final value."""

    start: Annotated[float, Field(ge=1)] = 30.0
    """Temperature of the first epoch."""
    slope: Positive = 1.0
    """Decrease in each epoch until the temperature is 1."""
    late_slope: Positive = 0.02
    """Decrease in each epoch after that."""


class Model(Section):
    """The network to train."""

    architecture: str
    """Name in the model registry."""
    arguments: Mapping[str, Any] = {}
    """Arguments of the architecture; the number of classes comes from the labels."""
    init_from: str | None = None
    """Initial weights: a checkpoint ({fold}: fold1, ..., all) or a published name, that fit the network."""
    new_head: bool = False
    """Replace the classification head of ``init_from``, for other labels."""
    annealing: Annealing | None = None
    """Temperature annealing (DyMN)."""


class Loss(Section):
    """The loss on labels: binary cross-entropy or cross-entropy, according to the task."""

    label_smoothing: Fraction = 0.0
    """Fraction of each target spread over the classes."""
    focal_gamma: NonNegative = 0.0
    """Focal-loss gamma; 0: plain cross-entropy."""
    class_weights: Literal["none", "balanced"] = "none"
    """"balanced": weight classes by their inverse frequency."""
    ranking_weight: NonNegative = 0.0
    """Weight of the softmax ranking loss, which ranks a clip's labels above all others (multi_label only)."""
    unknown: Literal["skip", "count"] = "skip"
    """Unknown labels: leave them out of the mean, or count them in it with a loss of 0 (OpenMIC)."""


class Schedule(Section):
    """The learning rate schedule."""

    kind: Literal["cosine", "ramp", "steps"] = "cosine"
    """Linear warm-up and half a cosine; exponential warm-up, constant and linear ramp-down; or step decay."""
    interval: Literal["step", "epoch"] = "step"
    """How often the rate changes."""
    warmup_epochs: NonNegative = 0.0
    """Length of the warm-up."""
    final_lr_scale: Fraction = 0.0
    """Final rate as a fraction of the peak rate."""
    ramp_down_start_epoch: NonNegative = 0.0
    """For ramp: the epoch at which the ramp-down begins."""
    ramp_down_epochs: NonNegative = 0.0
    """For ramp: length of the ramp-down."""
    step_epochs: NonNegative = 0.0
    """For steps: epochs between two decays."""
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """For steps: factor of each decay."""

    @model_validator(mode="after")
    def _keys_match_kind(self) -> Schedule:
        for kind, key in (("ramp", "ramp_down_epochs"), ("steps", "step_epochs")):
            if bool(getattr(self, key)) != (self.kind == kind):
                raise ValueError(
                    f"{key} is required for kind = {kind!r} and for no other (got {self.kind!r})"
                )
        if self.ramp_down_start_epoch and self.kind != "ramp":
            raise ValueError(f"ramp_down_start_epoch is for kind = 'ramp' only (got {self.kind!r})")
        return self


class Optimizer(Section):
    """AdamW: rates, decay, batch size and length."""

    learning_rate: Positive
    """Peak learning rate."""
    backbone_lr_scale: Fraction = 1.0
    """Learning rate of the weights from ``model.init_from``, as a fraction of that of the head; 0: frozen."""
    weight_decay: NonNegative = 0.0
    """Decay of weight matrices and kernels."""
    decay_all: bool = False
    """Decay normalisation weights and biases too."""
    batch_size: Count = 32
    """Clips in a batch, over all processes."""
    grad_accum_steps: Count = 1
    """Batches whose gradients are accumulated for one step."""
    max_grad_norm: NonNegative = 0.0
    """Gradient clipping: largest norm; 0: no clipping."""
    epochs: Count = 100
    """Length of the training."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of weights, which is evaluated and kept; 0: none."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the network's computations."""
    channels_last: bool = False
    """Memory layout of activations; equal results, often faster."""
    checkpoint_stages: bool = False
    """Recompute the activations of each stage in the backward pass: half the memory, a little slower."""
    sync_batch_norm: bool = False
    """Compute batch-norm statistics over all processes."""


def _as_paths(values: Any) -> Any:
    return [str(values)] if isinstance(values, str | Path) else values


class Teacher(Section):
    """A teacher: its predictions, and the losses that learn from them in addition to the labels.

    Predictions are stored by clip id, or computed by a network from the augmented and mixed waveforms of the
    student. A teacher with other labels is imitated through an auxiliary linear layer on the embedding, which
    is dropped after training; one with the run's labels can teach the network's own head.
    """

    path: Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_paths)]
    """Stored predictions (.npz, .npy, folder, name), models (ensemble); {fold}: fold1, ..., all."""
    index: Path | None = None
    """For an .npy file: table from clip to row (pickle, JSON or CSV)."""
    labels: str | None = None
    """For an .npy or LiteRT file: a label set or a label file."""
    kind: Literal["logits", "scores"] | None = None
    """For an .npy or LiteRT file: what it holds or outputs."""
    sample_rate: Count | None = None
    """For a LiteRT file: its sample rate in Hz."""
    tensor: str | None = None
    """For a LiteRT file: name of the tensor to learn from (default: the output)."""
    distill_weight: NonNegative = 0.0
    """Weight of the distillation loss: cross-entropy of the network's head against the teacher's scores."""
    temperature: Positive = 1.0
    """Divides the teacher's logits before they become scores."""
    label_weight: NonNegative = 1.0
    """Weight of the loss on labels."""
    imitation_weight: NonNegative = 0.0
    """Weight of the mean squared error to the teacher's outputs, through an auxiliary layer; any labels."""
    target_mean: float = 0.0
    """Subtracted from the teacher's outputs for imitation and probe."""
    target_std: Positive = 1.0
    """Divides them after that."""
    probe_weight: NonNegative = 0.0
    """Weight of the distillation loss from a linear probe on the teacher's outputs, for the run's labels."""
    probe_passes: Count = 4
    """Augmented passes over the labelled clips that the probe is fitted to before training."""

    @model_validator(mode="after")
    def _has_a_loss(self) -> Teacher:
        if not (self.imitation_weight or self.probe_weight or self.distill_weight):
            raise ValueError("a teacher needs distill_weight, imitation_weight or probe_weight above 0")
        return self
