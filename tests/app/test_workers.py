"""Worker processes: what they do, what ends them, and that it costs nobody else anything."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.services import answers, workers
from app.services.deadline import Clock
from app.services.messages import SHORT, Job
from app.services.workers import CACHES, Died, Worker, Workers
from app.settings import Settings
from app.wire import json
from tests.app.support import LOOP, ask, graph, node, post, problem
from tests.conftest import AppClient, serving

DEAF = {"expression": "a = reshape(sin(arange(4000000.0) ** 2), [2000, 2000])\ns(a) = sum(svd(a).S)\ns(a)"}
"""Some seconds in one call of LAPACK's, which looks at nothing."""
CHECK = {"expression": "sin(x)", "inputs": {"x": 1.0}}
"""Small, and always a worker's."""
SECONDS = 10.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    log = tmp_path_factory.mktemp("workers") / "log"
    with serving(log, GRADWIRE_PROCESSES="2") as found:
        yield found


@pytest.fixture
def server(running: tuple[str, subprocess.Popen[bytes]]) -> str:
    return running[0]


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as it:
        yield it


def workers_of(service: subprocess.Popen[bytes]) -> set[int]:
    """The ids of a service's workers: those that its server of forks has begun."""
    return {grandchild for child in _children(service.pid) for grandchild in _children(child)}


def _children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


def eventually(what: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def processor_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_at_work(pid: int) -> bool:
    before = processor_seconds(pid)
    time.sleep(0.3)
    return processor_seconds(pid) > before + 0.02


def busy_worker(service: subprocess.Popen[bytes]) -> int:
    """The worker that is at work, as soon as there is one."""
    found: list[int] = []
    assert eventually(lambda: bool(found.extend(pid for pid in workers_of(service) if is_at_work(pid)) or found))
    return found[0]


def test_workers_are_there_from_the_start(running: Any) -> None:
    assert len(workers_of(running[1])) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_one_that_dies_costs_its_own_request(client: httpx.Client, running: Any, number: int) -> None:
    _, service = running
    with ThreadPoolExecutor(2) as pool, httpx.Client(base_url=client.base_url, timeout=60) as other:
        lost = pool.submit(post, other, "/grad/value", LOOP | {"timeout": 20})
        victim = busy_worker(service)
        kept = pool.submit(post, client, "/grad/check", CHECK)
        os.kill(victim, number)
        found = problem(lost.result())
        assert kept.result().status_code == 200
    assert found["code"] == "overloaded" and f"signal {int(number)}" in found["detail"]
    assert lost.result().headers["retry-after"]
    assert ask(client, "/grad/check", CHECK)["passed"]


def test_idle_ones_that_were_killed_cost_nothing(client: httpx.Client, running: Any) -> None:
    _, service = running
    ask(client, "/grad/check", CHECK)
    for pid in workers_of(service):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not workers_of(service))
    assert ask(client, "/grad/check", CHECK)["passed"]


def test_the_server_of_forks_may_be_killed_too(client: httpx.Client, running: Any) -> None:
    _, service = running
    for pid in _children(service.pid):
        if _children(pid):
            os.kill(pid, signal.SIGKILL)
    for _ in range(4):
        assert ask(client, "/grad/check", CHECK)["passed"]


def test_time_ends_what_looks_at_no_clock(client: httpx.Client) -> None:
    start = time.monotonic()
    found = problem(post(client, "/grad/value", DEAF | {"timeout": 0.2}))
    assert found["code"] == "deadline_exceeded"
    assert time.monotonic() - start < 3
    assert ask(client, "/grad/check", CHECK)["passed"]


def test_the_time_that_was_asked_for_is_what_is_told_though_only_the_worker_read_it(app_client: AppClient) -> None:
    found = problem(post(app_client(inline_bytes=0, thread_bytes=0), "/grad/value", LOOP | {"timeout": 0.2}))
    assert (found["code"], found["status"]) == ("deadline_exceeded", 504)
    assert (found["limit"]["name"], found["limit"]["max"]) == ("seconds", 0.2)
    assert 0.2 < found["limit"]["actual"] < SECONDS
    assert "0.2 s" in found["detail"]


def test_the_time_of_a_job_runs_from_the_arrival_of_its_request(pool: Workers) -> None:
    """What it waited before counts, and so does a timeout from there on."""
    clock = Clock(30.0, time.perf_counter() - 5.0)
    reply, _ = do(pool, LOOP | {"timeout": 4}, clock)
    assert reply.problem["code"] == "deadline_exceeded"
    assert reply.problem["limit"]["actual"] >= 5
    assert clock.seconds == 4


def test_a_worker_that_is_ended_by_its_alarm_has_told_before_what_time_was_asked_for(pool: Workers) -> None:
    """It cannot tell afterwards, and the service has not read the request."""
    do(pool, {"expression": "1"})
    at_once = {"expression": "sum(svd(reshape(arange(4000000.0), [2000, 2000])).S)"}
    clock = Clock(30.0)
    with pytest.raises(Died) as died:
        do(pool, at_once | {"timeout": 1}, clock)
    assert died.value.code == -signal.SIGALRM
    assert clock.seconds == 1 and clock.spent < SECONDS


def test_time_ends_a_worker_that_is_stopped_and_hears_no_alarm(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log", GRADWIRE_PROCESSES="1", GRADWIRE_SECONDS="2") as (base, service),
        httpx.Client(base_url=base, timeout=30) as client,
    ):
        (worker,) = workers_of(service)
        os.kill(worker, signal.SIGSTOP)
        found = problem(post(client, "/grad/check", CHECK))
        assert found["code"] == "deadline_exceeded"
        assert ask(client, "/grad/check", CHECK)["passed"]


