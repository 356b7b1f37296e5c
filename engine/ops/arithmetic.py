"""Arithmetic: sums, products, quotients, powers, and what acts on signs."""

from __future__ import annotations

import builtins
import math
from typing import Any

import numpy as np

from engine.core import Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Bilinear, Custom, Flat, Linear, Partials, Slope, conj, is_one, times, unbroadcast
from engine.errors import LimitExceeded
from engine.families import (
    ANY,
    ANYS,
    MISMATCH,
    NUMERIC,
    NUMERICS,
    PAIRWISE,
    POINTWISE,
    REALS,
    batch_aligned,
    binary,
    broadcast_shape,
    composite,
    like_result,
    over,
    part_dtype,
    same_shape,
    unary,
)
from engine.limits import Limits
from engine.types import broadcast

add = binary(
    "add",
    "Sum, element by element.",
    np.add,
    (lambda out, x, y: 1.0, lambda out, x, y: 1.0),
    operands=ANYS,
    refusals=MISMATCH,
    scalar="{0} + {1}",
)

subtract = binary(
    "subtract",
    "Difference, element by element.",
    np.subtract,
    (lambda out, x, y: 1.0, lambda out, x, y: -1.0),
    operands=NUMERICS,
    torch="sub",
    refusals=MISMATCH,
    scalar="{0} - {1}",
    aliases=("sub",),
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
    operands=ANYS,
    torch="mul",
    refusals=MISMATCH,
    scalar="{0} * {1}",
    aliases=("mul",),
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
    operands=ANYS,
    flops=3,
    scalar="0.0 if {0} == 0.0 else {0} * {1}",
    scratch=lambda node: node.nbytes + node.size,
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
    operands=ANYS,
    inexact=True,
    torch="div",
    refusals=MISMATCH,
    scalar="{0} / {1}",
    aliases=("div", "true_divide"),
)

negative = unary(
    "negative",
    "The value with its sign changed.",
    np.negative,
    lambda out, x: -1.0,
    operands=NUMERIC,
    inexact=False,
    torch="neg",
    scalar="-{0}",
    aliases=("neg",),
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
    operands=NUMERIC,
    scalar="{0} * {0}",
)

reciprocal = unary(
    "reciprocal",
    "One over the value.",
    np.reciprocal,
    lambda out, x: -(out * out),
    at=(0.5, 2.0),
    operands=ANY,
    scalar="1.0 / {0}",
)


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
    settled = ops.logical_and(ops.equal(x, 0.0), _is_not_negative(y))
    return ops.where(settled, 0.0, out * ops.log(x))


def _is_not_negative(y: Node) -> Node:
    if y.dtype.kind != "c":
        return y >= 0.0
    return ops.logical_and(ops.real(y) >= 0.0, ops.equal(ops.imag(y), 0.0))


def _constant(y: Node) -> complex | None:
    """The exponent where it is one number that the graph knows: a float where it has no imaginary part."""
    if y.value is None or y.size != 1 or y.rank:
        return None
    value = complex(y.value)
    return value if value.imag else value.real


def _bounded_exponent(limits: Limits, x: Node, y: Node) -> None:
    exponent = _constant(y)
    if exponent is not None and builtins.abs(exponent) > limits.constant_exponent:
        raise LimitExceeded("constant_exponent", limits.constant_exponent, builtins.abs(exponent), "exponent of pow")


pow = binary(
    "pow",
    "The first value to the power of the second. Slope by x is 0 where y is 0; slope by y is 0 where x is 0 and y ≥ 0.",
    np.power,
    (_base_slope, _exponent_slope),
    at=((0.5, 2.0), (-2.0, 2.0)),
    operands=NUMERICS,
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
    scalar="math.sqrt({0}) if {1} == 0.5 else math.pow({0}, {1})",
)

floor_divide = binary(
    "floor_divide",
    "The largest whole number that is not above the quotient; its derivative is zero.",
    np.floor_divide,
    derivative=Flat(),
    operands=REALS,
    at=((-2.0, 2.0), (0.5, 2.0)),
    flops=80,
    refusals=MISMATCH,
    scalar="{0} // {1}",
)

