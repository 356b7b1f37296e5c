"""Limits: one below the maximum and at it a request passes, one above it is refused, before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError, LimitExceeded
from engine.limits import Limits
from tests.support.asking import LIMITS, ask, chain, compiled_question, node
from tests.support.memory import measured

MAXIMUM = 12
"""What each limit is lowered to, so that requests at it are cheap."""


@dataclass(frozen=True)
class Request:
    """Asks for `size` of what one limit counts."""

    name: str
    ask: Callable[[int, Limits], Any]
    maximum: int = MAXIMUM
    label: str = ""

    def __str__(self) -> str:
        return f"{self.name}-{self.label}" if self.label else self.name


def expanded(size: int, limits: Limits) -> Any:
    """A graph of exactly `size` nodes, its input and the chain behind it."""
    return compiled_question("value", chain(size - 1), {"x": 0.5}, limits=limits)


def timed(size: int, limits: Limits) -> Any:
    """A loop of some steps, under a limit of the seconds that so many as the maximum take."""
    text = "f(x) = x + 1\nscan(f, x, length={})"
    if limits.cost_seconds != 1_000:
        return compiled_question("value", text.format(size), {"x": 0.5}, limits=limits)
    seconds = compiled_question("value", text.format(1_000), {"x": 0.5}).plan.seconds
    try:
        return timed(size, replace(limits, cost_seconds=seconds))
    except LimitExceeded as error:
        assert error.maximum == seconds < error.actual
        raise LimitExceeded("cost_seconds", 1_000, size, "steps") from error


def stacked(size: int, limits: Limits) -> Any:
    return ask("value", {"nodes": [node("y", "stack", *["x"] * size)]}, {"x": 1.0}, limits=limits)


def held(size: int, limits: Limits) -> Any:
    """A run that holds `size` bytes at its peak: an input of one byte per element, and a copy."""
    return compiled_question("value", "~x", {"x": np.zeros(size // 2, bool)}, limits=limits)


def zeros(text: str, call: str = "value", **inputs: Any) -> Callable[[int, Limits], Any]:
    """An expression in which N stands for the size."""

    def request(size: int, limits: Limits) -> Any:
        return compiled_question(call, text.replace("N", str(size)), inputs, limits=limits)

    return request


def counting_up(size: int, limits: Limits) -> Any:
    return ask("value", f"c(x) = x < {size}\nf(x) = x + 1\nwhile_loop(c, f, x)", {"x": 0.0}, limits=limits)


def defined(size: int, body: Callable[[int], str], last: str, limits: Limits) -> Any:
    """A text with functions f0, f1, …, and a last line."""
    lines = [f"f{at}(x) = {body(at)}" for at in range(size)]
    return ask("value", "\n".join([*lines, last]), {"x": 1.0}, limits=limits)


def posted(size: int, limits: Limits) -> Any:
    functions = {f"f{at}": {"inputs": ["x"], "nodes": [node("y", "sin", "x")]} for at in range(size)}
    return ask("value", {"functions": functions, "nodes": [node("y", "sin", "x")]}, {"x": 1.0}, limits=limits)


REQUESTS = [
    Request("nodes", lambda n, limits: ask("value", chain(n), {"x": 0.5}, limits=limits), label="graph"),
    Request(
        "nodes",
        lambda n, limits: ask("value", "\n".join(f"n{at} = x + {at}" for at in range(n)), {"x": 0.5}, limits=limits),
        label="expression",
    ),
    Request("expanded_nodes", expanded),
    Request("functions", lambda n, limits: defined(n, lambda at: "x", "x", limits)),
    Request("functions", posted, label="posted"),
    Request(
        "function_depth",
        lambda n, limits: defined(n, lambda at: f"f{at - 1}(x)" if at else "x", f"f{n - 1}(x)", limits),
    ),
    Request("loop_steps", zeros("f(x) = x + 1\nscan(f, x, length=N)", x=1.0), label="scan"),
    Request("loop_steps", zeros("f(i, x) = x + 1\nfori_loop(0, N, f, x)", x=1.0), label="fori_loop"),
    Request("loop_steps", counting_up, label="while_loop"),
    Request("cost_seconds", timed, maximum=1_000),
    Request("dimension", zeros("zeros([0, N])")),
    Request("elements", zeros("broadcast_to(x, [N])", x=1.0), label="result"),
    Request("elements", zeros("zeros([N])"), label="created"),
    Request("elements", zeros("repeat(x, N)", x=[1.0]), label="repeated"),
    Request("rank", lambda n, limits: zeros("reshape(x, shape=S)".replace("S", str([1] * n)), x=1.0)(n, limits)),
    Request(
        "rank",
        lambda n, limits: zeros("expand_dims(x, axis=0)", x=np.ones((1,) * (n - 1)))(n, limits),
        label="expanded",
    ),
    Request(
        "arity", lambda n, limits: ask("value", {"nodes": [node("y", "stack", *"x" * n)]}, {"x": 1}, limits=limits)
    ),
    Request(
        "names",
        lambda n, limits: ask("value", "x0 + 1", {f"x{at}": 1.0 for at in range(n)}, limits=limits),
        label="inputs",
    ),
    Request(
        "names",
        lambda n, limits: ask(
            "value",
            "\n".join(f"n{at} = x + {at}" for at in range(n)),
            {"x": 1.0},
            outputs=[f"n{at}" for at in range(n)],
            limits=limits,
        ),
        label="outputs",
    ),
    Request("peak_bytes", held, maximum=1_000),
    Request(
        "nonzeros",
        lambda n, limits: ask("jacobian", "x * x", {"x": np.ones(n)}, sparse=True, limits=limits),
    ),
    Request("taylor_order", lambda n, limits: ask("nth", "sin(x)", {"x": 1.0}, order=n, limits=limits), label="nth"),
    Request(
        "taylor_order",
        lambda n, limits: ask("taylor", "sin(x)", {"x": 1.0}, direction={"x": 1.0}, order=n, limits=limits),
        label="taylor",
    ),
    Request(
        "tensor_order",
        lambda n, limits: compiled_question("tensors", "2 * x", {"x": 1.0}, order=n, limits=limits),
        maximum=5,
    ),
    Request("nested_order", lambda n, limits: ask("nth", "sin(x)", {"x": 1.0}, path=["x"] * n, limits=limits)),
    Request("expression_characters", lambda n, limits: ask("value", "x" * n, {"x" * n: 1.0}, limits=limits)),
    Request("expression_nesting", lambda n, limits: ask("value", "(" * n + "x" + ")" * n, {"x": 1.0}, limits=limits)),
    Request("constant_exponent", zeros("x**N", x=1.0)),
    Request("constant_exponent", zeros("x**-N", x=1.0), label="negative"),
    Request("linalg_dimension", lambda n, limits: ask("value", "inv(x)", {"x": np.eye(n)}, limits=limits)),
    Request("linalg_dimension", lambda n, limits: ask("value", "det(x)", {"x": np.eye(n)}, limits=limits), label="det"),
    Request(
        "einsum_operands",
        lambda n, limits: ask(
            "value",
            {"nodes": [node("y", "einsum", *"x" * n, equation=",".join("i" * n) + "->")]},
            {"x": [1.0, 2.0]},
            limits=limits,
        ),
    ),
]
GENEROUS = replace(LIMITS, rank=32, einsum_operands=32)


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_below_at_and_above(request_: Request) -> None:
    step = 2 if request_.name == "peak_bytes" else 1
    limits = replace(GENEROUS, **{request_.name: request_.maximum})
    request_.ask(request_.maximum - step, limits)
    request_.ask(request_.maximum, limits)
    with pytest.raises(LimitExceeded) as caught:
        request_.ask(request_.maximum + step, limits)
    error = caught.value
    assert (error.name, error.maximum) == (request_.name, request_.maximum)
    assert abs(error.actual) == request_.maximum + step
    assert request_.name in error.detail


def test_a_square_counts_its_elements() -> None:
    limits = replace(LIMITS, elements=9)
    ask("value", "eye(3)", {}, limits=limits)
    with pytest.raises(LimitExceeded):
        ask("value", "eye(4)", {}, limits=limits)


def test_every_limit_is_tested() -> None:
    assert {request.name for request in REQUESTS} == {field.name for field in fields(Limits)}


BOMBS = [
    "zeros([100000, 100000])",
    "eye(1000000)",
    "arange(1e12)",
    "linspace(0, 1, num=1000000000)",
    "repeat(x, 1000000000)",
    "tile(x, [100000, 100000])",
    "pad(x, 1000000000)",
    "outer(arange(1e6), arange(1e6))",
    "broadcast_to(x, [1000000, 1000000])",
    "kron(arange(1e6), arange(1e6))",
    "full([2147483647, 2147483647, 2147483647], x)",
    "one_hot([0], num_classes=1000000000)",
]


@pytest.mark.parametrize("text", BOMBS)
def test_a_bomb_is_refused_before_it_takes_memory(text: str) -> None:
    with measured() as peak, pytest.raises(LimitExceeded):
        ask("value", text, {"x": 1.0} if "full" in text else {"x": [1.0]})
    assert peak() < 32_000_000


def test_a_tower_of_powers_is_a_float() -> None:
    """Python would sit on 9**9**9 as a whole number for ever."""
    assert ask("value", "9**9**9", {})["values"]["out"] == np.inf


@pytest.mark.parametrize("text", ["reshape(zeros([0]), [0, 2147483647, 2147483647])", "zeros([0, 2147483647, 3e9])"])
def test_an_empty_tensor_hides_no_size_that_overflows(text: str) -> None:
    with pytest.raises(EngineError):
        ask("value", text, {})


def test_expansion_is_limited_not_what_was_sent() -> None:
    """A small request for a high order is refused by what it would become."""
    with pytest.raises(LimitExceeded) as caught:
        ask("nth", "tanh(tanh(tanh(x)))", {"x": 0.5}, order=60, limits=replace(LIMITS, expanded_nodes=2_000))
    assert caught.value.name == "expanded_nodes"


def test_the_peak_is_known_before_the_run() -> None:
    """Jacobian of a million by a million: refused at once."""
    with pytest.raises(LimitExceeded):
        compiled_question("jacobian", "sin(x)", {"x": np.zeros(1_000_000)})


def test_a_freed_value_does_not_count() -> None:
    """A chain of ten large steps holds no more than two of them at a time."""
    text = "; ".join(f"h{at + 1} = roll(h{at}, 1)" for at in range(10))
    compiled = compiled_question("value", f"h0 = sin(x); {text}; y = sum(h10)", {"x": np.zeros(10_000)}, outputs=["y"])
    assert 160_000 <= compiled.plan.peak_bytes <= 4 * 80_000 + 1_000


def test_the_planned_peak_bounds_what_a_run_takes() -> None:
    x = np.random.default_rng(0).normal(size=100_000)
    compiled = compiled_question("grad", "sum(sin(x) * exp(-x * x) / (1 + x**2))", {"x": x})
    tensors = compiled.bind()
    with measured() as peak:
        compiled.run(tensors)
    assert peak() + x.nbytes <= 1.05 * compiled.plan.peak_bytes
