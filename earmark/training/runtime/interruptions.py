"""What stops a training from outside, said in one line.

Conventions: the last state of the run is whole whatever happened, so the same command goes on from it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed

from earmark.errors import EarmarkError, RunError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FROM_WORKER = "Original Traceback"
_GO_ON = "the same command goes on from the last state"


@contextmanager
def stops(folder: Path) -> Iterator[None]:
    """Turns what stops the run of a folder into an error that says what happened and what to do.

    Raises:
        RunError: If the disk is full, memory is, or a process of the run has died.
    """
    try:
        yield
    except EarmarkError as error:
        if _FROM_WORKER not in str(error):
            raise
        _, _, said = str(error).strip().splitlines()[-1].partition(": ")  # a worker sends its whole traceback
        raise type(error)(said) from None
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise RunError(f"{folder}: {error.strerror}: free some space there; {_GO_ON}") from None
    except RuntimeError as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise RunError(f"{folder}: {reason}; {_GO_ON}") from None


def _reason(error: RuntimeError) -> str | None:
    """What a failure inside PyTorch comes from, where that is around the training and not in it."""
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
