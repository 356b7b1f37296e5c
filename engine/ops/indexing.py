"""Indexing: parts of a tensor by position. The graph knows them (slice), or a tensor holds them (take).

Each has an adjoint that puts the parts back into zeros: unslice, and untake, which sums what has one index.
Negative indices count from the end; an index out of range is an error.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Flat, Linear
from engine.errors import InvalidGraph, InvalidTensor, ShapeMismatch
from engine.families import ANY, batch_aligned, composite, elements, free, int64, like_mask, same_shape, structural
from engine.types import Shape, axis_of

INDICES = Operand("indices", "iu", promotes=False)

# Positions that the graph knows

INDEX = kinds.index(
    "What to keep of each axis: an integer drops the axis, [start, stop, step] cuts it, null is a new axis, "
    '"..." stands for the axes not named.'
)


def _settled_index(index: Sequence[Any], shape: Shape) -> tuple[Any, ...]:
    """An item for every axis, explicit and in one form only. Raises InvalidGraph, ShapeMismatch."""
    named = sum(item is not None and item != "..." for item in index)
    if named > len(shape):
        raise ShapeMismatch(f"an index of {named} axes is too long for a tensor with {len(shape)}")
    if sum(item == "..." for item in index) > 1:
        raise InvalidGraph('an index should hold "..." once at most')
    at = index.index("...") if "..." in index else len(index)
    rest = ((None, None, None),) * (len(shape) - named)
    axes = enumerate(shape)
    return tuple(
        None if item is None else _settled_item(item, *next(axes)) for item in (*index[:at], *rest, *index[at + 1 :])
    )


def _settled_item(item: Any, axis: int, size: int) -> Any:
    if isinstance(item, int):
        if not -size <= item < size:
            raise ShapeMismatch(f"index {item} is out of range for axis {axis} of size {size}")
        return item % size
    kept = range(size)[builtins.slice(*item)]
    if len(kept) < 2:
        return (kept.start, kept.start + 1, 1) if kept else (0, 0, 1)
    past = kept[-1] + (1 if kept.step > 0 else -1)
    return (kept.start, past if past >= 0 else None, kept.step)


def _indexed_shape(x: Shape, *, index: tuple[Any, ...]) -> Shape:
    axes = iter(x)
    sizes = []
    for item in index:
        if item is None:
            sizes.append(1)
        elif isinstance(item, int):
            next(axes)
        else:
            sizes.append(len(range(next(axes))[builtins.slice(*item)]))
    return tuple(sizes)


def _basic(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index as NumPy takes it."""
    return tuple(builtins.slice(*item) if isinstance(item, tuple) else item for item in index)


def _part(index: tuple[Any, ...]) -> Callable[[Any], Any]:
    return operator.itemgetter(_basic(index))


def _keeps_all(x: Shape, index: tuple[Any, ...]) -> bool:
    return index == tuple((0, size, 1) for size in x)


slice = structural(
    "slice",
    "A part by position: NumPy's basic indexing, x[1:, ::2, -1] in expressions.",
    lambda x, *, index: _part(index)(x),
    _indexed_shape,
    lambda g, x, *, index: ops.unslice(g, shape=x.shape, index=index),
    attrs={"index": INDEX},
    settled=_part,
    canonical=lambda attrs, x: attrs | {"index": _settled_index(attrs["index"], x)},
    same=lambda x, *, index: x if _keeps_all(x.shape, index) else None,
    batch=lambda node, args, batched: node.op(args[0], index=((None, None, None), *node.attrs["index"])),
    family="indexing",
    samples=(
        Sample(((4,),), {"index": [[1, None]]}),
        Sample(((4,),), {"index": [-1]}),
        Sample(((3, 4),), {"index": [[None, None, -1], [None, None, -2]]}),
        Sample(((3, 4),), {"index": [None, "...", [0, 9, 2], None]}),
        Sample(((2, 3, 4),), {"index": [0, "...", 1]}),
        Sample(((2, 3),), {"index": [[1, 1]]}),
        Sample(((2, 3),), {"index": []}),
        Sample(((0,),), {"index": [[None, None, -1]]}),
    ),
    refusals=(
        Refusal(((3,),), {"index": [3]}, "shape_mismatch"),
        Refusal(((3,),), {"index": [0, 0]}, "shape_mismatch"),
        Refusal(((3,),), {"index": ["...", "..."]}, "invalid_graph"),
        Refusal(((3,),), {"index": [[0, 2, 0]]}, "invalid_graph"),
        Refusal(((3,),), {"index": [0.5]}, "invalid_graph"),
    ),
    example="x[1:, ::2]",
)


