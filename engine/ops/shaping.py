"""Shape: the same elements in another arrangement, some of them joined, repeated or left out.

All of it is linear, and most computes nothing: a kernel returns a view where it can. Primitives are few:
what can be said in reshape, permute_dims, broadcast_to, slice and take is a composite and needs no rule.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Linear, unbroadcast
from engine.errors import DtypeMismatch, InvalidGraph, LimitExceeded, ShapeMismatch
from engine.families import (
    batch_aligned,
    batch_shifted,
    batch_sized,
    composite,
    free,
    same_shape,
    settle_axes,
    structural,
    with_rank,
)
from engine.limits import Limits
from engine.types import DTYPES, Dtype, Shape, axes_of, axis_of, drop_axes, is_inexact

ANY = (Operand("x", "biufc"),)
rearranged = partial(composite, operands=ANY, family="shape")


def _listed(sizes: Sequence[int]) -> str:
    """A shape for a message, cut where it is absurdly long."""
    return str(list(sizes[:20])) if len(sizes) <= 20 else str(list(sizes[:20]))[:-1] + ", …]"


def _resized(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _rows(x: Node) -> Node:
    """Every example of a batch flattened."""
    return ops.reshape(x, shape=(x.shape[0], math.prod(x.shape[1:])))


# Reshaping


def _settled_sizes(attrs: Attrs, shape: Shape) -> Attrs:
    """The one -1 replaced by what is left of the elements. Raises InvalidGraph, ShapeMismatch."""
    wanted, size = attrs["shape"], math.prod(shape)
    if wanted.count(-1) > 1 or any(each < -1 for each in wanted):
        raise InvalidGraph(f"shape {_listed(wanted)} should hold sizes from 0, and -1 at most once")
    known = _product([each for each in wanted if each != -1], size)
    fits = known > 0 and size % known == 0 if -1 in wanted else known == size
    if not fits:
        raise ShapeMismatch(f"{size} elements of shape {_listed(shape)} do not fill shape {_listed(wanted)}")
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
    samples=(Sample(((2, 3, 2),)), Sample(((2, 3, 2),), {"start_axis": 1}), Sample(((),))),
    refusals=(
        Refusal(((2, 3),), {"start_axis": 2}, "shape_mismatch"),
        Refusal(((2, 3),), {"start_axis": 1, "end_axis": 0}, "shape_mismatch"),
    ),
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
        raise ShapeMismatch(f"axes should name each of {rank} axes once, got {_listed(axes)}")
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
)


def _matrix_transpose(x: Node) -> Node:
    if x.rank < 2:
        raise ShapeMismatch(f"matrix_transpose needs two axes or more, got shape {_listed(x.shape)}")
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
)

# Stretching, joining, parting


def _stretched_shape(x: Shape, *, shape: Shape) -> Shape:
    lead = len(shape) - len(x)
    if lead < 0 or any(size not in (1, wanted) for size, wanted in zip(x, shape[lead:], strict=True)):
        raise ShapeMismatch(f"shape {_listed(x)} does not broadcast to {_listed(shape)}")
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

ARRAYS = (Operand("arrays", "biufc", variadic=True),)


def _read_joint(value: Any) -> int | None:
    return None if value is None else kinds.read_integer(value)


JOINT = kinds.Attr(
    _read_joint,
    {"oneOf": [kinds.INTEGER, {"type": "null"}]},
    "The axis to join along; null flattens first.",
    0,
)


def _settled_concat(attrs: Attrs, *shapes: Shape) -> Attrs:
    """A non-negative axis; None is axis 0 where there is no other."""
    axis, rank = attrs["axis"], len(shapes[0])
    if axis is None:
        return attrs | {"axis": 0} if all(len(shape) == 1 for shape in shapes) else attrs
    if rank == 0:
        raise ShapeMismatch("scalars have no axis to be joined along; use stack")
    return attrs | {"axis": axis_of(axis, rank)}


def _joined_shape(*shapes: Shape, axis: int | None) -> Shape:
    if axis is None:
        return (sum(map(math.prod, shapes)),)
    first = shapes[0]
    for shape in shapes:
        if len(shape) != len(first) or drop_axes(shape, (axis,)) != drop_axes(first, (axis,)):
            raise ShapeMismatch(f"shapes {list(first)} and {list(shape)} should agree but for axis {axis}")
    return _resized(first, axis, sum(shape[axis] for shape in shapes))


def _within(axis: int, start: int | None, stop: int | None) -> Any:
    """The index of a stretch of one axis."""
    return (*((None, None, None),) * axis, (start, stop, None))


def _concat_adjoint(g: Node, *arrays: Node, axis: int | None) -> list[Node]:
    parts, start = [], 0
    for x in arrays:
        stop = start + (x.size if axis is None else x.shape[axis])
        parts.append(ops.reshape(ops.slice(g, index=_within(axis or 0, start, stop)), shape=x.shape))
        start = stop
    return parts


def _batch_concat(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    size, axis = args[batched.index(True)].shape[0], node.attrs["axis"]
    arrays = [x if has else ops.broadcast_to(x, shape=(size, *x.shape)) for x, has in zip(args, batched, strict=True)]
    return node.op(*map(_rows, arrays), axis=1) if axis is None else node.op(*arrays, axis=axis + 1)


concat = define(
    "concat",
    "Arrays joined along an axis that they have; with axis null each is flattened first.",
    operands=ARRAYS,
    attrs={"axis": JOINT},
    shape=_joined_shape,
    kernel=lambda *arrays, axis: np.concatenate(arrays, axis=axis),
    derivative=Linear(_concat_adjoint),
    batch=_batch_concat,
    canonical=_settled_concat,
    flops=free,
    torch="cat",
    aliases=("concatenate",),
    family="shape",
    samples=(
        Sample(((2,), (3,))),
        Sample(((2, 3), (2, 1), (2, 2)), {"axis": -1}),
        Sample(((2, 3), (), (2,)), {"axis": None}),
        Sample(((0, 3), (2, 3))),
        Sample(((3,),)),
    ),
    refusals=(
        Refusal(((2, 3), (2, 4)), {}, "shape_mismatch"),
        Refusal(((2, 3), (3,)), {}, "shape_mismatch"),
        Refusal(((2,), (2,)), {"axis": 1}, "shape_mismatch"),
        Refusal(((), ()), {}, "shape_mismatch"),
    ),
    example="concat(x, y, axis=0)",
)


def _stack(*arrays: Node, axis: int) -> Node:
    at = axis_of(axis, arrays[0].rank + 1)
    for x in arrays:
        if x.shape != arrays[0].shape:
            raise ShapeMismatch(f"shapes {list(arrays[0].shape)} and {list(x.shape)} should be equal to be stacked")
    return ops.concat(*[ops.expand_dims(x, axis=at) for x in arrays], axis=at)


stack = composite(
    "stack",
    "Arrays of one shape joined along a new axis.",
    _stack,
    operands=ARRAYS,
    attrs={"axis": kinds.axis("Where the new axis stands in the result.", 0)},
    family="shape",
    samples=(Sample(((3,), (3,))), Sample(((2, 3), (2, 3), (2, 3)), {"axis": -1}), Sample(((), ()))),
    refusals=(
        Refusal(((2,), (3,)), {}, "shape_mismatch"),
        Refusal(((2,), (2,)), {"axis": 2}, "shape_mismatch"),
    ),
    example="stack(x, y, axis=0)",
)


def _few_parts(limits: Limits, x: Node, *, indices_or_sections: int | tuple[int, ...], axis: int) -> None:
    at = indices_or_sections
    count = at if isinstance(at, int) else len(at) + 1
    if count > limits.arity:
        raise LimitExceeded("arity", limits.arity, count, "results of split")


def _split(x: Node, *, indices_or_sections: int | tuple[int, ...], axis: int) -> tuple[Node, ...]:
    axis, at = axis_of(axis, x.rank), indices_or_sections
    if isinstance(at, int):
        at = _even_bounds(x.shape[axis], at)
    bounds = zip((None, *at), (*at, None), strict=True)
    return tuple(ops.slice(x, index=_within(axis, start, stop)) for start, stop in bounds)


def _even_bounds(size: int, sections: int) -> tuple[int, ...]:
    if sections < 1 or size % sections:
        raise ShapeMismatch(f"an axis of size {size} has no {sections} equal sections")
    return tuple(size // sections * at for at in range(1, sections))


split = rearranged(
    "split",
    "An axis cut into equal sections, or at given indices: one result for each piece.",
    _split,
    attrs={
        "indices_or_sections": kinds.axes("How many equal sections, or the indices to cut at.", kinds.REQUIRED),
        "axis": kinds.axis("The axis to cut.", 0),
    },
    guard=_few_parts,
    samples=(
        Sample(((4,),), {"indices_or_sections": 2}),
        Sample(((2, 6),), {"indices_or_sections": [1, 3], "axis": 1}),
        Sample(((3,),), {"indices_or_sections": [-1, 5]}),
    ),
    refusals=(
        Refusal(((5,),), {"indices_or_sections": 2}, "shape_mismatch"),
        Refusal(((4,),), {"indices_or_sections": 0}, "shape_mismatch"),
        Refusal(((4,),), {"indices_or_sections": 2, "axis": 1}, "shape_mismatch"),
        Refusal(((0,),), {"indices_or_sections": 1_000_000}, "limit_exceeded"),
    ),
    example="a, b = split(x, 2); a * b",
)

# Turning and repeating

flip = structural(
    "flip",
    "The elements in reverse order along an axis, or along several.",
    np.flip,
    same_shape,
    lambda g, x, *, axis: ops.flip(g, axis=axis),
    attrs={"axis": kinds.axes()},
    canonical=settle_axes,
    same=lambda x, *, axis: x if all(x.shape[at] <= 1 for at in axis) else None,
    batch=batch_shifted("axis"),
    samples=(
        Sample(((3,),)),
        Sample(((2, 3),), {"axis": 1}),
        Sample(((2, 3, 2),), {"axis": [0, -1]}),
        Sample(((0, 3),)),
    ),
    refusals=(Refusal(((3,),), {"axis": 1}, "shape_mismatch"),),
)


def _settled_roll(attrs: Attrs, shape: Shape) -> Attrs:
    """One shift for each axis that moves, below its size; where all elements roll as one, a single shift."""
    shift, axis = attrs["shift"], attrs["axis"]
    if axis is None and len(shape) != 1:
        return attrs | {"shift": (sum(shift) % max(math.prod(shape), 1),)}
    turns: dict[int, int] = {}
    for by, each in _paired(shift, (0,) if axis is None else axis):
        at = axis_of(each, len(shape))
        turns[at] = turns.get(at, 0) + by
    kept = {at: by % shape[at] for at, by in sorted(turns.items()) if shape[at] and by % shape[at]}
    return attrs | {"shift": tuple(kept.values()), "axis": tuple(kept)}


def _paired(shift: tuple[int, ...], axis: tuple[int, ...]) -> list[tuple[int, int]]:
    """Shifts with their axes; a single one of either goes with all of the other. Raises ShapeMismatch."""
    shift = shift * len(axis) if len(shift) == 1 else shift
    axis = axis * len(shift) if len(axis) == 1 else axis
    if len(shift) != len(axis):
        raise ShapeMismatch(f"{len(shift)} shifts do not go with {len(axis)} axes")
    return list(zip(shift, axis, strict=True))


def _batch_roll(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    x, shift, axis = args[0], node.attrs["shift"], node.attrs["axis"]
    if axis is None:
        return ops.reshape(node.op(_rows(x), shift=shift, axis=1), shape=x.shape)
    return node.op(x, shift=shift, axis=[at + 1 for at in axis])


roll = structural(
    "roll",
    "The elements moved along an axis; what leaves at one end comes back at the other.",
    np.roll,
    same_shape,
    lambda g, x, *, shift, axis: ops.roll(g, shift=[-by for by in shift], axis=axis),
    attrs={
        "shift": kinds.integers("By how many places; a list goes with a list of axes."),
        "axis": kinds.integers("The axis or axes; when absent, all elements roll as one sequence.", None),
    },
    canonical=_settled_roll,
    same=lambda x, *, shift, axis: x if not any(shift) else None,
    batch=_batch_roll,
    view=False,
    samples=(
        Sample(((4,),), {"shift": 1}),
        Sample(((2, 3),), {"shift": 2}),
        Sample(((2, 3),), {"shift": -1, "axis": 1}),
        Sample(((2, 3),), {"shift": [1, 2], "axis": [0, 1]}),
        Sample(((2, 3),), {"shift": 1, "axis": [0, 1]}),
        Sample(((0, 3),), {"shift": 5, "axis": 0}),
    ),
    refusals=(
        Refusal(((3,),), {"shift": 1, "axis": 1}, "shape_mismatch"),
        Refusal(((2, 3),), {"shift": [1, 2, 3], "axis": [0, 1]}, "shape_mismatch"),
    ),
    example="roll(x, 1, axis=0)",
)


def _settled_repeat(attrs: Attrs, shape: Shape) -> Attrs:
    """`repeats` as one number for all elements, or one for each; a non-negative axis but for None."""
    repeats, axis = attrs["repeats"], attrs["axis"]
    if axis is None and len(shape) == 1:
        axis = 0
    axis = None if axis is None else axis_of(axis, len(shape))
    size = math.prod(shape) if axis is None else shape[axis]
    if len(repeats) not in (1, size):
        raise ShapeMismatch(f"{len(repeats)} repeats do not go with {size} elements; give one, or one for each")
    return attrs | {"repeats": repeats if len(set(repeats)) > 1 else repeats[:1] or (1,), "axis": axis}


def _repeated_shape(x: Shape, *, repeats: tuple[int, ...], axis: int | None) -> Shape:
    size = math.prod(x) if axis is None else x[axis]
    total = size * repeats[0] if len(repeats) == 1 else sum(repeats)
    return (total,) if axis is None else _resized(x, axis, total)


def _repeat_adjoint(g: Node, x: Node, *, repeats: tuple[int, ...], axis: int | None) -> Node:
    size, at = (x.size, 0) if axis is None else (x.shape[axis], axis)
    if len(repeats) == 1:
        before, after = math.prod(g.shape[:at]), math.prod(g.shape[at + 1 :])
        summed = ops.sum(ops.reshape(g, shape=(before, size, repeats[0], after)), axis=2)
    else:
        source = ops.repeat(ops.arange.on(g.graph, start=size), repeats=repeats)
        summed = ops.untake(g, source, size=size, axis=at)
    return ops.reshape(summed, shape=x.shape)


def _batch_repeat(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    repeats, axis = node.attrs["repeats"], node.attrs["axis"]
    return node.op(_rows(args[0]) if axis is None else args[0], repeats=repeats, axis=(axis or 0) + 1)


repeat = structural(
    "repeat",
    "Every element some times over, before the next one comes.",
    np.repeat,
    _repeated_shape,
    _repeat_adjoint,
    attrs={
        "repeats": kinds.shape("How many times: one number, or one for each element along the axis."),
        "axis": kinds.axis("The axis; when absent, x is flattened first.", None),
    },
    canonical=_settled_repeat,
    same=lambda x, *, repeats, axis: x if repeats == (1,) and axis is not None else None,
    batch=_batch_repeat,
    view=False,
    torch="repeat_interleave",
    samples=(
        Sample(((3,),), {"repeats": 2}),
        Sample(((2, 3),), {"repeats": 2}),
        Sample(((2, 3),), {"repeats": 3, "axis": 1}),
        Sample(((2, 3),), {"repeats": [2, 0, 1], "axis": -1}),
        Sample(((2, 2),), {"repeats": [1, 2, 0, 3]}),
        Sample(((2, 3),), {"repeats": 0, "axis": 0}),
        Sample(((0, 2),), {"repeats": 2, "axis": 0}),
    ),
    refusals=(
        Refusal(((3,),), {"repeats": [1, 2]}, "shape_mismatch"),
        Refusal(((3,),), {"repeats": -1}, "invalid_graph"),
        Refusal(((3,),), {"repeats": 2, "axis": 1}, "shape_mismatch"),
    ),
    example="repeat(x, 2, axis=0)",
)


def _tile(x: Node, *, repetitions: tuple[int, ...]) -> Node:
    rank = max(x.rank, len(repetitions))
    x = ops.reshape(x, shape=(*(1,) * (rank - x.rank), *x.shape))
    for axis, count in enumerate(repetitions, rank - len(repetitions)):
        x = _tiled(x, axis, count)
    return x


def _tiled(x: Node, axis: int, count: int) -> Node:
    """Copies side by side along one axis: all that lies behind an axis is one block."""
    if count == 1:
        return x
    before, block = math.prod(x.shape[:axis]), math.prod(x.shape[axis:])
    copies = ops.broadcast_to(ops.reshape(x, shape=(before, 1, block)), shape=(before, count, block))
    return ops.reshape(copies, shape=_resized(x.shape, axis, count * x.shape[axis]))


tile = rearranged(
    "tile",
    "Copies of the whole side by side, along the last axes.",
    _tile,
    attrs={"repetitions": kinds.shape("How many copies along each axis, counted from the last one.")},
    torch="repeat",
    samples=(
        Sample(((3,),), {"repetitions": 2}),
        Sample(((2, 3),), {"repetitions": [2, 3]}),
        Sample(((2, 3),), {"repetitions": 2}),
        Sample(((3,),), {"repetitions": [2, 1, 2]}),
        Sample(((2,),), {"repetitions": 0}),
        Sample(((),), {"repetitions": [2]}),
    ),
    refusals=(Refusal(((3,),), {"repetitions": -1}, "invalid_graph"),),
    example="tile(x, [2, 3])",
)

# Padding


def _read_values(value: Any, depth: int = 2) -> Hashable:
    """A number, or lists of lists of numbers; whole ones stay whole, and may be as large as a uint64."""
    if isinstance(value, list | tuple) and depth:
        return tuple(_read_values(each, depth - 1) for each in value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    real = kinds.read_real(value)
    return int(real) if real.is_integer() and abs(real) < 2**53 else real


_VALUE = {"oneOf": [{"type": "number"}, {"type": "boolean"}, {"enum": list(kinds.NON_FINITE)}]}
_VALUES = {"type": "array", "items": _VALUE}
PAD_VALUES = kinds.Attr(
    _read_values,
    {"oneOf": [_VALUE, _VALUES, {"type": "array", "items": _VALUES}]},
    "What mode constant puts there; in the forms of pad_width.",
    0,
)


def _pairs(value: Any, rank: int, what: str) -> list[tuple[Any, Any]]:
    """NumPy's forms of one pair an axis: n, [n], [before, after], [[before, after]], or all pairs."""
    listed = value if isinstance(value, tuple) else (value,)
    if not any(isinstance(each, tuple) for each in listed):
        listed = (listed,)
    if any(not isinstance(each, tuple) or len(each) not in (1, 2) for each in listed):
        raise InvalidGraph(f"{what} should be a number, [before, after], or such a pair for each axis")
    if len(listed) not in (1, rank):
        raise ShapeMismatch(f"{what} has {len(listed)} pairs for {rank} axes")
    pairs = [(each[0], each[-1]) for each in listed]
    return pairs * rank if len(pairs) == 1 else pairs


