"""A web server on this machine that behaves as a test wants: well, slowly, wrongly or with malice."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Request"], None]


class Server(ThreadingHTTPServer):
    """Serves one body under every path; each request gets the next behaviour of the list,
    and all further ones by the last.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.body = bytes(range(256)) * 1200
        self.behaviours: list[Behaviour] = [whole]
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.ending = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        """What range each request asked for."""
        return [headers.get("Range") for _, headers in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        """The client may leave when it likes."""


class Request(BaseHTTPRequestHandler):
    """One request; ``body`` is what the server holds."""

    server: Server

    def do_GET(self) -> None:
        number = len(self.server.requests)
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.behaviours[min(number, len(self.server.behaviours) - 1)](self)

    def log_message(self, *arguments: object) -> None:
        """Logs nothing."""

    def start(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


def whole(request: Request, version: str = '"1"', most: int | None = None) -> None:
    """The file, or the range that is asked for if it is of that version; at most so many bytes of it."""
    body, start = request.server.body, 0
    asked, condition = request.headers.get("Range"), request.headers.get("If-Range", version)
    if asked and version and condition == version:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        place = f"bytes {start}-{len(body) - 1}/{len(body)}"
        request.start(206, Content_Length=len(body) - start, Content_Range=place, ETag=version)
    else:
        request.start(200, Content_Length=len(body), **({"ETag": version} if version else {}))
    request.wfile.write(body[start:][:most])


def cut(most: int, version: str = '"1"') -> Behaviour:
    """Breaks off after so many bytes."""
    return lambda request: whole(request, version, most)


def without_ranges(request: Request) -> None:
    """The whole file, whatever range is asked for."""
    request.start(200, Content_Length=len(request.server.body))
    request.wfile.write(request.server.body)


def stall(most: int) -> Behaviour:
    """Falls silent after so many bytes."""

    def behave(request: Request) -> None:
        whole(request, most=most)
        request.wfile.flush()
        request.server.ending.wait(10)

    return behave


def error(code: int) -> Behaviour:
    return lambda request: request.start(code, Content_Length=0)


def redirect(url: str) -> Behaviour:
    return lambda request: request.start(302, Location=url, Content_Length=0)


def lie(length: int) -> Behaviour:
    """States another length than that of the body."""

    def behave(request: Request) -> None:
        request.start(200, Content_Length=length)
        request.wfile.write(request.server.body)

    return behave


def without_length(request: Request) -> None:
    request.start(200)
    request.wfile.write(request.server.body)


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs as long as the block."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.ending.set()
        server.shutdown()
        server.server_close()
        thread.join()
