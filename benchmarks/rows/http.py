"""HTTP rows: one worker, kept connections, against bare routes under the same server settings (benchmarks.bare).

Service and bare routes are asked in turn, by clients of one kind. A floor is less than any service could do: it does
not go through HTTP, or knows nothing of what it copies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import count
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
import simdjson

from benchmarks.bare import JSON, MSGPACK, encoded, packed, written
from benchmarks.rows.engine import SCALARS, arrays_of, cold_run, question, random, scalars_inputs, warm_run
from benchmarks.servers import Connection, Crowd, post, running
from benchmarks.timing import BY_HAND, OURS, Bounds, Contender, Row, enter, nothing

CONNECTIONS = 32
RUSH = 640
"""Requests of one sample over many connections."""
DECODERS: Mapping[str, Callable[[bytes], Any]] = {JSON: orjson.loads, MSGPACK: msgspec.msgpack.decode}
ECHO, FLOOR, COPY, BOTH = "bare echo", "codec floor", "bare copy", "floor + echo"


class Asked(NamedTuple):
    """The connections of a row, and the body that it posts."""

    service: Connection
    bare: Connection
    body: bytes
    media_type: str = JSON

    def ours(self, path: str = "/grad") -> Contender:
        return Contender(self.service.asking(post(path, self.body, self.media_type)), reading(self.media_type))

    def echoed(self, path: str = "/echo") -> Contender:
        return Contender(self.bare.asking(post(path, self.body, self.media_type)), self._check_echo)

    def answered(self, path: str) -> Contender:
        return Contender(self.bare.asking(post(path, self.body, self.media_type)), reading(self.media_type))

    def _check_echo(self, answer: bytearray) -> None:
        decode = DECODERS[self.media_type]
        if decode(bytes(answer)) != decode(self.body):
            raise RuntimeError("the echo is not what was posted")


def reading(media_type: str) -> Callable[[bytearray], list[np.ndarray]]:
    """What finds values and gradients in an answer's body."""

    def numbers(answer: bytearray) -> list[np.ndarray]:
        fields = DECODERS[media_type](bytes(answer))
        return [_array(tensor) for role in ("values", "gradients") for tensor in fields[role].values()]

    return numbers


def _array(tensor: Mapping[str, Any]) -> np.ndarray:
    values = tensor["data"]
    if isinstance(values, bytes):
        return np.frombuffer(values, tensor["dtype"]).reshape(tensor["shape"])
    return np.array(values)


def http_row(
    name: str,
    title: str,
    *,
    body: Callable[[Connection], dict[str, Any]],
    contenders: Callable[[Asked], dict[str, Contender]],
    marks: Mapping[str, Bounds],
    media_type: str = JSON,
) -> Row:
    """`body` may ask the service for something first."""

    def connected(stack: ExitStack) -> dict[str, Contender]:
        service, bare = (stack.enter_context(Connection(port)) for port in running())
        encode = orjson.dumps if media_type == JSON else msgspec.msgpack.encode
        return contenders(Asked(service, bare, encode(body(service)), media_type))

    return enter(Row(name, f"POST /grad: {title}", "http", connected, marks=marks))


# Three scalars, 10 ops: the latency of a request, and what a request takes where 32 come at once.


def _in_full(service: Connection) -> dict[str, Any]:
    return {"expression": SCALARS, "inputs": {name: x.item() for name, x in scalars_inputs().items()}}


def _by_id(service: Connection) -> dict[str, Any]:
    registered = orjson.loads(service.ask(post("/graphs", orjson.dumps({"expression": SCALARS}))))
    return {"graph_id": registered["id"], "inputs": _in_full(service)["inputs"]}


def _small(asked: Asked) -> dict[str, Contender]:
    return {
        OURS: asked.ours(),
        ECHO: asked.echoed(),
        "FastAPI's own JSON": asked.echoed("/echo/model"),
        "no HTTP": Contender(warm_run(question("grad", SCALARS, scalars_inputs())), arrays_of),
    }


http_row(
    "http-scalars",
    "3 scalars, 10 ops, posted in full",
    body=_in_full,
    contenders=_small,
    marks={ECHO: 1.5},
)

http_row(
    "http-scalars-id",
    "3 scalars, 10 ops, by graph_id",
    body=_by_id,
    contenders=_small,
    marks={ECHO: 1.3},
)