def _pad(x: Node, *, pad_width: Any, mode: str, constant_values: Any) -> Node:
    widths = _pairs(pad_width, x.rank, "pad_width")
    if any(not 0 <= width < 2**31 for pair in widths for width in pair):
        raise InvalidGraph("pad_width should hold sizes from 0 to 2147483647; to cut, use a slice")
    if mode == "constant":
        return _pad_constant(x, widths, _pairs(constant_values, x.rank, "constant_values"))
    for axis, width in enumerate(widths):
        if any(width):
            x = _pad_mirrored(x, axis, width, mode)
    return x


def _pad_constant(x: Node, widths: list[tuple[int, int]], values: list[tuple[Any, Any]]) -> Node:
    if not any(value for pair in values for value in pair):
        index = [(before, before + size) for size, (before, _) in zip(x.shape, widths, strict=True)]
        shape = [size + sum(pair) for size, pair in zip(x.shape, widths, strict=True)]
        return ops.unslice(x, shape=shape, index=index)
    for axis, (width, value) in enumerate(zip(widths, values, strict=True)):
        before, after = (_margin(x, axis, *side) for side in zip(width, value, strict=True))
        x = _between(before, x, after, axis)
    return x


def _pad_mirrored(x: Node, axis: int, width: tuple[int, int], mode: str) -> Node:
    """`x` between margins of its own elements; only these are gathered, all at once."""
    size = x.shape[axis]
    if size == 0:
        raise ShapeMismatch(f"axis {axis} is empty; only mode constant can pad it")
    spans = (-width[0], 0), (size, size + width[1])
    places = ops.concat(*[ops.arange.on(x.graph, start=start, stop=stop) for start, stop in spans])
    margins = ops.take(x, _sources(places, mode, size), axis=axis)
    before, after = ops.split.several(margins, indices_or_sections=width[:1], axis=axis)
    return _between(before, x, after, axis)


