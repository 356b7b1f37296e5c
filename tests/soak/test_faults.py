"""Faults under load, again and again: kills of processes and of the service, and signals with work in flight."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.soak.load import Load, Tally
from tests.support.service import Service, kill, until

RATE = 30.0
"""Requests per second: less than one process on a busy core can do."""
ENOUGH, GRACE = 3600.0, 60.0


async def disturbed(service: Service, seed: int, disturb: Callable[[Load], Awaitable[None]]) -> Tally:
    """What becomes of requests while `disturb` does its worst."""
    load, stop = Load(service, seed), asyncio.Event()
    asking = asyncio.create_task(load.at_rate(RATE, ENOUGH, stop))
    await disturb(load)
    stop.set()
    return await asking


def report(capsys: pytest.CaptureFixture[str], what: str, tally: Tally) -> None:
    with capsys.disabled():
        print(f"\n{what}\n{tally.table()}")


def test_processes_killed_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str], rounds: int) -> None:
    """What one of them was at is lost; the rest, and the service, go on."""
    choice = random.Random(3)
    with Service(tmp_path, workers=2) as service:

        async def disturb(load: Load) -> None:
            for _ in range(rounds):
                await asyncio.sleep(choice.uniform(1, 4))
                kill(choice.choice(service.children()))

        tally = asyncio.run(disturbed(service, 3, disturb))
        until(lambda: all(service.answers("/readyz") for _ in range(8)), 30, "all is well again")
        assert service.stop() == 0
    report(capsys, f"a process killed {rounds} times", tally)
    assert tally.all_statuses().keys() <= {200, 201, 429, 503, 504}
    assert tally.answered > 0.5 * tally.sent


@pytest.mark.parametrize("workers", [1, 2])
def test_the_service_killed_under_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int, rounds: int
) -> None:
    """Every graph that was answered with 201 is there afterwards."""
    choice = random.Random(4)
    kept: list[str] = []
    with Service(tmp_path, workers=workers) as service:

        async def disturb(load: Load) -> None:
            await asyncio.sleep(choice.uniform(2, 6))
            service.kill()

        for each in range(rounds):
            tally = asyncio.run(disturbed(service, each, disturb))
            kept += tally.kept
            service.restart()
            with httpx.Client(base_url=service.address) as client:
                missing = [id for id in kept if client.get(f"/graphs/{id}").status_code != 200]
            assert not missing
        report(capsys, f"the service killed {rounds} times; {len(kept)} graphs kept, none lost. The last one:", tally)
    assert kept


@pytest.mark.parametrize("workers", [1, 2])
def test_signals_with_work_in_flight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int, rounds: int
) -> None:
    """A load balancer notices within the drain; then all that was sent is answered, and nobody was refused."""
    choice = random.Random(5)
    total = Tally()
    with Service(tmp_path, workers=workers, drain_seconds=8, grace_seconds=60) as service:

        async def disturb(load: Load) -> None:
            await asyncio.sleep(choice.uniform(1, 4))
            service.signal(signal.SIGTERM)
            while await asyncio.to_thread(service.answers, "/readyz"):
                await asyncio.sleep(0.1)

        for each in range(rounds):
            tally = asyncio.run(disturbed(service, each, disturb))
            total.sent += tally.sent
            total.unsent += tally.unsent
            total.broken += tally.broken
            assert tally.all_statuses().keys() <= {200, 201, 429, 503, 504}
            assert service.popen.wait(GRACE) == 0
            service.restart()
    what = f"{rounds} times SIGTERM: {total.sent} sent, {total.unsent} refused, not answered {dict(total.broken)}"
    report(capsys, f"{what}. The last one:", tally)
    assert not total.broken and not total.unsent


def test_a_process_that_stands_still_is_replaced(tmp_path: Path) -> None:
    """As one does whose interpreter a kernel never gives back."""
    with Service(tmp_path, workers=2, seconds=1) as service:
        until(lambda: len(service.servers()) == 2, 30, "two serve")
        stopped = service.servers()[0]
        os.kill(stopped, signal.SIGSTOP)
        until(lambda: stopped not in service.servers() and len(service.servers()) == 2, 90, "another one takes over")
        until(lambda: all(service.answers("/readyz") for _ in range(8)), 60, "all is well again")
    assert "stands still" in service.log
