"""The published networks: time and memory of each, relative to one of them.

Conventions: entries of earmark/hub/registry.toml that differ in their weights only are one network, which is
measured once and named after its first entry with labels. Times are medians, of a clip of 10 s from samples
to scores; ratios are medians over the pairs. With one thread times are processor time, which other jobs of
the machine disturb less; with more they are wall-clock time. This module must stay small, see
:mod:`benchmarks.processes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.processes import run, worker
from benchmarks.tables import markdown
from earmark.hub.registry import PublishedModel, published

PEER = "mn10_as"
"""Hop 320, 128 mel bands: every network alternates with it."""
LARGEST = "mn40_as"
LARGEST_PEAK_MB = 1000
"""Limit on the peak memory of a process that loads the largest network and tags a clip."""
THREADS = (1, 2)
MEGA, GIGA = 1e6, 1e9


@dataclass(frozen=True)
class PublishedNetwork:
    """A network, and the published entries with weights for it.

    Args:
        entries: Those with labels first.
    """

    entries: tuple[PublishedModel, ...]

    @property
    def name(self) -> str:
        """Name of its model file."""
        return self.entries[0].name


def networks(entries: Iterable[PublishedModel] | None = None) -> list[PublishedNetwork]:
    """The distinct networks of the registry, in its order.

    Args:
        entries: Entries to use instead of the registry's.
    """
    alike: dict[str, list[PublishedModel]] = {}
    for known in published().values() if entries is None else entries:
        alike.setdefault(_network_of(known), []).append(known)
    return [
        PublishedNetwork(tuple(sorted(group, key=lambda known: not known.labels))) for group in alike.values()
    ]


def _network_of(known: PublishedModel) -> str:
    """Identifies a network: everything but its weights, of which the temperature counts as one."""
    arguments = {name: value for name, value in known.arguments.items() if name != "temperature"}
    front_end = known.front_end.to_dict()
    return json.dumps([known.architecture, arguments, front_end, known.num_classes], sort_keys=True)


@dataclass(frozen=True)
class NetworkRow:
    """A row of the table.

    Args:
        name: Name of the network.
        entries: Number of published weights.
        score: As published; for several entries the lowest and the highest.
        params: Number of parameters, if known.
        macs: Multiply-accumulate operations of a 10 s clip, if known.
        file_bytes: Size of the model file.
        peak_bytes: Peak memory of a process that loads it and tags a clip, with two threads.
        seconds: Time per clip, for each number of threads.
        of_peer: Ratio to the time of the peer, for each number of threads.
        threads: Numbers of threads.
    """

    name: str
    entries: int
    score: str
    params: int | None
    macs: int | None
    file_bytes: int
    peak_bytes: float
    seconds: tuple[float, ...]
    of_peer: tuple[float, ...]
    threads: tuple[int, ...] = THREADS

    def cells(self) -> list[str]:
        """The cells of the row."""
        sides = zip(self.seconds, self.of_peer, strict=True)
        return [
            f"`{self.name}`",
            str(self.entries),
            f"{self.params / MEGA:.2f}" if self.params else "",
            f"{self.macs / GIGA:.3f}" if self.macs else "",
            f"{self.file_bytes / MEGA:.1f}",
            f"{self.peak_bytes / MEGA:.0f}",
            *(cell for seconds, ratio in sides for cell in (f"{seconds * 1e3:.1f} ms", f"{ratio:.2f} x")),
            self.score,
        ]


def measured(folder: Path, pairs: int, threads: tuple[int, ...] = THREADS) -> Iterator[NetworkRow]:
    """Measures every network, alternating with the peer.

    Args:
        folder: Folder of clip.wav and the model files, see :mod:`benchmarks.prepare`.
        pairs: Number of pairs.
        threads: Numbers of threads, one after the other.
    """
    for network in networks():
        times = [_alternating(folder, network.name, number, pairs) for number in threads]
        known = network.entries[0]
        yield NetworkRow(
            name=network.name,
            entries=len(network.entries),
            score=_score(network),
            params=known.params,
            macs=known.macs,
            file_bytes=(folder / f"{network.name}.onnx").stat().st_size,
            peak_bytes=peak_bytes(folder, network.name),
            seconds=tuple(seconds for seconds, _ in times),
            of_peer=tuple(ratio for _, ratio in times),
            threads=threads,
        )


def peak_bytes(folder: Path, name: str) -> float:
    """Peak memory of a process that loads a network and tags a clip of 10 s on the command line."""
    model, clip = folder / f"{name}.onnx", folder / "clip.wav"
    return run(("-m", "earmark", "tag", "--threads", "2", "--model", str(model), str(clip))).peak_bytes


def _alternating(folder: Path, name: str, threads: int, pairs: int) -> tuple[float, float]:
    """Seconds of a network, and the ratio to the peer."""
    with (
        worker("earmark", f"clip {PEER}", folder, threads) as peer,
        worker("earmark", f"clip {name}", folder, threads) as own,
    ):
        alone = threads == 1
        times = [(peer.measure(processor=alone), own.measure(processor=alone)) for _ in range(pairs)]
    return median(own for _, own in times), median(own / peer for peer, own in times)


def _score(network: PublishedNetwork) -> str:
    """The range of the first kind of score that an entry has."""
    kind = next((kind for known in network.entries for kind in known.scores), "")
    values = {known.scores[kind] for known in network.entries if kind in known.scores}
    ends = sorted({min(values), max(values)}) if values else []
    return f"{kind} {' to '.join(f'{value:g}' for value in ends)}".strip()


def table(rows: list[NetworkRow]) -> str:
    """A Markdown table, and whether the largest network keeps to its memory limit."""
    head = ["network", "weights", "parameters, M", "MACs, G", "file, MB", "peak, MB"]
    for threads in rows[0].threads:
        head += [f"{threads} thread{'s'[: threads > 1]}", f"of {PEER}"]
    shown = markdown([*head, "score"], [row.cells() for row in rows], numbers=head[1:])
    largest = next(row.peak_bytes / MEGA for row in rows if row.name == LARGEST)
    verdict = "met" if largest <= LARGEST_PEAK_MB else "MISSED"
    return (
        f"{shown}\n`{LARGEST}`, a process that loads it and tags a clip: peak memory {largest:.0f} MB "
        f"(≤ {LARGEST_PEAK_MB} MB: {verdict}).\n"
    )
