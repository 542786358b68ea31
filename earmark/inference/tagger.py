"""A model file that answers: a recording in; tags, scores, embeddings and a timeline out.

Conventions: a recording goes through in blocks, so memory does not grow with its length. Each window is one
forward pass. Scores lie in [0, 1]; times are seconds from the recording's start. Only NumPy and an engine
(:mod:`earmark.inference.engines`) are needed. Scores are probabilities where the record holds a calibration.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import tee
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.audio import check_finite, open_audio, resample_blocks, window_chunks
from earmark.errors import AudioError, ModelError
from earmark.features.front_end import FrontEnd
from earmark.features.learned import AnyFrontEnd, WaveformWindows
from earmark.features.log_mel import LogMel
from earmark.hub import registry
from earmark.inference.embeddings import Embeddings
from earmark.inference.engines import Engine, open_engine
from earmark.inference.ensemble import JointSession, joined
from earmark.model_file.calibration import uncalibrated
from earmark.model_file.info import ModelInfo, Padding
from earmark.model_file.label_selection import select_labels
from earmark.model_file.onnx_file import read_model_file
from earmark.model_file.ontology import rollup_labels, rollup_scores

Floats = NDArray[np.float32]
OverWindows = Literal["max", "mean"]
Source = str | os.PathLike[str] | ArrayLike
Item = TypeVar("Item")
Limit = float | Sequence[float] | Literal["auto"]
"""Scores from which tags are chosen: one, one for each label, or the model's own."""

WINDOWS_PER_CHUNK = 8
"""Windows whose log-mels are computed together, so that overlapping ones share frames, at most."""
LONGEST_WINDOW_S = 600.0
"""A window is held in memory as a whole."""
BLOCK_S = 5.0
"""Length of the blocks that an array is fed in, in seconds."""


class Tag(NamedTuple):
    """A label, its score in [0, 1], and the span, in seconds, of the window in which it scored highest."""

    label: str
    score: float
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Window:
    """What one forward pass said: from, to (s), scores (class,), embedding (channel,)."""

    start_s: float
    end_s: float
    scores: Floats
    embedding: Floats


