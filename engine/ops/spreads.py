"""Spreads and norms: how far from their mean, or from zero, elements are over axes.

No slope divides by what may well be zero: a norm or a standard deviation of 0 has gradient 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Refusal, Sample, ops
from engine.derivative import by_slope, filled
from engine.errors import InvalidGraph
from engine.families import (
    EMPTY,
    FOLDED,
    WRONG_AXIS,
    count_along,
    elements,
    over,
    reduced_axes,
    reduced_shape,
    reduction,
)
from engine.ops.extremes import extreme_shape, ties
from engine.ops.reducing import mean_of
from engine.types import Shape

# Spreads


def _divisor(shape: Shape, axis: Sequence[int], correction: float) -> float:
    """The count less its correction, and NaN when nothing is left, as the Array API has it."""
    left = count_along(shape, axis) - correction
    return left if left > 0 else math.nan


def _variance(x: Any, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Any:
    # Taken from the first element at first: what is constant then has variance 0 and not a rounding error's.
    first = tuple(slice(0, 1) if at in axis else slice(None) for at in range(x.ndim))
    centred = x - x[first]
    centred -= mean_of(centred, axis=axis, keepdims=True)
    centred *= centred
    return np.divide(np.sum(centred, axis=axis, keepdims=keepdims), _divisor(x.shape, axis, correction))


def _deviation(x: Any, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Any:
    return np.sqrt(_variance(x, axis=axis, correction=correction, keepdims=keepdims))


def _var_slope(out: Node, x: Node, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Node:
    return (x - ops.mean(x, axis=axis, keepdims=True)) * (2.0 / _divisor(x.shape, axis, correction))


def _std_slope(out: Node, x: Node, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Node:
    centred = (x - ops.mean(x, axis=axis, keepdims=True)) * (1.0 / _divisor(x.shape, axis, correction))
    return over(centred, out)


SPREAD: Attrs = {
    "attrs": {"correction": kinds.real("What is taken off the count: 1 for the sample's spread.", 0.0)},
    "inexact": True,
    "flops": lambda out, x, **attrs: 5 * math.prod(x),
    "scratch": elements,
    "samples": (
        *FOLDED,
        Sample(((2, 3),), {"axis": 1, "correction": 1}),
        Sample(((4,),), {"correction": 0.5}),
        Sample(((3, 0),), {"axis": 0}),
        Sample(([1, 2, 4],)),
    ),
    "refusals": WRONG_AXIS,
}

var = reduction(
    "var",
    "Variance over axes, with divisor count - correction; NaN where that is not positive.",
    _variance,
    by_slope(_var_slope, reduced_axes),
    **SPREAD,
    example="var(x, axis=0, correction=1)",
)

std = reduction(
    "std",
    "Standard deviation over axes, with divisor count - correction; that of a constant has gradient 0.",
    _deviation,
    by_slope(_std_slope, reduced_axes),
    **SPREAD,
    example="std(x, axis=0, correction=1)",
)


# Norms


def _vector_norm(x: Any, *, axis: tuple[int, ...], ord: float, keepdims: bool) -> Any:
    sizes = np.abs(x)
    if math.isinf(ord):
        fold = np.max if ord > 0 else np.min
        return fold(sizes, axis=axis, keepdims=keepdims)
    if ord == 0:
        return np.sum(sizes != 0, axis=axis, dtype=x.dtype, keepdims=keepdims)
    if ord == 1:
        return np.sum(sizes, axis=axis, keepdims=keepdims)
    if ord == 2:
        return np.sqrt(np.sum(sizes * sizes, axis=axis, keepdims=keepdims))
    return np.power(np.sum(np.power(sizes, ord), axis=axis, keepdims=keepdims), 1.0 / ord)


def _norm_shape(shape: Shape, *, axis: tuple[int, ...], ord: float, keepdims: bool) -> Shape:
    if math.isnan(ord):
        raise InvalidGraph("the order of a norm must not be NaN; it is 2, 1, Infinity or another number")
    if math.isinf(ord):
        return extreme_shape(shape, axis=axis, keepdims=keepdims)
    return reduced_shape(shape, axis=axis, keepdims=keepdims)


def _norm_slope(out: Node, x: Node, *, axis: tuple[int, ...], ord: float, keepdims: bool) -> Node:
    """sign(x)·(|x| / out)^(ord − 1), and 0 where x is 0: at the origin, the subgradient of least norm."""
    if ord == 0:
        return filled(x.graph, 0, x.spec)
    if ord == 1:
        return ops.sign(x)
    if ord == 2:
        return over(x, out)
    if math.isinf(ord):
        chosen, share = ties(ops.abs(x), out, axis)
        return ops.where(chosen, ops.sign(x) * share, 0.0)
    nothing = ops.equal(x, 0.0)
    share = over(ops.abs(ops.where(nothing, 1.0, x)), out)
    return ops.where(nothing, 0.0, ops.sign(x) * share ** (ord - 1.0))


vector_norm = reduction(
    "vector_norm",
    "sum(abs(x)**ord)**(1/ord) over axes; for an infinite ord the largest or smallest magnitude, for 0 the "
    "count of what is not 0. The gradient at 0 is 0.",
    _vector_norm,
    by_slope(_norm_slope, reduced_axes),
    attrs={"ord": kinds.real("Order of the norm; it may be infinite.", 2.0)},
    shape=_norm_shape,
    inexact=True,
    torch="linalg_vector_norm",
    flops=lambda out, x, *, ord, **attrs: (3 if ord in (0, 1, 2) or math.isinf(ord) else 22) * math.prod(x),
    scratch=elements,
    samples=(
        *FOLDED,
        *EMPTY,
        *[Sample(((2, 3),), {"axis": 1, "ord": ord}) for ord in (0, 1, 1.5, 3, 4, -2, "Infinity", "-Infinity")],
        Sample(([3, 4],)),
    ),
    refusals=(
        *WRONG_AXIS,
        Refusal(((2,),), {"ord": "NaN"}, "invalid_graph"),
        Refusal(((0, 3),), {"axis": 0, "ord": "Infinity"}, "shape_mismatch"),
    ),
    example="vector_norm(x, axis=0)",
)
