"""Several processes that serve on one socket, and one that keeps them going.

A process that dies, or whose event loop stands still for too long, is replaced. SIGTERM and SIGINT are passed on; the
port of the first process is closed before that, so that nobody is left waiting behind it. If this process is killed,
the others notice, and leave.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_double
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import Any

from app.logs import install
from app.main import create_app
from app.serving import LAST_SECONDS, Server, config_of, serve_until_told
from app.settings import Settings

LOOK_SECONDS = 1.0
"""How often one looks whether all event loops turn."""
STANDING_SECONDS = 30.0
"""How long one may stand still, beyond the time of a request: a kernel may hold the interpreter for some seconds."""

logger = logging.getLogger("gradwire")
spawning = multiprocessing.get_context("spawn")
multiprocessing.allow_connection_pickling()


@dataclass
class _Worker:
    child: SpawnProcess
    beat: Any
    begun: float

    @property
    def has_served(self) -> bool:
        return bool(self.beat.value > self.begun)

    def hurry(self) -> None:
        """Have it leave at once, if it is still there."""
        if self.child.exitcode is None and self.child.pid is not None:
            os.kill(self.child.pid, signal.SIGQUIT)


class Supervisor:
    """Keeps `count` processes serving, until a signal."""

    def __init__(self, settings: Settings, count: int) -> None:
        self._settings = settings
        self._count = count
        self._signals = 0
        self._socket = config_of(settings).bind_socket()
        self._bell, self._ringer = os.pipe()
        os.set_blocking(self._ringer, False)

    def run(self) -> int:
        """Serve; the exit code."""
        signal.set_wakeup_fd(self._ringer, warn_on_full_buffer=False)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._on_signal)
        workers = [self._begun() for _ in range(self._count)]
        while not self._signals:
            self._look(workers, LOOK_SECONDS)
            for at, worker in enumerate(workers):
                code = worker.child.exitcode
                if code is None:
                    continue
                if code > 0 and not worker.has_served:  # none would do better; one that was killed may
                    logger.error("a process that should serve could not start: the service stops")
                    self._end(workers)
                    return code
                logger.error("a process that served ended with %d: another one takes over", code)
                workers[at] = self._begun()
        self._end(workers)
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1

    def _begun(self) -> _Worker:
        begun = time.monotonic()
        beat = spawning.Value(c_double, begun, lock=False)
        child = spawning.Process(target=_work, args=(self._settings, self._socket, beat))
        with _deaf():
            child.start()
        return _Worker(child, beat, begun)

    def _look(self, workers: list[_Worker], seconds: float) -> None:
        """Wait until a signal comes or a process ends, `seconds` at most; and end those that stand still."""
        rung = connection.wait([self._bell, *(each.child.sentinel for each in workers)], seconds)
        if self._bell in rung:
            os.read(self._bell, 1 << 10)
        oldest = time.monotonic() - self._settings.seconds - STANDING_SECONDS
        for each in workers:
            if each.child.exitcode is None and each.beat.value < oldest:
                logger.error("the process %d stands still, and is ended", each.child.pid)
                each.child.kill()
                each.child.join()

    def _end(self, workers: list[_Worker]) -> None:
        """Let all processes leave; at a second signal, at once."""
        self._socket.close()
        for each in workers:
            each.child.terminate()
        most = self._settings.drain_seconds + self._settings.grace_seconds + STANDING_SECONDS
        self._await(workers, time.monotonic() + most, signals=2)
        for each in workers:
            each.hurry()
        self._await(workers, time.monotonic() + 4 * LAST_SECONDS, signals=3)
        for each in workers:
            each.child.kill()

    def _await(self, workers: list[_Worker], end: float, signals: int) -> None:
        while time.monotonic() < end and self._signals < signals:
            left = [each for each in workers if each.child.exitcode is None]
            if not left:
                return
            rung = connection.wait([self._bell, *(each.child.sentinel for each in left)], LOOK_SECONDS)
            if self._bell in rung:
                os.read(self._bell, 1 << 10)


def _work(settings: Settings, listener: socket.socket, beat: Any) -> None:
    """One process out of several."""
    log = install(settings.log_format, settings.log_level)
    server = Server(create_app(settings, log=log), settings)

    def beating() -> None:
        beat.value = time.monotonic()

    server.beat = beating
    signal.signal(signal.SIGQUIT, lambda number, frame: server.hurry())
    serve_until_told(server, listener)


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started in here never hears of SIGINT: a terminal sends it to all processes, and it is this one's."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
