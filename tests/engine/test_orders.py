"""High orders: exact to rounding, and without recursion however deep the graph is. What they cost is in test_growth."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mpmath import mp

from engine.core import Graph, Node, ops
from engine.execute import run
from engine.plan import make_plan
from engine.program import build, read_graph, write_graph
from engine.text import parse, print_program
from engine.transforms.forward import forward
from engine.transforms.reverse import reverse
from engine.transforms.taylor import taylor
from engine.types import Spec
from tests.support.asking import LIMITS, ask, built, chain, numbers
from tests.support.pairs import OPERANDS, PAIRS, PIECES
from tests.support.references import SLOW, UNARY, derivatives

ORDER, LOWER_ORDER = 30, 20
TOLERANCE, COMPOSED_TOLERANCE = 1e-12, 5e-12
"""Of one op, and of several, whose series are products of series with the rounding of each."""
NEIGHBOURS = 0.25
"""A Taylor coefficient next to zero has no digits of its own: it is held against this part of its neighbours."""

CALLS = [call for call in UNARY if call.split("(")[0] in ops]


def errors(found: list[float], expected: list[Any]) -> list[float]:
    """By order from 1, the error of a derivative relative to it, or to its neighbours in the series."""
    sizes = [abs(each) / mp.factorial(k) for k, each in enumerate(expected)]
    around = zip(sizes[:-1], sizes[1:], [*sizes[2:], 0], strict=True)
    scales = [max(b, NEIGHBOURS * a, NEIGHBOURS * c) for a, b, c in around]
    pairs = zip(found, expected[1:], scales, strict=True)
    return [float(abs(mp.mpf(a) - b) / mp.factorial(k) / s) if s else abs(a) for k, (a, b, s) in enumerate(pairs, 1)]


@pytest.mark.parametrize("call", CALLS)
def test_derivatives_to_high_order(call: str) -> None:
    low, high = ops.find(call.split("(", maxsplit=1)[0]).domain[0]
    x = low + 0.37 * (high - low)
    order = LOWER_ORDER if call in SLOW else ORDER
    rows = ask("nth", call, {"x": x}, order=order)["derivatives"]
    assert [row["order"] for row in rows] == list(range(1, order + 1))
    worst = errors([float(row["value"]) for row in rows], derivatives(call, x, order))
    assert max(worst) < TOLERANCE, f"order {1 + int(np.argmax(worst))} is off by {max(worst):.2g}"


def test_references_are_many() -> None:
    """An op without one is held to nested forward mode only (test_ops): adding an op asks for no entry here."""
    assert len(CALLS) >= 40


LOOSE = {("pow({}, {})", ("exp(x)", "x**2")): 5e-11}
"""exp(x)**(x**2) is exp(x**3), by terms that are larger than their sum."""


@pytest.mark.parametrize("operands", OPERANDS, ids=str)
@pytest.mark.parametrize("call", [call for call in PAIRS if call.split("(")[0] in ops])
def test_derivatives_of_pairs_to_high_order(call: str, operands: tuple[str, str]) -> None:
    """By the one operand, by the other, and by both at once."""
    tolerance = LOOSE.get((call, operands), TOLERANCE)
    hold_to(call.format(*operands), 0.6, lambda x: PAIRS[call](*OPERANDS[operands](x)), tolerance)


@pytest.mark.parametrize("call", [call for call in PIECES if call.split("(")[0] in ops])
def test_derivatives_within_a_piece_to_high_order(call: str) -> None:
    x, function = PIECES[call]
    hold_to(call, x, function)


def hold_to(text: str, x: float, function: Callable[[Any], Any], tolerance: float = TOLERANCE) -> None:
    """Hold the derivatives of order 1 to ORDER against those of a function of mpmath's."""
    rows = ask("nth", text, {"x": x}, order=ORDER)["derivatives"]
    with mp.workdps(40):
        expected = [c * mp.factorial(k) for k, c in enumerate(mp.taylor(function, mp.mpf(x), ORDER))]
    worst = errors([float(row["value"]) for row in rows], expected)
    assert max(worst) < tolerance, f"order {1 + int(np.argmax(worst))} is off by {max(worst):.2g}"


