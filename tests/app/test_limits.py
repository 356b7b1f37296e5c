"""Every limit: one below it and at it a request passes, one above it is refused by its name, and in little memory.

A row is a limit, its setting, and a request for so many of what it counts. A test holds the rows against the limits
there are.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest

from app.http.problems import respond
from app.problems import Problem, from_engine
from app.services import admission, deadline
from app.services.deadline import Clock
from app.services.limits import OWN, settled
from app.services.machine import memory
from app.services.tasks import Client, Road
from app.settings import Settings
from engine.errors import EngineError
from engine.limits import Limits
from tests.app.desk import Desk
from tests.app.sockets import BODY, LATE, connected, one, posted
from tests.app.support import ask, graph, node, post, problem
from tests.conftest import AppClient
from tests.support.asking import compiled_question
from tests.support.memory import measured
from tests.support.service import Service, until

X = {"inputs": {"x": 2}}
LISTENING = "0A"
"""What Linux calls the state of a socket that others connect to."""


class Bound(NamedTuple):
    """A limit's name and setting, and the request for `n`; `step` is what one more of it is at the least."""

    name: str
    maximum: float
    request: Callable[[int], dict[str, Any]]
    path: str = "/grad/value"
    at: int | None = None
    """The `n` that takes all of the maximum, where that is not the maximum itself."""
    step: int = 1

    @property
    def last(self) -> int:
        return int(self.maximum) if self.at is None else self.at


def text(template: str, **more: Any) -> Callable[[int], dict[str, Any]]:
    """An expression in which N stands for the number."""
    return lambda n: {"expression": template.replace("N", str(n)), **more}


def chain(length: int) -> dict[str, Any]:
    return {"graph": graph(*(node(f"n{i}", "sin", f"n{i - 1}") for i in range(length))), "inputs": {"n-1": 1}}


def several(count: int) -> dict[str, Any]:
    return {"expression": "x", "inputs": {"x": 1} | {f"y{i}": 1 for i in range(count - 1)}}


def outputs(count: int) -> dict[str, Any]:
    names = [f"n{i}" for i in range(count)]
    return {"graph": graph(*(node(name, "sin", 1) for name in names), outputs=names)}


def functions(count: int) -> dict[str, Any]:
    return {"expression": "\n".join([*(f"f{i}(x) = x" for i in range(count)), "1"])}


def nested_functions(depth: int) -> dict[str, Any]:
    """Functions each of which calls the one before."""
    lines = [f"f{i}(x) = {f'f{i - 1}(x)' if i else 'x'}" for i in range(depth)]
    return {"expression": "\n".join([*lines, f"f{depth - 1}(1)"])}


def with_inputs(expression: str, shape: Callable[[int], Any], **more: Any) -> Callable[[int], dict[str, Any]]:
    return lambda n: {"expression": expression, "inputs": {"x": shape(n)}, **more}


def axes(count: int) -> Any:
    """A single number in so many axes."""
    return 1 if not count else [axes(count - 1)]


