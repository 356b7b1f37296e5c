"""Reading a request's body: its size, its media type, its JSON, its form.

A route declares `posted: Annotated[Posted[GradRequest], reading(GradRequest)]`. The body is read here rather than by
FastAPI, because it must be strict, bounded, and never walked by pydantic; the OpenAPI document is told of it by
`app.http.documenting`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from app.problems import Problem, over_limit
from app.services.answers import Answers
from app.services.deadline import Clock
from app.settings import Settings
from app.wire import json
from engine.errors import pointer_to

M = TypeVar("M", bound=BaseModel)
MOST_ERRORS = 10
PLAIN = {
    "model_type": "expected an object",
    "dict_type": "expected an object",
    "list_type": "expected a list",
    "too_short": "expected at least one item",
}
"""What pydantic says of Python's types, in JSON's words."""


@dataclass(frozen=True)
class Posted(Generic[M]):
    """A request's model, the clock that runs for it, and who answers.

    `is_light` tells whether it is small enough to be worked on in the event loop.
    """

    request: M
    clock: Clock
    answers: Answers
    is_light: bool


def reading(model: type[M]) -> Any:
    """The dependency that reads a body into `model`."""

    async def read(request: Request) -> Posted[M]:
        settings: Settings = request.app.state.settings
        answers: Answers = request.app.state.answers
        _check_media_types(request)
        body = await _body(request, settings.body_bytes)
        clock = Clock(settings.seconds)

        def parse() -> M:
            with clock.stage("parse"):
                return validated(model, _decoded(body, settings.json_nesting))

        is_light = len(body) <= settings.inline_bytes
        return Posted(parse() if is_light else await answers.in_thread(parse), clock, answers, is_light)

    return Depends(read)


def _check_media_types(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", json.MEDIA_TYPE).partition(";")
    subtype = media_type.strip().lower()
    if subtype != json.MEDIA_TYPE and not (subtype.startswith("application/") and subtype.endswith("+json")):
        hint = " (with curl: --json)" if subtype == "application/x-www-form-urlencoded" else ""
        raise _unread(f"Content-Type {media_type[:80]!r}; expected {json.MEDIA_TYPE}{hint}")
    charset = parameters.lower().replace('"', "").partition("charset=")[2].partition(";")[0].strip()
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise _unread(f"charset {charset[:40]!r}; JSON is UTF-8")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise _unread(f"Content-Encoding {encoding[:40]!r}; expected none")
    check_accept(request)


def _unread(what: str) -> Problem:
    return Problem("unsupported_media_type", f"the body has {what}", headers={"Accept-Post": json.MEDIA_TYPE})


def check_accept(request: Request) -> None:
    """Raise not_acceptable where the client takes no JSON."""
    ranges = [each.partition(";") for each in request.headers.get("accept", "*/*").lower().split(",")]
    for media_range, _, parameters in ranges:
        refused = any(p.strip() in ("q=0", "q=0.0", "q=0.00", "q=0.000") for p in parameters.split(";"))
        if media_range.strip() in ("*/*", "application/*", json.MEDIA_TYPE, "") and not refused:
            return
    raise Problem("not_acceptable", f"the answer is {json.MEDIA_TYPE}, which the Accept header leaves out")


async def _body(request: Request, most: int) -> bytes:
    """The whole body, given up as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and float(declared[:300]) > most:
        raise over_limit("body_bytes", most, float(declared[:300]), "bytes of the body", 413)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise over_limit("body_bytes", most, size, "bytes of the body", 413)
        chunks.append(chunk)
    return b"".join(chunks)


def _decoded(body: bytes, most_nesting: int) -> Any:
    try:
        value = json.decode(body)
    except json.MalformedJson as error:
        raise Problem("invalid_json", f"the body is not JSON: {str(error)[:200]}") from error
    depth = json.nesting(value, most_nesting)
    if depth > most_nesting:
        raise over_limit("json_nesting", most_nesting, depth, "lists and objects within one another", 400)
    return value


def validated(model: type[M], value: Any) -> M:
    """The model of a decoded body. Raises invalid_request, with a pointer to the first fault."""
    if isinstance(value, dict):
        _refuse_unknown(value, model)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = [
            _fault(each, value)
            for each in error.errors(include_url=False, include_input=False, include_context=False)[:MOST_ERRORS]
        ]
        where = faults[0]["pointer"] or "the body"
        raise Problem(
            "invalid_request", f"{where[:100]}: {faults[0]['detail']}", pointer=faults[0]["pointer"], errors=faults
        ) from None


def _refuse_unknown(body: dict[str, Any], model: type[BaseModel]) -> None:
    """Stop at the first field that the model lacks; pydantic would go on to list a million of them."""
    unknown = next((name for name in body if name not in model.model_fields), None)
    if unknown is not None:
        detail = f"this call has no field {unknown[:64]!r}; it has: {', '.join(model.model_fields)}"
        pointer = pointer_to(unknown)
        raise Problem("invalid_request", detail, pointer=pointer, errors=[{"pointer": pointer, "detail": detail}])


def _fault(error: Any, body: Any) -> dict[str, str]:
    """One of pydantic's errors, with a pointer made of those steps of its location that the body has.

    The others are tags of unions, but for the name of a field that is missing.
    """
    steps: list[str | int] = []
    for step in error["loc"]:
        if isinstance(body, dict | list) and _has(body, step):
            steps.append(step)
            body = body[step]
    if error["type"] == "missing":
        steps.append(error["loc"][-1])
    return {"pointer": pointer_to(*steps), "detail": PLAIN.get(error["type"], error["msg"][:200])}


def _has(body: dict[str, Any] | list[Any], step: str | int) -> bool:
    return step in body if isinstance(body, dict) else isinstance(step, int) and step < len(body)
