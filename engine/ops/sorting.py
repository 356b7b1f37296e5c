"""Sorting: which element comes first, and where another would go.

One primitive orders, a stable argsort; what is sorted is gathered by it, so that every derivative of sort, top_k and
the quantiles is that of gather. The order is NumPy's: NaN is the largest of all, last in ascending order and first in
descending; equal elements keep their order in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Flat, filled
from engine.errors import ShapeMismatch
from engine.families import (
    KEEPDIMS,
    X1X2,
    X,
    batch_shifted,
    composite,
    int64,
    listed,
    resized,
    same_shape,
    span,
)
from engine.types import BOOL, INT64, Shape, Spec, axis_of

AXIS = kinds.axis("The axis to sort along.", -1)
ORDERED: Attrs = {
    "axis": AXIS,
    "descending": kinds.boolean("Whether the largest comes first.", False),
    "stable": kinds.boolean("Whether equal elements keep their order; they do in any case.", True),
}
ORDERS = (
    Sample(((5,),)),
    Sample(((3, 4),), {"axis": 0}),
    Sample(((2, 3),), {"descending": True}),
    Sample(((2, 3),), {"stable": False}),
    Sample(([3, 1, 2],), {"descending": True}),
    Sample(([True, False, True],)),
    Sample(((0,),)),
    Sample(((3, 0),), {"axis": 0}),
    Sample(((),)),
)
NO_AXIS = (Refusal(((),), {"axis": 1}, "shape_mismatch"), Refusal(((2, 3),), {"axis": 2}, "shape_mismatch"))


def _settle(attrs: Attrs, x: Shape) -> Attrs:
    """A non-negative axis, of which a scalar has one, as in PyTorch; and what makes no difference."""
    return attrs | {"axis": axis_of(attrs["axis"], len(x) or 1), "stable": True}


def comparisons(out: Shape, x: Shape, *others: Shape, axis: int = -1, **attrs: Any) -> int:
    """n log₂ n along the axis."""
    return math.prod(x) * (x[axis] if x else 1).bit_length()


def _argsort(x: Any, *, axis: int, descending: bool, stable: bool) -> Any:
    if x.ndim == 0:
        return np.zeros((), np.int64)
    if not descending:
        return np.argsort(x, axis=axis, kind="stable")
    # Ascending from the other end, so that equal elements keep their order.
    order = np.argsort(np.flip(x, axis), axis=axis, kind="stable")
    np.subtract(x.shape[axis] - 1, order, out=order)
    return np.flip(order, axis)


def _batch_argsort(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    if node.rank == 0:
        return filled(node.graph, 0, Spec(args[0].shape, INT64))
    return batch_shifted("axis")(node, args, batched)


argsort = define(
    "argsort",
    "Indices that sort along an axis. NaN counts as the largest; equal elements keep their order.",
    operands=X,
    attrs=ORDERED,
    shape=same_shape,
    canonical=_settle,
    returns=int64,
    kernel=_argsort,
    derivative=Flat(),
    batch=_batch_argsort,
    flops=comparisons,
    scratch=lambda node: 4 * node.shape[node.attrs["axis"]] if node.shape else 0,
    pace=0.15,
    family="sorting",
    samples=ORDERS,
    refusals=NO_AXIS,
    example="argsort(x, axis=0)",
)


def _sort(x: Node, *, axis: int, **order: Any) -> Node:
    axis = axis_of(axis, x.rank or 1)
    return ops.gather(x, ops.argsort(x, axis=axis, **order), axis=axis) if x.rank else x


sort = composite(
    "sort",
    "Elements in order along an axis. NaN counts as the largest; of equal elements, each keeps its own gradient.",
    _sort,
    attrs=ORDERED,
    family="sorting",
    samples=ORDERS,
    refusals=NO_AXIS,
    example="sort(x, axis=0)",
)

# Some of the order


def _as_of_scalars(x: Node, found: Sequence[Node]) -> tuple[Node, ...]:
    """What was found in a scalar as in a vector of one, as scalars."""
    return tuple(ops.reshape(each, shape=x.shape) if each.size == 1 else each for each in found)


def _top_k(x: Node, *, k: int, axis: int, **which: bool) -> tuple[Node, ...]:
    if x.rank == 0:
        return _as_of_scalars(x, _top_k(ops.reshape(x, shape=(1,)), k=k, axis=axis, **which))
    at = axis_of(axis, x.rank)
    if not 0 <= k <= x.shape[at]:
        raise ShapeMismatch(f"axis {at} has {x.shape[at]} elements: k should be from 0 to that, got {k}")
    places = span(ops.argsort(x, axis=at, descending=which["largest"]), at, 0, k)
    return ops.gather(x, places, axis=at), places


top_k = composite(
    "top_k",
    "The k largest elements along an axis, or the k smallest, in order, and where they stand. Of equal elements the "
    "first are taken.",
    _top_k,
    attrs={
        "k": kinds.integer("How many."),
        "axis": AXIS,
        "largest": kinds.boolean("Whether the largest are taken, else the smallest.", True),
        "sorted": kinds.boolean("Whether they come in order; they do in any case.", True),
    },
    results=("values", "indices"),
    aliases=("topk",),
    torch="topk",
    family="sorting",
    samples=(
        Sample(((5,),), {"k": 2}),
        Sample(((3, 4),), {"k": 3, "axis": 0}),
        Sample(((2, 3),), {"k": 1, "largest": False}),
        Sample(((2, 3),), {"k": 0}),
        Sample(([3, 1, 2],), {"k": 2, "sorted": False}),
        Sample(((),), {"k": 1}),
    ),
    refusals=(
        Refusal(((3,),), {"k": 4}, "shape_mismatch"),
        Refusal(((3,),), {"k": -1}, "shape_mismatch"),
        Refusal(((3,),), {}, "invalid_graph"),
        Refusal(((),), {"k": 2}, "shape_mismatch"),
        Refusal(((3,),), {"k": 1, "axis": 1}, "shape_mismatch"),
    ),
    example="top_k(x, 2).values",
)


def _kthvalue(x: Node, *, k: int, axis: int, keepdims: bool) -> tuple[Node, ...]:
    if x.rank == 0:
        return _as_of_scalars(x, _kthvalue(ops.reshape(x, shape=(1,)), k=k, axis=axis, keepdims=keepdims))
    at = axis_of(axis, x.rank)
    if not 1 <= k <= x.shape[at]:
        raise ShapeMismatch(f"axis {at} has {x.shape[at]} elements: k should be from 1 to that, got {k}")
    place = span(ops.argsort(x, axis=at), at, k - 1, k)
    shape = resized(x.shape, at, 1) if keepdims else (*x.shape[:at], *x.shape[at + 1 :])
    return ops.reshape(ops.gather(x, place, axis=at), shape=shape), ops.reshape(place, shape=shape)


kthvalue = composite(
    "kthvalue",
    "The k-th smallest element along an axis, counted from 1, and where it stands.",
    _kthvalue,
    attrs={"k": kinds.integer("Which one; 1 is the smallest."), "axis": AXIS, "keepdims": KEEPDIMS},
    results=("values", "indices"),
    family="sorting",
    samples=(
        Sample(((5,),), {"k": 2}),
        Sample(((3, 4),), {"k": 3, "axis": 0, "keepdims": True}),
        Sample(([3, 1, 2],), {"k": 1}),
        Sample(((),), {"k": 1}),
    ),
    refusals=(
        Refusal(((3,),), {"k": 4}, "shape_mismatch"),
        Refusal(((3,),), {"k": 0}, "shape_mismatch"),
        Refusal(((0,),), {"k": 1}, "shape_mismatch"),
        Refusal(((),), {"k": 1, "axis": 1}, "shape_mismatch"),
    ),
    example="kthvalue(x, 2).values",
)

# Where an element would go


def _place_shape(x1: Shape, x2: Shape, *, side: str) -> Shape:
    if not x1:
        raise ShapeMismatch("x1 should have an axis to search along, got a scalar")
    if len(x1) > 1 and x1[:-1] != x2[:-1]:
        raise ShapeMismatch(f"x1 and x2 should agree but for their last axes, got {listed(x1)} and {listed(x2)}")
    return x2


def _before(a: Any, b: Any) -> Any:
    """Whether `a` comes before `b` in sorted order, where NaN is last."""
    return (a < b) | ((b != b) & (a == a))


def _place(x1: Any, x2: Any, *, side: str) -> Any:
    if x1.ndim == 1:
        return np.searchsorted(x1, x2, side)  # type: ignore[call-overload]
    # Every row by its own x1: all bisections at once, a step for each bit of their length.
    low = np.zeros(x2.shape, np.int64)
    high = np.full(x2.shape, x1.shape[-1])
    for _ in range(x1.shape[-1].bit_length()):
        middle = (low + high) // 2
        found = np.take_along_axis(x1, np.minimum(middle, x1.shape[-1] - 1), -1)
        is_right = _before(found, x2) if side == "left" else ~_before(x2, found)
        is_open = low < high
        np.copyto(low, middle + 1, where=is_right & is_open)
        np.copyto(high, middle, where=~is_right & is_open)
    return low


def _batch_place(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    x1, x2 = args
    if not batched[0] and x1.rank == 1:
        return node.op(x1, x2, **node.attrs)
    size = args[batched.index(True)].shape[0]
    x1 = x1 if batched[0] else ops.broadcast_to(x1, shape=(size, *x1.shape))
    x2 = x2 if batched[1] else ops.broadcast_to(x2, shape=(size, *x2.shape))
    if x1.rank == 2:
        flat = ops.reshape(x2, shape=(size, node.size))
        return ops.reshape(node.op(x1, flat, **node.attrs), shape=x2.shape)
    return node.op(x1, x2, **node.attrs)


def _place_bytes(node: Node) -> int:
    """NumPy's own search is of one row; what goes through many rows at once keeps its bounds and middles."""
    x1, x2 = node.inputs
    return 0 if x1.rank == 1 else 48 * x2.size


