"""Predictions of a tagger for the clips of a manifest.

Conventions: a clip that cannot be read does not end a run; it is listed with the reason, and has no scores.
Options and labels are checked before the first clip is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earmark.audio import pad
from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip
from earmark.errors import DataError, contained
from earmark.inference.pooling import Pooling, check_pooling, pool_logits
from earmark.inference.result import Result
from earmark.inference.tagger import Tagger
from earmark.model_file.info import LONGEST_WINDOW_S

Scores = NDArray[np.float32]
WindowMode = Literal["all", "whole", "center"]
"""Windows of a clip: all, one after the other; one that is the whole clip; or one from its centre."""

ClipPooling = Pooling | Literal["logits", "none"]
"""Pooling of a clip's windows: the highest or the mean of their scores, the score of their mean logit, or
none: each window counts as a clip of its own."""

_MAX_LISTED = 3


@dataclass(frozen=True)
class ClipLengths:
    """Limits of the length of clips, before they are cut into windows.

    Source: EfficientAT's evaluation on AudioSet cuts each clip after 10 s, or fills it up with zeros.

    Args:
        crop_to_s: Only the first seconds of longer clips; None: no limit.
        pad_to_s: Shorter clips are followed by silence, up to these seconds; None: no limit.

    Raises:
        DataError: If a length is not above 0, or longer than the longest window.
    """

    crop_to_s: float | None = None
    pad_to_s: float | None = None

    def __post_init__(self) -> None:
        for name, seconds in (("crop_to_s", self.crop_to_s), ("pad_to_s", self.pad_to_s)):
            if seconds is not None and not 0 < seconds <= LONGEST_WINDOW_S:
                raise DataError(f"{name} must be above 0 and at most {LONGEST_WINDOW_S:g}, got {seconds:g}")

    def apply(self, waveform: Scores, sample_rate: int) -> Scores:
        """Cuts or fills up a waveform.

        Args:
            waveform: Shape (time,), at least one sample.
            sample_rate: In Hz.

        Returns:
            Shape (time,).
        """
        if self.crop_to_s is not None:
            waveform = waveform[: max(1, round(self.crop_to_s * sample_rate))]
        return (
            waveform if self.pad_to_s is None else pad(waveform, round(self.pad_to_s * sample_rate), "zero")
        )


WHOLE_CLIPS = ClipLengths()
"""No limits."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a model for clips.

    Args:
        clips: Those that were processed, in the manifest's order.
        scores: Shape (clip, class).
        failed: Those that could not be processed, and why.
        warnings: Faults of those that were processed, one line each.
        windows: The scores of each clip's windows, (window, class).
    """

    clips: tuple[Clip, ...]
    scores: Scores
    failed: tuple[tuple[Clip, str], ...] = ()
    warnings: tuple[str, ...] = ()
    windows: tuple[Scores, ...] = ()


def select_clips(clips: Sequence[Clip], fold: int | None = None, limit: int | None = None) -> list[Clip]:
    """Selects clips of a manifest.

    Args:
        clips: Of the manifest.
        fold: Only those of this fold.
        limit: At most this many, evenly spread over the manifest.

    Raises:
        DataError: If none is left.
    """
    kept = [clip for clip in clips if fold is None or clip.fold == fold]
    if not kept:
        folds = ", ".join(map(str, sorted({clip.fold for clip in clips})))
        raise DataError(f"no clip of the manifest has fold {fold}: its folds are {folds}")
    if limit is None or limit >= len(kept):
        return kept
    return [kept[index * len(kept) // limit] for index in range(limit)]


def require_labels(clips: Sequence[Clip], labels: Sequence[str]) -> None:
    """Checks that a model has all labels of some clips.

    Raises:
        DataError: Naming the labels that it lacks.
    """
    known = set(labels)
    used = list(dict.fromkeys(label for clip in clips for label in clip.labels + clip.unknown))
    missing = [label for label in used if label not in known]
    if missing and len(missing) == len(used):
        raise DataError(
            f"none of the manifest's labels ({listed(used)}) is a label of the model ({listed(labels)})"
        )
    if missing:
        near = get_close_matches(missing[0], labels, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        count = "a label" if len(missing) == 1 else f"{len(missing)} labels"
        raise DataError(f"the manifest has {count} that the model does not have: {listed(missing)}{guess}")


def listed(names: Sequence[str]) -> str:
    """The first names of a list, for a message."""
    return ", ".join(map(repr, names[:_MAX_LISTED])) + (", ..." if len(names) > _MAX_LISTED else "")


def predict_clips(
    tagger: Tagger,
    clips: Sequence[Clip],
    *,
    windows: WindowMode = "all",
    pooling: ClipPooling | None = None,
    hop_s: float | None = None,
    lengths: ClipLengths = WHOLE_CLIPS,
    before: Callable[[Clip], object] = lambda clip: None,
    on_error: Callable[[str], object] = lambda reason: None,
) -> Predictions:
    """Tags clips, one after the other.

    Args:
        tagger: Of the model.
        clips: Of a manifest, a corpus or a pack.
        windows: "all": one window after the other; "whole": one window as long as the clip; "center": one
            window from the clip's centre.
        pooling: Of the windows' scores, "max" or "mean"; "logits": the score of their mean logit; "none":
            each window becomes a clip of its own, named after the clip and its number; default: that of the
            model's task.
        hop_s: Hop between windows in seconds, for "all" only; None: the model's window.
        lengths: Limits of the clips' lengths.
        before: Called with each clip before it is read.
        on_error: Called with the reason when a clip cannot be processed.

    Raises:
        DataError: If there is a hop between windows that do not follow each other, or it is out of range.
    """
    if hop_s is not None and windows != "all":
        raise DataError(f"a hop is between windows that follow each other, and windows is {windows!r}")
    if hop_s is not None and not 1 / tagger.sample_rate <= hop_s <= LONGEST_WINDOW_S:
        raise DataError(f"hop_s must be above 0 and at most {LONGEST_WINDOW_S:g}, got {hop_s:g}")
    by_scores = None if pooling in ("logits", "none") else check_pooling(pooling, tagger.info.task)
    done: list[tuple[Clip, Result]] = []
    failed: list[tuple[Clip, str]] = []
    for clip in clips:
        before(clip)
        try:
            result = _tag(tagger, clip, windows, by_scores, lengths, hop_s)
        except Exception as error:
            failed.append((clip, str(contained(error, str(clip.path)))))
            on_error(failed[-1][1])
            continue
        done.append((clip, result))
    pooled = [_by_logits(result, tagger) if pooling == "logits" else result.scores for _, result in done]
    scores = np.array(pooled, np.float32)
    found = Predictions(
        clips=tuple(clip for clip, _ in done),
        scores=scores.reshape(len(done), len(tagger.labels)),
        failed=tuple(failed),
        warnings=tuple(_named(warning, clip) for clip, result in done for warning in result.warnings),
        windows=tuple(np.stack([window.scores for window in result.windows]) for _, result in done),
    )
    return _each_window(found) if pooling == "none" else found


def _each_window(found: Predictions) -> Predictions:
    """Predictions with a clip for each window."""
    clips = [
        replace(clip, extra={**clip.extra, "id": f"{clip.id}#{number}"})
        for clip, own in zip(found.clips, found.windows, strict=True)
        for number in range(1, len(own) + 1)
    ]
    scores = np.concatenate(found.windows) if clips else found.scores
    return replace(found, clips=tuple(clips), scores=scores, windows=tuple(scores[:, None]))


def _named(warning: str, clip: Clip) -> str:
    """A warning of a result that names the clip, also where its samples were passed to the tagger."""
    return f"{clip.path}: {warning.removeprefix('samples: ')}" if warning.startswith("samples: ") else warning


def _by_logits(result: Result, tagger: Tagger) -> Scores:
    return pool_logits(np.stack([window.scores for window in result.windows]), tagger.info.task)


def _tag(
    tagger: Tagger,
    clip: Clip,
    windows: WindowMode,
    pooling: Pooling | None,
    lengths: ClipLengths,
    hop_s: float | None,
) -> Result:
    if windows == "all" and clip.member is None and lengths == WHOLE_CLIPS:
        return tagger.tag(clip.path, hop_s=hop_s, pooling=pooling)
    rate = tagger.sample_rate
    waveform = lengths.apply(read_clip(clip, rate), rate)
    if windows == "all":
        return tagger.tag(waveform, rate, hop_s=hop_s, pooling=pooling)
    if windows == "center":
        length = round(tagger.info.window_s * rate)
        return tagger.tag(waveform[max(0, (len(waveform) - length) // 2) :][:length], rate)
    min_samples = tagger.info.front_end.min_samples
    return tagger.tag(waveform, rate, window_s=max(len(waveform), min_samples) / rate)
