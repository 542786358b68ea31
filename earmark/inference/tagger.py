"""Tags recordings with a model: scores, tags and embeddings of windows and of whole recordings.

Conventions: waveforms are float32 in [-1, 1]; scores lie in [0, 1] and are probabilities only if the model is
calibrated; times are seconds from the start of the recording. Recordings are processed as a stream, so memory
does not grow with their length, and the network takes one window at a time. The file is long because the
public methods of the one class are documented in full.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import EarmarkError, ModelError, contained
from earmark.events.online import OnlineDetector, listen_lengths
from earmark.events.options import EventOptions
from earmark.inference.embeddings import Embeddings
from earmark.inference.engines import Session
from earmark.inference.feature_extractor import FeatureExtractor, FeatureWindow
from earmark.inference.lengths import Lengths, WindowLength, require_window, whole_recording, window_and_hop
from earmark.inference.listener import Listener
from earmark.inference.pooling import Pooling, check_pooling
from earmark.inference.processes import require_portable
from earmark.inference.read_ahead import read_ahead
from earmark.inference.recording import FilePath, Recording, Source, checked_blocks
from earmark.inference.result import Result
from earmark.inference.window_store import Window, WindowStore
from earmark.model_file.calibration import uncalibrated_scores
from earmark.model_file.info import ModelInfo

Floats = NDArray[np.float32]

WINDOWS_AHEAD = 4
"""Windows that :meth:`Tagger.tag_many` decodes ahead of the network."""


class Tagger:
    """A model that tags recordings; :func:`earmark.load` opens one.

    Args:
        session: Runs the network: ``run(names, inputs)`` returns the outputs "logits" (batch, class) and
            "embedding" (batch, channel) for a batch of features.
        info: Description of the model.
    """

    def __init__(self, session: Session, info: ModelInfo) -> None:
        self.session, self.info = session, info
        self._extractor = FeatureExtractor(info.front_end)

    def __reduce__(self) -> tuple[type[Tagger], tuple[Session, ModelInfo]]:
        """Pickles the names or paths of the models and the options that they were opened with."""
        require_portable(getattr(self.session, "sessions", (self.session,)), self.info.name)
        return type(self), (self.session, self.info)

    def with_session(self, session: Session) -> Tagger:
        """Returns a tagger of the same model that runs another session."""
        return Tagger(session, self.info)

    def uncalibrated(self) -> Tagger:
        """Returns the tagger without calibration and thresholds: scores are plain sigmoids, or a softmax."""
        plain = self.info.changed(calibration=None, threshold=None, threshold_rule="")
        return type(self)(self.session, plain)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the classes, in the order of the scores."""
        return self.info.labels

    @property
    def sample_rate(self) -> int:
        """Sample rate of the model in Hz; audio at other rates is resampled."""
        return self.info.front_end.sample_rate

    def tag(
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        window_s: WindowLength = None,
        hop_s: float | None = None,
        pooling: Pooling | None = None,
    ) -> Result:
        """Tags one recording.

        Args:
            source: A path, "-" for standard input, an open recording (:func:`earmark.audio.open_audio`), or
                samples in [-1, 1], shape (time,) or (time, channel).
            sample_rate: Sample rate of the samples in Hz; must be omitted for files.
            window_s: Length of a window in seconds, or "whole": the recording is one window, of up to 600 s;
                default: the length that the model was trained for.
            hop_s: Hop between windows in seconds; default: ``window_s``.
            pooling: "max" or "mean" of the windows' scores; default: "max" for multi-label models, "mean"
                for single-label models.

        Returns:
            The result: tags, scores, embedding and windows.

        Raises:
            AudioError: If the recording cannot be read, or has no samples, NaN or infinite samples.
            ModelError: If window_s, hop_s or pooling is out of range.
        """
        lengths, pooling = self._plan(window_s, hop_s), check_pooling(pooling, self.info.task)
        recording = Recording(source, sample_rate)
        windows = self._outputs(recording.windows(self._extractor, *lengths, self.info.padding))
        store = WindowStore()
        for window in windows:
            store.append(window)
        return self._result(store.windows(), recording, pooling, lengths)

    def tag_many(
        self,
        paths: Iterable[FilePath | EarmarkError],
        *,
        window_s: WindowLength = None,
        hop_s: float | None = None,
        pooling: Pooling | None = None,
        progress: Callable[[str, float, float | None], object] | None = None,
    ) -> Iterator[Result | EarmarkError]:
        """Tags files, decoding the next ones in a thread while the network works on the present one.

        Args:
            paths: Paths of the files, read as they are needed; errors among them are passed on.
            window_s: As for :meth:`tag`.
            hop_s: As for :meth:`tag`.
            pooling: As for :meth:`tag`.
            progress: Called for each window, from the thread that decodes: path, end of the window in
                seconds, and the duration that the file states in seconds, or None.

        Yields:
            For each path, in order, its result, or the error if the file cannot be tagged.

        Raises:
            ModelError: If window_s, hop_s or pooling is out of range.
        """
        lengths = self._plan(window_s, hop_s)
        return self._tag_many(
            self._read_many(paths, lengths, progress), lengths, check_pooling(pooling, self.info.task)
        )

    def stream(
        self,
        blocks: Iterable[ArrayLike],
        sample_rate: int,
        *,
        window_s: WindowLength = None,
        hop_s: float | None = None,
    ) -> Iterator[Window]:
        """Tags a stream, window by window.

        Args:
            blocks: Consecutive samples in [-1, 1], each block of shape (time,) or (time, channel), any sizes.
            sample_rate: Sample rate of the blocks in Hz.
            window_s: As for :meth:`tag`.
            hop_s: As for :meth:`tag`.

        Yields:
            Each window before the next block is asked for, as soon as its samples are there; at the end of
            the stream the last window, which ends with it. The windows are those of :meth:`tag`.

        Raises:
            AudioError: If the stream has no samples, NaN or infinite samples.
            ModelError: If window_s or hop_s is out of range.
        """
        length, hop = self._plan(window_s, hop_s)
        checked = checked_blocks(blocks, sample_rate)
        groups = self._extractor.stream(checked, sample_rate, length, hop, self.info.padding)
        return (window for group in groups for window in self._outputs(group))

    def listen(
        self,
        sample_rate: int,
        options: EventOptions | None = None,
        *,
        window_s: float | None = None,
        hop_s: float | None = None,
        gate_db: float | None = None,
    ) -> Listener:
        """Opens a listener, which detects events in a stream while it lasts.

        At the default lengths, what sounds or falls silent is noticed within 2 s.

        Args:
            sample_rate: Sample rate of the stream in Hz.
            options: How events are detected; default: the model's own thresholds.
            window_s: Length of a window in seconds; default: 1 s, or the model's if it takes no other.
            hop_s: Hop between windows in seconds; default: half of the window, but at most 0.5 s.
            gate_db: Windows of a lower level, the root mean square in dB relative to full scale, are not
                passed to the network: all scores are 0. Default: no gate.

        Raises:
            AudioError: If the sample rate is not possible.
            ModelError: If a length or an option is out of range.
        """
        lengths_s = listen_lengths(window_s, hop_s, self.info.window_s, self.info.fixed_window)
        length, hop = self._lengths(*lengths_s)
        if gate_db is not None and not -200 <= gate_db <= 0:
            raise ModelError(f"gate_db must be between -200 and 0, got {gate_db:g}")
        resolved = (options or EventOptions()).resolved(self.info.thresholds)
        hop_s, window_s = hop / self.sample_rate, length / self.sample_rate
        return Listener(
            lambda: self._extractor.open(sample_rate, length, hop, self.info.padding),
            lambda window: self._scores(self._run(window.features)[0][0]),
            OnlineDetector(self.labels, resolved, max(hop_s, window_s)),
            sample_rate,
            (window_s, hop_s),
            gate_db,
        )

    def embed(
        self,
        source: Source,
        sample_rate: int | None = None,
        *,
        window_s: WindowLength = None,
        hop_s: float | None = None,
    ) -> Embeddings:
        """Computes the embeddings of one recording, one vector per window.

        Args:
            source: As for :meth:`tag`.
            sample_rate: As for :meth:`tag`.
            window_s: As for :meth:`tag`.
            hop_s: As for :meth:`tag`.

        Returns:
            Embeddings of the windows with their times, and their mean.

        Raises:
            AudioError: If the recording cannot be read, or has no samples, NaN or infinite samples.
            ModelError: If window_s or hop_s is out of range.
        """
        return Embeddings.from_result(self.tag(source, sample_rate, window_s=window_s, hop_s=hop_s))

    def embed_windows(self, waveform: Floats, starts: Sequence[int], length: int) -> Floats:
        """Computes the embeddings of chosen windows of a waveform.

        Args:
            waveform: float32 in [-1, 1], shape (time,), at :attr:`sample_rate`.
            starts: First sample of each window.
            length: Samples of each window.

        Returns:
            float32, shape (window, channel).

        Raises:
            AudioError: If a window is not within the waveform or shorter than the front-end needs, or the
                waveform has NaN or infinite samples.
            ModelError: If the model takes only windows of another length.
        """
        require_window(self.info, length)
        features = self._extractor.windows(waveform, starts, length)
        return np.stack([self._run(one)[1] for one in features])

    def _tag_many(
        self,
        read: Generator[FeatureWindow | Recording | EarmarkError, None, None],
        lengths: Lengths,
        pooling: Pooling,
    ) -> Iterator[Result | EarmarkError]:
        windows = WindowStore()
        failure: Exception | None = None
        with closing(read_ahead(read, WINDOWS_AHEAD)) as items:
            for item in items:
                if isinstance(item, EarmarkError):
                    yield item
                elif isinstance(item, Recording):
                    if failure is not None:
                        yield contained(failure, str(item.path))
                    else:
                        yield self._result(windows.windows(), item, pooling, lengths)
                elif failure is None:
                    try:
                        for window in self._windows(item):
                            windows.append(window)
                    except Exception as error:
                        failure = error
                if not isinstance(item, FeatureWindow):
                    windows, failure = WindowStore(), None

    def _read_many(
        self,
        paths: Iterable[FilePath | EarmarkError],
        lengths: Lengths,
        progress: Callable[[str, float, float | None], object] | None,
    ) -> Generator[FeatureWindow | Recording | EarmarkError, None, None]:
        """The windows of each file, and behind them the file itself, or the error that ended it."""
        for path in paths:
            if isinstance(path, EarmarkError):
                yield path
                continue
            try:
                recording = Recording(path)
                for window in recording.windows(self._extractor, *lengths, self.info.padding):
                    if progress is not None:
                        progress(os.fspath(path), window.end_s, recording.stated_s)
                    yield window
                yield recording
            except Exception as error:
                yield contained(error, os.fspath(path))

    def _outputs(self, windows: Generator[FeatureWindow, None, None]) -> Iterator[Window]:
        with closing(read_ahead(windows)) as features:
            for one in features:
                yield from self._windows(one)

    def _windows(self, window: FeatureWindow) -> Iterator[Window]:
        """The windows of a result that come from one window of the network."""
        logits, embedding = self._run(window.features)
        yield Window(window.start_s, window.end_s, self._scores(logits[0]), embedding)

    def _scores(self, logits: Floats) -> Floats:
        """Scores of logits, (..., class)."""
        calibration = self.info.calibration
        return (
            calibration.probabilities(logits) if calibration else uncalibrated_scores(logits, self.info.task)
        )

    def _run(self, features: Floats, output: str = "logits") -> tuple[Floats, Floats]:
        """Logits (row, class), or another output like them, and embedding (channel,) of one window."""
        inputs, name = {self.info.graph_input: features[None]}, self.info.name
        logits, embedding = self.session.run([output, "embedding"], inputs)
        if logits.ndim != 2 or logits.shape[1] != len(self.labels):
            raise ModelError(
                f"model {name} has {len(self.labels)} labels, its graph returned logits of shape "
                f"{logits.shape}: export it again"
            )
        if np.isnan(logits).any() or not np.isfinite(embedding).all():
            raise ModelError(f"model {name} returned NaN or infinite numbers: are its weights damaged?")
        return logits, embedding[0]

    def _result(
        self, windows: Sequence[Window], recording: Recording, pooling: Pooling, lengths: Lengths
    ) -> Result:
        return Result(
            labels=self.labels,
            windows=windows,
            duration_s=recording.duration_s,
            sample_rate=recording.sample_rate,
            model=self.info.name,
            pooling=pooling,
            warnings=recording.warnings,
            path=recording.path,
            calibrated=self.info.calibration is not None,
            thresholds=self.info.thresholds,
            hop_s=lengths.hop / self.sample_rate if lengths.window else None,
        )

    def _plan(self, window_s: WindowLength, hop_s: float | None) -> Lengths:
        if window_s == "whole":
            return whole_recording(self.info, hop_s)
        return Lengths(*self._lengths(window_s, hop_s))

    def _lengths(self, window_s: float | None, hop_s: float | None) -> tuple[int, int]:
        return window_and_hop(self.info, window_s, hop_s)
