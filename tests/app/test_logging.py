"""The log: one line a request, with its ids, its times and nothing of its values; and it never holds anybody up."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.http.watching import MOST_PATH, Watching
from app.logs import MOST_LINES, PATIENCE_SECONDS, Log, Records, as_json, as_text
from app.main import create_app
from app.services.answers import Answers
from app.services.figures import Figures
from app.settings import Settings
from tests.app.figures import scraped
from tests.app.support import ask, post, problem, refused
from tests.conftest import InProcess, serving

BODY: dict[str, Any] = {"expression": "y = x * 31337.25", "inputs": {"x": 271828.1875}}
ALWAYS = {
    "time", "level", "message", "method", "path", "route", "status", "request_id", "client", "bytes_in", "bytes_out",
    "ms",
}  # fmt: skip
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NEW_ID = re.compile("[0-9a-f]{32}")

Lines = Callable[[], list[dict[str, Any]]]


class Kept:
    """A log that is kept in a file, and the applications that write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._clients: list[httpx.Client] = []
        self._logs: list[Log] = []

    def client(self, form: str = "json", level: str = "info", **settings: Any) -> httpx.Client:
        self.log = Log(form, level, self._descriptor)
        self._logs.append(self.log)
        app = create_app(Settings(**{"store": "memory"} | settings), log=self.log)
        self._clients.append(httpx.Client(transport=InProcess(app), base_url="http://in-process"))
        return self._clients[-1]

    def text(self) -> str:
        self.log.flush()
        return self.path.read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for log in self._logs:
            log.flush()
        os.close(self._descriptor)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    it = Kept(tmp_path / "log")
    yield it
    it.close()


def test_a_request_leaves_one_line(kept: Kept) -> None:
    client = kept.client()
    response = post(client, "/grad", BODY)
    (line,) = kept.lines()
    assert line.keys() == ALWAYS | {"plan_hit", "road"}
    assert line["road"] == "line"
    assert (line["level"], line["message"]) == ("info", "request")
    assert (line["method"], line["path"], line["route"], line["status"]) == ("POST", "/grad", "/grad", 200)
    assert (line["bytes_in"], line["bytes_out"]) == (len(response.request.content), len(response.content))
    assert line["ms"].keys() == {"total", "read", "parse", "compile", "run", "encode"}
    stages = sum(spent for stage, spent in line["ms"].items() if stage != "total")
    assert 0 < stages <= line["ms"]["total"] < 10_000
    assert line["plan_hit"] is False


