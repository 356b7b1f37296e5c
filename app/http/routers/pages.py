"""The page for people: Swagger UI, from files that the service has itself."""

from __future__ import annotations

from functools import lru_cache

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

from app.http.headers import page_headers

router = APIRouter(include_in_schema=False)

PATH, STATIC = "/docs", "/docs/static"
PARAMETERS = {"validatorUrl": None, "tryItOutEnabled": True, "defaultModelsExpandDepth": 0}
"""No validator, because it is somebody else's server."""


@router.get(PATH)
async def page(request: Request) -> HTMLResponse:
    """The API, to be tried out."""
    html = _html(request.app.title, request.app.openapi_url, request.scope.get("root_path", ""))
    return HTMLResponse(html, headers=page_headers(html))


@lru_cache(1)
def _html(title: str, openapi_url: str, root: str) -> str:
    response = get_swagger_ui_html(
        openapi_url=root + openapi_url,
        title=f"{title} - Swagger UI",
        swagger_js_url=f"{root}{STATIC}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{STATIC}/swagger-ui.css",
        swagger_favicon_url=f"{root}{STATIC}/favicon.png",
        swagger_ui_parameters=PARAMETERS,
    )
    return bytes(response.body).decode()
