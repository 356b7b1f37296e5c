"""Arithmetic: sums, products, quotients, powers, and what acts on signs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.core import Node, Operand, Sample, define, ops
from engine.derivative import Bilinear, Flat, Linear, Slope, is_one, times, unbroadcast
from engine.errors import LimitExceeded
from engine.families import ANY, MISMATCH, REAL, REALS, batch_aligned, binary, rounding, same_shape, unary
from engine.limits import Limits
from engine.types import broadcast

add = binary(
    "add",
    "Sum, element by element.",
    np.add,
    (lambda out, x, y: 1.0, lambda out, x, y: 1.0),
    operands=(Operand("x1", "biufc"), Operand("x2", "biufc")),
    refusals=MISMATCH,
)

subtract = binary(
    "subtract",
    "Difference, element by element.",
    np.subtract,
    (lambda out, x, y: 1.0, lambda out, x, y: -1.0),
    operands=(Operand("x1", "iufc"), Operand("x2", "iufc")),
    torch="sub",
    refusals=MISMATCH,
)


def _times_one(x: Node, y: Node) -> Node | None:
    """The other factor where one is the constant 1, as in a sweep that starts from ones."""
    for factor, other in ((x, y), (y, x)):
        if is_one(factor) and not factor.weak and broadcast(factor.shape, other.shape) == other.shape:
            return other
    return None


multiply = binary(
    "multiply",
    "Product, element by element.",
    np.multiply,
    same=_times_one,
    derivative=Bilinear(
        left=lambda g, x, y: unbroadcast(times(g, y), x.shape),
        right=lambda g, x, y: unbroadcast(times(g, x), y.shape),
    ),
    torch="mul",
    refusals=MISMATCH,
)


def _masked_product(g: Any, slope: Any) -> Any:
    return np.where(g == 0, np.zeros((), g.dtype), g * slope)


masked_multiply = binary(
    "masked_multiply",
    "Product in which a zero on the left wins over an infinity or a NaN on the right.",
    _masked_product,
    derivative=Bilinear(
        left=lambda g, x, y: unbroadcast(ops.masked_multiply(g, y), x.shape),
        right=lambda g, x, y: unbroadcast(ops.masked_multiply(g, x), y.shape),
    ),
    flops=3,
)


def _reciprocal(y: Node) -> Slope:
    value = _constant(y)
    return ops.reciprocal(y) if value is None or value == 0 else 1.0 / value


divide = binary(
    "divide",
    "Quotient, element by element; integers are divided as float64.",
    np.divide,
    (lambda out, x, y: _reciprocal(y), lambda out, x, y: -out * ops.reciprocal(y)),
    at=((-2.0, 2.0), (0.5, 2.0)),
    inexact=True,
    torch="div",
    refusals=MISMATCH,
)

negative = unary(
    "negative",
    "The value with its sign changed.",
    np.negative,
    lambda out, x: -1.0,
    operands=(Operand("x", "iufc"),),
    inexact=False,
    torch="neg",
)

positive = define(
    "positive",
    "The value itself.",
    operands=ANY,
    shape=same_shape,
    kernel=lambda x: x,
    derivative=Linear(lambda g, x: g),
    batch=batch_aligned,
    same=lambda x: x,
    view=True,
    family="elementwise",
    samples=(Sample(((3,),)),),
)

square = unary(
    "square",
    "The value times itself.",
    np.square,
    lambda out, x: 2.0 * x,
    inexact=False,
    torch="pow",
    operands=REAL,
)

reciprocal = unary("reciprocal", "One over the value.", np.reciprocal, lambda out, x: -(out * out), at=(0.5, 2.0))


def _base_slope(out: Node, x: Node, y: Node) -> Slope:
    exponent = _constant(y)
    if exponent in (0.0, 1.0):
        return exponent
    if exponent is not None:
        return 2.0 * x if exponent == 2.0 else exponent * x ** (exponent - 1.0)
    # Settled at the origin alone: wherever else y is 0, the slope still moves with y.
    origin = ops.logical_and(ops.equal(x, 0.0), ops.equal(y, 0.0))
    return ops.where(origin, 0.0, y * x ** (y - 1.0))


def _exponent_slope(out: Node, x: Node, y: Node) -> Slope:
    settled = ops.logical_and(ops.equal(x, 0.0), y >= 0.0)
    return ops.where(settled, 0.0, out * ops.log(x))


def _constant(y: Node) -> float | None:
    """The exponent where it is one number that the graph knows."""
    return None if y.value is None or y.size != 1 or y.rank else float(y.value)


def _bounded_exponent(limits: Limits, x: Node, y: Node) -> None:
    exponent = _constant(y)
    if exponent is not None and math.fabs(exponent) > limits.constant_exponent:
        raise LimitExceeded("constant_exponent", limits.constant_exponent, exponent, "exponent of pow")


pow = binary(
    "pow",
    "The first value to the power of the second. Slope by x is 0 where y is 0; slope by y is 0 where x is 0 and y ≥ 0.",
    np.power,
    (_base_slope, _exponent_slope),
    at=((0.5, 2.0), (-2.0, 2.0)),
    operands=REALS,
    flops=20,
    samples=(
        Sample(((3,), (3,))),
        Sample(((2, 3), ())),
        Sample(([2.0, 1.0, 0.5], [0.0, 0.0, 1.0])),
        Sample(((2, 3), 3)),
        Sample(((3,), -0.5)),
        Sample(((2, 1), (3,))),
    ),
    aliases=("power",),
    guard=_bounded_exponent,
    refusals=MISMATCH,
)

floor_divide = binary(
    "floor_divide",
    "The largest whole number that is not above the quotient; its derivative is zero.",
    np.floor_divide,
    derivative=Flat(),
    operands=REALS,
    at=((-2.0, 2.0), (0.5, 2.0)),
    refusals=MISMATCH,
)

remainder = binary(
    "remainder",
    "What floor_divide leaves, with the sign of the divisor; its slope by the divisor is -floor(x1 / x2).",
    np.remainder,
    (lambda out, x, y: 1.0, lambda out, x, y: -ops.floor_divide(x, y)),
    operands=REALS,
    at=((1.1, 1.9), (2.1, 2.9)),
    refusals=MISMATCH,
)

abs = unary(
    "abs",
    "The magnitude; its slope at 0 is 0.",
    np.abs,
    lambda out, x: ops.sign(x),
    at=(0.5, 2.0),
    inexact=False,
    operands=REAL,
)

sign = rounding("sign", "-1, 0 or 1; its derivative is zero.", np.sign, operands=REAL, at=(0.5, 2.0))
