"""Sending an answer: the bytes that the service made, and the times of their making."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.responses import Response

from app.http.reading import Asked, Posted
from app.wire import json
from app.wire.compression import LEAST_BYTES, shrink

VARY = (b"vary", b"Accept, Accept-Encoding")


async def written(posted: Posted[Any]) -> Response:
    """The response to a posted request."""
    return await responded(posted, await posted.answers.of(posted.task))


async def responded(
    asked: Asked,
    body: bytes,
    *,
    status: int = 200,
    media_type: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A response of these bytes, compressed where the client takes it and it pays."""
    codec, codings = asked.answer.codec, asked.answer.codings
    coding = None
    if codings and len(body) >= LEAST_BYTES:
        with asked.clock.stage("encode"):
            body, coding = await asked.answers.in_thread(partial(shrink, body, codings))
    response = Ready(body, status, media_type or codec.media_type, asked.clock.server_timing)
    if coding is not None:
        response.headers["Content-Encoding"] = coding
    if headers:
        response.headers.update(headers)
    return response


class Ready(Response):
    """A response whose headers are made as they are sent: every answer has the same ones."""

    def __init__(self, body: bytes, status: int, media_type: str, timing: str) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", media_type.encode("ascii")),
            (b"server-timing", timing.encode("ascii")),
            VARY,
        ]


def sent(value: Any) -> Response:
    """A response of plain values."""
    return Response(json.encode(value), media_type=json.MEDIA_TYPE)
