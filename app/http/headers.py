"""Headers for browsers: what they must not do with an answer, and who else's pages may read it."""

from __future__ import annotations

import base64
import hashlib
import re

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import NOSNIFF, respond
from app.problems import Problem

RAW = tuple((name.lower().encode(), value.encode()) for name, value in NOSNIFF.items())
DRAWING = {"Content-Security-Policy": "default-src 'none'; sandbox"}
"""Nothing in a drawing is to be run or fetched, whatever is in its names."""
PAGE = {"Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin"}
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page may do: run our own scripts and those that stand in it, show, and ask this service."""
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

ELSEWHERE = frozenset({b"cross-site", b"same-site"})
"""Where pages are from that are of another origin; of the same site are those of other ports, too."""

EXPOSED = ("ETag", "Link", "Location", "Retry-After", "Server-Timing", "WWW-Authenticate", "X-Request-ID")
"""Headers of answers that scripts of other origins may read."""
TAKEN = ("Authorization", "Content-Encoding", "If-None-Match", "X-Request-ID", "traceparent", "tracestate")
"""Headers of requests that they may send, beside what every page may."""


class NoSniffing:
    """Puts NOSNIFF on every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *RAW]
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)


class Cors(CORSMiddleware):
    """Starlette's, for these origins; what it refuses is a problem document, as everything is."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=("GET", "HEAD", "POST", "DELETE"), allow_headers=TAKEN,
            expose_headers=EXPOSED,
        )  # fmt: skip

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        kept = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        detail = f"{bytes(response.body).decode()}: other origins may not ask this here"
        return respond(Problem("invalid_request", detail, status=response.status_code, headers=kept), "*")


def is_strange(scope: Scope, origins: tuple[str, ...]) -> bool:
    """Whether a browser asks for a page of another origin than ours and these, by what it says itself (W3C, Fetch
    Metadata Request Headers); where it does not, by the page's origin and our name. To follow a link to here is nothing
    strange."""
    sent = dict(scope["headers"])
    site, origin = sent.get(b"sec-fetch-site"), sent.get(b"origin")
    if site is None:
        is_from_elsewhere = origin is not None and origin.rpartition(b"//")[2] != sent.get(b"host")
    else:
        is_link = scope["method"] == "GET" and sent.get(b"sec-fetch-dest") == b"document"
        is_from_elsewhere = site in ELSEWHERE and not is_link
    return is_from_elsewhere and "*" not in origins and (origin or b"").decode("latin-1") not in origins


def page_headers(html: str) -> dict[str, str]:
    """The headers of a page, which let it run the scripts that stand in it and no others (CSP, by their hashes)."""
    scripts = "".join(f" 'sha256-{_hash(each)}'" for each in SCRIPT.findall(html))
    return PAGE | {"Content-Security-Policy": PAGE_POLICY.format(scripts=scripts)}


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
