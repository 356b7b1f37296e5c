"""The process: what is heavy does not hold up what is light, deadlines hold, and several processes serve as one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.support import ask, graph, node, post, problem
from tests.conftest import serving

PATIENCE, TRIES = 1.0, 3
"""Seconds within which a health check is answered, whatever else goes on; and how often that may be tried, since the
machine may be busy. What holds up the event loop does so each time."""


def sines(count: int) -> str:
    """An expression of many sines of a million numbers."""
    return (
        "y0 = sin(linspace(0, 1, 1000000) * x)\n"
        + "\n".join(f"y{i + 1} = sin(y{i})" for i in range(count))
        + f"\nsum(y{count})"
    )


LONG: dict[str, Any] = {"expression": sines(400), "inputs": {"x": 1}}
"""Some seconds of ufuncs."""
ENDLESS_SECONDS = 10
ENDLESS: dict[str, Any] = {
    "expression": "goes(x) = x[0] > 0\ndown(x) = x - 1\nwhile_loop(goes, down, ones([100000]) * x)",
    "inputs": {"x": 900_000},
}
"""More than so many seconds, which nothing knows before: what is known to take long is refused."""

HEAVY: dict[str, tuple[str, Any]] = {
    "a chain of sines": ("/grad/value", LONG | {"timeout": 2}),
    "matrix products": (
        "/grad/value",
        {"expression": "A = ones([1500, 1500]) * x; sum(A @ A @ A @ A @ A @ A)", "inputs": {"x": 1}},
    ),
    "ten thousand blocks of a Hessian": (
        "/grad/hessian",
        {"expression": "*".join(f"x{i}" for i in range(100)), "inputs": {f"x{i}": 1 for i in range(100)}, "timeout": 2},
    ),
    "a Jacobian of many outputs": (
        "/grad/jacobian",
        {
            "expression": ";".join(f"o{i} = sin(x{i}) * x0" for i in range(95)),
            "outputs": [f"o{i}" for i in range(95)],
            "inputs": {f"x{i}": 1 for i in range(95)},
            "timeout": 2,
        },
    ),
    "a tensor of a million numbers": ("/grad/value", {"expression": "sum(x)", "inputs": {"x": [1.25] * 1_000_000}}),
    "many nodes": (
        "/grad/value",
        {"graph": graph(*(node(f"n{i}", "sin", f"n{i - 1}") for i in range(30_000))), "inputs": {"n-1": 1}},
    ),
    "a long expression": ("/grad/value", {"expression": "+".join(["x"] * 30_000), "inputs": {"x": 1}}),
    "many faults": ("/grad", {"expression": "x", "inputs": {"x": 1}, "outputs": [1] * 300_000}),
    "many unknown fields": ("/grad", {"expression": "x", "inputs": {"x": 1}, **{f"f{i}": 1 for i in range(100_000)}}),
    "functions that double": (
        "/grad/value",
        {
            "expression": "\n".join(
                ["f0(x) = x + 1", *(f"f{i}(x) = f{i - 1}(f{i - 1}(x))" for i in range(1, 20)), "f19(x)"]
            ),
            "inputs": {"x": 1},
            "timeout": 2,
        },
    ),
    "a long loop": (
        "/grad/value",
        {"expression": "f(x) = sin(x)\nscan(f, x, length=1000000)", "inputs": {"x": 1}, "timeout": 2},
    ),
    "an answer of many NaNs": ("/grad/value", {"expression": "log(-ones([1000000]) * x)", "inputs": {"x": 1}}),
}


def slowest_answer(client: httpx.Client, meanwhile: Callable[[], Any]) -> tuple[float, Any]:
    """The longest that a health check took while something else went on, and what that gave."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(meanwhile)
        longest = 0.0
        while not running.done():
            start = time.perf_counter()
            assert client.get("/healthz").status_code == 200
            longest = max(longest, time.perf_counter() - start)
            time.sleep(0.005)
        return longest, running.result()


def is_light_meanwhile(server: str, place: Path, path: str, body: Any, before: Any = None) -> bool:
    """Whether health checks are answered in time while `body` is. Each further try is with a service of its own, which
    has no plans."""
    for attempt in range(TRIES):
        with ExitStack() as stack:
            address = server if attempt == 0 else stack.enter_context(serving(place / "log"))[0]
            one, other = (stack.enter_context(httpx.Client(base_url=address, timeout=60)) for _ in range(2))
            if before is not None:
                ask(one, path, before)
                ask(one, path, before)
            longest, response = slowest_answer(one, partial(post, other, path, body))
            assert response.status_code in (200, 422, 504), response.text[:300]
            if longest < PATIENCE:
                return True
    return False


