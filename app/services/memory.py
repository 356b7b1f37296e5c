"""The memory that running requests may hold together, counted before it is taken. Any thread may ask."""

from __future__ import annotations

import threading

from app.problems import over_for_now


class Memory:
    """Bytes that running requests hold, as far as they are counted."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._lock = threading.Lock()

    def take(self, size: int, own: int = 0) -> None:
        """Hold so many bytes more, for who has some of its `own`; what alone is over the most may be alone.

        Raises overloaded.
        """
        with self._lock:
            together = self.held + size
            if self.held > own and together > self.most:
                full = f"the requests that run hold {self.held:,} of {self.most:,} bytes; this one needs {size:,} more"
                raise over_for_now("overloaded", "memory_bytes", self.most, together, full)
            self.held = together

    def hold(self, size: int) -> None:
        """Count what is there already: others have less, however much it is."""
        with self._lock:
            self.held += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self.held -= size


class Share:
    """What one request holds of the memory, until it is closed."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._size = 0

    def grow(self, size: int) -> None:
        """Hold so many bytes more. Raises overloaded."""
        self._memory.take(size, self._size)
        self._size += size

    def hold(self, size: int) -> None:
        """Hold so many bytes more that were taken already."""
        self._memory.hold(size)
        self._size += size

    def close(self) -> None:
        self._memory.give_back(self._size)
        self._size = 0
