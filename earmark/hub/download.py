"""Downloads one file over HTTP: whole or not at all, resuming where an earlier attempt was cut off.

Conventions: sizes are in bytes. A partial file is ``NAME.part`` beside the target, with the server's mark of
its version (ETag or Last-Modified) in ``NAME.part.mark``; only a whole file gets the target's name. Proxies
are those of the environment (``https_proxy``, ``no_proxy`` ...).

The standard library does this because no library does: pooch does not resume, huggingface_hub resumes only
from its own hub, and requests or urllib3 would replace one call here; the base install stays small.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any, BinaryIO

from earmark.errors import ModelError, first_line
from earmark.model_file.lock import try_lock
from earmark.version import __version__

Progress = Callable[[int, int | None], None]
"""Called with the bytes received and the total; None if the server did not state it."""

_CHUNK = 1 << 16
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
"""Status codes after which another attempt may succeed."""
_NOT_SATISFIABLE = 416
_CHANGED = "the file changed on the server"


@dataclass(frozen=True)
class RetryPolicy:
    """When to give up.

    Args:
        timeout_s: Longest time without data, in seconds.
        attempts: Consecutive attempts without new data.
        pause_s: Pause before the second attempt, in seconds; doubled before each further one.
    """

    timeout_s: float = 30.0
    attempts: int = 5
    pause_s: float = 1.0


RETRY = RetryPolicy()


class _TransientError(Exception):
    """An attempt failed; another may succeed."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    max_size: int = 4 << 30,
    progress: Progress | None = None,
) -> None:
    """Downloads a file.

    Args:
        url: URL of the file, http or https; redirects are followed, but not from https to http.
        target: Path to write; missing folders are created.
        size: Exact size, if known.
        max_size: Upper limit of the size if it is not known.
        progress: Called after every chunk.

    Raises:
        ModelError: If the file cannot be downloaded or has another size; nothing is at the target then.
        OSError: If it cannot be written.
    """
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    with _locked(part, url) as stream:
        _retry(_Transfer(url, stream, part, size, max_size, progress or _silent))
        stream.flush()
        os.fsync(stream.fileno())
    _mark(part).unlink(missing_ok=True)
    os.replace(part, target)


def _retry(transfer: _Transfer) -> None:
    """Repeats attempts until the file is whole or the retry policy ends."""
    failures = best = 0
    while True:
        try:
            transfer.attempt()
            return
        except _TransientError as error:
            reached = transfer.position
            failures = 1 if reached > best else failures + 1
            best = max(best, reached)
            if failures >= RETRY.attempts:
                raise ModelError(
                    f"{transfer.url} cannot be downloaded ({error}; {RETRY.attempts} attempts): "
                    "try again later, the part received is kept"
                ) from None
            time.sleep(RETRY.pause_s * 2 ** (failures - 1))


@dataclass
class _Transfer:
    """The download of one file, over several attempts."""

    url: str
    stream: BinaryIO
    part: Path
    size: int | None
    max_size: int
    progress: Progress

    @property
    def position(self) -> int:
        return self.stream.seek(0, os.SEEK_END)

    def attempt(self) -> None:
        """Requests the missing part and writes it."""
        have, mark = self.position, _read(_mark(self.part))
        headers = {"User-Agent": f"earmark/{__version__}"}
        if have and mark.startswith(f"{self.url}\n"):
            headers |= {"Range": f"bytes={have}-", "If-Range": mark.partition("\n")[2]}
        with self._open(headers) as response:
            have = self._begin(response, have, mark)
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
            self._check(total or 0, whole=total is not None)
            for chunk in _chunks(response):
                self.stream.write(chunk)
                have += len(chunk)
                self._check(have)
                self.progress(have, total or self.size)
        if have < (total or 0):
            raise _TransientError(f"the connection ended after {have} of {total} bytes")
        if not have:
            raise ModelError(f"{self.url} is empty: try again later")
        self._check(have, whole=True)

    def _begin(self, response: Any, have: int, mark: str) -> int:
        """Position of the first byte of the response; a partial file that does not fit is dropped."""
        fresh = f"{self.url}\n{_version(response.headers)}"
        if response.status == http.HTTPStatus.PARTIAL_CONTENT:
            fits = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if fits and fresh == mark:
                return have
            self._drop()
            raise _TransientError(_CHANGED)
        self._drop()
        if not fresh.endswith("\n"):
            _mark(self.part).write_text(fresh, encoding="utf-8")
        return 0

    def _open(self, headers: dict[str, str]) -> Any:
        opener = urllib.request.build_opener(_Redirects)
        try:
            return opener.open(urllib.request.Request(self.url, headers=headers), timeout=RETRY.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == _NOT_SATISFIABLE:
                self._drop()
                raise _TransientError(_CHANGED) from None
            if error.code in _TRANSIENT:
                raise _TransientError(f"the server returned {error.code}") from None
            status = " ".join(f"{error.code} {error.msg}".split())
            raise ModelError(f"{self.url} cannot be downloaded: the server returned {status}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, (socket.gaierror, ssl.SSLCertVerificationError)):
                raise ModelError(f"{self.url} cannot be downloaded: {_reason(reason)}") from None
            raise _TransientError(_reason(reason)) from None
        except ValueError as error:  # of urllib, for a URL that is none, also one that is redirected to
            raise ModelError(f"{self.url} leads to an invalid URL ({first_line(error)})") from None

    def _check(self, count: int, *, whole: bool = False) -> None:
        """Raises an error as soon as the file has the wrong size."""
        most = self.max_size if self.size is None else self.size
        if count <= most and (not whole or self.size in (None, count)):
            return
        self._drop()
        wanted = f"at most {most}" if self.size is None else f"{most}"
        raise ModelError(f"{self.url} must have {wanted} bytes, got {count}: it is not the published file")

    def _drop(self) -> None:
        self.stream.seek(0)
        self.stream.truncate()
        _mark(self.part).unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https, but not from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.startswith("https://" if req.type == "https" else ("http://", "https://")):
            raise ModelError(f"{req.full_url} redirects to {newurl}, which is not safe to follow")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _chunks(response: Any) -> Iterator[bytes]:
    """The body as it arrives, so that data before a timeout is kept."""
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _TransientError(_reason(error)) from None
        if not chunk:
            return
        yield chunk


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no data for {RETRY.timeout_s:g} s"
    return f"{error}" or type(error).__name__


def _version(headers: Message) -> str:
    """The server's mark of this version of the file; "" if it has none that ranges may rely on."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.mark")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


@contextmanager
def _locked(part: Path, url: str) -> Iterator[BinaryIO]:
    """Opens a file and locks it; the lock ends with the process. An empty file is removed at the end."""
    flags, empty = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), False
    try:
        with os.fdopen(os.open(part, flags, 0o666), "r+b") as stream:
            if not try_lock(stream):
                raise ModelError(f"{url} is being downloaded by another process: wait for it to end")
            try:
                yield stream
            finally:
                empty = stream.seek(0, os.SEEK_END) == 0
    finally:
        if empty:
            part.unlink()
            _mark(part).unlink(missing_ok=True)


def _silent(received: int, total: int | None) -> None:
    """Reports nothing."""
