"""Every limit: what is at it passes, what is above it is refused by its name, and nothing of that size is made.

A row is a limit, its setting, a request at it and one above it. A test holds the rows against the limits there are.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from typing import Any, NamedTuple

import pytest

from engine.limits import Limits
from tests.app.support import ask, graph, node, post, problem
from tests.conftest import AppClient


class Bound(NamedTuple):
    """A limit's name and setting, and requests at and above it."""

    name: str
    maximum: int
    at: dict[str, Any]
    above: dict[str, Any]
    path: str = "/grad/value"


def chain(length: int) -> dict[str, Any]:
    return {"graph": graph(*(node(f"n{i}", "sin", f"n{i - 1}") for i in range(length))), "inputs": {"n-1": 1}}


def several(count: int) -> dict[str, Any]:
    return {"expression": "x", "inputs": {"x": 1} | {f"y{i}": 1 for i in range(count - 1)}}


def outputs(count: int) -> dict[str, Any]:
    names = [f"n{i}" for i in range(count)]
    return {"graph": graph(*(node(name, "sin", 1) for name in names), outputs=names)}


X = {"inputs": {"x": 2}}
BOUNDS = [
    Bound("nodes", 3, chain(3), chain(4)),
    Bound(
        "expanded_nodes",
        10,
        {"expression": "x", **X, "order": 2},
        {"expression": "tanh(x)", **X, "order": 9},
        "/grad/nth",
    ),
    Bound("functions", 1, {"expression": "f(x) = x\nf(1)"}, {"expression": "f(x) = x\ng(x) = x\nf(1)"}),
    Bound("function_depth", 1, {"expression": "f(x) = x\nf(1)"}, {"expression": "f(x) = x\ng(x) = f(x)\ng(1)"}),
    Bound(
        "loop_steps",
        3,
        {"expression": "f(x) = x + 1\nscan(f, 0, length=3)"},
        {"expression": "f(x) = x + 1\nscan(f, 0, length=4)"},
    ),
    Bound("elements", 100, {"expression": "sum(ones([10, 10]))"}, {"expression": "sum(ones([10, 10, 2]))"}),
    Bound("elements", 3, {"expression": "x", "inputs": {"x": [1] * 3}}, {"expression": "x", "inputs": {"x": [1] * 4}}),
    Bound("elements", 3, {"expression": "sum([1, 2, 3])"}, {"expression": "sum([1, 2, 3, 4])"}),
    Bound("rank", 2, {"expression": "x", "inputs": {"x": [[1]]}}, {"expression": "x", "inputs": {"x": [[[1]]]}}),
    Bound("rank", 2, {"expression": "ones([1, 1])"}, {"expression": "ones([1, 1, 1])"}),
    Bound(
        "arity",
        3,
        {"expression": "concat([x, x, x], axis=0)", "inputs": {"x": [1]}},
        {"expression": "concat([x, x, x, x], axis=0)", "inputs": {"x": [1]}},
    ),
    Bound("names", 3, several(3), several(4)),
    Bound("names", 3, outputs(3), outputs(4)),
    Bound(
        "peak_bytes",
        10_000,
        {"expression": "sum(arange(100) * x)", **X},
        {"expression": "sum(exp(arange(2000) * x))", **X},
    ),
    Bound(
        "nonzeros",
        4,
        {"expression": "sum(x) * x", "inputs": {"x": [1, 2]}, "sparse": True},
        {"expression": "sum(x) * x", "inputs": {"x": [1, 2, 3]}, "sparse": True},
        "/grad/jacobian",
    ),
    Bound(
        "taylor_order",
        3,
        {"expression": "exp(x)", **X, "order": 3},
        {"expression": "exp(x)", **X, "order": 4},
        "/grad/nth",
    ),
    Bound(
        "taylor_order",
        3,
        {"expression": "exp(x)", **X, "direction": {"x": 1}, "order": 3},
        {"expression": "exp(x)", **X, "direction": {"x": 1}, "order": 4},
        "/grad/taylor",
    ),
    Bound(
        "tensor_order",
        2,
        {"expression": "exp(x)", **X, "order": 2},
        {"expression": "exp(x)", **X, "path": ["x"] * 3},
        "/grad/tensors",
    ),
    Bound(
        "nested_order",
        2,
        {"expression": "exp(x)", **X, "path": ["x"] * 2},
        {"expression": "exp(x)", **X, "path": ["x"] * 3},
        "/grad/nth",
    ),
    Bound("expression_characters", 20, {"expression": "x" + " " * 19, **X}, {"expression": "x" + " " * 20, **X}),
    Bound("expression_nesting", 3, {"expression": "(((x)))", **X}, {"expression": "((((x))))", **X}),
    Bound("constant_exponent", 8, {"expression": "x**8", **X}, {"expression": "x**9", **X}),
    Bound("linalg_dimension", 2, {"expression": "inv(eye(2))"}, {"expression": "inv(eye(3))"}),
    Bound(
        "einsum_operands",
        2,
        {"expression": "einsum('i,i', x, x)", "inputs": {"x": [1]}},
        {"expression": "einsum('i,i,i', x, x, x)", "inputs": {"x": [1]}},
    ),
]


