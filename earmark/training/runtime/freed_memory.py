"""Freed memory that stays with the process, for a training on a CPU.

Each step allocates the same large maps. The allocator of glibc gives them back to the system when they are
freed, and the system clears every page of them when they are asked for anew, which takes a third of a step.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Makes the allocator keep what is freed, for this whole process and until it ends.

    The process stays as large as it ever was, and somewhat larger than it would become, since holes between
    maps are not closed.

    Returns:
        Whether the system's allocator can be told so; only glibc's can.
    """
    if sys.platform != "linux":
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    return tell is not None and bool(tell(_MMAP_THRESHOLD, _MOST) and tell(_TRIM_THRESHOLD, _MOST))
