"""The wire itself, over raw sockets: slow clients, endless ones, those that speak no HTTP, and too many of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import orjson
import pytest

from app.http.protocol import Protocol
from app.settings import Settings
from tests.app.figures import scraped
from tests.app.sockets import BODY, LATE, connected, one, parsed, posted, rest
from tests.app.support import problem
from tests.conftest import serving
from tests.support.service import until

HEADER_SECONDS, BODY_SECONDS = 0.6, 0.9
LARGE = orjson.dumps({"expression": "zeros([2000000]) + x", "inputs": {"x": 0.123456789}})


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with little patience."""
    with serving(
        tmp_path_factory.mktemp("hasty") / "log",
        GRADWIRE_HEADER_SECONDS=str(HEADER_SECONDS),
        GRADWIRE_BODY_SECONDS=str(BODY_SECONDS),
        GRADWIRE_KEEP_ALIVE_SECONDS="1",
        GRADWIRE_FRAMING_BYTES="20000",
        GRADWIRE_CONNECTIONS="20",
        GRADWIRE_STORE="memory",
    ) as (address, process):
        yield address
        assert process.poll() is None
        log = (tmp_path_factory.getbasetemp() / "hasty0" / "log").read_text()
        assert "Traceback" not in log and "ERROR" not in log, log[-3000:]


def refusal(connection: socket.socket, status: int, limit: str | None = None) -> dict[str, Any]:
    """The problem that is the last word on a connection."""
    response = parsed(rest(connection))
    found = problem(response)
    assert found["status"] == status, found
    assert response.headers["connection"] == "close"
    assert (found["limit"]["name"] if limit else found["code"]) == (limit or "invalid_request")
    return found


# Time


@pytest.mark.parametrize("part", [b"P", b"POST /grad HTTP/1.1\r\nHos", b"GET /healthz HTTP/1.1\r\nHost: x\r\n"])
def test_headers_that_do_not_end_are_waited_for_so_long(hasty: str, part: bytes) -> None:
    with connected(hasty) as connection:
        start = time.monotonic()
        connection.sendall(part)
        found = refusal(connection, 408, "header_seconds")
        assert HEADER_SECONDS <= time.monotonic() - start < LATE
        assert found["limit"]["max"] == HEADER_SECONDS


def test_headers_that_drip_in_have_no_longer(hasty: str) -> None:
    with connected(hasty) as connection:
        start = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        connection.settimeout(0.05)
        raw = b""
        while not raw and time.monotonic() - start < LATE:
            connection.sendall(b"a: b\r\n")
            try:
                raw = connection.recv(1 << 16)
            except TimeoutError:
                continue
        assert problem(parsed(raw))["status"] == 408
        assert HEADER_SECONDS <= time.monotonic() - start < LATE


@pytest.mark.parametrize("part", [b"", b"\r\n"])
def test_a_connection_that_says_nothing_is_closed_without_a_word(hasty: str, part: bytes) -> None:
    with connected(hasty) as connection:
        connection.sendall(part)
        assert rest(connection) == b""


@pytest.mark.parametrize(
    "request_",
    [
        posted(length=len(BODY) + 1),
        posted(b"", length=9),
        b"POST /grad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"POST /grad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        posted(b"", length=9, path=b"/grad/hessian?x=1"),
    ],
)
def test_bodies_that_do_not_end_are_waited_for_so_long(hasty: str, request_: bytes) -> None:
    with connected(hasty) as connection:
        start = time.monotonic()
        connection.sendall(request_)
        found = refusal(connection, 408, "body_seconds")
        assert BODY_SECONDS <= time.monotonic() - start < LATE
        assert found["instance"] == request_.split()[1].decode().partition("?")[0]


def test_what_comes_slowly_and_in_time_is_answered(hasty: str) -> None:
    with connected(hasty) as connection:
        for byte in posted():
            connection.sendall(bytes([byte]))
            time.sleep(0.2 / len(posted()))
        assert one(connection).json()["gradients"]["x"]["data"] == 6


def test_the_time_is_each_requests_own(hasty: str) -> None:
    """On one connection, for longer than any one request may take."""
    start = time.monotonic()
    with connected(hasty) as connection:
        while time.monotonic() - start < 2 * BODY_SECONDS:
            connection.sendall(posted()[:-10])
            time.sleep(BODY_SECONDS / 3)
            connection.sendall(posted()[-10:])
            assert one(connection).status_code == 200


