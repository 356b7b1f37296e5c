"""What goes wrong around a service that runs: signals, kills, full disks, locked files, clients that leave or dawdle.

Short versions, each of seconds; `make soak` has the long ones. All are held against the service as a process, from
outside. What was answered with 201 is kept, what was accepted is answered, and nothing gives a 500.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.app.support import problem
from tests.support.service import ROOT, Service, kill, until

SMALL = {"expression": "y = x**3", "inputs": {"x": 2}}
SIGNALS = [signal.SIGTERM, signal.SIGINT]
GRACE = 60
"""Seconds after which a test gives up waiting for what should take a few."""


def sines(count: int) -> dict[str, Any]:
    """A request that takes some ms for each of `count` sines of a million numbers."""
    lines = ["y0 = sin(linspace(0, 1, 1000000) * x)", *(f"y{i + 1} = sin(y{i})" for i in range(count))]
    return {"expression": "\n".join([*lines, f"sum(y{count})"]), "inputs": {"x": 1}}


LONG = sines(800)
ENDLESS: dict[str, Any] = {
    "expression": "goes(x) = x[0] > 0\ndown(x) = x - 1\nwhile_loop(goes, down, ones([100000]) * x)",
    "inputs": {"x": 900_000},
}
"""Half a minute, which nothing knows before: what is known to take so long is refused."""


def posted(service: Service, path: str, body: Any) -> httpx.Response:
    return httpx.post(service.address + path, json=body, timeout=GRACE)


@contextmanager
def running(service: Service, body: Any) -> Iterator[Future[httpx.Response]]:
    """A request that is being computed."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(posted, service, "/grad/value", body)
        service.await_work()
        assert not answer.done()
        yield answer


# Stopping


@pytest.mark.parametrize("sent", SIGNALS)
def test_a_signal_ends_an_idle_service_at_once(tmp_path: Path, sent: signal.Signals) -> None:
    with Service(tmp_path, drain_seconds=0) as service, httpx.Client(base_url=service.address) as client:
        client.get("/healthz")  # a connection that is kept open
        service.signal(sent)
        assert service.popen.wait(15) == 0
    assert "Traceback" not in service.log


@pytest.mark.parametrize("sent", SIGNALS)
def test_what_runs_is_answered_before_the_end(tmp_path: Path, sent: signal.Signals) -> None:
    with Service(tmp_path) as service, running(service, LONG) as answer:
        service.signal(sent)
        assert answer.result().status_code == 200
        assert service.popen.wait(GRACE) == 0
    assert "Traceback" not in service.log


def test_while_it_drains_requests_are_served_and_readiness_says_no(tmp_path: Path) -> None:
    with Service(tmp_path, drain_seconds=3) as service:
        assert service.answers("/readyz")
        service.signal(signal.SIGTERM)
        until(lambda: not service.answers("/readyz"), 2.5, "readiness says no")
        response = posted(service, "/grad", SMALL)
        assert response.json()["gradients"]["x"]["data"] == 12
        assert response.headers["connection"] == "close"
        assert service.answers("/healthz")
        assert "draining" in problem(httpx.get(f"{service.address}/readyz"))["checks"]
        assert service.popen.wait(GRACE) == 0


def test_what_is_not_done_in_time_is_answered_with_503(tmp_path: Path) -> None:
    """Its thread cannot be stopped; the process ends all the same."""
    with Service(tmp_path, grace_seconds=1) as service, running(service, ENDLESS) as answer:
        start = time.monotonic()
        service.signal(signal.SIGTERM)
        found = problem(answer.result())
        assert found["code"] == "overloaded"
        assert answer.result().headers["retry-after"] == "1"
        assert service.popen.wait(GRACE) == 0
        assert 1 < time.monotonic() - start < 10
    assert "Traceback" not in service.log


@pytest.mark.parametrize(
    ("first", "second", "workers"),
    [
        (signal.SIGTERM, signal.SIGTERM, 1),
        (signal.SIGINT, signal.SIGINT, 1),
        (signal.SIGINT, signal.SIGTERM, 2),
        (signal.SIGTERM, signal.SIGINT, 2),
    ],
)
def test_a_second_signal_ends_it_at_once(
    tmp_path: Path, first: signal.Signals, second: signal.Signals, workers: int
) -> None:
    with Service(tmp_path, drain_seconds=40, workers=workers) as service, running(service, ENDLESS) as answer:
        start = time.monotonic()
        service.signal(first)
        until(lambda: not service.answers("/readyz"), 10, "it drains")
        service.signal(second)
        assert problem(answer.result())["code"] == "overloaded"
        assert service.popen.wait(GRACE) == 0
        assert time.monotonic() - start < 20
        until(lambda: not service.answers(), 5, "nobody answers")


@pytest.mark.parametrize("sent", SIGNALS)
@pytest.mark.parametrize("after", [0.15, 0.7, 1.3])
def test_a_signal_while_it_starts_ends_it(tmp_path: Path, sent: signal.Signals, after: float) -> None:
    service = Service(tmp_path)
    try:
        time.sleep(after)
        service.signal(sent)
        assert service.popen.wait(15) == 0
        assert "Traceback" not in service.log
    finally:
        service.kill()