def _unsliced_shape(x: Shape, *, shape: Shape, index: tuple[Any, ...]) -> Shape:
    expected = _indexed_shape(shape, index=index)
    if x != expected:
        raise ShapeMismatch(f"that part of shape {list(shape)} has shape {list(expected)}, got {list(x)}")
    return shape


def _place(shape: Shape, index: tuple[Any, ...]) -> Callable[[Any], Any]:
    at = _basic(index)

    def unslice(x: Any) -> Any:
        out = np.zeros(shape, x.dtype)
        out[at] = x
        return out

    return unslice


def _batch_unslice(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    shape = (args[0].shape[0], *node.attrs["shape"])
    return node.op(args[0], shape=shape, index=((None, None, None), *node.attrs["index"]))


unslice = structural(
    "unslice",
    "Zeros of a shape, with x at the index: the adjoint of slice.",
    lambda x, **attrs: _place(**attrs)(x),
    _unsliced_shape,
    lambda g, x, *, shape, index: ops.slice(g, index=index),
    attrs={"shape": kinds.shape(), "index": INDEX},
    settled=_place,
    owns=True,
    canonical=lambda attrs, x: attrs | {"index": _settled_index(attrs["index"], attrs["shape"])},
    same=lambda x, *, shape, index: x if x.shape == shape and _keeps_all(shape, index) else None,
    batch=_batch_unslice,
    view=False,
    torch="slice_backward",
    family="indexing",
    samples=(
        Sample(((2,),), {"shape": [4], "index": [[1, 3]]}),
        Sample(((),), {"shape": [4], "index": [-1]}),
        Sample(((1, 3, 2),), {"shape": [3, 4], "index": [None, [None, None, -1], [None, None, -2]]}),
        Sample(((0,),), {"shape": [2], "index": [[1, 1]]}),
    ),
    refusals=(
        Refusal(((3,),), {"shape": [4], "index": [[1, 3]]}, "shape_mismatch"),
        Refusal(((),), {"shape": [4], "index": [4]}, "shape_mismatch"),
    ),
    example="unslice(x, shape=[5], index=[[1, 4]])",
)

# Positions that a tensor holds


def checked(indices: Any, size: int) -> Any:
    """Indices as non-negative int64. Raises InvalidTensor where one is out of range."""
    top = np.iinfo(np.int64).max
    at = np.asarray(np.minimum(indices, top) if indices.dtype == np.uint64 else indices).astype(np.int64)
    if at.size and (at.min() < -size or at.max() >= size):
        wrong = at[(at < -size) | (at >= size)].flat[0]
        raise InvalidTensor(f"index {wrong} is out of range for an axis of size {size}")
    at[at < 0] += size
    return at


checked_index = define(
    "checked_index",
    "Indices into an axis as int64, from 0; negative ones count from its end. Out of range is an error.",
    operands=(INDICES,),
    attrs={"size": kinds.integer("Size of the axis that is indexed.")},
    shape=same_shape,
    returns=int64,
    kernel=lambda indices, *, size: checked(indices, size),
    derivative=Flat(),
    batch=batch_aligned,
    scratch=like_mask,
    family="indexing",
    samples=(Sample(([0, -1, 2],), {"size": 3}), Sample(([[1, 0]],), {"size": 2})),
    refusals=(
        Refusal(([0, 3],), {"size": 3}, "invalid_tensor"),
        Refusal(((2,),), {"size": 3}, "dtype_mismatch"),
    ),
)


def _by_row(indices: Node, size: int) -> Node:
    """Batched indices into rows of `size` as indices into these rows laid end to end.

    They are checked against their own row first, lest one out of range should reach into the next.
    """
    count = indices.shape[0]
    starts = ops.arange.on(indices.graph, start=count) * size
    return ops.checked_index(indices, size=size) + ops.reshape(starts, shape=(count, *(1,) * (indices.rank - 1)))


def _settled_take(attrs: Attrs, x: Shape, indices: Shape) -> Attrs:
    if attrs["axis"] is None and len(x) != 1:
        raise InvalidGraph(f"take needs an axis where x has not one axis but {len(x)}")
    return attrs | {"axis": axis_of(attrs["axis"] or 0, len(x))}


def _taken_shape(x: Shape, indices: Shape, *, axis: int) -> Shape:
    return (*x[:axis], *indices, *x[axis + 1 :])


def _take(x: Any, indices: Any, *, axis: int) -> Any:
    try:
        return np.take(x, indices, axis=axis)
    except (IndexError, TypeError):  # out of range; or uint64, which NumPy does not take
        return np.take(x, checked(indices, x.shape[axis]), axis=axis)


def _batch_take(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    (x, indices), axis, size = args, node.attrs["axis"], node.inputs[0].shape[node.attrs["axis"]]
    if not batched[1]:
        return node.op(x, indices, axis=axis + 1)
    if not batched[0]:
        return ops.moveaxis(node.op(x, indices, axis=axis), source=axis, destination=0)
    rows = ops.moveaxis(x, source=axis + 1, destination=1)
    table = ops.reshape(rows, shape=(rows.shape[0] * size, *rows.shape[2:]))
    own = range(1, indices.rank)
    return ops.moveaxis(
        node.op(table, _by_row(indices, size), axis=0), source=[*own], destination=[at + axis for at in own]
    )


take = define(
    "take",
    "Elements along an axis, whose place the axes of the indices take. An index out of range is an error.",
    operands=(*ANY, INDICES),
    attrs={"axis": kinds.axis("The axis; may be absent where x has only one.", None)},
    shape=_taken_shape,
    kernel=_take,
    derivative=Linear(
        lambda g, x, indices, *, axis: (ops.untake(g, indices, size=x.shape[axis], axis=axis), None),
        fixed=(1,),
    ),
    canonical=_settled_take,
    batch=_batch_take,
    flops=free,
    torch="index_select",
    family="indexing",
    samples=(
        Sample(((3,), [2, 0, 0, -1])),
        Sample(((2, 3), [2, 0]), {"axis": 1}),
        Sample(((2, 3, 2), [[0, 1], [1, 2]]), {"axis": -2}),
        Sample(((2, 3), 1), {"axis": 0}),
        Sample(((2, 0), [1, 1, 0]), {"axis": 0}),
    ),
    refusals=(
        Refusal(((2, 3), [0]), {}, "invalid_graph"),
        Refusal(((2, 3), [0]), {"axis": 2}, "shape_mismatch"),
        Refusal(((), [0]), {"axis": 0}, "shape_mismatch"),
        Refusal(((3,), [0.5]), {}, "dtype_mismatch"),
        Refusal(((3,), [3]), {}, "invalid_tensor"),
        Refusal(((3,), [-4]), {}, "invalid_tensor"),
    ),
    example="take(x, [0, 2], axis=1)",
)


def _settled_untake(attrs: Attrs, g: Shape, indices: Shape) -> Attrs:
    rank = len(g) - len(indices) + 1
    if rank < 1:
        raise ShapeMismatch(f"indices of shape {list(indices)} have more axes than the values, {list(g)}")
    return attrs | {"axis": axis_of(attrs["axis"], rank)}


def _untaken_shape(g: Shape, indices: Shape, *, size: int, axis: int) -> Shape:
    end = axis + len(indices)
    if g[axis:end] != indices:
        raise ShapeMismatch(f"from axis {axis}, values should have the indices' shape {list(indices)}: {list(g)}")
    if size < 0:
        raise InvalidGraph(f"size should be 0 or more, got {size}")
    return (*g[:axis], size, *g[end:])


def _untake(x: Any, indices: Any, *, size: int, axis: int) -> Any:
    x, at = np.asarray(x), checked(np.asarray(indices), size).reshape(-1)
    before, after = x.shape[:axis], x.shape[axis + indices.ndim :]
    rows = np.moveaxis(x.reshape(*before, at.size, *after), axis, 0)
    out = _sums_by_index(rows.reshape(at.size, math.prod(before + after)), at, size)
    return np.moveaxis(out.reshape(size, *before, *after), 0, axis)


def _sums_by_index(rows: Any, at: Any, size: int) -> Any:
    """Row i of the result: the sum of all `rows` whose index is i."""
    count, width = rows.shape
    if width > 1 and rows.size > 1000:
        # From some thousand elements on, a product with sparse ones is five times faster than add.at.
        ones = sparse.csc_array((np.ones(count, rows.dtype), at, np.arange(count + 1)), shape=(size, count))
        return ones @ rows
    out = np.zeros((size, width), rows.dtype)
    if width == 1:
        np.add.at(out[:, 0], at, rows[:, 0])
    else:
        np.add.at(out, at, rows)
    return out


def _sums_bytes(node: Node) -> int:
    """Indices that count from the front; of rows, the matrix of ones, too."""
    x, indices = node.inputs
    if x.size == indices.size:
        return indices.nbytes + 3 * indices.size
    return 3 * indices.nbytes + (x.nbytes if node.attrs["axis"] else 0)


def _batch_untake(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    (x, indices), size, axis = args, node.attrs["size"], node.attrs["axis"]
    if not batched[1]:
        return node.op(x, indices, size=size, axis=axis + 1)
    count, own = indices.shape[0], range(1, indices.rank)
    x = x if batched[0] else ops.broadcast_to(x, shape=(count, *x.shape))
    x = ops.moveaxis(x, source=[at + axis for at in own], destination=[*own])
    table = node.op(x, _by_row(indices, size), size=count * size, axis=0)
    rows = ops.reshape(table, shape=(count, size, *table.shape[1:]))
    return ops.moveaxis(rows, source=1, destination=axis + 1)


untake = define(
    "untake",
    "Zeros, with x added at indices along an axis; what has the same index is summed. The adjoint of take.",
    operands=(Operand("x", "iufc"), INDICES),
    attrs={
        "size": kinds.integer("Size of the axis in the result."),
        "axis": kinds.axis("The axis of the result that is indexed; in x the axes of the indices stand there.", 0),
    },
    shape=_untaken_shape,
    kernel=_untake,
    derivative=Linear(lambda g, x, indices, *, size, axis: (ops.take(g, indices, axis=axis), None), fixed=(1,)),
    canonical=_settled_untake,
    batch=_batch_untake,
    flops=elements,
    scratch=_sums_bytes,
    pace=0.4,
    torch="index_add",
    family="indexing",
    samples=(
        Sample(((4,), [2, 0, 0, -1]), {"size": 3}),
        Sample(((2, 2), [2, 0]), {"size": 3, "axis": 1}),
        Sample(((2, 2, 2, 2), [[0, 1], [1, 2]]), {"size": 3, "axis": -2}),
        Sample(((3,), 1), {"size": 2}),
        Sample(((3, 0), [1, 1, 0]), {"size": 2}),
    ),
    refusals=(
        Refusal(((3,), [0, 1]), {"size": 3}, "shape_mismatch"),
        Refusal(((2,), [[0, 1]]), {"size": 3}, "shape_mismatch"),
        Refusal(((2,), [0, 1]), {"size": -1}, "invalid_graph"),
        Refusal(((2,), [0, 2]), {"size": 2}, "invalid_tensor"),
    ),
    example="untake(x, [2, 0, 0], size=3)",
)


def _one_hot(indices: Node, *, num_classes: int, dtype: str, axis: int) -> Node:
    if num_classes < 0:
        raise InvalidGraph(f"num_classes should be 0 or more, got {num_classes}")
    classes = ops.arange.on(indices.graph, start=num_classes)
    at = ops.expand_dims(ops.checked_index(indices, size=num_classes), axis=-1)
    hot = ops.astype(ops.equal(at, classes), dtype=dtype)
    return ops.moveaxis(hot, source=-1, destination=axis)


one_hot = composite(
    "one_hot",
    "For each index a vector of zeros with a one at the index. Out of range is an error.",
    _one_hot,
    operands=(INDICES,),
    attrs={
        "num_classes": kinds.integer("Length of the vectors."),
        "dtype": kinds.dtype(default="float64"),
        "axis": kinds.axis("Which axis of the result the vectors lie along.", -1),
    },
    family="indexing",
    samples=(Sample(([0, 2, 1],), {"num_classes": 3}), Sample(([[1, 0]],), {"num_classes": 2, "axis": 0})),
    refusals=(
        Refusal(((3,),), {"num_classes": 3}, "dtype_mismatch"),
        Refusal(([0],), {"num_classes": -1}, "invalid_graph"),
        Refusal(([3],), {"num_classes": 3}, "invalid_tensor"),
    ),
    example="one_hot([0, 2, 1], num_classes=3)",
)