def _between(before: Node, x: Node, after: Node, axis: int) -> Node:
    parts = [part for part in (before, x, after) if part.shape[axis]]
    return ops.concat(*parts, axis=axis) if len(parts) > 1 else parts[0] if parts else x


def _margin(x: Node, axis: int, width: int, value: Any) -> Node:
    """What stands before or after `x` along an axis: one value, stretched."""
    if np.result_type(x.dtype, value) != x.dtype or (x.dtype.kind in "iu" and not _fits(value, x.dtype)):
        raise DtypeMismatch(f"the constant {value} does not fit {x.dtype.name}")
    return ops.broadcast_to(x.graph.constant(value, x.dtype), shape=_resized(x.shape, axis, width))


def _fits(value: int, dtype: Dtype) -> bool:
    return bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def _sources(places: Node, mode: str, size: int) -> Node:
    """Which element each place repeats, on an axis that goes on beyond its size at both ends."""
    if mode == "edge":
        return ops.clip(places, 0, size - 1)
    if mode == "wrap":
        return ops.remainder(places, size)
    last = 2 * size - 1 if mode == "symmetric" else max(2 * size - 2, 1)
    folded = ops.remainder(places, 2 * size if mode == "symmetric" else last)
    return ops.minimum(folded, last - folded)


pad = rearranged(
    "pad",
    "More elements before and after, along each axis: a constant, or the array's own, repeated.",
    _pad,
    attrs={
        "pad_width": kinds.nested_integers(
            "How many: n, [before, after] for every axis, or a list of such pairs, one for each axis."
        ),
        "mode": kinds.choice(
            "constant; edge, the outermost value; wrap, on from the other end; reflect, mirrored at the "
            "outermost value; symmetric, the same with that value repeated.",
            ("constant", "edge", "reflect", "symmetric", "wrap"),
            "constant",
        ),
        "constant_values": PAD_VALUES,
    },
    torch="constant_pad_nd",
    samples=(
        Sample(((3,),), {"pad_width": 1}),
        Sample(((2, 3),), {"pad_width": [1, 2]}),
        Sample(((2, 3),), {"pad_width": [[0, 1], [2, 0]], "constant_values": 1.5}),
        Sample(((2, 3),), {"pad_width": [[1, 1], [2, 2]], "constant_values": [[1, 2], [-1, "Infinity"]]}),
        Sample(((3,),), {"pad_width": 5, "mode": "reflect"}),
        Sample(((3,),), {"pad_width": [4, 2], "mode": "symmetric"}),
        Sample(((2, 3),), {"pad_width": 1, "mode": "edge"}),
        Sample(((2, 3),), {"pad_width": [[0, 0], [4, 1]], "mode": "wrap"}),
        Sample(((1,),), {"pad_width": 2, "mode": "reflect"}),
        Sample(((0,),), {"pad_width": [1, 0]}),
    ),
    refusals=(
        Refusal(((3,),), {"pad_width": -1}, "invalid_graph"),
        Refusal(((3,),), {"pad_width": [1, 2, 3]}, "invalid_graph"),
        Refusal(((3,),), {"pad_width": [[1, 2], [3, 4]]}, "shape_mismatch"),
        Refusal(((0,),), {"pad_width": 1, "mode": "edge"}, "shape_mismatch"),
        Refusal(((3,),), {"pad_width": 1, "mode": "mean"}, "invalid_graph"),
        Refusal(([1, 2],), {"pad_width": 1, "constant_values": 0.5}, "dtype_mismatch"),
    ),
    example="pad(x, [1, 2])",
)

