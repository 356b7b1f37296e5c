"""`python -m app`: the service, with settings from the environment; `python -m app keys`: who may use it."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from tempfile import TemporaryDirectory

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from pydantic_settings import SettingsError
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from app.commands import arguments, run
from app.http.protocol import Protocol
from app.logs import install
from app.main import create_app
from app.services.graphs import Graphs
from app.services.keys import Keys, KeysUnusable
from app.services.listening import refusal
from app.settings import Settings
from app.stores import StoreUnusable


def main() -> None:
    chosen = arguments()
    try:
        settings = Settings()
    except (ValidationError, SettingsError) as error:
        sys.exit(f"GRADWIRE_* settings are wrong:\n{error}")
    try:
        serve(settings) if chosen.run is None else run(chosen, settings)
    except KeysUnusable as error:
        sys.exit(str(error))


def serve(settings: Settings) -> None:
    refused = refusal(settings)
    if refused is not None:
        sys.exit(refused)
    Keys(settings)  # in each process again, but one message is enough
    graphs = Graphs(settings)
    try:
        graphs.open()
    except StoreUnusable as error:
        sys.exit(str(error))
    workers = settings.workers or os.cpu_count() or 1
    if workers > 1 and settings.store == "memory":
        sys.exit("GRADWIRE_WORKERS above 1 needs a store that they share: GRADWIRE_STORE=sqlite")
    if workers > 1:
        graphs.close()
    log = install(settings.log_format, settings.log_level)
    with sharing_figures() if workers > 1 else nullcontext():
        uvicorn.run(
            "app.__main__:worker" if workers > 1 else quiet(create_app(settings, graphs, log)),
            factory=workers > 1,
            workers=workers,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http=Protocol,
            log_config=None,  # it logs as all of this process does
            log_level=settings.log_level,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.forwarded),
            forwarded_allow_ips=list(settings.forwarded),
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=settings.grace_seconds,
            # A kernel may hold the interpreter for some seconds: that is no reason to end a process.
            timeout_worker_healthcheck=int(settings.seconds) + 30,
        )


def worker() -> FastAPI:
    """The application of one process out of several."""
    settings = Settings()
    return quiet(create_app(settings, log=install(settings.log_format, settings.log_level)))


@contextmanager
def sharing_figures() -> Iterator[None]:
    """Give the processes that are started here a directory for what they count; the environment may name another."""
    with TemporaryDirectory(prefix="gradwire-") as directory:
        os.environ.setdefault("GRADWIRE_FIGURES_PATH", directory)
        yield


def quiet(app: FastAPI) -> FastAPI:
    """The application, in a process whose garbage collector has less to do.

    Compiling makes many small objects that live a moment: with Python's own figures a third of the time of a large
    graph went into looking for garbage among them.
    """
    limit_blas(app.state.settings.blas_threads)
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    return app


def limit_blas(threads: int) -> None:
    """Give BLAS so many threads, in this process, from now on; 0 changes nothing."""
    if threads:
        threadpool_limits(threads, user_api="blas")


if __name__ == "__main__":
    main()
