"""Graphs in the memory of one process, which go with it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from app.stores.contract import Bounds, Entry, Record


@dataclass
class _Kept:
    number: int
    record: Record
    names: set[str] = field(default_factory=set)


class MemoryStore:
    """Keeps a store's contract in two dictionaries."""

    def __init__(self, path: Path, bounds: Bounds) -> None:
        self._bounds = bounds
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        """Those used last stand last."""
        self._by_name: dict[str, str] = {}
        self._lock = threading.Lock()
        self._arrived = self._gone = self._size = 0

    def put(self, record: Record, name: str | None = None, *, redescribe: bool = False) -> bool:
        with self._lock:
            is_new = record.id not in self._kept
            if is_new:
                self._arrived += 1
                self._kept[record.id] = _Kept(self._arrived, record)
                self._size += record.size
            elif redescribe:
                self._redescribe(self._kept[record.id], record.description)
            self._kept.move_to_end(record.id)
            if name is not None:
                self._lead(name, record.id)
            while len(self._kept) > 1 and (len(self._kept) > self._bounds.records or self._size > self._bounds.size):
                self._forget(next(iter(self._kept)))
            return is_new

    def _redescribe(self, kept: _Kept, description: bytes) -> None:
        self._size += len(description) - len(kept.record.description)
        kept.record = kept.record._replace(description=description)

    def _lead(self, name: str, id: str) -> None:
        if name in self._by_name:
            self._kept[self._by_name[name]].names.remove(name)
        self._by_name[name] = id
        self._kept[id].names.add(name)

    def _forget(self, id: str) -> None:
        kept = self._kept.pop(id)
        self._size -= kept.record.size
        self._gone += 1
        for name in kept.names:
            del self._by_name[name]

    def source(self, id: str) -> bytes | None:
        kept = self._kept.get(id)
        return None if kept is None else kept.record.source

    def use(self, ids: Sequence[str]) -> None:
        with self._lock:
            for id in ids:
                if id in self._kept:
                    self._kept.move_to_end(id)

    def has(self, id: str) -> bool:
        return id in self._kept

    def version(self) -> int:
        return self._gone

    def remove(self, id: str) -> bool:
        with self._lock:
            is_there = id in self._kept
            if is_there:
                self._forget(id)
            return is_there

    def page(self, most: int, before: int | None = None, name: str | None = None) -> list[Entry]:
        with self._lock:
            wanted = self._kept if name is None else {self._by_name[name]} if name in self._by_name else ()
            found = sorted((self._kept[id] for id in wanted), key=lambda each: -each.number)
            rest = (each for each in found if before is None or each.number < before)
            return [
                Entry(each.number, each.record.description, tuple(sorted(each.names))) for each in islice(rest, most)
            ]

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass
