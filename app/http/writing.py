"""Sending an answer: the bytes that the service made, and the times of their making."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from app.http.reading import Posted
from app.wire import json


async def written(posted: Posted[Any]) -> Response:
    """The response to a posted request."""
    body = await posted.answers.of(posted.request, posted.clock, posted.is_light)
    return Response(body, media_type=json.MEDIA_TYPE, headers={"Server-Timing": posted.clock.server_timing})


def sent(value: Any) -> Response:
    """A response of plain values."""
    return Response(json.encode(value), media_type=json.MEDIA_TYPE)
