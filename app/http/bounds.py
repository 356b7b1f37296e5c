"""What is refused before a route is looked for: URLs and headers that are too long, too many, or no proper HTTP.

Pure ASGI: a middleware base class would cost every request more than the check itself.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.heads import fault_of
from app.http.problems import respond
from app.http.routers.health import PROBES
from app.problems import Problem, over_limit
from app.settings import Settings

NAMELESS: frozenset[str] = frozenset()
"""Probes come to an address, whatever the service is called."""


class Bounds:
    """Answers 414 or 431 for a URL or headers over their limits, and 400 for a faulty head."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.names = frozenset(settings.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._breach(scope) if scope["type"] == "http" else None
        if problem is None:
            await self.app(scope, receive, send)
        else:
            await respond(problem, scope["path"][:200])(scope, receive, send)

    def _breach(self, scope: Scope) -> Problem | None:
        url = len(scope["raw_path"]) + len(scope["query_string"])
        if url > self.settings.url_bytes:
            return over_limit("url_bytes", self.settings.url_bytes, url, "bytes of the URL", 414)
        headers = sum(len(name) + len(value) for name, value in scope["headers"])
        if headers > self.settings.header_bytes:
            return over_limit("header_bytes", self.settings.header_bytes, headers, "bytes of the headers", 431)
        if len(scope["headers"]) > self.settings.headers:
            return over_limit("headers", self.settings.headers, len(scope["headers"]), "headers", 431)
        return fault_of(scope, NAMELESS if scope["path"] in PROBES else self.names)