def test_an_upload_that_never_ends_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with Service(tmp_path, grace_seconds=1) as service, half_sent(service) as it:
        service.signal(signal.SIGTERM)
        assert service.popen.wait(GRACE) == 0
        assert it.recv(1 << 16).startswith(b"HTTP/1.1 503")


def test_several_processes_end_as_one(tmp_path: Path) -> None:
    """And a signal that goes to all that serve, not to the first alone, is one signal."""
    with Service(tmp_path, workers=2) as service, running(service, LONG) as answer:
        below = service.children()
        for pid in (service.pid, *service.servers()):
            os.kill(pid, signal.SIGTERM)
        assert answer.result().status_code == 200
        assert service.popen.wait(GRACE) == 0
        until(lambda: not any(map(is_alive, below)), 10, "all have ended")


# Killing


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/statm").exists() and Path(f"/proc/{pid}/statm").read_text() != "0 0 0 0 0 0 0\n"


def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    with Service(tmp_path, workers=2) as service:
        until(lambda: len(service.servers()) == 2, 20, "two serve")
        before = service.servers()
        kill(before[0])
        until(lambda: len(service.servers()) == 2 and service.servers() != before, 20, "two serve again")
        until(lambda: all(service.answers() for _ in range(8)), 20, "all answer")
        assert service.stop() == 0
    assert "another one takes over" in service.log


def test_of_several_processes_none_outlives_the_first(tmp_path: Path) -> None:
    """Else the port would stay taken, and the next start fail."""
    with Service(tmp_path, workers=2) as service:
        until(lambda: len(service.servers()) == 2, 20, "two serve")
        below = service.children()
        service.popen.kill()
        service.popen.wait()
        until(lambda: not any(map(is_alive, below)), 20, "the others have left")
        service.restart()
        assert posted(service, "/grad", SMALL).status_code == 200


def registering(service: Service, number: str, kept: list[str]) -> None:
    """Register graph after graph, and note the ids of those that were answered; until the service is gone."""
    with httpx.Client(base_url=service.address, timeout=GRACE) as client, suppress(httpx.TransportError):
        for count in range(100_000):
            response = client.post("/graphs", json={"expression": f"y = x * {number} + {count} + sin(x)"})
            assert response.status_code in (201, 503), response.text
            if response.status_code == 201:
                kept.append(response.json()["id"])


def registered(service: Service) -> set[str]:
    """The ids of all graphs."""
    found: set[str] = set()
    cursor: str | None = "0"
    while cursor is not None:
        at = {"limit": 1000} | ({"cursor": int(cursor)} if found else {})
        page = httpx.get(f"{service.address}/graphs", params=at, timeout=GRACE).json()
        found |= {each["id"] for each in page["graphs"]}
        cursor = page["next"]
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_no_graph_that_was_answered_is_lost_by_a_kill(tmp_path: Path, workers: int) -> None:
    with Service(tmp_path, workers=workers) as service:
        kept: list[str] = []
        for round in range(2):
            with ThreadPoolExecutor(4) as pool:
                before = len(kept)
                clients = [pool.submit(registering, service, f"{round}.{each}", kept) for each in range(4)]
                until(lambda before=before: len(kept) > before + 50, 30, "graphs are registered")
                service.kill()
                for each in clients:
                    each.result()
            service.restart()
            assert registered(service) >= set(kept)
            assert httpx.get(f"{service.address}/graphs/{kept[-1]}").status_code == 200


def test_a_backup_while_graphs_are_registered_can_be_served(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    copy = copies / "graphs.sqlite3"
    kept: list[str] = []
    with Service(tmp_path) as service, ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(registering, service, str(each), kept) for each in range(2)]
        until(lambda: len(kept) > 20, 30, "graphs are registered")
        before = set(kept)
        done = subprocess.run(
            [sys.executable, "-m", "app.backup", str(copy)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "GRADWIRE_STORE_PATH": str(tmp_path / "graphs.sqlite3")},
            check=False,
        )
        service.kill()
        for each in clients:
            each.result()
    assert done.returncode == 0
    with Service(copies, store_path=copy) as service:
        assert registered(service) >= before


# The store's file


def register(service: Service, expression: str) -> httpx.Response:
    return posted(service, "/graphs", {"expression": expression})