def test_times_are_utc_in_the_form_of_rfc_3339(kept: Kept) -> None:
    kept.client().get("/healthz")
    (line,) = kept.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
    assert abs(datetime.fromisoformat(line["time"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_known_plan_is_told_from_a_new_one(kept: Kept) -> None:
    client = kept.client()
    for _ in range(2):
        ask(client, "/grad", BODY)
    assert [line["plan_hit"] for line in kept.lines()] == [False, True]


PROBLEMS = {
    "invalid_json": ("POST", "/grad", b"{", 400),
    "syntax_error": ("POST", "/grad", b'{"expression": "x +", "inputs": {"x": 1}}', 422),
    "not_found": ("GET", "/nowhere", b"", 404),
    "unknown_graph": ("GET", f"/graphs/{'0' * 32}", b"", 404),
    "method_not_allowed": ("PUT", "/grad", b"", 405),
    "limit_exceeded": ("GET", "/" + "x" * 9000, b"", 414),
}


@pytest.mark.parametrize(("code", "asked"), PROBLEMS.items(), ids=PROBLEMS)
def test_problems_leave_their_code_and_have_the_id_too(kept: Kept, code: str, asked: tuple[Any, ...]) -> None:
    method, path, body, status = asked
    response = kept.client().request(method, path, content=body, headers={"X-Request-ID": "mine-1"})
    assert problem(response)["code"] == code
    (line,) = kept.lines()
    assert (line["code"], line["status"], line["request_id"]) == (code, status, "mine-1")
    assert response.headers.get_list("x-request-id") == ["mine-1"]


KEPT_IDS = ["a", "0" * 128, "!~#$%&'*+-.^_`|{}\"\\", "c0ffee00-0000-4000-8000-000000000000"]
NEW_IDS = ["", "0" * 129, "two words", "tab\there", "caf\xe9", "\x7f"]


@pytest.mark.parametrize("id", KEPT_IDS)
def test_a_clients_id_is_kept(kept: Kept, id: str) -> None:
    response = kept.client().get("/healthz", headers={"X-Request-ID": id})
    assert response.headers["x-request-id"] == id
    assert kept.lines()[0]["request_id"] == id


@pytest.mark.parametrize("id", NEW_IDS)
def test_what_can_be_no_id_is_replaced(kept: Kept, id: str) -> None:
    response = kept.client().get("/healthz", headers={"X-Request-ID": id.encode("latin-1")})  # type: ignore[dict-item]
    assert NEW_ID.fullmatch(response.headers["x-request-id"])
    assert kept.lines()[0]["request_id"] == response.headers["x-request-id"]


def test_new_ids_differ(kept: Kept) -> None:
    client, other = kept.client(), kept.client()
    ids = {each.get("/healthz").headers["x-request-id"] for each in (client, other) for _ in range(50)}
    assert len(ids) == 100


TAKEN = [
    f"00-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-00",
    f"01-{TRACE}-{SPAN}-01-what-is-to-come",
    f"fe-{TRACE}-{SPAN}-ff",
]
MALFORMED = [
    "",
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE}-{SPAN}-01-more",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE[1:]}-{SPAN}-01",
    f"00_{TRACE}_{SPAN}_01",
    f"0-{TRACE}-{SPAN}-01",
]


@pytest.mark.parametrize("parent", TAKEN)
def test_the_callers_trace_is_taken(kept: Kept, parent: str) -> None:
    kept.client().get("/healthz", headers={"traceparent": parent})
    (line,) = kept.lines()
    assert (line["trace_id"], line["span_id"]) == (TRACE, SPAN)


@pytest.mark.parametrize("parent", MALFORMED)
def test_a_malformed_trace_is_as_if_it_were_not_there(kept: Kept, parent: str) -> None:
    assert kept.client().get("/healthz", headers={"traceparent": parent}).status_code == 200
    (line,) = kept.lines()
    assert line.keys() == ALWAYS


def test_nothing_of_the_values_is_logged(kept: Kept) -> None:
    client = kept.client()
    ask(client, "/grad", {"expression": "secretive = x * 31337.25", "inputs": {"x": 271828.1875}})
    refused(client, "/grad", {"expression": "secretive = x *", "inputs": {"x": 271828.1875}}, "syntax_error")
    refused(client, "/grad", {"expression": "x", "inputs": {"x": "secretive"}}, "invalid_tensor")
    assert client.get("/grad", params={"expr": "secretive*31337.25", "secretive": "271828.1875"}).status_code == 200
    client.post("/graphs", json={"expression": "secretive = x * 31337.25", "name": "secretive"})
    text = kept.text()
    assert len(text.splitlines()) == 5
    for secret in ("secretive", "31337", "271828"):
        assert secret not in text


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_path_can_neither_break_a_line_nor_fill_the_log(kept: Kept, form: str) -> None:
    client = kept.client(form, url_bytes=10_000)
    client.get("/a%0Ab%1B%5B31m%00")
    client.get("/" + "y" * 5000)
    lines = kept.text().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "y" * (MOST_PATH - 1) in lines[1]
    assert "y" * (MOST_PATH + 1) not in lines[1]


class Failed(Exception):
    """What nobody foresaw."""


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, kept: Kept) -> Iterator[httpx.Client]:
    """A service that fails, whose process logs as ours does."""

    async def fail(*_: Any, **__: Any) -> bytes:
        logging.getLogger("gradwire").warning("about to fail\nbadly")
        raise Failed("here")

    monkeypatch.setattr(Answers, "of", fail)
    client = kept.client()
    root = logging.getLogger()
    records = Records(kept.log)
    root.addHandler(records)
    yield client
    root.removeHandler(records)


def test_a_failure_is_found_by_what_its_answer_says(kept: Kept, failing: httpx.Client) -> None:
    response = post(failing, "/grad", BODY, headers={"X-Request-ID": "mine-2"})
    found = problem(response)
    assert found["code"] == "internal"
    # Tests before may have left something for the collector that is logged as it goes.
    _, failed, asked = (line for line in kept.lines() if line.get("request_id") == "mine-2")
    assert response.headers["x-request-id"] == "mine-2"
    assert found["instance"].removeprefix("urn:uuid:") in failed["message"]
    assert "Failed: here" in failed["exception"]
    assert (asked["level"], asked["status"], asked["code"]) == ("error", 500, "internal")
    assert "Failed" not in response.text


@pytest.mark.parametrize("code", ["internal", None])
def test_a_server_is_told_of_a_failure_only_if_nobody_answered_it(code: str | None) -> None:
    """It would log it a second time."""

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        scope["gradwire.seen"].code = code
        raise Failed

    scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "headers": []}
    answering = Watching(Figures(), []).watch(fail, scope, None, None)  # type: ignore[arg-type]
    with nullcontext() if code else pytest.raises(Failed):
        asyncio.run(answering)


def test_the_client_behind_a_key_is_named(tmp_path: Path) -> None:
    class Key:
        name = "ada"

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        scope["gradwire.client"] = Key
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    out = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = Log(descriptor=out)
    with httpx.Client(
        transport=InProcess(partial(Watching(Figures(), [], log).watch, answers)), base_url="http://x"
    ) as client:
        assert client.get("/").status_code == 204
    log.flush()
    os.close(out)
    assert json.loads((tmp_path / "log").read_text())["client"] == "ada"


def test_a_higher_level_leaves_what_fails(kept: Kept, failing: httpx.Client) -> None:
    client = kept.client(level="error")
    client.get("/healthz")
    post(client, "/grad", BODY)
    assert [line["status"] for line in kept.lines() if line["message"] == "request"] == [500]


def test_requests_need_not_be_logged(kept: Kept) -> None:
    response = kept.client(log_requests=False).get("/healthz")
    assert "x-request-id" in response.headers
    assert kept.text() == ""


