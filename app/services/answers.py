"""Where each task is done: in line, in a thread, or in a worker process.

Each road does the whole of a task, and one that finds it too heavy hands it on before it has begun: what is small by
every measure never leaves the event loop; graphs of some size and large arrays go to a thread, from which NumPy lets
others work; the rest, and whatever could not be stopped there, to a process.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from app.problems import RETRY_AFTER, Problem
from app.services.admission import Admission
from app.services.computing import Computer, nodes_at_a_glance
from app.services.deadline import Clock, Stopped
from app.services.graphs import Graphs
from app.services.machine import NICENESS, cores, step_back
from app.services.messages import Job
from app.services.readiness import NotReady
from app.services.records import Registered, Registration
from app.services.tasks import Gone, Road, Task, TooHeavy
from app.services.workers import Died, Workers
from app.settings import Settings
from app.wire.codecs import Codec
from engine.describe import describe_program
from engine.program import write_graph
from engine.text import FORMS, print_program, to_svg

T = TypeVar("T")

DRAWINGS = {"dot": "dot", "mmd": "mermaid"}
"""Drawings that are plain text, by the ends of their names."""
OVERDUE_SECONDS = 2.0
"""A worker whose alarm has not ended it by then, as one that is stopped or stuck in the system, is ended from here."""


class Crashed(Exception):
    """What nobody foresaw, in a worker; with its traceback."""


class Answers:
    """Answers requests, within the settings."""

    def __init__(self, settings: Settings, graphs: Graphs) -> None:
        self.settings = settings
        self.graphs = graphs
        self.computer = Computer(settings)
        processes = settings.processes or cores()
        self.workers = Workers(settings, processes)
        places = {Road.THREAD: settings.threads, Road.WORKER: processes}
        self.admission = Admission(settings, places)
        self.clocks: set[Clock] = set()
        """Those of the tasks that run on other roads than in line."""
        self._threads = anyio.CapacityLimiter(sum(places.values()) + settings.threads)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do `work` in one of the service's threads."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def of(self, task: Task[Any]) -> bytes:
        """The body of the answer to a task. Raises Problem and EngineError."""
        try:
            account = self.admission.greet(task.client)
            try:
                return await self._answered(task)
            finally:
                account.balance -= task.clock.worked
        finally:
            task.share.close()

    async def _answered(self, task: Task[Any]) -> bytes:
        road = Road.THREAD
        if len(task.body) <= self.settings.inline_bytes:
            try:
                return self.computer.answer(task, Road.LINE, self._near)
            except TooHeavy as found:
                road = found.road
        return await self._elsewhere(task, road)

    async def register(self, task: Task[Any]) -> tuple[str, bool, bytes]:
        """Keep a graph. Its id, whether it is new, and the answer."""
        graph = msgspec.msgpack.decode(await self.of(task), type=Registration)
        return graph.id, await self.graphs.register(graph), graph.answer

    def _near(self, id: str) -> Registered:
        found = self.graphs.near(id)
        if found is None:
            raise TooHeavy(Road.THREAD)
        return found

    async def start(self) -> None:
        """Begin the worker processes."""
        await self.in_thread(self.workers.start)

    # Other roads than in line

    async def _elsewhere(self, task: Task[Any], road: Road) -> bytes:
        """Do a task on this road or a later one, unless its client goes away meanwhile. Raises Gone then."""
        self.clocks.add(task.clock)
        work = asyncio.ensure_future(self._by(road, task))
        gone = asyncio.ensure_future(task.gone())
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise Gone
            return work.result()
        except Stopped:
            raise Problem("overloaded", "the request was given up", headers=RETRY_AFTER) from None
        finally:
            gone.cancel()
            if not work.done():
                task.clock.stop()
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)  # it holds a place and memory until then
            self.clocks.discard(task.clock)

    async def _by(self, road: Road, task: Task[Any]) -> bytes:
        if road is Road.THREAD and not self._is_heavy(task):
            try:
                return await self._by_thread(task)
            except TooHeavy:
                pass
        return await self._by_worker(task)

    def _is_heavy(self, task: Task[Any]) -> bool:
        """Whether even reading a task is more than others should wait for."""
        return (
            len(task.body) > self.settings.thread_bytes
            or nodes_at_a_glance(task.body, task.form) > self.settings.thread_nodes
        )

    async def _by_thread(self, task: Task[Any]) -> bytes:
        def find(id: str) -> Registered:
            return anyio.from_thread.run(self.graphs.find, id)

        def work() -> bytes:
            step_back(NICENESS)
            return self.computer.answer(task, Road.THREAD, find)

        async with self.admission.turn(Road.THREAD, task, task.form.growth * len(task.body)):
            return await self.in_thread(work)

    async def _by_worker(self, task: Task[Any]) -> bytes:
        needed = task.form.growth * len(task.body) + self.settings.limits.peak_bytes
        async with self.admission.turn(Road.WORKER, task, needed):
            overdue = asyncio.get_running_loop().call_later(task.clock.left + OVERDUE_SECONDS, task.clock.stop)
            try:
                return await self.in_thread(partial(self._asked, task))
            finally:
                overdue.cancel()

    def _asked(self, task: Task[Any]) -> bytes:
        """A worker's answer."""
        clock = task.clock
        clock()
        clock.road = Road.WORKER
        job = Job(task.model.__name__, task.form.media_type, task.answer.media_type, clock.seconds, clock.start)
        try:
            reply, answer = self.workers.do(job, task.body, self.graphs.source, clock)
        except Died as error:
            raise _of_death(error, clock) from None
        clock.add(reply)
        if reply.crash is not None:
            raise Crashed(reply.crash)
        if answer is None:
            raise Problem.from_dict(reply.problem or {})
        return answer

    async def check(self) -> None:
        """Raises NotReady where no worker process can be had."""
        if not self.workers.alive:
            try:
                await self.start()
            except OSError as error:
                raise NotReady(f"no worker process can be begun: {error}") from error

    def stop(self) -> None:
        """Give up what runs; whoever waits for it is told."""
        for clock in tuple(self.clocks):
            clock.stop()

    def close(self) -> None:
        """End the worker processes."""
        self.workers.close()

    # Registered graphs, shown

    async def shown(self, id: str, codec: Codec) -> bytes:
        """All there is to say of a registered graph: what it is without knowing its inputs' shapes, and itself in two
        forms."""
        program = (await self.graphs.find(id)).program

        def encoded() -> bytes:
            forms = {"expression": print_program(program), "graph": write_graph(program, codec.tensors or "json")}
            return codec.encode(describe_program(program) | forms)

        return await self.in_thread(encoded)

    async def drawn(self, id: str, form: str) -> bytes:
        """A registered graph as a drawing, in one of DRAWINGS."""
        program = (await self.graphs.find(id)).program
        if form == "svg":
            return (await self.in_thread(partial(to_svg, program, self.settings.svg_parts))).encode()
        return (await self.in_thread(partial(FORMS[DRAWINGS[form]], program))).encode()


def _of_death(error: Died, clock: Clock) -> Exception:
    """What a request is told whose worker died."""
    if error.code == -signal.SIGALRM or not clock.left:
        return clock.over()
    if clock.is_stopped:
        return Stopped()
    what = f"signal {-error.code}" if error.code is not None and error.code < 0 else f"exit code {error.code}"
    return Problem("overloaded", f"the worker that computed this ended ({what})", headers=RETRY_AFTER)