def booleans(bytes_: int) -> dict[str, Any]:
    """A run that holds so many bytes: an input of one byte an element, and another like it."""
    return {"expression": "~x", "inputs": {"x": [True] * (bytes_ // 2)}}


def loop(steps: int) -> dict[str, Any]:
    return text("f(x) = sin(x) + 1\nscan(f, 0.5, length=N)")(steps)


LOOP = 5
SECONDS = compiled_question("value", loop(LOOP)["expression"]).plan.seconds
"""What a loop of some steps is estimated to take."""

BOUNDS = [
    Bound("nodes", 4, chain),
    Bound("expanded_nodes", 10, lambda n: chain(n - 1)),
    Bound("functions", 3, functions),
    Bound("function_depth", 3, nested_functions),
    Bound("loop_steps", 3, text("f(x) = x + 1\nscan(f, 0, length=N)")),
    Bound("cost_seconds", SECONDS, loop, at=LOOP),
    Bound("elements", 100, text("sum(ones([N]))")),
    Bound("elements", 3, with_inputs("x", lambda n: [1] * n)),
    Bound("elements", 3, lambda n: {"expression": f"sum({[1] * n})"}),
    Bound("elements", 100, text("sum(broadcast_to(x, [N]))", **X)),
    Bound("dimension", 100, text("sum(ones([N, 0]))")),
    Bound("dimension", 7, with_inputs("x", lambda n: {"data": [], "shape": [n, 0]})),
    Bound("rank", 2, with_inputs("x", axes)),
    Bound("rank", 3, lambda n: {"expression": f"ones({[1] * n})"}),
    Bound("arity", 3, lambda n: {"expression": f"concat([{', '.join('x' * n)}], axis=0)", "inputs": {"x": [1]}}),
    Bound("names", 3, several),
    Bound("names", 3, outputs),
    Bound("peak_bytes", 1_000, booleans, step=2),
    Bound("nonzeros", 9, with_inputs("x * x", lambda n: [1] * n, sparse=True), "/grad/jacobian"),
    Bound("taylor_order", 3, lambda n: {"expression": "exp(x)", **X, "order": n}, "/grad/nth"),
    Bound(
        "taylor_order",
        3,
        lambda n: {"expression": "exp(x)", **X, "direction": {"x": 1}, "order": n},
        "/grad/taylor",
    ),
    Bound("tensor_order", 2, lambda n: {"expression": "exp(x)", **X, "order": n}, "/grad/tensors"),
    Bound("tensor_order", 3, lambda n: {"expression": "exp(x)", **X, "path": ["x"] * n}, "/grad/tensors"),
    Bound("nested_order", 2, lambda n: {"expression": "exp(x)", **X, "path": ["x"] * n}, "/grad/nth"),
    Bound("expression_characters", 20, lambda n: {"expression": "x" + " " * (n - 1), **X}),
    Bound("expression_nesting", 3, lambda n: {"expression": "(" * n + "x" + ")" * n, **X}),
    Bound("constant_exponent", 8, text("x**N", **X)),
    Bound("constant_exponent", 8, text("x**-N", **X)),
    Bound("linalg_dimension", 2, text("inv(eye(N))")),
    Bound(
        "einsum_operands",
        2,
        lambda n: {"expression": f"einsum('{','.join('i' * n)}', {', '.join('x' * n)})", "inputs": {"x": [1]}},
    ),
]


def ids(bounds: list[Bound]) -> list[str]:
    return [f"{each.name}-{i}" for i, each in enumerate(bounds)]


@pytest.mark.parametrize("bound", BOUNDS, ids=ids(BOUNDS))
def test_below_and_at_the_limit_is_allowed_and_above_it_is_not(app_client: AppClient, bound: Bound) -> None:
    client = app_client(limits=Limits(**{bound.name: bound.maximum}))
    ask(client, bound.path, bound.request(bound.last - bound.step))
    ask(client, bound.path, bound.request(bound.last))
    found = problem(post(client, bound.path, bound.request(bound.last + bound.step)))
    assert (found["code"], found["status"]) == ("limit_exceeded", 422)
    assert found["limit"]["name"] == bound.name
    assert found["limit"]["max"] == bound.maximum
    assert bound.name in found["detail"]


def test_every_limit_of_the_engine_has_a_row() -> None:
    assert {each.name for each in fields(Limits)} == {each.name for each in BOUNDS}


@pytest.mark.parametrize("bound", BOUNDS, ids=ids(BOUNDS))
def test_above_a_default_nothing_of_that_size_is_made(app_client: AppClient, bound: Bound) -> None:
    """What is refused is refused in little memory, whatever it would have been."""
    client = app_client(limits=Limits(**{bound.name: bound.maximum}))
    body = bound.request(bound.last + bound.step)
    with measured() as peak:
        assert post(client, bound.path, body).status_code == 422
    assert peak() < 16 << 20


# Limits of the service's own


class Ways(NamedTuple):
    """How a request meets a limit: through the application, at a desk of its own, or over a socket."""

    client: AppClient
    server: Service
    monkeypatch: pytest.MonkeyPatch


class Own(NamedTuple):
    """A setting, a figure for it, and the problem of meeting `n` of what it bounds, or None where that is fine."""

    name: str
    maximum: float
    meet: Callable[[Ways, Any], dict[str, Any] | None]
    status: int = 422
    code: str = "limit_exceeded"
    step: float = 1
    at: float | None = None
    """A wait that is well within the maximum, for what is timed by a clock that no test can hold still."""


def found_in(response: httpx.Response) -> dict[str, Any] | None:
    return None if response.is_success else problem(response)


def padded(size: int, before: str, after: str) -> bytes:
    """A body of so many bytes, by spaces."""
    return (before + " " * (size - len(before) - len(after)) + after).encode()


def meet_body(ways: Ways, size: int) -> dict[str, Any] | None:
    return found_in(post(ways.client(body_bytes=100), "/grad/value", padded(size, '{"expression": "1"', "}")))


def meet_msgpack(ways: Ways, size: int) -> dict[str, Any] | None:
    empty = len(msgspec.msgpack.encode({"expression": " " * 100})) - 100
    body = msgspec.msgpack.encode({"expression": "1" + " " * (size - empty - 1)})
    assert len(body) == size
    headers = {"Content-Type": "application/msgpack"}
    return found_in(post(ways.client(msgpack_bytes=200), "/grad/value", body, headers=headers))


def meet_url(ways: Ways, size: int) -> dict[str, Any] | None:
    path = "/grad?expr=1"
    return found_in(ways.client(url_bytes=100).get(path + "%20" * 29 + "+" * (size - len(path) - 3 * 29 + 1)))


def with_headers(client: httpx.Client, more: Callable[[list[tuple[bytes, bytes]]], dict[str, str]]) -> httpx.Request:
    """A request with more headers than a client's own."""
    request = client.build_request("GET", "/limits")
    request.headers.update(more(request.headers.raw))
    return request


def meet_header_bytes(ways: Ways, size: int) -> dict[str, Any] | None:
    def more(own: list[tuple[bytes, bytes]]) -> dict[str, str]:
        return {"x-pad": "a" * (size - len("x-pad") - sum(len(name) + len(value) for name, value in own))}

    client = ways.client(header_bytes=400)
    return found_in(client.send(with_headers(client, more)))


def meet_headers(ways: Ways, count: int) -> dict[str, Any] | None:
    client = ways.client(headers=20)
    request = with_headers(client, lambda own: {f"x-{i}": "" for i in range(count - len(own))})
    return found_in(client.send(request))


def meet_answer(ways: Ways, size: int) -> dict[str, Any] | None:
    return found_in(post(ways.client(answer_bytes=80), "/grad/value", {"expression": f"ones([{size // 8}])"}))


def meet_nesting(ways: Ways, depth: int) -> dict[str, Any] | None:
    body = {"expression": "x", "inputs": {"x": axes(depth - 2)}}
    return found_in(post(ways.client(json_nesting=6), "/grad/value", body))


def meet_values(ways: Ways, count: int) -> dict[str, Any] | None:
    body = {"expression": "sum(x)", "inputs": {"x": [1] * (count - 3)}}  # beside two objects and the list
    return found_in(post(ways.client(body_values=100), "/grad/value", body))


def meet_graphs_bytes(ways: Ways, size: int) -> dict[str, Any] | None:
    def register(most: int, more: int) -> dict[str, Any] | None:
        return found_in(post(ways.client(graphs_bytes=most), "/graphs", {"expression": "x + 1 #" + "." * more}))

    smaller = register(1, 300)
    assert smaller is not None
    return register(1000, 300 + size - smaller["limit"]["actual"])


def meet_svg(ways: Ways, parts: int) -> dict[str, Any] | None:
    """Each call has a box and an arrow, and so has the input that the first one takes, or the output."""
    client, calls = ways.client(svg_parts=7), (parts - 3) // 2
    id = ask(client, "/graphs", {"expression": "sin(" * calls + "x" + ")" * calls})["id"]
    return found_in(client.get(f"/graphs/{id}/graph.svg"))


def meet_seconds(ways: Ways, seconds: float) -> dict[str, Any] | None:
    now = 1000.0
    ways.monkeypatch.setattr(deadline.time, "perf_counter", lambda: now)
    clock = Clock(2.0)
    now += seconds
    return problem_in(clock)


def problem_in(work: Callable[[], Any]) -> dict[str, Any] | None:
    """The problem that is raised, as it would be answered."""
    try:
        work()
    except (Problem, EngineError) as error:
        raised = from_engine(error) if isinstance(error, EngineError) else error
        assert raised.status not in (429, 503) or int(raised.headers["Retry-After"]) > 0
        response = respond(raised, "/")
        return problem(httpx.Response(response.status_code, headers=response.headers, content=bytes(response.body)))
    return None


async def last_of(desk: Desk, clients: list[str], busy: float = 0.0, size: int = 0) -> None:
    """Raises what the last one is told that comes while another has the only place, which it gives back then."""
    async with desk.admission.turn(Road.THREAD, desk.task("first"), 0):
        waiting = [asyncio.ensure_future(desk.served(each, size=size)) for each in clients]
        await asyncio.wait(waiting[-1:], timeout=busy)
    await asyncio.gather(*waiting[:-1])
    await waiting[-1]


def meet_queue(ways: Ways, count: int) -> dict[str, Any] | None:
    desk = Desk(queue=3)
    return problem_in(lambda: asyncio.run(last_of(desk, [f"client {i}" for i in range(count)])))


def meet_wait(ways: Ways, seconds: float) -> dict[str, Any] | None:
    return problem_in(lambda: asyncio.run(last_of(Desk(queue_seconds=0.3), ["one"], seconds)))


def meet_at_once(ways: Ways, count: int) -> dict[str, Any] | None:
    return problem_in(lambda: asyncio.run(last_of(Desk(client_requests=3), ["first"] * (count - 1))))


def meet_rate(ways: Ways, rate: float) -> dict[str, Any] | None:
    """A client that asks for so many seconds a second, ten seconds long."""
    ways.monkeypatch.setattr(admission.time, "monotonic", lambda: 1000.0)
    desk = Desk(client_rate=2.0).admission
    desk.greet(Client("a")).balance -= rate * admission.BURST_SECONDS
    return problem_in(lambda: desk.greet(Client("a")))


def meet_memory(ways: Ways, size: int) -> dict[str, Any] | None:
    desk = Desk(memory=1000)
    desk.task("other").share.grow(600)
    return problem_in(lambda: asyncio.run(desk.served("one", size=size - 600)))


def resumed(ways: Ways, begun: bytes, rest: bytes, seconds: float) -> dict[str, Any] | None:
    """A request whose rest is sent after some seconds, unless it is answered before."""
    with connected(ways.server.address) as connection:
        connection.sendall(begun)
        connection.settimeout(seconds)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            connection.sendall(rest)
        connection.settimeout(LATE)
        return found_in(one(connection))


def meet_slow_head(ways: Ways, seconds: float) -> dict[str, Any] | None:
    return resumed(ways, posted()[:20], posted()[20:], seconds)


def meet_slow_body(ways: Ways, seconds: float) -> dict[str, Any] | None:
    return resumed(ways, posted()[:-5], posted()[-5:], seconds)


def meet_framing(ways: Ways, size: int) -> dict[str, Any] | None:
    """A body as one chunk, with so many bytes around it. The server asks for it, so head and body come apart."""
    chunk = b"%x;%s\r\n%s\r\n"
    more = size - len(chunk % (len(BODY), b"", b""))
    with connected(ways.server.address) as connection:
        connection.sendall(
            b"POST /grad HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert connection.recv(1 << 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(chunk % (len(BODY), b"a" * more, BODY))
        connection.settimeout(0.2)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            connection.sendall(b"0\r\n\r\n")
        connection.settimeout(LATE)
        return found_in(one(connection))


def connections_of(server: Service) -> int:
    """Connections that the service has open."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f"{server.port:04X}"
    known = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port}") and row[3] != LISTENING}
    return sum(each in known for each in map(_link, Path(f"/proc/{server.pid}/fd").iterdir()))


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:  # it was closed meanwhile
        return ""


def meet_connections(ways: Ways, count: int) -> dict[str, Any] | None:
    until(lambda: not connections_of(ways.server), LATE, "connections of other tests are closed")
    with ExitStack() as open_ones:
        for _ in range(count - 1):
            open_ones.enter_context(connected(ways.server.address)).sendall(b"G")
        last = open_ones.enter_context(connected(ways.server.address))
        until(lambda: connections_of(ways.server) == count, LATE, "all are accepted")
        last.sendall(posted())
        return found_in(one(last))


WIRE = {"header_seconds": 0.6, "body_seconds": 0.6, "keep_alive_seconds": 1, "framing_bytes": 20_000, "connections": 20}
"""Limits of a server that is spoken to byte by byte."""

OWNS = [
    Own("seconds", 2.0, meet_seconds, 504, "deadline_exceeded"),
    Own("body_bytes", 100, meet_body, 413),
    Own("msgpack_bytes", 200, meet_msgpack, 413),
    Own("url_bytes", 100, meet_url, 414),
    Own("header_bytes", 400, meet_header_bytes, 431),
    Own("headers", 20, meet_headers, 431),
    Own("answer_bytes", 80, meet_answer, step=8),
    Own("json_nesting", 6, meet_nesting, 400),
    Own("body_values", 100, meet_values, 413),
    Own("graphs_bytes", 1000, meet_graphs_bytes),
    Own("svg_parts", 7, meet_svg, step=2),
    Own("memory_bytes", 1000, meet_memory, 503, "overloaded"),
    Own("queue", 3, meet_queue, 503, "overloaded"),
    Own("queue_seconds", 0.3, meet_wait, 503, "overloaded", step=0.05, at=0.1),
    Own("client_requests", 3, meet_at_once, 429, "rate_limited"),
    Own("client_rate", 2.0, meet_rate, 429, "rate_limited"),
    Own("header_seconds", WIRE["header_seconds"], meet_slow_head, 408, step=0.2, at=0.3),
    Own("body_seconds", WIRE["body_seconds"], meet_slow_body, 408, step=0.2, at=0.3),
    Own("framing_bytes", WIRE["framing_bytes"], meet_framing, 413),
    Own("connections", WIRE["connections"], meet_connections, 503, "overloaded"),
]
OWN_IDS = [each.name for each in OWNS]


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with low limits for whoever speaks to it."""
    with Service(tmp_path_factory.mktemp("limits"), store="memory", **WIRE) as it:
        yield it


@pytest.fixture
def ways(app_client: AppClient, wire: Service, monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(app_client, wire, monkeypatch)


@pytest.mark.parametrize("own", OWNS, ids=OWN_IDS)
def test_below_and_at_a_limit_of_the_service_all_is_well_and_above_it_is_said_to_be_over(ways: Ways, own: Own) -> None:
    """By the name of the setting, under the code and status of old, and in little memory."""
    at = own.maximum if own.at is None else own.at
    assert own.meet(ways, at - own.step) is None
    assert own.meet(ways, at) is None
    before = ways.server.rss()
    with measured() as peak:
        found = own.meet(ways, LATE if own.at is not None else own.maximum + own.step)
    assert found is not None
    assert (found["code"], found["status"]) == (own.code, own.status)
    assert (found["limit"]["name"], found["limit"]["max"]) == (own.name, own.maximum)
    if own.at is None:
        assert found["limit"]["actual"] == own.maximum + own.step
    assert peak() < 16 << 20 and ways.server.rss() - before < 16 << 20


def meets_graphs(ways: Ways, count: int) -> bool:
    """Whether the first of so many graphs is still there."""
    client = ways.client(graphs=3)
    ids = [ask(client, "/graphs", {"expression": f"x + {i}"})["id"] for i in range(count)]
    return client.get(f"/graphs/{ids[0]}").is_success


def meets_idleness(ways: Ways, seconds: float) -> bool:
    """Whether a connection is still there after some seconds."""
    with connected(ways.server.address) as connection:
        connection.sendall(posted())
        assert one(connection).status_code == 200
        connection.settimeout(seconds)
        try:
            return bool(connection.recv(1))
        except TimeoutError:
            connection.settimeout(LATE)
            connection.sendall(posted())
            return one(connection).status_code == 200


QUIET: dict[str, tuple[Callable[[Ways, Any], bool], tuple[float, float, float]]] = {
    "graphs": (meets_graphs, (2, 3, 4)),
    "keep_alive_seconds": (meets_idleness, (0.1, 0.4, LATE)),
}
"""Limits past which nobody is told anything, but something goes; with figures below, at or near them, and above."""


@pytest.mark.parametrize("name", QUIET)
def test_above_a_quiet_limit_something_goes(ways: Ways, name: str) -> None:
    meets, figures = QUIET[name]
    assert [meets(ways, each) for each in figures] == [True, True, False]


def test_every_limit_of_the_service_has_a_row() -> None:
    assert sorted([*OWN_IDS, *QUIET]) == sorted(OWN)


def test_what_the_answer_would_be_sent_in_is_said(app_client: AppClient) -> None:
    """What is too much as JSON may be asked for in another form."""
    found = problem(post(app_client(answer_bytes=80), "/grad/value", {"expression": "ones([11])"}))
    assert "msgpack" in found["detail"] and "base64" in found["detail"]


def test_integers_fit_64_bits(app_client: AppClient) -> None:
    """2⁶³ − 1 is an int64; one more is a float64 in an expression, as all large numbers are, and none in a graph."""
    client = app_client()
    zero = {"x": {"data": 0, "dtype": "int64"}}
    for number, dtype in ((2**63 - 2, "int64"), (2**63 - 1, "int64"), (2**63, "float64")):
        out = ask(client, "/grad/value", {"expression": f"x + {number}", "inputs": zero})["values"]["out"]
        assert (out["dtype"], out["data"]) == (dtype, number)
    for number in (2**63 - 1, 2**63):
        response = post(client, "/grad/value", {"graph": graph(node("y", "add", "x", number)), "inputs": zero})
        assert response.status_code == (200 if number < 2**63 else 422), response.text


def test_all_limits_are_listed(app_client: AppClient) -> None:
    """Each with its maximum, so that a client need not find out by trying."""
    listed = {each["name"]: each for each in app_client().get("/limits").json()["limits"]}
    settings = settled(Settings())
    expected = asdict(settings.limits) | {name: getattr(settings, name) for name in OWN}
    assert {name: each["max"] for name, each in listed.items()} == expected
    assert all(each["doc"] for each in listed.values())


def test_the_memory_of_all_requests_is_a_part_of_the_machines_unless_a_setting_says_otherwise() -> None:
    for workers, part in ((1, 0.6), (3, 0.2)):
        assert settled(Settings(workers=workers)).memory_bytes == pytest.approx(part * memory())
    assert settled(Settings(memory_bytes=1000)).memory_bytes == 1000


def test_orders_multiply_what_was_sent_and_that_is_what_counts(app_client: AppClient) -> None:
    client = app_client(limits=Limits(expanded_nodes=20_000), seconds=5)
    body = {"expression": "tanh(sin(exp(tanh(x))))", "inputs": {"x": 1}, "order": 60}
    assert problem(post(client, "/grad/nth", body))["limit"]["name"] == "expanded_nodes"


def test_the_time_of_a_loop_is_that_of_its_steps() -> None:
    """Twice the steps take twice the time, as estimated, and a loop in a loop multiplies."""
    once, twice, nested = (
        compiled_question("value", each).plan.seconds
        for each in (
            loop(1_000)["expression"],
            loop(2_000)["expression"],
            "g(x) = sin(x) + 1\nf(x) = scan(g, x, length=1000)\nscan(f, 0.5, length=100)",
        )
    )
    assert 1.9 < twice / once < 2.1
    assert 90 < nested / once < 110


def test_what_takes_too_long_is_not_begun(app_client: AppClient) -> None:
    body = {"expression": "f(x) = x @ x / 500\nscan(f, x, length=1000000)", "inputs": {"x": [[1.0] * 100] * 100}}
    found = problem(post(app_client(), "/grad/value", body))
    assert (found["code"], found["limit"]["name"], found["limit"]["max"]) == ("limit_exceeded", "cost_seconds", 10)