sorted_place = define(
    "sorted_place",
    "Where each of x2 would go in x1, which is in ascending order along its last axis; its other axes are those of x2. "
    "What searchsorted and bucketize are written in.",
    operands=X1X2,
    attrs={
        "side": kinds.choice("Before (left) or behind (right) the elements that are equal.", ("left", "right"), "left")
    },
    shape=_place_shape,
    returns=int64,
    kernel=_place,
    derivative=Flat(),
    batch=_batch_place,
    flops=lambda out, x1, x2, **attrs: math.prod(x2) * x1[-1].bit_length(),
    scratch=_place_bytes,
    pace=0.15,
    family="sorting",
    samples=(
        Sample(([1.0, 2.0, 2.0, 3.5], [0.5, 2.0, 9.0])),
        Sample(([1.0, 2.0, 2.0, 3.5], [[2.0, 3.5], [1.0, "NaN"]]), {"side": "right"}),
        Sample(([[1.0, 2.0, 2.0], [0.0, 1.0, "NaN"]], [[2.0, 0.0], ["NaN", 1.0]])),
        Sample(([[1, 2, 2], [0, 1, 3]], [[2, 0], [7, 1]]), {"side": "right"}),
        Sample(([1, 2, 2, 3], 2)),
        Sample(((0,), (2,))),
        Sample(((2, 0), (2, 3))),
    ),
    refusals=(
        Refusal(((), (2,)), {}, "shape_mismatch"),
        Refusal(((2, 3), (3, 2)), {}, "shape_mismatch"),
        Refusal(((2,), (2,)), {"side": "middle"}, "invalid_graph"),
    ),
    example="sorted_place([1, 2, 4], x)",
)
SIDE = sorted_place.attrs["side"]


