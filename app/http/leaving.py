"""What is still running when the service must end is answered, too: 503 rather than a closed connection.

Pure ASGI, and nothing but a `try` for every other request. The server cancels what runs at the end of the grace time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.problems import respond
from app.problems import RETRY_AFTER, Problem
from app.services.readiness import Readiness

DETAIL = "the service is stopping, and this request was not done in time; another instance, or this one later, takes it"


class Leaving:
    """Answers requests that are cancelled because the service ends."""

    def __init__(self, app: ASGIApp, readiness: Readiness) -> None:
        self.app = app
        self.readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except asyncio.CancelledError:
            if scope["type"] != "http" or not self.readiness.is_draining:
                raise
            problem = Problem("overloaded", DETAIL, headers=RETRY_AFTER | {"Connection": "close"})
            with suppress(RuntimeError):  # the answer had begun: the server breaks it off
                await respond(problem, scope["path"][:200])(scope, receive, send)
