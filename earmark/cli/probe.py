"""``earmark probe``: what shallow networks learn from a model's embedding, as in the HEAR benchmark.

Conventions: scores go to standard output; a clip that cannot be read is named on standard error.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from earmark.cli.options import AsJson, Audio, Dataset, Device, Quiet
from earmark.cli.program import TRAIN, command
from earmark.cli.progress import status_line
from earmark.cli.terminal import complain, say


@command(TRAIN)
def probe(
    dataset: Dataset,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="Name or file of a model (default: the one that ships)."
        ),
    ] = "",
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Embed by this stage of the network, such as b13; repeatable."),
    ] = None,
    pool: Annotated[str, typer.Option(help="How feature maps of stages become vectors.")] = "mean",
    audio: Audio = None,
    settings: Annotated[
        int, typer.Option(min=1, max=16, metavar="N", help="Settings of the networks to try, of 16.")
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the networks.")] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
    device: Device = "cpu",
) -> None:
    """Rate a model's embedding as the HEAR benchmark does."""
    from earmark.integrations.hear import load_model
    from earmark.integrations.hear_probe import probe_model

    with status_line(quiet) as show:
        found = probe_model(
            load_model(model, stages=stage, pool=pool, device=device),
            dataset,
            audio=audio,
            count=settings,
            seed=seed,
            progress=show,
            on_error=complain,
        )
    chosen = found.setting._asdict()
    if as_json:
        scores = {str(fold): score for fold, score in found.scores.items()}
        say(json.dumps({"metric": found.metric, "mean": found.mean, "scores": scores, "setting": chosen}))
        return
    for fold, score in found.scores.items():
        say(f"fold {fold}  {found.metric} {score:.4f}")
    say(f"mean    {found.metric} {found.mean:.4f} (deviation {found.deviation:.4f})")
    say("setting " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in chosen.items()))
