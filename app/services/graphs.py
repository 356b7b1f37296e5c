"""Registered graphs: what `graph_id` names.

A graph is kept as it was posted, under a hash of what it says, and read again by what reads requests: so an answer by
its id is that of the graph in full. Those that were read lately are at hand, ready to be compiled; to find one again is
to look into a dictionary, and to ask the store whether anything has gone since.

The store may block, so it is asked in threads, but for the question whether anything has gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.to_thread
import msgspec

from app.problems import Problem, over_limit
from app.services.cache import Cache
from app.services.questions import program_of
from app.settings import Settings
from app.stores import STORES, Bounds, Record, Store, StoreFailed
from app.wire import json
from app.wire.models import GraphForm, RegisterRequest, Request
from engine.limits import Limits
from engine.program import Program

T = TypeVar("T")
KEPT = ("expression", "graph", "outputs")
"""Fields of a request that say what graph it is."""
THREADS = 2
"""Threads that wait for the store; more would wait for one another."""
MOST_VARIANTS = 8
"""Choices of outputs of one graph that are remembered."""
ASKING_SECONDS = 0.1
"""How long a graph may be found at hand that another process has removed."""
NOTING_SECONDS = 30.0
"""How long the store may not know which graphs were used."""

logger = logging.getLogger("gradwire")


@dataclass(eq=False)
class Registered:
    """A graph at hand. `expression` is its text, if it was posted as one; `version` is the store's at the time when the
    graph was known to be there."""

    program: Program
    expression: str | None
    version: int
    variants: dict[tuple[str, ...], Program] = field(default_factory=dict)

    def asked(self, request: Request, limits: Limits) -> Program:
        """The graph with the outputs that a request asks for: for the same ones the same object, by which plans are
        kept."""
        if request.outputs is None:
            return self.program
        outputs = tuple(request.outputs)
        if outputs not in self.variants:
            if len(self.variants) == MOST_VARIANTS:
                self.variants.clear()
            self.variants[outputs] = program_of(request, limits, self.program)
        return self.variants[outputs]


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
        self._at_hand: Cache[Registered] = Cache(settings.graphs_cached_bytes)
        self._used: dict[str, None] = {}
        self._noted = time.monotonic()
        self._version = 0
        self._asked = -ASKING_SECONDS
        self._threads = anyio.CapacityLimiter(THREADS)

    def open(self) -> Store:
        """The store; opened at the first call. Raises StoreUnusable."""
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

    async def _in_thread(self, work: Callable[[Store], T]) -> T:
        """Do `work` on the store, once it knows which graphs were used."""

        def done() -> T:
            store = self.open()
            self._note_uses(store)
            return work(store)

        found = await anyio.to_thread.run_sync(done, limiter=self._threads)
        self._asked = -ASKING_SECONDS
        return found

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
            found = await self._in_thread(partial(_read, id, self._settings.limits))
            self._at_hand.put(id, found, found.program.nbytes)
        self._used.pop(id, None)
        self._used[id] = None
        if time.monotonic() - self._noted > NOTING_SECONDS:
            await self._in_thread(lambda store: None)
        return found

    def _near(self, id: str) -> Registered | None:
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

    async def register(self, request: RegisterRequest, program: Program, description: bytes) -> bool:
        """Keep the graph of a request, under its name if it has one. Whether the graph is new."""
        form = {name: getattr(request, name) for name in KEPT if getattr(request, name) is not None}
        record = Record(program.digest, _packed(form), description)
        if record.size > self._settings.graphs_bytes:
            raise over_limit("graphs_bytes", self._settings.graphs_bytes, record.size, "bytes of the graph")
        redescribe = request.inputs is not None
        return await self._in_thread(lambda store: store.put(record, request.name, redescribe=redescribe))

    async def remove(self, id: str) -> None:
        """Forget a graph. Raises unknown_graph."""
        self._at_hand.drop(id)
        if not await self._in_thread(lambda store: store.remove(id)):
            raise unknown(id)

    # Listing

    async def page(self, most: int, before: int | None, name: str | None) -> Page:
        """Descriptions of up to `most` graphs, the latest first; and where to go on, if there are more."""
        found = await self._in_thread(lambda store: store.page(most + 1, before, name))
        graphs = [{**json.decode(each.description), "names": list(each.names)} for each in found[:most]]
        return Page(graphs, found[most - 1].number if len(found) > most else None)


def unknown(id: str) -> Problem:
    """The error of an id that leads to nothing."""
    return Problem("unknown_graph", f"no graph is registered under {id[:64]!r}")


def _read(id: str, limits: Limits, store: Store) -> Registered:
    version = store.version()
    source = store.source(id)
    if source is None:
        raise unknown(id)
    form = GraphForm.model_construct(**_unpacked(source))
    program = program_of(form, limits)
    if program.digest != id:
        logger.error("the graph %s was registered under an id that it does not have in this version", id)
        raise unknown(id)
    _ = program.inputs
    return Registered(program, form.expression, version)


def _packed(form: dict[str, Any]) -> bytes:
    """A graph as it was posted. MessagePack takes bytes, but no integers beyond 64 bits; JSON the other way round."""
    try:
        return msgspec.msgpack.encode(form)
    except OverflowError:
        return msgspec.json.encode(form)


def _unpacked(source: bytes) -> dict[str, Any]:
    decode = msgspec.json.decode if source.startswith(b"{") else msgspec.msgpack.decode
    return dict(decode(source))
