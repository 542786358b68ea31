"""Engines and precisions: mn10 on a clip of 10 s, from file to tags, against ONNX Runtime in fp32.

Conventions: the two sides of a row alternate, each in a process of its own; ratios are medians over the
pairs, above 1 where the option is faster. With one thread times are processor time, with more wall-clock
time. int8 is the same network with its 1 x 1 convolutions quantised statically, with ranges from noise (only
the speed of this file is meaningful), and the activations between layers left in floating point.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.processes import worker
from benchmarks.tables import markdown

LEAST_GAIN = 1.5
"""Target for the best row of each number of threads, from file to tags."""
_WEIGHTS = {"mn10": "fp32", "mn10_int8": "int8"}
_OPTIONS = (("mn10", "openvino", "fp32"), ("mn10", "openvino", "bf16"), ("mn10_int8", "onnx", "fp32"),
         ("mn10_int8", "openvino", "bf16"))  # fmt: skip
_PARTS = {"decode": "decoding", "resample": "decoding and resampling", "front_end": "front-end"}


@dataclass(frozen=True)
class EngineRow:
    """A row of the table.

    Args:
        option: Engine, precision and weights.
        threads: Threads of the network.
        reference_ms: Time of ONNX Runtime in fp32: from file to tags, and of the network alone.
        own_ms: Time of this option, likewise.
        ratio: Medians of reference / own over the pairs, likewise.
    """

    option: str
    threads: int
    reference_ms: tuple[float, float]
    own_ms: tuple[float, float]
    ratio: tuple[float, float]

    def cells(self) -> list[str]:
        """The cells of the row."""
        sides = zip(self.reference_ms, self.own_ms, self.ratio, strict=True)
        return [
            self.option,
            str(self.threads),
            *(f"{before:.1f} / {after:.1f} ms, {ratio:.2f} x" for before, after, ratio in sides),
        ]


def measured(folder: Path, pairs: int, threads: Iterable[int]) -> Iterator[EngineRow]:
    """Measures every option.

    Args:
        folder: Folder of clip.wav, mn10.onnx and mn10_int8.onnx.
        pairs: Number of pairs.
        threads: Numbers of threads, one after the other.
    """
    for number in threads:
        for model, engine, precision in _OPTIONS:
            option = f"{engine} {precision}, weights {_WEIGHTS[model]}"
            own = f"{model} {engine} {precision}"
            try:
                sides = [
                    _alternating(folder, f"{kind} mn10 onnx fp32", f"{kind} {own}", number, pairs)
                    for kind in ("file", "network")
                ]
            except SystemExit:
                if precision == "fp32":
                    raise
                print(f"{option}: skipped, this processor lacks {precision}", file=sys.stderr)
                continue
            before, after, ratio = zip(*sides, strict=True)
            yield EngineRow(option, number, before, after, ratio)


def shares(folder: Path, pairs: int) -> dict[str, float]:
    """Shares of the time of ONNX Runtime in fp32, on one thread, that are not the network's."""
    return {
        name: 1 / _alternating(folder, "file mn10 onnx fp32", part, 1, pairs)[2]
        for part, name in _PARTS.items()
    }


def _alternating(
    folder: Path, reference: str, own: str, threads: int, pairs: int
) -> tuple[float, float, float]:
    """Milliseconds of both sides, and the ratio."""
    with (
        worker("earmark", reference, folder, threads) as one,
        worker("earmark", own, folder, threads) as other,
    ):
        alone = threads == 1
        times = [(one.measure(processor=alone), other.measure(processor=alone)) for _ in range(pairs)]
    before, after = (median(side) * 1e3 for side in zip(*times, strict=True))
    return before, after, median(a / b for a, b in times)


def table(rows: list[EngineRow], parts: Mapping[str, float]) -> str:
    """A Markdown table, the shares, and whether the target is met."""
    head = ["option", "threads", "file to tags", "network alone"]
    text = markdown(head, [row.cells() for row in rows], numbers=head[1:])
    listed = ", ".join(f"{name} {share:.0%}" for name, share in parts.items())
    lines = [f"\nOf ONNX Runtime's time on one thread: {listed}.\n"]
    for threads in dict.fromkeys(row.threads for row in rows):
        best = max((row for row in rows if row.threads == threads), key=lambda row: row.ratio[0])
        verdict = "met" if best.ratio[0] >= LEAST_GAIN else "MISSED"
        lines.append(
            f"\n{threads} thread{'s'[: threads > 1]}: {best.option}: {best.ratio[0]:.2f} x "
            f"(≥ {LEAST_GAIN:g} x: {verdict}).\n"
        )
    return text + "".join(lines) + f"\nOpenVINO {version('openvino')}. "
