"""Trainings in processes of their own, one or several that learn together.

They are forked from a server that has imported everything already.
"""

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import toy

START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["earmark.training.trainer"])

SCRIPT = "import json, sys, processes; processes.training(**json.loads(sys.argv[1]))"
"""The same as a program, for ``torchrun``."""


def training(
    clips: str, folder: str, tables: dict[str, Any], dies_at: dict | None = None, dying_rank: int = 0
) -> None:
    """Trains in a folder; the process of a rank kills itself, once, where the facts are these."""
    import torch

    from earmark.cli.terminal import complain
    from earmark.errors import EarmarkError
    from earmark.training import trainer as loop

    torch.set_num_threads(1)
    died, progress = Path(f"{folder}.died"), loop.Trainer._step_facts

    def watched(run):
        facts = progress(run)
        if dies_at and dies_at.items() <= facts.items() and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return facts

    if os.environ.get("RANK", "0") == str(dying_rank):
        loop.Trainer._step_facts = watched
    try:
        loop.train_network(toy.toy_recipe(Path(clips), **tables), Path(folder), 1)
    except EarmarkError as error:
        complain(str(error))
        sys.exit(2)


def _in_process(given: dict[str, Any], environment: dict[str, str], stderr: str) -> None:
    os.environ.update(environment)
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    training(**given)


def together(count: int, **given: Any) -> list[tuple[int | None, str]]:
    """Exit code and standard error of processes that learn as one; see :func:`training`."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = str(listening.getsockname()[1])
    started = []
    for rank in range(count):
        environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        stderr = Path(f"{given['folder']}.{rank}.stderr")
        process = START.Process(target=_in_process, args=(given, environment, str(stderr)))
        process.start()
        started.append((process, stderr))
    for process, _ in started:
        process.join(600)
        process.kill()
        process.join()
    return [(process.exitcode, stderr.read_text(encoding="utf-8")) for process, stderr in started]
