"""Errors of requests: a status of HTTP, a code for programs, a line for people.

Conventions: the body of an error is ``{"error": {"code", "message"}}``. Errors of earmark become errors of a
request in one place, :func:`request_error`.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastapi.responses import JSONResponse

from earmark.errors import AudioError, EarmarkError, ModelError

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "foreign_origin",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    411: "length_required",
    413: "too_large",
    415: "unsupported_audio",
    422: "invalid_parameter",
    429: "queue_full",
    500: "internal_error",
    503: "unavailable",
}
"""Status -> code, unless a more precise one is given."""


class RequestError(EarmarkError):
    """A request that is refused or failed.

    Args:
        status: Of HTTP.
        message: One line.
        code: For programs; default: that of the status.
        headers: Of the answer.
    """

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code or CODES.get(status, "error")
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        """The answer that a client gets."""
        body = {"error": {"code": self.code, "message": str(self)}}
        return JSONResponse(body, self.status, self.headers)


def request_error(error: Exception) -> RequestError:
    """The error of a request for one of earmark; an unexpected one tells nothing of the inside."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, AudioError):
        return RequestError(422, str(error), "unreadable_audio")
    if isinstance(error, ModelError):
        return RequestError(422, str(error))
    if isinstance(error, MemoryError):
        return RequestError(503, "there is not enough memory for this request", "out_of_memory")
    return RequestError(500, f"internal error ({type(error).__name__}): see the server's log")