COMPOSED = {
    "exp(sin(x) * tanh(x)) / (1 + x**2)": lambda x: mp.exp(mp.sin(x) * mp.tanh(x)) / (1 + x**2),
    "sin(exp(x))": lambda x: mp.sin(mp.exp(x)),
    "x**x": lambda x: x**x,
    "pow(1 + x**2, -0.5)": lambda x: (1 + x**2) ** mp.mpf(-0.5),
    "log(1 + exp(3 * x)) * atan(x)": lambda x: mp.log(1 + mp.exp(3 * x)) * mp.atan(x),
    "atan2(sin(x), 2 + x)": lambda x: mp.atan2(mp.sin(x), 2 + x),
    "hypot(x, 1 + x)": lambda x: mp.hypot(x, 1 + x),
    "logaddexp(x, 2 * x)": lambda x: mp.log(mp.exp(x) + mp.exp(2 * x)),
    "xlogy(x, 1 + x)": lambda x: x * mp.log(1 + x),
    "logsumexp(stack(x, x**2, sin(x)))": lambda x: mp.log(mp.exp(x) + mp.exp(x**2) + mp.exp(mp.sin(x))),
    "softmax(stack(x, x**2, sin(x)))[1]": lambda x: mp.exp(x**2) / (mp.exp(x) + mp.exp(x**2) + mp.exp(mp.sin(x))),
    "vector_norm(stack(x, exp(x)))": lambda x: mp.sqrt(x**2 + mp.exp(2 * x)),
    "prod(stack(x, exp(x), sin(x)))": lambda x: x * mp.exp(x) * mp.sin(x),
    "var(stack(x, exp(x)))": lambda x: (x - mp.exp(x)) ** 2 / 4,
    "std(stack(x, exp(x), x**2))": lambda x: mp.sqrt(
        (x**2 + mp.exp(2 * x) + x**4) / 3 - ((x + mp.exp(x) + x**2) / 3) ** 2
    ),
    "sum(inv(stack(stack(2 + x, 1), stack(sin(x), 3))))": lambda x: (5 + x - 1 - mp.sin(x)) / (3 * (2 + x) - mp.sin(x)),
    "sum(solve(stack(stack(2 + x, 1), stack(sin(x), 3)), stack(x, 1)))": lambda x: (
        (3 * x - 1 + 2 + x - x * mp.sin(x)) / (3 * (2 + x) - mp.sin(x))
    ),
    "det(stack(stack(2 + x, 1), stack(sin(x), exp(x))))": lambda x: (2 + x) * mp.exp(x) - mp.sin(x),
}


@pytest.mark.parametrize("text", COMPOSED)
@pytest.mark.parametrize("call", ["nth", "path", "taylor"])
def test_compositions_to_high_order(text: str, call: str) -> None:
    """One order after the other, along a path that goes the same way again and again, and as Taylor coefficients."""
    x, order = 0.6, {"nth": 20, "path": 16, "taylor": 20}[call]
    expected = [c * mp.factorial(k) for k, c in enumerate(mp.taylor(COMPOSED[text], mp.mpf(x), order))]
    if call == "taylor":
        series = ask("taylor", text, {"x": x}, direction={"x": 1.0}, order=order)["coefficients"]["out"]
        found = [float(c) * math.factorial(k) for k, c in enumerate(series)][1:]
    else:
        how: dict[str, Any] = {"path": ["x"] * order} if call == "path" else {"order": order}
        found = [float(row["value"]) for row in ask("nth", text, {"x": x}, **how)["derivatives"]]
    worst = errors(found, expected)
    assert max(worst) < COMPOSED_TOLERANCE, f"order {1 + int(np.argmax(worst))} is off by {max(worst):.2g}"