@pytest.mark.parametrize(("path", "body"), HEAVY.values(), ids=HEAVY)
def test_what_is_heavy_does_not_hold_up_what_is_light(server: str, tmp_path: Path, path: str, body: Any) -> None:
    assert is_light_meanwhile(server, tmp_path, path, body)


def test_a_loop_that_was_short_may_be_long_the_next_time(server: str, tmp_path: Path) -> None:
    """The plan is known by then, and says nothing of how many steps there are."""
    body = {"expression": "goes(x) = x > 0\ndown(x) = x - 1\nwhile_loop(goes, down, x)", "timeout": 2}
    short, long = body | {"inputs": {"x": 2}}, body | {"inputs": {"x": 900_000}}
    assert is_light_meanwhile(server, tmp_path, "/grad/value", long, before=short)


def test_a_deadline_is_kept_and_the_service_goes_on(client: httpx.Client) -> None:
    start = time.perf_counter()
    found = problem(post(client, "/grad/value", ENDLESS | {"timeout": 0.2}))
    assert found["code"] == "deadline_exceeded"
    assert time.perf_counter() - start < ENDLESS_SECONDS / 2
    assert "0.2 s" in found["detail"]
    ask(client, "/grad/value", {"expression": "x", "inputs": {"x": 1}})


def test_deadlines_free_the_threads(client: httpx.Client, server: str) -> None:
    """More long requests than places, each over soon: a short one gets its turn."""
    with ThreadPoolExecutor(7) as pool, httpx.Client(base_url=server, timeout=60) as other:
        waiting = [pool.submit(post, other, "/grad/value", LONG | {"timeout": 0.3}) for _ in range(7)]
        start = time.perf_counter()
        ask(client, "/grad/check", {"expression": "x**2", "inputs": {"x": 1}})
        assert time.perf_counter() - start < 15
        assert {each.result().status_code for each in waiting} == {504}


def test_a_timeout_does_not_raise_the_services_own(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log", GRADWIRE_SECONDS="0.3") as (address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        start = time.perf_counter()
        found = problem(post(client, "/grad/value", ENDLESS | {"timeout": 50}))
        assert found["code"] == "deadline_exceeded"
        assert "0.3 s" in found["detail"]
        assert time.perf_counter() - start < ENDLESS_SECONDS / 2


def test_a_client_that_goes_away_leaves_the_log_clean(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as (address, _):
        host, port = address.removeprefix("http://").split(":")
        for part in (
            b"POST /grad HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
            b"POST /grad HTTP/1.1\r\nHo",
            b"",
        ):
            with socket.create_connection((host, int(port))) as it:
                it.sendall(part)
        assert httpx.get(f"{address}/healthz").status_code == 200
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_many_at_once_get_their_own_answers(client: httpx.Client) -> None:
    """Nothing that one request builds is seen by another."""
    barrier = threading.Barrier(8)

    def one(number: int) -> bool:
        if number < 8:
            barrier.wait(10)
        body = {"expression": f"y = sum(tanh(x * {number}) ** 2)", "inputs": {"x": [number / 100] * 3000}}
        answer = ask(client, "/grad", body)
        alone = ask(client, "/grad", body)
        return bool(answer == alone and answer["gradients"]["x"]["shape"] == [3000])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(40)))


def test_several_processes_serve_as_one(tmp_path: Path) -> None:
    """A graph that one of them registered is known to all of them."""
    with serving(tmp_path / "log", GRADWIRE_WORKERS="2") as (url, _):
        made = httpx.post(f"{url}/graphs", json={"expression": "y = x**3"})
        body = {"graph_id": made.json()["id"], "inputs": {"x": 2}}
        answers = [httpx.post(f"{url}/grad", json=body, headers={"Connection": "close"}) for _ in range(8)]
        assert [each.json()["gradients"]["x"]["data"] for each in answers] == [12.0] * 8


def test_several_processes_need_a_store_that_they_share() -> None:
    environment = os.environ | {"GRADWIRE_WORKERS": "2", "GRADWIRE_STORE": "memory"}
    done = subprocess.run(
        [sys.executable, "-m", "app"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "GRADWIRE_STORE=sqlite" in done.stderr
