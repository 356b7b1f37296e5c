"""Choosing between values: where, clip, the larger, the smaller."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import attrs
from engine.core import Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Linear, Partials, Slope, unbroadcast
from engine.families import MISMATCH, PAIRWISE, batch_aligned, binary, broadcast_shape, unary
from engine.floats import literal

BITS = {"float32": np.int32, "float64": np.int64}
FEW, MANY = 1 << 10, 1 << 16
"""Elements between which choosing by bits pays: NumPy's where branches at each element, and mispredicts every other."""


def _where(condition: Any, x: Any, y: Any, out: Any = None) -> Any:
    """np.where without branches: the bits of a number times a truth value, or of two numbers under a mask."""
    bits = BITS.get(x.dtype.name)
    to = None if out is None or bits is None else out.view(bits)
    if (
        bits is None
        or condition.size < FEW
        or condition.shape != np.broadcast_shapes(condition.shape, x.shape, y.shape)
    ):
        return _whole(np.where(condition, x, y), out)
    if _is_nothing(y):
        return np.multiply(x.view(bits), condition, out=to).view(x.dtype)
    if _is_nothing(x):
        return np.multiply(y.view(bits), ~condition, out=to).view(x.dtype)
    if condition.size > MANY:
        return _whole(np.where(condition, x, y), out)
    mask = condition.astype(bits)
    np.negative(mask, out=mask)
    mask &= np.bitwise_xor(x.view(bits), y.view(bits))
    return np.bitwise_xor(mask, y.view(bits), out=mask if to is None else to).view(x.dtype)


def _whole(result: Any, out: Any) -> Any:
    """A result, in the memory where it is to be."""
    if out is None:
        return result
    out[...] = result
    return out


def _is_nothing(x: Any) -> bool:
    """Whether this is one zero, whose bits are all 0."""
    return x.size == 1 and not x.tobytes().strip(b"\0")


where = define(
    "where",
    "x1 where the condition holds, else x2; the condition has no gradient.",
    operands=(Operand("condition", "b", promotes=False), Operand("x1", "biufc"), Operand("x2", "biufc")),
    shape=broadcast_shape,
    kernel=_where,
    derivative=Linear(
        lambda g, condition, x, y: (
            None,
            unbroadcast(ops.where(condition, g, 0.0), x.shape),
            unbroadcast(ops.where(condition, 0.0, g), y.shape),
        ),
        fixed=(0,),
    ),
    batch=batch_aligned,
    family="selecting",
    samples=(
        Sample(([True, False, True], (3,), (3,))),
        Sample(([[True], [False]], (3,), (2, 3))),
        Sample(([False, True], (), 2.0)),
    ),
    refusals=(
        Refusal(((2,), (2,), (2,)), {}, "dtype_mismatch"),
        Refusal(([True, False], (3,), (3,)), {}, "shape_mismatch"),
    ),
    example="where(x > 0, x, 0)",
    scalar="{1} if {0} else {2}",
    pointwise=True,
    fills=True,
)

CLIP = "m if (m := {0} if {0} >= {1} or {0} != {0} else {1}) <= {2} or m != m else {2}"

clip = define(
    "clip",
    "The value, but not below min and not above max; the slope at a bound is 1. An absent bound is an infinite one.",
    operands=(Operand("x"), Operand("min", default=-math.inf), Operand("max", default=math.inf)),
    shape=broadcast_shape,
    kernel=np.clip,
    derivative=Partials(
        (
            lambda out, x, low, high: (x >= low) & (x <= high),
            lambda out, x, low, high: (x < low) & (low <= high),
            lambda out, x, low, high: (x > high) | (low > high),
        )
    ),
    batch=batch_aligned,
    family="selecting",
    samples=(Sample(((5,), -0.5, 0.5)), Sample(((2, 3), (3,), 3.0)), Sample(((3,), -3.0, ())), Sample(((3,), 0.25))),
    refusals=(Refusal(((2,), (3,), 1.0), {}, "shape_mismatch"),),
    torch="clamp",
    aliases=("clamp",),
    example="clip(x, -1, 1)",
    scalar=CLIP,
    pointwise=True,
)


def _share(x: Node, y: Node) -> Slope:
    """1 where x is above y, ½ at a tie, else 0."""
    return ops.where(ops.equal(x, y), 0.5, ops.astype(x > y, dtype=x.dtype.name))


maximum = binary(
    "maximum",
    "The larger of two values; a tie gives each of them half the slope.",
    np.maximum,
    (lambda out, x, y: _share(x, y), lambda out, x, y: _share(y, x)),
    refusals=MISMATCH,
    scalar="{0} if {0} >= {1} or {0} != {0} else {1}",
)

minimum = binary(
    "minimum",
    "The smaller of two values; a tie gives each of them half the slope.",
    np.minimum,
    (lambda out, x, y: _share(y, x), lambda out, x, y: _share(x, y)),
    refusals=MISMATCH,
    scalar="{0} if {0} <= {1} or {0} != {0} else {1}",
)

fmax = binary(
    "fmax",
    "The larger of two values, or the one that is a number; at a tie the slope is the first one's.",
    np.fmax,
    (lambda out, x, y: (x >= y) | ops.isnan(y), lambda out, x, y: ~((x >= y) | ops.isnan(y))),
    samples=(*PAIRWISE, Sample((["NaN", 1.0, 2.0], [3.0, "NaN", 1.0]))),
    refusals=MISMATCH,
    scalar="{0} if {0} >= {1} or {1} != {1} else {1}",
)

fmin = binary(
    "fmin",
    "The smaller of two values, or the one that is a number; at a tie the slope is the first one's.",
    np.fmin,
    (lambda out, x, y: (x <= y) | ops.isnan(y), lambda out, x, y: ~((x <= y) | ops.isnan(y))),
    samples=(*PAIRWISE, Sample((["NaN", 1.0, 2.0], [3.0, "NaN", 1.0]))),
    refusals=MISMATCH,
    scalar="{0} if {0} <= {1} or {1} != {1} else {1}",
)


def _replaced(x: Any, *, nan: float, posinf: float | None, neginf: float | None) -> Any:
    return np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


def _replaced_scalar(node: Node) -> str:
    largest = float(np.finfo(np.float64).max)
    nan, posinf, neginf = node.attrs["nan"], node.attrs["posinf"], node.attrs["neginf"]
    high, low = literal(largest if posinf is None else posinf), literal(-largest if neginf is None else neginf)
    replaced = f"{high} if {{0}} == math.inf else {low} if {{0}} == -math.inf else {{0}}"
    return f"{literal(nan)} if {{0}} != {{0}} else {replaced}"


nan_to_num = unary(
    "nan_to_num",
    "NaN and infinities replaced by numbers; the slope is 0 where one was replaced.",
    _replaced,
    lambda out, x, **attrs: ops.isfinite(x),
    inexact=False,
    flops=3,
    attrs={
        "nan": attrs.real("What replaces NaN.", 0.0),
        "posinf": attrs.real("What replaces +∞; the dtype's largest number when absent.", None),
        "neginf": attrs.real("What replaces -∞; the dtype's smallest number when absent.", None),
    },
    scratch=lambda node: 5 * node.size,
    samples=(Sample(((3,),)), Sample(([1.0, "NaN", "Infinity", "-Infinity"],), {"nan": 2.0, "posinf": 9.0})),
    scalar=_replaced_scalar,
)
