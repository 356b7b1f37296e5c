"""Running: sums and products up to each element along one axis, and differences of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Refusal, Sample, cast, define, ops
from engine.derivative import Custom, Linear, filled, times
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import REAL, X, batch_shifted, composite, elements, resized, span
from engine.ops.reducing import DTYPE, total_dtype
from engine.types import Shape, Spec, axis_of


def _settle_run(attrs: Attrs, shape: Shape) -> Attrs:
    """The axis, which may be absent only where there is but one."""
    if not shape:
        raise ShapeMismatch("expected a tensor with at least one axis, got a scalar")
    if attrs["axis"] is None and len(shape) > 1:
        raise ShapeMismatch(f"a tensor with {len(shape)} axes needs the attribute 'axis'")
    return attrs | {"axis": axis_of(attrs["axis"] or 0, len(shape))}


def _run_shape(shape: Shape, *, axis: int, include_initial: bool, **attrs: Any) -> Shape:
    return resized(shape, axis, shape[axis] + include_initial)


def _without_initial(g: Node, axis: int, include_initial: bool) -> Node:
    return span(g, axis, 1, g.shape[axis]) if include_initial else g


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
    "returns": total_dtype,
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
    flops=elements,
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
        late = span(a, axis, step, size)
        reach = span(b, axis, step, size) + late * span(b, axis, 0, size - step)
        b = ops.concat(span(b, axis, 0, step), reach, axis=axis)
        a = ops.concat(span(a, axis, 0, step), late * span(a, axis, 0, size - step), axis=axis)
        step *= 2
    return b


def _products_before(node: Node, x: Node) -> Node:
    """For each element, the product of those before it."""
    axis = node.attrs["axis"]
    return span(ops.cumulative_prod(x, axis=axis, include_initial=True), axis, 0, x.shape[axis])


def _cumulative_prod_forward(node: Node, t: Node) -> Node:
    x, axis = cast(node.inputs[0], node.dtype), node.attrs["axis"]
    run = _recurrence(x, _products_before(node, x) * t, axis)
    if not node.attrs["include_initial"]:
        return run
    start = filled(x.graph, 0, Spec(resized(x.shape, axis, 1), x.dtype))
    return ops.concat(start, run, axis=axis)


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
    flops=elements,
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
        x = span(x, axis, 1, size) - span(x, axis, 0, size - 1)
    return x


diff = composite(
    "diff",
    "Differences of neighbours along an axis, taken n times.",
    _diff,
    operands=REAL,
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
