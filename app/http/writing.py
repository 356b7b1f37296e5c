"""Sending an answer: the bytes that the service made, and the times of their making."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.responses import Response

from app.http.reading import Asked, Posted
from app.wire import json
from app.wire.compression import LEAST_BYTES, shrink


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
    own = {"Server-Timing": asked.clock.server_timing, "Vary": "Accept, Accept-Encoding", **(headers or {})}
    if coding is not None:
        own["Content-Encoding"] = coding
    return Response(body, status, own, media_type or codec.media_type)


def sent(value: Any) -> Response:
    """A response of plain values."""
    return Response(json.encode(value), media_type=json.MEDIA_TYPE)
