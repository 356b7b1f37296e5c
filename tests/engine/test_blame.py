"""Where what is not finite began: the node that is named is the one to look at, and nobody is named in vain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.blame import MOST, notices_of
from engine.errors import DeadlineExceeded
from engine.warnings import CODES
from tests.support.asking import compiled_question, counting_tick

I3 = np.eye(3)
APART = np.diag([1.0, 2.0, 3.0])


def said(call: str, text: str, inputs: dict[str, Any], tick: Any = None, **more: Any) -> list[tuple[str, str | None]]:
    """Code and node of each notice."""
    compiled = compiled_question(call, text, inputs, **more)
    tensors = compiled.bind()
    notices = notices_of(compiled, tensors, compiled.run(tensors), tick)
    assert all(notice.code in CODES and notice.detail for notice in notices)
    return [(notice.code, notice.node) for notice in notices]


BLAMED: list[tuple[str, dict[str, Any], str]] = [
    ("h = sqrt(x); y = where(x > 0, h, 0)", {"x": 0.0}, "h"),
    ("h = sqrt(x)", {"x": 0.0}, "h"),
    ("h = 1 / x; e = exp(h); y = where(x > 0, e, 0)", {"x": 0.0}, "h"),
    ("h = sqrt(x * y); z = h * 0", {"x": 0.0, "y": 2.0}, "h"),
    ("a = sin(x); h = log(a); b = exp(h); y = where(a > 0, b, a)", {"x": 0.0}, "h"),
    ("a = sqrt(x - 1); y = a + x", {"x": 0.0}, "a"),
    ("h = pow(x, y)", {"x": -2.0, "y": 2.0}, "h"),
    ("h = exp(x); y = h / h", {"x": 1000.0}, "h"),
    ("a = x + 1; h = sqrt(a); y = sum(h)", {"x": [3.0, -1.0, 2.0]}, "h"),
]


@pytest.mark.parametrize(("text", "inputs", "node"), BLAMED)
@pytest.mark.parametrize("call", ["grad", "nth"])
def test_the_node_that_began_it_is_named(call: str, text: str, inputs: dict[str, Any], node: str) -> None:
    assert said(call, text, inputs) == [("non_finite_gradient", node)]


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("where(x > 0, sqrt(x), 0)", {"x": 4.0}),
        ("log(x) * 0", {"x": 0.5}),
        ("logsumexp(x)", {"x": ["-Infinity", 0.0]}),
        ("log(x) + y", {"x": {"data": 0.0, "requires_grad": False}, "y": 1.0}),
    ],
)
def test_nothing_is_said_of_derivatives_that_are_finite(text: str, inputs: dict[str, Any]) -> None:
    assert said("grad", text, inputs) == []


@pytest.mark.parametrize("x", ["NaN", "Infinity"])
def test_what_came_in_is_nobodys_fault(x: str) -> None:
    assert said("grad", "exp(x) * x", {"x": x}) == []


@pytest.mark.parametrize("call", ["grad", "hessian", "nth", "jacobian"])
def test_every_node_that_began_something_is_named(call: str) -> None:
    text = "a = sqrt(x); b = sqrt(y); c = a + b"
    assert said(call, text, {"x": 0.0, "y": 0.0}) == [("non_finite_gradient", "a"), ("non_finite_gradient", "b")]


def test_no_more_than_a_few_are_named() -> None:
    text = (
        "; ".join(f"h{at} = sqrt(x - {at} + {at})" for at in range(9)) + "; stack(h0, h1, h2, h3, h4, h5, h6, h7, h8)"
    )
    assert len(said("grad", text, {"x": 0.0}, ones=True)) == MOST


VECTORS = "d = eigh(A); w = sum(d.eigenvectors[0]**3)"
EQUAL = [("equal_eigenvalues", "d")]


def test_equal_eigenvalues_are_told_where_vectors_matter() -> None:
    assert said("grad", VECTORS, {"A": I3}, outputs=["w"]) == EQUAL
    assert said("grad", VECTORS, {"A": APART}, outputs=["w"]) == []
    assert said("grad", "d = eigh(A); w = sum(d.eigenvalues**3)", {"A": I3}, outputs=["w"]) == []


def test_equal_singular_values_are_told_in_forward_mode() -> None:
    text = "d = svd(A); w = sum(d.U[0]**3)"
    assert said("jvp", text, {"A": I3}, outputs=["w"], tangents={"A": np.ones((3, 3))}) == EQUAL


def test_one_example_of_a_batch_is_enough() -> None:
    stack = np.stack([APART, I3])
    assert said("grad", VECTORS, {"A": stack}, outputs=["w"], batch=["A"]) == EQUAL
    assert said("grad", VECTORS, {"A": np.stack([APART, 2 * APART])}, outputs=["w"], batch=["A"]) == []


def test_eigenvalues_have_no_second_order_where_they_are_equal() -> None:
    assert said("hessian", "d = eigh(A); w = sum(d.eigenvalues**3)", {"A": I3}, outputs=["w"]) == EQUAL


def test_both_are_told_apart() -> None:
    text = "d = eigh(A); h = sqrt(x); w = sum(d.eigenvectors[0]**3) + h"
    found = said("grad", text, {"A": I3, "x": 0.0}, outputs=["w"])
    assert found == [*EQUAL, ("non_finite_gradient", "h")]


def test_what_there_is_no_time_for_is_not_said() -> None:
    def late() -> None:
        raise DeadlineExceeded("too late", "seconds", 1, 2)

    assert said("grad", "h = sqrt(x)", {"x": 0.0}, tick=late) == []
    assert said("grad", "h = sqrt(x)", {"x": 0.0}, tick=counting_tick(99)) != []


def test_a_sparse_derivative_is_traced_by_its_numbers() -> None:
    """Beside these its tree has arrays of places, which were known before anything ran."""
    assert said("jacobian", "h = log(x)", {"x": np.zeros(9)}, sparse=True) == [("non_finite_gradient", "h")]
    assert said("hessian", "h = log(x); w = sum(h)", {"x": np.zeros(9)}, outputs=["w"], sparse=True) != []
