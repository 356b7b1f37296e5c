"""A client that does not wait: requests of many kinds at a given rate, whatever becomes of those before.

A client that waits for each answer slows down with the service, and never sees it overloaded. This one sends at random
moments, over as many connections as it takes; raw sockets, so that it costs little beside what it measures.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.service import Service

SECONDS_PER_ANSWER = 120.0
"""How long an answer may take before it counts as none."""
MOST_CONNECTIONS = 1000
"""Connections that are open at a time; with more the client itself would run out of files."""


class Kind(NamedTuple):
    """A request, the part of all requests that are like it, and its bytes by number."""

    name: str
    share: float
    body: Callable[[int], tuple[str, Any]]


def sines(count: int) -> dict[str, Any]:
    lines = ["y0 = sin(linspace(0, 1, 1000000) * x)", *(f"y{i + 1} = sin(y{i})" for i in range(count))]
    return {"expression": "\n".join([*lines, f"sum(y{count})"]), "inputs": {"x": 1}}


SCALARS = {"expression": "y = tanh(a * b + c) ** 2 + exp(-a * a) * sin(b / (1 + c * c))"}
VECTOR = [i / 7 for i in range(20_000)]
HESSIAN = {"expression": "sum(log(1 + exp(x @ outer(x, x))))", "inputs": {"x": [i / 60 for i in range(60)]}}

MIX = [
    Kind("small", 0.80, lambda n: ("/grad", SCALARS | {"inputs": {"a": n % 97, "b": 0.5, "c": 2}})),
    Kind("fresh graph", 0.08, lambda n: ("/grad", {"expression": f"y = x**2 + {n} * x", "inputs": {"x": 3}})),
    Kind("register", 0.03, lambda n: ("/graphs", {"expression": f"y = sin(x) * {n}"})),
    Kind("20,000 numbers", 0.05, lambda n: ("/grad", {"expression": "sum(sin(x)**2)", "inputs": {"x": VECTOR}})),
    Kind("hessian of 60", 0.02, lambda n: ("/grad/hessian", HESSIAN)),
    Kind("half a second", 0.02, lambda n: ("/grad/value", sines(60))),
]
"""What a service is asked, small and large."""


@dataclass
class Tally:
    """What became of the requests."""

    sent: int = 0
    unsent: int = 0
    """There was no connection left, or none could be made."""
    broken: Counter[str] = field(default_factory=Counter)
    """Sent, and not answered: why."""
    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of the answers with a 2xx, by kind."""
    kept: list[str] = field(default_factory=list)
    """Ids of graphs that were answered with 201."""

    @property
    def answered(self) -> int:
        return sum(sum(each.values()) for each in self.statuses.values())

    def all_statuses(self) -> Counter[int]:
        return sum(self.statuses.values(), Counter())

    def quantile(self, kind: str, part: float) -> float:
        """Seconds within which so large a part of the answers came."""
        found = sorted(self.seconds.get(kind, [])) or [float("nan")]
        return found[min(int(part * len(found)), len(found) - 1)]

    def table(self) -> str:
        """A line for each kind."""
        lines = [f"{'kind':16}{'answers':>9}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}  statuses"]
        for kind, statuses in sorted(self.statuses.items()):
            times = "".join(f"{1000 * self.quantile(kind, part):>10.1f}" for part in (0.5, 0.99, 1))
            said = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
            lines.append(f"{kind:16}{sum(statuses.values()):>9}{times}  {said}")
        lines.append(f"sent {self.sent}, answered {self.answered}, unsent {self.unsent}, broken {dict(self.broken)}")
        return "\n".join(lines)


class Load:
    """Requests of MIX to a service."""

    def __init__(self, service: Service, seed: int = 1) -> None:
        self.tally = Tally()
        self._service = service
        self._random = random.Random(seed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._open = self._number = 0

    async def at_once(self, clients: int, seconds: float) -> float:
        """So many clients that wait for each answer: requests per second, which is what the service can do."""
        end = time.monotonic() + seconds

        async def one() -> None:
            while time.monotonic() < end:
                await self._one()

        await asyncio.gather(*(one() for _ in range(clients)))
        return self.tally.answered / seconds

    async def at_rate(self, rate: float, seconds: float, stop: asyncio.Event | None = None) -> Tally:
        """So many requests per second, at random moments; until `stop`, where it is given and set."""
        begun = time.monotonic()
        due = begun
        tasks: set[asyncio.Task[None]] = set()
        while due < begun + seconds and not (stop and stop.is_set()):
            await asyncio.sleep(max(due - time.monotonic(), 0))
            task = asyncio.create_task(self._one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += self._random.expovariate(rate)
        if tasks:
            await asyncio.wait(tasks)
        return self.tally

    async def _one(self) -> None:
        kind = self._random.choices(MIX, [each.share for each in MIX])[0]
        self._number += 1
        path, body = kind.body(self._number)
        connection = await self._connection()
        if connection is None:
            self.tally.unsent += 1
            return
        self.tally.sent += 1
        begun = time.monotonic()
        try:
            async with asyncio.timeout(SECONDS_PER_ANSWER):
                status, answer = await self._asked(connection, path, json.dumps(body).encode())
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            began = isinstance(error, asyncio.IncompleteReadError) and error.partial
            self.tally.broken["cut short" if began else type(error).__name__] += 1
            self._drop(connection)
            return
        self.tally.statuses.setdefault(kind.name, Counter())[status] += 1
        if status < 300:
            self.tally.seconds.setdefault(kind.name, []).append(time.monotonic() - begun)
        if status == 201:
            self.tally.kept.append(json.loads(answer)["id"])

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            self._drop((reader, writer))
        if self._open >= MOST_CONNECTIONS:
            return None
        self._open += 1
        with suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", self._service.port)
        self._open -= 1
        return None

    def _drop(self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self._open -= 1
        connection[1].close()

    async def _asked(
        self, connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], path: str, body: bytes
    ) -> tuple[int, bytes]:
        reader, writer = connection
        writer.write(f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        answer = await reader.readexactly(size)
        if b"connection: close" in head:
            self._drop(connection)
        else:
            self._idle.append(connection)
        return int(head[9:12]), answer
