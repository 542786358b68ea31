"""Bodies of requests: a file as it is, a form with a field ``file``, or raw samples.

Conventions: a body is counted while it comes, and a client that is slow or sends too much is told so. Names
of files are ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from email.message import Message

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message as Event
from starlette.types import Receive

from earmark.serve.errors import RequestError
from earmark.serve.limits import Limits
from earmark.serve.recordings import PcmFormat, Upload, pcm_format

FORM, PCM = "multipart/form-data", "audio/pcm"
_AS_THEY_ARE = ("audio/", "video/")
_ALSO = {"", "application/octet-stream", "application/ogg", "application/mp4", "application/x-matroska"}
_FORM_OVERHEAD = 1 << 16
_CHUNK = 1 << 18


async def read_body(request: Request, limits: Limits, resources: ExitStack) -> Upload:
    """Reads the recording in the body of a request.

    Args:
        request: Its body has not been read.
        limits: Of the server.
        resources: Closes the upload.

    Raises:
        RequestError: If the body is empty, of a wrong type, too large or too slow.
    """
    kind, parameters = _content_type(request.headers.get("content-type", ""))
    pcm = _pcm(parameters) if kind == PCM else None
    if kind not in {FORM, *_ALSO} and not kind.startswith(_AS_THEY_ARE):
        raise RequestError(
            415,
            f"the content type {kind[:80]!r} is not a recording: send a file as application/octet-stream or "
            f"audio/*, a form as {FORM}, or raw samples as {PCM};rate=48000;channels=1;format=s16le",
            "unsupported_content_type",
        )
    stated = request.headers.get("content-length", "")
    allowance = limits.max_bytes + (_FORM_OVERHEAD if kind == FORM else 0)
    if stated.isdecimal() and int(stated) > allowance:
        raise _too_large(limits)
    limited = Request(request.scope, _limited(request.receive, allowance, limits))
    upload = resources.enter_context(Upload(pcm))
    try:
        async with asyncio.timeout(limits.timeout_s):
            async for chunk in _form_file(limited) if kind == FORM else limited.stream():
                upload.add(chunk)
    except TimeoutError:
        raise _too_slow(limits.timeout_s) from None
    if upload.size > limits.max_bytes:
        raise _too_large(limits)
    upload.complete()
    return upload


async def _form_file(request: Request) -> AsyncIterator[bytes]:
    try:
        form = await request.form(max_files=1, max_fields=8, max_part_size=1 << 16)
    except HTTPException as error:
        raise RequestError(400, f"the form cannot be read: {error.detail}", "bad_form") from None
    try:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise RequestError(400, "the form has no file in its field 'file'", "bad_form")
        while chunk := await file.read(_CHUNK):
            yield chunk
    finally:
        await form.close()


def _limited(receive: Receive, longest: int, limits: Limits) -> Receive:
    """The same events, up to a size, each within the time that a slow client has."""
    size = 0

    async def limited() -> Event:
        nonlocal size
        try:
            event = await asyncio.wait_for(receive(), limits.idle_s)
        except TimeoutError:
            raise _too_slow(limits.idle_s) from None
        if event["type"] == "http.disconnect":
            raise ClientDisconnect
        size += len(event.get("body", b""))
        if size > longest:
            raise _too_large(limits)
        return event

    return limited


def _too_slow(seconds: float) -> RequestError:
    return RequestError(
        408, f"the body did not come within {seconds:g} s: send it faster", headers={"Connection": "close"}
    )


def _too_large(limits: Limits) -> RequestError:
    return RequestError(413, f"the body is larger than {limits.max_mb:g} MB: send the recording in parts")


def _content_type(text: str) -> tuple[str, dict[str, str]]:
    """The type in lower case, and its parameters."""
    message = Message()
    message["content-type"] = text.replace("\r", " ").replace("\n", " ")
    given = message.get_params(failobj=[]) if text.strip() else []
    kind = given[0][0].lower() if given else ""
    return kind, {name.lower(): value for name, value in given[1:]}


def _pcm(parameters: dict[str, str]) -> PcmFormat:
    rate = _whole(parameters, "rate")
    return pcm_format(rate, _whole(parameters, "channels", 1), parameters.get("format", "s16le").lower())


def _whole(parameters: dict[str, str], name: str, default: int | None = None) -> int:
    text = parameters.get(name, "" if default is None else str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise RequestError(
            415,
            f"raw samples need a whole number {name} in their content type, as in "
            f"{PCM};rate=48000;channels=1;format=s16le, got {text[:40]!r}",
        )
    return int(text)


async def client_gone(request: Request) -> None:
    """Returns when the client has closed its connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