@dataclass(frozen=True)
class Result:
    """What a tagger says of one recording.

    Args:
        labels: One per class.
        windows: In time's order.
        duration_s: Of what was heard, in seconds.
        sample_rate: Of the recording, in Hz.
        model: Name of the model.
        over_windows: How the windows' scores became the recording's.
        warnings: What was odd about the recording, one line each.
        path: Of the recording, where it was a file.
        calibrated: Whether scores are probabilities.
        thresholds: Score from which each label counts as heard; None where the model has no threshold.
    """

    labels: tuple[str, ...]
    windows: tuple[Window, ...]
    duration_s: float
    sample_rate: int
    model: str
    over_windows: OverWindows
    warnings: tuple[str, ...] = ()
    path: str | None = None
    calibrated: bool = False
    thresholds: tuple[float, ...] | None = None

    @cached_property
    def scores(self) -> Floats:
        """Of the whole recording, float32 (class,)."""
        table = np.stack([window.scores for window in self.windows])
        return np.asarray(table.max(0) if self.over_windows == "max" else table.mean(0))

    @cached_property
    def embedding(self) -> Floats:
        """Mean over the windows, float32 (channel,)."""
        return np.asarray(np.stack([window.embedding for window in self.windows]).mean(0))

    @cached_property
    def tags(self) -> tuple[Tag, ...]:
        """Every label, highest score first."""
        best = np.argmax(np.stack([window.scores for window in self.windows]), 0)
        order = np.argsort(-self.scores, kind="stable")
        spans = [(window.start_s, window.end_s) for window in self.windows]
        ranked = zip(order.tolist(), self.scores[order].tolist(), best[order].tolist(), strict=True)
        return tuple(Tag(self.labels[index], score, *spans[window]) for index, score, window in ranked)

    @property
    def heard(self) -> tuple[Tag, ...]:
        """The tags that reach the model's own threshold, highest score first; none where it has none."""
        return self.chosen(threshold="auto") if self.thresholds is not None else ()

    def to_dict(self, top: int | None = None, threshold: Limit | None = None) -> dict[str, Any]:
        """The result as JSON can hold it, with at most ``top`` tags of at least ``threshold``."""
        kept = self.chosen(top, threshold)
        return {
            "path": self.path,
            "duration_s": round(self.duration_s, 4),
            "sample_rate": self.sample_rate,
            "model": self.model,
            "calibrated": self.calibrated,
            "tags": [_rounded(tag) for tag in kept],
            "windows": [self._window_dict(window, top, threshold) for window in self.windows],
            "warnings": list(self.warnings),
        }

    def chosen(self, top: int | None = None, threshold: Limit | None = None) -> tuple[Tag, ...]:
        """The first tags that reach a threshold.

        Args:
            top: At most so many; None: all.
            threshold: Least score, or one for each of ``labels``; "auto": the model's own; None: any score.

        Raises:
            ModelError: If the model has no threshold of its own, or the number of thresholds does not fit.
        """
        if threshold is None:
            return self.tags[:top]
        limits = self._limits(threshold)
        return tuple(tag for tag in self.tags if tag.score >= limits[tag.label])[:top]

    def _limits(self, threshold: Limit) -> dict[str, float]:
        if isinstance(threshold, str):
            if threshold != "auto" or self.thresholds is None:
                raise ModelError(f"model {self.model} has no threshold {threshold!r}: give a number")
            threshold = self.thresholds
        limits = np.asarray(threshold, np.float64)
        if limits.ndim and len(limits) != len(self.labels):
            raise ModelError(f"{len(limits)} thresholds do not fit {len(self.labels)} labels: give one each")
        return dict(zip(self.labels, np.broadcast_to(limits, len(self.labels)).tolist(), strict=True))

    def rolled_up(self) -> Result:
        """The same with AudioSet's parents: "Animal" scores what the highest of all animals does.

        In every window a label's score is the maximum over itself and its descendants in AudioSet's ontology;
        parents that the model has no label for come as further labels behind its own. Of their thresholds the
        lowest counts; a maximum of probabilities is no probability.

        Raises:
            ModelError: If the model's labels are not AudioSet's.
        """
        seen = self._seen_as(rollup_labels(self.labels), lambda scores: rollup_scores(self.labels, scores))
        lowest = None if self.thresholds is None else -rollup_scores(self.labels, -np.array(self.thresholds))
        return replace(seen, calibrated=False, thresholds=None if lowest is None else tuple(lowest.tolist()))

    def only(self, labels: str | Iterable[str]) -> Result:
        """The same with some labels only, in the model's order.

        Args:
            labels: Names, or one text of names with commas between them.

        Raises:
            ModelError: If one is unknown; the message names the nearest.
        """
        kept = list(select_labels(self.labels, labels))
        seen = self._seen_as(tuple(self.labels[index] for index in kept), lambda scores: scores[kept])
        own = self.thresholds
        return replace(seen, thresholds=None if own is None else tuple(own[index] for index in kept))

    def _seen_as(self, labels: tuple[str, ...], view: Callable[[Floats], Floats]) -> Result:
        windows = tuple(replace(window, scores=view(window.scores)) for window in self.windows)
        return replace(self, labels=labels, windows=windows)

    def _window_dict(self, window: Window, top: int | None, threshold: Limit | None) -> dict[str, Any]:
        chosen = replace(self, windows=(window,)).chosen(top, threshold)
        tags = [{"label": tag.label, "score": round(tag.score, 4)} for tag in chosen]
        return {"start_s": round(window.start_s, 4), "end_s": round(window.end_s, 4), "tags": tags}


def _rounded(tag: Tag) -> dict[str, Any]:
    return {
        "label": tag.label,
        "score": round(tag.score, 4),
        "start_s": round(tag.start_s, 4),
        "end_s": round(tag.end_s, 4),
    }


