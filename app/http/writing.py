"""Sending an answer: the bytes that the service made, and the times of their making."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from app.http.reading import Posted
from app.wire import json
from app.wire.models import CheckRequest, InspectRequest


async def written(call: str, posted: Posted[Any]) -> Response:
    """The response to a posted request."""
    request, clock, answers = posted.request, posted.clock, posted.answers
    if isinstance(request, CheckRequest):
        body = await answers.of_check(request, clock)
    elif isinstance(request, InspectRequest):
        body = await answers.of_inspection(request, clock)
    else:
        body = await answers.of(call, request, clock, posted.is_light)
    return Response(body, media_type=json.MEDIA_TYPE, headers={"Server-Timing": clock.server_timing})


def sent(value: Any) -> Response:
    """A response of plain values."""
    return Response(json.encode(value), media_type=json.MEDIA_TYPE)
