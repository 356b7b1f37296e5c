"""The time that a request has, and the time that its stages took."""

from __future__ import annotations

import time

from engine.errors import DeadlineExceeded


class Stage:
    """A stretch of time."""

    __slots__ = ("begun", "name", "stages")

    def __init__(self, stages: dict[str, float], name: str) -> None:
        self.stages = stages
        self.name = name

    def __enter__(self) -> None:
        self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.stages[self.name] = self.stages.get(self.name, 0.0) + time.perf_counter() - self.begun


class Clock:
    """Runs from a request's arrival. Called, it raises DeadlineExceeded once `seconds` are over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()
        self.stages: dict[str, float] = {}
        self.notes: dict[str, str] = {}

    def __call__(self) -> None:
        if time.perf_counter() - self.start > self.seconds:
            raise DeadlineExceeded(f"the request was not done within {self.seconds:g} s")

    def lower(self, seconds: float | None) -> None:
        """Hold the request to less time, if it asks for less."""
        self.seconds = min(self.seconds, seconds or self.seconds)

    def stage(self, name: str) -> Stage:
        """Adds the time spent inside to a stage: `with clock.stage("run"):`."""
        return Stage(self.stages, name)

    def note(self, name: str, what: str) -> None:
        """Say something of a request beside its times."""
        self.notes[name] = what

    @property
    def server_timing(self) -> str:
        """The stages as a Server-Timing header, in milliseconds, and the notes."""
        stages = [f"{name};dur={1000 * spent:.3f}" for name, spent in self.stages.items()]
        return ", ".join([*stages, *(f'{name};desc="{what}"' for name, what in self.notes.items())])
