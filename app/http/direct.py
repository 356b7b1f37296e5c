"""The short way to the calls: a POST to the path of one goes to its endpoint past the routing.

FastAPI's routing tries one route after the other, and once more within each router, and then looks for parameters that
these endpoints do not have: that takes longer than a small gradient. The routes themselves stay as they are declared:
the table is made of them, and whatever is not in it takes the long way. Exception handlers stand before both.
"""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute, APIRouter
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send


class Direct:
    """Sends what the table has to its endpoint, and all else on."""

    def __init__(self, app: ASGIApp, routes: dict[str, APIRoute]) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.routes.get(scope.get("path", "")) if scope.get("method") == "POST" else None
        if route is None or scope["root_path"]:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, {}
        response = await route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def install_direct(app: FastAPI, router: APIRouter) -> None:
    """Let the POST routes of `router`, whose endpoints take the request alone, be found by their paths."""
    routes = {
        route.path: route for route in router.routes if isinstance(route, APIRoute) and "POST" in (route.methods or ())
    }
    app.router.middleware_stack = Direct(app.router.middleware_stack, routes)
