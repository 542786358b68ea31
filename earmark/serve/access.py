"""Who may ask: the name in the Host header, the origin of pages, the token.

A page of another site can send requests to a server on the same computer, under a name that it makes point to
127.0.0.1. Such requests have a foreign Host or Origin, and are refused. There are no headers for CORS.

Conventions: tokens are compared in constant time, and never logged: the server logs no requests.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from earmark.serve.errors import RequestError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
SUBPROTOCOL = "earmark.token."
_OPEN = ("/", "/healthz", "/config.json")
"""Answered without the token, as is what lies under /static/: it is the same for everyone."""


@dataclass(frozen=True)
class Access:
    """Decides which requests are answered.

    Args:
        token: What clients have to know; None: nothing.
        hosts: Names under which the server may be asked; None: any.
    """

    token: str | None = None
    hosts: frozenset[str] | None = None

    def check_names(self, headers: Mapping[str, str]) -> None:
        """Checks the headers Host and Origin.

        Raises:
            RequestError: If the request comes from a page of another site, or under another name.
        """
        host = headers.get("host", "")
        name = _name(f"//{host}")
        if self.hosts is not None and name not in self.hosts:
            raise RequestError(
                400,
                f"this server is not {name[:80]!r}: ask it as localhost, or start it with --allow-host",
                "bad_host",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise RequestError(403, "requests of pages of other sites are not answered")

    def is_open(self, path: str) -> bool:
        """Whether a path needs no token."""
        return self.token is None or path in _OPEN or path.startswith("/static/")

    def is_known(self, token: str | None) -> bool:
        """Whether a token is the right one; always, if none is needed."""
        if self.token is None:
            return True
        given = (token or "").encode("utf-8", "replace")
        return hmac.compare_digest(given, self.token.encode())

    def check_token(self, token: str | None) -> None:
        """Checks a token.

        Raises:
            RequestError: If it is missing or wrong.
        """
        if not self.is_known(token):
            raise RequestError(
                401,
                "the token is missing or wrong: send Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": "Bearer"},
            )


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of the header Authorization."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
