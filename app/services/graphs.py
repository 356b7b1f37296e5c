"""Registered graphs: what `graph_id` names.

A graph is kept as it was posted, under a hash of what it says, and read again by what reads requests: so an answer by
its id is that of the graph in full. Those that were read lately are at hand, ready to be compiled; to find one again is
to look into a dictionary, and to ask the store whether anything has gone since.

The store may block, so it is asked in threads, but for the question whether anything has gone. These threads are its
own: those that compute have stepped back behind the event loop, and a store would be slow in them. Those who write wait
for one another in one line, and not for long; those who read do not wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import msgspec

from app.problems import Problem, over_limit
from app.services.cache import Cache
from app.services.records import Registered, Registration
from app.settings import Settings
from app.stores import STORES, Bounds, Entry, Store, StoreFailed
from app.wire import json
from app.wire.forms import Malformed
from engine.errors import EngineError, LimitExceeded
from engine.limits import Limits

T = TypeVar("T")
READERS, WRITERS, CHECKERS = 2, 1, 1
"""Threads that ask the store, that change it, and that try it: a store takes one change at a time."""
WAITING_SECONDS = 5.0
"""How long one waits for the store, those before it included."""
ASKING_SECONDS = 0.1
"""How long a graph may be found at hand that another process has removed."""
NOTING_SECONDS = 30.0
"""How long the store may not know which graphs were used."""

logger = logging.getLogger("gradwire")


@dataclass(eq=False)
class _Near:
    """A graph at hand, and the store's version at the time when it was known to be there."""

    graph: Registered
    version: int


class _Threads:
    """Those that ask the store."""

    def __init__(self) -> None:
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self.writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="store-writer")
        self.checkers = ThreadPoolExecutor(CHECKERS, thread_name_prefix="store-checker")

    def end(self) -> None:
        for each in (self.readers, self.writers, self.checkers):
            each.shutdown(wait=False)


class Page(NamedTuple):
    """A part of the list of graphs, and what the next one comes before."""

    graphs: list[dict[str, Any]]
    before: int | None


