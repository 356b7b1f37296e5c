"""Reductions: sums, products, extremes, spreads and norms over axes, and what runs along one axis.

`axis` is one axis, a list of them, or absent for all; inside, it is a sorted tuple. An empty axis is legal
wherever the fold has a neutral element. No slope divides by what may well be zero: that of a product comes
without division, and a norm or a standard deviation of 0 has gradient 0.

Names of this module hide the built-in sum, max, min, all and any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, cast, define, ops
from engine.derivative import Custom, Flat, Linear, by_slope, times, zeros
from engine.errors import DtypeMismatch, InvalidGraph, ShapeMismatch
from engine.families import (
    FOLDED,
    KEEPDIMS,
    X,
    batch_shifted,
    composite,
    reduced_axes,
    reduced_shape,
    reduction,
)
from engine.types import BOOL, DTYPES, INT64, Dtype, Shape, axis_of, drop_axes

DTYPE = kinds.dtype("Dtype of the result; by default the operand's, but 64 bits for whole numbers.", None)
WRONG_AXIS = (
    Refusal(((2, 3),), {"axis": 2}, "shape_mismatch"),
    Refusal(((2, 3),), {"axis": [0, -2]}, "shape_mismatch"),
)
EMPTY = (Sample(((0, 3),), {"axis": 0}), Sample(((3, 0),), {"axis": 0}), Sample(((),)))
TOTALS = (
    *FOLDED,
    *EMPTY,
    Sample(((2, 3),), {"axis": 1, "dtype": "float64"}),
    Sample(([[1, 2], [3, 4]],), {"axis": 0}),
    Sample(([True, False, True],), {"keepdims": True}),
    Sample(([[1, 2], [3, 4]],), {"dtype": "float64"}),
)


def _total_dtype(x: Dtype, *, dtype: str | None, **attrs: Any) -> Dtype:
    """The Array API's: whole numbers are summed in 64 bits, so that small dtypes do not overflow."""
    if dtype is not None:
        if x.kind == "c" and DTYPES[dtype].kind != "c":
            raise DtypeMismatch(f"a sum of {x.name} does not go into {dtype}, which has no imaginary part")
        return DTYPES[dtype]
    return DTYPES["uint64"] if x.kind == "u" else INT64 if x.kind in "bi" else x


def _boolean(x: Dtype, **attrs: Any) -> Dtype:
    return BOOL


def _count_dtype(x: Dtype, **attrs: Any) -> Dtype:
    return INT64


def _unfold(value: Node, x: Node, axis: Sequence[int]) -> Node:
    """A value of the reduction's shape with its axes kept, as ones, so that it broadcasts against `x`."""
    return ops.reshape(value, shape=drop_axes(x.shape, axis, keepdims=True))


def _count(shape: Shape, axis: Sequence[int]) -> int:
    return math.prod(shape[at] for at in axis)


def _span(x: Node, axis: int, start: int, stop: int) -> Node:
    """Elements `start` to `stop` of `x` along one axis."""
    return ops.slice(x, index=(*((None, None, None),) * axis, (start, stop, None)))


def _ones(x: Node, shape: Shape) -> Node:
    return ops.broadcast_to(x.graph.constant(1, x.dtype), shape=shape)


def _elements(out: Shape, x: Shape, **attrs: Any) -> int:
    return math.prod(x)


# Sums and means


def _unsummed(x: Node, *, axis: tuple[int, ...], dtype: str | None, keepdims: bool) -> Node | None:
    return x if not axis and _total_dtype(x.dtype, dtype=dtype) == x.dtype else None


sum = reduction(
    "sum",
    "Sum over axes. Whole numbers and booleans are summed as int64 or uint64.",
    np.add.reduce,
    Linear(lambda g, x, *, axis, **attrs: ops.broadcast_to(_unfold(g, x, axis), shape=x.shape)),
    operands=(Operand("x", "biufc"),),
    attrs={"dtype": DTYPE},
    returns=_total_dtype,
    same=_unsummed,
    samples=TOTALS,
    refusals=WRONG_AXIS,
    example="sum(x, axis=0)",
)


