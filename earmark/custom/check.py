"""Checks own sounds before and during a fit: silent, clipped, short and unreadable clips, and copies.

Conventions: what would make the numbers wrong is left out (unreadable clips, copies, a clip in two classes);
what may be meant (quiet, clipped, short clips) is only named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.custom.dataset import Dataset
from earmark.custom.example import Example
from earmark.custom.features import Clip
from earmark.errors import DataError, EarmarkError, extra

QUIET_DB, CLIPPED_SHARE, SHORT_S = -60.0, 0.001, 0.2
"""Level below which a clip is nearly silent, share of clipped samples, and shortest duration."""
FEW_CLIPS = 4


@dataclass(frozen=True)
class Finding:
    """Something about a clip, a class or the dataset.

    Attributes:
        kind: "unreadable", "duplicate", "conflict", "quiet", "clipped", "short", "few", "suspect" or "input".
        text: In a line.
    """

    kind: str
    text: str


def check_clips(dataset: Dataset, clips: Sequence[Clip | EarmarkError]) -> tuple[list[int], list[Finding]]:
    """Checks the clips of a dataset.

    Args:
        dataset: The dataset.
        clips: What is known about each example, or why it cannot be read.

    Returns:
        Indices of the examples that must be left out, and all findings.
    """
    findings = [Finding("input", problem) for problem in dataset.problems]
    dropped: set[int] = set()
    by_content: dict[str, list[int]] = defaultdict(list)
    for number, clip in enumerate(clips):
        if isinstance(clip, EarmarkError):
            dropped.add(number)
            findings.append(Finding("unreadable", str(clip)))
            continue
        by_content[clip.digest].append(number)
        findings += _levels(dataset.examples[number], clip)
    for same in by_content.values():
        if len(same) > 1:
            gone, finding = _copies(dataset.examples, same)
            dropped.update(gone)
            findings.append(finding)
    return sorted(dropped), findings


def _levels(example: Example, clip: Clip) -> list[Finding]:
    found = []
    level = 20 * np.log10(max(clip.rms, 1e-10))
    if level < QUIET_DB:
        found.append(Finding("quiet", f"{example.name}: nearly silent ({level:.0f} dB)"))
    if clip.clipped > CLIPPED_SHARE:
        found.append(Finding("clipped", f"{example.name}: clipped ({clip.clipped:.1%} of the samples)"))
    if clip.duration_s < SHORT_S:
        found.append(Finding("short", f"{example.name}: very short ({clip.duration_s:.2f} s)"))
    return found


def _copies(examples: Sequence[Example], same: Sequence[int]) -> tuple[Sequence[int], Finding]:
    names = ", ".join(examples[number].name for number in same)
    if len({frozenset(examples[number].labels) for number in same}) > 1:
        labels = ", ".join(sorted({" + ".join(examples[number].labels) or "background" for number in same}))
        text = f"{names}: the same clip with different labels ({labels}): all are left out"
        return same, Finding("conflict", text)
    return same[1:], Finding("duplicate", f"{names}: the same clip {len(same)} times: one is used")


def check_classes(dataset: Dataset) -> list[Finding]:
    """Checks that there is something to tell apart.

    Raises:
        DataError: If there are no classes, or only one and no background.
    """
    counts = dataset.counts()
    background = counts.pop("", 0)
    if not counts:
        raise DataError(
            "no clip has a label: name the folders, or fill the column of labels, after the sounds"
        )
    if len(counts) == 1 and not background:
        raise DataError(
            f"there is only one class, {next(iter(counts))!r}: add a second one, or a folder background with "
            "clips in which the sound does not occur"
        )
    return [
        Finding(
            "few",
            f"class {label!r} has {count} clip{'s'[: count > 1]}: "
            + ("it cannot be tested" if count == 1 else f"at least {FEW_CLIPS} are better"),
        )
        for label, count in sorted(counts.items())
        if count < FEW_CLIPS
    ]


def label_suspects(
    examples: Sequence[Example],
    targets: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: Sequence[str],
) -> list[Finding]:
    """Finds clips whose label may be wrong, by confident learning on cross-validated scores.

    Source: Northcutt, Jiang and Chuang, Confident Learning, arXiv:1911.00068; the package cleanlab.

    Args:
        examples: The clips that were tested.
        targets: (clip, class); each clip of exactly one class.
        scores: Cross-validated scores, (clip, class).
        labels: One per class.

    Raises:
        MissingExtraError: If cleanlab is not installed.
    """
    with extra("label suspects of earmark fit --check", "fit"):
        from cleanlab.filter import find_label_issues
    given = targets.argmax(1)
    shares = scores / np.maximum(scores.sum(1, keepdims=True), 1e-9)
    found = find_label_issues(given, shares, return_indices_ranked_by="self_confidence", n_jobs=1)
    return [
        Finding(
            "suspect",
            f"{examples[number].name}: labelled {labels[given[number]]!r}, sounds like "
            f"{labels[int(scores[number].argmax())]!r} ({scores[number].max():.2f})",
        )
        for number in map(int, found)
        if scores[number].argmax() != given[number]
    ]
