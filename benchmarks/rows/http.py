"""HTTP rows: one request after another over one kept connection, against bare routes under the same server settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import orjson

from benchmarks.bare import encoded, sum_of_squares_of
from benchmarks.rows.engine import SCALARS, arrays_of, cold_run, question, random, scalars_inputs
from benchmarks.servers import Connection, serving
from benchmarks.timing import OURS, Contender, Row, enter

Asked = Callable[[str], Callable[[], bytes]]
"""From a path to what posts the row's body to it."""


def http_row(
    name: str,
    title: str,
    *,
    body: Callable[[], dict[str, Any]],
    beside: Callable[[bytes, Asked], dict[str, Contender]],
) -> Row:
    """POST /grad with `body`. `beside` gives the other contenders, from the body and from what asks the bare server."""

    def contenders(stack: ExitStack) -> dict[str, Contender]:
        posted = orjson.dumps(body())
        ports = stack.enter_context(serving("app", "benchmarks.bare"))
        ours, bare = (_asking(stack.enter_context(Connection(port)), posted) for port in ports)
        return {OURS: Contender(ours("/grad"), numbers_in), **beside(posted, bare)}

    return enter(Row(name, title, "http", contenders))


def _asking(connection: Connection, posted: bytes) -> Asked:
    def at(path: str) -> Callable[[], bytes]:
        request = Connection.post(path, posted)
        return lambda: connection.ask(request)

    return at


def numbers_in(answer: bytes) -> list[np.ndarray]:
    """Values and gradients of an answer's body."""
    fields = orjson.loads(answer)
    return [np.array(each["data"]) for role in ("values", "gradients") for each in fields[role].values()]


def _echoed(posted: bytes) -> Callable[[bytes], None]:
    def read(answer: bytes) -> None:
        if orjson.loads(answer) != orjson.loads(posted):
            raise RuntimeError("the echo is not what was posted")

    return read


def _small_beside(posted: bytes, bare: Asked) -> dict[str, Contender]:
    inputs = scalars_inputs()
    return {
        "bare route": Contender(bare("/echo"), _echoed(posted)),
        "FastAPI's own JSON": Contender(bare("/echo/model"), _echoed(posted)),
        "no HTTP": Contender(cold_run(lambda: question("grad", SCALARS, inputs)), arrays_of),
    }


http_row(
    "http-scalars",
    "3 scalars, 10 ops, posted in full; bare: echo",
    body=lambda: {"expression": SCALARS, "inputs": {name: x.item() for name, x in scalars_inputs().items()}},
    beside=_small_beside,
)


def _large_beside(posted: bytes, bare: Asked) -> dict[str, Contender]:
    return {
        "bare route": Contender(bare("/sum-of-squares"), numbers_in),
        "no HTTP": Contender(lambda: encoded(sum_of_squares_of(orjson.loads(posted))), numbers_in),
    }


http_row(
    "http-100000",
    "100,000 float64 in, as many out; bare: codec",
    body=lambda: {"expression": "sum(x * x)", "inputs": {"x": random().normal(size=100_000).tolist()}},
    beside=_large_beside,
)
