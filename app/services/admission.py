"""Who may begin, and when: turns on a road, shares of the memory, and what each client may ask for.

A road has so many places. Who finds none waits, for a while, in a queue that is bounded; from there clients are let in
by turns, so that one with a thousand tasks and one with a single task are served alike. Memory is counted before it is
taken. What will not get better by itself is refused at once; the rest is told when to come again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.problems import over_for_now, past
from app.services.deadline import Clock
from app.services.memory import Memory
from app.services.tasks import Client, Road, Task
from app.settings import Settings

BURST_SECONDS = 10.0
"""So many seconds' allowance a client may use at once."""
MOST_ACCOUNTS = 10_000


class Places:
    """The places of one road, and the queue before them, in which clients take turns."""

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def take(self, client: str, seconds: float) -> None:
        """A place, within some seconds. Raises TimeoutError."""
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # it came in the same moment
                self.give_back()
            else:
                self._leave(client, turn)
            raise

    def give_back(self) -> None:
        """Let the next one in: of the client that has waited longest for its turn."""
        while self._waiting:
            client, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[client] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(client)
        if turns is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[client]


@dataclass
class Account:
    """What a client has left of its allowance, in seconds of computing; and how many of its tasks run or wait."""

    balance: float
    at: float
    busy: int = 0


class Admission:
    """Lets tasks in, within the settings."""

    def __init__(self, settings: Settings, places: Mapping[Road, int]) -> None:
        self.settings = settings
        self.memory = Memory(settings.memory_bytes)
        self.places = {road: Places(count) for road, count in places.items()}
        self.running: Counter[Road] = Counter()
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    @property
    def queue(self) -> int:
        """Tasks that wait."""
        return sum(map(len, self.places.values()))

    def greet(self, client: Client) -> Account:
        """Let a client ask, if it has anything left of its allowance. Raises rate_limited."""
        rate = client.rate or self.settings.client_rate
        account = self._account(client, rate)
        asked = rate - account.balance / BURST_SECONDS
        if asked > rate:
            may = f"{client.name} may ask for {rate:g} s of computing a second"
            raise over_for_now("rate_limited", "client_rate", rate, asked, may, -account.balance / rate)
        return account

    @asynccontextmanager
    async def turn(self, road: Road, task: Task[Any], size: int) -> AsyncIterator[None]:
        """A place on a road, and memory for the work to begin with. Raises overloaded and rate_limited."""
        client = task.client
        account = self._account(client, client.rate or self.settings.client_rate)
        at_once = client.at_once or self.settings.client_requests
        if account.busy >= at_once:
            has = f"{client.name} has {at_once} requests running or waiting, which is the most"
            raise over_for_now("rate_limited", "client_requests", at_once, account.busy + 1, has)
        account.busy += 1
        try:
            with task.clock.stage("queue"):
                await self._placed(road, client, task.clock)
            self.running[road] += 1
            try:
                task.share.grow(size)
                yield
            finally:
                self.running[road] -= 1
                self.places[road].give_back()
        finally:
            account.busy -= 1

    async def _placed(self, road: Road, client: Client, clock: Clock) -> None:
        places, waiting, most = self.places[road], self.queue, self.settings.queue
        if not places.free and waiting >= most:
            raise over_for_now("overloaded", "queue", most, waiting + 1, f"{waiting} requests wait, which is the most")
        patience, left, came = self.settings.queue_seconds, clock.left, clock.spent
        try:
            await places.take(client.name, min(patience, left))
        except TimeoutError:
            clock()
            if left < patience:  # and the event loop was a moment early
                raise clock.over() from None
            waited, full = past(patience, clock.spent - came), f"no place was free for {patience:g} s"
            raise over_for_now("overloaded", "queue_seconds", patience, waited, full) from None

    def _account(self, client: Client, rate: float) -> Account:
        """A client's account, with what has come in since it was last looked at."""
        account, now = self._accounts.get(client.name), time.monotonic()
        if account is None:
            account = self._accounts[client.name] = Account(rate * BURST_SECONDS, now)
            self._forget()
        account.balance = min(rate * BURST_SECONDS, account.balance + rate * (now - account.at))
        account.at = now
        return account

    def _forget(self) -> None:
        """Keep the number of accounts bounded: an idle client's comes back as good as new."""
        while len(self._accounts) > MOST_ACCOUNTS:
            name = next((name for name, each in self._accounts.items() if not each.busy), None)
            if name is None:
                return
            del self._accounts[name]
