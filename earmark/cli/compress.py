"""``earmark compress``: a smaller model, and what it cost.

Conventions: what became of the model goes to standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.program import app, download_bar
from earmark.errors import extra

if TYPE_CHECKING:
    from earmark.deploy.compress import Model


@app.command()
def compress(
    model: Annotated[str, typer.Argument(help="A model's name, file or checkpoint.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The smaller model: .onnx or, of a checkpoint, .safetensors.")],
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Fold batch norms into the layers before them.")
    ] = False,
    without_epsilon: Annotated[
        bool, typer.Option("--without-epsilon", help="Fuse as SP4ASC did, which is not exact.")
    ] = False,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16"], typer.Option(help="What the weights are stored in.")
    ] = "fp32",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Makes a model smaller, and says by how much its answers then differ."""
    if without_epsilon and not fuse:
        raise typer.BadParameter("goes with --fuse", param_hint="--without-epsilon")
    if not fuse and precision == "fp32":
        raise typer.BadParameter("name what to do: --fuse or --precision", param_hint="MODEL")
    with extra("earmark compress", "train"):
        from earmark.deploy.compress import compress as make_smaller

    eps = 0.0 if without_epsilon else None
    report = make_smaller(_open(model, quiet), out, fused=fuse, eps=eps, precision=precision)
    print(report.in_words())


def _open(model: str, quiet: bool) -> Model:
    """Weights where a name or a checkpoint has them; else the graph."""
    from earmark import weights, zoo
    from earmark.deploy.compress import Model, open_model

    known = weights.published().get(model)
    if known is not None and known.labels and not Path(model).is_file():
        with download_bar(quiet) as report:
            network, record = zoo.trained(model, report)
        return Model(record, network, b"")
    return open_model(weights.find(model))
