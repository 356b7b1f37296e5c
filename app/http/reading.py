"""Reading a request's body: its size, its media type, its coding, its form.

The body is read here rather than by FastAPI, because it must be strict, bounded, and never walked by pydantic; the
OpenAPI document is told of it by `app.http.documenting`. A route calls `read(request, GradRequest)`, or declares
`posted: Annotated[Posted[GradRequest], reading(GradRequest)]` where it has other parameters, too; that costs more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from app.problems import Problem, over_limit
from app.services.answers import Answers
from app.services.deadline import Clock
from app.settings import Settings
from app.wire import json
from app.wire.codecs import BY_MEDIA_TYPE, CODECS, JSON, Codec
from app.wire.compression import CODINGS, TooLarge, expand, weights
from app.wire.forms import Malformed
from engine.errors import pointer_to

M = TypeVar("M", bound=BaseModel)
MOST_ERRORS = 10
HEADERS = 256
"""Values of headers whose meaning is remembered; clients send the same ones over and over."""
PLAIN = {
    "model_type": "expected an object",
    "dict_type": "expected an object",
    "list_type": "expected a list",
    "too_short": "expected at least one item",
}
"""What pydantic says of Python's types, in JSON's words."""


@dataclass(frozen=True)
class Accepted:
    """The form in which the client takes its answer, and the codings that it takes."""

    codec: Codec
    codings: Mapping[str, float]


@dataclass(frozen=True)
class Asked:
    """The clock that runs for a request, who answers it, and in which form."""

    clock: Clock
    answers: Answers
    answer: Accepted


@dataclass(frozen=True)
class Posted(Asked, Generic[M]):
    """A request with a body. `is_light` tells whether it is small enough to be worked on in the event loop."""

    request: M
    is_light: bool


async def read(request: Request, model: type[M]) -> Posted[M]:
    """The body of a request as a model. Raises Problem for whatever is wrong with it."""
    settings: Settings = request.app.state.settings
    answers: Answers = request.app.state.answers
    headers = request.headers
    codec = _codec_of(headers.get("content-type", JSON.media_type))
    coding = _coding_of(headers.get("content-encoding", "identity"))
    answer = accepted(request)
    most = getattr(settings, codec.limit)
    body = await _body(request, codec.limit, most)
    clock = Clock(settings.seconds)

    def parse() -> M:
        with clock.stage("parse"):
            whole = body if coding is None else _expanded(body, coding, codec.limit, most)
            return validated(model, _decoded(whole, codec, settings.json_nesting))

    is_light = len(body) <= settings.inline_bytes and coding is None
    return Posted(clock, answers, answer, parse() if is_light else await answers.in_thread(parse), is_light)


def reading(model: type[M]) -> Any:
    """The dependency that reads a body into `model`."""

    async def read_body(request: Request) -> Posted[M]:
        return await read(request, model)

    return Depends(read_body)


def asking(media_type: str | None = None) -> Any:
    """The dependency of a route without a body, whose answer is of this type, or else has one of our forms."""

    async def ask(request: Request) -> Asked:
        answer = accepted(request) if media_type is None else _accepted_as(request, media_type)
        return Asked(Clock(request.app.state.settings.seconds), request.app.state.answers, answer)

    return Depends(ask)


def _accepted_as(request: Request, media_type: str) -> Accepted:
    wanted = weights(request.headers.get("accept", "")) or {"*/*": 1.0}
    ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    if not next((wanted[each] for each in ranges if each in wanted), 0.0):
        raise Problem("not_acceptable", f"the answer is {media_type}, which the Accept header leaves out")
    return Accepted(JSON, weights(request.headers.get("accept-encoding", "")))


@lru_cache(HEADERS)
def _codec_of(content_type: str) -> Codec:
    """The form of the body, by its media type. Raises unsupported_media_type."""
    media_type, _, parameters = content_type.partition(";")
    subtype = media_type.strip().lower()
    codec = BY_MEDIA_TYPE.get(subtype)
    if codec is None and subtype.startswith("application/") and subtype.endswith("+json"):
        codec = JSON
    if codec is None:
        hint = " (with curl: --json)" if subtype == "application/x-www-form-urlencoded" else ""
        raise _unread(f"Content-Type {media_type[:80]!r}; expected {' or '.join(BY_MEDIA_TYPE)}{hint}")
    charset = parameters.lower().replace('"', "").partition("charset=")[2].partition(";")[0].strip()
    if codec is JSON and charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise _unread(f"charset {charset[:40]!r}; JSON is UTF-8")
    return codec


def _coding_of(content_encoding: str) -> str | None:
    """How the body is compressed, if it is. Raises unsupported_media_type."""
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding not in CODINGS:
        raise _unread(f"Content-Encoding {coding[:40]!r}; expected {', '.join(CODINGS)}, or none")
    return coding


def _unread(what: str) -> Problem:
    headers = {"Accept-Post": ", ".join(BY_MEDIA_TYPE), "Accept-Encoding": ", ".join(CODINGS)}
    return Problem("unsupported_media_type", f"the body has {what}", headers=headers)


def accepted(request: Request) -> Accepted:
    """What the headers say of the answer. Raises not_acceptable where the client takes none of our forms."""
    return _accepted(request.headers.get("accept", ""), request.headers.get("accept-encoding", ""))


@lru_cache(HEADERS)
def _accepted(accept: str, codings: str) -> Accepted:
    wanted = weights(accept)
    best, weight = JSON, 0.0 if wanted else 1.0
    for codec in CODECS:
        ranges = (*codec.media_types, "application/*", "*/*")
        found = next((wanted[each] for each in ranges if each in wanted), 0.0)
        if found > weight:
            best, weight = codec, found
    if not weight:
        forms = " or ".join(BY_MEDIA_TYPE)
        raise Problem("not_acceptable", f"the answer is {forms}, which the Accept header leaves out")
    return Accepted(best, weights(codings))


async def _body(request: Request, limit: str, most: int) -> bytes:
    """The whole body, given up as soon as it is known to be too large."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and float(declared[:300]) > most:
        raise over_limit(limit, most, float(declared[:300]), "bytes of the body", 413)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise over_limit(limit, most, size, "bytes of the body", 413)
        chunks.append(chunk)
    return b"".join(chunks)


def _expanded(body: bytes, coding: str, limit: str, most: int) -> bytes:
    try:
        return expand(body, coding, most)
    except TooLarge:
        raise over_limit(limit, most, most + 1, "bytes of the body, expanded: at least", 413) from None
    except Malformed as error:
        raise Problem("invalid_request", str(error), pointer="") from None


def _decoded(body: bytes, codec: Codec, most_nesting: int) -> Any:
    try:
        value = codec.decode(body)
    except Malformed as error:
        raise Problem("invalid_json", f"the body is not {codec.name}: {str(error)[:200]}") from error
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
