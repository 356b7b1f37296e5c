"""GET /grad: a request out of a URL's query."""

from __future__ import annotations

import re
from json import dumps  # the service's own writes no integers beyond 64 bits
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from app.http.reading import Posted, accepted, client_of
from app.problems import Problem
from app.seen import SEEN
from app.services.answers import Answers
from app.services.deadline import Clock
from app.services.memory import Share
from app.services.tasks import Task
from app.wire import json
from app.wire.codecs import JSON
from app.wire.forms import Malformed
from app.wire.models import NthRequest
from engine.attrs import NON_FINITE
from engine.errors import pointer_to

NAMES = {"expr", "wrt", "order", "outputs"}
SPACE_BETWEEN_VALUES = re.compile(r"[\w)\].]\0+[\w.(\[]")


def posted_from_query(request: Request) -> Posted[NthRequest]:
    """The request that a query spells. Raises invalid_request."""
    answers: Answers = request.app.state.answers
    answer = accepted(request)
    clock = request.scope[SEEN].clock = Clock(answers.settings.seconds)
    with clock.stage("parse"):
        _refuse_spaces(request.scope["query_string"])
        body = dumps(_body(_parameters(request))).encode()
    task = Task(
        NthRequest,
        body,
        JSON,
        answer.codec,
        clock,
        client_of(request),
        Share(answers.admission.memory),
        request.receive,
    )
    return Posted(clock, answers, answer, task)


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
    if value in NON_FINITE:
        return value
    try:
        return json.decode(value.encode())
    except Malformed:
        detail = f"the parameter {name[:64]} is {value[:60]!r}; expected a JSON number or list"
        pointer = None if name in NAMES else pointer_to("inputs", name)
        raise Problem("invalid_request", detail, pointer=pointer) from None


def _refuse_spaces(query: bytes) -> None:
    """Refuse a bare + between two values: a query reads it as a space, and `x [0]` would mean another thing."""
    raw = next((each[5:] for each in query.split(b"&") if each.startswith(b"expr=")), b"")
    spelt = unquote(raw.replace(b"+", b"\0").decode("latin-1"))
    found = SPACE_BETWEEN_VALUES.search(spelt)
    if found is not None:
        before = spelt[: found.start() + 1].split("\n")
        where: dict[str, Any] = {"line": len(before), "column": len(before[-1]) + 1}
        detail = "in a URL a + is read as a space; write it as %2B"
        raise Problem("syntax_error", detail, pointer="/expression", **where)
