"""The two files of a DCASE submission: a system's predictions, and its description.

Source: DCASE 2021, task 1a (low-complexity acoustic scene classification with several devices), submission
templates; SP4ASC's submission writes the same.

Conventions: accuracies are in percent, log losses in nats, as the challenge has them; overall numbers are
macro, means over classes. Fields of the second file that only its author can fill in are left empty.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.errors import DataError
from earmark.evaluation.evaluation import Evaluation, Values
from earmark.evaluation.predictions import Predictions
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.evaluation.complexity.model_cost import Complexity  # which needs PyTorch

BITS = 16
"""Bits of a parameter in the stated model size."""
KILOBYTE = 1024
NOT_PLAIN = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Words that YAML does not read as text."""


def write_submission(
    found: Evaluation, cost: Complexity, name: str, folder: Path, authors: Sequence[str] = ()
) -> list[Path]:
    """Writes ``NAME.output.csv`` and ``NAME.meta.yaml``.

    Args:
        found: An evaluation of a single-label model; results are stated if clips have labels, groups as
            devices.
        cost: Of the model, for one clip.
        name: Label of the submission.
        folder: Created if it is missing.
        authors: Given name, then last name.

    Raises:
        DataError: If the model's labels may co-occur.
    """
    if found.info is None or found.info.task != "single_label":
        title = found.info.name if found.info else "the model"
        raise DataError(f"{title}: DCASE submissions need a single-label model, this one is multi-label")
    paths = [folder / f"{name}.output.csv", folder / f"{name}.meta.yaml"]
    write_atomically(paths[0], output_table(found.predictions, found.labels))
    write_atomically(paths[1], meta_yaml(name, found.info, cost, found, authors))
    return paths


def output_table(predictions: Predictions, labels: Sequence[str]) -> str:
    """The content of ``NAME.output.csv``: file name, scene, and the probability of each class, by tabs."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(("filename", "scene_label", *labels))
    for clip, scores in zip(predictions.clips, predictions.scores, strict=True):
        shares = (f"{score:.8g}" for score in scores)
        writer.writerow((clip.path.name, labels[int(scores.argmax())], *shares))
    return text.getvalue()


def meta_yaml(name: str, info: ModelInfo, cost: Complexity, found: Evaluation, authors: Sequence[str]) -> str:
    """The content of ``NAME.meta.yaml``; arguments as for :func:`write_submission`."""
    passes = found.origin.get("settings", {}).get("passes")
    parameters = cost.cost.parameters
    size_kb = round(parameters * BITS / 8 / KILOBYTE, 2)
    rates = f"{info.front_end.sample_rate / 1000:g}kHz"
    members = info.arguments.get("members", ())
    values = {
        "submission": {
            "label": name,
            "name": info.name,
            "abbreviation": info.name,
            "authors": [_author(author, number == 0) for number, author in enumerate(authors or [""])],
        },
        "system": {
            "description": {
                "input_sampling_rate": rates,
                "acoustic_features": "log-mel energies",
                "embeddings": None,
                "data_augmentation": f"test-time masking, {passes} passes" if passes else None,
                "machine_learning_method": "CNN",
                "ensemble_method_subsystem_count": len(members) or None,
                "decision_making": "average" if members or passes else None,
                "description": info.description or None,
            },
            "complexity": {
                "total_parameters": parameters,
                "total_parameters_non_zero": parameters,
                "model_size": size_kb,
                "model_size_non_zero": size_kb,
                "bits_per_parameter": BITS,
                "macs": cost.cost.macs,
            },
            "external_datasets": None,
            "source_code": info.source or None,
        },
    }
    if found.by_class and "log_loss_macro" in found.overall:
        values["results"] = {"development_dataset": _results(found)}
    return "\n".join(_emitted(values)) + "\n"


def _results(found: Evaluation) -> dict[str, Any]:
    overall = {"accuracy": found.overall["accuracy_macro"], "log_loss": found.overall["log_loss_macro"]}
    results: dict[str, Any] = {
        "overall": _result(overall),
        "class_wise": {label: _result(own) for label, own in found.by_class.items()},
    }
    devices = {group: _result(own) for group, own in found.by_group.items() if "accuracy" in own}
    return results | ({"device_wise": devices} if devices else {})


def _result(values: Values) -> dict[str, float]:
    return {"logloss": round(values["log_loss"], 6), "accuracy": round(100 * values["accuracy"], 4)}


def _author(full_name: str, corresponding: bool) -> dict[str, Any]:
    given, _, last = full_name.rpartition(" ")
    place = dict.fromkeys(("abbreviation", "institute", "department", "location"))
    return {
        "lastname": last or None,
        "firstname": given or None,
        "email": None,
        "corresponding": corresponding,
        "affiliation": place,
    }


def _emitted(values: Mapping[str, Any], depth: int = 0) -> list[str]:
    """YAML of tables, lists of tables, and scalars, which are written as JSON has them."""
    lines = []
    for key, value in values.items():
        plain = key.isidentifier() and key.lower() not in NOT_PLAIN
        start = "  " * depth + (key if plain else _scalar(key)) + ":"
        if isinstance(value, Mapping):
            lines += [start, *_emitted(value, depth + 1)]
        elif isinstance(value, list):
            lines.append(start)
            for item in value:
                first, *rest = _emitted(item, depth + 2)
                lines += ["  " * (depth + 1) + "- " + first.lstrip(), *rest]
        else:
            lines.append(f"{start} {_scalar(value)}")
    return lines


def _scalar(value: Any) -> str:
    """A float without an exponent: many readers take 1e-06 for text."""
    return f"{value:.6f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
