"""Whether the service lives, and whether it takes requests."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.http.documenting import documented
from app.http.writing import sent
from app.wire.models import HealthAnswer

router = APIRouter(tags=["Health"])


@router.get("/healthz", **documented("Alive", HealthAnswer))
async def alive() -> Response:
    """The event loop answers."""
    return sent({"status": "ok"})


@router.get("/readyz", **documented("Ready", HealthAnswer))
async def ready() -> Response:
    """Requests are taken."""
    return sent({"status": "ok"})


PROBES = frozenset(getattr(route, "path", "") for route in router.routes)
"""Paths that are answered whoever asks, and however full the service is."""
