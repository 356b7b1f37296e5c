"""Spreads and norms: how far from their mean, or from zero, elements are over axes.

No slope divides by what may well be zero: a norm or a standard deviation of 0 has gradient 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Op, Operand, Refusal, Sample, cast, ops
from engine.derivative import by_slope, conj, filled
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import (
    ANY,
    COMPUTED_IN,
    EMPTY,
    FOLDED,
    KEEPDIMS,
    WRONG_AXIS,
    composite,
    count_along,
    in_own_dtype,
    like_operand,
    listed,
    over,
    part_dtype,
    reduced_axes,
    reduced_shape,
    reduction,
)
from engine.limits import Limits
from engine.ops.extremes import extreme_shape, ties
from engine.ops.linalg import small_enough
from engine.ops.reducing import mean_of
from engine.types import Shape, Spec, drop_axes, plane_of, to_real

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
    centred = squared_magnitude(centred)
    return np.divide(np.sum(centred, axis=axis, keepdims=keepdims), _divisor(x.shape, axis, correction))


def squared_magnitude(x: Any) -> Any:
    return x * x if x.dtype.kind != "c" else x.real * x.real + x.imag * x.imag


def _deviation(x: Any, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Any:
    return np.sqrt(_variance(x, axis=axis, correction=correction, keepdims=keepdims))


def _var_slope(out: Node, x: Node, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Node:
    centred = x - ops.mean(x, axis=axis, keepdims=True)
    return conj(centred) * (2.0 / _divisor(x.shape, axis, correction))


def _std_slope(out: Node, x: Node, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Node:
    centred = (x - ops.mean(x, axis=axis, keepdims=True)) * (1.0 / _divisor(x.shape, axis, correction))
    return over(conj(centred), out)


SPREAD: Attrs = {
    "attrs": {"correction": kinds.real("What is taken off the count: 1 for the sample's spread.", 0.0)},
    "operands": ANY,
    "inexact": True,
    "returns": part_dtype,
    "flops": lambda out, x, **attrs: 5 * math.prod(x),
    "scratch": like_operand(2),
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
    "Variance over axes, with divisor count - correction; NaN where that is not positive. "
    "Of complex numbers it is real: the mean square of the magnitude.",
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


def _with_mean(spread: Op) -> Op:
    """The op that gives a spread together with the mean."""

    def expand(x: Node, *, axis: Any, correction: float, keepdims: bool) -> tuple[Node, Node]:
        return spread(x, axis=axis, correction=correction, keepdims=keepdims), ops.mean(x, axis=axis, keepdims=keepdims)

    return composite(
        f"{spread.name}_mean",
        f"{spread.doc.split(',')[0]}, as {spread.name} has it, and the mean.",
        expand,
        operands=ANY,
        attrs=spread.attrs,
        results=(spread.name, "mean"),
        inexact=True,
        family="reduction",
        samples=spread.samples,
        refusals=spread.refusals,
        example=f"s, m = {spread.name}_mean(x, axis=0); s * m",
    )


var_mean = _with_mean(var)
std_mean = _with_mean(std)

# Covariance


def _observations(x: Node, fweights: Node, aweights: Node) -> None:
    if x.rank > 2:
        raise ShapeMismatch(f"cov takes one variable, or a row for each, got shape {listed(x.shape)}")
    for weights in (fweights, aweights):
        if weights.rank and weights.shape != x.shape[-1:]:
            raise ShapeMismatch(
                f"weights should be one for each of {listed(x.shape[-1:])}, got {listed(weights.shape)}"
            )


def _cov(x: Node, fweights: Node, aweights: Node, *, correction: float) -> Node:
    """Σ w (x − m)(x − m)ᴴ / (Σw − correction·Σ(w·a)/Σw), with w = f·a: numpy.cov's."""
    _observations(x, fweights, aweights)
    fweights, aweights = (in_own_dtype(cast(each, to_real(x.dtype))) for each in (fweights, aweights))
    rows = ops.reshape(x, shape=(x.shape[0] if x.rank == 2 else 1, x.shape[-1] if x.rank else 1))
    weights = ops.broadcast_to(fweights * aweights, shape=rows.shape[-1:])
    total = ops.sum(weights)
    share = ops.sum(weights * aweights) / total if aweights.rank else 1.0
    left = total - share * correction
    centred = rows - ops.sum(rows * weights, axis=1, keepdims=True) / total
    products = (centred * weights) @ ops.adjoint(centred)
    return ops.squeeze(products / ops.where(left > 0.0, left, math.nan))


