"""Probe rows: how long a health check waits while the same service computes something for two seconds.

Every sample is one computation: while it runs, `/healthz` is asked every other millisecond over a second connection.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import orjson

from benchmarks.servers import Connection, get, post, running
from benchmarks.timing import OURS, Contender, Row, enter

SCALE = 1.0
"""Of the computations; tests take a smaller one."""
PAUSE_SECONDS = 0.002
IDLE_PROBES = 200
P50, P99 = 0.5, 0.99


def probe_row(name: str, title: str, body: Callable[[float], dict[str, Any]]) -> Row:
    """`body(scale)` is posted to /grad/value; at scale 1 it takes about two seconds."""

    def contenders(stack: ExitStack) -> dict[str, Contender]:
        probe, work = (stack.enter_context(Connection(running().service)) for _ in range(2))
        heavy = post("/grad/value", orjson.dumps(body(SCALE)))
        waits: list[float] = [0.0]

        def ours() -> float:
            waits[:] = waits_while(probe, lambda: work.ask(heavy))
            return float(np.quantile(waits, P99))

        return {
            OURS: Contender(ours),
            "its median": Contender(lambda: float(np.quantile(waits, P50))),
            "p99 at rest": Contender(lambda: float(np.quantile(_waits(probe, IDLE_PROBES), P99))),
        }

    return enter(Row(name, f"/healthz, p99, while {title}", "http, probes", contenders, gauge="s", marks={OURS: 0.01}))


def waits_while(probe: Connection, work: Callable[[], Any]) -> list[float]:
    """How long every health check took that was asked while `work` went on. Raises what `work` raises."""
    faults: list[Exception] = []

    def worked() -> None:
        try:
            work()
        except Exception as error:  # to be raised where somebody hears it
            faults.append(error)

    worker = threading.Thread(target=worked)
    worker.start()
    waits: list[float] = []
    while worker.is_alive() or not waits:
        waits += _waits(probe, 1)
    worker.join()
    if faults:
        raise faults[0]
    return waits


def _waits(probe: Connection, count: int) -> list[float]:
    asked, waits = get("/healthz"), []
    for _ in range(count):
        begun = time.perf_counter()
        probe.ask(asked)
        waits.append(time.perf_counter() - begun)
        time.sleep(PAUSE_SECONDS)
    return waits


# A few large calls of NumPy, which let go of the interpreter.


def _large(scale: float) -> dict[str, Any]:
    sines = "\n".join(f"y{at + 1} = sin(y{at})" for at in range(max(int(800 * scale), 1)))
    return {
        "expression": f"y0 = x * linspace(0, 1, 1000000)\n{sines}\nsum(y{sines.count('=')})",
        "inputs": {"x": 1.5},
    }


probe_row("probe-numpy", "800 sines of 10⁶ numbers are computed", _large)

# Many small steps: the interpreter is what they take.


STEP = """f(i, x) = {
  a = sin(x) * 0.9 + cos(x) * 0.1
  b = tanh(a * x) - exp(-a * a)
  a + 0.5 * b / (1 + x * x)
}"""


def _small_steps(scale: float) -> dict[str, Any]:
    return {"expression": f"{STEP}\nfori_loop(0, {int(1_000_000 * scale)}, f, x)", "inputs": {"x": 0.5}}


probe_row("probe-steps", "a loop of 1,000,000 small steps runs", _small_steps)

# One call of LAPACK, which nothing can interrupt.


def _lapack(scale: float) -> dict[str, Any]:
    n = int(1_500 * scale ** (1 / 3))
    matrix = f"reshape(sin(linspace(0, 1, {n * n}) * x * 1e6), shape=[{n}, {n}])"
    return {"expression": f"U, S, V = svd({matrix})\nsum(S)", "inputs": {"x": 1.5}}


probe_row("probe-lapack", "LAPACK decomposes a matrix of 1,500 × 1,500 (svd)", _lapack)
