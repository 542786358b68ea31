"""Times DyMN's dynamic convolutions in the form in use against other forms of the same mathematics.

    python -m benchmarks.dymn_forms [dymn04|dymn10 ...] [--forms FORM ...] [--repeats N] [--cache FOLDER]
        [--docs FILE]

In use are kernels that are mixed once per clip; then a matrix product for kernels of 1 x 1, and a grouped
convolution for the others, which becomes a loop over clips in the export. Each other form replaces one of
the two, or both.

Conventions: one thread, a clip of 10 s (log-mel 128 x 1000). The two forms take turns in one process. Times
are medians of processor time, which other jobs of the machine disturb less than a clock's; ratios are ratios
of medians, above 1 where the form in use is faster.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.prepare_zoo import random_record
from benchmarks.tables import machine, markdown, update
from earmark.export.export import export_model
from earmark.hub.registry import entry
from earmark.models import Network, create_model
from earmark.models.dymn import DynamicDepthwise, DynamicPointwise

FRAMES = 1000
BATCHES = (1, 4)
Run = Callable[[], Any]


class ApartPointwise(DynamicPointwise):
    """Convolves with every kernel and mixes the answers."""

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """As DynamicPointwise."""
        kernels = self.weight.view(-1, self.shape[1], 1, 1)
        answers = F.conv2d(features, kernels).unflatten(1, (-1, self.shape[0]))
        return (self.attention(context)[:, :, None, None, None] * answers).sum(1)


class GroupedPointwise(DynamicPointwise):
    """Convolves the clips of a batch as groups of one map, as DynamicDepthwise does."""

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """As DynamicPointwise."""
        kernels = self.mixed(context).view(-1, *self.shape).flatten(0, 1)
        result = F.conv2d(features.flatten(0, 1).unsqueeze(0), kernels, groups=len(features))
        return result.view(len(features), -1, *result.shape[2:])


class ApartDepthwise(DynamicDepthwise):
    """Convolves with every kernel and mixes the answers."""

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """As DynamicDepthwise."""
        attention = self.attention(context)[:, :, None, None, None].unbind(1)
        kernels = self.weight.view(-1, *self.shape).unbind(0)
        answers = (
            share * self._convolved(features, kernel)
            for share, kernel in zip(attention, kernels, strict=True)
        )
        return _sum(answers)


def _sum(terms: Iterator[Tensor]) -> Tensor:
    total = next(terms)
    for term in terms:
        total = total + term
    return total


FORMS: dict[str, dict[type, type]] = {
    "all apart": {DynamicPointwise: ApartPointwise, DynamicDepthwise: ApartDepthwise},
    "depthwise apart": {DynamicDepthwise: ApartDepthwise},
    "pointwise grouped": {DynamicPointwise: GroupedPointwise},
}
"""By name: what stands for the layers in use. "apart" convolves with every kernel and mixes the answers."""
PYTORCH_ONLY = ("pointwise grouped",)
"""ONNX fixes the number of groups, which is that of clips here."""


def in_form(network: Network, form: dict[type, type]) -> Network:
    """A copy of a network whose dynamic convolutions are computed in another form."""
    other = copy.deepcopy(network)
    for module in other.modules():
        module.__class__ = form.get(type(module), type(module))
    return other


def eager(network: Network, log_mel: Tensor) -> Run:
    """Runs a network in PyTorch."""
    return torch.no_grad()(lambda: network(log_mel).logits.numpy())


def exported(name: str, network: Network, path: Path) -> onnxruntime.InferenceSession:
    """A network as a model file in ONNX Runtime; the file is made where it is not there."""
    if not path.is_file():
        export_model(network, random_record(entry(f"{name}_as"), network), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


def runtime(session: onnxruntime.InferenceSession, log_mel: Tensor) -> Run:
    """Runs a network in ONNX Runtime."""
    given = {"log_mel": log_mel.numpy()}
    return lambda: session.run(["logits"], given)[0]


def measure(used: Run, other: Run, repeats: int) -> tuple[float, float]:
    """Seconds of both, medians; they take turns."""
    difference = np.abs(used() - other()).max() / np.abs(used()).max()
    if not difference <= 1e-3:
        raise SystemExit(f"the forms' answers differ by {difference:.2g} of the largest")
    pairs = [(_seconds(used), _seconds(other)) for _ in range(repeats)]
    first, second = (median(side) for side in zip(*pairs, strict=True))
    return first, second


def _seconds(run: Run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def _compared(used: Run, other: Run, repeats: int) -> str:
    """A cell of the table."""
    mine, its = measure(used, other, repeats)
    return f"{mine * 1e3:.1f} / {its * 1e3:.1f} ms, {its / mine:.2f} x"


def rows(name: str, forms: list[str], repeats: int, cache: Path) -> Iterator[list[str]]:
    """The lines of the table of a network, one per other form."""
    torch.manual_seed(0)
    network = create_model(name).eval()
    session = exported(name, network, cache / f"{name}.onnx")
    for title in forms:
        other = in_form(network, FORMS[title])
        rival = None
        if title not in PYTORCH_ONLY:
            rival = exported(name, other, cache / f"{name} {title}.onnx")
        cells = []
        for batch in BATCHES:
            log_mel = torch.randn(batch, 128, FRAMES)
            cells.append(_compared(eager(network, log_mel), eager(other, log_mel), repeats))
            cells.append(
                _compared(runtime(session, log_mel), runtime(rival, log_mel), repeats) if rival else ""
            )
            print(name, title, *cells, file=sys.stderr, flush=True)
        yield [name, title, *cells]


def main() -> None:
    """Measures and prints a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dymn_forms")
    parser.add_argument("names", nargs="*", default=["dymn04", "dymn10"])
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where the files it exports are kept")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="replace the table between its marks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    head = ["network", "other form"]
    head += [f"{engine}, batch {batch}" for batch in BATCHES for engine in ("PyTorch", "ONNX Runtime")]
    with tempfile.TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder)
        lines = [
            row for name in arguments.names for row in rows(name, arguments.forms, arguments.repeats, cache)
        ]
    shown = f"{markdown(head, lines, numbers=head[2:])}\n{machine()}.\n"
    print(shown, end="")
    if arguments.docs:
        update(arguments.docs, "dymn", shown)


if __name__ == "__main__":
    main()
