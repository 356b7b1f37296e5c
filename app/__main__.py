"""`python -m app`: the service, with settings from the environment; `python -m app keys`: who may use it."""

import os
import signal

if __name__ == "__main__":  # first of all: what follows takes a second, and a signal may come meanwhile
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: os._exit(0))

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.commands import arguments, run
from app.logs import install
from app.main import create_app
from app.services.graphs import Graphs
from app.services.keys import Keys, KeysUnusable
from app.services.listening import refusal
from app.services.machine import cores
from app.serving import Server, serve_until_told
from app.settings import Settings, unknown
from app.stores import StoreFailed, StoreUnusable
from app.supervisor import Supervisor

logger = logging.getLogger("gradwire")


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
    log = install(settings.log_format, settings.log_level)
    for name in unknown(os.environ):
        logger.warning("%s is no setting of this version, and changes nothing", name)
    Keys(settings)  # in each process again, but one message is enough
    graphs = Graphs(settings)
    try:
        graphs.open()
    except StoreUnusable as error:
        sys.exit(str(error))
    except StoreFailed as error:
        logger.error("%s; the rest is served", error)
    workers = settings.workers or cores()
    if workers == 1:
        server = Server(create_app(settings, graphs, log), settings)
        serve_until_told(server, server.config.bind_socket())
    if settings.store == "memory":
        sys.exit("GRADWIRE_WORKERS above 1 needs a store that they share: GRADWIRE_STORE=sqlite")
    graphs.close()
    with sharing_figures(settings) as shared:
        sys.exit(Supervisor(shared, workers).run())


@contextmanager
def sharing_figures(settings: Settings) -> Iterator[Settings]:
    """The settings with a directory in which processes share what they count, if they name none."""
    with TemporaryDirectory(prefix="gradwire-") as directory:
        yield settings.model_copy(update={"figures_path": settings.figures_path or Path(directory)})


if __name__ == "__main__":
    main()
