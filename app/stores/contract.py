"""What a store of graphs promises.

A store keeps bytes under ids, and names that lead to ids. It knows nothing of graphs: what is in the bytes, and that
an id is a hash of them, is the business of whoever calls. Calls block, and may come from any thread; a store that is a
file may be shared by several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class StoreFailed(Exception):
    """The store could not do this now: its disk is full, or others keep it locked."""


class StoreUnusable(Exception):
    """The store cannot be opened, and somebody has to see to it."""


class Bounds(NamedTuple):
    """How many records a store keeps, and how many bytes of them."""

    records: int
    size: int


class Record(NamedTuple):
    """What is kept of a graph. The source never changes; the description is that of the last `put` that gives one."""

    id: str
    source: bytes
    description: bytes

    @property
    def size(self) -> int:
        return len(self.source) + len(self.description)


class Entry(NamedTuple):
    """A line of the list of records. The number is that of its place in the order of arrival."""

    number: int
    description: bytes
    names: tuple[str, ...]


class Store(Protocol):
    """Records by id. Past its bounds, those go that have not been used for longest; the one just put stays."""

    def put(self, record: Record, name: str | None = None, *, redescribe: bool = False) -> bool:
        """Keep a record, and let `name` lead to it from now on. Whether it is new.

        Of one that is there, the source stays, and so does the description unless it is to be replaced.
        """

    def source(self, id: str) -> bytes | None:
        """The source of a record, if it is there."""

    def use(self, ids: Sequence[str]) -> None:
        """Note that records were used, the last one last. Ids of none are passed over."""

    def has(self, id: str) -> bool:
        """Whether a record is there. Quick enough for an event loop, as is `version`."""

    def version(self) -> int:
        """A number that differs from what it was whenever a record has gone since; at other times it may, too."""

    def remove(self, id: str) -> bool:
        """Forget a record, and the names that lead to it. Whether it was there."""

    def page(self, most: int, before: int | None = None, name: str | None = None) -> list[Entry]:
        """Up to `most` records, the latest first: from the one that arrived before number `before`; those that `name`
        leads to."""

    def check(self) -> None:
        """Raise StoreFailed where a record could not be kept now. It may write, and is not asked often."""

    def close(self) -> None:
        """Let go of what the store holds open."""
