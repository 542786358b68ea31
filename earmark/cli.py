"""The command line: each sub-command is one call of the public interface.

Conventions: results go to standard output, everything else to standard error. Exit code 0: all went well;
1: some files could not be tagged; 2: the command was wrong, or nothing could be done. An error is one line,
never a traceback.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from earmark.errors import EarmarkError
from earmark.files import write_atomically
from earmark.output import Format
from earmark.version import __version__

if TYPE_CHECKING:
    from earmark.tagger import Tagger

app = typer.Typer(
    name="earmark",
    help="Says what is heard in recordings.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", help="A model's name or file; by default the one that ships.")
]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    try:
        code = app(arguments, standalone_mode=False)
    except EarmarkError as error:
        _complain(str(error))
        code = 2
    except TyperException as error:
        _complain(error.format_message())
        code = 2
    except (Abort, KeyboardInterrupt):
        _complain("interrupted")
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, as in `earmark tag ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        _complain(str(error))
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> None:
    print("earmark: " + " ".join(message.split()), file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def earmark(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Says what is heard in recordings."""


@app.command()
def tag(
    files: Annotated[
        list[str], typer.Argument(help="Recordings, folders, or - for standard input.", show_default=False)
    ],
    model: ModelOption = None,
    top: Annotated[int, typer.Option(min=1, help="Tags shown of each recording.")] = 10,
    threshold: Annotated[
        str | None,
        typer.Option(help="Only tags of at least this score, 0 to 1; auto: the model's own threshold."),
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Length of a window, in seconds; by default the model's.")
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="From one window to the next, in seconds; by default the window.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Of the output.")] = Format.TABLE,  # noqa: A002
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file, whole or not at all.")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Search folders within folders.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no warnings.")] = False,
) -> None:
    """Says what is heard in recordings."""
    # NumPy's matrix library reads this when it is loaded; the front-end's products are too small to share
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from earmark.audio.find import find_recordings
    from earmark.output import layout
    from earmark.tagger import load

    tagger = load(model, threads=threads)
    parts = layout(format, top, _threshold(threshold, tagger), tagger.record.threshold)
    tagged = failed = 0
    with _writer(output) as write, _progress(quiet) as progress:
        write(parts.head)
        for found in find_recordings(files, recursive):
            progress(found if isinstance(found, str) else "")
            try:
                if isinstance(found, EarmarkError):
                    raise found
                result = tagger.tag(found, window_s=window, hop_s=hop)
            except (EarmarkError, OSError) as error:
                failed += 1
                _complain(str(error))
                continue
            write((parts.between if tagged else "") + parts.render(result))
            tagged += 1
            if not quiet:
                for warning in result.warnings:
                    _complain(f"warning: {warning}")
        write(parts.tail)
    if failed:
        raise typer.Exit(1 if tagged else 2)


def _threshold(text: str | None, tagger: Tagger) -> float | None:
    if text is None:
        return None
    if text == "auto":
        if tagger.record.threshold is None:
            raise typer.BadParameter(
                f"model {tagger.record.name} has no threshold of its own: give a number",
                param_hint="--threshold",
            )
        return tagger.record.threshold
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(
            f"{text!r} is neither a number from 0 to 1 nor auto", param_hint="--threshold"
        )
    return value


