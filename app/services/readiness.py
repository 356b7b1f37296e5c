"""Whether the service takes requests: named checks, asked together, within a short time.

A probe comes every few seconds, from anyone, and must not be a burden itself: what a check said counts for a second,
and one that does not come back is not asked again until it has.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from app.stores import StoreFailed, StoreUnusable

Check = Callable[[], Awaitable[None] | None]
"""Raises NotReady, or what a store raises, where something is wrong. What blocks has to be awaited."""
OK, DRAINING = "ok", "draining"
CHECK_SECONDS = 1.0
"""How long a probe waits for the checks."""
FRESH_SECONDS = 1.0
"""How long what a check said is believed."""

logger = logging.getLogger("gradwire")


class NotReady(Exception):
    """Raised by a check, with what is wrong."""


class _Asked(NamedTuple):
    task: asyncio.Task[str]
    begun: float


class Readiness:
    """The checks by name, and whether the service is about to stop."""

    def __init__(self, checks: dict[str, Check]) -> None:
        self.checks = checks
        self.is_draining = False
        self._asked: dict[str, _Asked] = {}

    def drain(self) -> None:
        """Say no from now on: the service is about to stop."""
        self.is_draining = True

    async def found(self) -> dict[str, str]:
        """What each check says: "ok", or what is wrong."""
        tasks = {name: self._task(name) for name in self.checks}
        if tasks:
            await asyncio.wait(tasks.values(), timeout=CHECK_SECONDS)
        stopping = {DRAINING: "the service is about to stop"} if self.is_draining else {}
        return {name: _said(task) for name, task in tasks.items()} | stopping

    def _task(self, name: str) -> asyncio.Task[str]:
        asked, now = self._asked.get(name), asyncio.get_running_loop().time()
        if asked is None or (asked.task.done() and now > asked.begun + FRESH_SECONDS):
            asked = self._asked[name] = _Asked(asyncio.create_task(_outcome(name, self.checks[name])), now)
        return asked.task


async def _outcome(name: str, check: Check) -> str:
    try:
        waiting = check()
        if inspect.isawaitable(waiting):
            await waiting
    except (NotReady, StoreFailed, StoreUnusable) as error:
        return str(error)
    except Exception:
        logger.exception("the check %s failed", name)
        return "the check itself failed; the log has the reason"
    return OK


def _said(task: asyncio.Task[str]) -> str:
    return task.result() if task.done() else f"no answer within {CHECK_SECONDS:g} s"
