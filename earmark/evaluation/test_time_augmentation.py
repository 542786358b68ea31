"""Test-time augmentation: the mean of the scores of several randomly masked copies of a log-mel.

Source: SP4ASC (DCASE 2021, task 1a), whose networks mask stripes behind their first norm at test time too;
golden sp4asc/sp4asc.npz, ``tta30``.

Conventions: NumPy only, so that model files are evaluated without PyTorch. A log-mel is (..., mel, frame),
computed once; the unmasked log-mel is not among the passes. Masked values are those that the network's first
norm maps to zero, which is the same as zeros behind that norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.inference.engines import Session
from earmark.inference.ensemble import EnsembleSession, ensemble_info
from earmark.inference.tagger import Tagger
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file, read_weights

Floats = NDArray[np.float32]
MEL, FRAME = -2, -1
"""Axes of a log-mel."""
FIRST_NORM = "bn0."
"""Prefix of the first norm's weights, in networks that normalise each mel band by itself."""
_EPSILON = 1e-5


class Stripe(NamedTuple):
    """Neighbouring mel bands (axis MEL) or frames (axis FRAME): the first one, and their number."""

    axis: int
    begin: int
    width: int


@dataclass(frozen=True)
class Masks:
    """Widths and numbers of masked stripes; the defaults are those of SP4ASC's published networks.

    Args:
        frames: Exclusive upper limit of the width of a stripe of frames.
        frame_stripes: Number of stripes of frames.
        mels: Exclusive upper limit of the width of a stripe of mel bands.
        mel_stripes: Number of stripes of mel bands.
    """

    frames: int = 128
    frame_stripes: int = 2
    mels: int = 32
    mel_stripes: int = 2

    @classmethod
    def of(cls, info: ModelInfo) -> Masks:
        """The masks that a network was trained with, if its model info has them; else the default."""
        trained_with = info.arguments.get("spec_augment")
        return cls(*trained_with) if trained_with and any(trained_with) else cls()


@dataclass(frozen=True)
class Masking:
    """Options of test-time augmentation.

    Args:
        passes: Number of masked copies, at least 1.
        frames: Replaces :attr:`Masks.frames`; None: as the model was trained.
        mels: Replaces :attr:`Masks.mels`; None: as the model was trained.
        seed: Of the masks.
    """

    passes: int
    frames: int | None = None
    mels: int | None = None
    seed: int = 0

    def masks_of(self, info: ModelInfo) -> Masks:
        """The masks of a model with these options."""
        widths = {"frames": self.frames, "mels": self.mels}
        return replace(Masks.of(info), **{name: width for name, width in widths.items() if width is not None})


def draw_stripes(shape: tuple[int, int], masks: Masks, generator: np.random.Generator) -> list[Stripe]:
    """Draws the stripes of one pass, those of frames first.

    Source: torchlibrosa's SpecAugmentation: a width uniform from 0 to one below the limit, then a begin
    uniform over the places that leave at least one position behind the stripe; stripes may overlap. A
    log-mel that is shorter than the limit lowers it to its own length.

    Args:
        shape: Mel bands and frames of the log-mel.
        masks: Widths and numbers.
        generator: Source of randomness.
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
    """Masks stripes of a log-mel.

    Args:
        log_mel: Shape (..., mel, frame).
        stripes: The stripes.
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
    """Value that masks the log-mels of a network.

    Args:
        info: Model info.
        weights: Its weights by name, at least those of a first norm.

    Returns:
        For a network that begins with a norm of each mel band, what that maps to zero, shape (mel,); for
        others the front-end's mask value, as in training.

    Raises:
        ModelError: If the model's front-end is no log-mel, or its first norm is incomplete.
    """
    front_end = info.front_end
    if not isinstance(front_end, FrontEnd):
        raise ModelError(
            f"{info.name}: test-time augmentation masks log-mels, and this model has a learned front-end"
        )
    names = [FIRST_NORM + name for name in ("running_mean", "bias", "running_var", "weight")]
    if not any(name in weights for name in names):
        return front_end.mask_value
    if info.arguments.get("fused", False):  # its statistics are in its weights
        zeros = np.zeros(front_end.n_mels, np.float32)
        weights = {names[0]: zeros, names[2]: zeros + np.float32(1 - _EPSILON), **weights}
    if any(name not in weights or weights[name].size != front_end.n_mels for name in names):
        raise ModelError(f"{info.name}: its first norm is incomplete: evaluate its checkpoint instead")
    mean, bias, variance, gain = (weights[name].astype(np.float64).ravel() for name in names)
    safe = np.where(
        np.abs(gain) > 1e-8, gain, np.inf
    )  # the output of a band without gain does not depend on it
    return np.asarray(mean - bias * np.sqrt(variance + _EPSILON) / safe, np.float32)


