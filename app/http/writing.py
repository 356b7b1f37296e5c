"""Sending an answer: the bytes that the service made, and the times of their making."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.responses import Response

from app.http.reading import Posted
from app.wire import json
from app.wire.compression import LEAST_BYTES, shrink


async def written(posted: Posted[Any]) -> Response:
    """The response to a posted request."""
    codec, codings = posted.answer.codec, posted.answer.codings
    body = await posted.answers.of(posted.request, posted.clock, posted.is_light, codec)
    coding = None
    if codings and len(body) >= LEAST_BYTES:
        with posted.clock.stage("encode"):
            body, coding = await posted.answers.in_thread(partial(shrink, body, codings))
    headers = {"Server-Timing": posted.clock.server_timing, "Vary": "Accept, Accept-Encoding"}
    if coding is not None:
        headers["Content-Encoding"] = coding
    return Response(body, media_type=codec.media_type, headers=headers)


def sent(value: Any) -> Response:
    """A response of plain values."""
    return Response(json.encode(value), media_type=json.MEDIA_TYPE)
