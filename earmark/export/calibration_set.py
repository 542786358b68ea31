"""What a model hears of clips, kept so that other graphs of it can be judged by the same.

Conventions: a feed is what a graph is given of one window, name -> (1, ...). A loss is how much worse another
graph's scores are: with labels the drop in accuracy where classes exclude each other, else in macro mAP;
without labels the mean, over clips, of the largest difference of a score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.audio.find import find_recordings
from earmark.data.manifest import Clip, read_manifest, targets
from earmark.errors import AudioError, DataError
from earmark.evaluation.metrics import accuracy, average_precision, macro
from earmark.evaluation.predictions import FEW, answer, require_labels
from earmark.inference.tagger import Tagger
from earmark.model_file.calibration import uncalibrated_scores
from earmark.model_file.info import ModelInfo

Floats = NDArray[np.float32]
Feed = dict[str, Floats]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Windows of clips, and what is true of the clips.

    Args:
        info: Of the model that heard them.
        feeds: One for each window.
        clips: Number of each window's clip, shape (window,).
        truth: Shape (clip, class), 1 where a label is set; None where nobody knows.
    """

    info: ModelInfo
    feeds: tuple[Feed, ...]
    clips: NDArray[np.int64]
    truth: Floats | None

    @property
    def judged_by(self) -> str:
        """What a loss is a loss of."""
        if self.truth is None:
            return "agreement"
        return "accuracy" if self.info.task == "single_label" else "mAP"

    def scores(self, session: Any) -> Floats:
        """What a graph says of each clip, (clip, class); ``session`` has ``run(names, inputs)``."""
        logits = np.concatenate([session.run(["logits"], feed)[0] for feed in self.feeds])
        calibration, task = self.info.calibration, self.info.task
        windows = calibration.probabilities(logits) if calibration else uncalibrated_scores(logits, task)
        rows = [windows[self.clips == number] for number in range(self.clips[-1] + 1)]
        return np.stack([row.mean(0) if task == "single_label" else row.max(0) for row in rows])

    def loss(self, before: Floats, after: Floats) -> float:
        """How much worse scores are than those before, both (clip, class)."""
        if self.truth is None:
            return float(np.abs(after - before).max(1).mean())
        first, second = (self._metric(scores) for scores in (before, after))
        return first - second

    def _metric(self, scores: Floats) -> float:
        assert self.truth is not None
        if self.judged_by == "mAP":
            return macro(average_precision(self.truth, scores))
        known = self.truth.any(1)  # what belongs to no class is not told apart from it
        return accuracy(self.truth[known], scores[known])


def find_clips(sources: Sequence[Path], info: ModelInfo, audio: Path | None = None) -> list[Clip]:
    """The clips that sources name.

    Args:
        sources: Manifests (.csv); or recordings and folders of them, of which nobody knows what is heard.
        info: Of the model.
        audio: Folder of a manifest's recordings; by default its own.

    Raises:
        AudioError: If a folder holds no recording.
        DataError: If nothing is there, or manifests miss one of the model's labels.
    """
    clips = []
    for source in sources:
        if source.suffix == ".csv":
            clips += read_manifest(source, audio)
        else:
            clips += [Clip(path, (), labelled=False) for path in _recordings(source)]
    if not clips:
        raise DataError(f"{', '.join(map(str, sources))}: no clips: name a manifest (.csv) or recordings")
    if any(clip.labelled for clip in clips):
        require_labels(clips, info.labels)
        heard = {label for clip in clips for label in clip.labels}
        missed = [label for label in info.labels if label not in heard]
        if missed:
            named = ", ".join(map(repr, missed[:FEW])) + (", ..." if len(missed) > FEW else "")
            raise DataError(
                f"no clip has {len(missed)} of the {len(info.labels)} labels ({named}): what 8 bits are to "
                "span is measured on clips of every class"
            )
    return clips


def _recordings(source: Path) -> Iterator[Path]:
    for found in find_recordings([source]):
        if isinstance(found, AudioError):
            raise found
        yield Path(found)


def listen(
    session: Any, info: ModelInfo, clips: Sequence[Clip], before: Callable[[Clip], object] = lambda clip: None
) -> Evidence:
    """Hears clips as a tagger does, and keeps what the graph is given.

    Args:
        session: That runs the graph, as one of ONNX Runtime does.
        info: Of the model.
        clips: Of find_clips.
        before: Called with each clip before it is heard.

    Raises:
        DataError: If a clip cannot be heard.
    """
    recorder = _Recorder(session)

    def turn(clip: Clip) -> None:
        recorder.clip += 1
        before(clip)

    answer(Tagger(recorder, info), clips, before=turn, complain=_refuse)
    truth = targets(clips, info.labels) if all(clip.labelled for clip in clips) else None
    return Evidence(info, tuple(recorder.feeds), np.array(recorder.clips), truth)


def _refuse(reason: str) -> None:
    raise DataError(reason)


class _Recorder:
    """Runs a session and keeps what it was given."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.clip = -1
        self.feeds: list[Feed] = []
        self.clips: list[int] = []

    def run(self, names: Sequence[str], inputs: Any) -> Any:
        self.feeds.append(inputs)
        self.clips.append(self.clip)
        return self.session.run(names, inputs)