class MaskedTagger(Tagger):
    """A tagger whose windows are processed several times, with other masks each time.

    Args:
        taggers: Members of an ensemble, or one tagger.
        files: Model file or checkpoint of each.
        masking: Options.

    Raises:
        ModelError: As :func:`mask_value` does; or if the members do not fit together.
    """

    def __init__(self, taggers: Sequence[Tagger], files: Sequence[Path], masking: Masking) -> None:
        self.passes = tuple(
            MaskedPasses(
                tagger.session,
                tagger.info,
                masking.passes,
                masking.masks_of(tagger.info),
                mask_value(tagger.info, _first_norm(file)),
                masking.seed,
            )
            for tagger, file in zip(taggers, files, strict=True)
        )
        session = self.passes[0] if len(self.passes) == 1 else EnsembleSession(self.passes)
        super().__init__(session, ensemble_info([tagger.info for tagger in taggers]))

    def restart(self, clip: str) -> None:
        """Restarts the random masks for a clip, whatever clips came before.

        Args:
            clip: Its id.
        """
        for passes in self.passes:
            passes.restart(clip)


def _first_norm(file: Path) -> dict[str, Floats]:
    if file.suffix != ".safetensors":
        content, info = read_model_file(file)
        return read_weights(content, FIRST_NORM, info.precision)
    from earmark.models.checkpoint import load_checkpoint

    state = load_checkpoint(file)[0].state_dict()
    return {name: values.numpy() for name, values in state.items() if name.startswith(FIRST_NORM)}


class MaskedPasses:
    """A session that runs another one several times on masked copies of its input.

    Args:
        session: Of the network.
        info: Model info.
        passes: Number of masked copies, at least 1.
        masks: Widths and numbers of the masks.
        fill: Value of masked positions; see :func:`mask_value`.
        seed: Of the masks.
    """

    def __init__(
        self,
        session: Session,
        info: ModelInfo,
        passes: int,
        masks: Masks,
        fill: float | Floats,
        seed: int = 0,
    ) -> None:
        self._session, self._single_label = session, info.task == "single_label"
        self._passes, self.masks, self._fill, self._seed = passes, masks, fill, seed
        self.restart("")

    def restart(self, clip: str) -> None:
        """As :meth:`MaskedTagger.restart`."""
        self._generator = np.random.default_rng([self._seed, crc32(clip.encode())])

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes "logits" (1, class) and "embedding" (1, channel), as named.

        Args:
            names: Of the outputs.
            inputs: One log-mel, shape (1, mel, frame).

        Returns:
            Logits whose softmax (or sigmoid) is the mean of the passes' scores; means of other outputs.
        """
        [(graph_input, log_mel)] = inputs.items()
        shape = (log_mel.shape[MEL], log_mel.shape[FRAME])
        drawn = [draw_stripes(shape, self.masks, self._generator) for _ in range(self._passes)]
        outputs = [
            self._session.run(names, {graph_input: mask_stripes(log_mel, stripes, self._fill)})
            for stripes in drawn
        ]
        by_name = zip(names, zip(*outputs, strict=True), strict=True)
        return [
            mean_logits(np.stack(each), self._single_label) if name == "logits" else np.mean(each, 0)
            for name, each in by_name
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