class Tagger:
    """A model, ready to tag recordings.

    Args:
        model: A name, the path of a model file, several of these with "+" between them, or None for the
            default model.
        threads: Of the network; None: as many as there are cores.
        engine: What computes the network: "onnx" (ONNX Runtime) or "openvino" (extra "openvino").
        precision: That it computes in: "f32", with OpenVINO also "bf16" or "f16"; None: "f32".

    Raises:
        ModelError: If the model is unknown, or its file damaged or too new; if several do not agree on
            labels, task, window and padding; or if there is no such engine or precision.
        MissingExtraError: If the engine is not installed.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        threads: int | None = None,
        engine: Engine = "onnx",
        precision: str | None = None,
    ) -> None:
        names = (None,) if model is None else registry.members(model)
        opened = (open_session(registry.find(name), threads, engine, precision) for name in names)
        sessions, infos = zip(*opened, strict=True)
        session = JointSession(sessions, infos) if len(sessions) > 1 else sessions[0]
        self._equip(session, joined(infos))

    def _equip(self, session: Any, info: ModelInfo) -> None:
        self.info = info
        self._session = session
        self._ears = [
            _Ear(front_end, name) for front_end, name in zip(info.front_ends, info.graph_inputs, strict=True)
        ]

    @classmethod
    def around(cls, session: Any, info: ModelInfo) -> Tagger:
        """A tagger around something other than a model file.

        Args:
            session: Has ``run(names, inputs)`` as an inference session of ONNX Runtime does, for the outputs
                "logits" and "embedding" of one window.
            info: Of what it runs.
        """
        tagger = cls.__new__(cls)
        tagger._equip(session, info)
        return tagger

    @classmethod
    def together(cls, taggers: Sequence[Tagger]) -> Tagger:
        """Several taggers as one, an ensemble: the mean of their logits.

        Raises:
            ModelError: If they do not agree on labels, task, window and padding.
        """
        sessions, infos = zip(*((one._session, one.info) for one in taggers), strict=True)
        session = JointSession(sessions, infos) if len(sessions) > 1 else sessions[0]
        return cls.around(session, joined(infos))

    def rewired(self, wrap: Callable[[Any], Any]) -> Tagger:
        """The same around another session.

        Args:
            wrap: Takes the session that runs now, gives the one to run; both as for :meth:`around`.
        """
        return self.around(wrap(self._session), self.info)

    def uncalibrated(self) -> Tagger:
        """The same without a calibration and thresholds: its scores are plain sigmoids, or a softmax."""
        return self.around(self._session, self.info.changed(calibration=None, threshold=None))

    @property
    def labels(self) -> tuple[str, ...]:
        """One per class, in the order of the scores."""
        return self.info.labels

    @property
    def sample_rate(self) -> int:
        """At which the model hears, in Hz.

        Raises:
            ModelError: If the model is an ensemble whose members hear at different rates.
        """
        rates = sorted({front_end.sample_rate for front_end in self.info.front_ends})
        if len(rates) > 1:
            raise ModelError(
                f"the members of {self.info.name} hear at {' and '.join(map(str, rates))} Hz, "
                "so one waveform cannot be cut for all of them: take models of one sample rate"
            )
        return rates[0]

    def tag(
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        over_windows: OverWindows | None = None,
    ) -> Result:
        """Says what is heard in a recording.

        Args:
            source: A path, "-" for standard input, or samples in [-1, 1], shape (time,) or (time, channel).
            sample_rate: Of the samples, in Hz; left out for files.
            window_s: Length of a window; by default the one that the model was made for.
            hop_s: From one window to the next; by default ``window_s``.
            over_windows: "max" or "mean"; by default the maximum where labels may co-occur, else the mean.

        Returns:
            Tags, scores, embedding and windows.

        Raises:
            AudioError: If the recording cannot be read, holds no samples, or NaN or infinite ones.
            ModelError: If window or hop are no usable lengths.
        """
        lengths = self._lengths(window_s, hop_s)
        pooling = over_windows or ("max" if self.info.task == "multi_label" else "mean")
        if pooling not in ("max", "mean"):
            raise ModelError(f"over_windows must be 'max' or 'mean', not {pooling!r}")
        warnings: tuple[str, ...] = ()
        path = None
        if isinstance(source, (str, os.PathLike)):
            if sample_rate is not None:
                raise AudioError(f"{os.fspath(source)}: a file knows its sample rate: leave sample_rate out")
            with open_audio(source) as stream:
                windows, duration_s = self._hear(stream.blocks(), stream.sample_rate, lengths)
                warnings, rate, path = tuple(stream.warnings), stream.sample_rate, os.fspath(source)
        else:
            waveform, rate = _samples(source, sample_rate)
            windows, duration_s = self._hear(_array_blocks(waveform, rate), rate, lengths)
        about = self.info.name, pooling, warnings, path
        calibrated = self.info.calibration is not None
        return Result(self.labels, windows, duration_s, rate, *about, calibrated, self.info.thresholds)

    def embed(
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
    ) -> Embeddings:
        """What the network makes of a recording before it names sounds: one vector a window.

        Args:
            source: As for :meth:`tag`.
            sample_rate: As for :meth:`tag`.
            window_s: Length of a window; by default the one that the model was made for.
            hop_s: From one window to the next; by default ``window_s``.

        Returns:
            Embeddings of the windows with their times, and their mean.

        Raises:
            AudioError: If the recording cannot be read, holds no samples, or NaN or infinite ones.
            ModelError: If window or hop are no usable lengths.
        """
        result = self.tag(source, sample_rate, window_s=window_s, hop_s=hop_s)
        return Embeddings(
            windows=np.stack([window.embedding for window in result.windows]),
            start_s=np.array([window.start_s for window in result.windows]),
            end_s=np.array([window.end_s for window in result.windows]),
            model=result.model,
            warnings=result.warnings,
            path=result.path,
        )

    def embed_windows(self, waveform: Floats, starts: Sequence[int], length: int) -> Floats:
        """Embeddings of chosen windows of a waveform, for those who cut windows by a rule of their own.

        Args:
            waveform: float32 in [-1, 1], shape (time,), at the rate of the model's front-end.
            starts: First sample of each window.
            length: Samples in each window.

        Returns:
            float32, shape (window, channel).

        Raises:
            AudioError: If a window does not lie within the waveform or is shorter than the front-end needs,
                or the waveform holds NaN or infinite samples.
            ModelError: If the model is an ensemble whose members hear at different rates, or takes windows of
                another length only.
        """
        _ = self.sample_rate  # there is but one
        self._require_window((length,) * len(self._ears))
        heard = zip(*(ear.windows(waveform, starts, length) for ear in self._ears), strict=True)
        return np.stack([self._answer(given)[1] for given in heard])

    def _lengths(self, window_s: float | None, hop_s: float | None) -> list[tuple[int, int]]:
        """Window and hop in samples of each front-end, at all of them equally long."""
        info = self.info
        window_s = info.window_s if window_s is None else window_s
        hop_s = window_s if hop_s is None else hop_s
        if not info.shortest_s <= window_s <= LONGEST_WINDOW_S:
            raise ModelError(
                f"a window of {window_s:g} s is not possible: "
                f"{info.shortest_s:.3f} to {LONGEST_WINDOW_S:g} s are"
            )
        if not 1 / info.ticks_per_s <= hop_s < float("inf"):
            raise ModelError(
                f"a hop of {hop_s:g} s is no step forward: give at least {1 / info.ticks_per_s:g} seconds"
            )
        self._require_window(info.samples(window_s))
        return list(zip(info.samples(window_s), info.samples(hop_s), strict=True))

    def _require_window(self, samples: tuple[int, ...]) -> None:
        info = self.info
        if info.fixed_window and samples != info.samples(info.window_s):
            raise ModelError(
                f"{info.name} was exported for windows of {info.window_s:g} s and takes no others: "
                "leave the window out, or export the model again for any length"
            )

    def _hear(
        self, blocks: Iterable[Floats], sample_rate: int, lengths: list[tuple[int, int]]
    ) -> tuple[tuple[Window, ...], float]:
        num_samples = 0

        def counted() -> Iterator[Floats]:
            nonlocal num_samples
            for block in blocks:
                num_samples += block.size
                yield block

        streams = tee(counted(), len(self._ears))  # holds what one ear has heard and another has not yet
        heard = [
            ear.hear(stream, sample_rate, *own, self.info.padding)
            for ear, stream, own in zip(self._ears, streams, lengths, strict=True)
        ]
        rate, (length, _) = self._ears[0].front_end.sample_rate, lengths[0]
        answers = []
        # Not strict: a recording that ends within a sample of a window's end may have one more at some rate.
        for windows in _ahead(zip(*heard, strict=False)):
            logits, embedding = self._answer([given for _, given in windows])
            answers.append((windows[0][0], self._scores(logits), embedding))
        duration_s = num_samples / sample_rate
        windows_heard = tuple(
            Window(start / rate, min((start + length) / rate, duration_s), scores, embedding)
            for start, scores, embedding in answers
        )
        return windows_heard, duration_s

    def _answer(self, given: Sequence[Floats]) -> tuple[Floats, Floats]:
        """Logits (class,) and embedding (channel,) of one window, given for each front-end."""
        inputs = {ear.graph_input: one[None] for ear, one in zip(self._ears, given, strict=True)}
        logits, embedding = self._session.run(["logits", "embedding"], inputs)
        return logits[0], embedding[0]

    def _scores(self, logits: Floats) -> Floats:
        calibration = self.info.calibration
        if calibration is not None:
            return calibration.probabilities(logits)
        return uncalibrated(logits, self.info.task)


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made while the one before is worked on.

    The first two are not, so that no thread has to start for a recording of one window.
    """
    item, coming = next(items, None), next(items, None)
    if item is not None:
        yield item
    if coming is None:
        return
    with ThreadPoolExecutor(1, "hearing") as thread:
        while coming is not None:
            item, following = coming, thread.submit(next, items, None)
            yield item
            coming = following.result()