def test_a_high_order_of_a_polynomial_is_zero() -> None:
    rows = ask("nth", "x**3 + 2*x", {"x": 1.5}, order=8)["derivatives"]
    assert [float(row["value"]) for row in rows] == [8.75, 9.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_mixed_derivatives_commute() -> None:
    """∂x∂y∂y∂z in every order of the path is one number."""
    text, at = "exp(x * y) * sin(z + x * y**2)", {"x": 0.3, "y": 0.7, "z": 0.2}
    paths = (["x", "y", "y", "z"], ["y", "z", "y", "x"], ["z", "y", "x", "y"])
    found = [float(ask("nth", text, at, path=path)["derivatives"][-1]["value"]) for path in paths]
    assert found == pytest.approx([found[0]] * 3, rel=1e-13)


@pytest.mark.parametrize("path", ["xyxyxyxyxyxyxyxy", "yyyyyyyyxxxxxxxx", "xxyzzyxzyxzzzyx"])
def test_mixed_derivatives_to_high_order(path: str) -> None:
    """Of a product of powers and exponentials, where every partial derivative is known."""
    at = {"x": 0.3, "y": 0.7, "z": 1.2}
    rows = ask("nth", "exp(2 * x) * sin(y) / z", at, path=list(path), wrt=None)["derivatives"]
    for k, row in enumerate(rows, 1):
        a, b, c = (path[:k].count(name) for name in "xyz")
        expected = (
            2**a * math.exp(0.6) * math.sin(0.7 + b * math.pi / 2) * (-1) ** c * math.factorial(c) / 1.2 ** (c + 1)
        )
        assert float(row["value"]) == pytest.approx(expected, rel=1e-12), path[:k]


def test_vectors_have_elementwise_orders() -> None:
    x = np.linspace(-1.0, 1.0, 5)
    rows = ask("nth", "sin(2 * x)", {"x": x}, order=6)["derivatives"]
    assert rows[-1]["value"] == pytest.approx(-64 * np.sin(2 * x), rel=1e-13)


# Depth

LENGTH = 100_000
DEEP = chain(LENGTH - 1)
X = 0.5


def deep_nodes(length: int) -> tuple[list[Node], dict[str, Node]]:
    made = build(read_graph(chain(length), LIMITS), {"x": Spec((), np.dtype(float))}, Graph())
    return list(made.outputs.values()), made.inputs


def fixed_point() -> tuple[float, float]:
    """sin applied again and again to X, and its derivative."""
    value, slope = X, 1.0
    for _ in range(LENGTH - 1):
        value, slope = math.sin(value), slope * math.cos(value)
    return value, slope


@pytest.fixture(scope="module")
def deep() -> tuple[Node, Node]:
    (y,), inputs = deep_nodes(LENGTH - 1)
    return inputs["x"], y


@pytest.fixture(autouse=True)
def shallow_stack() -> Any:
    """A stack that would not hold a fiftieth of the chain."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(2_000)
    started = time.monotonic()
    yield
    sys.setrecursionlimit(before)
    assert time.monotonic() - started < 60


def test_a_deep_chain_is_read_and_written() -> None:
    program = read_graph(DEEP, LIMITS)
    assert program.inputs == ("x",)
    assert read_graph(write_graph(program), LIMITS).digest == program.digest


def test_a_deep_chain_is_differentiated_in_reverse(deep: tuple[Node, Node]) -> None:
    x, y = deep
    (g,) = reverse([(y, y.graph.constant(1.0))], [x])
    assert g is not None
    value, slope = numbers([y, g], {"x": np.array(X)})
    assert (float(value), float(slope)) == pytest.approx(fixed_point(), rel=1e-12)


def test_a_deep_chain_is_differentiated_forward(deep: tuple[Node, Node]) -> None:
    x, y = deep
    (t,) = forward({x: y.graph.constant(1.0)}, [y])
    assert t is not None
    assert float(numbers([t], {"x": np.array(X)})[0]) == pytest.approx(fixed_point()[1], rel=1e-12)


def test_a_deep_chain_has_a_second_order() -> None:
    """c₂ of sin u is cos u·u₂ − sin u·u₁²/2."""
    length = LENGTH // 4
    (y,), inputs = deep_nodes(length)
    ((_, _, second),) = taylor({inputs["x"]: y.graph.constant(1.0)}, [y], 2)
    assert second is not None
    u, u1, u2 = X, 1.0, 0.0
    for _ in range(length):
        u, u1, u2 = math.sin(u), math.cos(u) * u1, math.cos(u) * u2 - math.sin(u) * u1 * u1 / 2
    assert float(numbers([second], {"x": np.array(X)})[0]) == pytest.approx(u2, rel=1e-10)


def test_a_deep_chain_is_planned_and_run(deep: tuple[Node, Node]) -> None:
    _, y = deep
    plan = make_plan([y])
    assert plan.flops >= LENGTH - 1
    assert float(run(plan, {"x": np.array(X)})[0]) == pytest.approx(fixed_point()[0], rel=1e-12)


def test_a_deep_chain_is_printed_and_parsed() -> None:
    program = read_graph(DEEP, LIMITS)
    text = print_program(program)
    roomy = replace(LIMITS, expression_characters=10**8)
    assert parse(text, roomy).digest == program.digest


def test_a_deep_expression_is_parsed_in_one_line() -> None:
    """x + x + x + …: as deep a tree as the characters allow."""
    text = " + ".join(["x"] * 15_000)
    (node,), _ = built(text, {"x": ()})
    assert float(numbers([node], {"x": np.array(1.0)})[0]) == 15_000
