"""Graphs themselves: keeping them, finding them, and looking at one without running it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from app.http.documenting import documented
from app.http.headers import DRAWING
from app.http.keeping import kept, not_modified
from app.http.reading import Asked, Posted, asking, reading
from app.http.writing import responded, written
from app.wire import models

router = APIRouter(prefix="/graphs", tags=["Graphs"])

Id = Annotated[str, Path(description="The graph's id.", examples=["06151270374988348e1d639ee7904bd0"])]
SVG, DOT, MERMAID = "image/svg+xml", "text/vnd.graphviz", "text/plain"
MOST_ROWS, LAST = 1000, 2**63 - 1


@router.post("/inspect", **documented("Inspect a graph", models.GraphOut, models.InspectRequest))
async def inspect(
    posted: Annotated[Posted[models.InspectRequest], reading(models.InspectRequest)],
) -> Response:
    """Shapes, dtypes, counts and costs of a graph. Nothing is run, and nothing is kept."""
    return await written(posted)


@router.post("", **documented("Register a graph", models.RegisteredOut, models.RegisterRequest, statuses=(200, 201)))
async def register(posted: Annotated[Posted[models.RegisterRequest], reading(models.RegisterRequest)]) -> Response:
    """Keep a graph, so that requests may have its `graph_id` in place of it. 201, or 200 where it was there already.

    The id is a hash of the content: equal graphs have equal ids, and what an id leads to never changes. A `name` is
    moved from the graph that it led to before. `inputs` are checked against the graph, and described in the list; calls
    may bring inputs of other shapes and dtypes.
    """
    id, is_new, answer = await posted.answers.register(posted.task)
    return await responded(posted, answer, status=201 if is_new else 200, headers={"Location": f"/graphs/{id}"})


@router.get("", **documented("All graphs", models.GraphsAnswer))
async def list_graphs(
    asked: Annotated[Asked, asking()],
    limit: Annotated[int, Query(ge=1, le=MOST_ROWS, description="Graphs of one page.")] = 100,
    cursor: Annotated[int | None, Query(ge=0, le=LAST, description="`next` of the page before.")] = None,
    name: Annotated[str | None, Query(max_length=64, description="Only the graph that this name leads to.")] = None,
) -> Response:
    """What is registered, page by page, the latest first; a Link header (RFC 8288) leads to the next page."""
    page = await asked.answers.graphs.page(limit, cursor, name)
    body = asked.answer.codec.encode({"graphs": page.graphs, "next": None if page.before is None else str(page.before)})
    query = urlencode({"limit": limit, "cursor": page.before} | ({} if name is None else {"name": name}))
    link = {} if page.before is None else {"Link": f'</graphs?{query}>; rel="next"'}
    return await responded(asked, body, headers=link)


@router.get("/{id}", **documented("One graph", models.ShownOut))
async def show(request: Request, asked: Annotated[Asked, asking()], id: Id) -> Response:
    """What the graph is, as nodes and as text. It never changes, and may be kept for ever.

    Names lead to other graphs at times: GET /graphs lists them.
    """
    await asked.answers.graphs.find(id)
    known = not_modified(request, id)
    if known is not None:
        return known
    return kept(await responded(asked, await asked.answers.shown(id, asked.answer.codec)), asked, id)


@router.get("/{id}/graph.svg", **documented("A graph as SVG", None, media_type=SVG))
async def draw_svg(request: Request, asked: Annotated[Asked, asking(SVG)], id: Id) -> Response:
    """The graph as a picture, layer by layer; functions have frames of their own."""
    return await _drawn(request, asked, id, "svg", SVG)


@router.get("/{id}/graph.dot", **documented("A graph in DOT", None, media_type=DOT))
async def draw_dot(request: Request, asked: Annotated[Asked, asking(DOT)], id: Id) -> Response:
    """The graph in Graphviz's DOT language."""
    return await _drawn(request, asked, id, "dot", DOT)


@router.get("/{id}/graph.mmd", **documented("A graph in Mermaid", None, media_type=MERMAID))
async def draw_mermaid(request: Request, asked: Annotated[Asked, asking(MERMAID)], id: Id) -> Response:
    """The graph as a Mermaid flowchart."""
    return await _drawn(request, asked, id, "mmd", MERMAID)


async def _drawn(request: Request, asked: Asked, id: str, form: str, media_type: str) -> Response:
    await asked.answers.graphs.find(id)
    known = not_modified(request, id)
    if known is not None:
        return known
    body = await asked.answers.drawn(id, form)
    return kept(await responded(asked, body, media_type=f"{media_type}; charset=utf-8", headers=DRAWING), asked, id)


@router.delete("/{id}", **documented("Forget a graph", None, statuses=(204,)))
async def forget(asked: Annotated[Asked, asking()], id: Id) -> Response:
    """Forget a graph, and the names that lead to it."""
    await asked.answers.graphs.remove(id)
    return Response(status_code=204)