def test_a_client_that_goes_away_frees_its_worker(client: httpx.Client, running: Any) -> None:
    _, service = running
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{client.base_url}/grad/value", json=LOOP, timeout=0.5)
    assert eventually(lambda: not any(map(is_at_work, workers_of(service))))


def test_memory_that_a_worker_may_not_have_is_refused(tmp_path: Path) -> None:
    loop = "more(x) = sum(x) < 0\nsame(x) = x\nsum(while_loop(more, same, ones([20000000]) * arange(20000000)))"
    many = {"expression": loop}
    with (
        serving(tmp_path / "log", GRADWIRE_WORKER_BYTES=str(200 << 20)) as (url, service),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        found = problem(post(client, "/grad/value", many))
        assert found["code"] == "overloaded" and "memory" in found["detail"]
        assert ask(client, "/grad/check", CHECK)["passed"]
        assert service.poll() is None


def test_workers_end_with_the_service(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as (url, service):
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(httpx.post, f"{url}/grad/value", json=LOOP, timeout=60)
            busy_worker(service)
            workers = workers_of(service)
            service.kill()
            with pytest.raises(httpx.TransportError):
                asked.result()
        assert workers
        assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_registered_graphs_are_computed_there_too(client: httpx.Client) -> None:
    id = ask(client, "/graphs", {"expression": "x**2"})["id"]
    body = {"graph_id": id, "inputs": {"x": 3.0}}
    assert ask(client, "/grad/check", body)["passed"]
    assert ask(client, "/grad/check", body)["passed"]
    client.delete(f"/graphs/{id}")
    assert problem(post(client, "/grad/check", body))["code"] == "unknown_graph"


def test_a_large_graph_is_registered_and_computed(client: httpx.Client) -> None:
    large = graph(*(node(f"n{i}", "sin", f"n{i - 1}") for i in range(5000)))
    registered = ask(client, "/graphs", {"graph": large})
    assert registered["node_count"] == 5001
    for _ in range(2):
        by_id = ask(client, "/grad", {"graph_id": registered["id"], "inputs": {"n-1": 1.0}})
    assert by_id == ask(client, "/grad", {"graph": large, "inputs": {"n-1": 1.0}})


# The pool alone


@pytest.fixture(scope="module")
def pool() -> Iterator[Workers]:
    found = Workers(Settings(store="memory"), 2)
    yield found
    found.close()


def test_workers_keep_together_what_one_cache_may(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Settings] = []

    class Asked(Worker):
        is_alive = True

        def __init__(self, settings: Settings) -> None:
            given.append(settings)

    monkeypatch.setattr(workers, "Worker", Asked)
    settings = Settings(store="memory")
    Workers(settings, 3).start()
    for name in CACHES:
        assert [getattr(each, name) for each in given] == [getattr(settings, name) // 3] * 3


def do(pool: Workers, body: Any, clock: Clock | None = None) -> tuple[Any, bytes | None]:
    clock = clock or Clock(30.0)
    job = Job("ValueRequest", "application/json", "application/json", clock.seconds, clock.start)
    return pool.do(job, json.encode(body), lambda id: b"", clock)


def test_long_bodies_and_answers_come_through_whole(pool: Workers) -> None:
    numbers = [float(i) for i in range(SHORT)]
    reply, answer = do(pool, {"expression": "x + 1", "inputs": {"x": numbers}})
    assert reply.problem is None and answer is not None and len(answer) > SHORT
    assert json.decode(answer)["values"]["out"]["data"] == [x + 1 for x in numbers]


def test_a_problem_comes_through_whole(pool: Workers) -> None:
    reply, answer = do(pool, {"expression": "x +", "inputs": {}})
    assert answer is None
    assert (reply.problem["code"], reply.problem["line"], reply.problem["pointer"]) == (
        "syntax_error",
        1,
        "/expression",
    )


def test_the_clock_kills_the_worker_that_works_for_it_and_no_other(pool: Workers) -> None:
    clock = Clock(30.0)
    do(pool, {"expression": "1"}, clock)
    started, lost = pool.started, pool.lost
    clock.stop()
    do(pool, {"expression": "1"})
    assert (pool.started, pool.lost) == (started, lost)
    other = Clock(30.0)
    threading.Timer(0.3, other.stop).start()
    with pytest.raises(Died):
        do(pool, LOOP, other)
    assert pool.lost == lost + 1
    assert do(pool, {"expression": "1"})[0].problem is None


def test_who_has_gone_while_the_worker_was_begun_keeps_none(pool: Workers) -> None:
    clock = Clock(30.0)
    clock.stop()
    with pytest.raises(Died):
        do(pool, LOOP, clock)
    assert clock.left > 20


def test_what_nobody_foresaw_is_told_and_the_worker_lives_on(pool: Workers) -> None:
    body = {"expression": "1"}
    do(pool, body)
    started = pool.started
    job = Job("NoSuchModel", "application/json", "application/json", 30.0, time.perf_counter())
    reply, answer = pool.do(job, json.encode(body), lambda id: b"", Clock(30.0))
    assert answer is None and "AttributeError" in reply.crash
    assert do(pool, body)[0].crash is None and pool.started == started


def test_an_internal_error_of_a_worker_has_an_id_that_the_log_has(
    app_client: AppClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(answers, "Job", lambda model, *rest: Job("NoSuchModel", *rest))
    found = problem(post(app_client(processes=1), "/grad/check", CHECK))
    assert found["code"] == "internal" and "AttributeError" not in found["detail"]
    assert found["instance"].removeprefix("urn:uuid:") in caplog.text and "AttributeError" in caplog.text