@contextmanager
def _writer(output: Path | None) -> Iterator[Callable[[str], object]]:
    """Writes to standard output as it goes, or to a file when all is done."""
    if output is None:
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
        yield sys.stdout.write
        sys.stdout.flush()
        return
    pieces: list[str] = []
    yield pieces.append
    write_atomically(output, "".join(pieces).encode("utf-8", "surrogateescape"))


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows which file is being worked on, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(text.replace("[", r"\["))


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Lists the models that are known by name."""
    from earmark import weights
    from earmark.model_file import read_record

    rows: list[dict[str, Any]] = []
    for name in weights.names():
        path = weights.find(name)
        record = read_record(path)
        rows.append(
            {
                "name": name,
                "default": name == weights.DEFAULT,
                "labels": len(record.labels),
                "sample_rate": record.front_end.sample_rate,
                "window_s": record.window_s,
                "megabytes": round(path.stat().st_size / 1e6, 1),
                "license": record.license,
                "description": record.description,
            }
        )
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        mark = " (default)" if row["default"] else ""
        print(
            f"{row['name']}{mark}: {row['labels']} labels, {row['megabytes']} MB, {row['license']}."
            f" {row['description']}"
        )


@app.command()
def info(
    model: Annotated[
        str | None, typer.Argument(help="A model's name or file; by default the one that ships.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole record, as JSON.")] = False,
) -> None:
    """Prints what a model carries: its card, labels, front-end and scores."""
    from earmark import weights
    from earmark.model_file import read_record

    record = read_record(weights.find(model))
    if as_json:
        print(json.dumps(json.loads(record.to_json()), indent=1, ensure_ascii=False))
        return
    front_end = ", ".join(f"{key} {value}" for key, value in record.front_end.to_dict().items())
    print(f"{record.name}: {record.description}")
    print(
        f"task: {record.task}, threshold: {record.threshold}, window: {record.window_s} s,"
        f" padding: {record.padding}"
    )
    print(
        f"architecture: {record.architecture} {json.dumps(dict(record.arguments))},"
        f" embedding: {record.embedding_size}"
    )
    print(f"front-end: {front_end}")
    print(f"license: {record.license}\nlabels: {', '.join(record.labels)}")
    if record.card:
        print(f"\n{record.card}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A TOML file.", show_default=False)],
    override: Annotated[
        list[str] | None, typer.Option("--set", help="Replace a value: optimizer.epochs=5")
    ] = None,
    fold: Annotated[int | None, typer.Option(min=1, help="Train and judge this fold only.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/<name of the recipe>.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to use; by default one per core.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Trains a network as a recipe says, or goes on where a killed run stopped; ends with a model file."""
    with _extra("earmark train", "train"):
        import torch

        from earmark.deploy.export import export_model
        from earmark.train.card import model_card
        from earmark.train.folds import cross_validate, run_folder
        from earmark.train.loop import train as train_network
        from earmark.train.recipe import load_recipe

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_recipe(recipe, override or [])
    folder = out or Path("runs") / loaded.name
    report = _silent if quiet else _progress_printer()
    if fold is not None:
        train_network(loaded, run_folder(folder, fold), fold, report)
        return
    judgement = cross_validate(loaded, folder, report)
    card = model_card(loaded, judgement)
    model_file = folder / f"{loaded.name}.onnx"
    difference = export_model(judgement.network, judgement.record.changed(card=card), model_file)
    write_atomically(folder / "card.md", card)
    if not quiet:
        print(f"wrote {model_file} (equal to the network within {difference:.1g})", file=sys.stderr)


@contextmanager
def _extra(what: str, extra: str) -> Iterator[None]:
    """Says which extra to install where a package that it brings is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        from earmark.errors import MissingExtraError

        if error.name and error.name.startswith("earmark"):
            raise
        raise MissingExtraError(what, extra) from None


def _silent(facts: Mapping[str, Any]) -> None:
    """Reports nothing."""


def _progress_printer() -> Callable[[Mapping[str, Any]], None]:
    """One line an epoch, with rate and time left; on a terminal also a line that moves with each step."""
    latest: dict[str, Any] = {}

    def show(facts: Mapping[str, Any]) -> None:
        if "step" in facts:
            latest.update(facts)
            if sys.stderr.isatty():
                print(f"\r\x1b[2K{_as_line(facts)}", end="\r", file=sys.stderr, flush=True)
            return
        pace = ("clips_per_s", "left_min") if "epoch" in facts and latest else ()
        print(_as_line({**facts, **{key: latest[key] for key in pace}}), file=sys.stderr)

    return show


def _as_line(facts: Mapping[str, Any]) -> str:
    return "  ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()
    )
