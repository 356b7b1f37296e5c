"""Shape: the same elements under other axes: merged, parted, exchanged or stretched.

All of it is linear, and most computes nothing: a kernel returns a view where it can. Primitives are few:
what can be said in reshape and permute_dims is a composite and needs no rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Refusal, Sample, ops
from engine.derivative import unbroadcast
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import batch_sized, listed, rearranged, structural, with_rank
from engine.types import Shape, axes_of, axis_of, drop_axes

# Reshaping


def _settled_sizes(attrs: Attrs, shape: Shape) -> Attrs:
    """The one -1 replaced by what is left of the elements. Raises InvalidGraph, ShapeMismatch."""
    wanted, size = attrs["shape"], math.prod(shape)
    if wanted.count(-1) > 1 or any(each < -1 for each in wanted):
        raise InvalidGraph(f"shape {listed(wanted)} should hold sizes from 0, and -1 at most once")
    known = _product([each for each in wanted if each != -1], size)
    fits = known > 0 and size % known == 0 if -1 in wanted else known == size
    if not fits:
        raise ShapeMismatch(f"{size} elements of shape {listed(shape)} do not fill shape {listed(wanted)}")
    return attrs | {"shape": tuple(size // known if each == -1 else each for each in wanted)}


def _product(sizes: Sequence[int], enough: int) -> int:
    """The product of sizes, or of as many as exceed `enough`: absurd ones are not multiplied out."""
    if 0 in sizes:
        return 0
    product = 1
    for size in sizes:
        product *= size
        if product > enough:
            break
    return product


def _given_shape(x: Shape, *, shape: Shape, **attrs: Any) -> Shape:
    return shape


reshape = structural(
    "reshape",
    "The same elements, in the same order, in another shape; one size may be -1, for what is left.",
    np.reshape,
    _given_shape,
    lambda g, x, *, shape: ops.reshape(g, shape=x.shape),
    attrs={"shape": kinds.integers("Sizes of the axes of the result; -1, once at most, stands for what is left.")},
    packs=True,
    canonical=_settled_sizes,
    same=lambda x, *, shape: x if x.shape == shape else None,
    batch=batch_sized,
    torch="view",
    samples=(
        Sample(((2, 3),), {"shape": [3, 2]}),
        Sample(((2, 3),), {"shape": -1}),
        Sample(((),), {"shape": [1, -1]}),
        Sample(((1,),), {"shape": []}),
        Sample(((0, 3),), {"shape": [2, 0]}),
        Sample(((2, 3),), {"shape": [2, 3]}),
    ),
    refusals=(
        Refusal(((2, 3),), {"shape": [4]}, "shape_mismatch"),
        Refusal(((2, 3),), {"shape": [4, -1]}, "shape_mismatch"),
        Refusal(((0,),), {"shape": [0, -1]}, "shape_mismatch"),
        Refusal(((2, 3),), {"shape": [-1, -1]}, "invalid_graph"),
        Refusal(((2, 3),), {"shape": [-2, 3]}, "invalid_graph"),
    ),
    example="reshape(x, [2, -1])",
)


def _flatten(x: Node, *, start_axis: int, end_axis: int) -> Node:
    if x.rank == 0:
        return ops.reshape(x, shape=(1,))
    first, last = axis_of(start_axis, x.rank, what="start_axis"), axis_of(end_axis, x.rank, what="end_axis")
    if first > last:
        raise ShapeMismatch(f"start_axis {start_axis} stands behind end_axis {end_axis}")
    merged = math.prod(x.shape[first : last + 1])
    return ops.reshape(x, shape=(*x.shape[:first], merged, *x.shape[last + 1 :]))


flatten = rearranged(
    "flatten",
    "Neighbouring axes, all of them by default, merged into one.",
    _flatten,
    attrs={
        "start_axis": kinds.axis("The first axis to merge.", 0),
        "end_axis": kinds.axis("The last axis to merge.", -1),
    },
    torch="view",
    aliases=("ravel",),
    samples=(Sample(((2, 3, 2),)), Sample(((2, 3, 2),), {"start_axis": 1}), Sample(((),))),
    refusals=(
        Refusal(((2, 3),), {"start_axis": 2}, "shape_mismatch"),
        Refusal(((2, 3),), {"start_axis": 1, "end_axis": 0}, "shape_mismatch"),
    ),
)


def _unflatten(x: Node, *, axis: int, sizes: tuple[int, ...]) -> Node:
    axis, size = axis_of(axis, x.rank), x.shape[axis_of(axis, x.rank)]
    if not sizes:
        raise ShapeMismatch("an axis is parted into at least one: sizes should not be empty")
    parted = _settled_sizes({"shape": sizes}, (size,))["shape"]
    return ops.reshape(x, shape=(*x.shape[:axis], *parted, *x.shape[axis + 1 :]))


unflatten = rearranged(
    "unflatten",
    "An axis parted into several; one size may be -1, for what is left.",
    _unflatten,
    attrs={"axis": kinds.axis("The axis to part."), "sizes": kinds.integers("Sizes of the axes in its place.")},
    torch="view",
    samples=(
        Sample(((2, 6),), {"axis": 1, "sizes": [3, -1]}),
        Sample(((4, 3),), {"axis": 0, "sizes": [2, 2, 1]}),
        Sample(((0,),), {"axis": -1, "sizes": [2, 0]}),
    ),
    refusals=(
        Refusal(((2, 6),), {"axis": 1, "sizes": [4, -1]}, "shape_mismatch"),
        Refusal(((2, 6),), {"axis": 2, "sizes": [6]}, "shape_mismatch"),
        Refusal(((2, 1),), {"axis": 1, "sizes": []}, "shape_mismatch"),
        Refusal(((2, 6),), {"axis": 1, "sizes": [-1, -1]}, "invalid_graph"),
    ),
    example="unflatten(x, axis=-1, sizes=[2, -1])",
)


def _expand_dims(x: Node, *, axis: int | tuple[int, ...]) -> Node:
    count = 1 if isinstance(axis, int) else len(axis)
    new, sizes = set(axes_of(axis, x.rank + count)), iter(x.shape)
    return ops.reshape(x, shape=tuple(1 if at in new else next(sizes) for at in range(x.rank + count)))


expand_dims = rearranged(
    "expand_dims",
    "A new axis of size one, or several.",
    _expand_dims,
    attrs={"axis": kinds.axes("Where the new axis, or axes, stand in the result.", 0)},
    torch="unsqueeze",
    samples=(Sample(((2, 3),)), Sample(((2, 3),), {"axis": -1}), Sample(((2,),), {"axis": [0, 2]})),
    refusals=(
        Refusal(((2,),), {"axis": 2}, "shape_mismatch"),
        Refusal(((2,),), {"axis": [0, 0]}, "shape_mismatch"),
    ),
    aliases=("unsqueeze",),
)


def _squeeze(x: Node, *, axis: int | tuple[int, ...] | None) -> Node:
    single = tuple(at for at, size in enumerate(x.shape) if size == 1)
    axes = single if axis is None else axes_of(axis, x.rank)
    for at in axes:
        if at not in single:
            raise ShapeMismatch(f"axis {at} has size {x.shape[at]}; only axes of size 1 can be squeezed")
    return ops.reshape(x, shape=drop_axes(x.shape, axes))


squeeze = rearranged(
    "squeeze",
    "Axes of size one dropped.",
    _squeeze,
    attrs={"axis": kinds.axes("The axis or axes to drop; all that have size one when absent.")},
    samples=(
        Sample(((1, 3, 1),)),
        Sample(((1, 3, 1),), {"axis": 0}),
        Sample(((1, 3, 1),), {"axis": [0, -1]}),
        Sample(((2, 3),), {"axis": []}),
    ),
    refusals=(
        Refusal(((1, 3),), {"axis": 1}, "shape_mismatch"),
        Refusal(((1, 3),), {"axis": 2}, "shape_mismatch"),
    ),
)

# Permuting axes


def _axes_in_order(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Non-negative, distinct axes in the order given. Raises ShapeMismatch."""
    axes_of(axes, rank)
    return tuple(axis % rank for axis in axes)


