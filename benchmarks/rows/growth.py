"""Growth rows: how the engine's time and memory grow with one quantity, and the exponents of it.

Memory is the peak of what one run allocates, by tracemalloc, to which NumPy reports its arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.rows.engine import SIN_CHAIN, SIN_EXP, chain, cold_run, question, random, scalar, warm_run
from benchmarks.timing import EXPONENT, WARM_UPS, Contender, Row, enter, traced


def growth_rows(
    name: str,
    title: str,
    parameter: str,
    sizes: Sequence[int],
    at: Callable[[int], Any],
    *,
    marked: float | None = None,
) -> tuple[Row, Row]:
    """Time, and memory; `at(size)` gives the run of that size. `marked` bounds the exponent of time."""

    def timed(stack: ExitStack) -> dict[str, Contender]:
        return {str(size): Contender(at(size)) for size in sizes}

    def weighed(stack: ExitStack) -> dict[str, Contender]:
        return {str(size): Contender(_allocated(at(size))) for size in sizes}

    marks = {} if marked is None else {EXPONENT: marked}
    memory = Row(f"{name}-memory", title, "growth, memory", weighed, parameter, gauge="B")
    return enter(Row(name, title, "growth, time", timed, parameter, marks=marks)), enter(memory)


def _allocated(run: Callable[[], Any]) -> Callable[[], int]:
    """A run that tells the most that was allocated at a time, in bytes."""
    for _ in range(WARM_UPS):
        run()

    return partial(traced, run)


def _cold_chain(nodes: int) -> Callable[[], Any]:
    posted, inputs = chain(nodes), scalar()
    return cold_run(lambda: question("grad", lambda: posted, inputs))


growth_rows("grow-cold", "first gradient of a chain", "nodes", (100, 1_000, 10_000), _cold_chain, marked=1.15)

growth_rows(
    "grow-nodes",
    "gradient of a chain on 100 points, warm",
    "nodes",
    (100, 1_000, 10_000),
    lambda nodes: warm_run(question("grad", lambda: chain(nodes), {"x": random().uniform(-3, 3, 100)})),
)

growth_rows(
    "grow-elements",
    "10-fold sin chain, warm",
    "elements",
    (1_000, 10_000, 100_000, 1_000_000),
    lambda size: warm_run(question("grad", SIN_CHAIN, {"x": random().uniform(-3, 3, size)})),
)

growth_rows(
    "grow-order",
    "derivatives up to an order, 1,000 points, warm",
    "order",
    (2, 4, 8, 16, 32),
    lambda order: warm_run(question("nth", SIN_EXP, {"x": random().uniform(-1, 1, 1_000)}, order=order)),
)

growth_rows(
    "grow-order-cold",
    "derivatives up to an order, cold",
    "order",
    (2, 4, 8, 16, 32),
    lambda order: cold_run(lambda: question("nth", SIN_EXP, {"x": random().uniform(-1, 1, 1_000)}, order=order)),
)

growth_rows(
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