cov = composite(
    "cov",
    "Covariances of variables, which are rows, over observations, which are columns, with divisor count - correction; "
    "fweights say how often an observation counts, aweights how much.",
    _cov,
    operands=(*ANY, Operand("fweights", promotes=False, default=1.0), Operand("aweights", promotes=False, default=1.0)),
    attrs={"correction": kinds.real("What is taken off the count.", 1.0)},
    inexact=True,
    family="reduction",
    samples=(
        Sample(((2, 4),)),
        Sample(((2, 4),), {"correction": 0}),
        Sample(((4,),)),
        Sample(((1, 4),)),
        Sample(((2, 4), [1, 2, 3, 1])),
        Sample(((2, 4), 1, [0.5, 1.0, 0.25, 2.0])),
        Sample(((2, 4), [1, 2, 3, 1], [0.5, 1.0, 0.25, 2.0])),
        Sample(([[1, 2, 4], [2, 0, 1]],)),
    ),
    refusals=(
        Refusal(((2, 2, 2),), {}, "shape_mismatch"),
        Refusal(((2, 3), (2,)), {}, "shape_mismatch"),
        Refusal(((2, 3), 1, (2, 3)), {}, "shape_mismatch"),
    ),
    example="cov(x)",
)


def _corrcoef(x: Node) -> Node:
    products = ops.cov(x)
    if products.rank == 0:
        return products / products
    spreads = ops.sqrt(ops.real(ops.diagonal(products)))
    return _within_one(products / ops.expand_dims(spreads, axis=1) / ops.expand_dims(spreads, axis=0))


def _within_one(x: Node) -> Node:
    """Rounding may have taken it beyond; parts of complex numbers are clipped one by one, as numpy.corrcoef does."""
    if x.dtype.kind != "c":
        return ops.clip(x, -1.0, 1.0)
    return ops.complex(*(ops.clip(part, -1.0, 1.0) for part in (ops.real(x), ops.imag(x))))


corrcoef = composite(
    "corrcoef",
    "Correlations of variables, which are rows, over observations, which are columns.",
    _corrcoef,
    operands=ANY,
    inexact=True,
    family="reduction",
    samples=(Sample(((2, 4),)), Sample(((3, 5),)), Sample(((4,),)), Sample(([[1, 2, 4], [2, 0, 1]],))),
    refusals=(Refusal(((2, 2, 2),), {}, "shape_mismatch"),),
    example="corrcoef(x)",
)

# Norms


def _vector_norm(x: Any, *, axis: tuple[int, ...], ord: float, keepdims: bool, **cast: None) -> Any:
    sizes = np.abs(x)
    if math.isinf(ord):
        fold = np.max if ord > 0 else np.min
        return fold(sizes, axis=axis, keepdims=keepdims)
    if ord == 0:
        return np.sum(sizes != 0, axis=axis, dtype=sizes.dtype, keepdims=keepdims)
    if ord == 1:
        return np.sum(sizes, axis=axis, keepdims=keepdims)
    if ord == 2:
        return np.sqrt(np.sum(sizes * sizes, axis=axis, keepdims=keepdims))
    return np.power(np.sum(np.power(sizes, ord), axis=axis, keepdims=keepdims), 1.0 / ord)


def _norm_shape(shape: Shape, *, axis: tuple[int, ...], ord: float, keepdims: bool, **cast: None) -> Shape:
    if math.isnan(ord):
        raise InvalidGraph("the order of a norm must not be NaN; it is 2, 1, Infinity or another number")
    if math.isinf(ord):
        return extreme_shape(shape, axis=axis, keepdims=keepdims)
    return reduced_shape(shape, axis=axis, keepdims=keepdims)


def _norm_slope(out: Node, x: Node, *, axis: tuple[int, ...], ord: float, **attrs: Any) -> Node:
    """sign(x)·(|x| / out)^(ord − 1), conjugated, and 0 where x is 0: at the origin, the subgradient of least norm."""
    if ord == 0:
        return filled(x.graph, 0, x.spec)
    if ord == 1:
        return conj(ops.sign(x))
    if ord == 2:
        return over(conj(x), out)
    if math.isinf(ord):
        chosen, share = ties(ops.abs(x), out, axis)
        return ops.where(chosen, conj(ops.sign(x)) * share, 0.0)
    # Of a negative order, one 0 makes the norm 0, whatever the others are.
    nothing = ops.equal(x, 0.0) | ops.equal(out, 0.0)
    share = over(ops.abs(ops.where(nothing, 1.0, x)), out)
    return ops.where(nothing, 0.0, conj(ops.sign(x)) * share ** (ord - 1.0))


vector_norm = reduction(
    "vector_norm",
    "sum(abs(x)**ord)**(1/ord) over axes; for an infinite ord the largest or smallest magnitude, for 0 the "
    "count of what is not 0. The gradient at 0 is 0.",
    _vector_norm,
    by_slope(_norm_slope, reduced_axes),
    attrs={"ord": kinds.real("Order of the norm; it may be infinite.", 2.0)},
    last={"dtype": COMPUTED_IN},
    casts="dtype",
    shape=_norm_shape,
    operands=ANY,
    inexact=True,
    returns=part_dtype,
    torch="linalg_vector_norm",
    flops=lambda out, x, *, ord, **attrs: (3 if ord in (0, 1, 2) or math.isinf(ord) else 22) * math.prod(x),
    scratch=like_operand(2),
    samples=(
        *FOLDED,
        *EMPTY,
        *[Sample(((2, 3),), {"axis": 1, "ord": ord}) for ord in (0, 1, 1.5, 3, 4, -2, "Infinity", "-Infinity")],
        Sample(([3, 4],)),
        Sample(([3, 4],), {"dtype": "float32"}),
    ),
    refusals=(
        *WRONG_AXIS,
        Refusal(((2,),), {"ord": "NaN"}, "invalid_graph"),
        Refusal(((0, 3),), {"axis": 0, "ord": "Infinity"}, "shape_mismatch"),
    ),
    example="vector_norm(x, axis=0)",
)


