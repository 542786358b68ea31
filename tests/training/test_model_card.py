"""A model card names every recording that was trained on, and every number in it is measured."""

from dataclasses import replace

import numpy as np
import pytest

from earmark.data.manifest import read_manifest
from earmark.evaluation import metrics
from earmark.training.config.data import ClipSource
from earmark.training.model_card import model_card


@pytest.fixture(scope="module")
def card(cv_recipe, cross_validated) -> str:
    return model_card(cv_recipe, cross_validated)


def rows_after(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table after some words, head first."""
    lines = card[card.index(heading) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.replace(r"\|", "¦").strip("|").split("|")])
    assert set(table[1]) == {"---"}
    assert {len(row) for row in table} == {len(table[0])}
    return [table[0], *table[2:]]


def trained_on(recipe):
    return [
        clip
        for clip in read_manifest(recipe.data.sources[0].manifests[0])
        if clip.extra["license"] != "CC-BY-NC"
    ]


def test_every_clip_trained_on_is_credited_and_no_other(card, cv_recipe):
    _, *rows = rows_after(card, "## Recordings trained on")
    wanted = [clip for clip in trained_on(cv_recipe) if clip.labels]
    assert len(wanted) == 32
    assert rows == [
        [
            clip.path.name,
            *(clip.extra[key].replace("|", "¦") for key in ("title", "author", "license", "source")),
        ]
        for clip in sorted(wanted, key=lambda clip: clip.path.name)
    ]
    assert "CC-BY-NC" not in card


def test_clips_without_labels_are_counted_by_kind(card, cv_recipe):
    kinds = [clip.extra["kind"] for clip in trained_on(cv_recipe) if not clip.labels]
    assert f": {kinds.count('hum')} hum, {kinds.count('silence')} silence.\n" in card
    assert f"32 labelled clips and {len(kinds)} without any of the labels" in card


def test_recordings_without_labels_are_credited_by_package(cv_recipe, cross_validated, tmp_path):
    table = tmp_path / "found.csv"
    table.write_text(
        "path,labels,fold,kind,license,author,source,title\n"
        "a.flac,,0,recording,CC-BY-3.0,Ann,game 1.0: sounds/door.ogg,door\n"
        "b.flac,,0,recording,CC-BY-3.0,Ann,game 1.0: sounds/door.ogg,door\n"
        "c.flac,,0,recording,CC-BY-3.0,Ann,game 1.0: sounds/wind.ogg,wind\n"
        "d.flac,,0,recording,CC0-1.0,Bob,game 1.0: sounds/rain.ogg,rain\n"
        "e.flac,,0,texture,MIT,earmark,NumPy,random texture\n"
    )
    sources = (*cv_recipe.data.sources, ClipSource(manifests=(table,), labelled=False))
    data = cv_recipe.data.model_copy(update={"sources": sources})
    card = model_card(cv_recipe.model_copy(update={"data": data}), cross_validated)
    assert rows_after(card, "Unlabelled, with a teacher's predictions, cut from") == [
        ["source", "author", "licence", "titles"],
        ["game 1.0", "Ann", "CC-BY-3.0", "door, wind"],
        ["game 1.0", "Bob", "CC0-1.0", "rain"],
    ]
    assert "1 texture" in card
    assert "and a teacher's predictions for 5 more" in card


def test_the_card_has_the_descriptions_of_the_recipe(card, cv_recipe, cross_validated):
    assert card.startswith("# toy\n\nClassifies tones and noise\n")
    parameters = sum(parameter.numel() for parameter in cross_validated.network.parameters())
    for words in (
        "cnn6_60k",
        f"{parameters:,} parameters",
        "0.5 s",
        "zero padding",
        "earmark train toy.toml",
        "MIT",
    ):
        assert words in card
    assert "## Labels\n\nnoise, tone\n" in card


def test_scores_are_those_that_were_measured(card, cross_validated):
    found = cross_validated.info.metrics
    for words in (
        "Cross-validation over folds 1, 2: each of 48 clips",
        f"accuracy {found['accuracy']:.4f}",
        f"macro mAP {found['map_macro']:.4f}",
        f"log loss {found['log_loss']:.4f} nats",
        f"log loss {found['binary_log_loss']:.4f} nats (binary",
        f"macro AUROC {found['auroc_macro']:.4f}",
    ):
        assert words in card
    head, *rows = rows_after(card, "## Scores")
    precision = metrics.average_precision(cross_validated.targets, cross_validated.scores)
    recall = metrics.recall(cross_validated.targets, cross_validated.scores, cross_validated.info.threshold)
    confusion = metrics.confusion(cross_validated.targets, cross_validated.scores)
    assert head[-1] == f"recall at threshold {cross_validated.info.threshold}"
    assert rows == [
        [label, "24", f"{confusion[i, i] / 24:.3f}", f"{precision[i]:.3f}", f"{recall[i]:.3f}"]
        for i, label in enumerate(cross_validated.info.labels)
    ]
    _, *rows = rows_after(card, "\nConfusion")
    assert rows == [
        [f"{i + 1} {label}", *map(str, confusion[i])] for i, label in enumerate(cross_validated.info.labels)
    ]
    assert confusion.sum() == 48


def test_the_card_has_the_threshold_and_its_false_positives(card, cross_validated):
    assert f"The default threshold is {cross_validated.info.threshold:g}." in card
    _, *rows = rows_after(card, "## Threshold")
    assert rows == [
        [
            group,
            "5",
            str(sum(float(score) >= cross_validated.info.threshold for score in scores)),
            f"{scores.max():.3f}",
            f"{np.median(scores):.3f}",
        ]
        for group, scores in cross_validated.negatives.items()
    ]


def test_what_was_not_measured_is_left_out(cv_recipe, cross_validated):
    info = cross_validated.info.changed(threshold=None, threshold_rule="", metrics={})
    bare = replace(cross_validated, info=info, clips=(), negatives={})
    card = model_card(cv_recipe, bare)
    assert "## Scores" not in card
    assert "## Threshold" not in card
    assert "## Recordings trained on" in card


def test_without_a_threshold_there_are_still_scores(cv_recipe, cross_validated):
    info = cross_validated.info.changed(threshold=None, threshold_rule="")
    bare = replace(cross_validated, info=info, negatives={})
    card = model_card(cv_recipe, bare)
    assert "## Scores" in card
    assert "None" not in card
    assert "nan" not in card
    assert rows_after(card, "## Scores")[0] == ["label", "clips", "accuracy", "average precision"]


def test_labels_that_co_occur_or_are_unknown(cv_recipe, cross_validated):
    truth = cross_validated.targets.copy()
    truth[0] = (1, np.nan)
    truth[1] = 1
    card = model_card(cv_recipe, replace(cross_validated, targets=truth))
    head, *rows = rows_after(card, "## Scores")
    assert head[:3] == ["label", "clips", "average precision"]
    assert [int(row[1]) for row in rows] == (truth > 0).sum(0).tolist()
    assert "nan" not in card
    assert "Confusion" not in card