def test_a_locked_file_is_told_and_holds_up_nothing_else(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        known = register(service, "y = x**3").json()["id"]
        service.stop()
        service.restart()  # so that it is not at hand
        with closing(sqlite3.connect(tmp_path / "graphs.sqlite3")) as other, ThreadPoolExecutor(4) as pool:
            other.execute("BEGIN IMMEDIATE")
            waiting = [pool.submit(register, service, f"y = x + {i}") for i in range(4)]
            start = time.monotonic()
            answer = posted(service, "/grad", {"graph_id": known, "inputs": {"x": 2}})
            assert answer.json()["gradients"]["x"]["data"] == 12
            assert time.monotonic() - start < 1.9  # less than the patience of those who write
            found = problem(httpx.get(f"{service.address}/readyz", timeout=GRACE))
            assert found["code"] == "overloaded" and "locked" in found["checks"]["store"]
            for each in waiting:
                assert problem(each.result())["code"] == "overloaded"
                assert each.result().headers["retry-after"] == "1"
            other.rollback()
        assert register(service, "y = x + 9").status_code == 201
        until(lambda: service.answers("/readyz"), 10, "it is ready again")


def test_two_processes_that_register_at_once_give_no_500(tmp_path: Path) -> None:
    with Service(tmp_path, workers=2, graphs=20) as service, ThreadPoolExecutor(8) as pool:
        until(lambda: len(service.servers()) == 2, 20, "two serve")
        answers = pool.map(lambda i: register(service, f"y = x + {i % 50}").status_code, range(200))
        assert set(answers) <= {200, 201, 503}
        assert service.answers("/readyz")


def test_a_file_that_was_removed_is_told(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        register(service, "y = x**3")
        for each in tmp_path.glob("graphs.sqlite3*"):
            each.unlink()
        found = problem(httpx.get(f"{service.address}/readyz"))
        assert "removed" in found["checks"]["store"]
        assert posted(service, "/grad", SMALL).status_code == 200
        service.stop()
        service.restart()
        assert register(service, "y = x**3").status_code == 201


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(place)]
    if os.getuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount; tests/app/test_stores.py has a full disk without")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_told_and_the_service_goes_on(tmp_path: Path, tiny_disk: Path) -> None:
    with Service(tmp_path, store_path=tiny_disk / "graphs.sqlite3") as service:
        known = register(service, "y = x**3").json()["id"]
        filling = tiny_disk / "filling"
        with filling.open("wb", buffering=0) as it, suppress(OSError):
            while True:
                it.write(bytes(4096))
        statuses = {register(service, "+".join([f"x{i}"] * 5000)).status_code for i in range(5)}
        assert statuses == {503}
        found = problem(httpx.get(f"{service.address}/readyz"))
        assert "full" in found["checks"]["store"]
        assert posted(service, "/grad", SMALL).status_code == 200
        assert posted(service, "/grad", {"graph_id": known, "inputs": {"x": 2}}).status_code == 200
        service.stop()
        service.restart()  # on a full disk, too
        assert posted(service, "/grad", SMALL).status_code == 200
        filling.unlink()
        assert register(service, "y = x**4").status_code == 201
        assert httpx.get(f"{service.address}/graphs/{known}").status_code == 200
        until(lambda: service.answers("/readyz"), 10, "it is ready again")


def test_a_disk_that_becomes_read_only_is_told(tmp_path: Path, tiny_disk: Path) -> None:
    with Service(tmp_path, store_path=tiny_disk / "graphs.sqlite3") as service:
        known = register(service, "y = x**3").json()["id"]
        before = {each.name: each.read_bytes() for each in tiny_disk.iterdir()}
        service.stop()
        subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
        service.launch()
        assert service.popen.wait(GRACE) == 1
        assert "GRADWIRE_STORE_PATH" in service.log and "Traceback" not in service.log
        subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
        service.restart()
        assert before and httpx.get(f"{service.address}/graphs/{known}").status_code == 200


# Clients


@contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), GRACE) as it:
        yield it


@contextmanager
def half_sent(service: Service) -> Iterator[socket.socket]:
    with connected(service) as it:
        it.sendall(b'POST /grad HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"expression"')
        time.sleep(0.1)
        yield it


def test_clients_that_leave_cost_nobody_anything(tmp_path: Path) -> None:
    """In the middle of a head, of a body, of the computation, and of the answer."""
    large = b'{"expression": "linspace(0, 1, 2000000) * x", "inputs": {"x": 1}}'
    head = b"POST /grad/value HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(large)
    with Service(tmp_path) as service:
        before = service.rss()
        for sent, read in [(head[:20], 0), (head + large[:30], 0), (head + large, 0), (head + large, 5000)] * 8:
            with connected(service) as it:
                it.sendall(sent)
                assert len(it.recv(read)) <= read if read else True
        assert posted(service, "/grad", SMALL).status_code == 200
        until(lambda: service.rss() < before + (400 << 20), 30, "memory is given back")
    assert "Traceback" not in service.log


def test_a_client_that_reads_slowly_holds_up_nobody(tmp_path: Path) -> None:
    body = b'{"expression": "linspace(0, 1, 1000000) * x", "inputs": {"x": 1}}'
    with Service(tmp_path, grace_seconds=1) as service, connected(service) as slow:
        slow.sendall(b"POST /grad/value HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
        for _ in range(20):
            assert posted(service, "/grad", SMALL).status_code == 200
            slow.recv(100)
        service.signal(signal.SIGTERM)
        assert service.popen.wait(GRACE) == 0
    assert "Traceback" not in service.log