def _read_matrix_order(value: Any) -> str | float:
    if value in ("fro", "nuc"):
        return str(value)
    if isinstance(value, str) and value not in kinds.NON_FINITE:
        raise InvalidGraph(_NO_ORDER + kinds.shown(value))
    order = kinds.read_real(value)
    if order not in (1, -1, 2, -2, math.inf, -math.inf):
        raise InvalidGraph(_NO_ORDER + kinds.shown(value))
    return order


_NO_ORDER = "a matrix norm has the order fro, nuc, 1, -1, 2, -2, Infinity or -Infinity, not "
MATRIX_ORDER = kinds.Attr(
    _read_matrix_order,
    {"enum": ["fro", "nuc", 1, -1, 2, -2, "Infinity", "-Infinity"]},
    "fro: the root of the sum of squares; nuc, 2, -2: sum, largest, smallest of the singular values; 1, -1: largest, "
    "smallest sum of magnitudes of a column, and Infinity, -Infinity of a row.",
    "fro",
)


def _matrix_axes(x: Node, axis: tuple[int, ...]) -> tuple[int, int]:
    return plane_of(axis, x.rank, "a matrix has two axes")


def _small_enough(limits: Limits, x: Node, *, ord: str | float, axis: tuple[int, ...], **attrs: Any) -> None:
    """Singular values are asked for of small matrices only."""
    if ord in ("nuc", 2, -2):
        small_enough(limits, ops.moveaxis(x, source=_matrix_axes(x, axis), destination=(-2, -1)))


def _matrix_norm(x: Node, *, ord: str | float, axis: tuple[int, ...], keepdims: bool, **cast: None) -> Node:
    axes = _matrix_axes(x, axis)
    if ord == "fro":
        return ops.vector_norm(x, axis=axes, keepdims=keepdims)
    last = ops.moveaxis(x, source=axes, destination=(-2, -1))
    return ops.reshape(_norm_of_last(last, ord), shape=drop_axes(x.shape, axes, keepdims=keepdims))


def _norm_of_last(x: Node, ord: str | float) -> Node:
    if ord == "nuc":
        return ops.sum(ops.svdvals(x), axis=-1)
    assert isinstance(ord, float)
    if ord > 0 and 0 in x.shape[-2:]:
        return filled(x.graph, 0, Spec(x.shape[:-2], to_real(x.dtype)))
    values = ops.svdvals(x) if abs(ord) == 2 else ops.sum(ops.abs(x), axis=-2 if abs(ord) == 1 else -1)
    return (ops.max if ord > 0 else ops.min)(values, axis=-1)


matrix_norm = composite(
    "matrix_norm",
    "A norm of a matrix, or of each in a stack.",
    _matrix_norm,
    operands=ANY,
    attrs={
        "ord": MATRIX_ORDER,
        "axis": kinds.integers("The axes of rows and of columns.", (-2, -1)),
        "keepdims": KEEPDIMS,
        "dtype": COMPUTED_IN,
    },
    casts="dtype",
    guard=_small_enough,
    inexact=True,
    torch="linalg_matrix_norm",
    family="reduction",
    samples=(
        Sample(((2, 3),)),
        Sample(((2, 3, 4),), {"keepdims": True}),
        Sample(((2, 3, 4),), {"axis": [2, 0], "ord": 1}),
        *[Sample(((2, 3),), {"ord": ord}) for ord in ("nuc", 1, -1, 2, -2, "Infinity", "-Infinity")],
        Sample(((0, 3),)),
        Sample(((2, 3, 0),), {"ord": 2}),
        Sample(([[3, 0], [0, 4]],), {"dtype": "float32"}),
        Sample(([[3, 0], [0, 4]],), {"ord": "nuc"}),
    ),
    refusals=(
        Refusal(((3,),), {}, "shape_mismatch"),
        Refusal(((2, 2),), {"axis": [0, -2]}, "shape_mismatch"),
        Refusal(((2, 2),), {"axis": 0}, "shape_mismatch"),
        Refusal(((2, 2),), {"ord": 3}, "invalid_graph"),
        Refusal(((2, 2),), {"ord": "frobenius"}, "invalid_graph"),
        Refusal(((0, 0),), {"ord": -2}, "shape_mismatch"),
        Refusal(((1, 2, 2049),), {"ord": "nuc", "axis": [2, 0]}, "limit_exceeded"),
    ),
    example="matrix_norm(x, ord='nuc')",
)
