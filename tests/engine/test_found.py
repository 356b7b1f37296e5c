"""Faults that were found from outside, each kept as the request that showed it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

from engine.calls import Question, compile_question
from engine.colouring import column_colours, star_colours, vertex_colours
from engine.errors import GraphCycle, InvalidGraph, NonFinite
from engine.execute import run
from engine.limits import Limits
from engine.program import Program, read_graph
from engine.tensors import read_tensor
from engine.text import parse, print_program
from tests.support.asking import answer_of, counting_tick


def asked(call: str, expression: str, inputs: dict[str, Any], **more: Any) -> Any:
    tensors = {name: read_tensor(value) for name, value in inputs.items()}
    compiled = compile_question(Question(call, parse(expression, Limits()), tensors, **more), Limits())
    return answer_of(compiled)


@pytest.mark.parametrize(
    ("expression", "x", "expected"),
    [("x**x", 1, [1, 2, 3, 8]), ("(1 + x)**x", 0, [0, 2, -3, 20])],
)
def test_a_moving_exponent_that_is_zero_has_its_higher_derivatives(
    expression: str, x: float, expected: list[float]
) -> None:
    rows = asked("nth", expression, {"x": x}, order=4)["derivatives"]
    np.testing.assert_allclose([row["value"] for row in rows], expected, atol=1e-12)


def test_the_hessian_of_a_power_is_symmetric_at_exponent_zero() -> None:
    blocks = asked("hessian", "x**y", {"x": 2, "y": 0})["hessian"]
    assert blocks["x"]["y"] == blocks["y"]["x"] == 0.5


def test_a_boolean_number_meets_an_unsigned_tensor() -> None:
    program = read_graph({"nodes": [{"id": "y", "op": "add", "inputs": ["x", True]}]}, Limits())
    tensors = {"x": read_tensor({"data": 5, "dtype": "uint64"})}
    compiled = compile_question(Question("value", program, tensors), Limits())
    assert answer_of(compiled)["values"]["y"] == 6


TWICE = "a = sin(x)\nb = sin(x)\n"


@pytest.mark.parametrize(
    ("loop", "value"),
    [
        ("f() = a * b\ng() = a\ncond(x > 0, f, g)", np.sin(1.0) ** 2),
        ("f(y) = y + a + b\ng(y) = y < a\nwhile_loop(g, f, x - 1)", 2 * np.sin(1.0)),
    ],
)
def test_a_branch_takes_one_node_under_two_names(loop: str, value: float) -> None:
    assert asked("value", TWICE + loop, {"x": 1.0})["values"]["out"] == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    [
        "c = 2.0\nf(h, x) = h * c + x\nscan(f, h, x)",
        "f(c, h, x) = h * c + x\nscan(f, 2.0, h, x, consts=1)",
        "c = 2.0\nf(h) = h * c\ng(h) = h\ncond(h > 0, f, g, h)",
        "f(c, h) = h * c\ng(c, h) = h\ncond(h > 0, f, g, 2.0, h)",
        "c = 2.0\nf(h) = h * c\ng(h) = h < c\nwhile_loop(g, f, h)",
        "f(c, h) = h * c\nf(2.0, h)",
        "f(h, x) = 2.0\nscan(f, h, x)",
    ],
)
def test_a_bare_number_is_weak_in_a_function_too(text: str) -> None:
    tensors = {"h": {"data": 0.5, "dtype": "float32"}, "x": {"data": [1, 2, 3], "dtype": "float32"}}
    assert asked("value", text, tensors)["values"]["out"].dtype == np.float32


def test_a_function_may_use_a_name_that_one_it_calls_takes_from_the_graph() -> None:
    """It was taken for a circle: the result of the call seemed to wait for the function's own name."""
    text = "inner(x) = x * h\nouter(a) = {\n  y = inner(a)\n  h = y + 1\n  h\n}\nh = 2 * z\nouter(3)"
    assert asked("value", text, {"z": 1.0})["values"]["out"] == 7
    again = parse(print_program(parse(text, Limits())), Limits())
    assert [each.name for each in again.functions] == ["inner", "outer"]


def calling(*nodes: dict[str, Any]) -> Program:
    """A call of a function of these nodes, of which `s` is the result."""
    function = {"inputs": ["x"], "nodes": list(nodes), "outputs": ["s"]}
    return read_graph({"functions": {"f": function}, "nodes": [{"id": "y", "op": "f", "inputs": ["z"]}]}, Limits())


def test_the_order_of_nodes_within_a_function_is_no_content() -> None:
    """What it takes from around it was counted up in the order in which its nodes were posted."""
    nodes = [
        {"id": "p", "op": "multiply", "inputs": ["x", "v"]},
        {"id": "q", "op": "multiply", "inputs": ["x", "w"]},
        {"id": "s", "op": "subtract", "inputs": ["p", "q"]},
    ]
    one, other = calling(*nodes), calling(*reversed(nodes))
    assert one.digest == other.digest
    assert one.inputs == other.inputs


