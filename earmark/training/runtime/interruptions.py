"""External causes that end a training, as errors of one line.

Conventions: the last saved state is intact in every case, so the same command resumes from it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed

from earmark.errors import EarmarkError, RunError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WORKER_TRACEBACK = "Original Traceback"
_RESUME = "the same command resumes from the last state"


@contextmanager
def interruptions(folder: Path) -> Iterator[None]:
    """Turns external causes into an error that names the cause and the remedy.

    Raises:
        RunError: If the disk or a memory is full, or a process of the run has died.
    """
    try:
        yield
    except EarmarkError as error:
        if _WORKER_TRACEBACK not in str(error):
            raise
        _, _, message = str(error).strip().splitlines()[-1].partition(": ")  # of a worker's whole traceback
        raise type(error)(message) from None
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise RunError(f"{folder}: {error.strerror}: free some disk space; {_RESUME}") from None
    except RuntimeError as error:
        cause = _cause(error)
        if cause is None:
            raise
        raise RunError(f"{folder}: {cause}; {_RESUME}") from None


def _cause(error: RuntimeError) -> str | None:
    """The external cause of a failure inside PyTorch, if it has one."""
    first = str(error).strip().partition("\n")[0]
    if first.startswith("DataLoader worker"):
        return f"a process that loads clips has died ({first.rstrip('. ')})"
    if isinstance(error, torch.OutOfMemoryError):
        return f"the device's memory is full ({first.partition('. ')[0]}): lower optimizer.batch_size"
    if distributed.is_initialized() and (
        isinstance(error, distributed.DistError) or "gloo" in first or "NCCL" in first
    ):
        return f"process {distributed.get_rank()} has lost another process of the run ({first})"
    return None