def _searchsorted(x1: Node, x2: Node, sorter: Node, *, side: str) -> Node:
    if sorter.rank:
        if sorter.shape != x1.shape:
            raise ShapeMismatch(f"sorter should have the shape of x1, {listed(x1.shape)}, got {listed(sorter.shape)}")
        x1 = ops.gather(x1, sorter, axis=x1.rank - 1)
    return ops.sorted_place(x1, x2, side=side)


searchsorted = composite(
    "searchsorted",
    "Where each of x2 would go in x1, which is in ascending order, or is so when it is taken by the sorter. An x1 with "
    "several axes is searched row by row.",
    _searchsorted,
    operands=(*X1X2, Operand("sorter", "iu", promotes=False, default=0)),
    attrs={"side": SIDE},
    family="sorting",
    samples=(
        Sample(([1.0, 2.0, 2.0, 3.5], [0.5, 2.0, 9.0])),
        Sample(([1.0, 2.0, 2.0, 3.5], [[2.0, 3.5], [1.0, 0.0]]), {"side": "right"}),
        Sample(([2.0, 1.0, 3.5], [1.5, 3.0], [1, 0, 2])),
        Sample(([[1.0, 2.0], [0.0, 3.0]], [[1.5], [1.5]], [[0, 1], [0, 1]])),
    ),
    refusals=(
        Refusal(((), (2,)), {}, "shape_mismatch"),
        Refusal(((2, 3), (3, 2)), {}, "shape_mismatch"),
        Refusal(((2,), (2,), [0, 1, 1]), {}, "shape_mismatch"),
        Refusal(((2,), (2,), [0, 2]), {}, "invalid_tensor"),
    ),
    example="searchsorted([1, 2, 4], x)",
)


