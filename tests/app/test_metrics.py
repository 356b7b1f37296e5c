"""/metrics: what is counted is what happened, under labels that nobody can multiply, over all processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict_families
from prometheus_client.parser import text_string_to_metric_families

from app.problems import CODES
from app.services.cache import Cache
from app.services.figures import BY_NAME, HISTOGRAM, METRICS, MOST_PLANS, Figures, merged
from app.services.limits import all_limits
from app.services.sharing import SHARING_SECONDS, Shared
from app.settings import Settings
from tests.app.figures import Scraped, scraped
from tests.app.support import LOOP, ask, post, refused
from tests.conftest import AppClient, serving

BODY: dict[str, Any] = {"expression": "y = sin(x) * sin(2 * x)", "inputs": {"x": 0.5}}
STAGES = {"read", "parse", "compile", "run", "encode"}


def test_requests_are_counted_by_route_method_and_status(app_client: AppClient) -> None:
    client = app_client()
    for _ in range(3):
        ask(client, "/grad", BODY)
    refused(client, "/grad", b"{", "invalid_json")
    client.get("/graphs/0123")
    client.put("/grad")
    found = scraped(client)
    assert found.of("gradwire_requests_total", route="/grad", method="POST", status="200") == 3
    assert found.of("gradwire_requests_total", route="/grad", method="POST", status="400") == 1
    assert found.of("gradwire_requests_total", route="/graphs/{id}", method="GET", status="404") == 1
    assert found.of("gradwire_requests_total", route="/grad", method="PUT", status="405") == 1
    assert found.of("gradwire_requests_total") == 6
    assert found.of("gradwire_requests_in_progress") == 1, "the one that asks"


def strange(client: httpx.Client, number: int) -> None:
    """Requests that nobody else makes."""
    client.get(f"/nowhere/{number}")
    client.get(f"/graphs/{number:032x}")
    client.request(f"BREW{number}", "/grad")
    client.get(f"/docs/static/{number}")
    client.get("/healthz", headers={"X-Request-ID": f"id-{number}"})


def test_strangers_make_no_series(app_client: AppClient) -> None:
    client = app_client()
    strange(client, 0)
    scraped(client)
    before = scraped(client)
    for number in range(1, 50):
        strange(client, number)
    found = scraped(client)
    assert found.keys() == before.keys()
    assert found.of("gradwire_requests_total") == before.of("gradwire_requests_total") + 49 * 5 + 1
    assert found.labels("gradwire_requests_total", "method") == {"GET", "other"}
    assert "other" in found.labels("gradwire_requests_total", "route")


def test_what_is_refused_before_a_route_is_looked_for_is_counted_under_its_route(app_client: AppClient) -> None:
    client = app_client(url_bytes=50)
    assert client.get("/limits?" + "x" * 50).status_code == 414
    found = scraped(client)
    assert found.of("gradwire_requests_total", route="/limits", status="414") == 1
    assert found.of("gradwire_limits_hit_total", limit="url_bytes") == 1


def test_problems_and_limits_are_counted_by_name(app_client: AppClient) -> None:
    client = app_client()
    refused(client, "/grad", {"expression": "x +", "inputs": {"x": 1}}, "syntax_error")
    for _ in range(2):
        refused(client, "/grad/value", {"expression": "ones([100000, 100000])", "inputs": {}}, "limit_exceeded")
    found = scraped(client)
    assert found.of("gradwire_problems_total", code="syntax_error") == 1
    assert found.of("gradwire_problems_total", code="limit_exceeded") == 2
    assert found.of("gradwire_limits_hit_total", limit="elements") == 2
    assert found.of("gradwire_limits_hit_total") == 2


def test_what_is_over_for_now_is_counted_by_its_limit_too(app_client: AppClient) -> None:
    client = app_client(client_rate=1e-9)
    refused(client, "/grad", BODY | {"timeout": 1e-9}, "deadline_exceeded")
    for _ in range(2):
        refused(client, "/grad", BODY, "rate_limited")
    found = scraped(client)
    assert found.of("gradwire_limits_hit_total", limit="seconds") == 1
    assert found.of("gradwire_limits_hit_total", limit="client_rate") == 2
    assert found.of("gradwire_limits_hit_total") == 3


def test_every_code_and_limit_is_there_before_its_first_time(app_client: AppClient) -> None:
    """What first appears as 1 is no increase to Prometheus, and no alarm."""
    found = scraped(app_client())
    assert found.labels("gradwire_problems_total", "code") == set(CODES)
    assert found.labels("gradwire_limits_hit_total", "limit") == {each["name"] for each in all_limits(Settings())}
    assert found.of("gradwire_problems_total") == found.of("gradwire_limits_hit_total") == 0


def test_every_stage_is_timed(app_client: AppClient) -> None:
    client = app_client()
    ask(client, "/grad", BODY)
    found = scraped(client)
    for stage in STAGES:
        assert found.of("gradwire_stage_seconds_count", stage=stage) == 1
    total = found.of("gradwire_request_seconds_sum", route="/grad")
    assert 0 < found.of("gradwire_stage_seconds_sum") <= total < 10


def test_buckets_add_up(app_client: AppClient) -> None:
    client = app_client()
    for _ in range(5):
        ask(client, "/grad", BODY)
    rising = [
        (float(dict(labels)["le"]), value)
        for (name, labels), value in scraped(client).items()
        if name == "gradwire_request_seconds_bucket" and ("route", "/grad") in labels
    ]
    values = [value for _, value in sorted(rising)]
    assert values == sorted(values)
    assert values[-1] == 5


def test_caches_tell_their_own_counts(app_client: AppClient) -> None:
    client = app_client()
    for _ in range(4):
        ask(client, "/grad", BODY)
    found = scraped(client)
    for cache in ("plans", "programs"):
        assert found.of("gradwire_cache_misses_total", cache=cache) == 1
        assert found.of("gradwire_cache_hits_total", cache=cache) == 3
        assert found.of("gradwire_cache_entries", cache=cache) == 1
        assert found.of("gradwire_cache_bytes", cache=cache) > 100


def test_ops_are_counted_by_the_runs_of_their_plans(app_client: AppClient) -> None:
    client = app_client()
    for _ in range(3):
        ask(client, "/grad/value", {"expression": "sin(x) + cos(sin(x + 1))", "inputs": {"x": 0.5}})
    ask(client, "/grad/value", {"expression": "cos(x)", "inputs": {"x": 0.5}})
    found = scraped(client)
    assert found.of("gradwire_ops_total", op="sin") == 6
    assert found.of("gradwire_ops_total", op="cos") == 4
    assert scraped(client).of("gradwire_ops_total", op="sin") == 6, "asking twice counts nothing twice"


ROADS = {
    "line": {},
    "thread": {"inline_bytes": 0},
    "worker": {"inline_bytes": 0, "thread_bytes": 0},
}


@pytest.mark.parametrize(("road", "settings"), ROADS.items(), ids=ROADS)
def test_every_road_tells_what_was_done_on_it(app_client: AppClient, road: str, settings: dict[str, Any]) -> None:
    client = app_client(processes=1, **settings)
    ask(client, "/grad", BODY)
    found = scraped(client)
    assert found.of("gradwire_computed_total", road=road) == 1
    assert found.of("gradwire_computed_total") == 1
    assert found.of("gradwire_ops_total", op="sin") >= 2
    for stage in STAGES:
        assert found.of("gradwire_stage_seconds_count", stage=stage) == 1
    assert found.of("gradwire_stage_seconds_count", stage="queue") == (road != "line")
    assert found.of("gradwire_running") == found.of("gradwire_queue_length") == found.of("gradwire_flight_bytes") == 0
    workers = int(road == "worker")
    assert found.of("gradwire_workers") == found.of("gradwire_workers_started_total") == workers
    assert (found.of("gradwire_workers_resident_bytes") > 1e6) == bool(workers)


def test_what_runs_and_what_waits_is_seen_meanwhile(tmp_path: Path) -> None:
    """Two tasks for one worker."""
    settings = {"GRADWIRE_PROCESSES": "1", "GRADWIRE_QUEUE_SECONDS": "10"}
    most: Counter[str] = Counter()
    with (
        serving(tmp_path / "log", **settings) as (url, _),
        httpx.Client(base_url=url) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        asked = [pool.submit(httpx.post, f"{url}/grad/value", json=LOOP | {"timeout": 3}, timeout=30) for _ in range(2)]
        while not all(each.done() for each in asked):
            found = scraped(client)
            most["running"] = max(most["running"], int(found.of("gradwire_running", road="worker")))
            most["queue"] = max(most["queue"], int(found.of("gradwire_queue_length")))
            most["bytes"] = max(most["bytes"], int(found.of("gradwire_flight_bytes")))
            time.sleep(0.05)
        found = scraped(client)
    assert {each.result().status_code for each in asked} == {504}
    assert (most["running"], most["queue"]) == (1, 1)
    assert most["bytes"] > 1e6
    assert found.of("gradwire_running") == found.of("gradwire_queue_length") == found.of("gradwire_flight_bytes") == 0
    assert found.of("gradwire_stage_seconds_sum", stage="queue") > 1


def test_runs_of_many_different_plans_take_no_more_room() -> None:
    figures = Figures()
    for number in range(3 * MOST_PLANS):
        figures.ran((("sin", 1), ("cos", number)))
    counted = {labels: number for name, labels, number in figures.samples() if name == "gradwire_ops_total"}
    assert counted[("sin",)] == 3 * MOST_PLANS
    assert counted[("cos",)] == sum(range(3 * MOST_PLANS))
    assert len(figures._runs) <= MOST_PLANS


def test_bodies_are_measured(app_client: AppClient) -> None:
    client = app_client()
    response = post(client, "/grad", BODY)
    found = scraped(client)
    assert found.of("gradwire_received_bytes_total") == len(response.request.content)
    assert found.of("gradwire_sent_bytes_total") == len(response.content)


def test_the_table_and_what_is_shown_are_the_same(app_client: AppClient) -> None:
    """Each metric of the table is there with its meaning, and nothing else is."""
    client = app_client()
    refused(client, "/grad/value", {"expression": "ones([100000, 100000])", "inputs": {}}, "limit_exceeded")
    ask(client, "/grad", BODY)
    families = {each.name: each for each in text_string_to_metric_families(client.get("/metrics").text)}
    named = {metric.name.removesuffix("_total"): metric for metric in METRICS}
    assert families.keys() == named.keys()
    for name, family in families.items():
        assert (family.type, family.documentation) == (named[name].kind, named[name].doc)
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(named[name].labels)


def test_openmetrics_is_spoken_to_who_asks_for_it(app_client: AppClient) -> None:
    client = app_client()
    ask(client, "/grad", BODY)
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    response = client.get("/metrics", headers=asked)
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert {each.name for each in strict_families(response.text)} >= {"gradwire_requests", "gradwire_stage_seconds"}


def test_two_applications_count_apart(app_client: AppClient) -> None:
    one, other = app_client(), app_client()
    ask(one, "/grad", BODY)
    assert scraped(one).of("gradwire_requests_total", route="/grad") == 1
    assert scraped(other).of("gradwire_requests_total", route="/grad") == 0


def test_whoever_counts_for_himself_is_read_when_somebody_asks() -> None:
    figures = Figures()
    queue: list[int] = []
    figures.observe({"gradwire_queue_length": lambda: len(queue)})
    figures.observe({"gradwire_running": lambda: 7}, "thread")
    queue += [1, 2]
    found = merged([figures.samples()])
    assert found["gradwire_queue_length"] == {(): 2}
    assert found["gradwire_running"] == {("thread",): 7}


def test_what_is_not_in_the_table_is_not_observed() -> None:
    with pytest.raises(KeyError):
        Figures().observe({"gradwire_moods": lambda: 1})
    with pytest.raises(ValueError, match="road"):
        Figures().observe({"gradwire_running": lambda: 1})


@pytest.fixture(scope="module")
def ended() -> int:
    """A process that is no more."""
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    return int(done.stdout)


@pytest.fixture
def neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the figures of processes that share a directory; `pid` is what each takes itself for."""

    def make(pid: int) -> Shared:
        monkeypatch.setattr("app.services.sharing.os.getpid", lambda: pid)
        figures = Figures()
        figures.observe_caches(plans=Cache(10))
        shared = Shared(figures, tmp_path)
        shared.open(tmp_path)
        return shared

    return make


