"""The recordings of an archive that are done, in 16 bytes each.

Conventions: paths are as the tables hold them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

_DIGEST = np.dtype("S16")


class DonePaths:
    """A set of paths.

    Args:
        paths: Its members.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        self._sorted = np.sort(np.fromiter(map(_digest, paths), _DIGEST))

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, path: str) -> bool:
        if not len(self._sorted):
            return False
        digest = _digest(path)
        at = int(np.searchsorted(self._sorted, digest))
        return at < len(self._sorted) and bool(self._sorted[at] == digest)


def _digest(path: str) -> bytes:
    """Fifteen bytes and a one, since NumPy drops zeros at the end."""
    return hashlib.blake2b(path.encode(), digest_size=_DIGEST.itemsize - 1).digest() + b"\1"
