"""Growth rows: how the engine's time grows with one quantity, and the exponent of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.rows.engine import SIN_CHAIN, SIN_EXP, chain, cold_run, question, random, scalar, warm_run
from benchmarks.timing import Contender, Row, enter


def growth_row(name: str, title: str, parameter: str, sizes: Sequence[int], at: Callable[[int], Any]) -> Row:
    """`at(size)` gives the run of that size."""

    def contenders(stack: ExitStack) -> dict[str, Contender]:
        return {str(size): Contender(at(size)) for size in sizes}

    return enter(Row(name, title, "growth", contenders, parameter))


def _cold_chain(nodes: int) -> Callable[[], Any]:
    posted, inputs = chain(nodes), scalar()
    return cold_run(lambda: question("grad", lambda: posted, inputs))


growth_row("grow-cold", "first gradient of a chain", "nodes", (100, 1_000, 10_000), _cold_chain)

growth_row(
    "grow-nodes",
    "gradient of a chain, warm",
    "nodes",
    (100, 1_000, 10_000),
    lambda nodes: warm_run(question("grad", lambda: chain(nodes), scalar())),
)

growth_row(
    "grow-elements",
    "10-fold sin chain, warm",
    "elements",
    (1_000, 10_000, 100_000, 1_000_000),
    lambda size: warm_run(question("grad", SIN_CHAIN, {"x": random().uniform(-3, 3, size)})),
)

growth_row(
    "grow-order",
    "derivatives up to an order, 1,000 points, warm",
    "order",
    (2, 4, 8, 16, 32),
    lambda order: warm_run(question("nth", SIN_EXP, {"x": random().uniform(-1, 1, 1_000)}, order=order)),
)

growth_row(
    "grow-order-cold",
    "the same, cold",
    "order",
    (2, 4, 8, 16, 32),
    lambda order: cold_run(lambda: question("nth", SIN_EXP, {"x": random().uniform(-1, 1, 1_000)}, order=order)),
)

growth_row(
    "grow-batch",
    "gradients of tanh(w·x)² for each x of 100 numbers, warm",
    "batch",
    (10, 100, 1_000, 10_000),
    lambda size: warm_run(
        question(
            "grad",
            "tanh(sum(w * x))**2",
            {"w": random().normal(0, 0.1, 100), "x": random().normal(size=(size, 100))},
            batch=("x",),
        )
    ),
)
