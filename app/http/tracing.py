"""Spans of requests and their stages, where somebody collects traces (the extra `otel`, and OTEL_* in the environment).

FastAPI makes the span of a request and takes the trace that it is part of; what is added here is what only we know. The
stages' spans are made when all is over, out of the clock's times, so that nothing is paid for them while it runs, and
nothing at all where there is no trace.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry import trace
from starlette.types import Scope

from app import __version__
from app.seen import Seen
from app.services.tasks import Road

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

TELEMETRY: TelemetryConfig = {"auto_configure": True, "metrics": False, "logs": False, "operation_spans": False}
"""Spans only: /metrics has the figures, the log has the errors, and stages tell more than FastAPI's own operations."""
TRACED = "fastapi.telemetry"
"""Where FastAPI notes that it makes a span."""


def describe(scope: Scope, seen: Seen) -> None:
    """Say of the request's span what we know of it, and take its ids for the log.

    The query is taken out again: expressions and their inputs are nobody else's business.
    """
    if TRACED not in scope:
        return
    span = trace.get_current_span()
    own = span.get_span_context()
    seen.trace_id, seen.span_id = trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id)
    span.set_attribute("gradwire.request_id", seen.id)
    route = scope.get("route")
    if route is not None and scope["method"] in route.methods:  # FastAPI does not see what goes past its routing
        span.update_name(f"{scope['method']} {route.path}")
        span.set_attribute("http.route", route.path)
    if scope["query_string"]:
        span.set_attribute("url.query", "REDACTED")
    if seen.code is not None:
        span.set_attribute("gradwire.code", seen.code)
    if seen.clock is not None and seen.clock.road is not None:
        span.set_attribute("gradwire.road", Road(seen.clock.road).label)
        span.set_attribute("gradwire.plan_hit", "plan" in seen.clock.notes)


def flush() -> None:
    """Send the spans that wait to be sent. Blocks, for a second at the most."""
    provider = trace.get_tracer_provider()
    if hasattr(provider, "force_flush"):  # only an SDK's has
        provider.force_flush(1000)


def add_stages(scope: Scope, seen: Seen) -> None:
    """A span for each stage, from when it first began, as long as it took in all."""
    if TRACED not in scope or seen.clock is None:
        return
    tracer = trace.get_tracer("gradwire", __version__)
    epoch = time.time() - time.perf_counter()
    for stage, begun in seen.clock.begun.items():
        start = epoch + begun
        span = tracer.start_span(f"gradwire.{stage}", start_time=int(start * 1e9))
        span.end(int((start + seen.clock.stages.get(stage, 0.0)) * 1e9))
