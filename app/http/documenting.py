"""What the OpenAPI document says of routes that read their own bodies and write their own answers."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.http import problems
from app.wire import json
from app.wire.examples import EXAMPLES
from app.wire.models import ProblemOut

REF = "#/components/schemas/{model}"


def documented(summary: str, answer: type[BaseModel], request: type[BaseModel] | None = None) -> dict[str, Any]:
    """Keyword arguments of a route: its summary, its request body with examples, its answer, its problems."""
    problem = {
        "description": "What was wrong, as problem details",
        "content": {problems.MEDIA_TYPE: {"schema": _ref(ProblemOut)}},
    }
    route: dict[str, Any] = {
        "summary": summary,
        "responses": {200: {"model": answer, "description": "The answer"}, "4XX": problem, "5XX": problem},
        "response_model": None,
    }
    if request is not None:
        content = {"schema": _ref(request), "examples": EXAMPLES[request]}
        route["openapi_extra"] = {"requestBody": {"required": True, "content": {json.MEDIA_TYPE: content}}}
    return route


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def install_openapi(app: FastAPI) -> None:
    """Make `app.openapi` add the schemas that routes refer to, and keep the result."""

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
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
