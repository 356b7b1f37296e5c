"""What a check says: which way it took, which elements are off, and which nodes to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.calls import Question
from engine.check import LISTED, check
from engine.core import Node, Op, Operand, ops
from engine.derivative import Custom, Linear, Partials
from engine.families import batch_aligned, same_shape
from engine.limits import Limits
from engine.program import Program, Ref, Statement
from engine.warnings import CODES
from tests.support.asking import question, tensors

X = np.array([0.3, -0.7, 1.9])


def checked(text: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = check(question("check", text, inputs, **more), Limits())
    assert all(notice.code in CODES for notice in found.get("warnings", []))
    return found


def said(text: str, inputs: dict[str, Any], **more: Any) -> set[tuple[str, str | None]]:
    """Code and node of each warning."""
    return {(notice.code, notice.node) for notice in checked(text, inputs, **more).get("warnings", [])}


# Which nodes

POINTED: list[tuple[str, Any, set[tuple[str, str | None]]]] = [
    ("h = sin(x); y = h * x", 0.3, set()),
    ("h = detach(x); y = h * x", 3.0, {("untracked", "h")}),
    ("h = relu(x); y = h * 2", [1.0, 0.0, 3.0], {("kink", "h")}),
    ("a = sin(x); h = abs(a); b = exp(h); y = b + x", 0.0, {("kink", "h")}),
    ("h = max(x); y = h * h", [1.0, 2.0, 2.0], {("kink", "h")}),
    ("h = floor(x); y = h * x", 2.0, {("discontinuity", "h")}),
    ("c = x > 0; y = where(c, x, -x)", 0.0, {("discontinuity", "c"), ("kink", "y")}),
    ("h = sqrt(x); y = h + x", 0.0, {("edge_of_domain", "h"), ("non_finite_gradient", "h")}),
    ("h = cbrt(x); y = h + x", 0.0, {("non_finite_gradient", "h")}),
    ("a = sin(x); h = grad_scale(a, scale=2); y = h * x", 0.3, {("derivative_differs", "h")}),
    ("a = sin(x); h = grad_clip(a, max=0.1); y = exp(h)", 0.3, {("derivative_differs", "h")}),
    ("y = sum(cumulative_prod(x)**3)", [0.0, 1.0, 2.0], set()),
    ("a = relu(x); h = grad_scale(x, scale=3); y = sum(a * h)", [1.0, -2.0], {("derivative_differs", "h")}),
]


@pytest.mark.parametrize(("text", "x", "expected"), POINTED)
def test_the_nodes_to_look_at_are_named(text: str, x: Any, expected: set[tuple[str, str | None]]) -> None:
    assert said(text, {"x": x}) == expected


def test_a_fault_in_one_op_of_many_is_found_in_the_reverse_rule_alone() -> None:
    wrong = planted(np.sin, Custom(lambda node, t: ops.cos(node.inputs[0]) * t, lambda node, g: g), kinds="f")
    nodes = [("a", ops.exp, "x"), ("b", wrong, "a"), ("c", ops.tanh, "b"), ("y", ops.sum, "c")]
    found = check(of_nodes(nodes, X), Limits())
    assert not found["passed"]
    assert [(notice.code, notice.node) for notice in found["warnings"]] == [("derivative_differs", "b")]
    assert found["wrt"]["x"]["detail"].endswith("; look at b (derivative_differs)")


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("text", ["exp(sin(x)) / (1 + x**2)", "sum(softmax(x)**2)", "prod(x)", "sin(40 * x)", "x / 3"])
def test_nothing_is_said_of_what_is_smooth(text: str, order: int) -> None:
    found = checked(text, {"x": X}, order=order)
    assert found["passed"] and "warnings" not in found
    assert "detail" not in found["wrt"]["x"]


@pytest.mark.parametrize("x", [1e8, 1e-8, 0.0])
def test_no_node_is_blamed_for_a_scale_of_its_own(x: float) -> None:
    assert said("y = cos(x) * grad_scale(x, scale=1)", {"x": x}) == set()


def test_a_derivative_between_the_sides_of_a_jump_does_not_pass() -> None:
    """On one side 5 is the slope, on the other there is none: 7 lies between 5 and an infinity."""
    assert checked("floor(x) + 5 * x", {"x": 2.0})["passed"]
    assert not checked("floor(x) + 5 * grad_scale(x, scale=1.4)", {"x": 2.0})["passed"]


# Which elements


def test_the_worst_elements_are_listed_and_the_first_are_spelt() -> None:
    x = np.arange(1.0, 11.0)
    row = checked("y = sum(x * detach(x))", {"x": x})["wrt"]["x"]
    assert [each["index"] for each in row["failed"]] == [[at] for at in range(9, 9 - LISTED, -1)]
    assert row["worst"] == row["failed"][0] == {"index": [9], "analytic": 10.0, "numerical": pytest.approx(20.0)}
    assert row["detail"].startswith("x[9]: analytic 10, numerical 20; x[8]: ")
    assert "; and 7 more" in row["detail"]


def test_only_what_is_off_is_listed() -> None:
    text = "a = x[:2]; b = x[2:]; y = sum(a**2) + sum(b * detach(b))"
    row = checked(text, {"x": [1.0, 2.0, 3.0]})["wrt"]["x"]
    assert [each["index"] for each in row["failed"]] == [[2]]


def test_one_wrt_may_fail_alone() -> None:
    found = checked("x**2 + detach(y) * y", {"x": 1.0, "y": 2.0})
    assert (found["wrt"]["x"]["passed"], found["wrt"]["y"]["passed"], found["passed"]) == (True, False, False)


# Which way


def planted(kernel: Callable[..., Any], derivative: Any, kinds: str = "fc") -> Op:
    """An op that only this module knows."""
    return Op(
        "planted",
        "An op.",
        operands=(Operand("x", kinds),),
        kernel=kernel,
        derivative=derivative,
        shape=same_shape,
        batch=batch_aligned,
    )


def of_nodes(nodes: list[tuple[str, Op, str]], x: Any, order: int = 1) -> Question:
    statements = tuple(Statement(name, op, (Ref(before),)) for name, op, before in nodes)
    program = Program(statements, (("y", Ref(nodes[-1][0])),))
    return Question("check", program, tensors({"x": x}), order=order)


def of_one(op: Op, x: Any = X) -> dict[str, Any]:
    return check(of_nodes([("y", op, "x")], x), Limits())["wrt"]["x"]  # type: ignore[no-any-return]


def cosine(factor: float) -> Partials:
    return Partials((lambda out, x: factor * ops.cos(x),))


def test_a_complex_step_finds_what_differences_cannot() -> None:
    for factor, by_step in ((1.0, True), (1.0 + 1e-8, False)):
        row = of_one(planted(np.sin, cosine(factor)))
        assert (row["method"], row["passed"]) == ("complex_step", by_step)
        row = of_one(planted(np.sin, cosine(factor), kinds="f"))
        assert (row["method"], row["passed"]) == ("differences", True)
    assert of_one(planted(np.sin, cosine(1.0)))["max_rel_error"] < 1e-15


NOT_HOLOMORPHIC: list[tuple[str, Callable[..., Any], Any]] = [
    ("conj", np.conj, Partials((lambda out, x: 1.0,))),
    ("real", lambda x: x.real.astype(x.dtype), Partials((lambda out, x: 1.0,))),
    ("abs", lambda x: np.abs(x).astype(x.dtype), Partials((lambda out, x: ops.sign(x),))),
    ("a little abs", lambda x: x + 0.1 * np.abs(x), Partials((lambda out, x: 1.0 + 0.1 * ops.sign(x),))),
    ("norm", lambda x: np.full_like(x, np.vdot(x, x)), Linear(lambda g, x: 2.0 * x * ops.sum(g))),
]


@pytest.mark.parametrize(("name", "kernel", "derivative"), NOT_HOLOMORPHIC, ids=[row[0] for row in NOT_HOLOMORPHIC])
def test_what_is_not_holomorphic_is_left_to_differences(name: str, kernel: Any, derivative: Any) -> None:
    """Its derivative is right for real numbers, and a complex step would call it wrong."""
    row = of_one(planted(kernel, derivative))
    assert (row["method"], row["passed"]) == ("differences", True)


def rounded(x: Any) -> Any:
    """sin x, with a rounding in the imaginary part that is as large as the real one's."""
    return np.sin(x) + (1e-17j if x.dtype.kind == "c" else 0.0)


