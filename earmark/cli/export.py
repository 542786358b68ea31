"""``earmark export``: a model as a file for another runtime, compared with the model first.

Conventions: what was compared and what was written go to standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from earmark.cli.program import SHIP, command, one_matrix_thread
from earmark.cli.progress import download_bar
from earmark.errors import extra


@command(SHIP)
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name, a checkpoint (.safetensors) or a model file (.onnx).", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file: *.onnx, *.xml (OpenVINO), *.tflite or *.pt2.")],
    target: Annotated[
        Literal["onnx", "openvino", "litert", "pt2"] | None,
        typer.Option(help="The runtime; by default the one that the file's ending says."),
    ] = None,
    waveform: Annotated[
        bool, typer.Option("--waveform", help="Take waveforms: the log-mel is computed within the graph.")
    ] = False,
    seconds: Annotated[
        str | None,
        typer.Option(
            help="The one length it takes, or dynamic: any length, which is the default where it can be."
        ),
    ] = None,
    precision: Annotated[
        Literal["fp16", "bf16"] | None,
        typer.Option(help="What weights are stored in; for int8 export what earmark compress wrote."),
    ] = None,
    recording: Annotated[
        list[Path] | None,
        typer.Option(help="Compare by this recording too, besides the one that ships; may be repeated."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Writes a model for another runtime, unless it answers otherwise than the model."""
    one_matrix_thread()
    with extra("earmark export", "train"):
        from earmark.export.export import export as export_model
        from earmark.export.source import Form, open_source
        from earmark.export.targets import target_of

    form = Form(waveform, _length(seconds), precision)
    with download_bar(quiet) as report:
        runtime = target_of(out, target)
        made = export_model(open_source(model, report), out, runtime, form, recording or ())
    print(made.summary())


def _length(text: str | None) -> float | Literal["dynamic"] | None:
    if text is None:
        return None
    if text == "dynamic":
        return "dynamic"
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither a number nor dynamic", param_hint="--seconds"
        ) from None
