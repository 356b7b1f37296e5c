"""Reading a request's body: its size, its media type, its coding, its form.

The body is read here rather than by FastAPI, because it must be strict, bounded, and never walked by pydantic; the
OpenAPI document is told of it by `app.http.documenting`. A route calls `read(request, GradRequest)`, or declares
`posted: Annotated[Posted[GradRequest], reading(GradRequest)]` where it has other parameters, too; that costs more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.problems import Problem, over_limit
from app.seen import SEEN
from app.services.answers import Answers
from app.services.clients import CLIENT
from app.services.deadline import Clock
from app.services.memory import Share
from app.services.tasks import Client, Task
from app.settings import Settings
from app.wire.codecs import BY_MEDIA_TYPE, CODECS, JSON, Codec
from app.wire.compression import CODINGS, TooLarge, expand, weights
from app.wire.forms import Malformed

M = TypeVar("M", bound=BaseModel)
UNCOUNTED = 1 << 16
"""Bytes of a body that are not worth counting: connections are bounded, and hold more themselves."""
HEADERS = 256
"""Values of headers whose meaning is remembered; clients send the same ones over and over."""


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
    """A request with a body: what is asked of the service."""

    task: Task[M]


async def read(request: Request, model: type[M]) -> Posted[M]:
    """The body of a request, to be read as a model. Raises Problem for whatever HTTP has to say of it."""
    settings: Settings = request.app.state.settings
    answers: Answers = request.app.state.answers
    headers = dict(request.scope["headers"])
    codec = _codec_of(headers.get(b"content-type", b""))
    coding = _coding_of(headers.get(b"content-encoding", b""))
    answer = _accepted(headers.get(b"accept", b""), headers.get(b"accept-encoding", b""))
    most = getattr(settings, codec.limit)
    share = Share(answers.admission.memory)
    try:
        _check_length(headers.get(b"content-length", b"0"), codec.limit, most)
        body = await _body(request.receive, codec.limit, most, share)
        clock = request.scope[SEEN].clock = Clock(settings.seconds)
        if coding is not None:
            with clock.stage("parse"):
                body = await answers.in_thread(partial(_expanded, body, coding, codec.limit, most))
            if len(body) > UNCOUNTED:
                share.grow(len(body))
    except BaseException:
        share.close()
        raise
    task = Task(model, body, codec, answer.codec, clock, client_of(request), share, request.receive)
    return Posted(clock, answers, answer, task)


def client_of(request: Request) -> Client:
    """Who asks: by the key or the address, as app.http.guard found."""
    client: Client = request.scope[CLIENT]
    return client


def reading(model: type[M]) -> Any:
    """The dependency that reads a body, to be read as `model`."""

    async def read_body(request: Request) -> Posted[M]:
        return await read(request, model)

    return Depends(read_body)


def asking(media_type: str | None = None) -> Any:
    """The dependency of a route without a body, whose answer is of this type, or else has one of our forms."""

    async def ask(request: Request) -> Asked:
        answer = accepted(request) if media_type is None else _accepted_as(request, media_type)
        clock = request.scope[SEEN].clock = Clock(request.app.state.settings.seconds)
        return Asked(clock, request.app.state.answers, answer)

    return Depends(ask)


def _accepted_as(request: Request, media_type: str) -> Accepted:
    wanted = weights(request.headers.get("accept", "")) or {"*/*": 1.0}
    ranges = (media_type, media_type.partition("/")[0] + "/*", "*/*")
    if not next((wanted[each] for each in ranges if each in wanted), 0.0):
        raise Problem("not_acceptable", f"the answer is {media_type}, which the Accept header leaves out")
    return Accepted(JSON, weights(request.headers.get("accept-encoding", "")))


@lru_cache(HEADERS)
def _codec_of(content_type: bytes) -> Codec:
    """The form of the body, by its media type; JSON without one. Raises unsupported_media_type."""
    media_type, _, parameters = (content_type.decode("latin-1") or JSON.media_type).partition(";")
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


@lru_cache(HEADERS)
def _coding_of(content_encoding: bytes) -> str | None:
    """How the body is compressed, if it is. Raises unsupported_media_type."""
    coding = content_encoding.decode("latin-1").strip().lower()
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
    headers = dict(request.scope["headers"])
    return _accepted(headers.get(b"accept", b""), headers.get(b"accept-encoding", b""))


@lru_cache(HEADERS)
def _accepted(accept: bytes, codings: bytes) -> Accepted:
    wanted = weights(accept.decode("latin-1"))
    best, weight = JSON, 0.0 if wanted else 1.0
    for codec in CODECS:
        ranges = (*codec.media_types, "application/*", "*/*")
        found = next((wanted[each] for each in ranges if each in wanted), 0.0)
        if found > weight:
            best, weight = codec, found
    if not weight:
        forms = " or ".join(BY_MEDIA_TYPE)
        raise Problem("not_acceptable", f"the answer is {forms}, which the Accept header leaves out")
    return Accepted(best, weights(codings.decode("latin-1")))


def _check_length(declared: bytes, limit: str, most: int) -> None:
    """Refuse a body by its Content-Length."""
    if declared.isdigit() and float(declared[:300]) > most:
        raise over_limit(limit, most, float(declared[:300]), "bytes of the body", 413)


async def _body(receive: Receive, limit: str, most: int, share: Share) -> bytes:
    """The whole body, given up as soon as it is known to be too large; long ones are counted as they come."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > most:
            raise over_limit(limit, most, size, "bytes of the body", 413)
        if size > UNCOUNTED:
            share.grow(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


def _expanded(body: bytes, coding: str, limit: str, most: int) -> bytes:
    try:
        return expand(body, coding, most)
    except TooLarge:
        raise over_limit(limit, most, most + 1, "bytes of the body, expanded: at least", 413) from None
    except Malformed as error:
        raise Problem("invalid_request", str(error), pointer="") from None
