"""Every error as application/problem+json (RFC 9457), from one table.

A row is a code: its status, and what it means. Engine errors bring their code; the service's own are `Problem`s. The
table is what `GET /errors` lists and what the OpenAPI document says; `type` points into it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from engine.errors import EngineError, LimitExceeded

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
logger = logging.getLogger("gradwire")


class Meaning(NamedTuple):
    """A row of the table."""

    status: int
    title: str


CODES: dict[str, Meaning] = {
    "invalid_json": Meaning(400, "The body is not JSON"),
    "invalid_request": Meaning(422, "The request does not have the form of this call"),
    "invalid_tensor": Meaning(422, "The data is not a tensor of its dtype and shape"),
    "invalid_graph": Meaning(422, "The graph does not have the form of a graph"),
    "graph_cycle": Meaning(422, "Nodes of the graph wait for each other"),
    "unknown_op": Meaning(422, "No op has this name"),
    "unknown_attribute": Meaning(422, "The op has no such attribute"),
    "unknown_name": Meaning(422, "The name stands for nothing in the graph"),
    "missing_input": Meaning(422, "An input of the graph has no tensor"),
    "syntax_error": Meaning(422, "The expression does not parse"),
    "shape_mismatch": Meaning(422, "Shapes do not go together"),
    "dtype_mismatch": Meaning(422, "Dtypes do not go together"),
    "grad_outputs_required": Meaning(422, "A non-scalar output needs a gradient vector"),
    "not_differentiable": Meaning(422, "The derivative does not exist"),
    "not_scalar": Meaning(422, "The call takes one scalar output"),
    "singular_matrix": Meaning(422, "A matrix is singular"),
    "non_finite": Meaning(422, "A NaN or an infinity came out of finite numbers"),
    "limit_exceeded": Meaning(422, "A limit is exceeded"),
    "unknown_graph": Meaning(404, "No graph has this id"),
    "not_found": Meaning(404, "Nothing is here"),
    "method_not_allowed": Meaning(405, "The method is not for this path"),
    "not_acceptable": Meaning(406, "The answer has no form that the client accepts"),
    "unsupported_media_type": Meaning(415, "The body's form is not read here"),
    "overloaded": Meaning(503, "The service is full"),
    "deadline_exceeded": Meaning(504, "The time for this request is over"),
    "internal": Meaning(500, "The service failed"),
}


class Problem(Exception):
    """An error of the service itself, under a code of the table."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        status: int | None = None,
        pointer: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status or CODES[code].status
        self.pointer = pointer
        self.headers = dict(headers or {})
        self.more = more


def over_limit(name: str, maximum: float, actual: float, what: str, status: int = 422) -> Problem:
    """A breach of one of the service's own limits. `status` is another than 422 where HTTP has one for it."""
    limit = {"name": name, "max": maximum, "actual": actual}
    return Problem(
        "limit_exceeded",
        f"{what}: {actual:,} is over the limit {name} of {maximum:,}",
        status=status,
        limit=limit,
    )


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
    return Response(orjson.dumps(body), problem.status, problem.headers, MEDIA_TYPE)


def from_engine(error: EngineError) -> Problem:
    """An engine's error as a problem."""
    more: dict[str, Any] = {} if error.node is None else {"node": error.node}
    if isinstance(error, LimitExceeded):
        # What is beyond 64 bits is no integer to most readers of JSON.
        actual = error.actual if abs(error.actual) < 2**63 else float(min(error.actual, 10**300))
        more["limit"] = {"name": error.name, "max": error.maximum, "actual": actual}
    if error.line is not None:
        more |= {"line": error.line, "column": error.column}
    headers = RETRY_AFTER if CODES[error.code].status >= 500 else None
    return Problem(error.code, error.detail, pointer=error.pointer, headers=headers, **more)


async def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return respond(error, request.url.path)


async def on_engine_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EngineError)
    return respond(from_engine(error), request.url.path)


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
    """What all routes of this path take; Starlette tells those of the first only."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    here = (methods for path, methods in paths.items() if compile_path(path)[0].match(request.url.path))
    return {method.upper() for methods in here for method in methods}


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The client went away in the middle of its body; nobody will read this."""
    return Response(status_code=400)


async def on_crash(request: Request, error: Exception) -> Response:
    """What nobody foresaw: an id for the client, the traceback for the log."""
    name = uuid.uuid4()
    logger.error("internal error %s in %s %s", name, request.method, request.url.path, exc_info=error)
    return respond(Problem("internal", f"the service failed; its log has the reason under {name}"), f"urn:uuid:{name}")


async def on_invalid_parameters(request: Request, error: Exception) -> Response:
    """What FastAPI says of path and query parameters."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])[:64]
    return respond(Problem("invalid_request", f"the parameter {name}: {first['msg'][:200]}"), request.url.path)
