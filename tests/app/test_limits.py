"""Every limit: one below it and at it a request passes, one above it is refused by its name, and in little memory.

A row is a limit, its setting, and a request for so many of what it counts. A test holds the rows against the limits
there are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import pytest

from app.services.limits import OWN
from app.settings import Settings
from engine.limits import Limits
from tests.app.support import ask, graph, node, post, problem
from tests.conftest import AppClient
from tests.support.asking import compiled_question
from tests.support.memory import measured

X = {"inputs": {"x": 2}}


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


def test_the_answer_has_a_limit(app_client: AppClient) -> None:
    """And what is too much as JSON may be asked for in another form."""
    client = app_client(answer_bytes=80)
    ask(client, "/grad/value", {"expression": "ones([9])"})
    ask(client, "/grad/value", {"expression": "ones([10])"})
    found = problem(post(client, "/grad/value", {"expression": "ones([11])"}))
    assert found["limit"] == {"name": "answer_bytes", "max": 80, "actual": 88}
    assert "msgpack" in found["detail"] and "base64" in found["detail"]


def test_json_nesting_has_a_limit(app_client: AppClient) -> None:
    client = app_client(json_nesting=6)
    for depth in (3, 4):
        ask(client, "/grad/value", {"expression": "x", "inputs": {"x": axes(depth)}})
    found = problem(post(client, "/grad/value", {"expression": "x", "inputs": {"x": axes(5)}}))
    assert (found["status"], found["limit"]) == (400, {"name": "json_nesting", "max": 6, "actual": 7})


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
    settings = Settings()
    expected = asdict(settings.limits) | {name: getattr(settings, name) for name in OWN}
    assert {name: each["max"] for name, each in listed.items()} == expected
    assert all(each["doc"] for each in listed.values())


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
