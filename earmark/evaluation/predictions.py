"""Clips of a manifest through a tagger: the scores that a model is judged by.

Conventions: a clip that cannot be read ends nothing; it is named, and has no scores. What is asked for is
checked before the first clip is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip
from earmark.errors import DataError, EarmarkError
from earmark.inference.result import Result
from earmark.inference.tagger import Tagger

Scores = NDArray[np.float32]
Way = Literal["tagger", "windows", "whole", "center"]

FEW = 3
"""How many of what is wrong an error names."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of clips.

    Args:
        clips: Those that were heard, in the manifest's order.
        scores: Shape (clip, class).
        failed: Those that could not be heard, and why.
        warnings: What was odd about those that were heard, one line each.
        windows: The scores of each one's windows, (window, class).
    """

    clips: tuple[Clip, ...]
    scores: Scores
    failed: tuple[tuple[Clip, str], ...] = ()
    warnings: tuple[str, ...] = ()
    windows: tuple[Scores, ...] = ()


def choose(clips: Sequence[Clip], fold: int | None = None, limit: int | None = None) -> list[Clip]:
    """The clips to judge by.

    Args:
        clips: Of the manifest.
        fold: Only those of this fold.
        limit: At most so many, evenly spread over the manifest.

    Raises:
        DataError: If none is left.
    """
    kept = [clip for clip in clips if fold is None or clip.fold == fold]
    if not kept:
        folds = ", ".join(map(str, sorted({clip.fold for clip in clips})))
        raise DataError(f"no clip of the manifest has fold {fold}: it has {folds}")
    if limit is None or limit >= len(kept):
        return kept
    return [kept[index * len(kept) // limit] for index in range(limit)]


def require_labels(clips: Sequence[Clip], labels: Sequence[str]) -> None:
    """Refuses clips with labels that a model does not know.

    Raises:
        DataError: Naming the labels, or saying that none fits.
    """
    known = set(labels)
    named = list(dict.fromkeys(label for clip in clips for label in clip.labels + clip.unknown))
    strange = [label for label in named if label not in known]
    if strange and len(strange) == len(named):
        raise DataError(
            f"the manifest's labels ({_listed(named)}) are not the model's ({_listed(list(labels))}): "
            "none of them fits"
        )
    if strange:
        near = get_close_matches(strange[0], labels, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        count = "a label" if len(strange) == 1 else f"{len(strange)} labels"
        raise DataError(f"the manifest has {count} that the model does not know: {_listed(strange)}{guess}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:FEW])) + (", ..." if len(names) > FEW else "")


def answer(
    tagger: Tagger,
    clips: Sequence[Clip],
    way: Way = "tagger",
    *,
    before: Callable[[Clip], object] = lambda clip: None,
    complain: Callable[[str], object] = lambda reason: None,
) -> Answers:
    """Hears clips one by one.

    Args:
        tagger: Around the model.
        clips: Which.
        way: "tagger": windows as the tagger puts them together, the maximum of the scores where labels may
            co-occur and the mean where classes exclude each other. "windows": their mean, for every model.
            "whole": one pass over the whole clip. "center": one window from its middle.
        before: Called with each clip before it is heard.
        complain: Called, at once, with what was wrong with a clip.

    Raises:
        ModelError: If the way cannot be gone with this model.
    """
    if way in ("whole", "center"):
        _ = tagger.sample_rate  # an ensemble that hears at several rates is refused here, not at every clip
    heard: list[tuple[Clip, Scores]] = []
    windows: list[Scores] = []
    failed: list[tuple[Clip, str]] = []
    warnings: list[str] = []
    for clip in clips:
        before(clip)
        try:
            result = _hear(tagger, clip, way)
            if not np.isfinite(result.scores).all():
                raise DataError(f"{clip.path}: the model's answer is not a number")
        except (EarmarkError, OSError) as error:
            failed.append((clip, str(error)))
            complain(str(error))
            continue
        heard.append((clip, result.scores))
        windows.append(np.stack([window.scores for window in result.windows]))
        warnings += result.warnings
    scores = np.array([own for _, own in heard], np.float32).reshape(len(heard), len(tagger.labels))
    clips_heard = tuple(clip for clip, _ in heard)
    return Answers(clips_heard, scores, tuple(failed), tuple(warnings), tuple(windows))


def _hear(tagger: Tagger, clip: Clip, way: Way) -> Result:
    pooling: Literal["mean"] | None = "mean" if way == "windows" else None
    if way in ("tagger", "windows") and clip.member is None:
        return tagger.tag(clip.path, pooling=pooling)
    rate = tagger.sample_rate
    waveform = read_clip(clip, rate)
    if way in ("tagger", "windows"):
        return tagger.tag(waveform, rate, pooling=pooling)
    if way == "center":
        length = round(tagger.info.window_s * rate)
        return tagger.tag(waveform[max(0, (len(waveform) - length) // 2) :][:length], rate)
    shortest = tagger.info.front_end.min_samples
    return tagger.tag(waveform, rate, window_s=max(len(waveform), shortest) / rate)
