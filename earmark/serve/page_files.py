"""The page at ``/`` and its files.

Conventions: the files are those of the folder ``page`` of this room, listed when the server starts; a request
chooses among them by name, so that no path is made of what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, JSONResponse, Response

from earmark.serve.errors import RequestError

FOLDER = Path(__file__).with_name("page")
INDEX = "index.html"
_TYPES: Mapping[str, str] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".ogg": "audio/ogg",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; media-src 'self' blob: data:; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
}


def page_router(folder: Path = FOLDER) -> APIRouter:
    """Makes the routes of the page.

    Args:
        folder: Has index.html and what it needs.
    """
    router = APIRouter(include_in_schema=False)
    files = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.suffix in _TYPES and path.is_file()
    }

    def file(name: str) -> Response:
        path = files.get(name)
        if path is None:
            raise RequestError(404, "there is no such page")
        return FileResponse(path, headers=HEADERS, media_type=_TYPES[path.suffix])

    @router.get("/")
    async def index() -> Response:
        return file(INDEX)

    @router.get("/config.json")
    async def config() -> Response:
        return JSONResponse({"backend": "server"}, headers={"Cache-Control": "no-cache"})

    @router.get("/static/{name:path}")
    async def static(name: str) -> Response:
        return file(name if name in files else f"static/{name}")

    return router
