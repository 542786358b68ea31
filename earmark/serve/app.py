"""The application: routes, checks before them, and errors in one form.

Conventions: every answer that is not a page, a metric or an event of a stream is JSON. What is checked before
a route is in :class:`Gate`, which sees every request first.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from earmark.errors import EarmarkError
from earmark.serve.access import bearer
from earmark.serve.errors import CODES, RequestError, request_error
from earmark.serve.listen import listen_router
from earmark.serve.metrics import route_of
from earmark.serve.page_files import page_router
from earmark.serve.routes import router
from earmark.serve.state import ServerState
from earmark.version import __version__

_LOG = logging.getLogger("earmark.serve")
_ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def create_app(state: ServerState) -> FastAPI:
    """Makes the application of a server.

    Args:
        state: Models, limits and access.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        state.close()

    app = FastAPI(
        title="earmark",
        version=__version__,
        description="Tags sounds in recordings. Live sound: the WebSocket /v1/listen.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server = state
    app.include_router(router)
    app.include_router(listen_router())
    app.include_router(page_router())
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Gate, state=state)
    _name_models(app.openapi(), [card["name"] for card in state.models.cards()])
    return app


def _name_models(described: dict[str, Any], names: list[str]) -> None:
    """Puts the names of the models into the description of the interface."""
    for operation in (one for path in described["paths"].values() for one in path.values()):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "model":
                parameter["schema"] = {"type": "string", "enum": names, "default": names[0]}


class Gate:
    """Checks every request before its route, counts it, and gives it an answer whatever happens.

    Args:
        app: What answers.
        state: Of the server.
    """

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":  # live streams check on their own, when they can say what is wrong
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0
        route = route_of(scope["path"])

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            status = 499  # nobody is there to be answered
        except Exception as error:
            if status:
                raise
            await _answer(error)(scope, receive, watched)
        finally:
            self._state.metrics.requests.labels(route, str(status)).inc()
            self._state.metrics.latency.labels(route).observe(time.monotonic() - started)

    def _check(self, scope: Scope) -> None:
        headers, access = Headers(scope=scope), self._state.access
        access.check_names(headers)
        if not access.is_open(scope["path"]):
            access.check_token(bearer(headers))


def _answer(error: Exception) -> JSONResponse:
    found = request_error(error)
    if found.status == 500:
        _LOG.error("a request failed", exc_info=error)
    return found.response()


async def _on_error(_: Request, error: Exception) -> JSONResponse:
    return _answer(error)


async def _on_http_error(_: Request, error: Any) -> JSONResponse:
    """Errors of the framework: unknown paths, wrong methods."""
    code = CODES.get(error.status_code)
    return RequestError(error.status_code, str(error.detail), code, error.headers).response()


async def _on_invalid(_: Request, error: Any) -> JSONResponse:
    """Parameters that are not as described: the first of them is named."""
    first = error.errors()[0]
    name = str(first["loc"][1]) if len(first["loc"]) > 1 else "the request"
    return RequestError(422, f"{name}: {first['msg']}").response()


_HANDLERS: dict[type[Exception], Callable[[Request, Any], Any]] = {
    EarmarkError: _on_error,
    HTTPException: _on_http_error,
    RequestValidationError: _on_invalid,
}
