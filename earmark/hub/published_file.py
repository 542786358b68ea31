"""Files that others published, checked against their size and hash.

Conventions: sizes are in bytes, hashes SHA-256 in hexadecimal digits. A file whose hash was not published is
trusted on first use: its hash is stored, and later files must have the same.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

from earmark.errors import ModelError


class Published(Protocol):
    """What is known about a published file."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def url(self) -> str:
        """URL of the file."""

    @property
    def size(self) -> int | None:
        """Size in bytes, if known."""

    @property
    def sha256(self) -> str:
        """SHA-256, its first digits, or "" if it is not known."""


def checked(known: Published, path: Path, origin: Path) -> dict[str, Any]:
    """Checks a copy of a published file.

    Args:
        known: The published file.
        path: The copy.
        origin: JSON file with the origin of the first copy; may be missing.

    Returns:
        The origin of this copy, to be written to ``origin``: url, size and sha256.

    Raises:
        ModelError: If the copy cannot be read, or has another size or hash.
    """
    try:
        with path.open("rb") as stream:
            sha256, size = hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()
    except OSError as error:
        raise ModelError(f"{path}: the weights cannot be read: {error.strerror or error}") from None
    if known.size not in (None, size):
        raise ModelError(f"{path}: size must be {known.size} bytes, got {size}: it is not {known.name}")
    if not sha256.startswith(known.sha256):
        digits = max(8, len(known.sha256) // 4)
        raise ModelError(
            f"{path}: SHA-256 must start with {known.sha256[:digits]}, got {sha256[:digits]}: "
            f"it is not {known.name}"
        )
    first = _first_sha256(known, origin)
    if first not in ("", sha256):
        raise ModelError(
            f"{path}: SHA-256 must be {first[:16]}..., that of the first file downloaded as {known.name}, "
            f"got {sha256[:16]}...: remove {origin} to trust this file"
        )
    return {"url": known.url, "size": size, "sha256": sha256}


def _first_sha256(known: Published, origin: Path) -> str:
    """SHA-256 of the first copy; "" if there was none."""
    if not origin.is_file():
        return ""
    try:
        return str(json.loads(origin.read_text(encoding="utf-8"))["sha256"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{origin}: the file is damaged: remove it to trust the next {known.name}") from None
