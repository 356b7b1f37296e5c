"""GET /grad: a request out of a URL's query."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from starlette.requests import Request

from app.http.problems import Problem, over_limit
from app.http.reading import Posted, check_accept, validated
from app.services.deadline import Clock
from app.services.questions import escape
from app.wire import json
from app.wire.models import NthRequest

NAMES = {"expr", "wrt", "order", "outputs"}


def posted_from_query(request: Request) -> Posted[NthRequest]:
    """The request that a query spells. Raises invalid_request, and limit_exceeded with 414 for a long one."""
    settings = request.app.state.settings
    length = len(request.scope["path"]) + len(request.scope["query_string"])
    if length > settings.url_bytes:
        raise over_limit("url_bytes", settings.url_bytes, length, "bytes of the URL", 414)
    check_accept(request)
    clock = Clock(settings.seconds)
    with clock.stage("parse"):
        body = _body(_parameters(request))
        _warn_of_spaces(request, body["expression"])
        return Posted(validated(NthRequest, body), clock, request.app.state.answers)


def _parameters(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise Problem("invalid_request", f"the parameter {name[:64]!r} stands twice in the URL")
        found[name] = value
    return found


def _body(parameters: dict[str, str]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "expression": parameters["expr"],
        "order": _json("order", parameters.get("order", "1")),
    }
    for name in ("wrt", "outputs"):
        if name in parameters:
            body[name] = [each.strip() for each in parameters[name].split(",")]
    body["inputs"] = {name: _json(name, value) for name, value in parameters.items() if name not in NAMES}
    return body


def _json(name: str, value: str) -> Any:
    """A number or list; the three words for non-finite numbers need no quotes here."""
    if value in ("NaN", "Infinity", "-Infinity"):
        return value
    try:
        return json.decode(value.encode())
    except json.MalformedJson:
        detail = f"the parameter {name[:64]} is {value[:60]!r}; expected a JSON number or list"
        raise Problem("invalid_request", detail, pointer=f"/inputs/{escape(name[:64])}") from None


def _warn_of_spaces(request: Request, expression: str) -> None:
    """A bare + in a URL is a space; where that leaves two values side by side, say so instead of a riddle."""
    words = expression.split()
    joined = [a for a, b in pairwise(words) if a[-1].isalnum() and (b[0].isalnum() or b[0] == "_")]
    if joined and b"+" in request.scope["query_string"]:
        raise Problem("syntax_error", "in a URL a + is read as a space; write it as %2B", pointer="/expression")
