"""Reductions: sums, means, products, counts over axes.

`axis` is one axis, a list of them, or absent for all; inside, it is a sorted tuple. An empty axis is legal
wherever the fold has a neutral element. No slope divides by what may well be zero: that of a product comes
without division.

Names of this module hide the built-in sum, all and any.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Fold, Node, Sample, cast, ops
from engine.derivative import Flat, Linear, by_slope, filled
from engine.errors import DtypeMismatch
from engine.families import (
    ANY,
    COMPUTED_IN,
    EMPTY,
    FOLDED,
    KEEPDIMS,
    WRONG_AXIS,
    boolean,
    composite,
    count_along,
    int64,
    like_operand,
    reduced_axes,
    reduction,
    resized,
    span,
    unfold,
)
from engine.types import DTYPES, INT64, Dtype, Spec, to_real

DTYPE = kinds.dtype("Dtype of the result; by default the operand's, but 64 bits for whole numbers.", None)
TOTALS = (
    *FOLDED,
    *EMPTY,
    Sample(((2, 3),), {"axis": 1, "dtype": "float64"}),
    Sample(([[1, 2], [3, 4]],), {"axis": 0}),
    Sample(([True, False, True],), {"keepdims": True}),
    Sample(([[1, 2], [3, 4]],), {"dtype": "float64"}),
)


def total_dtype(x: Dtype, *, dtype: str | None, **attrs: Any) -> Dtype:
    """The Array API's: whole numbers are summed in 64 bits, so that small dtypes do not overflow."""
    if dtype is not None:
        if x.kind == "c" and DTYPES[dtype].kind != "c":
            raise DtypeMismatch(f"a sum of {x.name} does not go into {dtype}, which has no imaginary part")
        return DTYPES[dtype]
    return DTYPES["uint64"] if x.kind == "u" else INT64 if x.kind in "bi" else x


# Sums and means


def _unsummed(x: Node, *, axis: tuple[int, ...], dtype: str | None, keepdims: bool) -> Node | None:
    return x if not axis and total_dtype(x.dtype, dtype=dtype) == x.dtype else None


sum = reduction(
    "sum",
    "Sum over axes. Whole numbers and booleans are summed as int64 or uint64.",
    np.add.reduce,
    Linear(lambda g, x, *, axis, **attrs: ops.broadcast_to(unfold(g, x, axis), shape=x.shape)),
    operands=ANY,
    attrs={"dtype": DTYPE},
    returns=total_dtype,
    same=_unsummed,
    samples=TOTALS,
    refusals=WRONG_AXIS,
    example="sum(x, axis=0)",
    fold=Fold(np.add.reduce),
)


SUM: Any = np.add.reduce
"""What np.sum comes to, without the microsecond that it takes to get there."""


def mean_of(x: Any, *, axis: tuple[int, ...], keepdims: bool, **cast: None) -> Any:
    # Not np.mean, which warns of an empty axis past np.errstate.
    return np.divide(SUM(x, axis=axis, keepdims=keepdims), count_along(x.shape, axis))


def _mean_adjoint(g: Node, x: Node, *, axis: tuple[int, ...], **attrs: Any) -> Node:
    count = count_along(x.shape, axis) or 1
    return ops.broadcast_to(unfold(g * (1.0 / count), x, axis), shape=x.shape)


mean = reduction(
    "mean",
    "Arithmetic mean over axes, of an empty one NaN.",
    mean_of,
    Linear(_mean_adjoint),
    operands=ANY,
    inexact=True,
    last={"dtype": COMPUTED_IN},
    casts="dtype",
    samples=(
        *FOLDED,
        Sample(((3, 0),), {"axis": 0}),
        Sample(([1, 2, 4],)),
        Sample(([1, 2, 4],), {"dtype": "float32"}),
    ),
    refusals=WRONG_AXIS,
    example="mean(x, axis=0)",
    fold=Fold(np.add.reduce, np.divide),
)

nansum = composite(
    "nansum",
    "Sum over axes of what is not NaN.",
    lambda x, **attrs: ops.sum(ops.where(ops.isnan(x), 0, x), **attrs),
    operands=ANY,
    attrs={"axis": kinds.axes(), "dtype": DTYPE, "keepdims": KEEPDIMS},
    samples=(*TOTALS, Sample(([1.0, "NaN", 2.0],))),
    refusals=WRONG_AXIS,
    example="nansum(x, axis=0)",
)


def _nanmean(x: Node, *, axis: Any, keepdims: bool) -> Node:
    there = ops.logical_not(ops.isnan(x))
    count = ops.sum(there, axis=axis, dtype=to_real(x.dtype).name, keepdims=keepdims)
    return ops.nansum(x, axis=axis, keepdims=keepdims) / count


nanmean = composite(
    "nanmean",
    "Mean over axes of what is not NaN.",
    _nanmean,
    operands=ANY,
    attrs={"axis": kinds.axes(), "keepdims": KEEPDIMS},
    inexact=True,
    samples=(*FOLDED, Sample(([1.0, "NaN", 2.0],))),
    refusals=WRONG_AXIS,
    example="nanmean(x, axis=0)",
)


