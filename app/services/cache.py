"""What was worked out before, kept while there is room: the least recently used goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Cache(Generic[V]):
    """Values by key, of at most `most` bytes in total by their own account. Any thread may ask."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = self.hits = self.misses = 0
        self._kept: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> V | None:
        """The value of a key, if it is still there."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of `size` bytes, unless it alone is too large."""
        if size > self.most:
            return
        with self._lock:
            self.bytes += size - self._drop(key)
            self._kept[key] = (value, size)
            while self.bytes > self.most:
                _, (_, freed) = self._kept.popitem(last=False)
                self.bytes -= freed

    def drop(self, key: Hashable) -> None:
        """Keep the value of a key no longer."""
        with self._lock:
            self.bytes -= self._drop(key)

    def _drop(self, key: Hashable) -> int:
        found = self._kept.pop(key, None)
        return 0 if found is None else found[1]

    def of(self, key: Hashable, make: Callable[[], V], size: Callable[[V], int]) -> V:
        """The value of a key, made if it is not there. Two threads may both make it; either will do."""
        found = self.get(key)
        if found is None:
            found = make()
            self.put(key, found, size(found))
        return found