def _bucketize(x: Node, boundaries: Node, *, right: bool) -> Node:
    if boundaries.rank != 1:
        raise ShapeMismatch(f"boundaries should have one axis, got shape {listed(boundaries.shape)}")
    return ops.sorted_place(boundaries, x, side="right" if right else "left")


bucketize = composite(
    "bucketize",
    "For each element, the number of the bucket it falls in: how many boundaries, in ascending order, are below it.",
    _bucketize,
    operands=(Operand("x"), Operand("boundaries")),
    attrs={"right": kinds.boolean("Whether a boundary that is equal counts as below.", False)},
    family="sorting",
    samples=(
        Sample(((2, 3), [-1.0, 0.0, 1.0])),
        Sample(([0.0, 1.0, 3.0], [0.0, 1.0, 2.0]), {"right": True}),
        Sample(((2,), (0,))),
    ),
    refusals=(Refusal(((2,), ()), {}, "shape_mismatch"), Refusal(((2,), (2, 2)), {}, "shape_mismatch")),
    example="bucketize(x, [0, 1, 2])",
)


def _isin(x1: Node, x2: Node, *, invert: bool) -> Node:
    if x2.size == 0:
        return filled(x1.graph, invert, Spec(x1.shape, BOOL))
    known = ops.sort(ops.reshape(x2, shape=(x2.size,)))
    place = ops.minimum(ops.sorted_place(known, x1), x2.size - 1)
    found = ops.equal(ops.take(known, place), x1)
    return ~found if invert else found


isin = composite(
    "isin",
    "Whether each element of x1 is one of x2; NaN is none.",
    _isin,
    operands=X1X2,
    attrs={"invert": kinds.boolean("Whether to answer the opposite.", False)},
    family="sorting",
    samples=(
        Sample(([[1, 2], [5, 4]], [4, 1, 1])),
        Sample(([1.0, "NaN", 3.0], ["NaN", 3.0]), {"invert": True}),
        Sample(([1, 2], 2)),
        Sample(((2,), (0,))),
        Sample(((0,), (2,))),
    ),
    refusals=(Refusal(((2,),), {}, "invalid_graph"),),
    example="isin(x, [1, 2])",
)