# Triangles and diagonals


def _settled_k(attrs: Attrs, shape: Shape) -> Attrs:
    """`k` no further out than makes a difference."""
    if len(shape) < 2:
        raise ShapeMismatch(f"a triangle needs a matrix, with two axes or more; got shape {_listed(shape)}")
    rows, columns = shape[-2:]
    return attrs | {"k": max(-rows, min(attrs["k"], columns))}


def _batch_same(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """For what acts on the last axes, whatever stands before."""
    return node.op(args[0], **node.attrs)


triangular = partial(
    structural,
    shape=same_shape,
    attrs={"k": kinds.integer("Which diagonal is the outermost kept: 0 the main one, above it positive.", 0)},
    canonical=_settled_k,
    batch=_batch_same,
    view=False,
    samples=(
        Sample(((3, 3),)),
        Sample(((2, 3),), {"k": 1}),
        Sample(((2, 4, 3),), {"k": -1}),
        Sample(((0, 3),)),
    ),
    refusals=(Refusal(((3,),), {}, "shape_mismatch"), Refusal(((2, 2),), {"k": 0.5}, "invalid_graph")),
)

tril = triangular(
    "tril",
    "The lower triangle of a matrix, or of each in a stack; zeros above.",
    np.tril,
    adjoint=lambda g, x, *, k: ops.tril(g, k=k),
    same=lambda x, *, k: x if k >= x.shape[-1] - 1 else None,
)

triu = triangular(
    "triu",
    "The upper triangle of a matrix, or of each in a stack; zeros below.",
    np.triu,
    adjoint=lambda g, x, *, k: ops.triu(g, k=k),
    same=lambda x, *, k: x if k <= 1 - x.shape[-2] else None,
)

DIAGONAL = {
    "offset": kinds.integer("Which diagonal: 0 the main one, above it positive.", 0),
    "axis1": kinds.axis("The axis of rows.", -2),
    "axis2": kinds.axis("The axis of columns.", -1),
}


def _settled_diagonal(attrs: Attrs, shape: Shape) -> Attrs:
    first = axis_of(attrs["axis1"], len(shape), what="axis1")
    second = axis_of(attrs["axis2"], len(shape), what="axis2")
    if first == second:
        raise ShapeMismatch(f"axis1 and axis2 are both axis {first}; a diagonal runs through two")
    offset = max(-shape[first], min(attrs["offset"], shape[second]))
    return attrs | {"offset": offset, "axis1": first, "axis2": second}


def _diagonal_shape(x: Shape, *, offset: int, axis1: int, axis2: int) -> Shape:
    length = min(x[axis1] + min(offset, 0), x[axis2] - max(offset, 0))
    return (*drop_axes(x, (axis1, axis2)), length)


diagonal = structural(
    "diagonal",
    "A diagonal of a matrix, or of each in a stack; it is the last axis of the result.",
    np.diagonal,
    _diagonal_shape,
    lambda g, x, **attrs: ops.undiagonal(g, shape=x.shape, **attrs),
    attrs=DIAGONAL,
    canonical=_settled_diagonal,
    batch=batch_shifted("axis1", "axis2"),
    samples=(
        Sample(((3, 3),)),
        Sample(((2, 3),), {"offset": 1}),
        Sample(((2, 3, 4),), {"offset": -1, "axis1": 0, "axis2": 1}),
        Sample(((2, 3, 4),), {"axis1": 2, "axis2": 0}),
        Sample(((2, 3),), {"offset": 9}),
    ),
    refusals=(
        Refusal(((3,),), {}, "shape_mismatch"),
        Refusal(((3, 3),), {"axis1": 1}, "shape_mismatch"),
        Refusal(((3, 3),), {"axis2": 2}, "shape_mismatch"),
    ),
)


def _checked_undiagonal(x: Shape, *, shape: Shape, **attrs: int) -> Shape:
    expected = _diagonal_shape(shape, **attrs)
    if x != expected:
        raise ShapeMismatch(f"that diagonal of shape {_listed(shape)} has shape {list(expected)}, got {list(x)}")
    return shape


def _undiagonal(x: Any, *, shape: Shape, **attrs: int) -> Any:
    out = np.zeros(shape, x.dtype)
    place = np.diagonal(out, **attrs)
    place.flags.writeable = True  # NumPy marks the view read-only, but it is one of `out`, which is ours
    place[...] = x
    return out


def _batch_undiagonal(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    at = node.attrs
    moved = {"shape": (args[0].shape[0], *at["shape"]), "axis1": at["axis1"] + 1, "axis2": at["axis2"] + 1}
    return node.op(args[0], **at | moved)


undiagonal = structural(
    "undiagonal",
    "Zeros of a shape, with x on a diagonal: the adjoint of diagonal.",
    _undiagonal,
    _checked_undiagonal,
    lambda g, x, *, shape, **attrs: ops.diagonal(g, **attrs),
    attrs={"shape": kinds.shape(), **DIAGONAL},
    canonical=lambda attrs, x: _settled_diagonal(attrs, attrs["shape"]),
    batch=_batch_undiagonal,
    view=False,
    samples=(
        Sample(((3,),), {"shape": [3, 3]}),
        Sample(((2,),), {"shape": [2, 3], "offset": 1}),
        Sample(((3, 2),), {"shape": [2, 3, 4], "axis1": 2, "axis2": 0}),
    ),
    refusals=(
        Refusal(((2,),), {"shape": [3, 3]}, "shape_mismatch"),
        Refusal(((3,),), {"shape": [3]}, "shape_mismatch"),
    ),
    example="undiagonal(x, shape=[3, 3])",
)


def _diag(x: Node, *, k: int) -> Node:
    if x.rank == 2:
        return ops.diagonal(x, offset=k)
    if x.rank != 1:
        raise ShapeMismatch(f"diag takes a vector or a matrix, got shape {_listed(x.shape)}; see diagonal")
    size = x.shape[0] + abs(k)
    return ops.undiagonal(x, shape=(size, size), offset=k)


diag = rearranged(
    "diag",
    "The square matrix with a vector on a diagonal, or the diagonal of a matrix.",
    _diag,
    attrs={"k": kinds.integer("Which diagonal: 0 the main one, above it positive.", 0)},
    samples=(
        Sample(((3,),)),
        Sample(((2,),), {"k": -1}),
        Sample(((3, 3),)),
        Sample(((2, 3),), {"k": 1}),
        Sample(((0,),)),
    ),
    refusals=(Refusal(((),), {}, "shape_mismatch"), Refusal(((2, 2, 2),), {}, "shape_mismatch")),
)

# Dtypes


@dataclass(frozen=True)
class _LinearCast(Linear):
    """Linear between inexact dtypes; a cast to or from integers and booleans ends the path."""

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        return super().forward(node, tangents) if _is_smooth(node) else None

    def reverse(self, node: Node, g: Node, wanted: Sequence[bool]) -> Sequence[Node | None]:
        return super().reverse(node, g, wanted) if _is_smooth(node) else [None]


def _is_smooth(node: Node) -> bool:
    return is_inexact(node.dtype) and is_inexact(node.inputs[0].dtype)


def _cast(x: Any, *, dtype: str) -> Any:
    # The adjoint of taking a real number for a complex one is the real part: no warning is due.
    return (x.real if x.dtype.kind == "c" and dtype.startswith(("i", "u", "f")) else x).astype(dtype)


def _named_dtype(*dtypes: Dtype, dtype: str) -> Dtype:
    return DTYPES[dtype]


astype = define(
    "astype",
    "The same values in another dtype; integers and booleans carry no derivative.",
    operands=(Operand("x", "biufc", promotes=False),),
    attrs={"dtype": kinds.dtype()},
    shape=same_shape,
    returns=_named_dtype,
    kernel=_cast,
    derivative=_LinearCast(lambda g, x, *, dtype: ops.astype(g, dtype=x.dtype.name)),
    batch=batch_aligned,
    # A weak number of that dtype is not yet a tensor of it.
    same=lambda x, *, dtype: x if x.dtype.name == dtype and not x.weak else None,
    torch="to_copy",
    family="shape",
    samples=(
        Sample(((2, 3),), {"dtype": "float32"}),
        Sample(((2, 3),), {"dtype": "float64"}),
        Sample(([1, 2],), {"dtype": "float64"}),
        Sample(((3,),), {"dtype": "int64"}),
        Sample(([True, False],), {"dtype": "uint8"}),
        Sample(((0,),), {"dtype": "bool"}),
    ),
    refusals=(Refusal(((3,),), {"dtype": "float16"}, "invalid_graph"), Refusal(((3,),), {}, "invalid_graph")),
    example='astype(x, "float32")',
)
