"""GET /grad: a request out of a URL's query."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from app.http.problems import Problem, over_limit
from app.http.reading import Posted, check_accept, validated
from app.services.deadline import Clock
from app.settings import Settings
from app.wire import json
from app.wire.models import NthRequest
from engine.errors import EngineError, pointer_to
from engine.text import parse

NAMES = {"expr", "wrt", "order", "outputs"}


def posted_from_query(request: Request) -> Posted[NthRequest]:
    """The request that a query spells. Raises invalid_request, and limit_exceeded with 414 for a long one."""
    settings: Settings = request.app.state.settings
    length = len(request.scope["path"]) + len(request.scope["query_string"])
    if length > settings.url_bytes:
        raise over_limit("url_bytes", settings.url_bytes, length, "bytes of the URL", 414)
    check_accept(request)
    clock = Clock(settings.seconds)
    with clock.stage("parse"):
        body = _body(_parameters(request))
        if b"+" in request.scope["query_string"]:
            _explain_spaces(body["expression"], settings)
        return Posted(validated(NthRequest, body), clock, request.app.state.answers, is_light=True)


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
        raise Problem("invalid_request", detail, pointer=pointer_to("inputs", name)) from None


def _explain_spaces(expression: str, settings: Settings) -> None:
    """A bare + in a URL is a space; where the expression does not parse, say so beside what the parser says."""
    try:
        parse(expression, settings.limits)
    except EngineError as error:
        hint = "in a URL a + is read as a space; write it as %2B"
        raise Problem("syntax_error", f"{error.detail}; {hint}", pointer="/expression") from error
