"""``earmark similar``: the recordings of an archive that sound most like a given one.

Conventions: hits go to standard output, the most similar first.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.options import Device, EngineName, Precision, Quiet, Threads
from earmark.cli.program import USE, command, one_matrix_thread
from earmark.cli.progress import download_bar
from earmark.cli.terminal import say_raw, warn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark.search import Hit


@command(USE)
def similar(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Audio file, or - for standard input.")],
    archive: Annotated[
        str, typer.Argument(metavar="ARCHIVE", help="A folder or .parquet file that earmark embed wrote.")
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of hits.")] = 20,
    every_window: Annotated[
        bool, typer.Option("--every-window", help="List every window, not only a recording's best.")
    ] = False,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Search where this label was found; repeatable."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Such as duration_s>=5 or path~kitchen; repeatable."),
    ] = None,
    tags: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where --label looks: a folder that earmark tag wrote.")
    ] = "",
    index: Annotated[
        bool, typer.Option("--index", help="Search approximately, with an index kept beside the archive.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="Model of the archive (default: by its name)."),
    ] = None,
    form: Annotated[
        Literal["table", "jsonl", "csv"], typer.Option("--format", "-f", help="Output format.")
    ] = "table",
    quiet: Quiet = False,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
    threads: Threads = None,
) -> None:
    """Find recordings that sound alike."""
    one_matrix_thread()
    from earmark.batch.analysis import model_digests
    from earmark.inference.load import load
    from earmark.search import Condition, EmbeddingArchive, EmbeddingIndex, Filters, most_similar

    filters = Filters(label or (), list(map(Condition.parse, where or ())), tags)
    if index and filters:
        raise typer.BadParameter("cannot be combined with --label and --where", param_hint="--index")
    opened = EmbeddingArchive(archive)
    name = model or opened.model
    if not name:
        raise typer.BadParameter("the archive names no model", param_hint="--model")
    with download_bar(quiet) as bar:
        tagger = load(name, device=device, engine=engine, precision=precision, threads=threads, progress=bar)
    if opened.model_sha256 not in ([], model_digests([name])):
        raise typer.BadParameter(
            f"{archive} was embedded with another file than {name}", param_hint="--model"
        )
    embeddings = tagger.embed(query, **opened.lengths)
    warn(embeddings.warnings, quiet)
    if index:
        hits = EmbeddingIndex(opened).most_similar(embeddings.clip, top, every_window=every_window)
    else:
        hits = most_similar(embeddings.clip, opened, top, filters=filters, every_window=every_window)
    say_raw({"table": _table, "jsonl": _jsonl, "csv": _csv}[form](hits))


def _table(hits: Sequence[Hit]) -> str:
    lines = [f"{hit.similarity:6.3f}  {hit.start_s:8.1f} - {hit.end_s:.1f} s  {hit.path}\n" for hit in hits]
    return "".join(lines) or "Nothing matches.\n"


def _jsonl(hits: Sequence[Hit]) -> str:
    rounded = [hit._asdict() | {"similarity": round(hit.similarity, 4)} for hit in hits]
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rounded)


def _csv(hits: Sequence[Hit]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("similarity", "path", "start_s", "end_s"))
    writer.writerows(
        (f"{hit.similarity:.4f}", hit.path, f"{hit.start_s:.3f}", f"{hit.end_s:.3f}") for hit in hits
    )
    return text.getvalue()
