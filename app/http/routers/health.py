"""Whether the service lives, and whether it takes requests. Nothing limits these two."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.http.documenting import documented
from app.http.writing import sent
from app.problems import RETRY_AFTER, Problem
from app.services.readiness import OK
from app.wire.models import HealthAnswer, ReadyAnswer

router = APIRouter(tags=["Health"])


@router.get("/healthz", **documented("Alive", HealthAnswer))
async def alive() -> Response:
    """The event loop answers. A process that does not is to be started again."""
    return sent({"status": "ok"})


@router.get("/readyz", **documented("Ready", ReadyAnswer))
async def ready(request: Request) -> Response:
    """Requests are taken: graphs can be kept, workers live, and the service is not about to stop. 503 where not."""
    found = await request.app.state.readiness.found()
    wrong = "; ".join(f"{name}: {said}" for name, said in found.items() if said != OK)
    if wrong:
        raise Problem("overloaded", f"not ready: {wrong}", headers=RETRY_AFTER, checks=found)
    return sent({"status": "ok", "checks": found})


PROBES = frozenset(getattr(route, "path", "") for route in router.routes)
"""Paths that are answered whoever asks, and however full the service is."""
