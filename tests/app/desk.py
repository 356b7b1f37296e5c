"""An admission without a service around it."""

from __future__ import annotations

import asyncio
from typing import Any

from app.services.admission import Admission
from app.services.deadline import Clock
from app.services.memory import Share
from app.services.tasks import Client, Road, Task
from app.settings import Settings
from app.wire.codecs import JSON
from app.wire.models import ValueRequest


async def _gone() -> None:
    await asyncio.Event().wait()


class Desk:
    """An admission with one place, and tasks that wait for it."""

    def __init__(self, memory: int = 1000, **settings: Any) -> None:
        self.admission = Admission(Settings(store="memory", memory_bytes=memory, **settings), {Road.THREAD: 1})
        self.order: list[str] = []

    def task(self, client: str, seconds: float = 30.0) -> Task[Any]:
        share = Share(self.admission.memory)
        return Task(ValueRequest, b"", JSON, JSON, Clock(seconds), Client(client), share, _gone)

    async def served(self, client: str, seconds: float = 30.0, size: int = 0) -> None:
        async with self.admission.turn(Road.THREAD, self.task(client, seconds), size):
            self.order.append(client)
            await asyncio.sleep(0)