def _settled_permutation(attrs: Attrs, shape: Shape) -> Attrs:
    axes, rank = attrs["axes"], len(shape)
    if len(axes) != rank:
        raise ShapeMismatch(f"axes should name each of {rank} axes once, got {listed(axes)}")
    return attrs | {"axes": _axes_in_order(axes, rank)}


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(axes)), key=axes.__getitem__))


def _batch_permuted(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    return node.op(args[0], axes=(0, *(axis + 1 for axis in node.attrs["axes"])))


permute_dims = structural(
    "permute_dims",
    "The axes in another order.",
    np.transpose,
    lambda x, *, axes: tuple(x[axis] for axis in axes),
    lambda g, x, *, axes: ops.permute_dims(g, axes=_inverse(axes)),
    attrs={"axes": kinds.integers("The axes of x, each once, in the order of the result.")},
    canonical=_settled_permutation,
    same=lambda x, *, axes: x if axes == tuple(range(x.rank)) else None,
    batch=_batch_permuted,
    torch="permute",
    samples=(
        Sample(((2, 3),), {"axes": [1, 0]}),
        Sample(((2, 3, 4),), {"axes": [1, 2, 0]}),
        Sample(((2, 0, 4),), {"axes": [-1, 0, 1]}),
        Sample(((3,),), {"axes": 0}),
        Sample(((),), {"axes": []}),
    ),
    refusals=(
        Refusal(((2, 3),), {"axes": [0, 0]}, "shape_mismatch"),
        Refusal(((2, 3),), {"axes": [0]}, "shape_mismatch"),
        Refusal(((2, 3),), {"axes": [0, 2]}, "shape_mismatch"),
    ),
    example="permute_dims(x, [1, 0])",
    aliases=("permute",),
)


def _matrix_transpose(x: Node) -> Node:
    if x.rank < 2:
        raise ShapeMismatch(f"matrix_transpose needs two axes or more, got shape {listed(x.shape)}")
    return ops.swapaxes(x, axis1=-2, axis2=-1)


matrix_transpose = rearranged(
    "matrix_transpose",
    "The last two axes exchanged.",
    _matrix_transpose,
    torch="transpose",
    samples=(Sample(((2, 3),)), Sample(((2, 3, 4),)), Sample(((0, 3),))),
    refusals=(Refusal(((3,),), {}, "shape_mismatch"),),
)


def _moveaxis(x: Node, *, source: tuple[int, ...], destination: tuple[int, ...]) -> Node:
    if len(source) != len(destination):
        raise ShapeMismatch(f"source names {len(source)} axes, destination {len(destination)}; they should agree")
    moved, places = _axes_in_order(source, x.rank), _axes_in_order(destination, x.rank)
    order = [axis for axis in range(x.rank) if axis not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return ops.permute_dims(x, axes=order)


moveaxis = rearranged(
    "moveaxis",
    "Axes moved to other places; the rest keep their order.",
    _moveaxis,
    attrs={
        "source": kinds.integers("The axis or axes to move."),
        "destination": kinds.integers("Where each of them stands in the result."),
    },
    torch="permute",
    samples=(
        Sample(((2, 3, 4),), {"source": 0, "destination": -1}),
        Sample(((2, 3, 4),), {"source": [0, 1], "destination": [-1, 0]}),
    ),
    refusals=(
        Refusal(((2, 3),), {"source": 2, "destination": 0}, "shape_mismatch"),
        Refusal(((2, 3),), {"source": [0, 1], "destination": 0}, "shape_mismatch"),
        Refusal(((2, 3),), {"source": [0, 0], "destination": [0, 1]}, "shape_mismatch"),
    ),
    example="moveaxis(x, 0, -1)",
    aliases=("movedim",),
)


def _swapaxes(x: Node, *, axis1: int, axis2: int) -> Node:
    first, second = axis_of(axis1, x.rank, what="axis1"), axis_of(axis2, x.rank, what="axis2")
    axes = list(range(x.rank))
    axes[first], axes[second] = second, first
    return ops.permute_dims(x, axes=axes)


swapaxes = rearranged(
    "swapaxes",
    "Two axes exchanged.",
    _swapaxes,
    attrs={"axis1": kinds.axis("One axis."), "axis2": kinds.axis("The other axis.")},
    torch="transpose",
    samples=(Sample(((2, 3, 4),), {"axis1": 0, "axis2": -1}), Sample(((2, 3),), {"axis1": 1, "axis2": 1})),
    refusals=(Refusal(((2, 3),), {"axis1": 0, "axis2": 2}, "shape_mismatch"),),
    example="swapaxes(x, 0, 1)",
    aliases=("swapdims",),
)

# Stretching


def _stretched_shape(x: Shape, *, shape: Shape) -> Shape:
    lead = len(shape) - len(x)
    if lead < 0 or any(size not in (1, wanted) for size, wanted in zip(x, shape[lead:], strict=True)):
        raise ShapeMismatch(f"shape {listed(x)} does not broadcast to {listed(shape)}")
    return shape


def _batch_stretched(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    x, shape = args[0], node.attrs["shape"]
    return node.op(with_rank(x, len(shape)), shape=(x.shape[0], *shape))


broadcast_to = structural(
    "broadcast_to",
    "Axes of size one stretched, and axes added in front, without a copy.",
    np.broadcast_to,
    _stretched_shape,
    lambda g, x, *, shape: unbroadcast(g, x.shape),
    attrs={"shape": kinds.shape()},
    same=lambda x, *, shape: x if x.shape == shape else None,
    batch=_batch_stretched,
    torch="expand",
    samples=(
        Sample(((3,),), {"shape": [2, 3]}),
        Sample(((2, 1),), {"shape": [4, 2, 3]}),
        Sample(((),), {"shape": [2, 2]}),
        Sample(((1, 3),), {"shape": [0, 3]}),
    ),
    refusals=(
        Refusal(((3,),), {"shape": [2]}, "shape_mismatch"),
        Refusal(((2, 3),), {"shape": [3]}, "shape_mismatch"),
        Refusal(((3,),), {"shape": [-1, 3]}, "invalid_graph"),
    ),
    example="broadcast_to(x, [2, 3])",
)
