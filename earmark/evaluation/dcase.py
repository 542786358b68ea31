"""The files of a DCASE submission: a system's predictions, and its description.

Source: DCASE 2021, task 1a (low-complexity acoustic scene classification with several devices), submission
templates; SP4ASC's submission writes the same.

Conventions: accuracies are in percent, log losses in nats, as the challenge has them; overall numbers are
macro, means over classes. Fields of the description that only its author can fill in are left empty.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.evaluation.evaluation import Evaluation, Values
from earmark.evaluation.predictions import Predictions
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.evaluation.complexity.model_cost import Complexity  # which needs PyTorch

BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8}
"""Bits of a stored parameter, by precision."""
COMPLEXITY_MANAGEMENT = {"fp16": "16-bit weights", "bf16": "16-bit weights", "int8": "weight quantization"}
"""How a precision makes a model smaller, as the challenge names it."""
AUGMENTATIONS = {
    "random_padding": "random padding",
    "crop_s": "random crops",
    "roll_s": "time rolling",
    "speed": "speed perturbation",
    "gain_db": "random gain",
    "impulse_responses": "impulse responses",
    "waveform_mix_probability": "waveform mixing",
    "f_min_range": "shifted mel filters",
    "equalize_db": "random equaliser",
    "low_pass_probability": "random low-pass",
    "resized_crop_scale": "resized crops",
    "mixstyle_probability": "Freq-MixStyle",
    "mask_mels": "SpecAugment",
    "mask_s": "SpecAugment",
    "mixup_alpha": "mixup",
}
"""Keys of a recipe's table ``augment``, and what they switch on."""
KILOBYTE = 1024
NOT_PLAIN = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Words that YAML does not read as text."""


def write_submission(
    found: Evaluation, cost: Complexity, name: str, folder: Path, authors: Sequence[str] = ()
) -> list[Path]:
    """Writes the predictions of a system, and its description.

    The predictions for clips without labels, which are those to submit, are ``NAME.output.csv``; those for
    labelled clips are ``NAME.development.output.csv``. ``NAME.meta.yaml`` has the results of labelled clips;
    if it exists, clips without labels leave it as it is.

    Args:
        found: An evaluation of a single-label model; results are stated if clips have labels, groups as
            devices.
        cost: Of the model, for one clip.
        name: Label of the submission.
        folder: Created if it is missing.
        authors: Given name, then last name.

    Returns:
        The files that were written.

    Raises:
        DataError: If the model's labels may co-occur.
    """
    if found.info is None or found.info.task != "single_label":
        title = found.info.name if found.info else "the model"
        raise DataError(f"{title}: DCASE submissions need a single-label model, this one is multi-label")
    labelled = has_results(found)
    output = folder / f"{name}{'.development' if labelled else ''}.output.csv"
    write_atomically(output, output_table(found.predictions, found.labels))
    description = folder / f"{name}.meta.yaml"
    if description.exists() and not labelled:
        return [output]
    write_atomically(description, meta_yaml(name, found.info, cost, found, authors))
    return [output, description]


def has_results(found: Evaluation) -> bool:
    """Whether the clips of an evaluation have the labels that results need."""
    return bool(found.by_class) and "log_loss_macro" in found.overall


def output_table(predictions: Predictions, labels: Sequence[str]) -> str:
    """The table of predictions: file name, scene, and the probability of each class, separated by tabs."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(("filename", "scene_label", *labels))
    for clip, scores in zip(predictions.clips, predictions.scores, strict=True):
        shares = (f"{score:.8g}" for score in scores)
        writer.writerow((_file_name(clip), labels[int(scores.argmax())], *shares))
    return text.getvalue()


def _file_name(clip: Clip) -> str:
    """The challenge's name of a clip; packs keep it as the clip's id, without the suffix."""
    return clip.path.name if clip.member is None else f"{clip.id.removesuffix('.wav')}.wav"


def meta_yaml(name: str, info: ModelInfo, cost: Complexity, found: Evaluation, authors: Sequence[str]) -> str:
    """The content of ``NAME.meta.yaml``; arguments as for :func:`write_submission`."""
    passes = found.origin.get("settings", {}).get("passes")
    values = {
        "submission": {
            "label": name,
            "name": info.name,
            "abbreviation": info.name,
            "authors": [_author(author, number == 0) for number, author in enumerate(authors or [""])],
        },
        "system": {
            "description": _description(info, passes),
            "complexity": _complexity(info, cost),
            "external_datasets": [
                {"name": source, "url": None, "total_audio_length": None} for source in external_sources(info)
            ]
            or None,
            "source_code": info.source or None,
        },
    }
    if has_results(found):
        values["results"] = {"development_dataset": _results(found)}
    return "\n".join(_emitted(values)) + "\n"


def _description(info: ModelInfo, passes: int | None) -> dict[str, Any]:
    members = info.arguments.get("members", ())
    return {
        "input_sampling_rate": f"{info.front_end.sample_rate / 1000:g}kHz",
        "acoustic_features": "log-mel energies",
        "embeddings": None,
        "data_augmentation": ", ".join(augmentations(info)) or None,
        "test_time_augmentation": "SpecAugment" if passes else None,
        "test_time_passes": passes or 1,
        "machine_learning_method": "CNN",
        "ensemble_method_subsystem_count": len(members) or None,
        "decision_making": "average" if members or passes else None,
        "external_data_usage": _external_data_usage(info),
        "complexity_management": COMPLEXITY_MANAGEMENT.get(info.precision),
        "description": info.description or None,
    }


def _complexity(info: ModelInfo, cost: Complexity) -> dict[str, Any]:
    """Parameters, size in kB of 1024 bytes, and multiply-accumulate operations of one pass."""
    bits, parameters = BITS[info.precision], cost.cost.parameters
    size_kb = round(parameters * bits / 8 / KILOBYTE, 2)
    return {
        "total_parameters": parameters,
        "total_parameters_non_zero": parameters,
        "model_size": size_kb,
        "model_size_non_zero": size_kb,
        "bits_per_parameter": bits,
        "macs": cost.cost.macs,
    }


def augmentations(info: ModelInfo) -> list[str]:
    """The augmentation of a model's training, as far as its model info has it."""
    used = [
        AUGMENTATIONS[key]
        for made in _trainings(info)
        for key in made.get("augment", ())
        if key in AUGMENTATIONS
    ]
    masks = info.arguments.get("spec_augment") or ()
    return list(dict.fromkeys([*used, *(["SpecAugment"] if any(masks) else [])]))


def external_sources(info: ModelInfo) -> list[str]:
    """The weights that a model's training started from, and its teachers."""
    starts = [made["init_from"] for made in _trainings(info) if "init_from" in made]
    teachers = [teacher["name"] for made in _trainings(info) for teacher in made.get("teachers", ())]
    return list(dict.fromkeys(starts + teachers))


def _external_data_usage(info: ModelInfo) -> str | None:
    usage = {"init_from": "pre-trained model", "teachers": "knowledge distillation"}
    keys = {key for made in _trainings(info) for key in made}
    return ", ".join(text for key, text in usage.items() if key in keys) or None


def _trainings(info: ModelInfo) -> list[Mapping[str, Any]]:
    """The provenance of a model, or of each member of an ensemble."""
    return list(info.provenance.get("members", {"": info.provenance}).values())


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
