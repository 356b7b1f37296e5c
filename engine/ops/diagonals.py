"""Triangles and diagonals of a matrix, or of each in a stack, and what is made of a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Refusal, Sample, ops
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import ANY, batch_same, batch_shifted, composite, listed, rearranged, same_shape, structural
from engine.ops.reducing import DTYPE
from engine.types import Shape, axis_of, drop_axes

# Triangles


def _settled_k(attrs: Attrs, shape: Shape) -> Attrs:
    """`k` no further out than makes a difference."""
    if len(shape) < 2:
        raise ShapeMismatch(f"a triangle needs a matrix, with two axes or more; got shape {listed(shape)}")
    rows, columns = shape[-2:]
    return attrs | {"k": max(-rows, min(attrs["k"], columns))}


triangular = partial(
    structural,
    shape=same_shape,
    attrs={"k": kinds.integer("Which diagonal is the outermost kept: 0 the main one, above it positive.", 0)},
    canonical=_settled_k,
    batch=batch_same,
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

# Diagonals

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
        raise ShapeMismatch(f"that diagonal of shape {listed(shape)} has shape {list(expected)}, got {list(x)}")
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


def _diag_embed(x: Node, *, offset: int, axis1: int, axis2: int) -> Node:
    rank = x.rank + 1
    if not x.rank:
        raise ShapeMismatch("diag_embed takes the elements of diagonals, got a scalar")
    if abs(offset) >= 2**31:
        raise InvalidGraph(f"offset of diag_embed should be a diagonal up to 2147483647, got {offset}")
    axes = [axis_of(axis, rank, what=name) for axis, name in ((axis1, "axis1"), (axis2, "axis2"))]
    if axes[0] == axes[1]:
        raise ShapeMismatch(f"axis1 and axis2 are both axis {axes[0]}; a diagonal runs through two")
    size = x.shape[-1] + abs(offset)
    shape = list(x.shape[:-1])
    for axis in sorted(axes):
        shape.insert(axis, size)
    return ops.undiagonal(x, shape=shape, offset=offset, axis1=axes[0], axis2=axes[1])


diag_embed = rearranged(
    "diag_embed",
    "Square matrices with the vectors along the last axis on a diagonal.",
    _diag_embed,
    attrs=DIAGONAL,
    samples=(
        Sample(((3,),)),
        Sample(((2, 3),), {"offset": 1}),
        Sample(((2, 3),), {"offset": -1, "axis1": 0, "axis2": 1}),
        Sample(((2, 3),), {"axis1": 2, "axis2": 0}),
        Sample(((0,),)),
    ),
    refusals=(
        Refusal(((),), {}, "shape_mismatch"),
        Refusal(((3,),), {"axis1": 1}, "shape_mismatch"),
        Refusal(((3,),), {"axis2": 2}, "shape_mismatch"),
        Refusal(((3,),), {"offset": 2**40}, "invalid_graph"),
    ),
    example="diag_embed(x)",
)


def _diag(x: Node, *, k: int) -> Node:
    if x.rank == 2:
        return ops.diagonal(x, offset=k)
    if x.rank != 1:
        raise ShapeMismatch(f"diag takes a vector or a matrix, got shape {listed(x.shape)}; see diagonal")
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

trace = composite(
    "trace",
    "Sum of a diagonal of the last two axes.",
    lambda x, *, offset, dtype: ops.sum(ops.diagonal(x, offset=offset), axis=-1, dtype=dtype),
    operands=ANY,
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