def requests(shared: Shared) -> Any:
    return shared.all()["gradwire_requests_total"].get(("/grad", "POST", "200"))


def test_processes_add_up(neighbours: Any) -> None:
    one, other = neighbours(os.getpid()), neighbours(os.getppid())
    for shared, count in ((one, 2), (other, 3)):
        for _ in range(count):
            shared.figures.add("gradwire_requests_total", ("/grad", "POST", "200"))
            shared.figures.time("gradwire_request_seconds", {"/grad": 0.25})
        shared.write()
    assert requests(one) == requests(other) == 5
    times = one.all()["gradwire_request_seconds"][("/grad",)]
    assert times[-1] == 1.25
    assert sum(times[:-1]) == 5
    assert one.all()["gradwire_processes"] == {(): 2}
    assert set(one.all()["gradwire_build_info"].values()) == {1}


def test_a_process_goes_on_from_the_counts_of_one_that_ended(neighbours: Any, ended: int, tmp_path: Path) -> None:
    lost = neighbours(ended)
    lost.figures.add("gradwire_requests_total", ("/grad", "POST", "200"), 4)
    lost.write()
    one = neighbours(os.getpid())
    one.figures.add("gradwire_requests_total", ("/grad", "POST", "200"))
    assert requests(one) == 5
    assert one.all()["gradwire_processes"] == {(): 1}, "what the other was busy with has ended with it"
    one.write()
    assert requests(neighbours(os.getppid())) == 5, "its counts are taken over once"
    assert len(list(tmp_path.iterdir())) == 1


