"""Gathering and scattering: an index for each element, where `take` has one for a whole slice.

gather reads, scatter writes, scatter_add adds; along one axis all three go by the indices, along the others element
by element. Each is linear, and the adjoint of one is another: gather and scatter_add are each other's. Where two
values of a scatter have one place the last stands, and it alone has a gradient, so that gradient and value agree.

Ops that index an axis as `take` does (index_add, index_update, bincount) are composites of these and of untake.
Negative indices count from the end; an index out of range is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Linear, filled
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import ANY, composite, free, in_own_dtype, listed, resized
from engine.ops.indexing import INDICES, checked
from engine.types import INT64, Shape, Spec, axis_of, broadcast, drop_axes

AXIS = kinds.axis("The axis; may be absent where x has only one.", None)
BESIDE = Operand("values", "biufc")


def _settled(attrs: Attrs, x: Shape, *others: Shape) -> Attrs:
    """A non-negative axis. A scalar counts as a vector of one, as it does in PyTorch."""
    if attrs["axis"] is None and len(x) > 1:
        raise InvalidGraph(f"which of the {len(x)} axes of x is indexed? Give the attribute 'axis'")
    return attrs | {"axis": axis_of(attrs["axis"] or 0, len(x) or 1)}


def _check_indices(x: Shape, indices: Shape, axis: int) -> None:
    if (len(x) or 1) != (len(indices) or 1):
        raise ShapeMismatch(f"x and indices should have as many axes, got shapes {listed(x)} and {listed(indices)}")
    for at, (size, count) in enumerate(zip(x, indices, strict=False)):
        if at != axis and count > size:
            raise ShapeMismatch(f"indices have {count} places along axis {at}, where x has {size}")


def _places(indices: Any, shape: Shape, axis: int) -> Any:
    """For each index, where its element stands in a flattened tensor of this shape. Raises InvalidTensor."""
    shape, indices = shape or (1,), np.atleast_1d(indices)
    places = checked(indices, shape[axis])
    places *= math.prod(shape[axis + 1 :])
    for at, count in enumerate(indices.shape):
        if at != axis:
            along = np.arange(count) * math.prod(shape[at + 1 :])
            places += along.reshape(count, *(1,) * (indices.ndim - at - 1))
    return places


# Reading


def _gathered_shape(x: Shape, indices: Shape, *, axis: int) -> Shape:
    _check_indices(x, indices, axis)
    return indices


def _gather(x: Any, indices: Any, *, axis: int) -> Any:
    return np.take(x, _places(indices, x.shape, axis)).reshape(indices.shape)


def _gather_adjoint(g: Node, x: Node, indices: Node, *, axis: int) -> tuple[Node, None]:
    return ops.scatter_add(filled(x.graph, 0, x.spec), indices, g, axis=axis), None


def _batch_gather(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    (x, indices), axis = map(in_own_dtype, args), node.attrs["axis"]
    own = node.inputs[1].shape or (1,)
    if batched[0]:
        size = x.shape[0]
        x = ops.reshape(x, shape=(size, *(x.shape[1:] or (1,))))
        wide = ops.reshape(indices, shape=(size, *own)) if batched[1] else ops.reshape(indices, shape=own)
        found = node.op(x, ops.broadcast_to(wide, shape=(size, *own)), axis=axis + 1)
        return ops.reshape(found, shape=(size, *node.shape))
    # All examples read one table: their indices stand one after another along the axis.
    size = indices.shape[0]
    side = ops.moveaxis(ops.reshape(indices, shape=(size, *own)), source=0, destination=axis)
    found = node.op(x, ops.reshape(side, shape=resized(own, axis, size * own[axis])), axis=axis)
    parted = ops.reshape(found, shape=side.shape)
    return ops.reshape(ops.moveaxis(parted, source=axis, destination=0), shape=(size, *node.shape))


gather = define(
    "gather",
    "Elements along an axis, by an index for each: PyTorch's gather. The result has the shape of the indices, which "
    "may be smaller than x along the other axes; take_along_axis broadcasts them.",
    operands=(*ANY, INDICES),
    attrs={"axis": AXIS},
    shape=_gathered_shape,
    kernel=_gather,
    derivative=Linear(_gather_adjoint, fixed=(1,)),
    canonical=_settled,
    batch=_batch_gather,
    flops=free,
    scratch=lambda node: node.inputs[1].nbytes,
    pace=0.6,
    family="indexing",
    samples=(
        Sample(((3,), [2, 0, 0, -1])),
        Sample(((2, 3), [[0, 2], [1, 1]]), {"axis": 1}),
        Sample(((3, 2), [[1], [-1], [1], [0]]), {"axis": 0}),
        Sample(((2, 3, 2), [[[1, 2]], [[0, 0]]]), {"axis": -2}),
        Sample(((), [0])),
        Sample(((3,), (0,))),
    ),
    refusals=(
        Refusal(((2, 3), [0]), {"axis": 1}, "shape_mismatch"),
        Refusal(((2, 3), [[0, 0, 0, 0]]), {"axis": 0}, "shape_mismatch"),
        Refusal(((2, 3), [[0, 0]]), {}, "invalid_graph"),
        Refusal(((2, 3), [[0, 0]]), {"axis": 2}, "shape_mismatch"),
        Refusal(((3,), [3]), {}, "invalid_tensor"),
        Refusal(((3,), [0.5]), {}, "dtype_mismatch"),
    ),
    example="gather(x, [[0, 2], [1, 1]], axis=1)",
)


def _take_along_axis(x: Node, indices: Node, *, axis: int) -> Node:
    if x.rank != indices.rank:
        raise ShapeMismatch(f"x and indices should have as many axes, got {x.rank} and {indices.rank}")
    axis = axis_of(axis, x.rank)
    lead = broadcast(drop_axes(x.shape, (axis,)), drop_axes(indices.shape, (axis,)))
    wide = [ops.broadcast_to(each, shape=(*lead[:axis], each.shape[axis], *lead[axis:])) for each in (x, indices)]
    return ops.gather(*wide, axis=axis)


take_along_axis = composite(
    "take_along_axis",
    "Elements along an axis, by indices for each place beside it; x and indices broadcast but for that axis.",
    _take_along_axis,
    operands=(*ANY, INDICES),
    attrs={"axis": kinds.axis("The axis.", -1)},
    torch="gather",
    family="indexing",
    samples=(
        Sample(((3,), [2, 0, 0, -1])),
        Sample(((2, 3), [[0, 2], [1, 1]])),
        Sample(((2, 3), [[1, 0, 1]]), {"axis": 0}),
        Sample(((1, 3), [[0], [2], [1]]), {"axis": 1}),
    ),
    refusals=(
        Refusal(((2, 3), [0]), {}, "shape_mismatch"),
        Refusal(((2, 3), [[0], [1], [2]]), {}, "shape_mismatch"),
        Refusal(((2, 3), [[3], [0]]), {}, "invalid_tensor"),
    ),
    example="take_along_axis(x, [[0, 2], [1, 1]], axis=1)",
    aliases=("take_along_dim",),
)

# Writing and adding: values have the shape of the indices, or are larger and cut to it, or are one number.


def _scattered_shape(x: Shape, indices: Shape, values: Shape, *, axis: int) -> Shape:
    _check_indices(x, indices, axis)
    fits = len(values) == len(indices) and all(a >= b for a, b in zip(values, indices, strict=True))
    if values and not fits:
        raise ShapeMismatch(f"values should have the indices' shape {listed(indices)}, got {listed(values)}")
    return x


def _fitted(values: Any, indices: Any) -> Any:
    """Values, one for each index."""
    if values.ndim < indices.ndim:
        return np.broadcast_to(values, indices.shape)
    return values[tuple(slice(size) for size in indices.shape)]


def _unfitted(g: Node, values: Node) -> Node:
    """The adjoint of `_fitted`."""
    if values.rank < g.rank:
        return ops.sum(g)
    return ops.unslice(g, shape=values.shape, index=[(0, size) for size in g.shape])


def _scatter(x: Any, indices: Any, values: Any, *, axis: int) -> Any:
    out = np.array(x, order="C")
    out.reshape(-1)[_places(indices, x.shape, axis).reshape(-1)] = _fitted(values, indices).reshape(-1)
    return out


def _scatter_add(x: Any, indices: Any, updates: Any, *, axis: int) -> Any:
    out = np.array(x, order="C")
    np.add.at(out.reshape(-1), _places(indices, x.shape, axis).reshape(-1), _fitted(updates, indices).reshape(-1))
    return out


def _stands(indices: Node, x: Node, axis: int) -> Node:
    """Which values still stand after all are written: the last one at each place."""
    number = ops.reshape(ops.arange.on(x.graph, start=indices.size), shape=indices.shape)
    written = ops.scatter(filled(x.graph, -1, Spec(x.shape, INT64)), indices, number, axis=axis)
    return ops.equal(ops.gather(written, indices, axis=axis), number)


def _scatter_adjoint(g: Node, x: Node, indices: Node, values: Node, *, axis: int) -> tuple[Node, None, Node]:
    mine = ops.where(_stands(indices, x, axis), ops.gather(g, indices, axis=axis), 0.0)
    return ops.scatter(g, indices, 0.0, axis=axis), None, _unfitted(mine, values)


def _scatter_add_adjoint(g: Node, x: Node, indices: Node, updates: Node, *, axis: int) -> tuple[Node, None, Node]:
    return g, None, _unfitted(ops.gather(g, indices, axis=axis), updates)


def _batch_scatter(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """All operands under the new axis: what comes out is as large as x, for every example."""
    size, args = args[batched.index(True)].shape[0], [*map(in_own_dtype, args)]
    shapes = [each.shape or (1,) for each in node.inputs]
    if node.inputs[2].rank < node.inputs[1].rank:
        shapes[2] = (*(1,) * len(shapes[1]),)
    wide = [
        ops.broadcast_to(ops.reshape(arg, shape=(size, *own) if has else own), shape=(size, *own))
        for arg, has, own in zip(args, batched, shapes, strict=True)
    ]
    if node.inputs[2].rank < node.inputs[1].rank:
        wide[2] = ops.broadcast_to(wide[2], shape=wide[1].shape)
    return ops.reshape(node.op(*wide, axis=node.attrs["axis"] + 1), shape=(size, *node.shape))


SCATTER: Attrs = {
    "attrs": {"axis": AXIS},
    "shape": _scattered_shape,
    "canonical": _settled,
    "batch": _batch_scatter,
    "flops": lambda out, x, indices, *others, **attrs: math.prod(indices),
    "scratch": lambda node: node.inputs[1].nbytes + 3 * node.inputs[1].size,
    "family": "indexing",
    "samples": (
        Sample(((4,), [2, 0, -1], (3,))),
        Sample(((4,), [2, 0, 2], (3,))),
        Sample(((2, 3), [[0, 2], [1, 1]], (2, 2)), {"axis": 1}),
        Sample(((3, 2), [[1], [-1], [1]], (4, 2)), {"axis": 0}),
        Sample(((2, 3), [[0], [1]], ()), {"axis": 1}),
        Sample(((3,), [1, 0], 2.5)),
        Sample(((), 0, ())),
        Sample(((3,), (0,), (0,))),
    ),
    "refusals": (
        Refusal(((3,), [0, 1], (3, 1)), {}, "shape_mismatch"),
        Refusal(((3,), [0, 1], (1,)), {}, "shape_mismatch"),
        Refusal(((2, 3), [0], (1,)), {"axis": 1}, "shape_mismatch"),
        Refusal(((2, 3), [[0]], (1, 1)), {}, "invalid_graph"),
        Refusal(((3,), [3], (1,)), {}, "invalid_tensor"),
    ),
}

scatter = define(
    "scatter",
    "x with values in the places that the indices name along an axis. Where two values have one place the last stands, "
    "and it alone has a gradient.",
    operands=(*ANY, INDICES, BESIDE),
    kernel=_scatter,
    derivative=Linear(_scatter_adjoint, fixed=(1,)),
    pace=0.2,
    **SCATTER,
    example="scatter(x, [[0, 2], [1, 0]], 1, axis=1)",
)

scatter_add = define(
    "scatter_add",
    "x with updates added in the places that the indices name along an axis; what has the same place is summed.",
    operands=(Operand("x", "iufc"), INDICES, Operand("updates", "iufc")),
    kernel=_scatter_add,
    derivative=Linear(_scatter_add_adjoint, fixed=(1,)),
    pace=0.2,
    **SCATTER,
    example="scatter_add(x, [[0, 2], [1, 0]], 1, axis=1)",
)

# Whole slices by an index


def _slices(x: Node, indices: Node, values: Node, axis: int | None, name: str) -> tuple[Node, int]:
    """Values stretched to what `take` would read at the indices, and the settled axis."""
    if axis is None and x.rank > 1:
        raise InvalidGraph(f"{name} needs an axis where x has not one axis but {x.rank}")
    at = axis_of(axis or 0, x.rank)
    return ops.broadcast_to(values, shape=(*x.shape[:at], *indices.shape, *x.shape[at + 1 :])), at


def _on_vectors(expand: Callable[..., Node]) -> Callable[..., Node]:
    """A scalar counts as a vector of one."""

    def expanded(x: Node, indices: Node, values: Node, **attrs: Any) -> Node:
        return ops.reshape(expand(ops.reshape(x, shape=x.shape or (1,)), indices, values, **attrs), shape=x.shape)

    return expanded


@_on_vectors
def _index_add(x: Node, indices: Node, values: Node, *, axis: int | None, alpha: float) -> Node:
    slices, at = _slices(x, indices, values, axis, "index_add")
    added = ops.untake(slices, indices, size=x.shape[at], axis=at)
    if alpha.is_integer() and abs(alpha) < 2**53:
        return x + added * int(alpha)
    return x + added * alpha


@_on_vectors
def _index_update(x: Node, indices: Node, values: Node, *, axis: int | None) -> Node:
    """By the number of the value that is written last to each slice, or -1."""
    slices, at = _slices(x, indices, values, axis, "index_update")
    count, size = indices.size, x.shape[at]
    rows = ops.reshape(slices, shape=(*x.shape[:at], count, *x.shape[at + 1 :]))
    if count == 0:
        return x
    nothing = filled(x.graph, -1, Spec((size,), INT64))
    flat = ops.reshape(ops.checked_index(indices, size=size), shape=(count,))
    source = ops.scatter(nothing, flat, ops.arange.on(x.graph, start=count))
    written = ops.take(rows, ops.maximum(source, 0), axis=at)
    is_written = ops.reshape(source >= 0, shape=(size, *(1,) * (x.rank - at - 1)))
    return ops.where(is_written, written, x)


INDEXED: Attrs = {
    "family": "indexing",
    "samples": (
        Sample(((4,), [2, 0, -1], (3,))),
        Sample(((4,), [2, 0, 2], (3,))),
        Sample(((2, 3), [2, 0], (2, 2)), {"axis": 1}),
        Sample(((3, 2), [[0, 1], [2, 2]], (2,)), {"axis": 0}),
        Sample(((3, 2), 1, ()), {"axis": 0}),
        Sample(((), [0], ())),
        Sample(((3,), (0,), (0,))),
    ),
    "refusals": (
        Refusal(((2, 3), [0], (2, 1)), {}, "invalid_graph"),
        Refusal(((2, 3), [0], (2, 1)), {"axis": 2}, "shape_mismatch"),
        Refusal(((2, 3), [0], (3, 1)), {"axis": 1}, "shape_mismatch"),
        Refusal(((3,), [3], (1,)), {}, "invalid_tensor"),
        Refusal(((3,), [0.5], (1,)), {}, "dtype_mismatch"),
    ),
}

index_add = composite(
    "index_add",
    "x with values, times alpha, added to the slices that the indices name along an axis; values broadcast to what "
    "take(x, indices) would read.",
    _index_add,
    operands=(Operand("x", "iufc"), INDICES, Operand("values", "iufc")),
    attrs={"axis": AXIS, "alpha": kinds.real("What values are multiplied by.", 1.0)},
    **INDEXED | {"samples": (*INDEXED["samples"], Sample(((2, 3), [1, 1], ()), {"axis": 0, "alpha": -0.5}))},
    example="index_add(x, [0, 2], 1, axis=1)",
)

index_update = composite(
    "index_update",
    "x with values in place of the slices that the indices name along an axis; values broadcast to what "
    "take(x, indices) would read. Of two for one slice the last stands, and it alone has a gradient.",
    _index_update,
    operands=(*ANY, INDICES, BESIDE),
    attrs={"axis": AXIS},
    **INDEXED,
    aliases=("index_copy", "index_fill"),
    torch="index_copy",
    example="index_update(x, [0, 2], 1, axis=1)",
)


def _bincount(x: Node, weights: Node, *, length: int) -> Node:
    if length < 0:
        raise InvalidGraph(f"length should be 0 or more, got {length}")
    return ops.untake(ops.broadcast_to(in_own_dtype(weights), shape=x.shape), x, size=length)


bincount = composite(
    "bincount",
    "How often each of the numbers from 0 to length - 1 stands in x, or the sums of the weights that stand there. "
    "The length is given, because shapes are known before a graph runs; a number from length on is an error.",
    _bincount,
    operands=(Operand("x", "iu", promotes=False), Operand("weights", "iuf", promotes=False, default=1)),
    attrs={"length": kinds.integer("How many numbers are counted.")},
    family="indexing",
    samples=(
        Sample(([0, 2, 2, 1],), {"length": 4}),
        Sample(([0, 2, 2, 1], (4,)), {"length": 3}),
        Sample(([[0, 1], [1, 1]], ()), {"length": 2}),
        Sample(((0,),), {"length": 2}),
    ),
    refusals=(
        Refusal(([0, 1],), {}, "invalid_graph"),
        Refusal(([0, 1],), {"length": -1}, "invalid_graph"),
        Refusal(([0, 2],), {"length": 2}, "invalid_tensor"),
        Refusal(([0, 1], (3,)), {"length": 2}, "shape_mismatch"),
        Refusal(((2,),), {"length": 2}, "dtype_mismatch"),
    ),
    example="bincount([0, 2, 2, 1], length=3)",
)
