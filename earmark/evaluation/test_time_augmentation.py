"""Test-time augmentation: many passes over randomly masked copies of a log-mel, and the mean of their scores.

Source: SP4ASC (DCASE 2021, task 1a), whose networks mask stripes behind their first norm at test time too;
golden sp4asc/sp4asc.npz, ``tta30``.

Conventions: NumPy only, so that model files are judged this way without PyTorch. A log-mel is
(..., mel, frame), computed once; the pass without a mask is not among the passes. What is masked takes the
value that the network's first norm turns into zero, which is the same as zeros behind that norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.inference.tagger import Tagger
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file, read_weights

Floats = NDArray[np.float32]
MEL, FRAME = -2, -1
"""Axes of a log-mel."""
FIRST_NORM = "bn0."
"""How the names of a first norm's weights begin, where a network normalises each mel band by itself."""
_EPSILON = 1e-5


class Stripe(NamedTuple):
    """Neighbouring mel bands (axis MEL) or frames (axis FRAME): where they begin, and how many they are."""

    axis: int
    begin: int
    width: int


@dataclass(frozen=True)
class Masks:
    """How much a pass masks; the defaults are those of SP4ASC's published networks.

    Args:
        frames: Limit of the width of a stripe of frames, which it stays below.
        frame_stripes: How many there are.
        mels: The same for stripes of mel bands.
        mel_stripes: How many there are.
    """

    frames: int = 128
    frame_stripes: int = 2
    mels: int = 32
    mel_stripes: int = 2

    @classmethod
    def of(cls, info: ModelInfo) -> Masks:
        """Those that a network was trained with, where its record says so; else the default."""
        trained_with = info.arguments.get("spec_augment")
        return cls(*trained_with) if trained_with and any(trained_with) else cls()


def draw_stripes(shape: tuple[int, int], masks: Masks, generator: np.random.Generator) -> list[Stripe]:
    """Draws the stripes of one pass, those of frames first.

    Source: torchlibrosa's SpecAugmentation: a width uniform from 0 to one below the limit, then a begin
    uniform over the places that leave at least one position behind the stripe; stripes may overlap. A
    log-mel that is shorter than the limit lowers it to its own length.

    Args:
        shape: Mel bands and frames of the log-mel.
        masks: Limits and counts.
        generator: Of all draws.
    """
    stripes = []
    for axis, limit, count in (
        (FRAME, masks.frames, masks.frame_stripes),
        (MEL, masks.mels, masks.mel_stripes),
    ):
        size = shape[axis]
        for _ in range(count):
            width = int(generator.integers(max(1, min(limit, size))))
            stripes.append(Stripe(axis, int(generator.integers(size - width)), width))
    return stripes


def mask_stripes(log_mel: Floats, stripes: Sequence[Stripe], fill: float | Floats) -> Floats:
    """Overwrites stripes of a log-mel.

    Args:
        log_mel: Shape (..., mel, frame).
        stripes: Which.
        fill: One value, or one for each mel band, shape (mel,).

    Returns:
        A copy of the same shape.
    """
    masked = np.zeros(log_mel.shape[MEL:], bool)
    for axis, begin, width in stripes:
        stripe = slice(begin, begin + width)
        masked[(stripe,) if axis == MEL else (slice(None), stripe)] = True
    return np.where(masked, np.asarray(fill, np.float32).reshape(-1, 1), log_mel)


def mask_value(info: ModelInfo, weights: Mapping[str, Floats]) -> float | Floats:
    """What a network's log-mels are masked with.

    Args:
        info: Of the model.
        weights: Its weights by name, at least those of a first norm.

    Returns:
        For a network that begins with a norm of each mel band, what that turns into zero, shape (mel,); for
        others the front-end's neutral value, which earmark masks with in training.

    Raises:
        ModelError: If the model takes something else than one log-mel, or its first norm is incomplete.
    """
    front_end, *others = info.front_ends
    if others or not isinstance(front_end, FrontEnd):
        raise ModelError(
            f"{info.name}: only what hears through one log-mel can be masked: name the members of an "
            "ensemble with + between them, and judge a front-end that learns without test-time augmentation"
        )
    names = [FIRST_NORM + name for name in ("running_mean", "bias", "running_var", "weight")]
    if not any(name in weights for name in names):
        return front_end.mask_value
    if info.arguments.get("fused", False):  # its statistics are in its weights
        still = np.zeros(front_end.n_mels, np.float32)
        weights = {names[0]: still, names[2]: still + np.float32(1 - _EPSILON), **weights}
    if any(name not in weights or weights[name].size != front_end.n_mels for name in names):
        raise ModelError(f"{info.name}: its first norm cannot be read whole: judge its checkpoint instead")
    mean, bias, variance, gain = (weights[name].astype(np.float64).ravel() for name in names)
    safe = np.where(np.abs(gain) > 1e-8, gain, np.inf)  # a band without gain is the same whatever it holds
    return np.asarray(mean - bias * np.sqrt(variance + _EPSILON) / safe, np.float32)


