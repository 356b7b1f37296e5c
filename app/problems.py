"""Every error that the service can answer, in one table (RFC 9457).

A row is a code: its status, and what it means. Engine errors bring their code; the service's own are `Problem`s. The
table is what `GET /errors` lists and what the reference page says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from engine.errors import Breach, EngineError, LimitExceeded

RETRY_AFTER = {"Retry-After": "1"}


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
    "unauthorized": Meaning(401, "The service asks for a key"),
    "unknown_graph": Meaning(404, "No graph has this id"),
    "not_found": Meaning(404, "Nothing is here"),
    "method_not_allowed": Meaning(405, "The method is not for this path"),
    "not_acceptable": Meaning(406, "The answer has no form that the client accepts"),
    "unsupported_media_type": Meaning(415, "The body's form is not read here"),
    "rate_limited": Meaning(429, "The client asks for more than its share"),
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

    def as_dict(self) -> dict[str, Any]:
        """All of it, for another process."""
        own = {"code": self.code, "detail": self.detail, "status": self.status}
        return {**own, "pointer": self.pointer, "headers": self.headers, **self.more}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Problem:
        """What `as_dict` wrote."""
        return cls(found.pop("code"), found.pop("detail"), **found)


def from_engine(error: EngineError) -> Problem:
    """An engine's error as a problem."""
    more: dict[str, Any] = {} if error.node is None else {"node": error.node}
    if isinstance(error, Breach):
        more["limit"] = _limit(error.name, error.maximum, error.actual)
    if error.line is not None:
        more |= {"line": error.line, "column": error.column}
    headers = RETRY_AFTER if CODES[error.code].status >= 500 else None
    return Problem(error.code, error.detail, pointer=error.pointer, headers=headers, **more)


def over_limit(name: str, maximum: float, actual: float, what: str, status: int = 422) -> Problem:
    """A breach of one of the service's own limits. `status` is another than 422 where HTTP has one for it."""
    problem = from_engine(LimitExceeded(name, maximum, actual, what))
    problem.status = status
    return problem


def over_for_now(code: str, name: str, maximum: float, actual: float, detail: str, again: float = 1) -> Problem:
    """A breach of the moment, under a code of its own; the client may come again in so many seconds."""
    retry = {"Retry-After": str(max(1, math.ceil(again)))}
    return Problem(code, detail, headers=retry, limit=_limit(name, maximum, actual))


def past(most: float, seconds: float) -> float:
    """How long it took, of what took too long. The event loop's time has whole milliseconds only, and may be over a
    moment early."""
    return round(max(seconds, most + 0.001), 3)


def _limit(name: str, maximum: float, actual: float) -> dict[str, Any]:
    """A breach as all problems have it: the name is a setting's, and the maximum what held for this request."""
    # What is beyond 64 bits is no integer to most readers of JSON.
    figure = actual if abs(actual) < 2**63 else float(min(actual, 10**300))
    return {"name": name, "max": maximum, "actual": figure}
