"""Joining tensors along an axis, and parting one into several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Linear
from engine.errors import LimitExceeded, ShapeMismatch
from engine.families import composite, example_rows, free, listed, rearranged, resized, span
from engine.limits import Limits
from engine.types import Shape, axis_of, broadcast, drop_axes

# Joining

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
    return resized(first, axis, sum(shape[axis] for shape in shapes))


def _concat_adjoint(g: Node, *arrays: Node, axis: int | None) -> list[Node]:
    parts, start = [], 0
    for x in arrays:
        stop = start + (x.size if axis is None else x.shape[axis])
        parts.append(ops.reshape(span(g, axis or 0, start, stop), shape=x.shape))
        start = stop
    return parts


def _batch_concat(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    size, axis = args[batched.index(True)].shape[0], node.attrs["axis"]
    arrays = [x if has else ops.broadcast_to(x, shape=(size, *x.shape)) for x, has in zip(args, batched, strict=True)]
    return node.op(*map(example_rows, arrays), axis=1) if axis is None else node.op(*arrays, axis=axis + 1)


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
    aliases=("concatenate", "cat"),
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

# Parting


def _few_parts(limits: Limits, x: Node, *, indices_or_sections: int | tuple[int, ...], axis: int) -> None:
    at = indices_or_sections
    count = at if isinstance(at, int) else len(at) + 1
    if count > limits.arity:
        raise LimitExceeded("arity", limits.arity, count, "pieces of an axis")


def _split(x: Node, *, indices_or_sections: int | tuple[int, ...], axis: int) -> tuple[Node, ...]:
    axis, at = axis_of(axis, x.rank), indices_or_sections
    if isinstance(at, int):
        at = _even_bounds(x.shape[axis], at)
    bounds = zip((None, *at), (*at, None), strict=True)
    return tuple(span(x, axis, start, stop) for start, stop in bounds)


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


def _parts_of(x: Node, axis: int, bounds: Sequence[int]) -> tuple[Node, ...]:
    return tuple(span(x, axis, start, stop) for start, stop in pairwise(bounds))


def _tensor_split(x: Node, *, indices_or_sections: int | tuple[int, ...], axis: int) -> tuple[Node, ...]:
    if not isinstance(indices_or_sections, int):
        return _split(x, indices_or_sections=indices_or_sections, axis=axis)
    axis, count = axis_of(axis, x.rank), indices_or_sections
    if count < 1:
        raise ShapeMismatch(f"an axis is cut into 1 section or more, not {count}")
    size = x.shape[axis]
    # The first ones are longer by one, where it does not go even.
    return _parts_of(x, axis, [at * (size // count) + min(at, size % count) for at in range(count + 1)])


tensor_split = rearranged(
    "tensor_split",
    "An axis cut into sections as equal as can be, or at given indices: one result for each piece.",
    _tensor_split,
    attrs=split.attrs,
    guard=_few_parts,
    samples=(
        Sample(((5,),), {"indices_or_sections": 3}),
        Sample(((2, 6),), {"indices_or_sections": [1, 3], "axis": 1}),
        Sample(((2,),), {"indices_or_sections": 3}),
    ),
    refusals=(
        Refusal(((4,),), {"indices_or_sections": 0}, "shape_mismatch"),
        Refusal(((4,),), {"indices_or_sections": 2, "axis": 1}, "shape_mismatch"),
        Refusal(((0,),), {"indices_or_sections": 1_000_000}, "limit_exceeded"),
    ),
    example="a, b = tensor_split(x, 2); sum(a) * sum(b)",
)


def _few_slices(limits: Limits, x: Node, *, axis: int) -> None:
    count = x.shape[axis_of(axis, x.rank)]
    if count > limits.arity:
        raise LimitExceeded("arity", limits.arity, count, "results of unstack")


def _unstack(x: Node, *, axis: int) -> tuple[Node, ...]:
    axis = axis_of(axis, x.rank)
    if x.shape[axis] == 0:
        raise ShapeMismatch(f"axis {axis} of shape {listed(x.shape)} is empty: there is nothing to unstack")
    every = ((None, None, None),) * axis
    return tuple(ops.slice(x, index=(*every, at)) for at in range(x.shape[axis]))


unstack = rearranged(
    "unstack",
    "The slices along an axis, without it: one result for each.",
    _unstack,
    attrs={"axis": kinds.axis("The axis that is taken apart.", 0)},
    guard=_few_slices,
    aliases=("unbind",),
    torch="unbind",
    samples=(Sample(((3,),)), Sample(((2, 3),), {"axis": -1}), Sample(((1, 0),))),
    refusals=(
        Refusal(((),), {}, "shape_mismatch"),
        Refusal(((0, 2),), {}, "shape_mismatch"),
        Refusal(((2,),), {"axis": 1}, "shape_mismatch"),
        Refusal(((1_000_000,),), {}, "limit_exceeded"),
    ),
    example="a, b = unstack([[1, 2], [3, 4]]); a * b",
)

# Together


def _broadcast_arrays(*arrays: Node) -> tuple[Node, ...]:
    shape = broadcast(*[x.shape for x in arrays])
    return tuple(ops.broadcast_to(x, shape=shape) for x in arrays)


broadcast_arrays = rearranged(
    "broadcast_arrays",
    "Arrays stretched to the shape that they have in common: one result for each.",
    _broadcast_arrays,
    operands=(Operand("arrays", "biufc", promotes=False, variadic=True),),
    aliases=("broadcast_tensors",),
    torch="expand",
    samples=(Sample(((2, 1), (3,))), Sample(((2, 3), (), (1, 3))), Sample(((2,),)), Sample(((0, 1), (3,)))),
    refusals=(Refusal(((2,), (3,)), {}, "shape_mismatch"),),
    example="a, b = broadcast_arrays(x, y); a * b",
)


def _meshgrid(*arrays: Node, indexing: str) -> tuple[Node, ...]:
    for x in arrays:
        if x.rank > 1:
            raise ShapeMismatch(f"a grid is made of vectors, got shape {listed(x.shape)}")
    axes = list(range(len(arrays)))
    if indexing == "xy" and len(axes) > 1:
        axes[:2] = 1, 0
    columns = [
        ops.reshape(x, shape=tuple(x.size if at == axis else 1 for at in range(len(arrays))))
        for axis, x in zip(axes, arrays, strict=True)
    ]
    return ops.broadcast_arrays.several(*columns)


meshgrid = rearranged(
    "meshgrid",
    "The coordinates of a grid: for each vector a tensor in which it runs along its own axis.",
    _meshgrid,
    operands=(Operand("arrays", "biufc", variadic=True),),
    attrs={
        "indexing": kinds.choice(
            "Whether the first two vectors run along the axes 1 and 0 (xy) or 0 and 1 (ij, PyTorch's default).",
            ("xy", "ij"),
            "xy",
        )
    },
    torch="expand",
    samples=(
        Sample(((2,), (3,))),
        Sample(((2,), (3,), (1,)), {"indexing": "ij"}),
        Sample(((2,), (), (0,))),
        Sample(((3,),)),
    ),
    refusals=(Refusal(((2,), (2, 2)), {}, "shape_mismatch"), Refusal(((2,),), {"indexing": "yx"}, "invalid_graph")),
    example="a, b = meshgrid(x, y); a * b",
)
