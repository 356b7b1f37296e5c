"""Where registered graphs are kept: one contract, and a module for each way of keeping it.

A new way is a class in a module of its own, a row in STORES, and its name among the values of the setting `store`. The
tests of the contract run over every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from app.stores.contract import Bounds, Entry, Record, Store, StoreFailed, StoreUnusable
from app.stores.memory import MemoryStore
from app.stores.sqlite import SqliteStore

__all__ = ["STORES", "Bounds", "Entry", "Opener", "Record", "Store", "StoreFailed", "StoreUnusable"]


class Opener(Protocol):
    """What opens a store: at `path` if it is a file, within `bounds`. Raises StoreUnusable."""

    def __call__(self, path: Path, bounds: Bounds) -> Store: ...


STORES: Mapping[str, Opener] = {"sqlite": SqliteStore, "memory": MemoryStore}
