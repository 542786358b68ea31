"""Judges general models: agreement with the teacher, unseen clips without and with few labels, behaviour.

    python recipes/general/judge.py --bank runs/general/bank --teacher mn04_as_mAP_432.pt MODEL...

A model is a model file (.onnx), a checkpoint (.safetensors), a snapshot of train.py or published weights of
an mn network (.pt). Nothing judged on is trained or tuned on: sources that only the judge hears, and the
folds of ESC that prepare.py left out (by default fold 4). Zero-shot: the ESC category whose AudioSet labels
(held_out.py) score highest. 4-shot: logistic regression on embeddings of four clips a category of the other
folds, ten draws.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from held_out import CATEGORIES
from mixing import Bank
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from earmark.audio import load_audio, resample
from earmark.errors import EarmarkError
from earmark.features.presets import EFFICIENTAT
from earmark.model_file.labels import label_set
from earmark.model_file.onnx_runtime import onnxruntime
from earmark.model_file.ontology import audioset_ontology
from earmark.models.checkpoint import load_checkpoint
from earmark.models.log_mel import TorchLogMel
from earmark.models.weights import build_with_weights, read_state_dict

Floats = NDArray[np.float32]
Answers = tuple[Floats, Floats]
"""Logits (batch, class) and embeddings (batch, channel)."""
Predict = Callable[[torch.Tensor], Answers]
"""Log-mel (batch, mel, frame) -> Answers."""
RATE = EFFICIENTAT.sample_rate
LABELS = label_set("audioset")
HELD_ROWS, BATCH, SHOTS, DRAWS = 500, 16, 4, 10
FAMILIES = {"speech": "Human voice", "music": "Music", "rain": "Rain", "dog": "Dog", "bird": "Bird"}
"""A word in the names of held-out recordings; the node that the top label should be, or lie below."""


def load_predict(path: Path) -> Predict:
    """Loads what is to be judged.

    Raises:
        ModelError: If the file is none of those named above.
    """
    if path.suffix == ".onnx":
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options)
        name = session.get_inputs()[0].name
        return lambda log_mel: session.run(["logits", "embedding"], {name: log_mel.numpy()})
    if path.suffix == ".safetensors":
        network, _ = load_checkpoint(path)
        network.eval()
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = content["ema"] if "ema" in content else read_state_dict(path)
        tensors = {
            name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
        }
        network = build_with_weights("mobilenet", {"width": _width(tensors)}, len(LABELS), tensors)

    def predict(log_mel: torch.Tensor) -> Answers:
        with torch.no_grad():
            output = network(log_mel)
        return output.logits.numpy(), output.embedding.numpy()

    return predict


def _width(tensors: Mapping[str, torch.Tensor]) -> float:
    """The width of a network, told by the channels of its head."""
    return tensors["classifier.2.weight"].shape[0] / 1280


def answer(predict: Predict, log_mels: Iterator[torch.Tensor]) -> Answers:
    """Answers to inputs (1, mel, frame) of any lengths, in their order; equal lengths go in one batch."""
    by_length: dict[int, list[tuple[int, torch.Tensor]]] = {}
    for number, log_mel in enumerate(log_mels):
        by_length.setdefault(log_mel.shape[2], []).append((number, log_mel))
    logits: dict[int, Floats] = {}
    embeddings: dict[int, Floats] = {}
    for group in by_length.values():
        for start in range(0, len(group), BATCH):
            numbers, inputs = zip(*group[start : start + BATCH], strict=True)
            batch_logits, batch_embeddings = predict(torch.cat(inputs))
            logits.update(zip(numbers, batch_logits, strict=True))
            embeddings.update(zip(numbers, batch_embeddings, strict=True))
    count = range(len(logits))
    return np.stack([logits[number] for number in count]), np.stack([embeddings[number] for number in count])


def held_log_mels(bank: Bank) -> Iterator[torch.Tensor]:
    """The recordings of held-out sources, in pieces of 5 s."""
    for recording in bank.recordings:
        if recording["split"] == "held":
            first, count = recording["spans"][0]
            for start in range(0, max(1, count - HELD_ROWS // 2 + 1), HELD_ROWS):
                yield bank.log_mel(first + start, min(HELD_ROWS, count - start))


def r_squared(values: Floats, truth: Floats) -> tuple[float, float]:
    """Explained share of the variance around each column's mean: over all, and the columns' median."""
    errors = np.square(values - truth).sum(0)
    variances = np.square(truth - truth.mean(0)).sum(0)
    return float(1 - errors.sum() / variances.sum()), float(np.median(1 - errors / variances))


def agreement(student: Answers, teacher: Answers) -> dict[str, float]:
    """How well a model agrees with the teacher on the same inputs."""
    logits, class_median = r_squared(student[0], teacher[0])
    result = {"R2 logits": logits, "R2 class median": class_median}
    if student[1].shape == teacher[1].shape:
        result["R2 embedding"] = r_squared(student[1], teacher[1])[0]
    result["same top 1"] = float(np.mean(student[0].argmax(1) == teacher[0].argmax(1)))
    tops = [np.argsort(-logits, axis=1)[:, :5] for logits in (student[0], teacher[0])]
    result["top 5 overlap"] = float(np.mean([len({*a} & {*b}) / 5 for a, b in zip(*tops, strict=True)]))
    return result


def esc_clips(bank: Bank) -> tuple[list[dict[str, object]], NDArray[np.intp], NDArray[np.bool_]]:
    """The clips of ESC: recordings, category numbers, and whether each one's fold is judged.

    A fold is judged if no clip of it is trained on.
    """
    clips = [recording for recording in bank.recordings if recording["tag"].startswith("esc:")]
    parts = [clip["tag"].split(":") for clip in clips]
    trained = {part[2] for part, clip in zip(parts, clips, strict=True) if clip["split"] == "train"}
    categories = list(CATEGORIES)
    truth = np.array([categories.index(part[1]) for part in parts])
    return clips, truth, np.array([part[2] not in trained for part in parts])


def zero_shot(logits: Floats) -> NDArray[np.intp]:
    """The category whose labels score highest."""
    columns = [[LABELS.index(name) for name in names] for names in CATEGORIES.values()]
    return np.stack([logits[:, names].max(1) for names in columns], axis=1).argmax(1)


def few_shot(embeddings: Floats, truth: NDArray[np.intp], judged: NDArray[np.bool_]) -> float:
    """Mean accuracy on the judged folds of probes on four clips a category of the others."""
    accuracies = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        shots = np.concatenate(
            [
                rng.choice(np.flatnonzero((truth == category) & ~judged), SHOTS, replace=False)
                for category in range(len(CATEGORIES))
            ]
        )
        scaler = StandardScaler().fit(embeddings[shots])
        probe = LogisticRegression(max_iter=500).fit(scaler.transform(embeddings[shots]), truth[shots])
        accuracies.append(probe.score(scaler.transform(embeddings[judged]), truth[judged]))
    return float(np.mean(accuracies))


def loudest(waveform: Floats, seconds: float) -> Floats:
    """The stretch of a length with the most energy."""
    length = int(seconds * RATE)
    energy = np.cumsum(np.concatenate([[0.0], waveform.astype(np.float64) ** 2]))
    start = int(np.argmax(energy[length:] - energy[:-length])) if len(waveform) > length else 0
    return waveform[start : start + length]


CONDITIONS: dict[str, Callable[[Floats], Floats]] = {
    "30 dB quieter": lambda waveform: waveform * np.float32(10 ** (-30 / 20)),
    "12 dB louder, clipped": lambda waveform: np.clip(waveform * 4, -1, 1),
    "sampled at 16 kHz": lambda waveform: resample(resample(waveform, RATE, 16000), 16000, RATE),
    "sampled at 8 kHz": lambda waveform: resample(resample(waveform, RATE, 8000), 8000, RATE),
    "loudest 2 s": lambda waveform: loudest(waveform, 2.0),
    "loudest 0.5 s": lambda waveform: loudest(waveform, 0.5),
}


def test_signals() -> dict[str, Floats]:
    """Signals of 5 s that no recording is needed for."""
    rng, time = np.random.default_rng(0), np.arange(5 * RATE) / RATE
    white = rng.standard_normal(len(time))
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.arange(len(time) // 2 + 1) + 1.0), len(time))
    signals = {
        "silence": np.zeros(len(time)),
        "white noise": white * 0.1,
        "white noise, -60 dB": white * 0.001,
        "pink noise": pink / pink.std() * 0.1,
        "tone of 440 Hz": 0.3 * np.sin(2 * np.pi * 440 * time),
        "hum of 50 Hz": 0.3 * np.sign(np.sin(2 * np.pi * 50 * time)),
        "a click a second": (np.arange(len(time)) % RATE < 40) * 0.5,
    }
    return {name: signal.astype(np.float32) for name, signal in signals.items()}


def show(logits: Floats, count: int = 3) -> str:
    """The highest labels and their scores."""
    scores = 1 / (1 + np.exp(-logits))
    return ", ".join(f"{LABELS[label]} {scores[label]:.2f}" for label in np.argsort(-logits)[:count])


def report(name: str, predict: Predict, teacher: Answers | None, bank: Bank, waveforms: bool) -> None:
    """Prints all that is measured of one model."""
    print(f"## {name}\n")
    if teacher is not None:
        for what, value in agreement(answer(predict, held_log_mels(bank)), teacher).items():
            print(f"- {what}: {value:.3f}")
    clips, truth, judged = esc_clips(bank)
    logits, embeddings = answer(predict, (bank.log_mel(*clip["spans"][0]) for clip in clips))
    right = zero_shot(logits) == truth
    print(f"- zero-shot, {judged.sum()} clips of judged folds: {right[judged].mean():.3f}")
    for category, label in enumerate(CATEGORIES):
        share = right[judged & (truth == category)].mean()
        if share < 1:
            print(f"  - {label}: {share:.2f}")
    print(f"- {SHOTS}-shot on judged folds: {few_shot(embeddings, truth, judged):.3f}")
    if waveforms:
        _report_conditions(predict, clips, truth, judged)
        _report_families(predict, bank)
    transform = TorchLogMel(EFFICIENTAT)
    for what, signal in test_signals().items():
        print(f"- {what}: {show(predict(transform(torch.from_numpy(signal[None])))[0][0])}")
    print()


def _report_conditions(
    predict: Predict,
    clips: Sequence[dict[str, object]],
    truth: NDArray[np.intp],
    judged: NDArray[np.bool_],
) -> None:
    transform = TorchLogMel(EFFICIENTAT)
    loaded = [load_audio(str(clips[place]["path"]), RATE)[0] for place in np.flatnonzero(judged)]
    for what, change in CONDITIONS.items():
        log_mels = (transform(torch.from_numpy(np.ascontiguousarray(change(one))[None])) for one in loaded)
        accuracy = np.mean(zero_shot(answer(predict, log_mels)[0]) == truth[judged])
        print(f"- zero-shot, {what}: {accuracy:.3f}")


def _report_families(predict: Predict, bank: Bank) -> None:
    ontology = audioset_ontology()
    for word, node in FAMILIES.items():
        family = {node, *ontology.descendants(node)}
        held = [
            recording
            for recording in bank.recordings
            if recording["split"] == "held"
            and word in recording["tag"].replace("open:", "").replace(";", " ").split()
        ]
        spans = [recording["spans"][0] for recording in held]
        if spans:
            log_mels = (bank.log_mel(first, min(count, 2 * HELD_ROWS)) for first, count in spans)
            tops = [LABELS[label] for label in answer(predict, log_mels)[0].argmax(1)]
            share = np.mean([top in family for top in tops])
            print(f"- held-out recordings called {word!r}: top label in {node} {share:.2f} of {len(tops)}")


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL")
    parser.add_argument("--bank", type=Path, required=True, help="folder that prepare.py wrote")
    parser.add_argument("--teacher", type=Path, help="published weights of mn04_as, or an .onnx of them")
    parser.add_argument("--short", action="store_true", help="skip what reads recordings anew")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    try:
        bank = Bank(args.bank)
        teacher = None if args.teacher is None else answer(load_predict(args.teacher), held_log_mels(bank))
        for path in args.models:
            report(path.name, load_predict(path), teacher, bank, not args.short)
    except (EarmarkError, OSError) as error:
        print(f"judge.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
