"""``earmark serve``: a server of tags, events and embeddings, and a page for the browser.

Conventions: one line on standard error says where the server is; what it answers is not logged. SIGTERM and
Ctrl-C end it gracefully, with code 0.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli.options import Device, EngineName, Precision, Quiet
from earmark.cli.program import USE, command, one_matrix_thread
from earmark.cli.progress import download_bar
from earmark.cli.terminal import note
from earmark.errors import DataError, extra

LIMITS, ACCESS, ENGINE = "Limits", "Access", "Engine"
"""Panels of options."""

Served = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Name or file of a model (default: the one that ships); repeatable.",
    ),
]
Host = Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen to.")]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="Port; 0 for any free one.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser.")]
Token = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        envvar="EARMARK_TOKEN",
        show_envvar=False,
        help="Token that clients must send (or set EARMARK_TOKEN).",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Read the token from a file.", rich_help_panel=ACCESS),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Answer under this name too, behind a proxy; repeatable.", rich_help_panel=ACCESS
    ),
]
NoToken = Annotated[
    bool,
    typer.Option("--without-token", help="Let anyone on the network use the server.", rich_help_panel=ACCESS),
]
MaxMb = Annotated[
    float, typer.Option(metavar="MB", help="Largest body of a request.", rich_help_panel=LIMITS)
]
MaxDuration = Annotated[
    float, typer.Option(metavar="SECONDS", help="Longest recording.", rich_help_panel=LIMITS)
]
Queue = Annotated[int, typer.Option(metavar="N", help="Requests that may wait.", rich_help_panel=LIMITS)]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", help="Longest time for an answer.", rich_help_panel=LIMITS)
]
Streams = Annotated[int, typer.Option(metavar="N", help="Live streams at once.", rich_help_panel=LIMITS)]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Requests at once (default: one per core).", rich_help_panel=ENGINE
    ),
]
Threads = Annotated[
    int, typer.Option(min=1, metavar="N", help="Threads for each request.", rich_help_panel=ENGINE)
]


@command(USE)
def serve(
    model: Served = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    open_page: Open = False,
    quiet: Quiet = False,
    max_mb: MaxMb = 64.0,
    max_duration: MaxDuration = 3600.0,
    queue: Queue = 64,
    timeout: Timeout = 60.0,
    streams: Streams = 16,
    token_file: TokenFile = None,
    without_token: NoToken = False,
    allow_host: AllowHost = None,
    workers: Workers = None,
    threads: Threads = 1,
    device: Device = "cpu",
    engine: EngineName = "onnx",
    precision: Precision = "fp32",
) -> None:
    """Serve tags over HTTP, and a page for the browser."""
    one_matrix_thread()
    with extra("earmark serve", "serve"):
        from earmark.serve.access import LOOPBACK, Access
        from earmark.serve.limits import Limits
        from earmark.serve.models import Models
        from earmark.serve.server import Server, address_of, open_socket
        from earmark.serve.state import ServerState
    from earmark.inference.load import load

    limits = Limits(max_mb, max_duration, queue, timeout, workers, streams)
    known = _token(token, token_file)
    is_local = host in LOOPBACK
    if not is_local and known is None and not without_token:
        raise typer.BadParameter(
            f"{host} can be reached by others: give a --token, or --without-token", param_hint="--host"
        )
    hosts = frozenset({*LOOPBACK, host, *(one.lower() for one in allow_host or [])})
    access = Access(known, hosts if is_local or allow_host else None)
    opened = open_socket(host, port)
    try:
        with download_bar(quiet) as bar:
            names: list[str | None] = [*model] if model else [None]
            options: dict[str, Any] = {"device": device, "engine": engine, "precision": precision}
            taggers = [load(name, threads=threads, progress=bar, **options) for name in names]
        state = ServerState(Models(taggers), limits, access)
        address = address_of(opened, host)
        logging.basicConfig(level=logging.ERROR if quiet else logging.WARNING)

        def started() -> None:
            if not quiet:
                note(f"earmark serves at {address} (Ctrl-C ends it)")
            if open_page:
                import webbrowser

                webbrowser.open(address)

        Server(state, started).run([opened])
    finally:
        opened.close()


def _token(token: str | None, file: Path | None) -> str | None:
    """The token that was given in one way or another."""
    if file is not None:
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read ({error})") from None
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise typer.BadParameter("must be ASCII characters without blanks", param_hint="--token")
    return token
