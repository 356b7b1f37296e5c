"""The check raises no false alarm: graphs whose gradients are right pass, however steep, flat, bent or badly scaled."""

from __future__ import annotations

from typing import Any

import pytest

from engine.calls import Question
from engine.check import check
from engine.errors import NotDifferentiable
from engine.limits import Limits
from engine.tensors import read_tensor
from engine.text import parse
from tests.support.asking import LIMITS, tensors
from tests.support.cases import Case, cases, ids

RIGHT: list[tuple[str, Any]] = [
    ("sin(1000 * x)", 0.3),
    ("cos(x)", 1e8),
    ("sum(sin(x))", [1e4, 1e-3]),
    ("sum(softmax(x)**2)", [1000, 1000.5]),
    ("1 / x", 1e-3),
    ("sqrt(x)", 1e-8),
    ("sum(log(x))", [1e-8, 1e-3]),
    ("log(1 - x)", 0.99),
    ("exp(x)", 700),
    ("x**2 + 1e10", 1),
    ("1e-12 * x**2", 3),
    ("x**3", 0),
    ("cos(x)", 0),
    ("prod(x)", [0, 2, 3]),
]
ON_PURPOSE = {"detach", "grad_scale", "grad_clip"}
"""Ops whose gradient is not that of their values."""

ROUNDED = ["astype(x, dtype='float32')", "sum(sin(astype(x, dtype='float32')) * x)"]

BENT: list[tuple[str, Any]] = [
    ("abs(x)", 0),
    ("abs(x)", 0.001),
    ("relu(x)", 0),
    ("sqrt(x)", 0),
    ("max(x)", [1, 1]),
    ("vector_norm(x)", [1e-8, 1e-8]),
    ("cbrt(x)", 0),
    ("floor(x) * x", 2),
]
WRONG: list[tuple[str, Any, int]] = [
    ("detach(x) * x", 3, 1),
    ("no_grad(x * x) * x", 3, 1),
    ("grad_scale(x, scale=1.001)", 2, 1),
    ("grad_scale(x, scale=1.001) ** 2", 2, 2),
    ("detach(x) * x * x", 3, 2),
]


def passes(expression: str, x: Any, order: int, dtype: str) -> bool:
    inputs = {"x": read_tensor({"data": x, "dtype": dtype})}
    return bool(check(Question("check", parse(expression, Limits()), inputs, order=order), Limits())["passed"])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(("expression", "x"), RIGHT)
def test_a_right_gradient_passes(expression: str, x: Any, order: int) -> None:
    assert passes(expression, x, order, "float64")


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("case", [case for case in cases() if case.moving and case.drawn], ids=ids)
def test_every_op_passes_and_nothing_is_said_of_it(case: Case, order: int) -> None:
    """At every sample, whichever way its slopes are taken."""
    try:
        found = check(Question("check", case.program, tensors(case.drawn), order=order), LIMITS)
    except NotDifferentiable:
        return
    said = {notice.code for notice in found.get("warnings", [])}
    if case.op.name not in ON_PURPOSE:
        assert found["passed"] and not said, found
    else:
        assert found["passed"] or said & {"untracked", "derivative_differs"}


def takes_complex(case: Case) -> bool:
    """Whether every operand that takes real numbers takes complex ones and the result has no free phase."""
    kinds = [each.kinds for each in case.op.operands if "f" in each.kinds]
    return bool(kinds) and all("c" in each for each in kinds) and case.op.name not in ("svd", "eigh", "eig", "qr")


@pytest.mark.parametrize("case", [each for each in cases() if each.number == 0 and takes_complex(each)], ids=ids)
def test_every_op_passes_for_complex_numbers(case: Case) -> None:
    case = case.of("complex128")
    try:
        found = check(Question("check", case.program, tensors(case.drawn)), LIMITS)
    except NotDifferentiable:
        return
    assert found["passed"] or case.op.name in ON_PURPOSE, found


@pytest.mark.parametrize("expression", ROUNDED)
def test_what_is_rounded_on_the_way_passes(expression: str) -> None:
    assert passes(expression, [0.3, 1.7], 1, "float64")


@pytest.mark.parametrize(("expression", "x"), BENT)
def test_a_subgradient_passes(expression: str, x: Any) -> None:
    assert passes(expression, x, 1, "float64")


@pytest.mark.parametrize(("expression", "x"), [row for row in RIGHT if row[1] not in (1e8, 700)])
def test_a_right_gradient_in_single_precision_passes(expression: str, x: Any) -> None:
    assert passes(expression, x, 1, "float32")


@pytest.mark.parametrize(("expression", "x", "order"), WRONG)
def test_a_gradient_that_is_not_the_function_s_fails(expression: str, x: Any, order: int) -> None:
    assert not passes(expression, x, order, "float64")