def augmented(
    tagger: Tagger, file: Path, passes: int, widths: Mapping[str, int], seed: int = 0
) -> tuple[Tagger, MaskedPasses]:
    """The same model, each of whose windows is heard through several masks.

    Args:
        tagger: Around one model.
        file: The model's file or checkpoint.
        passes: How many, at least one.
        widths: Fields of :class:`Masks` that are to be other than what the record says.
        seed: Of all draws.

    Returns:
        The tagger, and what it runs: its ``restart`` gives the next clip draws of its own.

    Raises:
        ModelError: As :func:`mask_value` does.
    """
    info = tagger.info
    fill, masks = mask_value(info, _first_norm(file)), replace(Masks.of(info), **widths)
    wrapped: list[MaskedPasses] = []

    def wrap(session: Any) -> MaskedPasses:
        wrapped.append(MaskedPasses(session, info, passes, masks, fill, seed))
        return wrapped[0]

    return tagger.with_session(wrap(tagger.session)), wrapped[0]


def _first_norm(file: Path) -> dict[str, Floats]:
    if file.suffix != ".safetensors":
        content, info = read_model_file(file)
        return read_weights(content, FIRST_NORM, info.precision)
    from earmark.models.checkpoint import load_checkpoint

    state = load_checkpoint(file)[0].state_dict()
    return {name: values.numpy() for name, values in state.items() if name.startswith(FIRST_NORM)}


class MaskedPasses:
    """Runs a graph several times on masked copies of its log-mel, as if that were one pass.

    Args:
        session: Has ``run(names, inputs)`` as an inference session of ONNX Runtime does.
        info: Of what it runs.
        passes: How many, at least one.
        masks: How much each masks.
        fill: What with; see :func:`mask_value`.
        seed: Of all draws.
    """

    def __init__(
        self, session: Any, info: ModelInfo, passes: int, masks: Masks, fill: float | Floats, seed: int = 0
    ) -> None:
        self._session, self._single_label = session, info.task == "single_label"
        self._passes, self.masks, self._fill, self._seed = passes, masks, fill, seed
        self.restart("")

    def restart(self, clip: str) -> None:
        """Goes on with the draws of a clip, which are its own, whichever clips came before.

        Args:
            clip: Its name.
        """
        self._generator = np.random.default_rng([self._seed, crc32(clip.encode())])

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes "logits" (1, class) and "embedding" (1, channel), as named.

        Args:
            names: Of the outputs.
            inputs: One log-mel, shape (1, mel, frame).

        Returns:
            Logits whose softmax (or sigmoid) is the mean over the passes of the scores; means of the rest.
        """
        [(graph_input, log_mel)] = inputs.items()
        shape = (log_mel.shape[MEL], log_mel.shape[FRAME])
        drawn = [draw_stripes(shape, self.masks, self._generator) for _ in range(self._passes)]
        answers = [
            self._session.run(names, {graph_input: mask_stripes(log_mel, stripes, self._fill)})
            for stripes in drawn
        ]
        together = zip(names, zip(*answers, strict=True), strict=True)
        return [
            mean_logits(np.stack(each), self._single_label) if name == "logits" else np.mean(each, 0)
            for name, each in together
        ]


def mean_logits(logits: Floats, single_label: bool) -> Floats:
    """The logits whose scores are the mean of the scores of several passes.

    Args:
        logits: Shape (pass, ..., class).
        single_label: Whether scores are a softmax over the classes, or else sigmoids.

    Returns:
        Shape (..., class).
    """
    values = logits.astype(np.float64)
    if not single_label:
        yes, no = (_log(np.exp(-np.logaddexp(0, sign * values)).mean(0)) for sign in (-1, 1))
        return np.asarray(yes - no, np.float32)
    shares = np.exp(values - np.logaddexp.reduce(values, -1, keepdims=True)).mean(0)
    return np.asarray(_log(shares), np.float32)


def _log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.log(np.maximum(values, np.finfo(np.float64).tiny)))
