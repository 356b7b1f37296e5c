"""Quantiles: the median and its kin, by sorting along the axes.

A quantile between two elements is interpolated, and its slope goes to the two. The median's, at a tie, is shared
evenly among the elements that are equal to the middle one, as an extreme's is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Op, Operand, Refusal, Sample, ops
from engine.derivative import by_slope
from engine.errors import InvalidTensor, ShapeMismatch
from engine.families import (
    EMPTY,
    FOLDED,
    KEEPDIMS,
    WRONG_AXIS,
    composite,
    count_along,
    over,
    reduced_axes,
    reduced_shape,
    reduction,
    settle_axes,
    span,
    unary,
)
from engine.types import drop_axes

# Medians


def _rows(x: Any, axis: tuple[int, ...]) -> Any:
    """`x` with the axes to be folded as one, which is the last."""
    rest = drop_axes(x.shape, axis)
    return np.moveaxis(x, axis, range(len(rest), x.ndim)).reshape(*rest, count_along(x.shape, axis))


def _middle(rows: Any, count: Any, method: str) -> Any:
    """The one in the middle, or the mean of the two, of the first `count` in each row, which is in order."""
    last = np.maximum(count - 1, 0)  # where there is none, NaN stands first
    low, high = (np.take_along_axis(rows, at, -1) for at in (last // 2, (last + 1) // 2))
    return low if method == "lower" else high if method == "higher" else 0.5 * low + 0.5 * high


def _median_kernel(skips_nan: bool) -> Callable[..., Any]:
    def kernel(x: Any, *, axis: tuple[int, ...], method: str, keepdims: bool) -> Any:
        shape = drop_axes(x.shape, axis, keepdims=keepdims)
        if count_along(x.shape, axis) == 0:
            return np.full(shape, np.nan, x.dtype)
        rows = np.sort(_rows(x, axis), axis=-1)
        there = np.sum(~np.isnan(rows), axis=-1, keepdims=True)
        if skips_nan:
            return _middle(rows, there, method).reshape(shape)
        every = np.full_like(there, rows.shape[-1])
        return np.where(there == every, _middle(rows, every, method), np.nan).astype(x.dtype).reshape(shape)

    return kernel


def _median_slope(name: str) -> Callable[..., Node]:
    def slope(out: Node, x: Node, *, axis: tuple[int, ...], method: str, keepdims: bool) -> Node:
        if method != "midpoint":
            return _share_of(out, x, axis)
        middles = [getattr(ops, name)(x, axis=axis, method=each, keepdims=True) for each in ("lower", "higher")]
        return 0.5 * (_share_of(middles[0], x, axis) + _share_of(middles[1], x, axis))

    return slope


def _share_of(middle: Node, x: Node, axis: tuple[int, ...]) -> Node:
    """One over their number, where elements are the middle one; NaN is where the middle one is."""
    chosen = ops.equal(x, middle) | (ops.isnan(x) & ops.isnan(middle))
    count = ops.sum(chosen, axis=axis, dtype=x.dtype.name, keepdims=True)
    return over(ops.astype(chosen, dtype=x.dtype.name), count)


def _median(name: str, doc: str, skips_nan: bool) -> Op:
    return reduction(
        name,
        doc,
        _median_kernel(skips_nan),
        by_slope(_median_slope(name), reduced_axes),
        attrs={
            "method": kinds.choice(
                "Of the two in the middle of an even number: the lower (PyTorch's), the higher, or their mean "
                "(midpoint, NumPy's).",
                ("lower", "higher", "midpoint"),
                "lower",
            )
        },
        shape=reduced_shape,
        inexact=True,
        flops=lambda out, x, **attrs: 8 * math.prod(x),
        pace=1.2,
        scratch=lambda node: node.inputs[0].nbytes + node.inputs[0].size,
        samples=(
            *FOLDED,
            *EMPTY[1:],
            Sample(((4,),), {"method": "midpoint"}),
            Sample(((2, 4),), {"axis": 1, "method": "higher"}),
            Sample(((3, 4),), {"axis": -1, "keepdims": True}),
            Sample(([1, 2, 4, 9],)),
        ),
        refusals=(*WRONG_AXIS, Refusal(((3,),), {"method": "nearest"}, "invalid_graph")),
        example=f"{name}(x, axis=0)",
    )


median = _median(
    "median",
    "The middle element over axes, of two in the middle the lower; NaN where there is one, or where there is nothing. "
    "Ties share the slope evenly.",
    skips_nan=False,
)

nanmedian = _median(
    "nanmedian",
    "The median over axes of what is not NaN.",
    skips_nan=True,
)

# Quantiles

METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


def _sorted_rows(x: Node, axis: tuple[int, ...]) -> Node:
    """`x` with the axes to be folded as one, the last, in ascending order."""
    rest = tuple(at for at in range(x.rank) if at not in axis)
    moved = ops.permute_dims(x, axes=(*rest, *axis))
    return ops.sort(ops.reshape(moved, shape=(*drop_axes(x.shape, axis), count_along(x.shape, axis))))


def _checked_part(q: Any) -> Any:
    wrong = np.asarray(q)[~((q >= 0) & (q <= 1))]
    if wrong.size:
        raise InvalidTensor(f"a quantile is asked for by numbers from 0 to 1, got {wrong.flat[0]}")
    return q


checked_part = unary(
    "checked_part",
    "The value itself, which is to lie from 0 to 1; else it is an error.",
    _checked_part,
    lambda out, q: 1.0,
    (0.1, 0.9),
    view=True,
    refusals=(Refusal(([-0.5, 0.5],), {}, "invalid_tensor"), Refusal((["NaN"],), {}, "invalid_tensor")),
)


def _parts(x: Node, q: Node, axis: tuple[int, ...]) -> Node:
    """`q` checked, as one row. Raises ShapeMismatch where there is nothing to take a part of."""
    if count_along(x.shape, axis) == 0:
        raise ShapeMismatch(f"there is nothing along the axes of a tensor of shape {list(x.shape)} to take a part of")
    return ops.reshape(ops.checked_part(q), shape=(q.size,))


def _interpolated(rank: Node, at: Callable[[Node], Node], method: str) -> Node:
    """What stands at places that need not be whole, by what `at` finds at whole ones."""
    whole = {"lower": ops.floor, "higher": ops.ceil, "nearest": ops.round}
    if method in whole:
        return at(ops.astype(whole[method](rank), dtype="int64"))
    below, above = ops.floor(rank), ops.ceil(rank)
    low, high = (at(ops.astype(each, dtype="int64")) for each in (below, above))
    weight = rank - below if method == "linear" else 0.5 * (above - below)
    # A place that is whole has one neighbour, which may be infinite.
    return ops.where(ops.equal(below, above), low, low + weight * (high - low))


def _in_front(found: Node, x: Node, q: Node, axis: tuple[int, ...], keepdims: bool) -> Node:
    """The axes of q, which are the last of what was found, before all others."""
    moved = ops.moveaxis(found, source=-1, destination=0)
    return ops.reshape(moved, shape=(*q.shape, *drop_axes(x.shape, axis, keepdims=keepdims)))


def _folded(x: Node, axis: Any) -> tuple[int, ...]:
    axes: tuple[int, ...] = settle_axes({"axis": axis}, x.shape)["axis"]
    return axes


def _quantile(x: Node, q: Node, *, axis: Any, method: str, keepdims: bool) -> Node:
    axis = _folded(x, axis)
    parts, rows = _parts(x, q, axis), _sorted_rows(x, axis)
    rank = parts * (rows.shape[-1] - 1)
    found = _interpolated(rank, lambda places: ops.take(rows, places, axis=-1), method)
    last = span(rows, rows.rank - 1, rows.shape[-1] - 1, rows.shape[-1])
    return _in_front(ops.where(ops.isnan(last), last, found), x, q, axis, keepdims)


def _nanquantile(x: Node, q: Node, *, axis: Any, method: str, keepdims: bool) -> Node:
    axis = _folded(x, axis)
    parts, rows = _parts(x, q, axis), _sorted_rows(x, axis)
    there = ops.sum(~ops.isnan(rows), axis=-1, dtype=rows.dtype.name, keepdims=True)
    rank = parts * (ops.maximum(there, 1.0) - 1.0)
    found = _interpolated(rank, lambda places: ops.gather(rows, places, axis=rows.rank - 1), method)
    return _in_front(found, x, q, axis, keepdims)


QUANTILE: Attrs = {
    "operands": (Operand("x"), Operand("q")),
    "attrs": {
        "axis": kinds.axes(),
        "method": kinds.choice("How to choose between the two elements that q falls between.", METHODS, "linear"),
        "keepdims": KEEPDIMS,
    },
    "inexact": True,
    "family": "reduction",
    "samples": (
        Sample(((5,), 0.3)),
        Sample(((5,), [0.1, 0.6, 0.85])),
        Sample(((3, 4), [[0.3], [0.7]]), {"axis": 1}),
        Sample(((3, 4), 0.5), {"axis": 0, "keepdims": True}),
        Sample(((2, 3, 2), [0.45, 0.2]), {"axis": [0, -1], "keepdims": True}),
        *[Sample(((2, 4), [0.3, 0.8]), {"axis": 1, "method": method}) for method in METHODS[1:]],
        Sample(([1, 2, 4], [0, 1])),
        Sample(((0, 3), 0.5), {"axis": 1}),
        Sample(((), 0.4), {"axis": 0}),
        Sample(((3,), (0,))),
    ),
    "refusals": (
        Refusal(((3,), 1.5), {}, "invalid_tensor"),
        Refusal(((3,), [-0.5, 0.5]), {}, "invalid_tensor"),
        Refusal(((3, 0), 0.5), {"axis": 1}, "shape_mismatch"),
        Refusal(((3,), 0.5), {"axis": 1}, "shape_mismatch"),
        Refusal(((3,), 0.5), {"method": "cubic"}, "invalid_graph"),
    ),
}

quantile = composite(
    "quantile",
    "What lies above the part q of the elements over axes, for q from 0 to 1; NaN where there is one. The axes of q "
    "stand first in the result.",
    _quantile,
    **QUANTILE,
    example="quantile(x, [0.25, 0.75], axis=0)",
)

nanquantile = composite(
    "nanquantile",
    "The quantile over axes of what is not NaN.",
    _nanquantile,
    **QUANTILE | {"samples": (*QUANTILE["samples"], Sample(([[1.0, "NaN", 3.0], [2.0, 5.0, 9.0]], 0.3), {"axis": 1}))},
    example="nanquantile(x, 0.5, axis=0)",
)