def load_row(name: str, title: str, *, body: Callable[[Connection], dict[str, Any]], most: float) -> Row:
    """The time in which many requests are answered that come over CONNECTIONS at once, per request."""

    def contenders(stack: ExitStack) -> dict[str, Contender]:
        ports = running()
        service = stack.enter_context(Connection(ports.service))
        posted = orjson.dumps(body(service))

        def rushed(port: int, path: str, read: Callable[[Any], Any] = nothing) -> Contender:
            crowd = stack.enter_context(Crowd(port, post(path, posted), CONNECTIONS))
            return Contender(lambda: crowd.rush(RUSH), read, RUSH)

        def answer(rush: None) -> list[np.ndarray]:
            return reading(JSON)(service.ask(post("/grad", posted)))

        return {
            OURS: rushed(ports.service, "/grad", answer),
            ECHO: rushed(ports.bare, "/echo"),
            "no HTTP": Contender(warm_run(question("grad", SCALARS, scalars_inputs())), arrays_of),
        }

    title = f"POST /grad: {title}, over {CONNECTIONS} connections, per request"
    return enter(Row(name, title, f"http, {CONNECTIONS} connections", contenders, marks={ECHO: most}))


load_row("load-scalars", "3 scalars, 10 ops, posted in full", body=_in_full, most=1.5)

load_row("load-scalars-id", "3 scalars, 10 ops, by graph_id", body=_by_id, most=1.3)

# The first request of a graph: nothing is known of it. Beside it, a graph that is known but for its inputs' shapes.


def _first(asked: Asked) -> dict[str, Contender]:
    fresh, known = count(), scalars_inputs()
    inputs = {name: x.item() for name, x in known.items()}

    def posting(body: dict[str, Any]) -> bytearray:
        return asked.service.ask(post("/grad", orjson.dumps(body)))

    def first() -> bytearray:
        return posting({"expression": f"{SCALARS} + {next(fresh)}", "inputs": inputs})

    def unplanned() -> bytearray:
        return posting({"expression": SCALARS, "inputs": {**inputs, f"unused{next(fresh)}": 0.0}})

    return {
        OURS: Contender(first, nothing),
        "plan missed": Contender(unplanned, nothing),
        "plan hit": asked.ours(),
        ECHO: asked.echoed(),
        "no HTTP": Contender(cold_run(lambda: question("grad", SCALARS, known)), arrays_of),
    }


http_row("http-cold", "first request of a graph of 10 nodes", body=_in_full, contenders=_first, marks={})

# Many numbers: the floor is to read them into an array and to write as many, by the libraries that the service uses.


def _many(size: int, write: Callable[[np.ndarray], Any]) -> Callable[[Connection], dict[str, Any]]:
    return lambda service: {"expression": "sum(x * x)", "inputs": {"x": write(random().normal(size=size))}}


def _in_json(asked: Asked) -> dict[str, Contender]:
    echo, floor = asked.echoed(), _json_floor(asked.body)
    return {
        OURS: asked.ours(),
        BOTH: Contender(lambda: (floor(), echo.run()), nothing),
        FLOOR: Contender(floor, nothing),
        ECHO: echo,
        COPY: Contender(asked.echoed("/copy").run, nothing),
        BY_HAND: asked.answered("/sum-of-squares"),
    }


def _json_floor(body: bytes) -> Callable[[], bytes]:
    parser = simdjson.Parser()

    def floor() -> bytes:
        numbers: Any = parser.parse(body)["inputs"]["x"]
        x = np.frombuffer(numbers.as_buffer(of_type="d"))
        del numbers  # a parser parses nothing else as long as something refers to what it parsed
        return encoded(written(x))

    return floor


def _in_msgpack(asked: Asked) -> dict[str, Contender]:
    return {
        OURS: asked.ours(),
        COPY: Contender(asked.echoed("/copy").run, nothing),
        BY_HAND: asked.answered("/sum-of-squares"),
    }


for size, spoken in ((100_000, "100,000"), (1_000_000, "1,000,000")):
    http_row(
        f"http-json-{size}",
        f"{spoken} float64 in JSON, as many back",
        body=_many(size, np.ndarray.tolist),
        contenders=_in_json,
        marks={BOTH: 1.3},
    )

for size, spoken in ((100_000, "100,000"), (1_000_000, "1,000,000")):
    http_row(
        f"http-msgpack-{size}",
        f"{spoken} float64 in MessagePack, as many back",
        body=_many(size, packed),
        contenders=_in_msgpack,
        marks={COPY: 2},
        media_type=MSGPACK,
    )
