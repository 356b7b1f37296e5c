"""Graphs themselves: looking at one without running it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from starlette.responses import Response

from app.http.documenting import documented
from app.http.reading import Posted, reading
from app.http.writing import written
from app.wire import models

router = APIRouter(prefix="/graphs", tags=["Graphs"])


@router.post("/inspect", **documented("Inspect a graph", models.GraphOut, models.InspectRequest))
async def inspect(
    posted: Annotated[Posted[models.InspectRequest], reading(models.InspectRequest)],
) -> Response:
    """Shapes, dtypes, counts and costs of a graph. Nothing is run, and nothing is kept."""
    return await written(posted)