def turned(x: Any) -> Any:
    """x², by way of numbers that are imaginary."""
    return ((x + 1j * x) * (x - 1j * x) / 2).astype(x.dtype) if x.dtype.kind == "c" else x * x


def test_a_step_that_rounding_would_swallow_is_not_taken() -> None:
    row = of_one(planted(rounded, cosine(1.0)))
    assert (row["method"], row["passed"]) == ("differences", True)
    inside = planted(turned, Partials((lambda out, x: 2.0 * x,)))
    assert of_one(inside)["passed"]


def test_where_complex_numbers_leave_the_domain_differences_go_on() -> None:
    """The root of a negative number is no NaN for complex numbers: what is selected elsewhere is not the same."""
    root = planted(np.sqrt, Partials((lambda out, x: 0.5 * ops.reciprocal(out),)))
    assert of_one(root, 4.0)["method"] == "complex_step"
    row = of_one(root, -4.0)
    assert (row["method"], row["passed"]) == ("differences", False)


def test_what_is_ill_conditioned_is_given_its_rounding() -> None:
    """The condition number of this matrix is 1.5e7: no inverse of it has more than nine digits."""

    def back(node: Node, g: Node) -> Node:
        turned = ops.matrix_transpose(node)
        return -(turned @ g @ turned)

    hilbert = 1.0 / (np.arange(6)[:, None] + np.arange(6) + 1.0)
    row = of_one(planted(np.linalg.inv, Custom(lambda node, t: -(node @ t @ node), back)), hilbert)
    assert (row["method"], row["passed"]) == ("complex_step", True)
    wrong = planted(np.linalg.inv, Custom(lambda node, t: -(node @ t @ node), lambda node, g: 1.01 * back(node, g)))
    assert not of_one(wrong, hilbert)["passed"]


