"""``earmark compress``: a smaller model, and what it cost.

Conventions: what became of the model goes to standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from earmark.cli.program import SHIP, command, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.errors import extra
from earmark.model_file.atomic import write_atomically

if TYPE_CHECKING:
    from earmark.export.source import Source
    from earmark.model_file.info import Precision


@command(SHIP)
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
        Literal["fp32", "fp16", "bf16", "int8"] | None,
        typer.Option(help="What weights are stored in; int8: what most layers compute in."),
    ] = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(help="For int8: manifest, recordings or a folder of them; may be given again."),
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Folder of a manifest's recordings; by default its own.")
    ] = None,
    bound: Annotated[
        float, typer.Option(min=0, help="For int8: the largest loss of the score on these clips.")
    ] = 0.005,
    engine: Annotated[
        Literal["onnx", "openvino"], typer.Option(help="For int8: what the graph is laid out for.")
    ] = "onnx",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Propose what fits it, as a recipe (--out FILE.toml) to train on the manifests of --clips: "
            "dcase2021 to dcase2025, or params=128kB,macs=30M,seconds=1."
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Makes a model smaller, and says by how much its answers then differ."""
    if without_epsilon and not fuse:
        raise typer.BadParameter("goes with --fuse", param_hint="--without-epsilon")
    if not fuse and precision is None and budget is None:
        raise typer.BadParameter("name what to do: --fuse, --precision or --budget", param_hint="MODEL")
    if (precision == "int8" or budget is not None) != bool(clips):
        raise typer.BadParameter("int8 and --budget need clips, others do not", param_hint="--clips")
    one_matrix_thread()
    with extra("earmark compress", "train"):
        from earmark.export.compress import compress as make_smaller

    if budget is not None:
        print(_propose(model, budget, precision or "fp16", clips or [], audio, out))
    elif precision == "int8":
        print(_to_int8(_source(model, quiet), out, (clips or [], audio), bound, engine, quiet))
    else:
        eps = 0.0 if without_epsilon else None
        done = make_smaller(_source(model, quiet), out, fused=fuse, eps=eps, precision=precision or "fp32")
        print(done.summary())


def _propose(
    model: str, budget: str, precision: Precision, clips: list[Path], audio: Path | None, out: Path
) -> str:
    from earmark.evaluation.complexity.budget import parse_budget
    from earmark.export.budget_recipe import propose, recipe, require_manifests
    from earmark.export.calibration_set import find_clips
    from earmark.export.source import open_source
    from earmark.hub import registry

    if out.suffix != ".toml":
        raise typer.BadParameter("a budget gives a recipe: name it *.toml", param_hint="--out")
    file = registry.find(model)
    info = open_source(str(file)).info
    require_manifests(clips, find_clips(clips, info, audio))
    found = propose(info, parse_budget(budget), precision)
    write_atomically(out, recipe(found, info, file, (clips, audio), out))
    return f"{found.summary()}\nwrote {out}, by which it learns from {info.name}: earmark train {out}"


def _to_int8(
    model: Source,
    out: Path,
    sources: tuple[list[Path], Path | None],
    bound: float,
    engine: Literal["onnx", "openvino"],
    quiet: bool,
) -> str:
    from earmark.export.calibration_set import find_clips
    from earmark.export.compress import compress_to_int8

    found = find_clips(sources[0], model.info, sources[1])
    with status_line(quiet) as show:
        made = compress_to_int8(model, out, found, bound, engine=engine, say=show)
    how = made.info.provenance["int8"]
    kept = f"; nodes in float: {', '.join(made.in_float)}" if made.in_float else ""
    return (
        f"{len(set(made.layers) - set(made.in_float))} of {len(made.layers)} layers in 8 bits{kept}\n"
        f"loses {made.loss:.4f} of {how['judged_by']} on {how['clips']} clips (allowed {bound:g})\n"
        f"wrote {out}, {out.stat().st_size:,} bytes"
    )


def _source(model: str, quiet: bool) -> Source:
    from earmark.export.source import open_source

    with download_bar(quiet) as report:
        return open_source(model, report)
