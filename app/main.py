"""The application, wired in one function; nothing happens at import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import engine.ops  # noqa: F401 - fills the catalogue
from app import __version__
from app.http import problems, tracing
from app.http.bounds import Bounds
from app.http.direct import Direct
from app.http.documenting import install_openapi
from app.http.guard import Guard, open_paths
from app.http.headers import Cors, NoSniffing
from app.http.leaving import Leaving
from app.http.routers import gradients, graphs, health, metrics, pages, reference
from app.http.watching import install_watching
from app.logs import Log
from app.problems import Problem
from app.services.answers import Answers
from app.services.graphs import Graphs
from app.services.keys import Keys
from app.services.limits import settled
from app.services.observed import figures_of
from app.services.readiness import Readiness
from app.services.sharing import Shared
from app.services.tasks import Gone
from app.settings import Settings
from app.stores import StoreFailed, StoreUnusable
from engine.errors import EngineError

DESCRIPTION = """\
Post an expression graph and its input tensors as JSON; get values, gradients of any order, and the graph's metadata.

Semantics are those of PyTorch's autograd; ops are named as in the Python Array API standard. Each call below has
examples that run: open one and press *Try it out*.
"""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    with suppress(StoreFailed):  # it is opened when it can be; what needs no store is answered meanwhile
        app.state.graphs.open()
    await app.state.answers.start()
    async with app.state.shared:
        # What the protocol sees, too.
        memory = app.state.answers.admission.memory
        yield {"settings": app.state.settings, "watching": app.state.watching, "memory": memory}
    await app.state.answers.in_thread(tracing.flush)
    app.state.answers.close()
    app.state.graphs.close()


ROUTERS = (gradients.router, graphs.router, reference.router, health.router, metrics.router, pages.router)


def create_app(settings: Settings | None = None, registered: Graphs | None = None, log: Log | None = None) -> FastAPI:
    """The service under these settings, or under those of the environment. Without a log requests leave no lines."""
    settings = settled(settings or Settings())
    app = FastAPIOffline(
        title="Gradwire",
        version=__version__,
        summary="Gradients over HTTP",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        static_url=pages.STATIC,
        lifespan=_lifespan,
        telemetry=tracing.TELEMETRY,
    )
    # What is added last comes first.
    app.add_middleware(Direct, router=gradients.router, handlers=app.exception_handlers)
    app.add_middleware(Bounds, settings=settings)
    app.add_middleware(Guard, settings=settings, keys=Keys(settings))
    app.add_middleware(NoSniffing)
    if settings.cors_origins:
        app.add_middleware(Cors, origins=settings.cors_origins)
    app.state.settings = settings
    app.state.graphs = registered or Graphs(settings)
    app.state.answers = Answers(settings, app.state.graphs)
    app.state.readiness = Readiness({"store": app.state.graphs.check, "workers": app.state.answers.check})
    app.add_middleware(Leaving, readiness=app.state.readiness)
    app.state.figures = figures_of(app.state.answers)
    app.state.shared = Shared(app.state.figures, settings.figures_path)
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(Problem, problems.on_problem)
    app.add_exception_handler(EngineError, problems.on_engine_error)
    app.add_exception_handler(StoreFailed, problems.on_store_failure)
    app.add_exception_handler(StoreUnusable, problems.on_store_failure)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.add_exception_handler(RequestValidationError, problems.on_invalid_parameters)
    app.add_exception_handler(ClientDisconnect, problems.on_disconnect)
    app.add_exception_handler(Gone, problems.on_disconnect)
    app.add_exception_handler(Exception, problems.on_crash)
    install_openapi(app, open_paths(settings) if settings.keyed else None)
    install_watching(app, ROUTERS, log if settings.log_requests else None)
    return app
