"""The time that a request has, and the time that its stages took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import DeadlineExceeded


class Clock:
    """Runs from a request's arrival. Called, it raises DeadlineExceeded once `seconds` are over."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.start = time.perf_counter()
        self.stages: dict[str, float] = {}

    def __call__(self) -> None:
        if time.perf_counter() - self.start > self.seconds:
            raise DeadlineExceeded(f"the request was not done within {self.seconds:g} s")

    def lower(self, seconds: float | None) -> None:
        """Hold the request to less time, if it asks for less."""
        self.seconds = min(self.seconds, seconds or self.seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - begun

    @property
    def server_timing(self) -> str:
        """The stages as a Server-Timing header, in milliseconds."""
        return ", ".join(f"{name};dur={1000 * spent:.3f}" for name, spent in self.stages.items())
