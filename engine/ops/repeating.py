"""Turning and repeating: the elements of a tensor in reverse, in a circle, more than once, or with more around them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Refusal, Sample, ops
from engine.derivative import filled
from engine.errors import DtypeMismatch, InvalidGraph, ShapeMismatch
from engine.families import (
    batch_shifted,
    example_rows,
    rearranged,
    resized,
    same_shape,
    settle_axes,
    structural,
)
from engine.types import Dtype, Shape, Spec, axis_of, plane_of

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


def _rot90(x: Node, *, k: int, axes: tuple[int, ...]) -> Node:
    first, second = plane_of(axes, x.rank, "a turn is from one axis to another")
    if k % 4 == 2:
        return ops.flip(x, axis=(first, second))
    x = ops.flip(x, axis=second) if k % 4 == 1 else x
    x = ops.swapaxes(x, axis1=first, axis2=second) if k % 4 else x
    return ops.flip(x, axis=second) if k % 4 == 3 else x


rot90 = rearranged(
    "rot90",
    "A quarter turn in the plane of two axes, from the first towards the second, k times.",
    _rot90,
    attrs={
        "k": kinds.integer("How many quarter turns; negative ones go the other way.", 1),
        "axes": kinds.integers("The two axes.", (0, 1)),
    },
    samples=(
        Sample(((2, 3),)),
        Sample(((2, 3),), {"k": 2}),
        Sample(((2, 3, 4),), {"k": -1, "axes": [1, 2]}),
        Sample(((2, 3),), {"k": 4, "axes": [1, 0]}),
        Sample(((0, 3),)),
    ),
    refusals=(
        Refusal(((3,),), {}, "shape_mismatch"),
        Refusal(((2, 3),), {"axes": [0, -2]}, "shape_mismatch"),
        Refusal(((2, 3),), {"axes": [0, 1, 2]}, "shape_mismatch"),
    ),
    example="rot90(x, k=1)",
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
        return ops.reshape(node.op(example_rows(x), shift=shift, axis=1), shape=x.shape)
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
    return (total,) if axis is None else resized(x, axis, total)


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
    return node.op(example_rows(args[0]) if axis is None else args[0], repeats=repeats, axis=(axis or 0) + 1)


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
    aliases=("repeat_interleave",),
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
    return ops.reshape(copies, shape=resized(x.shape, axis, count * x.shape[axis]))


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
    if any(not -(2**31) < width < 2**31 for pair in widths for width in pair):
        raise InvalidGraph("pad_width should hold sizes up to 2147483647")
    if any(width < 0 for pair in widths for width in pair):
        grown = {"pad_width": [[max(width, 0) for width in pair] for pair in widths], "mode": mode}
        if mode == "wrap":
            return ops.pad(_cut(x, widths), **grown)
        return _cut(ops.pad(x, constant_values=constant_values, **grown), widths)
    if mode == "constant":
        return _pad_constant(x, widths, _pairs(constant_values, x.rank, "constant_values"))
    for axis, width in enumerate(widths):
        if any(width):
            x = _pad_mirrored(x, axis, width, mode)
    return x


def _cut(x: Node, widths: list[tuple[int, int]]) -> Node:
    """What is left where widths are negative, as in PyTorch: so many elements fewer. Margins may come from what is cut,
    but what wraps goes on at the cut."""
    index = [(max(-before, 0), size - max(-after, 0)) for size, (before, after) in zip(x.shape, widths, strict=True)]
    if any(start > stop for start, stop in index):
        raise ShapeMismatch(f"pad_width cuts more than there is of {list(x.shape)}")
    return ops.slice(x, index=tuple((*each, None) for each in index))


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
    return filled(x.graph, value, Spec(resized(x.shape, axis, width), x.dtype))


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
            "How many: n, [before, after] for every axis, or a list of such pairs, one for each axis; negative "
            "ones cut."
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
        Sample(((2, 3),), {"pad_width": [[0, -1], [-2, 3]], "constant_values": 1.5}),
        Sample(((2, 3),), {"pad_width": [[-2, 1], [1, -1]], "mode": "edge"}),
        Sample(((4,),), {"pad_width": [-2, 1], "mode": "wrap"}),
    ),
    refusals=(
        Refusal(((3,),), {"pad_width": -2}, "shape_mismatch"),
        Refusal(((3,),), {"pad_width": [0, -(2**40)]}, "invalid_graph"),
        Refusal(((3,),), {"pad_width": [1, 2, 3]}, "invalid_graph"),
        Refusal(((3,),), {"pad_width": [[1, 2], [3, 4]]}, "shape_mismatch"),
        Refusal(((0,),), {"pad_width": 1, "mode": "edge"}, "shape_mismatch"),
        Refusal(((3,),), {"pad_width": 1, "mode": "mean"}, "invalid_graph"),
        Refusal(([1, 2],), {"pad_width": 1, "constant_values": 0.5}, "dtype_mismatch"),
    ),
    example="pad(x, [1, 2])",
)
