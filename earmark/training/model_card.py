"""The model card: purpose, scores and training recordings of a network, as Markdown.

Conventions: every number comes from the cross-validation or the manifests; only the recipe's descriptions are
written by hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from earmark.data.manifest import Clip
from earmark.evaluation import metrics
from earmark.evaluation.calibration.report import markdown_section
from earmark.evaluation.evaluation import is_single_label
from earmark.training.config.evaluation import Evaluation
from earmark.training.config.recipe import Recipe
from earmark.training.cross_validation import CrossValidation
from earmark.training.splits import split_clips

MOST_CONFUSED = 64
"""Classes of the largest confusion table of a card."""
MOST_CREDITED = 10_000
"""Clips that a card lists one by one; longer lists are left to the manifests."""
MEASURED = {
    "accuracy": "accuracy {:.4f}",
    "map_macro": "macro mAP {:.4f}",
    "auroc_macro": "macro AUROC {:.4f}",
    "log_loss": "log loss {:.4f} nats (normalised scores)",
    "binary_log_loss": "log loss {:.4f} nats (binary, mean over classes)",
}
"""Metrics of a card, and how it states them."""
PRETRAINED = (
    "## Use\n\nPretrained without labels, as a start for other trainings and for embeddings. The head is not "
    "trained: the score of its one label means nothing.\n"
)
"""What the card of a pretrained network says in place of its labels."""
RECORDING = "recording"
"""Kind of an unlabelled clip whose author is credited."""


def model_card(recipe: Recipe, result: CrossValidation) -> str:
    """The model card of a network from :func:`~earmark.training.cross_validation.cross_validate`."""
    info = result.info
    used = [clip for group in split_clips(recipe, recipe.runs[-1]).groups for clip in group]
    sections = [
        f"# {recipe.name}\n\n{recipe.description}\n",
        _facts(recipe, result, used),
        _scores(result, recipe.evaluation) if len(result.clips) else "",
        _confusion(result) if len(result.clips) else "",
        markdown_section(result.calibration) if result.calibration else "",
        _negatives(recipe.evaluation, result) if result.negatives else "",
        f"## Labels\n\n{', '.join(info.labels)}\n" if recipe.contrastive is None else PRETRAINED,
        _attributions(used, pretrained=recipe.contrastive is not None),
    ]
    return "\n".join(section for section in sections if section)


def _facts(recipe: Recipe, result: CrossValidation, used: Sequence[Clip]) -> str:
    info = result.info
    labelled = sum(bool(clip.labels) for clip in used)
    without = sum(clip.labelled for clip in used) - labelled
    unknown = len(used) - labelled - without
    taught = f", and a teacher's predictions for {unknown} more" if unknown else ""
    clips = f"{labelled} labelled clips and {without} without any of the labels{taught}"
    if recipe.contrastive is not None:
        clips = f"{unknown} clips without labels"
    parameters = sum(parameter.numel() for parameter in result.network.parameters())
    return (
        f"- Network: {info.architecture}, {parameters:,} parameters; window {info.window_s} s, "
        f"shorter clips: {info.padding} padding\n"
        f"- Trained on: {clips}\n"
        f"- Method: {recipe.source}\n- Made by: `{recipe.command}`; {recipe.cost}\n"
        f"- Licence of the weights: {recipe.license}\n"
    )


def _scores(result: CrossValidation, settings: Evaluation) -> str:
    info, truth, scores = result.info, result.targets, result.scores
    found = info.metrics
    columns: dict[str, Sequence[str]] = {
        "label": info.labels,
        "clips": [str(count) for count in (truth > 0).sum(0)],
    }
    if is_single_label(truth):
        columns["accuracy"] = _decimals(metrics.class_accuracy(truth, scores))
    columns["average precision"] = _decimals(metrics.average_precision(truth, scores))
    if isinstance(info.threshold, int | float):  # thresholds per label are in the calibration section
        recalled = metrics.recall(truth, scores, info.threshold)
        columns[f"recall at threshold {info.threshold}"] = _decimals(recalled)
    folds = ", ".join(map(str, found["folds"]))
    method = (
        f"Cross-validation over folds {folds}: each of {found['clips']} clips was evaluated once, with a "
        "network trained on the other folds; scores are pooled."
        if len(found["folds"]) > 1
        else f"Evaluated on the {found['clips']} clips of fold {folds}, which were not trained on."
    )
    if settings.keep == "best":
        method += " The epoch was chosen on the same clips, so the scores are optimistic."
    return (
        f"## Scores\n\n{method}\n\n"
        + ", ".join(text.format(found[name]) for name, text in MEASURED.items() if name in found)
        + "\n\n"
        + _table(list(columns), zip(*columns.values(), strict=True))
    )


def _confusion(result: CrossValidation) -> str:
    """The confusion table of clips with one class each, unless it is too large."""
    truth, labels = result.targets, result.info.labels
    if len(labels) > MOST_CONFUSED or not is_single_label(truth):
        return ""
    table = metrics.confusion(truth, result.scores)
    return "Confusion (rows: truth, columns: highest score, in the order of the labels):\n\n" + _table(
        ("", *(str(number + 1) for number in range(len(table)))),
        [(f"{index + 1} {label}", *table[index]) for index, label in enumerate(labels)],
    )


def _negatives(settings: Evaluation, result: CrossValidation) -> str:
    threshold = min(result.info.thresholds or (0.0,))
    rows = [
        (
            group,
            len(scores),
            int((scores.astype(np.float64) >= threshold).sum()),
            f"{scores.max():.3f}",
            f"{np.median(scores):.3f}",
        )
        for group, scores in result.negatives.items()
    ]
    chosen = (
        f"The default threshold is {threshold:g}. It is the lowest, from {settings.min_threshold:g} up, that"
    )
    if isinstance(result.info.threshold, tuple):
        chosen = f"No label's threshold is below {threshold:g}, which"
    return (
        f"## Threshold\n\n{chosen} at most {settings.max_false_positive_rate:.1%} of each kind of clip "
        "without any of the labels reach; these were not trained on:\n\n"
        + _table(("kind", "clips", "reach it", "highest score", "median"), rows)
    )


def _attributions(used: Sequence[Clip], pretrained: bool) -> str:
    """Credits of the training recordings; generated clips are counted by kind.

    In contrastive pretraining (``pretrained``), each clip is a recording to credit.
    """
    credited = [clip for clip in used if clip.labels or pretrained]
    unlabelled = [clip for clip in used if not clip.labels and not pretrained]
    recorded = [clip for clip in unlabelled if clip.extra.get("kind") == RECORDING]
    generated: dict[str, int] = {}
    for clip in unlabelled:
        kind = clip.extra.get("kind", "") or "other"
        if kind != RECORDING:
            generated[kind] = generated.get(kind, 0) + 1
    rows = [
        (clip.path.name, *(clip.extra.get(key, "") for key in ("title", "author", "license", "source")))
        for clip in sorted(credited, key=lambda clip: clip.path.name)
    ]
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(generated.items()))
    text = "## Recordings trained on\n\n"
    if len(rows) > MOST_CREDITED:
        text += f"{len(rows)} recordings, listed in the manifests or the corpus that the recipe names.\n"
    else:
        text += _table(("clip", "title", "author", "licence", "source"), rows)
    if recorded:
        text += "\nUnlabelled, with a teacher's predictions, cut from:\n\n"
        text += _table(("source", "author", "licence", "titles"), _recordings(recorded))
    return text + (
        f"\nWithout any of the labels, generated or arranged for this purpose: {counts}.\n" if counts else ""
    )


def _recordings(clips: Iterable[Clip]) -> list[tuple[str, ...]]:
    """One row per author and package, which is the part of a source before its colon."""
    titles: dict[tuple[str, ...], dict[str, None]] = {}
    for clip in clips:
        facts = {key: clip.extra.get(key, "") for key in ("source", "author", "license", "title")}
        package = facts["source"].partition(":")[0]
        titles.setdefault((package, facts["author"], facts["license"]), {})[facts["title"]] = None
    return [(*key, ", ".join(names)) for key, names in sorted(titles.items())]


def _decimals(values: Iterable[float]) -> list[str]:
    """Numbers of a column; an empty cell where a class has no value."""
    return ["" if math.isnan(value) else f"{value:.3f}" for value in values]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(value) for value in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