def test_a_single_precision_gradient_is_held_to_its_own_digits() -> None:
    row = of_one(planted(np.sin, cosine(1.0)), X.astype(np.float32))
    assert (row["method"], row["passed"]) == ("complex_step", True)
    assert not of_one(planted(np.sin, cosine(1.01)), X.astype(np.float32))["passed"]


# Complex inputs


Z = np.array([1.0 + 2.0j, -0.5 + 0.25j])


@pytest.mark.parametrize("text", ["z + 2", "conj(z) + z"])
@pytest.mark.parametrize("dtype", ["complex128", "complex64"])
def test_complex_inputs_move_by_their_parts(text: str, dtype: str) -> None:
    found = checked(text, {"z": Z.astype(dtype)})
    assert found["passed"]
    assert found["wrt"]["z"]["worst"]["part"] in ("real", "imaginary")


def test_a_wrong_complex_derivative_is_found_in_the_part_that_is_wrong() -> None:
    """The adjoint of conj under the real inner product is conj: the identity has the wrong sign for i alone."""
    wrong = planted(np.conj, Linear(lambda g, x: g))
    row = of_one(wrong, Z[:1])
    assert not row["passed"]
    assert of_one(planted(np.conj, Linear(lambda g, x: ops.conj(g))), Z)["passed"]


# Loops


def test_a_check_goes_through_loops_by_either_way() -> None:
    doubling = "step(i, h) = { new = h + h; new }\ny = fori_loop(0, 3, step, x)"
    assert checked(doubling, {"x": 0.3})["wrt"]["x"] == {
        "passed": True,
        "method": "complex_step",
        "max_abs_error": 0.0,
        "max_rel_error": 0.0,
        "worst": {"index": [], "analytic": 8.0, "numerical": 8.0},
    }
    assert checked("step(i, h) = { new = relu(h) * h; new }\ny = fori_loop(0, 3, step, x)", {"x": 0.9})["passed"]


def test_a_fault_within_a_loop_is_found_at_the_loop() -> None:
    text = "step(i, h) = { new = grad_scale(sin(h), scale=2); new }\ny = fori_loop(0, 3, step, x)"
    found = checked(text, {"x": 0.3})
    assert not found["passed"]
    assert [(notice.code, notice.node) for notice in found["warnings"]] == [("derivative_differs", "y")]
