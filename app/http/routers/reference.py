"""What the service can do and will refuse: its ops, limits and errors, each out of the table that owns it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from app.http.documenting import documented
from app.http.writing import sent
from app.problems import CODES, Problem
from app.services.limits import all_limits
from app.wire import models
from engine.core import ops
from engine.describe import describe_op

router = APIRouter(tags=["Reference"])


@router.get("/ops", **documented("All ops", models.OpsAnswer))
async def list_ops() -> Response:
    """The catalogue: name, one sentence, arity, attributes with their JSON schema, how differentiable, an example."""
    return sent({"count": len(ops), "ops": [describe_op(op) for op in ops]})


@router.get("/ops/{name}", **documented("One op", models.OpOut))
async def show_op(name: Annotated[str, Path(examples=["tanh"], max_length=64)]) -> Response:
    """One op of the catalogue, by its name or an alias."""
    if name not in ops:
        raise Problem("not_found", f"{ops.missing(name)}; GET /ops lists all")
    return sent(describe_op(ops.find(name)))


@router.get("/limits", **documented("All limits", models.LimitsAnswer))
async def list_limits(request: Request) -> Response:
    """What a request may cost here, and what may be asked for at a time; a refusal names what was too much."""
    return sent({"limits": all_limits(request.app.state.settings)})


@router.get("/errors", **documented("All error codes", models.ErrorsAnswer))
async def list_errors() -> Response:
    """Codes of problems, with their status and meaning."""
    return sent({"errors": [{"code": code, "status": row.status, "title": row.title} for code, row in CODES.items()]})
