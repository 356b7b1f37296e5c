"""Extremes: the largest and the smallest over axes, and where along an axis they stand.

An empty axis has neither, and is refused. Names of this module hide the built-in max and min.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Fold, Node, Refusal, Sample, define, ops
from engine.derivative import Custom, Flat
from engine.errors import ShapeMismatch
from engine.families import (
    AXIS,
    FOLDED,
    KEEPDIMS,
    WRONG_AXIS,
    X,
    batch_shifted,
    composite,
    elements,
    example_rows,
    int64,
    reduced_axes,
    reduced_shape,
    reduction,
    unfold,
)
from engine.types import Shape, axis_of


def extreme_shape(shape: Shape, *, axis: tuple[int, ...], keepdims: bool) -> Shape:
    for at in axis:
        if shape[at] == 0:
            raise ShapeMismatch(f"axis {at} of a tensor of shape {list(shape)} is empty: it has no largest or smallest")
    return reduced_shape(shape, axis=axis, keepdims=keepdims)


def ties(x: Node, extreme: Node, axis: tuple[int, ...]) -> tuple[Node, Node]:
    """Which elements are the extreme, and one over their number. NaN, where there is one, is chosen."""
    chosen = ops.equal(x, unfold(extreme, x, axis)) | ops.isnan(x)
    return chosen, ops.reciprocal(ops.sum(chosen, axis=axis, dtype=x.dtype.name, keepdims=True))


def _extreme_forward(node: Node, t: Node) -> Node:
    chosen, share = ties(node.inputs[0], node, reduced_axes(node))
    total = ops.sum(ops.where(chosen, t, 0.0), axis=reduced_axes(node), keepdims=True)
    return ops.reshape(total * share, shape=node.shape)


def _extreme_reverse(node: Node, g: Node) -> Node:
    x, axis = node.inputs[0], reduced_axes(node)
    chosen, share = ties(x, node, axis)
    return ops.where(chosen, unfold(g, x, axis) * share, 0.0)


EXTREME: Attrs = {
    "derivative": Custom(_extreme_forward, _extreme_reverse),
    "shape": extreme_shape,
    "samples": (*FOLDED, Sample(((),)), Sample(((3, 0),), {"axis": 0}), Sample(([3, 1, 2],))),
    "refusals": (*WRONG_AXIS, Refusal(((0, 3),), {"axis": 0}, "shape_mismatch")),
}

max = reduction(
    "max",
    "Largest value over axes; ties share the slope evenly.",
    np.maximum.reduce,
    **EXTREME,
    torch="amax",
    aliases=("amax",),
    example="max(x, axis=0)",
    fold=Fold(np.maximum.reduce),
)

min = reduction(
    "min",
    "Smallest value over axes; ties share the slope evenly.",
    np.minimum.reduce,
    **EXTREME,
    torch="amin",
    aliases=("amin",),
    example="min(x, axis=0)",
    fold=Fold(np.minimum.reduce),
)

aminmax = composite(
    "aminmax",
    "Smallest and largest value over axes; ties share the slope evenly.",
    lambda x, **attrs: (ops.min(x, **attrs), ops.max(x, **attrs)),
    attrs={"axis": AXIS, "keepdims": KEEPDIMS},
    results=("min", "max"),
    family="reduction",
    samples=EXTREME["samples"],
    refusals=EXTREME["refusals"],
    example="low, high = aminmax(x, axis=0); high - low",
)


def _settle_axis(attrs: Attrs, shape: Shape) -> Attrs:
    if attrs["axis"] is None:
        return attrs
    axis = axis_of(attrs["axis"], len(shape) or 1)
    return attrs | {"axis": axis if shape else None}


def _place_shape(shape: Shape, *, axis: int | None, keepdims: bool) -> Shape:
    axes = tuple(range(len(shape))) if axis is None else (axis,)
    return extreme_shape(shape, axis=axes, keepdims=keepdims)


def _place_batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """A place in the flattened tensor is one in each example, flattened by itself."""
    if node.attrs["axis"] is not None:
        return batch_shifted("axis")(node, args, batched)
    return ops.reshape(node.op(example_rows(args[0]), axis=1), shape=(args[0].shape[0], *node.shape))


def _place_bytes(node: Node) -> int:
    """NumPy turns an axis that is not the last into one."""
    (x,), axis = node.inputs, node.attrs["axis"]
    return 0 if axis in (None, x.rank - 1) else x.nbytes


PLACE: Attrs = {
    "scratch": _place_bytes,
    "operands": X,
    "attrs": {"axis": kinds.axis("The axis; the flattened tensor when absent.", None), "keepdims": KEEPDIMS},
    "shape": _place_shape,
    "canonical": _settle_axis,
    "returns": int64,
    "derivative": Flat(),
    "batch": _place_batch,
    "family": "reduction",
    "flops": elements,
    "samples": (
        Sample(((3,),)),
        Sample(((2, 3),), {"axis": 1}),
        Sample(((2, 3),), {"axis": -2, "keepdims": True}),
        Sample(((2, 3),), {"keepdims": True}),
        Sample(((3, 0),), {"axis": 0}),
        Sample(((),)),
        Sample(((),), {"axis": 0}),
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
