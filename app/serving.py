"""A process that serves until it is told to stop, and then leaves in good order, with exit code 0.

On SIGTERM or SIGINT, one after the other:

1. `/readyz` says no, and answers carry `Connection: close`; for `drain_seconds` all else goes on, since a load balancer
   sends requests until it has noticed.
2. The port closes. What has arrived is answered, for `grace_seconds` at most.
3. What is left then is cancelled, and answered with 503.

A second signal goes to step 3 at once. Threads may be in a kernel that nothing can stop; the process ends all the same.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from socket import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from uvicorn.config import STARTUP_FAILURE

from app.http.protocol import Protocol
from app.services.answers import Answers
from app.services.machine import spare_collector
from app.services.readiness import Readiness
from app.settings import Settings

TICK = 0.05
"""Seconds between looks at what still runs."""
TURNS = 5
"""Turns of the event loop in which all is accepted, and read, that has arrived."""
LISTENERS = 16
"""So many connections are accepted in a turn of the event loop, which may take 0.1 s when there is much to do. libuv
takes one for each descriptor it listens to, however many wait; so it listens to the socket under several."""
ARRIVING_SECONDS = 0.1, 1.0
"""How long connections that seem idle may bring what was on its way when the port closed; and those that are new."""
LAST_SECONDS = 1.0
"""How long what is cancelled has to be answered, and the application to close what it holds."""

logger = logging.getLogger("gradwire")


class Server(uvicorn.Server):
    """uvicorn's server, with an end of its own."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(config_of(settings, app))
        self.settings = settings
        self._readiness: Readiness = app.state.readiness
        self._answers: Answers = app.state.answers
        self._parent = multiprocessing.parent_process()
        self.beat: Callable[[], None] = lambda: None
        """Called ten times a second, as long as the event loop turns."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal again in the end, and the exit code would not be 0. One of several
        # processes may get the same signal from its parent and from whoever sends it to all: only the parent hurries.
        self.force_exit = self.force_exit or (self.should_exit and self._parent is None)
        self.should_exit = True

    def hurry(self) -> None:
        """Leave now."""
        self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        self.beat()
        return await super().on_tick(counter) or self._is_orphan()

    def _is_orphan(self) -> bool:
        return self._parent is not None and not self._parent.is_alive()

    async def main_loop(self) -> None:
        await super().main_loop()
        self._readiness.drain()
        self.config.encoded_headers.append((b"connection", b"close"))
        # Who has lost its parent makes room for the next one instead.
        seconds = 0.0 if self._is_orphan() else self.settings.drain_seconds
        if seconds:
            logger.info("draining for %g s", seconds)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.force_exit:
            await super().on_tick(0)  # keeps the Date header going
            await asyncio.sleep(TICK)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        self._readiness.drain()
        await _turn()  # a connection that waits to be accepted when the port closes is reset
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        state = self.server_state
        least, most = ARRIVING_SECONDS
        await self._wait(least, lambda: False)
        await self._wait(most - least, lambda: all(getattr(each, "cycle", each) for each in state.connections))
        await _turn()
        for connection in list(state.connections):
            connection.shutdown()
        await self._wait(self.settings.grace_seconds, lambda: not state.connections and not state.tasks)
        await self._cancel()
        # The application takes no requests any more: what it holds is not worth waiting for longer.
        closing = asyncio.create_task(self.lifespan.shutdown())
        await asyncio.wait({closing}, timeout=LAST_SECONDS)

    async def _wait(self, seconds: float, is_over: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.force_exit and not is_over():
            await asyncio.sleep(TICK)

    async def _cancel(self) -> None:
        tasks = set(self.server_state.tasks)
        if not tasks:
            return
        logger.warning("%d requests are not done in time, and are answered with 503", len(tasks))
        self._answers.stop()
        _, left = await asyncio.wait(tasks, timeout=LAST_SECONDS)
        for each in left:  # an upload, or a wait for the store
            each.cancel()
        if left:
            await asyncio.wait(left, timeout=LAST_SECONDS)


async def _turn() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def config_of(settings: Settings, app: FastAPI | None = None) -> uvicorn.Config:
    """What uvicorn has to know."""
    return uvicorn.Config(
        app or "",
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=Protocol,
        lifespan="on",
        log_config=None,  # it logs as all of this process does
        log_level=settings.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.forwarded),
        forwarded_allow_ips=list(settings.forwarded),
        timeout_keep_alive=settings.keep_alive_seconds,
    )


def serve_until_told(server: Server, listener: socket) -> None:
    """Serve on a socket until told to stop, and end the process."""
    spare_collector()
    limit_blas(server.settings.blas_threads)
    listener.setblocking(False)  # or a copy would make it block, in the other processes that listen to it as well
    server.run([listener, *(listener.dup() for _ in range(LISTENERS - 1))])
    leave(0 if server.started else STARTUP_FAILURE)


def limit_blas(threads: int) -> None:
    """Give BLAS so many threads, in this process, from now on; 0 changes nothing."""
    if threads:
        threadpool_limits(threads, user_api="blas")


def leave(code: int) -> None:
    """End the process; at once, if there are threads left. Python would wait for them, and they may take minutes."""
    if any(not each.daemon and each is not threading.main_thread() for each in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
