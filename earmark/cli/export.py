"""``earmark export``: a model, or an ensemble, as a file for a runtime or a page, verified against the model.

Conventions: the differences from the model and the files that were written go to standard output.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from earmark.cli.options import Quiet
from earmark.cli.program import SHIP, command, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.cli.terminal import say
from earmark.errors import extra
from earmark.model_file.atomic import require_other_files

if TYPE_CHECKING:
    from earmark.hub.download import Progress
    from earmark.serve.onnxruntime_web import WebRuntime

INT8 = "With --precision int8"
PAGE = "With --page"


@command(SHIP)
def export(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODELS]...",
            help="Names or files (default: the model that ships); several are an ensemble.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="MODEL", help="As MODELS; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help=".onnx, .xml (OpenVINO), .tflite, .pt2 or .safetensors."
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a page that runs the model in the browser instead."),
    ] = None,
    target: Annotated[
        Literal["onnx", "openvino", "litert", "pt2", "checkpoint"] | None,
        typer.Option(help="Runtime (default: that of the suffix)."),
    ] = None,
    waveform: Annotated[
        bool, typer.Option("--waveform", help="Compute the log-mel in the graph, from waveforms.")
    ] = False,
    seconds: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS", help="Fixed window length, or dynamic (default: dynamic if possible)."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option(help="Number format of the weights; int8: of most layers (default: the model's)."),
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Fold batch norms into the layers before them.")
    ] = False,
    without_epsilon: Annotated[
        bool, typer.Option("--without-epsilon", help="Fuse as SP4ASC does, which is not exact.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the exported model (default: the model's).")
    ] = None,
    recording: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Verify with this audio file too; repeatable."),
    ] = None,
    quiet: Quiet = False,
    calibration_set: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="CSV file, audio file or folder to choose ranges by; repeatable.",
            rich_help_panel=INT8,
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where relative paths start (default: the CSV file's folder).",
            rich_help_panel=INT8,
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="DROP",
            help="Largest drop of mAP or accuracy on these clips.",
            rich_help_panel=INT8,
        ),
    ] = 0.005,
    layout: Annotated[
        Literal["onnx", "openvino"],
        typer.Option(help="Runtime to be fastest in.", rich_help_panel=INT8),
    ] = "onnx",
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option(
            "--onnxruntime-web",
            metavar="FOLDER",
            help="An unpacked npm package (default: downloaded).",
            rich_help_panel=PAGE,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a folder that is no page.", rich_help_panel=PAGE)
    ] = False,
) -> None:
    """Export a model to another runtime and verify it."""
    one_matrix_thread()
    _check_choice(output, page, target, (onnxruntime_web, force))
    with extra("earmark export", "train"):
        from earmark.export.calibration_set import find_clips
        from earmark.export.export import export as export_model
        from earmark.export.options import ExportOptions
        from earmark.export.source import open_source
        from earmark.hub import registry
        from earmark.serve.browser_model import browser_model
        from earmark.serve.static_page import write_page

    options = ExportOptions(
        target=target,
        waveform=waveform or page is not None,
        seconds=_seconds(seconds),
        precision=precision,
        fuse=fuse,
        fuse_eps=0.0 if without_epsilon else None,
        max_drop=max_drop,
        int8_layout=layout,
        name=name,
    )
    names = [*(models or ()), *(model or ())] or [registry.DEFAULT]
    outputs = [output] if output is not None else []
    require_other_files(outputs, [*names, *(recording or ()), *(calibration_set or ())])
    with download_bar(quiet) as bar:
        runtime = _runtime(page, onnxruntime_web, force, bar)
    with download_bar(quiet) as bar:
        sources = [open_source(one, bar) for one in names]
    clips = find_clips(calibration_set, sources[0].info, audio) if calibration_set else []
    with status_line(quiet) as show:
        inputs: dict[str, Any] = {
            "calibration_clips": clips,
            "recordings": recording or [],
            "progress": show,
        }
        if output is not None:
            done = export_model(sources, output, options, **inputs).summary()
        elif page is not None and runtime is not None:
            done = write_page(page, browser_model(sources, options, **inputs), runtime, force=force).summary()
    say(done)


def _runtime(page: Path | None, folder: Path | None, force: bool, bar: Progress | None) -> WebRuntime | None:
    """What runs the model of a page; the folder of the page is checked first."""
    if page is None:
        return None
    from earmark.serve.onnxruntime_web import web_runtime
    from earmark.serve.static_page import require_page_folder

    require_page_folder(page, force)
    return web_runtime(folder, bar)


def _check_choice(
    output: Path | None, page: Path | None, target: str | None, page_options: Iterable[object]
) -> None:
    if (output is None) == (page is None):
        raise typer.BadParameter("give either --output FILE or --page FOLDER", param_hint="--output")
    if page is not None and target is not None:
        raise typer.BadParameter("does not apply to --page", param_hint="--target")
    if page is None and any(page_options):
        raise typer.BadParameter("apply to --page only", param_hint="--onnxruntime-web and --force")


def _seconds(text: str | None) -> float | Literal["dynamic"] | None:
    if text is None:
        return None
    if text == "dynamic":
        return "dynamic"
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"must be a number or dynamic, got {text!r}", param_hint="--seconds"
        ) from None
