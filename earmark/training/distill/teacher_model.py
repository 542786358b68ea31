"""Trained networks that say what they make of waveforms, whoever made them: the live half of teaching.

Conventions: a listener takes waveforms (batch, time) at any rate and gives (batch, output), the mean over its
own windows, which cover a waveform evenly. Each has its own front-end and rate, and answers on the waveforms'
device: a checkpoint computes there, all others on the CPU. Files are read from this machine only, and never
unpickled.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from earmark.audio.resample import resample
from earmark.errors import ModelError, extra
from earmark.features.front_end import FrontEnd
from earmark.hub import registry
from earmark.inference.ensemble import require_same_labels
from earmark.inference.load import open_session
from earmark.model_file.info import ModelInfo, Padding, Task
from earmark.model_file.labels import read_labels
from earmark.models.checkpoint import load_checkpoint
from earmark.models.log_mel import TorchLogMel
from earmark.models.waveform_network import split_front_end
from earmark.training.distill.losses import Kind
from earmark.training.distill.stored_predictions import sha256_of

HUGGING_FACE = "hf:"
"""How the name of a folder with a Hugging Face model begins."""
LITERT = ".tflite"
TOGETHER = 16
"""Windows that go through a network at once."""
WINDOW_S = 10.0
"""Heard at once by a Hugging Face model that does not say how much it takes."""


class Listener(Protocol):
    """What all of them are."""

    name: str
    sha256: str
    labels: tuple[str, ...]
    """One per output."""
    kind: Kind | None
    """What the outputs are; None: the file does not say."""
    task: Task | None
    """What they become scores by; None: the file does not say."""
    sample_rate: int
    """At which it hears, in Hz."""

    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Answers waveforms, float32 (batch, time), at a rate in Hz: float32 (batch, output)."""