def test_text_has_what_json_has(kept: Kept) -> None:
    client = kept.client("text")
    client.get("/healthz", headers={"X-Request-ID": "mine-3"})
    text = kept.text()
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ info    request method=GET path=/healthz ", text)
    assert all(f"{name}=" in text for name in ALWAYS - {"time", "level", "message"})
    assert text.count("\n") == 1


def test_a_message_cannot_break_a_line_of_text() -> None:
    fields = {"time": datetime.now(UTC), "level": "info", "message": "one\ntwo\x1b[0m", "logger": "a\rb"}
    assert as_text(fields).count(b"\n") == 1
    assert as_text(fields)[:-1].decode().isprintable()
    assert as_json(fields).count(b"\n") == 1


@pytest.mark.parametrize("form", [as_json, as_text])
def test_half_a_character_is_logged_somehow(form: Callable[[Any], bytes]) -> None:
    assert b"d83d" in form({"time": datetime.now(UTC), "level": "info", "message": "\ud83d", "more": object()})


def test_nobody_waits_for_a_reader_that_has_stopped() -> None:
    reading, writing = os.pipe()
    log = Log(descriptor=writing)
    records = Records(log)
    line = {"time": datetime.now(UTC), "level": "info", "message": "x" * 100}
    try:
        start = time.perf_counter()
        for _ in range(3 * MOST_LINES):
            log.put(line)
        assert time.perf_counter() - start < 5
        assert MOST_LINES < log.dropped < 3 * MOST_LINES
        start = time.perf_counter()
        records.emit(logging.makeLogRecord({"msg": "the last word", "levelname": "ERROR"}))
        assert time.perf_counter() - start < PATIENCE_SECONDS + 5
    finally:
        os.close(reading)
    log.flush()
    os.close(writing)


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    log = Log(descriptor=writing)
    for count in (1, 2):
        log.put({"time": datetime.now(UTC), "level": "info", "message": "lost"})
        log.flush()
        assert log.dropped == count
    os.close(writing)


def conversation(url: str, sent: bytes) -> str:
    """All that a server answers to some bytes, until it closes the connection."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as it:
        it.sendall(sent)
        return b"".join(iter(partial(it.recv, 1 << 16), b"")).decode()


def test_what_never_reaches_the_application_is_seen_too(tmp_path: Path) -> None:
    """What is no HTTP, and a body that does not come: each has an id, a line, and is counted once."""
    settings = {"GRADWIRE_LOG_FORMAT": "json", "GRADWIRE_BODY_SECONDS": "0.5"}
    with serving(tmp_path / "log", **settings) as (url, _), httpx.Client(base_url=url) as client:
        garbage = conversation(url, b"what is\r\n\r\n")
        head = b"POST /grad HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine-5\r\nContent-Length: 10\r\n\r\n{"
        late = conversation(url, head)
        found = scraped(client)
    assert garbage.startswith("HTTP/1.1 400 ")
    assert late.startswith("HTTP/1.1 408 ")
    assert "x-request-id: mine-5\r\n" in late.lower()
    assert found.of("gradwire_requests_total", route="other", method="other", status="400") == 1
    assert found.of("gradwire_requests_total", route="/grad", method="POST", status="408") == 1
    assert found.of("gradwire_requests_total", route="/grad") == 1
    assert found.of("gradwire_limits_hit_total", limit="body_seconds") == 1
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    lines = {line["status"]: line for line in said if "status" in line}
    assert f"x-request-id: {lines[400]['request_id']}\r\n" in garbage.lower()
    assert (lines[408]["request_id"], lines[408]["code"]) == ("mine-5", "limit_exceeded")


def test_a_body_that_breaks_off_where_it_begins_is_one_request(tmp_path: Path) -> None:
    """Head and fault come at once: the application has not begun yet, and finds what was said."""
    with serving(tmp_path / "log", GRADWIRE_LOG_FORMAT="json") as (url, _), httpx.Client(base_url=url) as client:
        head = b"POST /grad HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine-6\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = conversation(url, head + b"no size\r\n")
        found = scraped(client)
    assert answer.startswith("HTTP/1.1 400 ") and "x-request-id: mine-6\r\n" in answer.lower()
    assert found.of("gradwire_requests_total", route="/grad") == 1
    assert found.of("gradwire_requests_total", status="400") == 1
    assert found.of("gradwire_requests_total", status="499") == 0
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["code"] for line in said if line.get("request_id") == "mine-6"] == ["invalid_request"]


def test_the_server_logs_in_the_same_form(tmp_path: Path) -> None:
    with serving(tmp_path / "log", GRADWIRE_LOG_FORMAT="json") as (url, _):
        assert httpx.get(f"{url}/limits", headers={"X-Request-ID": "mine-4"}).status_code == 200
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["request_id"] for line in lines if line.get("route") == "/limits"] == ["mine-4"]
    said = [line["message"] for line in lines if line.get("logger") == "uvicorn.error"]
    assert any("Uvicorn running on" in each for each in said)
    assert "Finished server process" in lines[-1]["message"], "the last line is not lost"
