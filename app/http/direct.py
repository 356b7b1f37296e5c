"""The short way to the calls: a POST to the path of one goes to its endpoint past the routing.

FastAPI's routing tries one route after the other, and once more within each router, and then looks for parameters that
these endpoints do not have: that takes longer than a small gradient. The routes themselves stay as they are declared:
the table is made of them, and whatever is not in it takes the long way, HEAD as GET. Errors are answered by the
handlers that the application has for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi.routing import APIRoute, APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handlers = Mapping[Any, Callable[[Request, Exception], Any]]


class Direct:
    """Sends what the table has to its endpoint, and all else on."""

    def __init__(self, app: ASGIApp, router: APIRouter, handlers: Handlers) -> None:
        self.app = app
        self.handlers = handlers
        routes = [route for route in router.routes if isinstance(route, APIRoute)]
        self.routes = {route.path: route for route in routes if "POST" in (route.methods or ())}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.routes.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if route is None or scope["root_path"]:
            await (self._headed if scope.get("method") == "HEAD" else self.app)(scope, receive, send)
            return
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except Exception as error:
            response = await self._answered(request, error)
        await response(scope, receive, send)

    async def _headed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer HEAD as GET, which FastAPI's routes do not by themselves; the server leaves the body out."""
        got = {**scope, "method": "GET"}
        try:
            await self.app(got, receive, send)
        finally:
            if "route" in got:
                scope["route"] = got["route"]

    async def _answered(self, request: Request, error: Exception) -> Response:
        """The response to an error, by the nearest of its types that has a handler. Raises what has none."""
        handler = next((self.handlers[kind] for kind in type(error).__mro__[:-3] if kind in self.handlers), None)
        if handler is None:
            raise error
        response: Response = await handler(request, error)
        return response
