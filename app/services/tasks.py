"""What is asked of the service, once HTTP has been understood: a body, a form, a clock, and somebody who waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from app.services.deadline import Clock
from app.services.memory import Share
from app.wire.codecs import Codec

M = TypeVar("M", bound=BaseModel)


class Road(IntEnum):
    """Where work is done; each costs more than the one before, and bears more."""

    LINE = 0
    """In the event loop: for what takes less than handing it on would."""
    THREAD = 1
    """In a thread: for what NumPy does outside the interpreter's lock, in steps between which a clock is looked at."""
    WORKER = 2
    """In a process, which can be killed."""

    @property
    def label(self) -> str:
        """What figures and the log call it."""
        return self.name.lower()


class TooHeavy(Exception):
    """The work is not for this road, but for `road` or one after it."""

    def __init__(self, road: Road) -> None:
        super().__init__(road.name)
        self.road = road


class Gone(Exception):
    """The client has gone away; nobody will read an answer."""


class Client(NamedTuple):
    """Who asks. Limits of its own stand in place of those of the settings."""

    name: str
    at_once: int | None = None
    rate: float | None = None


@dataclass(eq=False, slots=True)
class Task(Generic[M]):
    """A body to be read as a `model`, by whoever does the work. `form` is the body's, `answer` the answer's."""

    model: type[M]
    body: bytes
    form: Codec
    answer: Codec
    clock: Clock
    client: Client
    share: Share
    gone: Callable[[], Awaitable[Any]]
    """Returns when the client has gone away."""
