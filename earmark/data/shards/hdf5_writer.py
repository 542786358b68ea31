"""Writes shards of mp3 as one HDF5 file in the layout of PaSST and EfficientAT.

Conventions: ``audio_name`` (clip,) bytes, ``mp3`` (clip,) uint8 of any length, ``target``: uint8 (clip,
byte), one bit per class; where some labels are unknown float32 (clip, 2 class), as OpenMIC's: whether the
clip has the label, then whether that is known. AudioSet's names begin with Y.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import Clip, targets
from earmark.data.shards.index import read_range
from earmark.data.shards.pack import names_hash
from earmark.errors import extra
from earmark.model_file.atomic import atomic_writer
from earmark.model_file.labels import label_set

_MIN_NAME_BYTES = 20
_ROWS_AT_ONCE = 1 << 14


def write_hdf5(
    path: Path, clips: Sequence[Clip], labels: Sequence[str], places: Sequence[tuple[Path, int]]
) -> str:
    """Writes the clips of shards.

    Source: the files of EfficientAT (golden hdf5).

    Args:
        path: The HDF5 file.
        clips: The clips.
        labels: Of all classes, in the order of the columns.
        places: Shard of each clip, and its index there.

    Returns:
        SHA-256 of the names, see :func:`~earmark.data.shards.pack.names_hash`.

    Raises:
        AudioError: If a shard is damaged.
        MissingExtraError: If h5py is not installed.
        OSError: If the file cannot be written.
    """
    with extra("writing HDF5 files", "hdf5"):
        import h5py
    prefix = "Y" if tuple(labels) == label_set("audioset") else ""
    names = [f"{prefix}{clip.id}.mp3" for clip in clips]
    stored = [name.encode() for name in names]
    width = max(_MIN_NAME_BYTES, *map(len, stored))
    with atomic_writer(path) as stream, h5py.File(stream.name, "w", locking=False) as file:
        file.create_dataset("audio_name", data=np.array(stored, f"S{width}"))
        recordings = file.create_dataset("mp3", (len(clips),), h5py.vlen_dtype(np.uint8))
        for row, place in enumerate(places):
            recordings[row] = np.frombuffer(read_range(*place), np.uint8)
        _write_targets(file, clips, labels)
    return names_hash(names)


def _write_targets(file: Any, clips: Sequence[Clip], labels: Sequence[str]) -> None:
    unsure = any(clip.unknown or not clip.labelled for clip in clips)
    columns = 2 * len(labels) if unsure else -(-len(labels) // 8)
    target = file.create_dataset("target", (len(clips), columns), np.float32 if unsure else np.uint8)
    for first in range(0, len(clips), _ROWS_AT_ONCE):
        rows = targets(clips[first : first + _ROWS_AT_ONCE], labels)
        target[first : first + len(rows)] = (
            _targets_and_mask(rows) if unsure else np.packbits(rows > 0, axis=1)
        )


def _targets_and_mask(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    known = ~np.isnan(rows)
    return np.concatenate([np.nan_to_num(rows), known.astype(np.float32)], 1)