def test_a_circle_within_a_function_is_pointed_at_there() -> None:
    with pytest.raises(GraphCycle) as caught:
        calling({"id": "s", "op": "sin", "inputs": ["t"]}, {"id": "t", "op": "sin", "inputs": ["s"]})
    assert caught.value.pointer == "/functions/f/nodes/0/inputs"


LEFT_OUT: list[tuple[str, dict[str, Any]]] = [
    (
        "layer_norm(x, [3], bias=b)",
        {"op": "layer_norm", "inputs": ["x", None, "b"], "attrs": {"normalized_shape": [3]}},
    ),
    (
        "layer_norm(x, [3], null, b)",
        {"op": "layer_norm", "inputs": ["x"], "attrs": {"normalized_shape": 3, "bias": "b"}},
    ),
    ("clip(x, null, 0.5)", {"op": "clip", "inputs": ["x"], "attrs": {"max": 0.5}}),
    ("clip(x, max=[0.5, 1, 2])", {"op": "clip", "inputs": ["x", None, {"data": [0.5, 1, 2]}]}),
    ("diff(x, append=x)", {"op": "diff", "inputs": ["x"], "attrs": {"append": "x"}}),
    ("lerp(x, b, weight=0.25)", {"op": "lerp", "inputs": [], "attrs": {"x2": "b", "weight": 0.25, "x1": "x"}}),
]
"""The same call in both forms, with an operand that is left out or named."""


@pytest.mark.parametrize(("text", "node"), LEFT_OUT, ids=[text for text, _ in LEFT_OUT])
def test_an_operand_can_be_left_out_or_named_in_both_forms(text: str, node: dict[str, Any]) -> None:
    inputs = {"x": [[0.1, 0.7, 2.5]], "b": [1, 2, 3]}
    expected = asked("grad", text, inputs, ones=True)["gradients"]
    program = read_graph({"nodes": [{"id": "y", **node}]}, Limits())
    tensors = {name: read_tensor(value) for name, value in inputs.items()}
    compiled = compile_question(Question("grad", program, tensors, ones=True), Limits())
    found = answer_of(compiled)["gradients"]
    for name, gradient in expected.items():
        np.testing.assert_array_equal(found[name], gradient)


@pytest.mark.parametrize(
    ("node", "detail", "pointer"),
    [
        ({"op": "add", "inputs": ["x", None]}, "add needs its operand x2", "/nodes/0/inputs/1"),
        ({"op": "add", "inputs": [], "attrs": {"x2": "x"}}, "add needs its operand x1", "/nodes/0/attrs/x1"),
        ({"op": "clip", "inputs": ["x", 0], "attrs": {"min": 1}}, "its operand min twice", "/nodes/0/attrs/min"),
        ({"op": "stack", "inputs": ["x", None]}, "stack needs its operand", "/nodes/0/inputs/1"),
        ({"op": "clip", "inputs": ["x"], "attrs": {"min": "not a name"}}, "is not the name", "/nodes/0/attrs/min"),
    ],
)
def test_an_operand_that_is_not_there_is_pointed_at(node: dict[str, Any], detail: str, pointer: str) -> None:
    with pytest.raises(InvalidGraph, match=detail) as caught:
        read_graph({"nodes": [{"id": "y", **node}]}, Limits())
    assert caught.value.pointer == pointer


def test_loops_that_do_nothing_can_be_stopped() -> None:
    """A step without an op has no chunk of work, so nobody looked at the clock."""
    compiled = compile_question(
        Question("value", parse("f(h) = h\nscan(f, x, length=1000)", Limits()), {"x": read_tensor(1.0)}), Limits()
    )
    with pytest.raises(TimeoutError):
        run(compiled.plan, compiled.bind(), counting_tick(50))


def test_a_full_pattern_has_a_colour_for_each_column_at_once() -> None:
    """Looking at each of eight million entries took far longer than a deadline."""
    pattern = sparse.csr_array(np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool))
    assert column_colours(pattern, counting_tick(0)).tolist() == [0, 1, -1, 2]


@pytest.mark.parametrize("colour", [column_colours, star_colours, vertex_colours])
def test_colouring_can_be_stopped(colour: Any) -> None:
    ones = np.ones((300, 300), bool)
    blocks = sparse.csr_array(sparse.block_diag([ones, ones]))
    with pytest.raises(TimeoutError):
        colour(blocks, counting_tick(0))


def test_a_number_that_went_bad_in_a_loop_is_not_laid_to_its_derivative() -> None:
    with pytest.raises(NonFinite) as caught:
        asked("grad", "f(h) = log(h)\ny = scan(f, x, length=3)", {"x": 0.0}, nan_policy="raise")
    assert caught.value.detail == "in what scan runs: log gave a NaN or an infinity from finite operands"
