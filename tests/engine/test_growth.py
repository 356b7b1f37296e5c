"""What an order costs: nodes of the plan grow as a power of the order, everywhere, and never as an exponential of it.

For each graph and call the power is fitted to the upper half of some orders. An exponential shows twice: its power is
large, and it rises from one pair of orders to the next.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.calls import compile_question
from engine.core import Graph, ops
from engine.limits import Limits
from engine.transforms.taylor import taylor
from tests.support.asking import question
from tests.support.cases import Case, Scene, cases, ids
from tests.support.references import UNARY

LIMITS = replace(Limits(), nested_order=32)

MATRIX = "stack(stack(2 + x, 1), stack(sin(x), 3))"
FOUR = "sin(x * [1.0, 2.0, 3.0, 4.0])"
ONE_NAME = {
    "chain": "sin(exp(tanh(x)))",
    "quotient": "exp(sin(x) * tanh(x)) / (1 + x**2)",
    "power": "x**x",
    "perceptron": "sum((tanh(tanh(ones([2, 3]) @ full([3, 3], x) + x) @ full([3, 3], 0.5)) - 1)**2)",
    "logsumexp": "logsumexp(stack(x, x**2, sin(x)))",
    "softmax": "softmax(stack(x, x**2, sin(x)))[1]",
    "norm": "vector_norm(stack(x, exp(x)))",
    "prod": f"prod({FOUR})",
    "cumulative_prod": f"sum(cumulative_prod({FOUR}))",
    "cumulative_sum": f"sum(sin(cumulative_sum({FOUR})))",
    "solve": f"sum(solve({MATRIX}, stack(x, 1)))",
    "inv": f"sum(inv({MATRIX}))",
    "det": f"det({MATRIX})",
    "qr": f"sum(qr({MATRIX}).Q)",
    "cholesky": "sum(cholesky(stack(stack(2 + x * x, 1), stack(1, 3))))",
    "eigenvalues": f"sum(eigvalsh({MATRIX})**3)",
    "eigenvectors": f"sum(eigh({MATRIX}).eigenvectors**4)",
    "singular vectors": f"sum(svd({MATRIX}).U**4)",
}
MORE_NAMES = {
    "products": "exp(x * y) * sin(z + x * y**2)",
    "quotients": "tanh(x + y * z) / (1 + x**2 + y**2)",
    "softmax": "softmax(stack(x * y, y + z, sin(x * z)))[1]",
    "norm": "vector_norm(stack(x, exp(y), z * x))",
    "prod": "prod(stack(x, x * y, y * z, z))",
    "solve": "sum(solve(stack(stack(2 + x, y), stack(sin(z), 3)), stack(x, y)))",
    "eigenvalues": "sum(eigvalsh(stack(stack(2 + x, y), stack(y, 3 + z)))**3)",
}
AT = {"x": 0.6, "y": 0.7, "z": 0.2}

LARGEST_POWER = 2.6
"""Series of one variable are quadratic; where derivatives are ops of their own (x to the power of x), nearly cubic."""
LARGEST_POWER_OF_MORE = 6.0
"""Of a path in which three names take turns: the product of three series, each quadratic in its own order."""


def live_nodes(call: str, text: str, order: int, names: str = "x") -> int:
    """Nodes that a plan runs. A path takes its names in turns."""
    how: dict[str, Any] = {"order": order}
    if call == "path":
        how = {"path": list((names * order)[:order])}
    elif call == "taylor":
        how |= {"direction": dict.fromkeys(names, 1.0)}
    inputs = {name: AT[name] for name in names}
    asked = question("nth" if call == "path" else call, text, inputs, limits=LIMITS, **how)
    return len(list(compile_question(asked, LIMITS).plan.steps))


def powers(counts: dict[int, int]) -> list[float]:
    """The p of counts ~ orderᵖ between each two orders."""
    orders = list(counts)
    return [float(np.log(counts[b] / counts[a]) / np.log(b / a)) for a, b in itertools.pairwise(orders)]


@pytest.mark.parametrize("call", ["nth", "taylor", "path"])
@pytest.mark.parametrize("name", ONE_NAME)
def test_growth_with_the_order_is_polynomial(name: str, call: str) -> None:
    counts = {order: live_nodes(call, ONE_NAME[name], order) for order in (2, 4, 8, 16, 32)}
    assert powers(counts)[-1] < LARGEST_POWER, counts


@pytest.mark.parametrize("name", MORE_NAMES)
def test_growth_along_a_path_of_several_names_is_polynomial(name: str) -> None:
    counts = {order: live_nodes("path", MORE_NAMES[name], order, "xyz") for order in (3, 6, 9, 12)}
    assert powers(counts)[-1] < LARGEST_POWER_OF_MORE, counts


def test_growth_of_what_was_measured() -> None:
    """The figures of one graph, as they are told."""
    text = ONE_NAME["quotient"]
    assert live_nodes("nth", text, 12) < 2_000
    assert live_nodes("path", text, 12) < 2_000
    assert live_nodes("path", MORE_NAMES["products"], 16, "xyz") < 3_500


@pytest.mark.parametrize("call", [call for call in UNARY if call.split("(")[0] in ops])
def test_growth_of_the_series_of_an_elementwise_op_is_quadratic(call: str) -> None:
    few, many = (live_nodes("nth", call, order) for order in (16, 32))
    # Four times as many, and some more where a short series has few terms to begin with; a cube would be eight times.
    assert many <= 5.5 * max(few, 4), f"{few} nodes at order 16, {many} at order 32"


@pytest.mark.parametrize("case", [case for case in cases() if case.moving], ids=ids)
def test_growth_of_the_series_of_every_op_is_polynomial(case: Case) -> None:
    few, many = series_nodes(case, 6), series_nodes(case, 12)
    assert many <= 8 * max(few, 4), f"{few} nodes at order 6, {many} at order 12"


def series_nodes(case: Case, order: int) -> int:
    scene = Scene(case, Graph())
    direction = {x: scene.leaf(f"t.{name}", case.arrays[name]) for name, x in scene.moving.items()}
    series = taylor(direction, scene.differentiable, order)
    return len(scene.graph.live([c for row in series for c in row if c is not None]))
