"""One run over an archive on a Ray cluster, with Ray Data; recordings and tables may lie in buckets.

Conventions: the items of the dataset are groups of paths. The actor that has analysed a group writes its rows
as one part of the archive, named by the group's paths: a group that Ray runs again, because an actor or a
machine was lost, replaces its part, so that no row is lost and none is there twice. Rows are those of
:func:`earmark.batch.run.write_archive`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from earmark.batch.analysis import Analysis
from earmark.batch.done_paths import DonePaths
from earmark.batch.part_folder import PartFolder
from earmark.batch.resume import require_same
from earmark.batch.run import Summary
from earmark.batch.tables import FILES, text_of_path
from earmark.errors import DataError, EarmarkError, RunError, extra, first_line

Item = str | EarmarkError

GROUP = 32
"""Paths in a group: at most so many are analysed again when an actor is lost."""
GROUPS_AT_ONCE = 100_000
"""Groups of one Ray dataset; longer lists are worked through in several, so that memory does not grow."""


def write_archive_on_ray(
    analysis: Analysis,
    paths: Iterable[Item],
    folder: str,
    *,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    report: Callable[[Summary, str, str | None], object] = lambda summary, path, error: None,
) -> Summary:
    """Analyses recordings on a Ray cluster, and writes the tables of an archive.

    Ray connects to the cluster that the environment variable ``RAY_ADDRESS`` names, else starts on this
    machine. Recordings, models and the folder have to be reachable under the same names from every machine.

    Args:
        analysis: What is done with each; its tagger opened with one thread.
        paths: Read as they are needed; errors among them are reported, and have no rows.
        folder: For the tables: a path, or an address such as ``s3://bucket/results``.
        workers: Number of actors, each with one core; None: one per core of the cluster.
        resume: Go on with the tables that are there.
        force: Replace the tables that are there.
        report: Called after each recording, with the summary so far, its path, and its error if it has one.

    Returns:
        The summary.

    Raises:
        DataError: If there are tables and neither is asked for, or they are of another model or settings.
        RunError: If the cluster or the folder fails; what was done is kept.
        MissingExtraError: If Ray, pyarrow or fsspec is not installed.
    """
    with extra("a Ray cluster", "ray"):
        import ray.data  # noqa: F401
    schemas = analysis.schemas()
    try:
        target = PartFolder(folder)
        done = _prepare(target, analysis, resume, force)
        summary = Summary()
        left = _left(paths, done, summary, report)
        with _ray():
            while groups := list(islice(_groups(left), GROUPS_AT_ONCE)):
                for path, duration_s, error in _answers(groups, analysis, folder, workers):
                    summary.add(path, duration_s, error)
                    report(summary, path, error)
        if not target.parts():  # tables without rows can still be read
            target.write("part-empty", dict.fromkeys(schemas, ()), schemas)
    except OSError as error:
        raise RunError(
            f"{folder}: {error.strerror or first_line(error)}: what was done is kept: run the same command "
            "with --resume to go on"
        ) from error
    summary.ended_s = time.monotonic()
    return summary


def _prepare(target: PartFolder, analysis: Analysis, resume: bool, force: bool) -> DonePaths:
    """Removes what does not belong into the archive; returns the paths that are done."""
    if force:
        target.remove(all_parts=True)
        return DonePaths()
    found = target.info()
    if found is None:
        return DonePaths()
    if not resume:
        raise DataError(
            f"{target.folder}: holds the tables of an earlier run: continue it with --resume, replace it "
            "with --force, or choose another folder"
        )
    require_same(target.folder, found, analysis.info)
    target.remove(all_parts=False)
    return DonePaths(target.paths())


def _left(
    paths: Iterable[Item],
    done: DonePaths,
    summary: Summary,
    report: Callable[[Summary, str, str | None], object],
) -> Iterator[str]:
    """The paths that no earlier run has done."""
    for path in paths:
        if isinstance(path, EarmarkError):
            summary.add("", None, str(path))
            report(summary, "", str(path))
        elif text_of_path(path) in done:
            summary.earlier += 1
        else:
            yield path


def _groups(paths: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Rows of a dataset: the name of a part, and its paths as bytes, of any encoding."""
    while group := [os.fsencode(path) for path in islice(paths, GROUP)]:
        digest = hashlib.blake2b(b"\0".join(group), digest_size=12).hexdigest()
        yield {"part": f"part-{digest}", "paths": group}


def _answers(
    groups: list[dict[str, Any]], analysis: Analysis, folder: str, workers: int | None
) -> Iterator[tuple[str, float | None, str | None]]:
    """Analyses groups on the cluster; path, duration and error of each recording as its part is written."""
    import ray.data

    resources: Callable[[], dict[str, float]] = ray.cluster_resources
    size = workers or max(1, int(resources().get("CPU", 1)))
    dataset = ray.data.from_items(groups, override_num_blocks=len(groups)).map(
        _GroupActor,  # type: ignore[arg-type]  # Ray's types have no row-wise classes
        fn_constructor_args=(pickle.dumps(analysis), folder),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(size, len(groups))),
        num_cpus=1,
    )
    try:
        for row in dataset.iter_rows():
            yield from zip(map(os.fsdecode, row["paths"]), row["durations_s"], row["errors"], strict=True)
    except ray.exceptions.RayError as error:
        raise RunError(
            f"the Ray cluster failed ({first_line(error)}): what was done is kept: run the same command with "
            "--resume to go on"
        ) from error


class _GroupActor:
    """Holds the model in a process of the cluster, and works through groups of paths.

    Args:
        analysis: Pickled by the driver.
        folder: Where parts are written.
    """

    def __init__(self, analysis: bytes, folder: str) -> None:
        self._analysis: Analysis = pickle.loads(analysis)
        self._folder, self._schemas = PartFolder(folder), self._analysis.schemas()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes the part of a group."""
        found = [self._analysis(os.fsdecode(path)) for path in row["paths"]]
        rows = {table: [one for part in found for one in part[table]] for table in self._schemas}
        self._folder.write(row["part"], rows, self._schemas)
        durations = [one["duration_s"] for one in rows[FILES]]
        return {
            "paths": row["paths"],
            "durations_s": durations,
            "errors": [one["error"] for one in rows[FILES]],
        }


@contextmanager
def _ray() -> Iterator[None]:
    """A connection to a cluster, without usage statistics and messages of others."""
    import ray
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        yield
    finally:
        if started:
            ray.shutdown()
