"""Exponentials, logarithms and roots.

Slopes are written to close: exp is its own slope, and what divides does so through reciprocal, whose slope is a
product. A high-order series of them then needs no new kernels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.core import Node, ops
from engine.derivative import Slope
from engine.families import ANY, ANYS, binary, costly, like_result, unary

exp = costly(
    "exp",
    "e to the power of the value.",
    np.exp,
    lambda out, x: out,
    operands=ANY,
    scalar="math.exp({0})",
    pace=16.0,
)


def _exp2(x: Any) -> Any:
    # NumPy's is real only. A number of Python's is weak: complex64 stays.
    return np.exp2(x) if x.dtype.kind == "f" else np.exp(x * math.log(2.0))


exp2 = costly(
    "exp2",
    "2 to the power of the value.",
    _exp2,
    lambda out, x: math.log(2.0) * out,
    operands=ANY,
    scalar="math.exp2({0})",
    pace=16.0,
)

expm1 = costly(
    "expm1",
    "exp(x) - 1, exact near 0.",
    np.expm1,
    lambda out, x: out + 1.0,
    operands=ANY,
    scalar="math.expm1({0})",
    pace=16.0,
)

log = costly(
    "log",
    "Natural logarithm.",
    np.log,
    lambda out, x: ops.reciprocal(x),
    at=(0.5, 2.0),
    operands=ANY,
    scalar="math.log({0})",
    pace=16.0,
)

log1p = costly(
    "log1p",
    "log(1 + x), exact near 0.",
    np.log1p,
    lambda out, x: ops.reciprocal(x + 1.0),
    at=(-0.5, 2.0),
    operands=ANY,
    pace=16.0,
    torch="log1_p",
    scalar="math.log1p({0})",
)

log2 = costly(
    "log2",
    "Logarithm to base 2.",
    np.log2,
    lambda out, x: ops.reciprocal(x * math.log(2.0)),
    at=(0.5, 2.0),
    operands=ANY,
    scalar="math.log2({0})",
    pace=16.0,
)

log10 = costly(
    "log10",
    "Logarithm to base 10.",
    np.log10,
    lambda out, x: ops.reciprocal(x * math.log(10.0)),
    at=(0.5, 2.0),
    operands=ANY,
    scalar="math.log10({0})",
    pace=16.0,
)


def _logaddexp(x: Any, y: Any) -> Any:
    if x.dtype.kind == "f":
        return np.logaddexp(x, y)
    # NumPy's is real only. What lies to the right leads, as infinities of one sign do when they are equal.
    is_right = x.real >= y.real
    far = np.where(is_right, x, y)
    apart = np.where(x == y, np.zeros((), x.dtype), np.where(is_right, y - x, x - y))
    return far + np.log1p(np.exp(apart))


LOGADDEXP = (
    f"{{0}} + {math.log(2.0)!r} if {{0}} == {{1}} else {{0}} + math.log1p(math.exp({{1}} - {{0}})) if {{0}} > {{1}}"
    " else {1} + math.log1p(math.exp({0} - {1}))"
)
"""NumPy's way: equal operands apart, for the difference of two infinities is no number."""

logaddexp = binary(
    "logaddexp",
    "log(exp(x1) + exp(x2)), without overflow.",
    _logaddexp,
    (lambda out, x, y: ops.sigmoid(x - y), lambda out, x, y: ops.sigmoid(y - x)),
    operands=ANYS,
    inexact=True,
    flops=80,
    scalar=LOGADDEXP,
)

logaddexp2 = binary(
    "logaddexp2",
    "log2(2^x1 + 2^x2), without overflow.",
    np.logaddexp2,
    (
        lambda out, x, y: ops.sigmoid(math.log(2.0) * (x - y)),
        lambda out, x, y: ops.sigmoid(math.log(2.0) * (y - x)),
    ),
    inexact=True,
    flops=80,
)


def _root_slope(out: Node, x: Node) -> Slope:
    return 0.5 * ops.reciprocal(out)


sqrt = unary(
    "sqrt",
    "Square root; its slope at 0 is infinite.",
    np.sqrt,
    _root_slope,
    at=(0.5, 2.0),
    operands=ANY,
    scalar="math.sqrt({0})",
)


def _rsqrt(x: Any) -> Any:
    return np.reciprocal(np.sqrt(x))


rsqrt = unary(
    "rsqrt",
    "One over the square root.",
    _rsqrt,
    lambda out, x: -0.5 * out * ops.reciprocal(x),
    at=(0.5, 2.0),
    operands=ANY,
    flops=2,
    scalar="1.0 / math.sqrt({0})",
    scratch=like_result(1),
)

cbrt = costly(
    "cbrt",
    "Cube root, also of negative values.",
    np.cbrt,
    lambda out, x: ops.reciprocal(3.0 * out * out),
    at=(0.5, 2.0),
    pace=16.0,
)