class _Ear:
    """A front-end at work: makes of a recording's windows what one input of the graph takes.

    Args:
        front_end: What it computes.
        graph_input: Name of the input.
    """

    def __init__(self, front_end: AnyFrontEnd, graph_input: str) -> None:
        self.front_end, self.graph_input = front_end, graph_input
        features = LogMel(front_end) if isinstance(front_end, FrontEnd) else WaveformWindows()
        self.windows: Callable[[Floats, Sequence[int], int], Floats] = features.windows

    def hear(
        self, blocks: Iterable[Floats], sample_rate: int, length: int, hop: int, padding: Padding
    ) -> Iterator[tuple[int, Floats]]:
        """The first sample of each window, at the front-end's rate, and what is made of it."""
        resampled = resample_blocks(blocks, sample_rate, self.front_end.sample_rate)
        # as many as overlap: more would take memory only
        together = min(-(-length // hop), WINDOWS_PER_CHUNK)
        for chunk in window_chunks(resampled, length, hop, padding, together):
            made = self.windows(chunk.waveform, chunk.starts, length)
            for start, one in zip(chunk.starts, made, strict=True):
                yield chunk.first_sample + start, one


def open_session(
    path: os.PathLike[str], threads: int | None = None, engine: str = "onnx", precision: str | None = None
) -> tuple[Any, ModelInfo]:
    """Opens a model file for those who hear by themselves.

    Args:
        path: The file.
        threads: Of the network; None: as many as there are cores.
        engine: As for :class:`Tagger`.
        precision: As for :class:`Tagger`.

    Returns:
        A session (:mod:`earmark.inference.engines`), from the model's ``graph_inputs`` to "logits" and
        "embedding", and the model's info.

    Raises:
        ModelError: If the file is missing, damaged or too new, or there is no such engine or precision.
        MissingExtraError: If the engine is not installed.
    """
    content, info = read_model_file(path)
    return open_engine(content, path, threads=threads, engine=engine, precision=precision), info


def _samples(source: ArrayLike, sample_rate: int | None) -> tuple[Floats, int]:
    if sample_rate is None:
        raise AudioError("samples were given without their sample rate: tag(samples, sample_rate)")
    values = np.asarray(source)
    if values.dtype.kind == "i":
        values = values / np.float32(-float(np.iinfo(values.dtype).min))
    if values.dtype.kind != "f" or values.ndim not in (1, 2):
        raise AudioError(
            "samples must be numbers in [-1, 1] of shape (time,) or (time, channel), "
            f"not {values.dtype} {values.shape}"
        )
    if values.ndim == 2:
        if values.shape[1] > values.shape[0]:
            raise AudioError(
                f"samples of shape {values.shape} have more channels than samples: give (time, channel)"
            )
        values = values.mean(1)
    waveform = np.ascontiguousarray(values, np.float32)
    check_finite(waveform, 0, sample_rate, "samples")
    return waveform, sample_rate


def _array_blocks(waveform: Floats, sample_rate: int) -> Iterator[Floats]:
    size = max(1, round(BLOCK_S * sample_rate))
    for start in range(0, len(waveform), size):
        yield waveform[start : start + size]
