"""A worker: a process that does one task after the other, and may be killed at any moment.

It asks for nothing but its socket: of its settings only the limits matter to it, registered graphs are handed to it,
and whatever it has cached it can lose. Its own alarm ends it when the time for a task is over, even within a call of
LAPACK's that nothing else could end; and it ends when the service does.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import engine.ops  # noqa: F401 - fills the catalogue, once for all workers
from app.problems import RETRY_AFTER, Problem, from_engine
from app.services.cache import Cache
from app.services.computing import Computer
from app.services.deadline import Clock
from app.services.machine import NICENESS, cores, spare_collector, step_back
from app.services.memory import Memory, Share
from app.services.messages import Found, Job, Lowered, Reply, Wanted, receive, send
from app.services.records import Registered
from app.services.tasks import Client, Road, Task
from app.settings import Settings
from app.wire import models
from app.wire.codecs import BY_MEDIA_TYPE
from engine.errors import EngineError

GRACE_SECONDS = 0.5
"""A task that looks at its clock has this much longer to say that its time is over, before the alarm ends it."""
CPU_GRACE_SECONDS = 10


def serve(connection: Connection, lifeline: Connection, settings: Settings) -> None:
    """Do what comes, until nobody is there any more."""
    _settle(lifeline, settings)
    worker = _Worker(connection, settings)
    while True:
        try:
            job, body = receive(connection, Job)
            worker.do(job, body or b"")
        except (EOFError, OSError):
            return


def _settle(lifeline: Connection, settings: Settings) -> None:
    step_back(NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the service is told by the terminal, and tells us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    _hold_to(resource.RLIMIT_AS, _size() + settings.worker_bytes)
    _hold_to(resource.RLIMIT_CORE, 0)
    spare_collector()


def _hold_to(kind: int, most: int) -> None:
    """Hold this process to so much of something, or to less where the system already does."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _end_with(lifeline: Connection) -> None:
    """Wait for the service to end, which nobody tells us that is at work; then there is nobody to answer."""
    try:
        lifeline.recv_bytes()
    except (EOFError, OSError):
        os._exit(0)


def _size() -> int:
    """Bytes of this process's address space."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 34


class _Worker:
    """What lasts from one task to the next."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self.connection = connection
        self.settings = settings
        self.computer = Computer(settings)
        self.memory = Memory(sys.maxsize)
        self.graphs: Cache[Registered] = Cache(settings.graphs_cached_bytes)

    def do(self, job: Job, body: bytes) -> None:
        """Do a job, and reply."""
        clock = _Alarmed(job, self._lowered)
        answer = problem = crash = None
        try:
            answer = self._answered(job, body, clock)
        except Problem as error:
            problem = error
        except EngineError as error:
            problem = from_engine(error)
        except MemoryError:
            problem = Problem("overloaded", "there was no memory left for this request", headers=RETRY_AFTER)
        except Exception:
            crash = traceback.format_exc()
        finally:
            clock.off()
        told = None if problem is None else problem.as_dict()
        send(self.connection, Reply(told, clock.stages, clock.notes, clock.begun, clock.ops, crash), answer)

    def _answered(self, job: Job, body: bytes, clock: Clock) -> bytes:
        task = Task(
            model=getattr(models, job.model),
            body=body,
            form=BY_MEDIA_TYPE[job.form],
            answer=BY_MEDIA_TYPE[job.answer],
            clock=clock,
            client=Client("service"),
            share=Share(self.memory),
            gone=_never,
        )
        return self.computer.answer(task, Road.WORKER, self._find)

    def _lowered(self, seconds: float) -> None:
        send(self.connection, Lowered(seconds))

    def _find(self, id: str) -> Registered:
        """A registered graph. The service is asked each time, because it may have been removed."""
        send(self.connection, Wanted(id))
        found, source = receive(self.connection, Found)
        if found.problem is not None or source is None:
            raise Problem.from_dict(found.problem or {})
        return self.graphs.of(id, partial(Registered.read, source, self.settings.limits), lambda it: it.program.nbytes)


async def _never() -> None:
    """Nobody goes away from here without an end of this process."""


class _Alarmed(Clock):
    """A job's clock, at whose end this process ends, unless it is off by then; `tell` is told of an earlier end."""

    def __init__(self, job: Job, tell: Callable[[float], None]) -> None:
        super().__init__(job.seconds, job.start)
        self._tell = tell
        self._set()

    def lower(self, seconds: float | None) -> None:
        before = self.seconds
        super().lower(seconds)
        if self.seconds < before:
            self._tell(self.seconds)
        self._set()

    def _set(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self.left + GRACE_SECONDS)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _hold_to(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + self.left * cores()) + CPU_GRACE_SECONDS)

    def off(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
