"""Problems as responses: application/problem+json for everything, FastAPI's and Starlette's own errors included.

`type` points into `GET /errors`, which lists the table of app.problems.
"""

from __future__ import annotations

import logging
import uuid
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import Receive, Scope, Send

from app.problems import CODES, RETRY_AFTER, Problem, from_engine
from app.seen import SEEN
from engine.errors import EngineError

MEDIA_TYPE = "application/problem+json"
NOSNIFF = {"X-Content-Type-Options": "nosniff"}
"""An answer is what its Content-Type says: never a script, for one, because it looks like one."""
logger = logging.getLogger("gradwire")


class ProblemResponse(Response):
    """The response of a problem, which is noted on its way out."""

    def __init__(self, problem: Problem, body: bytes) -> None:
        super().__init__(body, problem.status, problem.headers, MEDIA_TYPE)
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seen = scope.get(SEEN)
        if seen is not None:
            seen.fail(*seen_of(self.problem))
        await super().__call__(scope, receive, send)


def seen_of(problem: Problem) -> tuple[int, str, str | None]:
    """What is noted of a problem: its status, its code, and the limit that was hit."""
    return problem.status, problem.code, problem.more.get("limit", {}).get("name")


def respond(problem: Problem, path: str) -> Response:
    """The response of a problem."""
    body = {
        "type": f"/errors#{problem.code}",
        "title": CODES[problem.code].title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": path,
        "code": problem.code,
        "pointer": problem.pointer,
        **problem.more,
    }
    return ProblemResponse(problem, orjson.dumps(body))


async def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return respond(error, request.url.path)


async def on_engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return respond(from_engine(error), request.url.path)


async def on_store_failure(request: Request, error: Exception) -> Response:
    """The graphs' store is full or busy; what needs no store goes on."""
    logger.error("the store of graphs failed: %s", error)
    detail = f"the store of graphs failed: {error}"
    return respond(Problem("overloaded", detail, headers=RETRY_AFTER), request.url.path)


HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    415: "unsupported_media_type",
}


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette and FastAPI raise of their own: unknown routes and methods."""
    assert isinstance(error, HTTPException)
    code = HTTP_CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal")
    headers = dict(error.headers or {})
    if code == "method_not_allowed":
        headers["Allow"] = ", ".join(sorted(_methods(request)))
    detail = f"{request.method[:20]} {request.url.path[:120]}: {error.detail}"
    return respond(Problem(code, detail, status=error.status_code, headers=headers), request.url.path)


def _methods(request: Request) -> set[str]:
    """What all routes of this path take; Starlette tells those of the first. A path that is spelt out is its own."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    own = paths.get(request.url.path)
    here = [own] if own else [each for path, each in paths.items() if compile_path(path)[0].match(request.url.path)]
    found = {method.upper() for methods in here for method in methods}
    return found | {"HEAD"} if "GET" in found else found


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The client went away, in the middle of its body or before its answer; nobody will read this, but it is counted,
    under the status that nginx has for it."""
    return Response(status_code=499)


async def on_crash(request: Request, error: Exception) -> Response:
    """What nobody foresaw: an id for the client, the traceback for the log."""
    name = uuid.uuid4()
    logger.error("internal error %s in %s %s", name, request.method, request.url.path, exc_info=error)
    detail = f"the service failed; its log has the reason under {name}"
    # This is sent from outside of all middleware, which puts such a header on every other answer.
    return respond(Problem("internal", detail, headers=NOSNIFF), f"urn:uuid:{name}")


async def on_invalid_parameters(request: Request, error: Exception) -> Response:
    """What FastAPI says of path and query parameters."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])[:64]
    return respond(Problem("invalid_request", f"the parameter {name}: {first['msg'][:200]}"), request.url.path)
