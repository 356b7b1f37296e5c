"""Answers that may be kept for ever: what a graph's id leads to is a matter of the id alone (RFC 9110, RFC 8246).

The entity tag is the id, and for another form or coding of the same the id and its name.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from app.http.reading import Asked
from app.settings import Settings
from app.wire.codecs import JSON

FOR_EVER = "{whose}, max-age=31536000, immutable"
"""Where keys are set, `private`: caches between would give what is public to clients without one (RFC 9111, 3.5)."""


def not_modified(request: Request, id: str) -> Response | None:
    """The answer to a client that has the graph's already, whichever form it has."""
    given, settings = request.headers.get("if-none-match", ""), request.app.state.settings
    for tag in (each.strip().removeprefix("W/") for each in given.split(",")):
        if tag == "*" or tag.strip('"').partition("-")[0] == id:
            return Response(status_code=304, headers=_headers(f'"{id}"' if tag == "*" else tag, settings))
    return None


def kept(response: Response, asked: Asked, id: str) -> Response:
    """The response, marked to be kept for ever."""
    form = "" if asked.answer.codec is JSON else asked.answer.codec.name.lower()
    parts = [id, form, response.headers.get("content-encoding", "")]
    response.headers.update(_headers(f'"{"-".join(part for part in parts if part)}"', asked.answers.settings))
    return response


def _headers(tag: str, settings: Settings) -> dict[str, str]:
    for_ever = FOR_EVER.format(whose="private" if settings.keyed else "public")
    return {"ETag": tag, "Cache-Control": for_ever, "Vary": "Accept, Accept-Encoding"}
