"""What the OpenAPI document says of routes that read their own bodies and write their own answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from app.http import problems
from app.wire import json
from app.wire.examples import EXAMPLES
from app.wire.models import ProblemOut

MEANINGS = {200: "The answer", 201: "The answer; something is there now that was not", 204: "Done"}
REF = "#/components/schemas/{model}"
KEY = {"key": {"type": "http", "scheme": "bearer", "description": "A key of this service."}}


def documented(
    summary: str,
    answer: type[BaseModel] | None,
    request: type[BaseModel] | None = None,
    *,
    statuses: Sequence[int] = (200,),
    media_type: str | None = None,
) -> dict[str, Any]:
    """Keyword arguments of a route: its summary, its request body with examples, its answer, its problems.

    An answer that is no model is empty, or text of a media type.
    """
    problem = {
        "description": "What was wrong, as problem details",
        "content": {problems.MEDIA_TYPE: {"schema": _ref(ProblemOut)}},
    }
    success: dict[str, Any] = {"description": MEANINGS[statuses[0]]}
    if answer is not None:
        success["model"] = answer
    elif media_type is not None:
        success["content"] = {media_type: {"schema": {"type": "string"}}}
    responses = {status: success | {"description": MEANINGS[status]} for status in statuses}
    route: dict[str, Any] = {
        "summary": summary,
        "responses": {**responses, "4XX": problem, "5XX": problem},
        "response_class": Response,
        "response_model": None,
        "status_code": statuses[0],
    }
    if request is not None:
        content = {"schema": _ref(request), "examples": EXAMPLES[request]}
        route["openapi_extra"] = {"requestBody": {"required": True, "content": {json.MEDIA_TYPE: content}}}
    return route


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def install_openapi(app: FastAPI, open: frozenset[str] | None = None) -> None:
    """Make `app.openapi` add the schemas that routes refer to, and keep the result. With `open` paths, the others need
    a key."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            # FastAPI adds the models of answers; these are those that it does not see.
            own = [(model, "validation") for model in (*EXAMPLES, ProblemOut)]
            _, schemas = models_json_schema(own, ref_template=REF)  # type: ignore[arg-type]
            document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
            if open is not None:
                _ask_for_keys(document, open)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _ask_for_keys(document: dict[str, Any], open: frozenset[str]) -> None:
    """Say which routes need a key."""
    document["components"]["securitySchemes"] = KEY
    document["security"] = [{name: []} for name in KEY]
    for path in open & document["paths"].keys():
        for route in document["paths"][path].values():
            route["security"] = []
