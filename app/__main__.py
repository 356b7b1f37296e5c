"""`python -m app`: the service, with settings from the environment."""

import gc
import sys

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.main import create_app
from app.services.graphs import Graphs
from app.settings import Settings
from app.stores import StoreUnusable


def main() -> None:
    try:
        settings = Settings()
    except (ValidationError, SettingsError) as error:
        sys.exit(f"GRADWIRE_* settings are wrong:\n{error}")
    graphs = Graphs(settings)
    try:
        graphs.open()
    except StoreUnusable as error:
        sys.exit(str(error))
    # Compiling makes many small objects that live a moment: with Python's own figures a third of the time of a large
    # graph went into looking for garbage among them.
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)
    uvicorn.run(
        create_app(settings, graphs),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.grace_seconds,
    )


if __name__ == "__main__":
    main()
