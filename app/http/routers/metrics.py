"""What the service has done and is doing, for Prometheus."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from app.http.documenting import documented
from app.http.exposition import exposition

router = APIRouter(tags=["Health"])


@router.get("/metrics", **documented("Metrics", None, media_type="text/plain"))
async def metrics(request: Request) -> Response:
    """Counts and times in Prometheus's text format, or in OpenMetrics; of all processes where several serve."""
    found = request.app.state.shared.all()
    # Some milliseconds of text: not for the event loop, and not behind what computes.
    body, media_type = await anyio.to_thread.run_sync(exposition, found, request.headers.get("accept", ""))
    return Response(body, media_type=media_type)