def _mean(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    # Not np.mean, which warns of an empty axis past np.errstate.
    return np.divide(np.sum(x, axis=axis, keepdims=keepdims), _count(x.shape, axis))


def _mean_adjoint(g: Node, x: Node, *, axis: tuple[int, ...], keepdims: bool) -> Node:
    count = _count(x.shape, axis) or 1
    return ops.broadcast_to(_unfold(g * (1.0 / count), x, axis), shape=x.shape)


mean = reduction(
    "mean",
    "Arithmetic mean over axes, of an empty one NaN.",
    _mean,
    Linear(_mean_adjoint),
    inexact=True,
    samples=(*FOLDED, Sample(((3, 0),), {"axis": 0}), Sample(([1, 2, 4],))),
    refusals=WRONG_AXIS,
    example="mean(x, axis=0)",
)

nansum = composite(
    "nansum",
    "Sum over axes of what is not NaN.",
    lambda x, **attrs: ops.sum(ops.where(ops.isnan(x), 0, x), **attrs),
    attrs={"axis": kinds.axes(), "dtype": DTYPE, "keepdims": KEEPDIMS},
    samples=(*TOTALS, Sample(([1.0, "NaN", 2.0],))),
    refusals=WRONG_AXIS,
    example="nansum(x, axis=0)",
)


def _nanmean(x: Node, *, axis: Any, keepdims: bool) -> Node:
    there = ops.logical_not(ops.isnan(x))
    count = ops.sum(there, axis=axis, dtype=x.dtype.name, keepdims=keepdims)
    return ops.nansum(x, axis=axis, keepdims=keepdims) / count


nanmean = composite(
    "nanmean",
    "Mean over axes of what is not NaN.",
    _nanmean,
    attrs={"axis": kinds.axes(), "keepdims": KEEPDIMS},
    inexact=True,
    samples=(*FOLDED, Sample(([1.0, "NaN", 2.0],))),
    refusals=WRONG_AXIS,
    example="nanmean(x, axis=0)",
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
            level = ops.concat(level, _ones(level, drop_axes(level.shape, (axis,), keepdims=True)), axis=axis)
        a, b = _span(level, axis, 0, half), _span(level, axis, half, 2 * half)
        pairs.append((a, b, size))
        level = a * b
    others = _ones(x, level.shape)
    for a, b, size in reversed(pairs):
        both = (b, a) if size == 2 else (others * b, others * a)
        others = _span(ops.concat(*both, axis=axis), axis, 0, size)
    return others


def _prod_slope(out: Node, x: Node, *, axis: tuple[int, ...], **attrs: Any) -> Node:
    """The product of the others, over several axes as over one that they are flattened into."""
    x = cast(x, out.dtype)
    if len(axis) == 1:
        return products_of_others(x, axis[0])
    to_end = (*[at for at in range(x.rank) if at not in axis], *axis)
    moved = ops.permute_dims(x, axes=to_end)
    kept = len(to_end) - len(axis)
    flat = ops.reshape(moved, shape=(*moved.shape[:kept], _count(x.shape, axis)))
    others = ops.reshape(products_of_others(flat, kept), shape=moved.shape)
    return ops.permute_dims(others, axes=tuple(to_end.index(at) for at in range(x.rank)))


prod = reduction(
    "prod",
    "Product over axes. Its slope is the product of the others, exact with any number of zeros.",
    np.multiply.reduce,
    by_slope(_prod_slope, reduced_axes),
    attrs={"dtype": DTYPE},
    returns=_total_dtype,
    samples=(
        *TOTALS,
        Sample(((7,),)),
        Sample(((3, 2, 5),), {"axis": [0, 2]}),
        Sample(([0.0, 2.0, 3.0],)),
        Sample(([[0.0, 2.0], [0.0, 3.0]],), {"axis": 0}),
    ),
    refusals=WRONG_AXIS,
    example="prod(x, axis=0)",
)


# Extremes


def _extreme_shape(shape: Shape, *, axis: tuple[int, ...], keepdims: bool) -> Shape:
    for at in axis:
        if shape[at] == 0:
            raise ShapeMismatch(f"axis {at} of a tensor of shape {list(shape)} is empty: it has no largest or smallest")
    return reduced_shape(shape, axis=axis, keepdims=keepdims)


def _ties(x: Node, extreme: Node, axis: tuple[int, ...]) -> tuple[Node, Node]:
    """Which elements are the extreme, and one over their number. NaN, where there is one, is chosen."""
    chosen = ops.equal(x, _unfold(extreme, x, axis)) | ops.isnan(x)
    return chosen, ops.reciprocal(ops.sum(chosen, axis=axis, dtype=x.dtype.name, keepdims=True))


def _extreme_forward(node: Node, t: Node) -> Node:
    chosen, share = _ties(node.inputs[0], node, reduced_axes(node))
    total = ops.sum(ops.where(chosen, t, 0.0), axis=reduced_axes(node), keepdims=True)
    return ops.reshape(total * share, shape=node.shape)


def _extreme_reverse(node: Node, g: Node) -> Node:
    x, axis = node.inputs[0], reduced_axes(node)
    chosen, share = _ties(x, node, axis)
    return ops.where(chosen, _unfold(g, x, axis) * share, 0.0)


EXTREME: Attrs = {
    "derivative": Custom(_extreme_forward, _extreme_reverse),
    "shape": _extreme_shape,
    "samples": (*FOLDED, Sample(((),)), Sample(((3, 0),), {"axis": 0}), Sample(([3, 1, 2],))),
    "refusals": (*WRONG_AXIS, Refusal(((0, 3),), {"axis": 0}, "shape_mismatch")),
}

max = reduction(
    "max",
    "Largest value over axes; ties share the slope evenly.",
    np.maximum.reduce,
    **EXTREME,
    torch="amax",
    example="max(x, axis=0)",
)

min = reduction(
    "min",
    "Smallest value over axes; ties share the slope evenly.",
    np.minimum.reduce,
    **EXTREME,
    torch="amin",
    example="min(x, axis=0)",
)


def _settle_axis(attrs: Attrs, shape: Shape) -> Attrs:
    return attrs if attrs["axis"] is None else attrs | {"axis": axis_of(attrs["axis"], len(shape))}


def _place_shape(shape: Shape, *, axis: int | None, keepdims: bool) -> Shape:
    axes = tuple(range(len(shape))) if axis is None else (axis,)
    return _extreme_shape(shape, axis=axes, keepdims=keepdims)


def _place_batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """A place in the flattened tensor is one in each example, flattened by itself."""
    if node.attrs["axis"] is not None:
        return batch_shifted("axis")(node, args, batched)
    examples = args[0].shape[0]
    flat = ops.reshape(args[0], shape=(examples, node.inputs[0].size))
    return ops.reshape(node.op(flat, axis=1), shape=(examples, *node.shape))


PLACE: Attrs = {
    "operands": X,
    "attrs": {"axis": kinds.axis("The axis; the flattened tensor when absent.", None), "keepdims": KEEPDIMS},
    "shape": _place_shape,
    "canonical": _settle_axis,
    "returns": _count_dtype,
    "derivative": Flat(),
    "batch": _place_batch,
    "family": "reduction",
    "flops": _elements,
    "samples": (
        Sample(((3,),)),
        Sample(((2, 3),), {"axis": 1}),
        Sample(((2, 3),), {"axis": -2, "keepdims": True}),
        Sample(((2, 3),), {"keepdims": True}),
        Sample(((3, 0),), {"axis": 0}),
        Sample(((),)),
    ),
    "refusals": (
        Refusal(((2, 3),), {"axis": 2}, "shape_mismatch"),
        Refusal(((0, 3),), {"axis": 0}, "shape_mismatch"),
    ),
}

argmax = define(
    "argmax",
    "Index of the first largest value along an axis, or in the flattened tensor.",
    kernel=np.argmax,
    **PLACE,
    example="argmax(x, axis=0)",
)

argmin = define(
    "argmin",
    "Index of the first smallest value along an axis, or in the flattened tensor.",
    kernel=np.argmin,
    **PLACE,
    example="argmin(x, axis=0)",
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
    returns=_boolean,
    samples=TRUTH,
    refusals=WRONG_AXIS,
    example="all(x, axis=0)",
)

any = reduction(
    "any",
    "Whether at least one element over axes is true, that is, not zero.",
    np.logical_or.reduce,
    Flat(),
    returns=_boolean,
    samples=TRUTH,
    refusals=WRONG_AXIS,
    example="any(x, axis=0)",
)

count_nonzero = reduction(
    "count_nonzero",
    "The number of elements over axes that are not zero.",
    np.count_nonzero,
    Flat(),
    returns=_count_dtype,
    samples=TRUTH,
    refusals=WRONG_AXIS,
    example="count_nonzero(x, axis=0)",
)


# Spreads


def _divisor(shape: Shape, axis: Sequence[int], correction: float) -> float:
    """The count less its correction, and NaN when nothing is left, as the Array API has it."""
    left = _count(shape, axis) - correction
    return left if left > 0 else math.nan


def _variance(x: Any, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Any:
    # Taken from the first element at first: what is constant then has variance 0 and not a rounding error's.
    first = tuple(slice(0, 1) if at in axis else slice(None) for at in range(x.ndim))
    centred = x - x[first]
    centred -= _mean(centred, axis=axis, keepdims=True)
    centred *= centred
    return np.divide(np.sum(centred, axis=axis, keepdims=keepdims), _divisor(x.shape, axis, correction))


def _deviation(x: Any, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Any:
    return np.sqrt(_variance(x, axis=axis, correction=correction, keepdims=keepdims))


def _var_slope(out: Node, x: Node, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Node:
    return (x - ops.mean(x, axis=axis, keepdims=True)) * (2.0 / _divisor(x.shape, axis, correction))


def _std_slope(out: Node, x: Node, *, axis: tuple[int, ...], correction: float, keepdims: bool) -> Node:
    centred = (x - ops.mean(x, axis=axis, keepdims=True)) * (1.0 / _divisor(x.shape, axis, correction))
    return _over(centred, out)


def _over(x: Node, length: Node) -> Node:
    """x / length, and 0 where the length is 0: the subgradient of least norm."""
    nothing = ops.equal(length, 0.0)
    return ops.where(nothing, 0.0, x * ops.reciprocal(ops.where(nothing, 1.0, length)))


SPREAD: Attrs = {
    "attrs": {"correction": kinds.real("What is taken off the count: 1 for the sample's spread.", 0.0)},
    "inexact": True,
    "flops": lambda out, x, **attrs: 5 * math.prod(x),
    "scratch": _elements,
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


def _logsumexp(x: Any, *, axis: tuple[int, ...], keepdims: bool) -> Any:
    largest = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    # An infinite shift would turn -inf everywhere, or inf anywhere, into NaN.
    shift = np.where(np.isfinite(largest), largest, np.zeros((), x.dtype))
    terms = np.asarray(x - shift)
    np.exp(terms, out=terms)
    out = np.log(np.sum(terms, axis=axis, keepdims=keepdims))
    return out + np.reshape(shift, np.shape(out))


logsumexp = reduction(
    "logsumexp",
    "log(sum(exp(x))) over axes, without overflow; its slope is softmax.",
    _logsumexp,
    by_slope(lambda out, x, *, axis, keepdims: ops.softmax(x, axis=axis), reduced_axes),
    inexact=True,
    flops=lambda out, x, **attrs: 22 * math.prod(x),
    scratch=_elements,
    samples=(*FOLDED, *EMPTY[1:], Sample(([1, 2, 4],)), Sample(([1000.0, 999.0, 998.5],))),
    refusals=WRONG_AXIS,
    example="logsumexp(x, axis=0)",
)


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
        return _extreme_shape(shape, axis=axis, keepdims=keepdims)
    return reduced_shape(shape, axis=axis, keepdims=keepdims)


def _norm_slope(out: Node, x: Node, *, axis: tuple[int, ...], ord: float, keepdims: bool) -> Node:
    """sign(x)·(|x| / out)^(ord − 1), and 0 where x is 0: at the origin, the subgradient of least norm."""
    if ord == 0:
        return zeros(x, x.spec)
    if ord == 1:
        return ops.sign(x)
    if ord == 2:
        return _over(x, out)
    if math.isinf(ord):
        chosen, share = _ties(ops.abs(x), out, axis)
        return ops.where(chosen, ops.sign(x) * share, 0.0)
    nothing = ops.equal(x, 0.0)
    share = _over(ops.abs(ops.where(nothing, 1.0, x)), out)
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
    scratch=_elements,
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


# Along one axis


def _settle_run(attrs: Attrs, shape: Shape) -> Attrs:
    """The axis, which may be absent only where there is but one."""
    if not shape:
        raise ShapeMismatch("expected a tensor with at least one axis, got a scalar")
    if attrs["axis"] is None and len(shape) > 1:
        raise ShapeMismatch(f"a tensor with {len(shape)} axes needs the attribute 'axis'")
    return attrs | {"axis": axis_of(attrs["axis"] or 0, len(shape))}


def _run_shape(shape: Shape, *, axis: int, include_initial: bool, **attrs: Any) -> Shape:
    return (*shape[:axis], shape[axis] + include_initial, *shape[axis + 1 :])


def _without_initial(g: Node, axis: int, include_initial: bool) -> Node:
    return _span(g, axis, 1, g.shape[axis]) if include_initial else g


def _cumulative_sum_adjoint(g: Node, x: Node, *, axis: int, dtype: str | None, include_initial: bool) -> Node:
    g = _without_initial(g, axis, include_initial)
    return ops.flip(ops.cumulative_sum(ops.flip(g, axis=axis), axis=axis), axis=axis)


RUN: Attrs = {
    "operands": X,
    "attrs": {
        "axis": kinds.axis("The axis; it may be absent where there is but one.", None),
        "dtype": DTYPE,
        "include_initial": kinds.boolean("Whether the neutral element stands in front.", False),
    },
    "shape": _run_shape,
    "canonical": _settle_run,
    "returns": _total_dtype,
    "batch": batch_shifted("axis"),
    "family": "reduction",
    "samples": (
        Sample(((5,),)),
        Sample(((2, 3),), {"axis": 1}),
        Sample(((3, 2),), {"axis": -2, "include_initial": True}),
        Sample(((0,),), {"include_initial": True}),
        Sample(((2, 0),), {"axis": 1}),
        Sample(((3,),), {"dtype": "float64"}),
        Sample(([1, 2, 3],)),
        Sample(([True, False],), {"dtype": "float64"}),
    ),
    "refusals": (
        Refusal(((2, 3),), {}, "shape_mismatch"),
        Refusal(((),), {}, "shape_mismatch"),
        Refusal(((2, 3),), {"axis": 2}, "shape_mismatch"),
    ),
}

cumulative_sum = define(
    "cumulative_sum",
    "Sums of the elements up to each, along an axis.",
    kernel=np.cumulative_sum,
    derivative=Linear(_cumulative_sum_adjoint),
    flops=_elements,
    torch="cumsum",
    **RUN,
    example="cumulative_sum(x, axis=0)",
)


def _recurrence(a: Node, b: Node, axis: int) -> Node:
    """y_k = a_k·y_(k−1) + b_k along an axis, y before the first being 0.

    By doubling (Hillis & Steele 1986): after j rounds an element has taken in the 2^j up to it. No division.
    """
    size, step = a.shape[axis], 1
    while step < size:
        late = _span(a, axis, step, size)
        reach = _span(b, axis, step, size) + late * _span(b, axis, 0, size - step)
        b = ops.concat(_span(b, axis, 0, step), reach, axis=axis)
        a = ops.concat(_span(a, axis, 0, step), late * _span(a, axis, 0, size - step), axis=axis)
        step *= 2
    return b


def _products_before(node: Node, x: Node) -> Node:
    """For each element, the product of those before it."""
    axis = node.attrs["axis"]
    return _span(ops.cumulative_prod(x, axis=axis, include_initial=True), axis, 0, x.shape[axis])


def _cumulative_prod_forward(node: Node, t: Node) -> Node:
    x, axis = cast(node.inputs[0], node.dtype), node.attrs["axis"]
    run = _recurrence(x, _products_before(node, x) * t, axis)
    if not node.attrs["include_initial"]:
        return run
    one = drop_axes(x.shape, (axis,), keepdims=True)
    return ops.concat(ops.broadcast_to(x.graph.constant(0, x.dtype), shape=one), run, axis=axis)


def _cumulative_prod_reverse(node: Node, g: Node) -> Node | None:
    """x̄_i = (product before i)·s_i, where s_i = g_i + x_(i+1)·s_(i+1) runs from the end."""
    x, axis = cast(node.inputs[0], node.dtype), node.attrs["axis"]
    g = _without_initial(g, axis, node.attrs["include_initial"])
    following = ops.roll(ops.flip(x, axis=axis), shift=1, axis=axis)
    sums = ops.flip(_recurrence(following, ops.flip(g, axis=axis), axis), axis=axis)
    return times(sums, _products_before(node, x))


cumulative_prod = define(
    "cumulative_prod",
    "Products of the elements up to each, along an axis; its derivatives are exact with any number of zeros.",
    kernel=np.cumulative_prod,
    derivative=Custom(_cumulative_prod_forward, _cumulative_prod_reverse),
    flops=_elements,
    torch="cumprod",
    **RUN | {"samples": (*RUN["samples"], Sample(([0.0, 2.0, 0.0, 3.0, 4.0],)), Sample(((7,),)))},
    example="cumulative_prod(x, axis=0)",
)


MOST_DIFFERENCES = 1024
"""Beyond it, the binomial coefficients in a difference overflow float64."""


def _diff(x: Node, *, axis: int, n: int) -> Node:
    if not 0 <= n <= MOST_DIFFERENCES:
        raise InvalidGraph(f"diff takes differences n times, with n from 0 to {MOST_DIFFERENCES}, got {n}")
    axis = axis_of(axis, x.rank)
    for size in range(x.shape[axis], 0, -1)[:n]:
        x = _span(x, axis, 1, size) - _span(x, axis, 0, size - 1)
    return x


diff = composite(
    "diff",
    "Differences of neighbours along an axis, taken n times.",
    _diff,
    operands=(Operand("x", "iuf"),),
    attrs={"axis": kinds.axis(default=-1), "n": kinds.integer("How many times.", 1)},
    samples=(
        Sample(((4,),)),
        Sample(((3, 2),), {"axis": 0}),
        Sample(((4,),), {"n": 2}),
        Sample(((2,),), {"n": 3}),
        Sample(((3,),), {"n": 0}),
        Sample(([1, 4, 9],)),
    ),
    refusals=(
        Refusal(((),), {}, "shape_mismatch"),
        Refusal(((3,),), {"axis": 1}, "shape_mismatch"),
        Refusal(((3,),), {"n": -1}, "invalid_graph"),
        Refusal(((3,),), {"n": 1025}, "invalid_graph"),
    ),
    example="diff(x, axis=0)",
)

trace = composite(
    "trace",
    "Sum of a diagonal of the last two axes.",
    lambda x, *, offset, dtype: ops.sum(ops.diagonal(x, offset=offset), axis=-1, dtype=dtype),
    attrs={"offset": kinds.integer("Which diagonal: above the main one where positive.", 0), "dtype": DTYPE},
    samples=(
        Sample(((3, 3),)),
        Sample(((2, 3, 4),), {"offset": 1}),
        Sample(((3, 2),), {"offset": -5}),
        Sample(([[1, 2], [3, 4]],), {"dtype": "float64"}),
        Sample(((0, 0),)),
    ),
    refusals=(Refusal(((3,),), {}, "shape_mismatch"),),
    example="trace(x)",
)
