"""The time that a request has, and the time that its stages took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

from app.problems import past
from app.seen import Ops
from engine.errors import DeadlineExceeded


class Told(Protocol):
    """What a clock tells when all is over."""

    @property
    def stages(self) -> Mapping[str, float]: ...
    @property
    def begun(self) -> Mapping[str, float]: ...
    @property
    def notes(self) -> Mapping[str, str]: ...
    @property
    def ops(self) -> Ops: ...


class Stopped(Exception):
    """Nobody waits for this answer any more, or the service is going down."""


class Stage:
    """A stretch of time."""

    __slots__ = ("begun", "clock", "name")

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock = clock
        self.name = name

    def __enter__(self) -> None:
        self.begun = time.perf_counter()
        self.clock.begun.setdefault(self.name, self.begun)

    def __exit__(self, *_: object) -> None:
        stages = self.clock.stages
        stages[self.name] = stages.get(self.name, 0.0) + time.perf_counter() - self.begun


class Clock:
    """Runs from a request's arrival: from `start`, by the clock that all processes of a machine have, or else from now.

    Called, it raises DeadlineExceeded once `seconds` are over, and Stopped after `stop`.
    """

    def __init__(self, seconds: float, start: float | None = None) -> None:
        self.seconds = seconds
        self.start = time.perf_counter() if start is None else start
        self.stages: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        """When each stage first began, by the same clock."""
        self.notes: dict[str, str] = {}
        self.road: int | None = None
        """Where the work was done in the end."""
        self.ops: Ops = ()
        """What was run."""
        self.is_stopped = False
        self.on_stop: Callable[[], None] | None = None
        """What ends the work where nobody looks at this clock."""

    def __call__(self) -> None:
        if self.is_stopped:
            raise Stopped
        if time.perf_counter() - self.start > self.seconds:
            raise self.over()

    def over(self) -> DeadlineExceeded:
        """What is raised when the time is over."""
        late = f"the request was not done within {self.seconds:g} s"
        return DeadlineExceeded(late, "seconds", self.seconds, past(self.seconds, self.spent))

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    @property
    def worked(self) -> float:
        """Seconds of all stages but of waiting in the queue."""
        return sum(self.stages.values()) - self.stages.get("queue", 0.0)

    @property
    def left(self) -> float:
        """Seconds until the time is over; 0 from then on."""
        return max(0.0, self.seconds - self.spent)

    def lower(self, seconds: float | None) -> None:
        """Hold the request to less time, if it asks for less."""
        if seconds is not None:
            self.seconds = min(self.seconds, seconds)

    def stop(self) -> None:
        """Let the work end as soon as it can."""
        self.is_stopped = True
        if self.on_stop is not None:
            self.on_stop()

    def stage(self, name: str) -> Stage:
        """Adds the time spent inside to a stage: `with clock.stage("run"):`."""
        return Stage(self, name)

    def note(self, name: str, what: str) -> None:
        """Say something of a request beside its times."""
        self.notes[name] = what

    def add(self, other: Told) -> None:
        """What another clock found, that ran elsewhere for the same request."""
        for name, spent in other.stages.items():
            self.stages[name] = self.stages.get(name, 0.0) + spent
        self.begun = {**other.begun, **self.begun}
        self.notes.update(other.notes)
        self.ops = other.ops

    @property
    def server_timing(self) -> str:
        """The stages as a Server-Timing header, in milliseconds, and the notes."""
        stages = [f"{name};dur={1000 * spent:.3f}" for name, spent in self.stages.items()]
        return ", ".join([*stages, *(f'{name};desc="{what}"' for name, what in self.notes.items())])