def _logsumexp(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    largest = np.max(x.real, axis=axis, keepdims=True, initial=-np.inf)
    # An infinite shift would turn -inf everywhere, or inf anywhere, into NaN.
    shift = np.where(np.isfinite(largest), largest, np.zeros((), largest.dtype))
    terms = np.asarray(x - shift)
    np.exp(terms, out=terms)
    out = np.log(np.sum(terms, axis=axis, keepdims=keepdims))
    return out + np.reshape(shift, np.shape(out))


def _logsumexp_slope(out: Node, x: Node, *, axis: tuple[int, ...], keepdims: bool) -> Node:
    return ops.exp(x - out) if x.dtype.kind == "c" else ops.softmax(x, axis=axis)


logsumexp = reduction(
    "logsumexp",
    "log(sum(exp(x))) over axes, without overflow; its slope is softmax.",
    _logsumexp,
    by_slope(_logsumexp_slope, reduced_axes),
    operands=ANY,
    inexact=True,
    flops=lambda out, x, **attrs: 22 * math.prod(x),
    scratch=like_operand(1),
    samples=(*FOLDED, *EMPTY[1:], Sample(([1, 2, 4],)), Sample(([1000.0, 999.0, 998.5],))),
    refusals=WRONG_AXIS,
    example="logsumexp(x, axis=0)",
)


# Products


def products_of_others(x: Node, axis: int) -> Node:
    """For each element of `x` along one axis, the product of all the others.

    Up a tree, products of pairs; down again, what stands outside each pair times the other one of it. Three
    multiplications an element and no division: exact with any number of zeros, and so are its derivatives.
    """
    pairs = []
    level = x
    while (size := level.shape[axis]) > 1:
        half = (size + 1) // 2
        if size % 2:
            one = filled(x.graph, 1, Spec(resized(level.shape, axis, 1), x.dtype))
            level = ops.concat(level, one, axis=axis)
        a, b = span(level, axis, 0, half), span(level, axis, half, 2 * half)
        pairs.append((a, b, size))
        level = a * b
    others = filled(x.graph, 1, Spec(level.shape, x.dtype))
    for a, b, size in reversed(pairs):
        both = (b, a) if size == 2 else (others * b, others * a)
        others = span(ops.concat(*both, axis=axis), axis, 0, size)
    return others


def _prod_slope(out: Node, x: Node, *, axis: tuple[int, ...], **attrs: Any) -> Node:
    """The product of the others, over several axes as over one that they are flattened into."""
    x = cast(x, out.dtype)
    if len(axis) == 1:
        return products_of_others(x, axis[0])
    to_end = (*[at for at in range(x.rank) if at not in axis], *axis)
    moved = ops.permute_dims(x, axes=to_end)
    kept = len(to_end) - len(axis)
    flat = ops.reshape(moved, shape=(*moved.shape[:kept], count_along(x.shape, axis)))
    others = ops.reshape(products_of_others(flat, kept), shape=moved.shape)
    return ops.permute_dims(others, axes=tuple(to_end.index(at) for at in range(x.rank)))


prod = reduction(
    "prod",
    "Product over axes. Its slope is the product of the others, exact with any number of zeros.",
    np.multiply.reduce,
    by_slope(_prod_slope, reduced_axes),
    operands=ANY,
    attrs={"dtype": DTYPE},
    returns=total_dtype,
    samples=(
        *TOTALS,
        Sample(((7,),)),
        Sample(((3, 2, 5),), {"axis": [0, 2]}),
        Sample(([0.0, 2.0, 3.0],)),
        Sample(([[0.0, 2.0], [0.0, 3.0]],), {"axis": 0}),
    ),
    refusals=WRONG_AXIS,
    example="prod(x, axis=0)",
    fold=Fold(np.multiply.reduce),
)


# Truth and counts

TRUTH = (
    *FOLDED,
    *EMPTY,
    Sample(([[True, False], [True, True]],), {"axis": 0}),
    Sample(([0, 1],), {"axis": []}),
)

all = reduction(
    "all",
    "Whether all elements over axes are true, that is, not zero.",
    np.logical_and.reduce,
    Flat(),
    operands=ANY,
    returns=boolean,
    samples=TRUTH,
    refusals=WRONG_AXIS,
    example="all(x, axis=0)",
    fold=Fold(np.logical_and.reduce),
)

any = reduction(
    "any",
    "Whether at least one element over axes is true, that is, not zero.",
    np.logical_or.reduce,
    Flat(),
    operands=ANY,
    returns=boolean,
    samples=TRUTH,
    refusals=WRONG_AXIS,
    example="any(x, axis=0)",
    fold=Fold(np.logical_or.reduce),
)

count_nonzero = reduction(
    "count_nonzero",
    "The number of elements over axes that are not zero.",
    np.count_nonzero,
    Flat(),
    operands=ANY,
    returns=int64,
    samples=TRUTH,
    refusals=WRONG_AXIS,
    example="count_nonzero(x, axis=0)",
)
