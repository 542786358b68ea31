"""Scores along a window from one pass of the network: the classifier on pieces of the last feature map.

A network pools its last feature map over the whole window before it classifies. Pooled over pieces of about a
second instead, the same map gives scores along time, at the cost of one window: those of overlapping windows
as long as a piece, which know what sounds around them.

    from earmark.inference.local_scores import with_local_scores

    result = with_local_scores(earmark.load()).tag("street.wav")
    result.events()

Conventions: a step is one position of the feature map along time; the steps of a window share it evenly. A
piece is some consecutive steps, and the next piece starts a step later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError
from earmark.events.windows import event_lengths
from earmark.features.front_end import FrontEnd
from earmark.inference.engines import Session
from earmark.inference.feature_extractor import FeatureWindow
from earmark.inference.lengths import Lengths
from earmark.inference.pooling import Pooling
from earmark.inference.processes import OpenedSession
from earmark.inference.recording import Recording
from earmark.inference.result import Result
from earmark.inference.tagger import Tagger
from earmark.inference.window_store import Window
from earmark.model_file.info import ModelInfo
from earmark.model_file.subgraph import SplitGraph

Floats = NDArray[np.float32]

_LOCAL = "local_logits"
WINDOW_S = 5.0
"""Default window in seconds, if the model was not trained for a shorter one. This and the next two numbers
were chosen on synthetic scenes: docs/research/events.md."""
PIECE_S = 1.25
"""Length of a piece in seconds."""
MIN_THRESHOLD = 0.5
"""Lowest threshold: a sound fills more of a piece than of a window, so that its scores are higher."""


class LocalSession:
    """Runs a model cut in two; besides its outputs it has "local_logits", for a batch of one window.

    Args:
        split: The model.
        open_part: Opens a session that runs a part of it.
        seconds_per_position: Length of sound behind one position of the input's last axis.
    """

    def __init__(
        self, split: SplitGraph, open_part: Callable[[bytes], Session], seconds_per_position: float
    ) -> None:
        self._body, self._head = open_part(split.body), open_part(split.head)
        self._feature_map, self._axis = split.feature_map, split.time_axis
        self._seconds_per_position = seconds_per_position

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes the named outputs; local logits are (step, class), those of the piece around each step."""
        if _LOCAL not in names:
            return self._body.run(names, inputs)
        others = [name for name in names if name != _LOCAL]
        *outputs, features = self._body.run([*others, self._feature_map], inputs)
        steps = features.shape[self._axis]
        [positions] = {values.shape[-1] for values in inputs.values()}
        count = piece_steps(steps, positions * self._seconds_per_position)
        pieces = np.lib.stride_tricks.sliding_window_view(features[0], count, self._axis - 1)
        pieces = np.moveaxis(np.moveaxis(pieces, self._axis - 1, 0), -1, self._axis)
        [logits] = self._head.run(["logits"], {self._feature_map: np.ascontiguousarray(pieces)})
        first_steps = np.clip(np.arange(steps) - count // 2, 0, steps - count)
        outputs.insert(list(names).index(_LOCAL), logits[first_steps])
        return outputs


class LocalTagger(Tagger):
    """A tagger whose windows are the pieces of each window of its network; from :func:`with_local_scores`."""

    def _windows(self, window: FeatureWindow) -> Iterator[Window]:
        logits, embedding = self._run(window.features, _LOCAL)
        scores, steps = self._scores(logits), len(logits)
        length_s = window.features.shape[-1] * seconds_per_position(self.info)
        step_s, count = length_s / steps, piece_steps(steps, length_s)
        for first in range(steps - count + 1):
            start_s = window.start_s + first * step_s
            if not first or start_s + step_s / 2 < window.end_s:  # behind it is padding
                end_s = min(start_s + count * step_s, window.end_s)
                yield Window(start_s, end_s, scores[first + count // 2], embedding)

    def _lengths(self, window_s: float | None, hop_s: float | None) -> tuple[int, int]:
        return super()._lengths(min(WINDOW_S, self.info.window_s) if window_s is None else window_s, hop_s)

    def _result(
        self, windows: Sequence[Window], recording: Recording, pooling: Pooling, lengths: Lengths
    ) -> Result:
        hop_s = windows[1].start_s - windows[0].start_s if len(windows) > 1 else None
        return replace(super()._result(windows, recording, pooling, lengths), hop_s=hop_s)


def with_local_scores(tagger: Tagger) -> Tagger:
    """Returns a tagger of the same model whose results have scores about every 0.3 s.

    Its windows are pieces of about a second of the windows that the network takes. Their embeddings are those
    of the whole window. Its thresholds are the model's own, but at least ``MIN_THRESHOLD``.

    Raises:
        ModelError: If the model is an ensemble or a checkpoint, does not pool a feature map over time, or
            takes windows of one length only.
    """
    open_local = getattr(tagger.session, "open_local", None)
    if open_local is None:
        raise ModelError(
            f"{tagger.info.name}: local scores need a single model file: use overlapping windows"
        )
    info = tagger.info
    if info.thresholds is not None:
        raised = tuple(max(one, MIN_THRESHOLD) for one in info.thresholds)
        info = info.changed(
            threshold=raised, threshold_rule=f"{info.threshold_rule}; at least {MIN_THRESHOLD}"
        )
    return LocalTagger(OpenedSession(open_local(), open_local), info)


def finest_scores(tagger: Tagger) -> tuple[Tagger, float | None, float | None]:
    """Returns what events are found with by default: local scores, or overlapping windows without them.

    Args:
        tagger: The model.

    Returns:
        A tagger, its window and its hop in seconds; a hop of None is as long as the window.
    """
    try:
        return with_local_scores(tagger), min(WINDOW_S, tagger.info.window_s), None
    except ModelError:
        return tagger, *event_lengths(None, None, tagger.info.window_s, tagger.info.fixed_window)


def piece_steps(steps: int, window_s: float) -> int:
    """Steps of a piece: the number that is closest to ``PIECE_S``, at most all.

    Args:
        steps: Steps of a window.
        window_s: Length of the window in seconds.
    """
    return min(steps, max(1, round(PIECE_S * steps / window_s)))


def seconds_per_position(info: ModelInfo) -> float:
    """Length of sound behind one frame, or sample, of a model's input."""
    front_end = info.front_end
    return (front_end.hop_length if isinstance(front_end, FrontEnd) else 1) / front_end.sample_rate
