"""The worker processes, seen from the service: as many as there are cores, each with one task at a time.

They are forked from a server that has imported everything and runs no threads, so a new one is there in some
milliseconds. One that dies, or is killed, costs its own task; the next task finds another in its place.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable

from app.problems import Problem
from app.services.deadline import Clock
from app.services.messages import Found, Job, Lowered, Reply, Wanted, receive, send
from app.services.worker import serve
from app.settings import Settings

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([serve.__module__])
JOIN_SECONDS = 2.0
CACHES = ("plan_cache_bytes", "graphs_cached_bytes")
"""Of these, all workers together have as much as the service."""

Source = Callable[[str], bytes]
"""The source of a registered graph. Raises unknown_graph."""


class Died(Exception):
    """The process ended in the middle of a task, with this exit code: negative if by a signal."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class Worker:
    """One process."""

    def __init__(self, settings: Settings) -> None:
        self._connection, theirs = CONTEXT.Pipe()
        their_lifeline, self._lifeline = CONTEXT.Pipe(duplex=False)
        self._process = CONTEXT.Process(
            target=serve, args=(theirs, their_lifeline, settings), name="gradwire-worker", daemon=True
        )
        self._process.start()
        theirs.close()
        their_lifeline.close()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def ask(self, job: Job, body: bytes, source: Source, clock: Clock) -> tuple[Reply, bytes | None]:
        """The reply to a job, whose clock runs here, too. Blocks. Raises Died."""
        try:
            send(self._connection, job, body)
            while True:
                message, rest = receive(self._connection, Wanted | Lowered | Reply)
                if isinstance(message, Reply):
                    return message, rest
                if isinstance(message, Lowered):
                    clock.lower(message.seconds)
                else:
                    self._hand(message.id, source)
        except (EOFError, OSError):
            self._process.join(JOIN_SECONDS)
            raise Died(self._process.exitcode) from None

    def _hand(self, id: str, source: Source) -> None:
        try:
            found = source(id)
        except Problem as problem:
            send(self._connection, Found(problem.as_dict()))
        else:
            send(self._connection, Found(), found)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()

    def close(self) -> None:
        """Let go of it; what still runs is ended."""
        self.kill()
        self._process.join(JOIN_SECONDS)
        self._connection.close()
        self._lifeline.close()


class Workers:
    """Up to `most` processes, begun as they are needed."""

    def __init__(self, settings: Settings, most: int) -> None:
        self.most = most
        self.started = self.lost = 0
        self._settings = settings.model_copy(update={name: getattr(settings, name) // most for name in CACHES})
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()

    def __len__(self) -> int:
        return len(self._idle) + len(self._busy)

    @property
    def alive(self) -> int:
        """How many are alive."""
        return sum(worker.is_alive for worker in [*self._idle, *self._busy])

    @property
    def pids(self) -> list[int]:
        with self._lock:
            return [worker.pid for worker in (*self._idle, *self._busy)]

    def start(self) -> None:
        """Begin those that are not there. Blocks."""
        with self._lock:
            self._idle = [worker for worker in self._idle if worker.is_alive]
        while len(self) < self.most:
            self._put(self._begun())

    def do(self, job: Job, body: bytes, source: Source, clock: Clock) -> tuple[Reply, bytes | None]:
        """The reply to a job, by a worker that is not busy; stopping the clock kills it. Blocks. Raises Died."""
        worker = self._take()
        clock.on_stop = lambda: self._kill(worker)
        if clock.is_stopped:  # while the worker was begun, when there was nothing to kill
            self._kill(worker)
        try:
            found = worker.ask(job, body, source, clock)
        except BaseException:
            self._drop(worker)
            raise
        self._put(worker)
        return found

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            workers, self._idle, self._busy = [*self._idle, *self._busy], [], set()
        for worker in workers:
            worker.close()

    def _take(self) -> Worker:
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    self._busy.add(worker)
                    return worker
                self.lost += 1
        worker = self._begun()
        with self._lock:
            self._busy.add(worker)
        return worker

    def _begun(self) -> Worker:
        self.started += 1
        return Worker(self._settings)

    def _put(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            self._idle.append(worker)

    def _drop(self, worker: Worker) -> None:
        with self._lock:
            self._busy.discard(worker)
            self.lost += 1
        worker.close()

    def _kill(self, worker: Worker) -> None:
        """Kill a worker, unless it is done by now."""
        with self._lock:
            if worker in self._busy:
                worker.kill()