def test_counts_of_a_process_that_ended_last_until_they_are_taken_over(neighbours: Any, ended: int) -> None:
    here = neighbours(os.getpid())
    lost = neighbours(ended)
    lost.figures.add("gradwire_requests_total", ("/grad", "POST", "200"), 4)
    lost.write()
    assert requests(here) == 4
    assert here.all()["gradwire_processes"] == {(): 1}


def test_a_full_disk_stops_nothing(neighbours: Any, tmp_path: Path) -> None:
    here = neighbours(os.getpid())
    tmp_path.joinpath(f"{os.getpid()}.new").mkdir()
    here.write()
    assert here.all()["gradwire_processes"] == {(): 1}


def children(pid: int) -> list[int]:
    """Processes that serve for this one: the last of its children."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(url: str, wanted: float) -> Scraped:
    """The figures once so many gradients are counted, by two processes, or when it is too late for that."""
    end = time.monotonic() + 10 * SHARING_SECONDS
    while True:
        with httpx.Client(base_url=url) as client:
            found = scraped(client)
        are_there = found.of("gradwire_requests_total", route="/grad") == wanted and found.of("gradwire_processes") == 2
        if are_there or time.monotonic() > end:
            return found
        time.sleep(0.1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes in /proc")
def test_several_processes_tell_of_all_and_lose_no_count(tmp_path: Path) -> None:
    """Whoever is asked; and when one of them is killed, its counts live on."""
    with serving(tmp_path / "log", GRADWIRE_WORKERS="2") as (url, process):
        alone = {"Connection": "close"}
        for _ in range(12):
            assert httpx.post(f"{url}/grad", json=BODY, headers=alone).status_code == 200
        found = until(url, 12)
        assert found.of("gradwire_requests_total", route="/grad") == 12
        assert found.of("gradwire_request_seconds_count", route="/grad") == 12
        assert found.of("gradwire_processes") == 2
        time.sleep(SHARING_SECONDS * 1.2)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        for _ in range(5):
            with httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=3)) as client:
                counted = scraped(client).of("gradwire_requests_total", route="/grad")
            assert counted == 12
            time.sleep(0.2)


def test_clients_that_go_away_are_no_failures_of_ours(tmp_path: Path) -> None:
    """In the middle of a body, and while a worker computes."""
    with serving(tmp_path / "log") as (url, _), httpx.Client(base_url=url) as client:
        host, port = url.removeprefix("http://").split(":")
        body = json.dumps(LOOP | {"timeout": 3}).encode()
        head = b"POST /grad/value HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        for sent, seconds in ((head + body[:10], 0.0), (head + body, 1.0)):
            with socket.create_connection((host, int(port))) as it:
                it.sendall(sent)
                time.sleep(seconds)
        end = time.monotonic() + 10
        while (gone := scraped(client).of("gradwire_requests_total", status="499")) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        found = scraped(client)
    assert gone == 2
    assert found.of("gradwire_problems_total") == 0
    assert found.of("gradwire_requests_in_progress") == 1


def test_every_name_of_the_table_is_one_that_prometheus_takes() -> None:
    assert len(BY_NAME) == len(METRICS)
    for metric in METRICS:
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert (metric.kind == HISTOGRAM) <= metric.name.endswith("_seconds")
        assert not metric.doc.endswith(".")
