"""mn10 and a clip of 10 s, from the file to tags: what each lever brings over ONNX Runtime in float32.

    python -m benchmarks engines [--cache FOLDER] [--threads N ...] [--quick] [--json FILE] [--docs FILE]

Conventions: the two sides of a line take turns, each in a process of its own; ratios are medians over the
pairs, above 1 where the lever is faster. With one thread time is the processor's, with more the clock's.
"8 bits" is the same network with its convolutions of 1 x 1 quantised (static, by noise: only the speed of
this file means anything) and the activations between layers left in float.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import worker
from benchmarks.tables import markdown

LEAST_GAIN = 1.5
"""What the best line of a number of threads is to reach from file to tags."""
_FILES = {"mn10": "as it is", "mn10_int8": "8 bits"}
_WAYS = (("mn10", "openvino", "f32"), ("mn10", "openvino", "bf16"), ("mn10_int8", "onnx", "f32"),
         ("mn10_int8", "openvino", "bf16"))  # fmt: skip
_PARTS = {"decode": "decoding", "hear": "decoding and resampling", "front_end": "front-end"}


@dataclass(frozen=True)
class Gain:
    """One line: a lever, or a part of the work that all of them share.

    Args:
        what: Which.
        threads: Of the network.
        reference_ms: Of ONNX Runtime in float32, from file to tags; of the network alone.
        own_ms: Of this line; of a part the same number twice.
        ratio: Median of reference / own over the pairs.
    """

    what: str
    threads: int
    reference_ms: tuple[float, float]
    own_ms: tuple[float, float]
    ratio: tuple[float, float]

    def cells(self) -> list[str]:
        """The line of the table."""
        sides = zip(self.reference_ms, self.own_ms, self.ratio, strict=True)
        return [
            self.what,
            str(self.threads),
            *(f"{before:.1f} / {after:.1f} ms, {ratio:.2f} x" for before, after, ratio in sides),
        ]


def measured(folder: Path, pairs: int, threads: Iterable[int]) -> Iterator[Gain]:
    """Measures every lever.

    Args:
        folder: Of clip.wav, mn10.onnx and mn10_int8.onnx.
        pairs: How many.
        threads: With how many threads, one number after the other.
    """
    for number in threads:
        for model, engine, precision in _WAYS:
            sides = [
                _in_turns(
                    folder, f"{kind} mn10 onnx f32", f"{kind} {model} {engine} {precision}", number, pairs
                )
                for kind in ("file", "network")
            ]
            before, after, ratio = zip(*sides, strict=True)
            yield Gain(f"{engine} {precision}, weights {_FILES[model]}", number, before, after, ratio)


def shares(folder: Path, pairs: int) -> dict[str, float]:
    """What part of ONNX Runtime's time in float32, on one thread, is not the network's."""
    return {
        name: 1 / _in_turns(folder, "file mn10 onnx f32", part, 1, pairs)[2] for part, name in _PARTS.items()
    }


def _in_turns(folder: Path, reference: str, own: str, threads: int, pairs: int) -> tuple[float, float, float]:
    """Milliseconds of both sides, and their ratio."""
    with (
        worker("earmark", reference, folder, threads) as one,
        worker("earmark", own, folder, threads) as other,
    ):
        alone = threads == 1
        times = [(one.measure(processor=alone), other.measure(processor=alone)) for _ in range(pairs)]
    before, after = (median(side) * 1e3 for side in zip(*times, strict=True))
    return before, after, median(a / b for a, b in times)


def table(gains: list[Gain], parts: Mapping[str, float]) -> str:
    """The lines as a Markdown table, what is not the network's, and whether the aim is reached."""
    head = ["lever", "threads", "file to tags", "network alone"]
    text = markdown(head, [gain.cells() for gain in gains], numbers=head[1:])
    listed = ", ".join(f"{name} {share:.0%}" for name, share in parts.items())
    lines = [f"\nOf ONNX Runtime's time on one thread: {listed}.\n"]
    for threads in dict.fromkeys(gain.threads for gain in gains):
        best = max((gain for gain in gains if gain.threads == threads), key=lambda gain: gain.ratio[0])
        verdict = "met" if best.ratio[0] >= LEAST_GAIN else "MISSED"
        lines.append(
            f"\n{threads} thread{'s'[: threads > 1]}: {best.what}: {best.ratio[0]:.2f} x "
            f"(≥ {LEAST_GAIN:g} x: {verdict}).\n"
        )
    return text + "".join(lines) + f"\nOpenVINO {version('openvino')}. "


def prepare(folder: Path) -> None:
    """Writes what is missing, with PyTorch: in a process of its own, python -m benchmarks.engines FOLDER."""
    from benchmarks.prepare import main as write_all
    from earmark.model_file.atomic import write_atomically

    if not (folder / "mn10.onnx").is_file():
        write_all(str(folder), "10")
    if not (folder / "mn10_int8.onnx").is_file():
        noise = np.random.default_rng(0).standard_normal((4, 1, 128, 1000)).astype(np.float32)
        write_atomically(folder / "mn10_int8.onnx", in_8_bits(folder / "mn10.onnx", list(noise)))


def in_8_bits(path: Path, log_mels: list[NDArray[np.float32]]) -> bytes:
    """A model file whose convolutions of 1 x 1 are quantised, per channel, by the ranges of their inputs.

    Args:
        path: Of the model file.
        log_mels: To take ranges from, each (batch, mel, frame).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from earmark.model_file.onnx_file import read_model_file, seal

    content, info = read_model_file(path)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(log_mels)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            found = next(self._left, None)
            return None if found is None else {info.graph_inputs[0]: found}

    with tempfile.TemporaryDirectory() as name:
        plain, shaped, done = (Path(name) / f"{step}.onnx" for step in ("plain", "shaped", "done"))
        model = onnx.load_from_string(content)
        del model.metadata_props[:]
        onnx.save(model, plain)
        quant_pre_process(plain, shaped, skip_optimization=True, skip_symbolic_shape=True)
        weights = {tensor.name: tensor.dims for tensor in onnx.load(shaped).graph.initializer}
        pointwise = [
            node.name
            for node in onnx.load(shaped).graph.node
            if node.op_type == "Conv" and list(weights[node.input[1]][2:]) == [1, 1]
        ]
        quantize_static(
            shaped,
            done,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            nodes_to_quantize=pointwise,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv"]},
        )
        quantised = onnx.load(done)
        del quantised.metadata_props[:]
        return seal(quantised.SerializeToString(), info)


if __name__ == "__main__":
    import sys

    prepare(Path(sys.argv[1]))
