"""Admission: places, the queue and its turns, memory, and what a client may ask for."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.problems import Problem, from_engine
from app.services import admission
from app.services.admission import Places
from app.services.memory import Memory, Share
from app.services.tasks import Client, Road
from tests.app.desk import Desk
from tests.app.figures import scraped
from tests.app.support import LOOP, ask, post, problem
from tests.conftest import serving


def test_clients_take_turns() -> None:
    async def scene() -> list[str]:
        desk = Desk(client_requests=1000, queue=1000)
        many = [desk.served("many") for _ in range(50)]
        await asyncio.gather(*many, desk.served("one"), desk.served("other"))
        return desk.order

    order = asyncio.run(scene())
    assert len(order) == 52
    assert order.index("one") <= 3 and order.index("other") <= 4


def test_a_full_queue_refuses_and_who_waits_too_long_is_sent_away() -> None:
    async def scene() -> list[Any]:
        desk = Desk(queue=2, queue_seconds=0.05)
        async with desk.admission.turn(Road.THREAD, desk.task("slow"), 0):
            found = await asyncio.gather(*(desk.served(name) for name in "abc"), return_exceptions=True)
        assert desk.admission.queue == 0
        await desk.served("later")
        return found

    found = asyncio.run(scene())
    assert [each.code for each in found] == ["overloaded"] * 3
    assert ["no place" in each.detail for each in found] == [True, True, False]
    assert all(each.headers["Retry-After"] for each in found)


def test_who_gives_up_waiting_leaves_the_queue() -> None:
    async def scene() -> None:
        desk = Desk()
        async with desk.admission.turn(Road.THREAD, desk.task("slow"), 0):
            waiting = asyncio.ensure_future(desk.served("gone"))
            await asyncio.sleep(0)
            assert desk.admission.queue == 1
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert desk.admission.queue == 0
        await desk.served("next")
        assert desk.order == ["next"]

    asyncio.run(scene())


def test_a_place_that_comes_as_its_taker_leaves_is_not_lost() -> None:
    async def scene() -> None:
        places = Places(1)
        await places.take("a", 1)
        waiting = asyncio.ensure_future(places.take("b", 1))
        await asyncio.sleep(0)
        places.give_back()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert places.free == 1

    asyncio.run(scene())


def test_a_deadline_that_passes_in_the_queue_is_a_deadline() -> None:
    async def scene() -> Any:
        desk = Desk()
        async with desk.admission.turn(Road.THREAD, desk.task("slow"), 0):
            return (await asyncio.gather(desk.served("hurried", seconds=0.05), return_exceptions=True))[0]

    problem = from_engine(asyncio.run(scene()))
    assert problem.code == "deadline_exceeded"
    limit = problem.more["limit"]
    assert (limit["name"], limit["max"]) == ("seconds", 0.05) and limit["actual"] > 0.05


@pytest.mark.parametrize(("most", "running", "code"), [(2, 1, None), (2, 2, "rate_limited"), (2, 3, "rate_limited")])
def test_a_client_has_so_many_requests_at_once(most: int, running: int, code: str | None) -> None:
    async def scene() -> Any:
        desk = Desk(client_requests=most)
        async with desk.admission.turn(Road.THREAD, desk.task("a"), 0):
            rest = [asyncio.ensure_future(desk.served("a")) for _ in range(running - 1)]
            await asyncio.sleep(0)
            last = asyncio.ensure_future(desk.served("a"))
            await asyncio.sleep(0)
        found = await asyncio.gather(last, *rest, return_exceptions=True)
        await desk.served("a")
        return found[0]

    assert getattr(asyncio.run(scene()), "code", None) == code


def test_a_client_that_used_up_its_seconds_waits_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(admission.time, "monotonic", lambda: now)
    desk, client = Desk(client_rate=2.0).admission, Client("a")
    desk.greet(client)
    desk.greet(client).balance -= 20.0  # ten seconds' worth
    desk.greet(client).balance -= 5.0
    with pytest.raises(Problem) as refused:
        desk.greet(client)
    assert refused.value.code == "rate_limited" and refused.value.headers["Retry-After"] == "3"
    desk.greet(Client("b"))
    now += 2.6
    desk.greet(client)


def test_a_clients_own_limits_stand_in_place_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission.time, "monotonic", lambda: 1000.0)
    desk = Desk(client_rate=2.0).admission
    for rate, allowed in ((2.0, False), (20.0, True)):
        client = Client(f"of {rate}", rate=rate)
        desk.greet(client).balance -= 100.0
        if allowed:
            desk.greet(client)
        else:
            with pytest.raises(Problem):
                desk.greet(client)


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MOST_ACCOUNTS", 10)
    desk = Desk().admission
    for i in range(100):
        desk.greet(Client(str(i)))
    assert len(desk._accounts) == 10


@pytest.mark.parametrize(
    ("held", "more", "fits"), [(600, 399, True), (600, 400, True), (600, 401, False), (0, 5000, True)]
)
def test_memory_is_counted_before_it_is_taken(held: int, more: int, fits: bool) -> None:
    memory = Memory(1000)
    first, second = Share(memory), Share(memory)
    first.grow(held)
    if fits:
        second.grow(more)
        assert memory.held == held + more
    else:
        with pytest.raises(Problem) as refused:
            second.grow(more)
        assert refused.value.code == "overloaded" and memory.held == held
    first.close()
    second.close()
    assert memory.held == 0


def test_what_alone_is_over_the_memory_may_be_alone_in_several_steps() -> None:
    """A body first, then what is computed with it: nothing will ever be given back that it could wait for."""
    memory = Memory(1000)
    one, other = Share(memory), Share(memory)
    one.grow(300)
    one.grow(5000)
    with pytest.raises(Problem):
        other.grow(1)
    one.close()
    other.grow(1)
    with pytest.raises(Problem):
        one.grow(1000)
    assert memory.held == 1


def test_a_keys_own_figures_are_those_that_its_holder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> Any:
        desk = Desk(client_requests=8)
        task = desk.task("a")
        task.client = Client("a", at_once=1)
        async with desk.admission.turn(Road.THREAD, task, 0), desk.admission.turn(Road.THREAD, task, 0):
            pass

    with pytest.raises(Problem) as refused:
        asyncio.run(scene())
    assert refused.value.more["limit"] == {"name": "client_requests", "max": 1, "actual": 2}
    monkeypatch.setattr(admission.time, "monotonic", lambda: 1000.0)
    desk, client = Desk(client_rate=2.0).admission, Client("b", rate=4.0)
    desk.greet(client).balance -= 45.0
    with pytest.raises(Problem) as refused:
        desk.greet(client)
    assert refused.value.more["limit"] == {"name": "client_rate", "max": 4.0, "actual": 4.5}


def test_a_service_that_is_full_says_so_and_its_probes_answer(tmp_path: Path) -> None:
    settings = {"GRADWIRE_PROCESSES": "1", "GRADWIRE_QUEUE": "1", "GRADWIRE_QUEUE_SECONDS": "0.3"}
    with serving(tmp_path / "log", **settings) as (url, _), ThreadPoolExecutor(5) as pool:
        client = httpx.Client(base_url=url, timeout=60)
        body = LOOP | {"timeout": 3}
        asked = [pool.submit(post, client, "/grad/value", body) for _ in range(5)]
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        ask(client, "/grad", {"expression": "x**2", "inputs": {"x": 3}})
        found = [each.result() for each in asked]
        codes = [problem(each)["code"] for each in found]
        assert codes.count("deadline_exceeded") == 1 and codes.count("overloaded") == 4
        assert all(each.headers["retry-after"] for each in found)
        named = Counter(problem(each)["limit"]["name"] for each in found)
        assert named.keys() == {"seconds", "queue", "queue_seconds"}
        seen = scraped(client)
        assert {name: seen.of("gradwire_limits_hit_total", limit=name) for name in named} == named


def test_what_is_counted_is_given_back(app_client: Any) -> None:
    client = app_client(memory_bytes=50 << 20)
    inputs = {"inputs": {"x": [0.5] * 200_000}}
    for expression in ("sum(x)", "sum(x) +"):
        for _ in range(30):  # together far above the memory
            post(client, "/grad", inputs | {"expression": expression})
    assert post(client, "/grad", inputs | {"expression": "sum(x)"}).status_code == 200


def test_what_a_body_expands_to_is_counted_before_it_waits(app_client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else many small bodies that wait for a place would hold far more than the memory."""
    counted = []
    monkeypatch.setattr(Share, "grow", lambda self, size: counted.append(size))
    body = b'{"expression": "x**2", "inputs": {"x": 3}}' + b" " * (3 << 20)
    response = app_client().post("/grad", content=gzip.compress(body), headers={"Content-Encoding": "gzip"})
    assert response.status_code == 200
    assert counted[0] == len(body)
