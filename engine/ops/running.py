"""Running: sums, products and extremes up to each element along one axis, differences of neighbours, integrals."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Op, Operand, Refusal, Sample, cast, define, ops
from engine.derivative import Custom, Flat, Linear, conj, filled, times
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import ANY, NUMERIC, X, batch_shifted, composite, elements, int64, resized, span
from engine.ops.reducing import DTYPE, total_dtype
from engine.types import INT64, Shape, Spec, axis_of, promote


def _settle_run(attrs: Attrs, shape: Shape) -> Attrs:
    """The axis, which may be absent only where there is but one. A scalar has one to name, as in PyTorch."""
    if attrs["axis"] is None and len(shape) > 1:
        raise ShapeMismatch(f"a tensor with {len(shape)} axes needs the attribute 'axis'")
    return attrs | {"axis": axis_of(attrs["axis"] or 0, len(shape) or 1)}


def _unrun(x: Node, *, dtype: str | None = None, include_initial: bool = False, **attrs: Any) -> Node | None:
    """A scalar is all that there is up to itself."""
    is_same = x.rank == 0 and not include_initial and dtype in (None, x.dtype.name)
    return x if is_same and x.dtype.kind in "fc" else None


def _run_shape(shape: Shape, *, axis: int, include_initial: bool = False, **attrs: Any) -> Shape:
    if not shape:
        raise ShapeMismatch("expected a tensor with at least one axis, got a scalar")
    return resized(shape, axis, shape[axis] + include_initial)


def _without_initial(g: Node, axis: int, include_initial: bool) -> Node:
    return span(g, axis, 1, g.shape[axis]) if include_initial else g


def _cumulative_sum_adjoint(g: Node, x: Node, *, axis: int, dtype: str | None, include_initial: bool) -> Node:
    g = _without_initial(g, axis, include_initial)
    return ops.flip(ops.cumulative_sum(ops.flip(g, axis=axis), axis=axis), axis=axis)


RUN: Attrs = {
    "scratch": lambda node: node.nbytes if node.attrs["include_initial"] else 0,
    "operands": ANY,
    "attrs": {
        "axis": kinds.axis("The axis; it may be absent where there is but one.", None),
        "dtype": DTYPE,
        "include_initial": kinds.boolean("Whether the neutral element stands in front.", False),
    },
    "shape": _run_shape,
    "canonical": _settle_run,
    "same": _unrun,
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
        Sample(((),), {"axis": 0}),
    ),
    "refusals": (
        Refusal(((2, 3),), {}, "shape_mismatch"),
        Refusal(((),), {"axis": 1}, "shape_mismatch"),
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
    aliases=("cumsum",),
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
    x, axis = conj(cast(node.inputs[0], node.dtype)), node.attrs["axis"]
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
    aliases=("cumprod",),
)


# Of exponentials


def _decay(out: Node, axis: int) -> tuple[Node, Node]:
    """What log-sums are measured from, and by how much each total counts in the next: exp(out_(k−1) − out_k) at k.

    Where nothing but -inf has come, totals are measured from 0, lest -inf − -inf be NaN.
    """
    size = out.shape[axis]
    base = ops.where(ops.equal(out, -math.inf), 0.0, out)
    before = span(out, axis, 0, size - 1) - span(base, axis, 1, size)
    first = filled(out.graph, 0, Spec(resized(out.shape, axis, 1), out.dtype))
    return base, ops.concat(first, ops.exp(before), axis=axis)


def _cumulative_logsumexp_forward(node: Node, t: Node) -> Node | None:
    """ṡ_k = exp(s_(k−1) − s_k)·ṡ_(k−1) + exp(x_k − s_k)·ẋ_k: means, whose weights are no more than 1."""
    axis = node.attrs["axis"]
    if node.shape[axis] == 0:
        return None
    base, decay = _decay(node, axis)
    return _recurrence(decay, ops.exp(node.inputs[0] - base) * t, axis)


def _cumulative_logsumexp_reverse(node: Node, g: Node) -> list[Node | None]:
    axis = node.attrs["axis"]
    if node.shape[axis] == 0:
        return [None]
    base, decay = _decay(node, axis)
    following = ops.roll(ops.flip(decay, axis=axis), shift=1, axis=axis)
    sums = ops.flip(_recurrence(following, ops.flip(g, axis=axis), axis), axis=axis)
    return [times(sums, ops.exp(node.inputs[0] - base))]


ALONG: Attrs = {
    "operands": X,
    "attrs": {"axis": RUN["attrs"]["axis"]},
    "canonical": _settle_run,
    "batch": batch_shifted("axis"),
    "family": "reduction",
    "samples": (
        Sample(((5,),)),
        Sample(((2, 3),), {"axis": 1}),
        Sample(((3, 2),), {"axis": -2}),
        Sample(((0,),)),
        Sample(((2, 0),), {"axis": 1}),
        Sample(([1, 3, 2],)),
        Sample(((),), {"axis": -1}),
    ),
    "refusals": RUN["refusals"],
}

cumulative_logsumexp = define(
    "cumulative_logsumexp",
    "log(sum(exp(x))) of the elements up to each, along an axis, without overflow.",
    kernel=np.logaddexp.accumulate,
    shape=_run_shape,
    same=_unrun,
    derivative=Custom(_cumulative_logsumexp_forward, _cumulative_logsumexp_reverse),
    inexact=True,
    flops=lambda out, x, **attrs: 40 * math.prod(x),
    pace=1.2,
    torch="logcumsumexp",
    aliases=("logcumsumexp",),
    **ALONG | {"samples": (*ALONG["samples"], Sample(([1000.0, 999.0, 1001.5],)), Sample(((7,),)))},
    example="cumulative_logsumexp(x, axis=0)",
)

# Extremes


def _last_extreme(fold: Any) -> Any:
    """A kernel: where the extreme of the elements up to each stands; of equal ones the last, of NaN too."""

    def kernel(x: Any, *, axis: int) -> Any:
        run = fold.accumulate(x, axis)
        places = np.arange(x.shape[axis]).reshape(-1, *(1,) * (x.ndim - axis - 1))
        return np.maximum.accumulate(np.where((x == run) | (x != x), places, 0), axis)

    return kernel


def _running_place(name: str, doc: str, fold: Any) -> Op:
    return define(
        name,
        doc,
        kernel=_last_extreme(fold),
        shape=_run_shape,
        returns=int64,
        derivative=Flat(),
        pace=0.12,
        scratch=lambda node: 2 * node.nbytes + 8 * node.shape[node.attrs["axis"]],
        **ALONG | {"samples": ALONG["samples"][:-1]},
        example=f"{name}(x, axis=0)",
    )


cumulative_argmax = _running_place(
    "cumulative_argmax",
    "Where the largest element up to each stands, along an axis; of equal ones the last.",
    np.maximum,
)
cumulative_argmin = _running_place(
    "cumulative_argmin",
    "Where the smallest element up to each stands, along an axis; of equal ones the last.",
    np.minimum,
)


def _running_extreme(name: str, doc: str, places: Op, alias: str) -> Op:
    def expand(x: Node, *, axis: int) -> tuple[Node, Node]:
        if x.rank == 0:
            return x, filled(x.graph, 0, Spec((), INT64))
        at = places(x, axis=axis)
        return ops.gather(x, at, axis=axis), at

    return composite(
        name,
        doc,
        expand,
        results=("values", "indices"),
        aliases=(alias,),
        torch=alias,
        **{field: ALONG[field] for field in ("attrs", "canonical", "samples", "refusals")},
        example=f"{name}(x, axis=0).values",
    )


cumulative_max = _running_extreme(
    "cumulative_max",
    "The largest of the elements up to each, along an axis, and where it stands. It is the last of equal ones, which "
    "has the gradient.",
    cumulative_argmax,
    "cummax",
)
cumulative_min = _running_extreme(
    "cumulative_min",
    "The smallest of the elements up to each, along an axis, and where it stands. It is the last of equal ones, which "
    "has the gradient.",
    cumulative_argmin,
    "cummin",
)

# Differences and integrals

MOST_DIFFERENCES = 1024
"""Beyond it, the binomial coefficients in a difference overflow float64."""


ABSENT = Operand("", "biufc", promotes=False, default=math.nan)
"""What is left out: NaN as a number of its own is nothing that could be prepended."""


def _margin(x: Node, edge: Node, axis: int) -> list[Node]:
    """What stands before or after `x`, if anything; a number is stretched."""
    if edge.weak and edge.value is not None:
        if edge.value != edge.value:
            return []
        edge = cast(edge, x.dtype if float(edge.value).is_integer() else promote([x.dtype], [edge.dtype]))
    return [ops.broadcast_to(edge, shape=resized(x.shape, axis, 1)) if edge.rank == 0 else edge]


def _diff(x: Node, prepend: Node, append: Node, *, axis: int, n: int) -> Node:
    if not 0 <= n <= MOST_DIFFERENCES:
        raise InvalidGraph(f"diff takes differences n times, with n from 0 to {MOST_DIFFERENCES}, got {n}")
    axis = axis_of(axis, x.rank)
    if n == 0:
        return x
    x = ops.concat(*_margin(x, prepend, axis), x, *_margin(x, append, axis), axis=axis)
    for size in range(x.shape[axis], 0, -1)[:n]:
        x = span(x, axis, 1, size) - span(x, axis, 0, size - 1)
    return x


diff = composite(
    "diff",
    "Differences of neighbours along an axis, taken n times; with what is to be prepended and appended first.",
    _diff,
    operands=(*NUMERIC, replace(ABSENT, name="prepend"), replace(ABSENT, name="append")),
    attrs={"axis": kinds.axis(default=-1), "n": kinds.integer("How many times.", 1)},
    order=("x", "axis", "n", "prepend", "append"),
    samples=(
        Sample(((4,),)),
        Sample(((3, 2),), {"axis": 0}),
        Sample(((4,),), {"n": 2}),
        Sample(((2,),), {"n": 3}),
        Sample(((3,),), {"n": 0}),
        Sample(([1, 4, 9],)),
        Sample(((3,), (2,), (1,)), {"n": 2}),
        Sample(((3, 2), (1, 2), ()), {"axis": 0}),
        Sample(([1, 4, 9], 0, 7)),
    ),
    refusals=(
        Refusal(((),), {}, "shape_mismatch"),
        Refusal(((3,),), {"axis": 1}, "shape_mismatch"),
        Refusal(((3,),), {"n": -1}, "invalid_graph"),
        Refusal(((3,),), {"n": 1025}, "invalid_graph"),
        Refusal(((3, 2), (2, 2)), {}, "shape_mismatch"),
    ),
    example="diff(x, axis=0)",
)


def _widths(y: Node, x: Node, axis: int, dx: float) -> Node:
    """The distances of sample points: one number, or one for each interval."""
    if x.rank == 0:
        return x * dx
    if dx != 1.0:
        raise InvalidGraph("give either the sample points x or their distance dx, not both")
    if x.rank == 1:
        return ops.diff(ops.reshape(x, shape=(x.shape[0], *(1,) * (y.rank - axis - 1))), axis=0)
    if x.rank != y.rank:
        raise ShapeMismatch(f"x should have one axis or those of y, got shapes {list(x.shape)} and {list(y.shape)}")
    return ops.diff(x, axis=axis)


def _panels(y: Node, x: Node, axis: int, dx: float) -> Node:
    size = y.shape[axis]
    ends = span(y, axis, 1, size) + span(y, axis, 0, max(size - 1, 0))
    return ends * (_widths(y, x, axis, dx) * 0.5)


def _trapezoid(y: Node, x: Node, *, axis: int, dx: float) -> Node:
    axis = axis_of(axis, y.rank)
    panels = _panels(y, x, axis, dx)
    return ops.sum(panels, axis=axis - y.rank + panels.rank)


def _cumulative_trapezoid(y: Node, x: Node, *, axis: int, dx: float) -> Node:
    axis = axis_of(axis, y.rank)
    panels = _panels(y, x, axis, dx)
    return ops.cumulative_sum(panels, axis=axis - y.rank + panels.rank)


INTEGRAL: Attrs = {
    "operands": (Operand("y", "biufc"), Operand("x", "biufc", default=1.0)),
    "attrs": {"axis": kinds.axis(default=-1), "dx": kinds.real("The distance of sample points.", 1.0)},
    "order": ("y", "x", "dx", "axis"),
    "inexact": True,
    "samples": (
        Sample(((4,),)),
        Sample(((4,), (4,))),
        Sample(((3, 4),), {"axis": 0, "dx": 0.5}),
        Sample(((3, 4), (3,)), {"axis": 0}),
        Sample(((3, 4), (3, 4))),
        Sample(((2, 3), (1, 3))),
        Sample(((2, 3), ())),
        Sample(((1,),)),
        Sample(((0,),)),
        Sample(([1, 4, 9],)),
    ),
    "refusals": (
        Refusal(((),), {}, "shape_mismatch"),
        Refusal(((3,),), {"axis": 1}, "shape_mismatch"),
        Refusal(((3,), (4,)), {}, "shape_mismatch"),
        Refusal(((3,), (2, 3)), {}, "shape_mismatch"),
        Refusal(((3,), (3,)), {"dx": 2.0}, "invalid_graph"),
    ),
}

trapezoid = composite(
    "trapezoid",
    "The integral of y along an axis by the trapezoidal rule: over the sample points x, or over points that are x, one "
    "number, apart.",
    _trapezoid,
    **INTEGRAL,
    aliases=("trapz",),
    example="trapezoid(y, x)",
)

cumulative_trapezoid = composite(
    "cumulative_trapezoid",
    "The integrals of y up to each sample point but the first, along an axis, by the trapezoidal rule.",
    _cumulative_trapezoid,
    **INTEGRAL,
    example="cumulative_trapezoid(y, x)",
)