class Graphs:
    """Keeps graphs, and finds them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: Store | None = None
        self._opening = threading.Lock()
        self._at_hand: Cache[_Near] = Cache(settings.graphs_cached_bytes)
        self._used: dict[str, None] = {}
        self._noted = time.monotonic()
        self._version = 0
        self._asked = -ASKING_SECONDS
        self._threads = _Threads()

    @property
    def cache(self) -> Cache[_Near]:
        """Those at hand."""
        return self._at_hand

    def open(self) -> Store:
        """The store; opened at the first call that can. Raises StoreUnusable, and StoreFailed where a later call may
        succeed."""
        with self._opening:
            if self._store is None:
                bounds = Bounds(self._settings.graphs, self._settings.graphs_bytes)
                self._store = STORES[self._settings.store](self._settings.store_path, bounds)
            return self._store

    def close(self) -> None:
        with self._opening:
            if self._store is not None:
                self._note_uses(self._store)
                self._store.close()
                self._store = None
            self._threads.end()
            self._threads = _Threads()  # it may be opened again

    async def check(self) -> None:
        """Raise StoreFailed where a graph could not be kept now."""
        await _done(lambda: self.open().check(), self._threads.checkers)

    async def _reading(self, work: Callable[[Store], T]) -> T:
        """Do `work` that changes nothing."""
        return await self._in_thread(lambda: work(self.open()), self._threads.readers)

    async def _writing(self, work: Callable[[Store], T]) -> T:
        """Do `work` on the store, once it knows which graphs were used: else it might let go of the wrong ones."""

        def done() -> T:
            store = self.open()
            self._note_uses(store)
            return work(store)

        found = await self._in_thread(done, self._threads.writers)
        self._asked = -ASKING_SECONDS
        return found

    async def _in_thread(self, work: Callable[[], T], threads: ThreadPoolExecutor) -> T:
        try:
            async with asyncio.timeout(WAITING_SECONDS):
                return await _done(work, threads)
        except TimeoutError:
            raise StoreFailed(f"no answer within {WAITING_SECONDS:g} s") from None

    def _note_uses(self, store: Store) -> None:
        used, self._used = self._used, {}
        self._noted = time.monotonic()
        with suppress(StoreFailed):  # nothing is lost but an order
            store.use(list(used))

    # Finding

    async def find(self, id: str) -> Registered:
        """The graph of this id. Raises unknown_graph."""
        found = self._near(id)
        if found is None:
            found = await self._reading(partial(_read, id, self._settings.limits))
            self._at_hand.put(id, found, found.graph.program.nbytes)
        self._use(id)
        if self._is_overdue:
            self._noted = time.monotonic()  # so that one request notes them, and not all that come meanwhile
            with suppress(StoreFailed):
                await self._writing(lambda store: None)
        return found.graph

    def near(self, id: str) -> Registered | None:
        """The graph of this id, if it can be had without waiting."""
        found = None if self._is_overdue else self._near(id)
        if found is None:
            return None
        self._use(id)
        return found.graph

    def _use(self, id: str) -> None:
        self._used.pop(id, None)
        self._used[id] = None

    @property
    def _is_overdue(self) -> bool:
        return time.monotonic() - self._noted > NOTING_SECONDS

    def source(self, id: str) -> bytes:
        """The graph as it was posted, for those who read it elsewhere. Blocks. Raises unknown_graph."""
        source = self.open().source(id)
        if source is None:
            raise unknown(id)
        return source

    def _near(self, id: str) -> _Near | None:
        """The graph, if it is at hand and no other process has removed it."""
        found = self._at_hand.get(id)
        if found is None:
            return None
        with suppress(StoreFailed):  # then it may still be computed with
            version = self._current()
            if version != found.version and not self.open().has(id):
                self._at_hand.drop(id)
                return None
            found.version = version
        return found

    def _current(self) -> int:
        """The store's version, as of a moment ago: asking costs more than all else that finds a graph at hand."""
        now = time.monotonic()
        if now > self._asked + ASKING_SECONDS:
            self._version, self._asked = self.open().version(), now
        return self._version

    # Keeping

    async def register(self, graph: Registration) -> bool:
        """Keep a graph, under its name if it has one. Whether it is new."""
        record = graph.record
        if record.size > self._settings.graphs_bytes:
            raise over_limit("graphs_bytes", self._settings.graphs_bytes, record.size, "bytes of the graph")
        return await self._writing(lambda store: store.put(record, graph.name, redescribe=graph.redescribe))

    async def remove(self, id: str) -> None:
        """Forget a graph. Raises unknown_graph."""
        self._at_hand.drop(id)
        if not await self._writing(lambda store: store.remove(id)):
            raise unknown(id)

    # Listing

    async def page(self, most: int, before: int | None, name: str | None) -> Page:
        """Descriptions of up to `most` graphs, the latest first; and where to go on, if there are more."""
        found = await self._reading(lambda store: store.page(most + 1, before, name))
        graphs = [each for each in map(_described, found[:most]) if each is not None]
        return Page(graphs, found[most - 1].number if len(found) > most else None)


async def _done(work: Callable[[], T], threads: ThreadPoolExecutor) -> T:
    """Do `work` in one of these threads, as a part of this request to the log."""
    return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, work)


def unknown(id: str) -> Problem:
    """The error of an id that leads to nothing."""
    return Problem("unknown_graph", f"no graph is registered under {id[:64]!r}")


def _described(entry: Entry) -> dict[str, Any] | None:
    """A line of the list, but for one that is damaged in the store."""
    try:
        return {**json.decode(entry.description), "names": list(entry.names)}
    except (Malformed, TypeError) as error:
        logger.error("the description of graph number %d is damaged in the store: %s", entry.number, error)
        return None


def _read(id: str, limits: Limits, store: Store) -> _Near:
    version = store.version()
    source = store.source(id)
    if source is None:
        raise unknown(id)
    try:
        found = Registered.read(source, limits)
    except LimitExceeded:  # the settings are lower than they were
        raise
    except (ValueError, TypeError, msgspec.MsgspecError, EngineError, Problem) as error:
        logger.error("the graph %s is damaged in the store, or this version no longer takes it: %s", id, error)
        raise unknown(id) from error
    if found.program.digest != id:
        logger.error("the graph %s was registered under an id that it does not have in this version", id)
        raise unknown(id)
    _ = found.program.inputs
    return _Near(found, version)