remainder = binary(
    "remainder",
    "What floor_divide leaves, with the sign of the divisor; its slope by the divisor is -floor(x1 / x2).",
    np.remainder,
    (lambda out, x, y: 1.0, lambda out, x, y: -ops.floor_divide(x, y)),
    operands=REALS,
    at=((1.1, 1.9), (2.1, 2.9)),
    flops=40,
    refusals=MISMATCH,
    scalar="{0} % {1}",
    aliases=("mod",),
)


def _truncated_quotient(out: Node, x: Node, y: Node) -> Slope:
    # Not trunc(x / y), which is one too far where the quotient rounds up to a whole number.
    return -ops.round((x - out) / y)


fmod = binary(
    "fmod",
    "What a quotient rounded towards zero leaves, with the sign of the dividend; its slope by the divisor is "
    "-trunc(x1 / x2).",
    np.fmod,
    (lambda out, x, y: 1.0, _truncated_quotient),
    operands=REALS,
    at=((-2.9, -2.1), (1.1, 1.9)),
    flops=48,
    refusals=MISMATCH,
)


def _lerp(start: Any, end: Any, weight: Any) -> Any:
    # From the end that is nearer, so that each of them is met exactly.
    gap = end - start
    return np.where(np.abs(weight) < 0.5, start + weight * gap, end - (1 - weight) * gap)


lerp = define(
    "lerp",
    "Linear interpolation: x1 + weight·(x2 - x1).",
    operands=(*ANYS, Operand("weight", "biufc")),
    shape=broadcast_shape,
    kernel=_lerp,
    derivative=Partials(
        (lambda out, x, y, weight: 1.0 - weight, lambda out, x, y, weight: weight, lambda out, x, y, weight: y - x)
    ),
    batch=batch_aligned,
    inexact=True,
    family="elementwise",
    flops=lambda out, *shapes: 8 * math.prod(out),
    scratch=like_result(3),
    samples=(
        Sample(((3,), (3,), (3,))),
        Sample(((2, 3), (3,), 0.25)),
        Sample(((2, 1), (1, 3), ())),
        Sample(((3,), 1.0, 0.75)),
        Sample(((0,), (), 0.5)),
    ),
    refusals=(Refusal(((2,), (3,), 0.5), {}, "shape_mismatch"),),
)

float_power = composite(
    "float_power",
    "pow in floating point: whole numbers are taken as float64.",
    pow,
    operands=ANYS,
    inexact=True,
    domain=((0.5, 2.0), (-2.0, 2.0)),
    samples=(*PAIRWISE, Sample(((3,), -2)), Sample(([2, 3], [-1, 2]))),
    refusals=MISMATCH,
)

abs = unary(
    "abs",
    "The magnitude; its slope at 0 is 0.",
    np.abs,
    lambda out, x: conj(ops.sign(x)),
    at=(0.5, 2.0),
    inexact=False,
    operands=NUMERIC,
    returns=part_dtype,
    scalar="math.fabs({0})",
    aliases=("absolute",),
)


def _turned(node: Node, t: Node) -> Node | None:
    """How the direction of x turns along t: i·s·Im(s̄·t) / |x|, where s is the sign. A map that is its own adjoint."""
    if node.dtype.kind != "c":
        return None
    return over(node * (1j * ops.imag(ops.conj(node) * t)), ops.abs(node.inputs[0]))


sign = define(
    "sign",
    "-1, 0 or 1, with derivative zero; of a complex number its direction, x / abs(x), and 0 of 0.",
    operands=NUMERIC,
    shape=same_shape,
    kernel=np.sign,
    derivative=Custom(_turned, lambda node, g: [_turned(node, g)]),
    batch=batch_aligned,
    holomorphic=False,
    family="rounding",
    aliases=("sgn",),
    domain=((0.5, 2.0),),
    samples=POINTWISE,
    scalar="1.0 if {0} > 0.0 else -1.0 if {0} < 0.0 else 0.0 if {0} == 0.0 else {0}",
    pointwise=True,
)
