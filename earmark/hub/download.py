"""Fetches one file over HTTP: whole or not at all, and going on where an earlier attempt was cut off.

Conventions: sizes are in bytes. What has arrived waits beside the target as ``NAME.part``, with the server's
mark of that version in ``NAME.part.mark``; only a whole file gets the target's name. Proxies are those of the
environment (``https_proxy``, ``no_proxy`` ...).
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, BinaryIO

from earmark.errors import ModelError
from earmark.version import __version__

Progress = Callable[[int, int | None], None]
"""Is told how many bytes have arrived, and of how many (None: the server did not say)."""

_PIECE = 1 << 16
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Answers after which another attempt may go well."""
_NOT_SATISFIABLE = 416
_CHANGED = "the file changed on the server meanwhile"


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server.

    Args:
        timeout_s: Longest silence, in seconds.
        attempts: In a row that may bring nothing new.
        pause_s: Before the second attempt; doubled before each one after.
    """

    timeout_s: float = 30.0
    attempts: int = 5
    pause_s: float = 1.0


PATIENCE = Patience()


class _CutOffError(Exception):
    """An attempt failed in a way that may pass."""


def fetch(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    largest: int = 4 << 30,
    progress: Progress | None = None,
) -> None:
    """Downloads a file.

    Args:
        url: Of the file, http or https; redirects are followed, but not from https to http.
        target: Where it is to lie; its folder is made where it is missing.
        size: Its exact size, where known.
        largest: What is refused beyond, where the size is not known.
        progress: Is told of every piece that arrives.

    Raises:
        ModelError: If it cannot be had, or is not of that size; nothing stands at the target then.
        OSError: If it cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part, url) as stream:
        _persist(_Transfer(url, stream, part, size, largest, progress or _silent))
        stream.flush()
        os.fsync(stream.fileno())
    _mark(part).unlink(missing_ok=True)
    os.replace(part, target)


def _persist(transfer: _Transfer) -> None:
    """Attempts until the file is whole, or nothing new has come for too long."""
    fruitless = furthest = 0
    while True:
        try:
            transfer.attempt()
            return
        except _CutOffError as error:
            reached = transfer.position
            fruitless = 1 if reached > furthest else fruitless + 1
            furthest = max(furthest, reached)
            if fruitless >= PATIENCE.attempts:
                raise ModelError(
                    f"{transfer.url} cannot be fetched ({error}; {PATIENCE.attempts} attempts): "
                    "try again later, what has arrived is kept"
                ) from None
            time.sleep(PATIENCE.pause_s * 2 ** (fruitless - 1))


@dataclass
class _Transfer:
    """One file on its way, over as many attempts as it takes."""

    url: str
    stream: BinaryIO
    part: Path
    size: int | None
    largest: int
    progress: Progress

    @property
    def position(self) -> int:
        return self.stream.seek(0, os.SEEK_END)

    def attempt(self) -> None:
        """Asks for what is missing and writes what comes."""
        have, mark = self.position, _read(_mark(self.part))
        headers = {"User-Agent": f"earmark/{__version__}"}
        if have and mark.startswith(f"{self.url}\n"):
            headers |= {"Range": f"bytes={have}-", "If-Range": mark.partition("\n")[2]}
        with self._open(headers) as answer:
            have = self._begin(answer, have, mark)
            length = answer.headers.get("Content-Length", "")
            total = have + int(length) if length.isdigit() else None
            self._check(total or 0, whole=total is not None)
            for piece in _pieces(answer):
                self.stream.write(piece)
                have += len(piece)
                self._check(have)
                self.progress(have, total or self.size)
        if have < (total or 0):
            raise _CutOffError(f"it ended after {have} of {total} bytes")
        if not have:
            raise ModelError(f"{self.url} is empty: try again later")
        self._check(have, whole=True)

    def _begin(self, answer: Any, have: int, mark: str) -> int:
        """Where the answer's bytes belong; what does not fit them is dropped."""
        fresh = f"{self.url}\n{_version(answer.headers)}"
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            fits = answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if fits and fresh == mark:
                return have
            self._drop()
            raise _CutOffError(_CHANGED)
        self._drop()
        if not fresh.endswith("\n"):
            _mark(self.part).write_text(fresh, encoding="utf-8")
        return 0

    def _open(self, headers: dict[str, str]) -> Any:
        opener = urllib.request.build_opener(_Redirects)
        try:
            return opener.open(urllib.request.Request(self.url, headers=headers), timeout=PATIENCE.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _NOT_SATISFIABLE:
                self._drop()
                raise _CutOffError(_CHANGED) from None
            if error.code in _PASSING:
                raise _CutOffError(f"the server answered {error.code}") from None
            said = " ".join(f"{error.code} {error.msg}".split())
            raise ModelError(f"{self.url} cannot be fetched: the server answered {said}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, (socket.gaierror, ssl.SSLCertVerificationError)):
                raise ModelError(f"{self.url} cannot be fetched: {reason}: is there a network?") from None
            raise _CutOffError(_said(reason)) from None

    def _check(self, count: int, *, whole: bool = False) -> None:
        """Refuses a file of the wrong size as soon as it shows."""
        most = self.largest if self.size is None else self.size
        if count <= most and (not whole or self.size in (None, count)):
            return
        self._drop()
        wanted = f"at most {most}" if self.size is None else f"{most}"
        raise ModelError(f"{self.url} is not the file that was published: {count} bytes instead of {wanted}")

    def _drop(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()
        _mark(self.part).unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects within the web, and never from an encrypted address to an open one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://" if req.type == "https" else ("http://", "https://")):
            raise ModelError(f"{req.full_url} redirects to {newurl}, which is not safe to follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _pieces(answer: Any) -> Iterator[bytes]:
    """The body as it arrives, so that what came before a silence is not lost."""
    while True:
        try:
            piece = answer.read1(_PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise _CutOffError(_said(error)) from None
        if not piece:
            return
        yield piece


def _said(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"the server was silent for {PATIENCE.timeout_s:g} s"
    return f"{error}" or type(error).__name__


def _version(headers: Message) -> str:
    """What a server marks this version of the file with; "" if it has no mark that a range may rely on."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.mark")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@contextmanager
def _locked(part: Path, url: str) -> Iterator[BinaryIO]:
    """Opens a file for this process alone; a process that ends, however, leaves no lock behind.

    A file that is still empty at the end is removed.
    """
    flags, empty = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), False
    try:
        with os.fdopen(os.open(part, flags, 0o666), "r+b") as stream:
            _lock(stream, url)
            try:
                yield stream
            finally:
                empty = stream.seek(0, os.SEEK_END) == 0
    finally:
        if empty:
            part.unlink()
            _mark(part).unlink(missing_ok=True)


def _lock(stream: BinaryIO, url: str) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ModelError(f"{url} is being fetched by another process: wait for that") from None


def _silent(received: int, total: int | None) -> None:
    """Reports nothing."""
