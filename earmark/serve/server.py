"""Runs the application in a process: sockets, slow connections, signals.

The first SIGTERM or Ctrl-C ends the server gracefully: it takes no new connections, live streams get their
last events, running requests their answers, for as long as a request may take. A second Ctrl-C ends it now.

Conventions: the port is open before the models are asked for anything, and port 0 is any free one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from earmark.errors import DataError
from earmark.serve.app import create_app
from earmark.serve.limits import LONGEST_FRAME
from earmark.serve.state import ServerState

_LAST_EVENTS_S = 5.0
"""How long live streams have to end when the server does."""


class _Patience:
    """Timers of a connection: a client that neither sends nor reads in time loses it."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport, self._seconds = transport, seconds
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def start(self, what: str) -> None:
        if what not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[what] = loop.call_later(self._seconds, self._transport.abort)

    def stop(self, *what: str) -> None:
        for one in what or tuple(self._timers):
            if timer := self._timers.pop(one, None):
                timer.cancel()


class PatientProtocol(H11Protocol):
    """HTTP that drops clients that do not send the head of a request, or do not take an answer, in time."""

    idle_s = 20.0

    def connection_made(self, transport: Any) -> None:
        """Starts to wait for the head of a request."""
        super().connection_made(transport)
        self._patience = _Patience(transport, self.idle_s)
        self._patience.start("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all waiting."""
        self._patience.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Ends the wait when the head is there; starts another where the next one has begun."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._patience.stop("head")
        elif self.transport.get_protocol() is self and not self.transport.is_closing():
            self._patience.start("head")

    def on_response_complete(self) -> None:
        """Gives a client that was answered early a time to send the rest, which is thrown away."""
        if self.cycle.more_body:
            self._patience.start("head")
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Leaves the connection to the other protocol."""
        self._patience.stop()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Starts to wait for the client to read."""
        self._patience.start("read")
        super().pause_writing()

    def resume_writing(self) -> None:
        """Ends that wait."""
        self._patience.stop("read")
        super().resume_writing()


class PatientSocket(WebSocketsSansIOProtocol):
    """WebSockets that drop clients that do not read in time."""

    idle_s = 20.0

    def connection_made(self, transport: Any) -> None:
        """Remembers the connection."""
        self._patience = _Patience(transport, self.idle_s)
        self.close_timeout = min(self.close_timeout, self.idle_s)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all waiting."""
        self._patience.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Starts to wait for the client to read."""
        self._patience.start("read")
        super().pause_writing()

    def resume_writing(self) -> None:
        """Ends that wait."""
        self._patience.stop("read")
        super().resume_writing()


class Server(uvicorn.Server):
    """A server that lets live streams end before it closes their connections.

    ``Server(state, started).run([open_socket(host, port)])`` serves until a signal, and closes the socket.

    Args:
        state: Models, limits and access.
        on_start: Called when requests are answered.
    """

    def __init__(self, state: ServerState, on_start: Callable[[], None] = lambda: None) -> None:
        limits = state.limits
        patience = {"idle_s": limits.idle_s}
        config = uvicorn.Config(
            create_app(state),
            http=type("Http", (PatientProtocol,), patience),
            ws=type("Socket", (PatientSocket,), patience),
            ws_max_size=LONGEST_FRAME,
            ws_per_message_deflate=False,  # samples hardly shrink, and a small frame could become a large one
            timeout_keep_alive=15,
            timeout_graceful_shutdown=max(1, round(limits.timeout_s)),
            h11_max_incomplete_event_size=1 << 16,
            log_config=None,
            access_log=False,
            server_header=False,
        )
        super().__init__(config)
        self._state, self._on_start = state, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to answer."""
        await super().startup(sockets)
        self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuses new connections, ends streams, waits for requests."""
        for server in self.servers:
            server.close()
        self._state.stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_S):
                while self._state.streams and not self.force_exit:
                    await asyncio.sleep(0.02)
        await super().shutdown(sockets)
        self._captured_signals.clear()  # uvicorn would raise them again, and end the process by them


def open_socket(host: str, port: int) -> socket.socket:
    """Opens the socket that a server listens to.

    Args:
        host: Name or address of this machine.
        port: 0 for any free one.

    Raises:
        DataError: If it cannot be opened.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Without the protocol, asyncio leaves Nagle's algorithm on, and each answer takes 40 ms longer.
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
            opened.listen(512)
        except BaseException:
            opened.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{host}, port {port}: cannot be listened to ({reason}): choose another") from None
    return opened


def address_of(opened: socket.socket, host: str) -> str:
    """The address of a server's page; for browsers on the same machine if it listens to all addresses."""
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{opened.getsockname()[1]}/"
