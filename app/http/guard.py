"""Who asks: every request is given its Client, and where keys are on, refused without one.

Pure ASGI, before anything of the request is read. Only the Authorization header counts: a key in a URL would stand in
logs and histories (RFC 6750, section 5.3). Without keys whoever can connect may ask, as any page can that is open in a
browser on the machine: those of other origins are refused.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.headers import is_strange
from app.http.problems import respond
from app.http.routers.health import PROBES
from app.problems import Problem
from app.services.clients import CLIENT, client_at
from app.services.keys import Keys
from app.services.tasks import Client
from app.settings import Settings

DOCS = frozenset({"/docs", "/openapi.json"})
METRICS = frozenset({"/metrics"})
STATIC = "/docs/static/"
REALM = 'Bearer realm="gradwire"'
ASKED = "this service asks for a key: send it in the header Authorization: Bearer TOKEN"
WRONG = "the key is none that this service knows, or is not sent as Authorization: Bearer TOKEN, once"
STRANGE = (
    "a page of another origin asks, which pages may not here: GRADWIRE_CORS_ORIGINS lets it in, expected is a request "
    "of this service's own pages or of no page"
)


class Guard:
    """Puts the client of a request into its scope, or answers 401; and 400 to pages that it is not for."""

    def __init__(self, app: ASGIApp, settings: Settings, keys: Keys) -> None:
        self.app = app
        self.keys = keys
        self.open = open_paths(settings)
        self.origins = settings.cors_origins
        self.static = STATIC if settings.docs_open else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            scope[CLIENT] = self._client(scope)
        except Problem as problem:
            await respond(problem, scope["path"][:200])(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _client(self, scope: Scope) -> Client:
        if self.keys.is_on:
            if not self._is_open(scope["path"]):
                return self._holder(scope)
        elif is_strange(scope, self.origins):
            raise Problem("invalid_request", STRANGE, status=400)
        peer = scope.get("client")
        return client_at(peer[0] if peer else None)

    def _is_open(self, path: str) -> bool:
        return path in self.open or (self.static is not None and path.startswith(self.static))

    def _holder(self, scope: Scope) -> Client:
        """The holder of the key that was sent. Raises unauthorized."""
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        if not sent:
            raise _unauthorized(ASKED, REALM)
        scheme, _, token = sent[0].partition(b" ")
        client = self.keys.find(token.strip(b" ")) if len(sent) == 1 and scheme.lower() == b"bearer" else None
        if client is None:
            raise _unauthorized(WRONG, f'{REALM}, error="invalid_token"')
        return client


def open_paths(settings: Settings) -> frozenset[str]:
    """Paths that need no key."""
    docs = DOCS if settings.docs_open else frozenset()
    return PROBES | docs | (METRICS if settings.metrics_open else frozenset())


def _unauthorized(detail: str, challenge: str) -> Problem:
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": challenge})