@pytest.mark.parametrize("bound", BOUNDS, ids=[f"{each.name}-{i}" for i, each in enumerate(BOUNDS)])
def test_at_the_limit_is_allowed_and_above_it_is_not(app_client: AppClient, bound: Bound) -> None:
    client = app_client(limits=Limits(**{bound.name: bound.maximum}))
    ask(client, bound.path, bound.at)
    found = problem(post(client, bound.path, bound.above))
    assert (found["code"], found["status"]) == ("limit_exceeded", 422)
    assert found["limit"]["name"] == bound.name
    assert found["limit"]["max"] == bound.maximum
    assert bound.name in found["detail"]


def test_every_limit_of_the_engine_has_a_row() -> None:
    assert {each.name for each in fields(Limits)} == {each.name for each in BOUNDS}


def test_the_answer_has_a_limit(app_client: AppClient) -> None:
    client = app_client(answer_bytes=80)
    ask(client, "/grad/value", {"expression": "ones([10])"})
    found = problem(post(client, "/grad/value", {"expression": "ones([11])"}))
    assert found["limit"] == {"name": "answer_bytes", "max": 80, "actual": 88}


BOMBS = [
    "zeros([100000, 100000])",
    "ones([2147483647, 2147483647, 2147483647])",
    "eye(1000000)",
    "eye(9223372036854775807)",
    "arange(1000000000000)",
    "linspace(0, 1, 1000000000)",
    "repeat([1, 2], 1000000000)",
    "tile([1, 2], [100000, 100000])",
    "pad([1], 1000000000)",
    "outer(arange(1000000), arange(1000000))",
    "broadcast_to(1, [1000000, 1000000])",
    "one_hot([1, 2], num_classes=1000000000)",
    "einsum('i,j,k->ijk', arange(10000), arange(10000), arange(10000))",
    "9**9**9**9**9",
    "x**999999999",
    "zeros([2147483647] * 1)",
    "reshape(x, [2147483647, 2147483647, 0])",
    "zeros([0, 2147483647, 2147483647, 2147483647, 2147483647])",
]


@pytest.mark.parametrize("expression", BOMBS)
@pytest.mark.parametrize("path", ["/grad/value", "/grad", "/graphs/inspect"])
def test_a_bomb_takes_no_memory(app_client: AppClient, path: str, expression: str) -> None:
    """NumPy's own allocations count, too: it tells tracemalloc of them."""
    client = app_client()
    body = {"expression": expression, "inputs": {"x": 2}} | ({"grad_outputs": "ones"} if path == "/grad" else {})
    tracemalloc.start()
    try:
        response = post(client, path, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert response.status_code in (200, 422), response.text
    assert peak < 16 << 20


def test_orders_multiply_what_was_sent_and_that_is_what_counts(app_client: AppClient) -> None:
    client = app_client(limits=Limits(expanded_nodes=20_000), seconds=5)
    body = {"expression": "tanh(sin(exp(tanh(x))))", "inputs": {"x": 1}, "order": 60}
    assert problem(post(client, "/grad/nth", body))["limit"]["name"] == "expanded_nodes"
