"""``earmark pull`` and ``earmark convert``: weights that others trained become model files.

Conventions: what was written goes to standard output, one path a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earmark.cli.program import MODELS, command
from earmark.cli.progress import download_bar
from earmark.errors import extra

if TYPE_CHECKING:
    from earmark.features.front_end import FrontEnd
    from earmark.hub.registry import Published


@command(MODELS)
def pull(
    name: Annotated[str, typer.Argument(help="A name that earmark models lists.", show_default=False)],
    source: Annotated[
        Path | None, typer.Option("--from", help="Take this file, brought by hand, instead of fetching it.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Fetch and convert it even if it is here.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Fetches published weights, checks them, and makes a model file of them."""
    from earmark.hub.pull import pull as pull_weights

    with download_bar(quiet) as report:
        print(pull_weights(name, source=source, again=again, report=report))


@command(MODELS)
def convert(
    weights: Annotated[
        Path, typer.Argument(help="A PyTorch checkpoint or a safetensors file.", show_default=False)
    ],
    arch: Annotated[str, typer.Option(help="Name of the architecture.")],
    out: Annotated[Path, typer.Option(help="The model file; the weights go beside it as safetensors.")],
    arch_args: Annotated[
        list[str] | None, typer.Option(help="What the architecture is built with: strides=[2,2,2,1]")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="A file with one label a line, or a label set: audioset, tau_scenes.")
    ] = None,
    front_end: Annotated[
        list[str] | None,
        typer.Option(help="Its name, and values that differ: hop_length=480; by default the published one."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="multi_label or single_label; by default that of the label set.")
    ] = None,
    window: Annotated[
        float | None, typer.Option(help="Length of a window, in seconds; by default the published one.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; by default that of the file.")] = None,
    license: Annotated[str, typer.Option(help="Of the weights.")] = "",  # noqa: A002
) -> None:
    """Makes a model file of any checkpoint of a known architecture, if all its weights fit."""
    from earmark.model_file.info import ModelInfo

    with extra("earmark convert", "train"):
        from earmark.hub.build import convert as convert_weights
        from earmark.models.registry import create_config

    arguments = _values(arch_args or [], "--arch-args")
    create_config(arch, **arguments)
    names = _labels(labels, arguments.pop("num_classes", None))
    kin = _kin(arch, labels)
    info = ModelInfo(
        name=name or out.stem,
        labels=names,
        front_end=_front_end(front_end or [], kin),
        task=_given(task, _usual_task(labels), "--task multi_label or single_label"),
        architecture=arch,
        arguments=arguments,
        window_s=_given(window, kin and kin.window_s, "--window SECONDS"),
        padding="repeat",
        embedding_size=1,  # filled in where the network is built
        license=license,
        source=f"converted from {weights.name}",
    )
    checkpoint = out.with_suffix(".safetensors")
    convert_weights(weights, info, checkpoint=checkpoint, model_file=out)
    print(out)
    print(checkpoint)


def _kin(architecture: str, labels: str | None) -> Published | None:
    """The first published model of an architecture, if possible with these labels."""
    from earmark.hub.registry import published

    same = [known for known in published().values() if known.architecture == architecture]
    return min(same, key=lambda known: known.labels != labels, default=None)


def _usual_task(labels: str | None) -> str | None:
    from earmark.hub.registry import published

    tasks = (known.task for known in published().values() if labels and known.labels == labels)
    return next(tasks, None)


def _given(value: Any, usual: Any, option: str) -> Any:
    if value is None and not usual:
        raise typer.BadParameter(f"it is not known from the published models: give {option}")
    return usual if value is None else value


def _labels(labels: str | None, num_classes: Any) -> tuple[str, ...]:
    if labels is None:
        if not isinstance(num_classes, int) or num_classes < 1:
            raise typer.BadParameter(
                "give a label set or a file with one label a line; or, for classes without names,"
                " --arch-args num_classes=N",
                param_hint="--labels",
            )
        return tuple(f"output {number}" for number in range(num_classes))
    from earmark.model_file.labels import read_labels

    names = read_labels(labels)
    if num_classes not in (None, len(names)):
        raise typer.BadParameter(
            f"num_classes = {num_classes}, but there are {len(names)} labels", param_hint="--arch-args"
        )
    return names


def _front_end(options: Sequence[str], kin: Published | None) -> FrontEnd:
    from earmark.features.front_end import FrontEnd
    from earmark.features.presets import FRONT_ENDS

    named = [option for option in options if "=" not in option]
    if len(named) > 1 or any(name not in FRONT_ENDS for name in named):
        raise typer.BadParameter(
            f"{' '.join(named)!r} is no front-end: one of {', '.join(FRONT_ENDS)}", param_hint="--front-end"
        )
    base = FRONT_ENDS[named[0]] if named else _given(None, kin and kin.front_end, "--front-end NAME")
    changes = _values([option for option in options if "=" in option], "--front-end")
    return FrontEnd.from_dict(base.to_dict() | changes)


def _values(options: Sequence[str], option: str) -> dict[str, Any]:
    """Values of ``key=value`` options, in TOML; a bare word is a text."""
    import tomllib

    values: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise typer.BadParameter(f"{text!r} is not of the form key=value", param_hint=option)
        try:
            values[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = value.strip()
    return values