def test_an_idle_connection_is_closed_after_its_time(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(posted())
        assert one(connection).status_code == 200
        start = time.monotonic()
        assert rest(connection) == b""
        assert 0.5 < time.monotonic() - start < LATE


def test_an_idle_connection_is_not_kept_open_by_empty_lines(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(posted())
        assert one(connection).status_code == 200
        connection.sendall(b"\r\n")
        assert rest(connection) == b""


def test_a_client_that_takes_nothing_of_its_answer_is_dropped(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(posted(LARGE, path=b"/grad/value"))
        time.sleep(3 * BODY_SECONDS)
        got = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                got += len(part)
        assert got < 20_000_000  # what the system had in its own buffers


# Size


def test_a_client_that_takes_next_to_nothing_of_its_answer_is_dropped(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(posted(LARGE, path=b"/grad/value"))
        for _ in range(40):
            time.sleep(BODY_SECONDS / 10)
            connection.recv(40)
        got = 0
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 20):
                got += len(part)
        assert got < 20_000_000  # what the system had in its own buffers


@pytest.mark.parametrize(
    ("pace", "taken", "is_kept"), [(500, 999, False), (500, 1000, True), (500, 1001, True), (0, 0, False), (0, 1, True)]
)
def test_a_slow_one_is_not(monkeypatch: pytest.MonkeyPatch, pace: int, taken: int, is_kept: bool) -> None:
    monkeypatch.setattr(Protocol, "_untaken", lambda self: 1_000_000 - taken)
    monkeypatch.setattr(Protocol, "_wait_for_reader", waits := Mock())
    protocol: Any = object.__new__(Protocol)
    protocol.settings, protocol.transport = Settings(body_seconds=2, answer_pace=pace), Mock(is_closing=lambda: False)
    protocol._drop_if_stalled(1_000_000)
    assert (waits.called, protocol.transport.abort.called) == (is_kept, not is_kept)


def test_what_clients_have_not_taken_counts_as_memory(tmp_path: Path) -> None:
    """Else many who take nothing could have the service hold an answer for each."""
    with serving(tmp_path / "log", GRADWIRE_MEMORY_BYTES=str(30 << 20)) as (address, _), ExitStack() as stack:
        client = stack.enter_context(httpx.Client(base_url=address))
        with connected(address) as idle:  # some 24 MB come
            idle.sendall(posted(LARGE, path=b"/grad/value"))
            assert idle.recv(1)
            refused = problem(client.post("/grad/value", content=LARGE))
            assert (refused["code"], refused["limit"]["name"]) == ("overloaded", "memory_bytes")
            assert scraped(client).of("gradwire_flight_bytes") > 15 << 20
        until(lambda: scraped(client).of("gradwire_flight_bytes") == 0, LATE, "what nobody waits for is let go")
        assert client.post("/grad/value", content=LARGE).status_code == 200


def test_a_body_in_tiny_chunks_is_given_up(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"POST /grad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(100):
                connection.sendall(b"1\r\n \r\n" * 1000)
                time.sleep(0.002)
        except (BrokenPipeError, ConnectionResetError):
            pass
        refusal(connection, 413, "framing_bytes")


@pytest.mark.parametrize("endless", [b"2;" + b"a" * 5000, b"0\r\na: " + b"b" * 5000])
def test_what_stands_around_chunks_has_an_end(hasty: str, endless: bytes) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"POST /grad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + endless)
        for _ in range(20):
            time.sleep(0.01)
            connection.sendall(b"c" * 5000)
        refusal(connection, 413, "framing_bytes")


def test_chunks_of_common_sizes_are_read(hasty: str) -> None:
    text = b'{"expression": "sum(x)", "inputs": {"x": [' + b"0.5, " * 40_000 + b"1]}}"
    with connected(hasty) as connection:
        connection.sendall(b"POST /grad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(text), 1000):
            part = text[start : start + 1000]
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        connection.sendall(b"0\r\nContent-Type: text/plain\r\n\r\n")
        assert one(connection).json()["values"]["out"]["data"] == 20_001


@pytest.mark.parametrize(
    ("head", "status", "limit"),
    [
        (b"GET /" + b"a" * 9000, 414, "url_bytes"),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000, 431, "header_bytes"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 6000, 431, "header_bytes"),
    ],
)
def test_a_head_without_end_is_given_up(hasty: str, head: bytes, status: int, limit: str) -> None:
    with connected(hasty) as connection:
        for start in range(0, len(head), 4000):
            connection.sendall(head[start : start + 4000])
        refusal(connection, status, limit)


@pytest.mark.parametrize(("count", "status"), [(99, 200), (100, 431)])
def test_headers_are_counted(hasty: str, count: int, status: int) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * count + b"\r\n")
        assert one(connection).status_code == status


# No HTTP

HEAD = b"GET /healthz HTTP/1.1\r\n"
NOT_HTTP = {
    "words": b"hello there\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n",
    "a length and chunks": b"POST /grad HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST /grad HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a negative length": b"POST /grad HTTP/1.1\r\nContent-Length: -2\r\n\r\n{}",
    "a length in words": b"POST /grad HTTP/1.1\r\nContent-Length: two\r\n\r\n{}",
    "an endless length": b"POST /grad HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n{}",
    "chunks that are not the last coding": b"POST /grad HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
    "a coding that nobody knows": b"POST /grad HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a negative chunk": b"POST /grad HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than its size": b"POST /grad HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "a tunnel": b"CONNECT example:443 HTTP/1.1\r\nHost: example\r\n\r\n",
    "a URL that is none": b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a URL that is not ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "two codings": b"POST /grad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two headers with codings": b"POST /grad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "another version": b"GET /healthz HTTP/2.0\r\nHost: x\r\n\r\n",
    "no host": HEAD + b"Accept: */*\r\n\r\n",
    "two hosts": HEAD + b"Host: x\r\nHost: x\r\n\r\n",
    "a host with a path": HEAD + b"Host: x/y\r\n\r\n",
    "a host with a user": HEAD + b"Host: me@x\r\n\r\n",
    "a host with a space": HEAD + b"Host: x y\r\n\r\n",
    "an upgrade with a body": posted(more=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
}


@pytest.mark.parametrize("sent", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_no_http_is_told_so_in_problem_details(hasty: str, sent: bytes) -> None:
    with connected(hasty) as connection:
        connection.sendall(sent)
        refusal(connection, 400)


@pytest.mark.parametrize("version", [b"HTTP/1.1\r\nHost: %s", b"HTTP/1.0\r\nHost: %s"])
@pytest.mark.parametrize(
    "host", [b"x", b"x:80", b"X.example:8000", b"[::1]:8000", b"127.0.0.1", b"a_b-c.d", b"x:", b""]
)
def test_hosts_are_names_and_addresses(hasty: str, version: bytes, host: bytes) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"GET /healthz " + version % host + b"\r\nConnection: keep-alive\r\n\r\n")
        assert one(connection).status_code == 200


def test_old_clients_need_not_name_the_host(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert parsed(rest(connection)).status_code == 200


def test_what_follows_a_request_and_is_no_http_does_not_spoil_its_answer(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(posted() + b"nonsense\r\n\r\n")
        response = parsed(rest(connection))
        assert response.status_code == 200
        assert response.json()["gradients"]["x"]["data"] == 6


def test_an_upgrade_is_passed_over(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert parsed(rest(connection)).status_code == 200


def test_requests_in_a_row_are_answered_in_a_row(hasty: str) -> None:
    bodies = [orjson.dumps({"expression": "x**2", "inputs": {"x": x}}) for x in range(20)]
    with connected(hasty) as connection:
        connection.sendall(b"".join(posted(body) for body in bodies[:-1]))
        connection.sendall(posted(bodies[-1], more=b"Connection: close\r\n"))
        answers = rest(connection).split(b"HTTP/1.1 ")[1:]
        assert [orjson.loads(each.partition(b"\r\n\r\n")[2])["gradients"]["x"]["data"] for each in answers] == [
            2 * x for x in range(20)
        ]


def test_the_client_may_wait_to_be_told_to_go_on(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(posted(b"", length=len(BODY), more=b"Expect: 100-continue\r\n"))
        assert connection.recv(1 << 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert one(connection).json()["gradients"]["x"]["data"] == 6


def test_the_client_is_spared_a_body_that_would_be_refused(hasty: str) -> None:
    with connected(hasty) as connection:
        connection.sendall(posted(b"", length=1 << 40, more=b"Expect: 100-continue\r\n"))
        found = problem(one(connection))
        assert (found["status"], found["limit"]["actual"]) == (413, 1 << 40)


def test_a_body_that_nobody_wants_any_more_is_not_taken_for_ever(hasty: str) -> None:
    """The refusal came at once; what goes on coming has the time of a body, and no answer of its own."""
    with connected(hasty) as connection:
        connection.sendall(posted(b"{", length=1 << 40))
        assert problem(one(connection))["status"] == 413
        start = time.monotonic()
        assert rest(connection) == b""
        assert BODY_SECONDS / 2 < time.monotonic() - start < LATE


# Connections


def test_idle_connections_make_room(hasty: str) -> None:
    """Nobody who only holds connections open keeps others out; and a probe is answered at any time."""
    with ExitStack() as open_ones:
        for _ in range(100):
            open_ones.enter_context(connected(hasty)).sendall(b"G")
        for _ in range(5):
            with connected(hasty) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert parsed(rest(connection)).status_code == 200
        with connected(hasty) as connection:
            connection.sendall(posted())
            response = parsed(rest(connection))
            found = problem(response)
            assert (found["code"], found["limit"]["name"], found["limit"]["max"]) == ("overloaded", "connections", 20)
            assert response.headers["retry-after"].isdecimal()
    deadline = time.monotonic() + LATE
    while httpx.post(f"{hasty}/grad", content=BODY).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with httpx.Client(base_url=hasty) as client:
        assert scraped(client).of("gradwire_limits_hit_total", limit="connections") >= 1
