r"""Makes the model file that ships: weights of a snapshot in half precision, model info, card.

    python recipes/general/export.py --bank runs/general/bank --teacher mn04_as_mAP_432.pt \
        --open-audio DIR --esc18 DIR --snapshot runs/general/1/snapshot_0001000.pt --out mn05_open.onnx

The scores in the card are those of judge.py on what was not trained on; the credits come from the tables of
the recordings.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from held_out import HELD_SOURCES
from judge import (
    Predict,
    agreement,
    answer,
    esc_clips,
    few_shot,
    held_log_mels,
    load_predict,
    zero_shot,
)
from mixing import Bank
from prepare import is_open
from scipy.special import expit
from stages import WIDTH

from earmark.errors import EarmarkError
from earmark.evaluation.calibration.thresholds import AgreementThresholds, agreement_thresholds
from earmark.export.export import export
from earmark.export.options import ExportOptions
from earmark.export.source import ExportSource
from earmark.features.presets import EFFICIENTAT
from earmark.model_file.info import ModelInfo
from earmark.model_file.labels import label_set
from earmark.models.log_mel import TorchLogMel
from earmark.models.weights import build_with_weights

NAME = "mn05_open"
WINDOW_S = 5.0
ARGUMENTS = {"width": WIDTH}
DESCRIPTION = "Recognises AudioSet's 527 kinds of sound: voices, animals, music, vehicles, weather, household"
SOURCE = (
    "MobileNetV3 as in EfficientAT (Schmid et al., arXiv:2211.04772), from random weights, "
    "distilled from its mn04_as on openly licensed recordings"
)


def above_silence(thresholds: AgreementThresholds, predict: Predict) -> AgreementThresholds:
    """Raises thresholds above what the model answers to digital silence, except that of Silence."""
    transform = TorchLogMel(EFFICIENTAT)
    lengths = (0.5, 1.0, 2.0, WINDOW_S, 10.0)
    silences = (transform(torch.zeros(1, round(seconds * EFFICIENTAT.sample_rate))) for seconds in lengths)
    heard = expit(np.max([predict(silence)[0][0] for silence in silences], axis=0))
    heard[label_set("audioset").index("Silence")] = 0.0
    values = np.maximum(thresholds.values, np.ceil(100 * heard + 1) / 100)
    rule = f"{thresholds.rule}; and above the score on digital silence, except for Silence itself"
    return thresholds._replace(values=values, rule=rule)


def measure(snapshot: Path, teacher: Path, bank: Bank) -> tuple[dict[str, float], AgreementThresholds]:
    """Scores, and thresholds, on recordings that were not trained on; see judge.py."""
    student, reference = load_predict(snapshot), load_predict(teacher)
    own, wanted = answer(student, held_log_mels(bank)), answer(reference, held_log_mels(bank))
    scores = agreement(own, wanted)
    clips, truth, judged = esc_clips(bank)
    logits, embeddings = answer(student, (bank.log_mel(*clip["spans"][0]) for clip in clips))
    scores["zero-shot accuracy, ESC fold 4"] = float((zero_shot(logits) == truth)[judged].mean())
    scores["4-shot accuracy, ESC fold 4"] = few_shot(embeddings, truth, judged)
    unseen = [clip for clip in clips if clip["split"] == "judge"]
    more = [
        answer(predict, (bank.log_mel(*clip["spans"][0]) for clip in unseen))
        for predict in (student, reference)
    ]
    pairs = zip((own, wanted), more, strict=True)
    both = [expit(np.concatenate([first[0], second[0]])) for first, second in pairs]
    thresholds = above_silence(agreement_thresholds(*both, reference="mn04_as"), student)
    return {name: round(value, 4) for name, value in scores.items()}, thresholds


def attributions(open_audio: Path, esc18: Path) -> str:
    """Sources, authors, licences and titles of the recordings trained on, as a Markdown table."""
    rows: dict[tuple[str, str, str], dict[str, None]] = {}
    for row in _table(open_audio):
        package = row["source"].partition("@")[0]
        source = package.partition("_")[0] if package.startswith("debian:") else package
        if source not in HELD_SOURCES:
            rows.setdefault((package, row["author"], row["licence"]), {})[row["title"]] = None
    for row in _table(esc18):
        if row["fold"] != "4" and is_open(row["license"]):
            key = ("ESC-50 (Freesound)", row["author"], row["license"])
            rows.setdefault(key, {})[row["title"]] = None
    lines = ((*key, "; ".join(titles)) for key, titles in sorted(rows.items(), key=lambda entry: entry[0]))
    return _markdown(("source", "authors", "licences", "titles"), lines)


def card(scores: dict[str, float], parameters: int, inputs: int, credited: str) -> str:
    """The model card."""
    table = _markdown(("measured", "value"), ((name, f"{value:.3f}") for name, value in scores.items()))
    return f"""# {NAME}

{DESCRIPTION}.

- Network: MobileNetV3 of width {WIDTH}, {parameters:,} parameters; window {WINDOW_S:g} s
- Method: {SOURCE}; {inputs:,} inputs of 0.6 to 10 s; see recipes/general/README.md. It was taught what the
  teacher answers: no labels of recordings were used
- Scores are not calibrated: they follow those of mn04_as and are no probabilities
- Licence of the weights: MIT

## Scores

On recordings that were not trained on: 18 sources of sounds (agreement with mn04_as) and fold 4 of 18
categories of ESC-50 (144 clips; zero-shot: the category whose AudioSet labels score highest; 4-shot:
logistic regression on the embeddings of four clips a category). mn04_as itself: zero-shot 0.951, 4-shot
0.976.

{table}
## Recordings trained on

186 CC0 recordings of Sonic Pi, 160 synthetic sounds, and:

{credited}"""


def make(args: argparse.Namespace) -> None:
    """Writes the model file."""
    content = torch.load(args.snapshot, map_location="cpu", weights_only=True)
    labels = label_set("audioset")
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in content["ema"].items()
    }
    network: Any = build_with_weights("mobilenet", ARGUMENTS, len(labels), tensors).eval()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    scores, thresholds = measure(args.snapshot, args.teacher, Bank(args.bank))
    info = ModelInfo(
        name=NAME,
        labels=tuple(labels),
        front_end=EFFICIENTAT,
        task="multi_label",
        architecture="mobilenet",
        arguments=ARGUMENTS,
        window_s=WINDOW_S,
        padding="zero",
        embedding_size=network.features[-1][1].num_features,
        threshold=tuple(float(value) for value in thresholds.values),
        threshold_rule=thresholds.rule,
        description=DESCRIPTION,
        license="MIT",
        source=SOURCE,
        metrics=scores,
        provenance={"recipe": "recipes/general", "inputs": int(content["seen"])},
        card=card(scores, parameters, int(content["seen"]), attributions(args.open_audio, args.esc18)),
    )
    print(export(ExportSource(info, network), args.out, ExportOptions(precision="fp16")).summary())


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / "meta.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bank", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--teacher", type=Path, required=True, help="published weights of mn04_as")
    parser.add_argument("--open-audio", type=Path, required=True, help="folder with meta.csv")
    parser.add_argument("--esc18", type=Path, required=True, help="folder with meta.csv")
    parser.add_argument("--snapshot", type=Path, required=True, help="snapshot of train.py")
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    args = parser.parse_args()
    try:
        make(args)
    except (EarmarkError, OSError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
