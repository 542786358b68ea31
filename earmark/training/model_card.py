"""The model card: what a network is for, how well it does, and whose recordings it learned from, as Markdown.

Conventions: every number comes from the judgement or the recipe's manifests; nothing is written by hand but
the recipe's own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from earmark.data.manifest import Clip
from earmark.evaluation import metrics
from earmark.evaluation.calibration.report import markdown_section
from earmark.training.config.recipe import Recipe
from earmark.training.config.evaluation import Evaluation
from earmark.training.cross_validation import Judgement
from earmark.training.splits import split_clips

MOST_CONFUSED = 64
"""Classes of the largest confusion table of a card."""
MOST_CREDITED = 10_000
"""Clips that a card lists one by one; of more it says where their table is."""
RECORDING = "recording"
"""Kind of a clip that somebody recorded, and is credited for, though it carries no label."""


def model_card(recipe: Recipe, judgement: Judgement) -> str:
    """The model card of a network from :func:`~earmark.training.cross_validation.cross_validate`."""
    info = judgement.info
    used = [clip for group in split_clips(recipe, recipe.runs[-1]).groups for clip in group]
    sections = [
        f"# {recipe.name}\n\n{recipe.description}\n",
        _facts(recipe, judgement, used),
        _scores(judgement, recipe.evaluation) if len(judgement.clips) else "",
        _confusion(judgement) if len(judgement.clips) else "",
        markdown_section(judgement.calibrated) if judgement.calibrated else "",
        _quiet(recipe.evaluation, judgement) if judgement.quiet else "",
        f"## Labels\n\n{', '.join(info.labels)}\n",
        _attributions(used),
    ]
    return "\n".join(section for section in sections if section)


def _facts(recipe: Recipe, judgement: Judgement, used: Sequence[Clip]) -> str:
    info = judgement.info
    labelled = sum(bool(clip.labels) for clip in used)
    without = sum(clip.labelled for clip in used) - labelled
    unknown = len(used) - labelled - without
    heard = f", and what a teacher hears in {unknown} more" if unknown else ""
    parameters = sum(parameter.numel() for parameter in judgement.network.parameters())
    return (
        f"- Network: {info.architecture}, {parameters:,} parameters; window {info.window_s} s, "
        f"shorter clips: {info.padding} padding\n"
        f"- Trained on: {labelled} labelled clips and {without} without any of the labels{heard}\n"
        f"- Method: {recipe.source}\n- Made by: `{recipe.command}`; {recipe.cost}\n"
        f"- Licence of the weights: {recipe.license}\n"
    )


def _scores(judgement: Judgement, settings: Evaluation) -> str:
    info, truth, scores = judgement.info, judgement.targets, judgement.scores
    found = info.metrics
    precision = metrics.average_precision(truth, scores)
    table = metrics.confusion(truth, scores)
    columns = {
        "label": info.labels,
        "clips": [str(int(count)) for count in truth.sum(0)],
        "accuracy": _decimals(table.diagonal() / np.maximum(table.sum(1), 1)),
        "average precision": _decimals(precision),
    }
    if isinstance(info.threshold, int | float):  # those of each label stand with the calibration
        recalled = metrics.recall(truth, scores, info.threshold)
        columns[f"recall at threshold {info.threshold}"] = _decimals(recalled)
    folds = ", ".join(map(str, found["folds"]))
    method = (
        f"Cross-validation over folds {folds}: each of {found['clips']} clips was judged once, by a network "
        "that trained on the other folds; pooled."
        if len(found["folds"]) > 1
        else f"Judged on the {found['clips']} clips of fold {folds}, which were not trained on."
    )
    if settings.keep == "best":
        method += " The epoch was chosen by the same clips, so the scores flatter."
    return (
        f"## Scores\n\n{method}\n\n"
        f"accuracy {found['accuracy']:.4f}, macro mAP {found['map_macro']:.4f}, "
        f"log loss {found['log_loss']:.4f} nats (scores as shares), "
        f"{found['binary_log_loss']:.4f} nats (binary, mean over classes)\n\n"
        + _table(list(columns), zip(*columns.values(), strict=True))
    )


def _confusion(judgement: Judgement) -> str:
    """Of clips with one class each, and no more classes than fit on a page."""
    truth, labels = judgement.targets, judgement.info.labels
    if len(labels) > MOST_CONFUSED or not (truth.sum(1) == 1).all():
        return ""
    table = metrics.confusion(truth, judgement.scores)
    return "Confusion (rows: truth, columns: highest score, in the order of the labels):\n\n" + _table(
        ("", *(str(number + 1) for number in range(len(table)))),
        [(f"{index + 1} {label}", *table[index]) for index, label in enumerate(labels)],
    )


def _quiet(settings: Evaluation, judgement: Judgement) -> str:
    threshold = min(judgement.info.thresholds or (0.0,))
    rows = [
        (
            group,
            len(scores),
            int((scores.astype(np.float64) >= threshold).sum()),
            f"{scores.max():.3f}",
            f"{np.median(scores):.3f}",
        )
        for group, scores in judgement.quiet.items()
    ]
    chosen = (
        f"The default threshold is {threshold:g}. It is the lowest, from {settings.min_threshold:g} up, that"
    )
    if isinstance(judgement.info.threshold, tuple):
        chosen = f"No label's threshold is below {threshold:g}, which"
    return (
        f"## Threshold\n\n{chosen} at most {settings.max_false_positive_rate:.1%} of each kind of clip without "
        "any of the labels reach; these were not trained on:\n\n"
        + _table(("kind", "clips", "reach it", "highest score", "median"), rows)
    )


def _attributions(used: Sequence[Clip]) -> str:
    """Whose recordings were trained on; generated clips, of one ``kind`` or another, are counted."""
    credited = [clip for clip in used if clip.labels]
    recorded = [clip for clip in used if not clip.labels and clip.extra.get("kind") == RECORDING]
    generated: dict[str, int] = {}
    for clip in used:
        kind = clip.extra.get("kind", "") or "other"
        if not clip.labels and kind != RECORDING:
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
        text += "\nNot labelled, heard by a teacher, cut from:\n\n"
        text += _table(("source", "author", "licence", "titles"), _recordings(recorded))
    return text + (
        f"\nWithout any of the labels, generated or arranged for this purpose: {counts}.\n" if counts else ""
    )


def _recordings(clips: Iterable[Clip]) -> list[tuple[str, ...]]:
    """One row for all that one author has in one package, which a source names before its colon."""
    titles: dict[tuple[str, ...], dict[str, None]] = {}
    for clip in clips:
        facts = {key: clip.extra.get(key, "") for key in ("source", "author", "license", "title")}
        package = facts["source"].partition(":")[0]
        titles.setdefault((package, facts["author"], facts["license"]), {})[facts["title"]] = None
    return [(*key, ", ".join(names)) for key, names in sorted(titles.items())]


def _decimals(values: Iterable[float]) -> list[str]:
    return [f"{value:.3f}" for value in values]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(_cell(value) for value in line) + " |\n" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