class NetworkListener:
    """A network of earmark with its front-end: a checkpoint, or a model file.

    Args:
        path: A checkpoint (.safetensors), a model file, or the name of a model that is on this machine.

    Raises:
        ModelError: If it cannot be had, or is damaged.
    """

    kind: Kind | None = "logits"

    def __init__(self, path: str) -> None:
        self._answer: Callable[..., Tensor]
        self._hearing: list[nn.Module]
        self._behind: list[nn.Module] = []
        if Path(path).suffix == ".safetensors":
            file = Path(path)
            network, self.info = load_checkpoint(file)
            front_end, behind = split_front_end(network, self.info.front_end)
            self._hearing, self._behind = [front_end], [behind]
            self._answer = lambda given: cast(Tensor, behind(given).logits)
        else:
            file = registry.find(path)
            session, self.info = open_session(file, torch.get_num_threads())
            self._hearing = [
                TorchLogMel(one) if isinstance(one, FrontEnd) else nn.Identity() for one in self.info.front_ends
            ]
            self._answer = _through(session, self.info)
        self.name, self.labels = self.info.name, self.info.labels
        self.task: Task | None = self.info.task
        self.sample_rate = max(one.sample_rate for one in self.info.front_ends)
        self.sha256 = sha256_of([file])

    @torch.no_grad()
    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Answers as a :class:`Listener` does."""
        info = self.info
        count = max(1, math.ceil(waveforms.shape[-1] / sample_rate / info.window_s - 1e-4))
        for module in self._hearing + self._behind:
            module.to(waveforms.device)
        heard = []
        for front_end in info.front_ends:
            length = round(info.window_s * front_end.sample_rate)
            at_rate = _at_rate(waveforms, sample_rate, front_end.sample_rate)
            heard.append(even_windows(at_rate, length, count, info.padding))
        logits = [
            self._answer(*(ear(piece) for ear, piece in zip(self._hearing, pieces, strict=True)))
            for pieces in zip(*(torch.split(one.flatten(0, 1), TOGETHER) for one in heard), strict=True)
        ]
        return _over_windows(logits, count)


class LiteRTListener:
    """A LiteRT (TensorFlow Lite) network from a window of samples to one row of numbers, such as YAMNet.

    Args:
        path: The file.
        sample_rate: That it expects, in Hz.
        tensor: Name of the tensor to read; by default its output.
        labels: A label set or a file of labels; by default outputs are numbered.
        kind: What the numbers are, where that is known.

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
        self._interpreter = _open_litert(self.path, inner=tensor is not None)
        inputs = self._interpreter.get_input_details()
        if len(inputs) != 1 or inputs[0]["dtype"] is not np.float32 or inputs[0]["shape"].size != 1:
            raise ModelError(f"{path}: a teacher takes one input, float32 of shape (time,)")
        self._input, self.window_length = inputs[0]["index"], int(inputs[0]["shape"][0])
        self._output, (self._step, self._zero) = self._find(tensor)
        outputs = self._hear(np.zeros(self.window_length, np.float32)).size
        self.labels = read_labels(labels) if labels else _numbered(outputs)
        if len(self.labels) != outputs:
            raise ModelError(f"{path}: has {outputs} outputs, {labels} names {len(self.labels)} labels")
        self.sha256 = sha256_of([self.path])

    def _find(self, tensor: str | None) -> tuple[int, tuple[float, int]]:
        details = self._interpreter.get_output_details()
        if tensor is not None:
            details = [one for one in self._interpreter.get_tensor_details() if one["name"] == tensor]
        if not details:
            raise ModelError(f"{self.path}: has no tensor named {tensor!r}")
        step, zero = details[0]["quantization"]
        return details[0]["index"], (step or 1.0, zero)  # a step of 0 says: not quantized

    def _hear(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        self._interpreter.set_tensor(self._input, window)
        self._interpreter.invoke()
        raw = self._interpreter.get_tensor(self._output).ravel().astype(np.float32)
        return np.asarray((raw - self._zero) * self._step, np.float32)

    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Answers as a :class:`Listener` does; waveforms are clipped to [-1, 1]."""
        heard = _at_rate(waveforms, sample_rate, self.sample_rate).clamp(-1, 1)
        count = max(1, round(heard.shape[-1] / self.window_length))
        windows = even_windows(heard, self.window_length, count, "repeat").cpu().numpy()
        answers = np.stack([np.mean([self._hear(one) for one in row], 0) for row in windows])
        return torch.from_numpy(answers).to(waveforms.device)


class HuggingFaceListener:
    """An audio classifier of Hugging Face's transformers, such as AST, with its feature extractor.

    Args:
        folder: What its ``save_pretrained`` wrote: configuration, preprocessor and safetensors.

    Raises:
        MissingExtraError: If transformers is not installed.
        ModelError: If the folder does not hold a whole classifier.
    """

    kind: Kind | None = "logits"

    def __init__(self, folder: str) -> None:
        path = Path(folder)
        if not (path / "config.json").is_file():
            raise ModelError(
                f"{folder}: holds no Hugging Face model (config.json): give a folder on this machine; "
                "nothing is downloaded here"
            )
        with extra("a Hugging Face teacher", "hf"):
            from transformers import AutoFeatureExtractor, AutoModelForAudioClassification
        try:
            with _without_bars():
                self._extractor: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
                network, loaded = AutoModelForAudioClassification.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, output_loading_info=True
                )
        except Exception as error:  # transformers raises whatever its parts do
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(f"{folder}: transformers cannot open this classifier ({reason[0]})") from None
        lacking = sorted(loaded["missing_keys"]) + sorted(map(str, loaded["mismatched_keys"]))
        if lacking:
            raise ModelError(f"{folder}: the file lacks {len(lacking)} weights, first {lacking[0]}")
        self._network: nn.Module = network.eval()
        self.name = path.resolve().name
        self.sha256 = sha256_of(sorted([*path.glob("*.json"), *path.glob("*.safetensors")]))
        self.labels = tuple(network.config.id2label[index] for index in range(network.config.num_labels))
        tasks: dict[str, Task] = {
            "single_label_classification": "single_label",
            "multi_label_classification": "multi_label",
        }
        self.task = tasks.get(str(network.config.problem_type))
        self.sample_rate = int(self._extractor.sampling_rate)
        self._length = round(WINDOW_S * self.sample_rate)
        if network.config.model_type == "audio-spectrogram-transformer":
            self._length = self._extractor.max_length * self.sample_rate // 100  # frames of 10 ms

    @torch.no_grad()
    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Answers as a :class:`Listener` does; what is shorter than a window is left to the extractor."""
        heard = _at_rate(waveforms, sample_rate, self.sample_rate).cpu()
        count = max(1, math.ceil(heard.shape[-1] / self._length - 1e-4))
        windows = even_windows(heard, min(self._length, heard.shape[-1]), count, "zero")
        logits = []
        for piece in torch.split(windows.flatten(0, 1), TOGETHER):
            given = self._extractor(list(piece.numpy()), sampling_rate=self.sample_rate, return_tensors="pt")
            logits.append(self._network(**given).logits.float().to(waveforms.device))
        return _over_windows(logits, count)


class EnsembleListener:
    """Several listeners that answer as one: the mean of their logits.

    Args:
        members: At least two.

    Raises:
        ModelError: If they do not agree on labels and task, or one does not answer in logits.
    """

    kind: Kind | None = "logits"

    def __init__(self, members: Sequence[Listener]) -> None:
        first = members[0]
        for other in members[1:]:
            require_same_labels(first.name, first.labels, other.name, other.labels)
            if other.task != first.task:
                raise ModelError(
                    f"{first.name} and {other.name} cannot answer together: task is {first.task} of the "
                    f"first, {other.task} of the other: take models of one task"
                )
        other_kinds = [member.name for member in members if member.kind != "logits"]
        if other_kinds:
            raise ModelError(
                f"{other_kinds[0]}: does not say that it answers in logits, whose mean an ensemble is"
            )
        self.members = members
        self.name = "+".join(member.name for member in members)
        self.sha256 = "+".join(member.sha256 for member in members)
        self.labels, self.task = first.labels, first.task
        self.sample_rate = max(member.sample_rate for member in members)

    def __call__(self, waveforms: Tensor, sample_rate: int) -> Tensor:
        """Answers as a :class:`Listener` does."""
        return torch.stack([member(waveforms, sample_rate) for member in self.members]).mean(0)


def open_listener(
    models: Sequence[str],
    *,
    sample_rate: int | None = None,
    tensor: str | None = None,
    labels: str | None = None,
    kind: Kind | None = None,
) -> Listener:
    """Opens a network to learn from, or several that answer as one.

    Args:
        models: Of each, the name of a model that is on this machine, a model file, a checkpoint
            (.safetensors), a LiteRT file (.tflite), or ``hf:`` and the folder of a Hugging Face classifier.
        sample_rate: Of a LiteRT file, which needs it, in Hz.
        tensor: Of a LiteRT file: the one to read instead of its output.
        labels: Of a LiteRT file, see :func:`~earmark.model_file.labels.read_labels`.
        kind: Of a LiteRT file: what its numbers are.

    Raises:
        ModelError: If one cannot be used, or they do not fit each other.
        MissingExtraError: If the package that runs one is not installed.
    """
    ours = {"sample_rate": sample_rate, "output": tensor, "labels": labels, "kind": kind}
    idle = [name for name, value in ours.items() if value is not None]
    if idle and not any(Path(model).suffix == LITERT for model in models):
        raise ModelError(
            f"{models[0]}: says its {idle[0]} itself: only a LiteRT file ({LITERT}) needs it said"
        )
    listeners: list[Listener] = []
    for model in models:
        if model.startswith(HUGGING_FACE):
            listeners.append(HuggingFaceListener(model.removeprefix(HUGGING_FACE)))
        elif Path(model).suffix != LITERT:
            listeners.append(NetworkListener(model))
        elif sample_rate is None:
            raise ModelError(f"{model}: a LiteRT file does not say its sample rate: give sample_rate")
        else:
            listeners.append(LiteRTListener(model, sample_rate, tensor, labels, kind))
    return listeners[0] if len(listeners) == 1 else EnsembleListener(listeners)


def even_windows(waveforms: Tensor, length: int, count: int, padding: Padding) -> Tensor:
    """Windows that cover waveforms evenly, the first from the start, the last to the end.

    Args:
        waveforms: (batch, time).
        length: Of a window, in samples.
        count: Of the windows.
        padding: How shorter waveforms are filled up.

    Returns:
        (batch, count, length).
    """
    lacking = length - waveforms.shape[-1]
    if lacking > 0 and padding == "repeat":
        waveforms = waveforms.repeat(1, -(-length // waveforms.shape[-1]))[:, :length]
    elif lacking > 0:
        waveforms = functional.pad(waveforms, (0, lacking))
    starts = np.linspace(0, waveforms.shape[-1] - length, count).round().astype(int)
    return torch.stack([waveforms[:, start : start + length] for start in starts], 1)


def _over_windows(logits: Sequence[Tensor], count: int) -> Tensor:
    """The mean over the windows of each waveform, which stand one after the other."""
    together = torch.cat(list(logits))
    return together.reshape(-1, count, together.shape[-1]).mean(1)


def _at_rate(waveforms: Tensor, sample_rate: int, target_rate: int) -> Tensor:
    if sample_rate == target_rate:
        return waveforms
    rows = [resample(row, sample_rate, target_rate) for row in waveforms.cpu().numpy()]
    return torch.from_numpy(np.stack(rows)).to(waveforms.device)


def _through(session: Any, info: ModelInfo) -> Callable[..., Tensor]:
    def answer(*given: Tensor) -> Tensor:
        inputs = {name: one.cpu().numpy() for name, one in zip(info.graph_inputs, given, strict=True)}
        [logits] = session.run(["logits"], inputs)
        return torch.from_numpy(logits).to(given[0].device)

    return answer


def _numbered(outputs: int) -> tuple[str, ...]:
    return tuple(f"output {number}" for number in range(outputs))


def _open_litert(path: Path, inner: bool) -> Any:
    """The interpreter of a file; with ``inner`` its tensors between input and output can be read too."""
    with extra("a LiteRT teacher", "litert"):
        from ai_edge_litert.interpreter import Interpreter
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
        raise ModelError(f"{path}: is no LiteRT file that can be read ({error})") from None
    return interpreter


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps the bars of transformers from the caller's terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
