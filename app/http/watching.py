"""The outermost layer: every request gets an id, is counted and timed, and leaves one line in the log.

Pure ASGI, around all else, so that what is refused early and what fails unforeseen is seen, too. Routes are counted by
their templates, never by paths: nobody makes series of figures by asking for what is not there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http import tracing
from app.http.problems import seen_of
from app.logs import Log, escaped
from app.problems import Problem
from app.seen import SEEN, Ids, Seen, current
from app.services.clients import CLIENT
from app.services.figures import Figures
from app.services.tasks import Road

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
ROADS: dict[int, str] = {road: road.label for road in Road}
INFO, ERROR = "info", "error"
OTHER = "other"
"""What is not among the routes or methods."""
MOST_PATH = 200
"""Characters of a path in the log."""


class Watching:
    """Watches what is answered. `fixed` are paths that are known without looking for their route."""

    def __init__(self, figures: Figures, fixed: Collection[str], log: Log | None = None) -> None:
        self._figures = figures
        self._fixed = frozenset(fixed)
        self._log = log
        self._new_id = Ids()
        self._running = self._bytes_in = self._bytes_out = 0
        figures.observe(
            {
                "gradwire_requests_in_progress": lambda: self._running,
                "gradwire_received_bytes_total": lambda: self._bytes_in,
                "gradwire_sent_bytes_total": lambda: self._bytes_out,
            }
        )
        if log is not None:
            figures.observe({"gradwire_log_lines_dropped_total": lambda: log.dropped})

    async def watch(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let an application answer, and see how."""
        if scope["type"] != "http":
            await self._live(app, scope, receive, send)
            return
        seen = self._seen(scope)
        header = (b"x-request-id", seen.id.encode("ascii"))

        async def received() -> Message:
            message = await receive()
            seen.bytes_in += len(message.get("body", b""))
            return message

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = seen.status or message["status"]
                message = {**message, "headers": [*message["headers"], header]}
                tracing.describe(scope, seen)
            elif scope["method"] != "HEAD":  # whose body the server leaves out
                seen.bytes_out += len(message.get("body", b""))
            await send(message)

        token = current.set(seen)
        self._running += 1
        try:
            await app(scope, received, stamped)
        except Exception:
            # What nobody foresaw is answered, and logged with its traceback; the server would only log it once more.
            if seen.code != "internal":
                raise
        finally:
            self._running -= 1
            self._end(scope, seen)
            current.reset(token)

    def refuse(self, problem: Problem, path: bytes, scope: Scope | None) -> str:
        """See a problem that is answered past every application; `scope` is that of a request which one was at, and
        which ends by itself now. Its id."""
        if scope is not None:
            seen = self._seen(scope)  # which the application will find, if it has yet to begin
            seen.fail(*seen_of(problem))
            return seen.id
        seen = Seen(self._new_id())
        seen.fail(*seen_of(problem))
        self._end({"method": OTHER, "path": "", "raw_path": path}, seen)
        return seen.id

    def _seen(self, scope: Scope) -> Seen:
        seen: Seen | None = scope.get(SEEN)
        if seen is None:
            seen = scope[SEEN] = Seen(self._new_id(), scope["headers"])
        return seen

    async def _live(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """From the start of the service to its end."""
        await app(scope, receive, send)
        if self._log is not None:
            self._log.flush()

    def _end(self, scope: Scope, seen: Seen) -> None:
        method = scope["method"]
        seen.end(self._route(scope), method if method in METHODS else OTHER)
        self._count(seen)
        tracing.add_stages(scope, seen)
        if self._log is not None:
            severity = ERROR if seen.status >= 500 else INFO
            if self._log.says(severity):
                self._log.put(_line(scope, seen, severity))

    def _route(self, scope: Scope) -> str:
        """The template of the route. What was refused before a route was looked for may still have one."""
        found = scope.get("route")
        if found is not None:
            return str(found.path)
        return scope["path"] if scope["path"] in self._fixed else OTHER

    def _count(self, seen: Seen) -> None:
        figures = self._figures
        figures.add("gradwire_requests_total", (seen.route, seen.method, str(seen.status)))
        figures.time("gradwire_request_seconds", {seen.route: seen.total})
        figures.time("gradwire_stage_seconds", seen.stages)
        self._bytes_in += seen.bytes_in
        self._bytes_out += seen.bytes_out
        if seen.code is not None:
            figures.add("gradwire_problems_total", (seen.code,))
        if seen.limit is not None:
            figures.add("gradwire_limits_hit_total", (seen.limit,))
        if seen.clock is not None and seen.clock.road is not None:
            figures.add("gradwire_computed_total", (ROADS[seen.clock.road],))
            figures.ran(seen.clock.ops)


def _line(scope: Scope, seen: Seen, severity: str) -> dict[str, Any]:
    """What the log says of a request: nothing of what it computes with, so no query and no body either."""
    fields: dict[str, Any] = {
        "time": datetime.now(UTC),
        "level": severity,
        "message": "request",
        "method": seen.method,
        "path": escaped(scope["raw_path"][:MOST_PATH].decode("latin-1")),
        "route": seen.route,
        "status": seen.status,
        "request_id": seen.id,
        "bytes_in": seen.bytes_in,
        "bytes_out": seen.bytes_out,
        "ms": {"total": _ms(seen.total)} | {stage: _ms(seconds) for stage, seconds in seen.stages.items()},
    }
    if seen.trace_id is not None:
        fields |= {"trace_id": seen.trace_id, "span_id": seen.span_id}
    if seen.code is not None:
        fields["code"] = seen.code
    if seen.clock is not None and seen.clock.road is not None:
        fields |= {"road": ROADS[seen.clock.road], "plan_hit": "plan" in seen.clock.notes}
    client = scope.get(CLIENT)
    if client is not None:
        fields["client"] = client.name
    return fields


def _ms(seconds: float) -> float:
    """Milliseconds, down to microseconds."""
    return int(1e6 * seconds) / 1000


def install_watching(app: FastAPI, routers: Iterable[APIRouter], log: Log | None) -> None:
    """Put the layer around all others: Starlette's own, which answers what nobody foresaw, is the outermost else."""
    build = app.build_middleware_stack
    routes = chain(app.routes, *(router.routes for router in routers))
    paths = {route.path for route in routes if isinstance(route, Route) and "{" not in route.path}

    app.state.watching = Watching(app.state.figures, paths, log)
    app.build_middleware_stack = lambda: partial(app.state.watching.watch, build())  # type: ignore[method-assign]
