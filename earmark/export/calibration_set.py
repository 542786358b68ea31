"""Calibration sets for quantisation: inputs of a graph on real clips, and the metric of its outputs.

Conventions: inputs are those of one window, name -> (1, ...). A drop is how much worse the scores of a
changed graph are: the difference in accuracy (single-label models) or macro mAP (multi-label models); for
clips without labels the mean over clips of the largest difference of a score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from earmark.audio.find import find_recordings
from earmark.data.manifest import Clip, read_manifest, targets
from earmark.errors import AudioError, DataError
from earmark.evaluation.metrics import accuracy, average_precision, macro
from earmark.evaluation.predictions import listed, predict_clips, require_labels
from earmark.inference.engines import Session
from earmark.inference.pooling import default_pooling, pool_windows
from earmark.inference.tagger import Tagger
from earmark.model_file.calibration import uncalibrated_scores
from earmark.model_file.info import ModelInfo

Floats = NDArray[np.float32]
Inputs = Mapping[str, Floats]


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Inputs of a graph on some clips, and the clips' targets.

    Args:
        info: Model info of the graph.
        inputs: The inputs of each window.
        clip_numbers: Number of the clip of each window, shape (window,).
        targets: Shape (clip, class), 1 where a label applies; None for clips without labels.
    """

    info: ModelInfo
    inputs: tuple[Inputs, ...]
    clip_numbers: NDArray[np.int64]
    targets: Floats | None

    @property
    def metric(self) -> str:
        """Name of the metric: "accuracy", "mAP" or, without labels, "agreement"."""
        if self.targets is None:
            return "agreement"
        return "accuracy" if self.info.task == "single_label" else "mAP"

    @property
    def num_clips(self) -> int:
        """Number of clips."""
        return int(self.clip_numbers[-1] + 1)

    def scores(self, session: Session) -> Floats:
        """Scores of each clip, shape (clip, class), as a tagger with this session returns them."""
        logits = np.concatenate([session.run(["logits"], inputs)[0] for inputs in self.inputs])
        calibration, task = self.info.calibration, self.info.task
        windows = calibration.probabilities(logits) if calibration else uncalibrated_scores(logits, task)
        clips = (windows[self.clip_numbers == number] for number in range(self.num_clips))
        return np.stack([pool_windows(clip, default_pooling(task)) for clip in clips])

    def drop(self, before: Floats, after: Floats) -> float:
        """Drop of the metric between two sets of scores, (clip, class); at or below 0: no loss."""
        if self.targets is None:
            return float(np.abs(after - before).max(1).mean())
        return self._measure(before) - self._measure(after)

    def _measure(self, scores: Floats) -> float:
        assert self.targets is not None
        if self.metric == "mAP":
            return macro(average_precision(self.targets, scores))
        known = self.targets.any(1)  # accuracy is not defined for clips of no class
        return accuracy(self.targets[known], scores[known])


def find_clips(sources: Sequence[Path], info: ModelInfo, audio: Path | None = None) -> list[Clip]:
    """Reads the clips of a calibration set.

    Args:
        sources: Manifests (.csv); or recordings and folders of recordings, which have no labels.
        info: The model info.
        audio: Folder of the manifests' recordings; default: that of each manifest.

    Raises:
        AudioError: If a folder holds no recordings.
        DataError: If there are no clips, or no clip has one of the model's labels.
    """
    clips = []
    for source in sources:
        if source.suffix == ".csv":
            clips += read_manifest(source, audio)
        else:
            clips += [Clip(path, (), labelled=False) for path in _recordings(source)]
    if not clips:
        raise DataError(f"{', '.join(map(str, sources))}: no clips: give a manifest (.csv) or recordings")
    if any(clip.labelled for clip in clips):
        require_labels(clips, info.labels)
        used = {label for clip in clips for label in clip.labels}
        missing = [label for label in info.labels if label not in used]
        if missing:
            raise DataError(
                f"calibration needs clips of every label, there are none of {len(missing)} of "
                f"{len(info.labels)} ({listed(missing)}): add clips"
            )
    return clips


def _recordings(source: Path) -> Iterator[Path]:
    for found in find_recordings([source]):
        if isinstance(found, AudioError):
            raise found
        yield Path(found)


def collect(
    session: Session,
    info: ModelInfo,
    clips: Sequence[Clip],
    before: Callable[[Clip], object] = lambda clip: None,
) -> CalibrationSet:
    """Processes clips as a tagger does, and keeps the inputs of the graph.

    Args:
        session: Runs the graph.
        info: The model info.
        clips: From :func:`find_clips`.
        before: Called with each clip before it is read.

    Raises:
        DataError: If a clip cannot be read.
    """
    recorder = _Recorder(session)

    def start(clip: Clip) -> None:
        recorder.clip += 1
        before(clip)

    predict_clips(Tagger(recorder, info), clips, before=start, on_error=_fail)
    known = targets(clips, info.labels) if all(clip.labelled for clip in clips) else None
    return CalibrationSet(info, tuple(recorder.inputs), np.array(recorder.clips), known)


def _fail(reason: str) -> None:
    raise DataError(reason)


class _Recorder:
    """Runs a session and keeps its inputs."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.clip = -1
        self.inputs: list[Inputs] = []
        self.clips: list[int] = []

    def run(self, names: Sequence[str], inputs: Inputs) -> list[Floats]:
        for window in range(len(next(iter(inputs.values())))):
            self.inputs.append({name: values[window : window + 1] for name, values in inputs.items()})
            self.clips.append(self.clip)
        return self.session.run(names, inputs)
