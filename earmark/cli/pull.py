"""``earmark pull`` and ``earmark convert``: weights of others become model files; only convert needs PyTorch.

Conventions: the paths of what was written go to standard output, one a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from earmark.cli.options import Quiet
from earmark.cli.program import MODELS, command
from earmark.cli.progress import download_bar
from earmark.cli.terminal import say_raw


@command(MODELS)
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that earmark models lists.")],
    file: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Use a local file of the published weights."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Download again.")] = False,
    quiet: Quiet = False,
) -> None:
    """Download a published model."""
    from earmark.hub.predictions import published_predictions, pull_predictions
    from earmark.hub.pull import pull as pull_model

    fetch = pull_predictions if name in published_predictions() else pull_model
    with download_bar(quiet) as bar:
        written = fetch(name, file=file, force=force, progress=bar)
    say_raw(f"{written}\n")


@command(MODELS)
def convert(
    weights: Annotated[
        Path,
        typer.Argument(metavar="WEIGHTS", help="A checkpoint of PyTorch or flax, or a safetensors file."),
    ],
    architecture: Annotated[str, typer.Option(metavar="NAME", help="Name of the architecture.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Model file; a checkpoint is written beside it."),
    ],
    argument: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Argument of the architecture: strides=[2,2,2,1]; repeatable."
        ),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(metavar="LABELS", help="A label set such as audioset, or a file of labels.")
    ] = None,
    front_end: Annotated[
        str | None, typer.Option(metavar="NAME", help="Front-end preset (default: the architecture's).")
    ] = None,
    front_end_argument: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Other value than the preset's: n_mels=64; repeatable."),
    ] = None,
    task: Annotated[
        Literal["multi_label", "single_label"] | None,
        typer.Option(help="Whether labels may co-occur (default: the label set's)."),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Window length (default: the architecture's)."),
    ] = None,
    padding: Annotated[
        Literal["zero", "repeat"], typer.Option(help="How a clip shorter than the window is filled up.")
    ] = "zero",
    license: Annotated[str, typer.Option(metavar="NAME", help="Licence of the weights.")] = "",  # noqa: A002
) -> None:
    """Convert weights of a known architecture."""
    from earmark.hub.convert import convert as convert_weights

    written = convert_weights(
        weights,
        output,
        architecture=architecture,
        arguments=_values(argument or (), "--argument"),
        labels=labels,
        front_end=front_end,
        front_end_args=_values(front_end_argument or (), "--front-end-argument"),
        task=task,
        window_s=window,
        padding=padding,
        license=license,
    )
    say_raw("".join(f"{path}\n" for path in written))


def _values(options: Iterable[str], option: str) -> dict[str, Any]:
    """Values of KEY=VALUE options, in TOML; a bare word is a string."""
    import tomllib

    values: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE", param_hint=option)
        try:
            values[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value.strip()
    return values
