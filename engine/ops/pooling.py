"""Pooling: one number for every window of a plane, its sum, its mean or its largest element.

The primitives fold windows over the last axes, one axis after the other: a window of k × k costs 2k operations an
element and not k². `window_sum` and `window_spread` are each other's adjoints. The largest element is where
`window_argmax` says, the first one at a tie, so the derivative of `window_max` is a gather, whose own derivatives are
exact at every order.

An axis is padded by a pair, before and after: rounding up the number of windows (ceil_mode) is more padding after.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Op, Operand, Refusal, Sample, cast, define, ops
from engine.derivative import Custom, Flat, Linear, filled
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import REAL, batch_same, composite, count_along, int64
from engine.ops.convolving import AXES_NAMED, Pairs, pairs_of, per_axis, places_of
from engine.types import Shape, Spec

# Windows


class _Fold(NamedTuple):
    """Windows along one axis."""

    axis: int
    """Counted from the end."""
    size: int
    taps: int
    stride: int
    before: int
    after: int
    dilation: int
    places: int

    def taken(self, tap: int) -> tuple[Any, ...]:
        """The index of one tap of all windows."""
        start = tap * self.dilation
        return self._along(slice(start, start + (self.places - 1) * self.stride + 1, self.stride))

    def window(self, place: int) -> tuple[Any, ...]:
        """The index of all taps of one window."""
        start = place * self.stride
        return self._along(slice(start, start + (self.taps - 1) * self.dilation + 1, self.dilation))

    def inner(self) -> tuple[Any, ...]:
        """The index of what is not padding."""
        return self._along(slice(self.before, self.before + self.size))

    def _along(self, part: slice) -> tuple[Any, ...]:
        return (..., part, *(slice(None),) * (-self.axis - 1))

    @property
    def room(self) -> int:
        return self.before + self.size + self.after


def _folds(
    size: Shape, *, kernel_size: Shape, stride: Shape, padding: Pairs, dilation: Shape | None = None
) -> list[_Fold]:
    """The folds of the last axes, of these sizes. Raises ShapeMismatch."""
    dilation = dilation or (1,) * len(size)
    places = places_of(size, kernel_size, stride, padding, dilation)
    axes = zip(range(-len(size), 0), size, kernel_size, stride, padding, dilation, places, strict=True)
    return [_Fold(axis, n, k, step, before, after, gap, m) for axis, n, k, step, (before, after), gap, m in axes]


def _folds_of(shape: Shape, attrs: Attrs) -> list[_Fold]:
    return _folds(shape[len(shape) - len(attrs["kernel_size"]) :], **attrs)


def _settled(attrs: Attrs, shape: Shape) -> Attrs:
    """Everything with one entry for each axis that is folded."""
    rank = len(attrs["kernel_size"])
    if not 1 <= rank <= len(shape):
        raise ShapeMismatch(f"windows over {rank} axes of a tensor of shape {list(shape)}")
    names = [name for name in ("kernel_size", "stride", "dilation") if name in attrs]
    return (
        attrs
        | {name: per_axis(attrs[name], rank, name) for name in names}
        | {"padding": pairs_of(attrs["padding"], rank)}
    )


def _folded_shape(shape: Shape, **attrs: Any) -> Shape:
    folds = _folds_of(shape, attrs)
    return (*shape[: len(shape) - len(folds)], *(fold.places for fold in folds))


def _room(shape: Shape, attrs: Attrs) -> int:
    """Elements with padding."""
    folds = _folds_of(shape, attrs)
    return math.prod(shape[: len(shape) - len(folds)]) * math.prod(fold.room for fold in folds)


def _between(shape: Shape, attrs: Attrs) -> int:
    """Elements at most of what is folded so far, with what comes of it next, beside the result."""
    sizes = _sizes(shape, attrs, _folds_of(shape, attrs))
    return max(a + b for a, b in pairwise(sizes)) - sizes[-1]


def _between_spread(shape: Shape, attrs: Attrs) -> int:
    """The same of folding back, from what is folded to the plane."""
    _, *sizes = _sizes(shape, attrs, _folds_of(shape, attrs))
    room = _room(shape, attrs)
    return max(a + b for a, b in pairwise([room, *sizes[:-1], 0])) - math.prod(shape)


def _sizes(shape: Shape, attrs: Attrs, folds: Sequence[_Fold]) -> list[int]:
    """Elements of what is allocated as folds are done one after the other: first of the padded operand, if it is."""
    elements = _room(shape, attrs)
    sizes = [elements if any(fold.before or fold.after for fold in folds) else 0]
    for fold in folds:
        elements = elements // max(1, fold.room) * fold.places
        sizes.append(elements)
    return sizes


def _argmax_bytes(node: Node) -> int:
    """Values and places so far, two masks, and the values and places that are chosen next."""
    (x,), attrs = node.inputs, node.attrs
    folds = _folds_of(x.shape, attrs)[::-1]
    held, *sizes = _sizes(x.shape, attrs, folds)
    most, held = 0, held * x.dtype.itemsize
    for fold, size in zip(folds, sizes, strict=True):
        pair = size * (8 + x.dtype.itemsize)
        most = max(most, held + pair * min(fold.taps - 1, 2) + 2 * size)
        held = pair
    return max(0, most - node.nbytes)


def _cost(shape: Shape, attrs: Attrs) -> int:
    """Operations of folding axis by axis."""
    total, elements = 0, _room(shape, attrs)
    for fold in _folds_of(shape, attrs):
        elements = elements // max(1, fold.room) * fold.places
        total += elements * fold.taps
    return total


# Kernels


def _padded(x: Any, folds: Sequence[_Fold], value: Any) -> Any:
    if not any(fold.before or fold.after for fold in folds):
        return x
    lead = ((0, 0),) * (x.ndim - len(folds))
    return np.pad(x, (*lead, *((fold.before, fold.after) for fold in folds)), constant_values=value)


def _along(x: Any, fold: _Fold, ufunc: np.ufunc) -> Any:
    """`x` folded along one axis: tap by tap, or window by window where these are fewer."""
    if fold.taps > fold.places:
        windows = (x[fold.window(place)] for place in range(fold.places))
        return np.stack([ufunc.reduce(each, axis=fold.axis, dtype=x.dtype) for each in windows], axis=fold.axis)
    out = x[fold.taken(0)].copy()
    for tap in range(1, fold.taps):
        ufunc(out, x[fold.taken(tap)], out=out)
    return out


def _window_sum(x: Any, **attrs: Any) -> Any:
    folds = _folds_of(x.shape, attrs)
    out = _padded(x, folds, 0)
    for fold in folds:
        out = _along(out, fold, np.add)
    return out


def _window_spread(y: Any, *, size: Shape, **attrs: Any) -> Any:
    folds = _folds(size, **attrs)
    for fold in reversed(folds):
        y = _spread_along(y, fold)
    return y


def _spread_along(y: Any, fold: _Fold) -> Any:
    out = np.zeros((*y.shape[: fold.axis], fold.room, *y.shape[y.ndim + fold.axis + 1 :]), y.dtype)
    if fold.taps <= fold.places:
        for tap in range(fold.taps):
            out[fold.taken(tap)] += y
    else:
        for place, part in enumerate(np.split(y, fold.places, axis=fold.axis)):
            out[fold.window(place)] += part
    return out[fold.inner()]


def _lowest(dtype: Any) -> Any:
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def _window_max(x: Any, **attrs: Any) -> Any:
    folds = _folds_of(x.shape, attrs)
    out = _padded(x, folds, _lowest(x.dtype))
    for fold in folds:
        out = _along(out, fold, np.maximum)
    return out


def _window_argmax(x: Any, **attrs: Any) -> Any:
    """The last axis is folded first: among equals the first row wins, and in it the first column."""
    folds = _folds_of(x.shape, attrs)
    best, at = _padded(x, folds, _lowest(x.dtype)), _places(folds)
    for fold in reversed(folds):
        best, at = _first_largest(best, at, fold)
    return np.array(at)


def _places(folds: Sequence[_Fold]) -> Any:
    """Where in the flattened plane each element of the padded one stands; padding is counted as its neighbour."""
    at = np.zeros((), np.int64)
    for fold in folds:
        own = np.clip(np.arange(-fold.before, fold.size + fold.after), 0, fold.size - 1)
        at = at[..., None] * fold.size + own
    return at


def _first_largest(x: Any, at: Any, fold: _Fold) -> tuple[Any, Any]:
    """The largest of each window along one axis, and what `at` holds there. NaN is the largest of all."""
    at = np.broadcast_to(at, x.shape)
    if fold.taps > fold.places:
        return _largest_by_window(x, at, fold)
    best, found = x[fold.taken(0)], at[fold.taken(0)]
    for tap in range(1, fold.taps):
        other = x[fold.taken(tap)]
        is_larger = ~(other <= best) & (best == best)
        best, found = np.where(is_larger, other, best), np.where(is_larger, at[fold.taken(tap)], found)
    return best, found


def _largest_by_window(x: Any, at: Any, fold: _Fold) -> tuple[Any, Any]:
    found = []
    for place in range(fold.places):
        part, index = x[fold.window(place)], at[fold.window(place)]
        first = np.argmax(part, axis=fold.axis, keepdims=True)
        found.append([np.take_along_axis(each, first, axis=fold.axis) for each in (part, index)])
    best, places = (np.concatenate(column, axis=fold.axis) for column in zip(*found, strict=True))
    return best, places


# Primitives

KERNEL = kinds.shape("Sizes of a window: one number, or one for each axis.")
WINDOW: Attrs = {
    "kernel_size": kinds.shape("Sizes of a window along the last axes."),
    "stride": kinds.shape("Steps between windows: one number, or one for each axis.", (1,)),
    "padding": kinds.nested_integers("Places around the plane: a number, one for each axis, or pairs.", 0),
}
DILATED = WINDOW | {"dilation": kinds.shape("Steps between taps: one number, or one for each axis.", (1,))}
NUMBERS = (Operand("x", "iufc"),)

APART = ((-50.0, 50.0),)
"""Where samples are drawn far enough from each other for the largest to stay the largest."""
FOLDED = (
    Sample(((5,),), {"kernel_size": 2}),
    Sample(((2, 4, 5),), {"kernel_size": [2, 3], "stride": [2, 1], "padding": [[1, 0], [0, 2]]}),
    Sample(((2, 3, 3),), {"kernel_size": [3, 3]}),
    Sample(((3, 4),), {"kernel_size": [1], "stride": 2}),
    Sample(((0, 4),), {"kernel_size": 2}),
)
BAD_WINDOWS = (
    Refusal(((3,),), {"kernel_size": 4}, "shape_mismatch"),
    Refusal(((3,),), {"kernel_size": [2, 2]}, "shape_mismatch"),
    Refusal(((3,),), {"kernel_size": 0}, "invalid_graph"),
    Refusal(((3,),), {"kernel_size": 2, "stride": 0}, "invalid_graph"),
    Refusal(((3,),), {"kernel_size": 2, "padding": [[-1, 0]]}, "invalid_graph"),
    Refusal(((3,),), {"kernel_size": 2**30, "stride": 2**30, "padding": 2**30}, "limit_exceeded"),
)


def _windowed(name: str, doc: str, kernel: Callable[..., Any], **record: Any) -> Op:
    """One operand, folded over windows of its last axes."""
    defaults: dict[str, Any] = {
        "operands": NUMBERS,
        "attrs": WINDOW,
        "shape": _folded_shape,
        "canonical": _settled,
        "batch": batch_same,
        "flops": lambda out, x, **attrs: _cost(x, attrs),
        "scratch": lambda node: node.dtype.itemsize * _between(node.inputs[0].shape, node.attrs),
        "family": "neural",
        "samples": FOLDED,
        "refusals": BAD_WINDOWS,
        "example": f"{name}(x, kernel_size=[2, 2], stride=2)",
    }
    return define(name, doc, kernel=kernel, **defaults | record)


def _plane(node: Node) -> Shape:
    """The last axes of the operand, over which windows lie."""
    x = node.inputs[0]
    return x.shape[x.rank - len(node.attrs["kernel_size"]) :]


window_sum = _windowed(
    "window_sum",
    "The sum of every window over the last axes.",
    _window_sum,
    derivative=Linear(
        lambda g, x, **attrs: ops.window_spread(g, size=x.shape[x.rank - len(attrs["kernel_size"]) :], **attrs)
    ),
    torch="avg_pool2D",
)


def _spread_shape(y: Shape, *, size: Shape, **attrs: Any) -> Shape:
    rank, places = len(size), tuple(fold.places for fold in _folds(size, **attrs))
    if y[len(y) - rank :] != places:
        raise ShapeMismatch(f"windows of a plane {list(size)} are {list(places)} in number, got {list(y)}")
    return (*y[: len(y) - rank], *size)


def _settled_spread(attrs: Attrs, shape: Shape) -> Attrs:
    settled = _settled(attrs, shape)
    return settled | {"size": per_axis(attrs["size"], len(settled["kernel_size"]), "size", 0)}


def _spread_of(out: Shape, attrs: Attrs) -> tuple[Shape, Attrs]:
    return out, {name: value for name, value in attrs.items() if name != "size"}


window_spread = _windowed(
    "window_spread",
    "Every element added to all of its window, on a plane of the given size: the adjoint of window_sum.",
    _window_spread,
    attrs={"size": kinds.shape("Sizes of the last axes of the result."), **WINDOW},
    shape=_spread_shape,
    canonical=_settled_spread,
    derivative=Linear(lambda g, y, *, size, **attrs: ops.window_sum(g, **attrs)),
    flops=lambda out, y, **attrs: _cost(*_spread_of(out, attrs)),
    scratch=lambda node: node.dtype.itemsize * _between_spread(*_spread_of(node.shape, node.attrs)),
    pace=0.3,
    torch="avg_pool2D_backward",
    samples=(
        Sample(((4,),), {"size": 5, "kernel_size": 2}),
        Sample(((2, 2, 5),), {"size": [4, 5], **FOLDED[1].attrs}),
        Sample(((2, 1, 1),), {"size": [3, 3], "kernel_size": [3, 3]}),
        Sample(((0, 3),), {"size": 4, "kernel_size": 2}),
    ),
    refusals=(
        Refusal(((3,),), {"size": 5, "kernel_size": 2}, "shape_mismatch"),
        Refusal(((3,),), {"size": [4, 4], "kernel_size": 2}, "invalid_graph"),
    ),
    example="window_spread(y, size=[4, 4], kernel_size=[2, 2], stride=2)",
)

window_argmax = _windowed(
    "window_argmax",
    "Where the first largest element of every window stands, as an index of the flattened plane of the last axes.",
    _window_argmax,
    operands=REAL,
    attrs=DILATED,
    returns=int64,
    derivative=Flat(),
    scratch=_argmax_bytes,
    pace=0.15,
    samples=(*FOLDED, Sample(((2, 7),), {"kernel_size": 3, "dilation": 2, "padding": 1})),
)


def _chosen(node: Node) -> Node:
    """The largest elements of the windows of all planes, as indices of the flattened operand."""
    (x,), plane = node.inputs, math.prod(_plane(node))
    at = ops.window_argmax(x, **node.attrs)
    count = x.size // plane if plane else 0
    starts = ops.arange.on(x.graph, start=count) * plane
    return ops.reshape(at, shape=(count, at.size // max(1, count))) + ops.reshape(starts, shape=(count, 1))


def _max_forward(node: Node, t: Node) -> Node:
    picked = ops.take(ops.reshape(t, shape=(t.size,)), _chosen(node), axis=0)
    return ops.reshape(picked, shape=node.shape)


def _max_reverse(node: Node, g: Node) -> Node:
    (x,), at = node.inputs, _chosen(node)
    summed = ops.untake(ops.reshape(g, shape=at.shape), at, size=x.size)
    return ops.reshape(summed, shape=x.shape)


window_max = _windowed(
    "window_max",
    "The largest element of every window over the last axes; the first of equals has the slope.",
    _window_max,
    operands=REAL,
    attrs=DILATED,
    derivative=Custom(_max_forward, _max_reverse),
    domain=APART,
    torch="max_pool2D_with_indices",
    samples=(*FOLDED, Sample(((2, 7),), {"kernel_size": 3, "dilation": 2, "padding": 1})),
)


# As they are called


def _pairs(
    size: Shape, kernel: Shape, stride: Shape, padding: tuple[int, ...], dilation: Shape, ceil_mode: bool
) -> Pairs:
    """Padding as pairs. Rounding up, the last window must still begin before the end or its padding does.

    Raises InvalidGraph for padding of more than half a window, of which some could hold nothing else.
    """
    reaches = [gap * (k - 1) + 1 for k, gap in zip(kernel, dilation, strict=True)]
    if any(2 * pad > reach for pad, reach in zip(padding, reaches, strict=True)):
        raise InvalidGraph(f"padding should be at most half of the window, which spans {reaches}, got {list(padding)}")
    if not ceil_mode:
        return tuple((pad, pad) for pad in padding)
    axes = zip(size, reaches, stride, padding, strict=True)
    return tuple((pad, _room_after(n, reach, step, pad)) for n, reach, step, pad in axes)


def _room_after(n: int, reach: int, step: int, pad: int) -> int:
    """The padding at the end of an axis for as many windows as begin before it."""
    last = max(0, -(-(n + 2 * pad - reach) // step))
    if last * step >= n + pad:
        last -= 1
    return max(0, last * step + reach - n - pad)


class _Windows(NamedTuple):
    """The attributes of a pool, settled; `rank` is that of its planes."""

    kernel_size: Shape
    stride: Shape
    padding: tuple[int, ...]
    dilation: Shape

    def pairs(self, x: Node, ceil_mode: bool) -> Pairs:
        plane = x.shape[x.rank - len(self.kernel_size) :]
        if 0 in plane:
            raise ShapeMismatch(f"a plane of shape {list(plane)} has nothing to pool")
        return _pairs(plane, *self, ceil_mode)


def _windows(
    name: str,
    rank: int,
    x: Node,
    kernel_size: Shape,
    stride: Shape | None,
    padding: Shape = (0,),
    dilation: Shape = (1,),
) -> _Windows:
    if x.rank not in (rank + 1, rank + 2):
        raise ShapeMismatch(f"{name} takes x with {rank + 2} axes, or {rank + 1} for one image, got {list(x.shape)}")
    kernel = per_axis(kernel_size, rank, "kernel_size")
    return _Windows(
        kernel,
        per_axis(stride, rank, "stride") if stride else kernel,
        per_axis(padding, rank, "padding", 0),
        per_axis(dilation, rank, "dilation"),
    )


def _max_pool(rank: int) -> Callable[..., Any]:
    def expand(x: Node, *, ceil_mode: bool, return_indices: bool, **sizes: Any) -> Node | tuple[Node, Node]:
        own = _windows(f"max_pool{rank}d", rank, x, **sizes)
        attrs = own._asdict() | {"padding": own.pairs(x, ceil_mode)}
        values = ops.window_max(x, **attrs)
        return (values, ops.window_argmax(x, **attrs)) if return_indices else values

    return expand


def _avg_pool(rank: int) -> Callable[..., Node]:
    def expand(
        x: Node, *, ceil_mode: bool, count_include_pad: bool, divisor_override: int | None = None, **sizes: Any
    ) -> Node:
        if divisor_override == 0:
            raise InvalidGraph("divisor_override should not be 0")
        own = _windows(f"avg_pool{rank}d", rank, x, **sizes)
        pairs = own.pairs(x, ceil_mode)
        total = ops.window_sum(x, kernel_size=own.kernel_size, stride=own.stride, padding=pairs)
        return total / (divisor_override or _counts(x, own, pairs, count_include_pad))

    return expand


def _counts(x: Node, own: _Windows, pairs: Pairs, include_padding: bool) -> Node | float:
    """By how much the sum of a window is divided: what ceil_mode adds at the end never counts."""
    counted = own.padding if include_padding else (0,) * len(own.padding)
    left = tuple((before - pad, after - pad) for (before, after), pad in zip(pairs, counted, strict=True))
    if not any(before > 0 or after > 0 for before, after in left):
        return math.prod(own.kernel_size)
    plane = x.shape[x.rank - len(pairs) :]
    ones = filled(x.graph, 1, Spec(tuple(n + 2 * pad for n, pad in zip(plane, counted, strict=True)), x.dtype))
    inner = tuple((max(before, 0), max(after, 0)) for before, after in left)
    return ops.window_sum(ones, kernel_size=own.kernel_size, stride=own.stride, padding=inner)


def _lp_pool(rank: int) -> Callable[..., Node]:
    def expand(x: Node, *, norm_type: float, kernel_size: Shape, stride: Shape | None, ceil_mode: bool) -> Node:
        if not math.isfinite(norm_type) or norm_type == 0:
            raise InvalidGraph(f"norm_type should be finite and not 0, got {norm_type}")
        kernel = per_axis(kernel_size, rank, "kernel_size")
        mean = ops.find(f"avg_pool{rank}d")(x**norm_type, kernel_size=kernel, stride=stride, ceil_mode=ceil_mode)
        return (mean * math.prod(kernel)) ** (1.0 / norm_type)

    return expand


def _axis_windows(x: Node, axis: int, count: int) -> tuple[Node, Node, Node]:
    """The windows of adaptive pooling along one axis, from ⌊i·n / count⌋ to ⌈(i + 1)·n / count⌉: what lies in them,
    the axis parted in two for it, which of it counts, and how much."""
    n, numbers = x.shape[axis], ops.arange.on(x.graph, start=count)
    starts, stops = ops.floor_divide(numbers * n, count), -ops.floor_divide(-(numbers + 1) * n, count)
    width = ops.arange.on(x.graph, start=-(-n // count) + 1)
    places = ops.expand_dims(starts, axis=1) + width
    taken = ops.take(x, ops.minimum(places, n - 1), axis=axis)
    return taken, places < ops.expand_dims(stops, axis=1), stops - starts


def _beside(node: Node, x: Node, axis: int) -> Node:
    """`node`, whose axes are those of `x` from `axis` on, with ones after them."""
    return ops.reshape(node, shape=(*node.shape, *(1,) * (x.rank - axis - node.rank)))


def _means_along(x: Node, axis: int, count: int) -> Node:
    taken, inside, sizes = _axis_windows(x, axis, count)
    total = ops.sum(ops.where(_beside(inside, taken, axis), taken, 0.0), axis=axis + 1)
    return total / cast(_beside(sizes, total, axis), x.dtype)


def _output_sizes(name: str, x: Node, rank: int, output_size: Any) -> Shape:
    """How many windows there are along each of the last axes; null keeps the size. Raises an EngineError."""
    if x.rank not in (rank + 1, rank + 2):
        raise ShapeMismatch(f"{name} takes x with {rank + 2} axes, or {rank + 1} for one image, got {list(x.shape)}")
    asked = output_size * rank if len(output_size) == 1 else output_size
    plane = x.shape[x.rank - rank :]
    if len(asked) != rank:
        raise InvalidGraph(f"output_size should be one number, or {rank} of them, got {len(asked)}")
    if 0 in plane:
        raise ShapeMismatch(f"a plane of shape {list(plane)} has nothing to pool")
    return tuple(n if size is None else size for n, size in zip(plane, asked, strict=True))


def _even_windows(x: Node, sizes: Shape) -> Attrs | None:
    """The windows of adaptive pooling as those of a pool, where they are all alike."""
    plane = x.shape[x.rank - len(sizes) :]
    if any(size < 1 or n % size for n, size in zip(plane, sizes, strict=True)):
        return None
    kernel = tuple(n // size for n, size in zip(plane, sizes, strict=True))
    return {"kernel_size": kernel, "stride": kernel}


def _adaptive_avg_pool(rank: int) -> Callable[..., Node]:
    def expand(x: Node, *, output_size: Any) -> Node:
        sizes = _output_sizes(f"adaptive_avg_pool{rank}d", x, rank, output_size)
        even = _even_windows(x, sizes)
        if even is not None:
            return ops.window_sum(x, **even) / math.prod(even["kernel_size"])
        for axis, size in enumerate(sizes, x.rank - rank):
            x = _means_along(x, axis, size)
        return x

    return expand


def _adaptive_max_pool(rank: int) -> Callable[..., Any]:
    def expand(x: Node, *, output_size: Any, return_indices: bool) -> Any:
        sizes = _output_sizes(f"adaptive_max_pool{rank}d", x, rank, output_size)
        even = _even_windows(x, sizes)
        if even is None:
            values, at = _uneven_largest(x, sizes)
        else:
            values, at = ops.window_max(x, **even), ops.window_argmax(x, **even)
        return (values, at) if return_indices else values

    return expand


def _uneven_largest(x: Node, sizes: Shape) -> tuple[Node, Node]:
    """The largest element of each window of adaptive pooling, and where it stands in the flattened plane."""
    rank, lead = len(sizes), x.rank - len(sizes)
    plane = x.shape[lead:]
    index = ops.reshape(ops.arange.on(x.graph, start=math.prod(plane)), shape=plane)
    for at, size in enumerate(sizes):
        x, inside, _ = _axis_windows(x, lead + 2 * at, size)
        index, _, _ = _axis_windows(index, 2 * at, size)
        x = ops.where(_beside(inside, x, lead + 2 * at), x, -math.inf)
    order = (*range(0, 2 * rank, 2), *range(1, 2 * rank, 2))
    x = ops.permute_dims(x, axes=(*range(lead), *(lead + at for at in order)))
    windows = ops.reshape(x, shape=(*x.shape[: lead + rank], count_along(x.shape, range(lead + rank, x.rank))))
    index = ops.reshape(ops.permute_dims(index, axes=order), shape=windows.shape[lead:])
    first = ops.argmax(windows, axis=-1, keepdims=True)
    index = ops.broadcast_to(index, shape=windows.shape)
    values, found = (ops.take_along_axis(each, first, axis=-1) for each in (windows, index))
    return ops.squeeze(values, axis=-1), ops.squeeze(found, axis=-1)


def _read_output_size(value: Any) -> tuple[int | None, ...]:
    sizes = value if isinstance(value, list | tuple) else [value]
    return tuple(None if size is None else kinds.read_sizes(size)[0] for size in sizes)


_COUNT = {"oneOf": [kinds.INTEGER, {"type": "null"}]}
OUTPUT_SIZE = kinds.Attr(
    _read_output_size,
    {"oneOf": [*_COUNT["oneOf"], {"type": "array", "items": _COUNT}]},
    "How many windows: one number, or one for each axis; null for as many as the axis is long.",
)
STRIDE = kinds.optional(kinds.shape("Steps between windows; as wide as a window when absent.", None))
CEIL_MODE = kinds.boolean("Whether a last window may reach over the end.", False)
PADDING = kinds.shape("Padding on both sides: one number, or one for each axis, half a window at most.", (0,))
RETURN_INDICES = kinds.boolean("Whether a second result tells where in its flattened plane each stands.", False)
MAX_POOL: Attrs = {
    "kernel_size": KERNEL,
    "stride": STRIDE,
    "padding": PADDING,
    "dilation": DILATED["dilation"],
    "ceil_mode": CEIL_MODE,
    "return_indices": RETURN_INDICES,
}
AVG_POOL: Attrs = {
    "kernel_size": KERNEL,
    "stride": STRIDE,
    "padding": PADDING,
    "ceil_mode": CEIL_MODE,
    "count_include_pad": kinds.boolean("Whether padding counts among what is averaged.", True),
}
DIVISOR = {"divisor_override": kinds.integer("What sums are divided by; the size of the window when absent.", None)}
LP_POOL: Attrs = {
    "norm_type": kinds.real("Order of the norm."),
    "kernel_size": KERNEL,
    "stride": STRIDE,
    "ceil_mode": CEIL_MODE,
}


def _bad_pools(rank: int) -> tuple[Refusal, ...]:
    plane = (4,) * rank
    return (
        Refusal((plane,), {"kernel_size": 2}, "shape_mismatch"),
        Refusal(((2, *plane),), {"kernel_size": 5}, "shape_mismatch"),
        Refusal(((2, *plane),), {"kernel_size": 2, "padding": 2}, "invalid_graph"),
        Refusal(((2, *plane),), {"kernel_size": [2] * (rank + 1)}, "invalid_graph"),
        Refusal(((2, *(0,) * rank),), {"kernel_size": 2, "padding": 1}, "shape_mismatch"),
    )


def _pool(rank: int, kind: str, doc: str, expand: Callable[..., Any], torch: str, **record: Any) -> Op:
    defaults: dict[str, Any] = {
        "family": "neural",
        "inexact": True,
        "refusals": _bad_pools(rank),
        "example": f"{kind}_pool{rank}d(x, kernel_size=2)",
    }
    planes = f"{AXES_NAMED[rank]} of images (images, channels, …), or of one image without the first axis."
    return composite(f"{kind}_pool{rank}d", f"{doc} {planes}", expand, torch=torch, **defaults | record)


def _pool_samples(rank: int, *more: Attrs) -> tuple[Sample, ...]:
    plane, odd = (4, 4, 2)[:rank], (5, 6, 3)[:rank]
    return (
        Sample(((2, 1, *plane),), {"kernel_size": 2}),
        Sample(((2, *odd),), {"kernel_size": 3, "stride": 2, "padding": 1}),
        Sample(((1, *odd),), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
        Sample(((0, 2, *plane),), {"kernel_size": 2, "stride": 1}),
        *(Sample(((2, *odd),), attrs) for attrs in more),
    )


def _pools(rank: int) -> tuple[Op, ...]:
    return (
        _pool(
            rank,
            "max",
            "The largest element of every window, the first of equals, over",
            _max_pool(rank),
            f"max_pool{rank}D_with_indices",
            attrs=MAX_POOL,
            inexact=False,
            operands=REAL,
            domain=APART,
            samples=_pool_samples(rank, {"kernel_size": 2, "dilation": 2}, {"kernel_size": 2, "return_indices": True}),
        ),
        _pool(
            rank,
            "avg",
            "The mean of every window over",
            _avg_pool(rank),
            f"avg_pool{rank}D",
            attrs=AVG_POOL | (DIVISOR if rank > 1 else {}),
            samples=_pool_samples(
                rank,
                {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
                *([{"kernel_size": 2, "divisor_override": 3}] if rank > 1 else []),
            ),
        ),
        _pool(
            rank,
            "lp",
            "The norm of every window, (Σ x^p)^(1/p), over",
            _lp_pool(rank),
            "pow",
            attrs=LP_POOL,
            domain=((0.5, 2.0),),
            samples=(
                Sample(((2, 1, *(4,) * rank),), {"norm_type": 2, "kernel_size": 2}),
                Sample(((2, *(3,) * rank),), {"norm_type": 3, "kernel_size": 2, "stride": 1, "ceil_mode": True}),
            ),
            refusals=(Refusal(((2, *(4,) * rank),), {"norm_type": 0, "kernel_size": 2}, "invalid_graph"),),
            example=f"lp_pool{rank}d(x, norm_type=2, kernel_size=2)",
        ),
        _pool(
            rank,
            "adaptive_avg",
            "The mean of every window, of which there are as many as asked for, over",
            _adaptive_avg_pool(rank),
            f"adaptive_avg_pool{rank}D",
            attrs={"output_size": OUTPUT_SIZE},
            samples=_adaptive_samples(rank),
            refusals=_bad_sizes(rank),
            example=f"adaptive_avg_pool{rank}d(x, output_size=1)",
        ),
        _pool(
            rank,
            "adaptive_max",
            "The largest element of every window, of which there are as many as asked for, over",
            _adaptive_max_pool(rank),
            f"adaptive_max_pool{rank}D",
            attrs={"output_size": OUTPUT_SIZE, "return_indices": RETURN_INDICES},
            domain=APART,
            samples=(
                *_adaptive_samples(rank),
                Sample(((2, *(5,) * rank),), {"output_size": 3, "return_indices": True}),
            ),
            refusals=_bad_sizes(rank),
            example=f"adaptive_max_pool{rank}d(x, output_size=1)",
        ),
    )


def _adaptive_samples(rank: int) -> tuple[Sample, ...]:
    return (
        Sample(((2, 1, *(4,) * rank),), {"output_size": 2}),
        Sample(((2, *(5, 4, 3)[:rank]),), {"output_size": [3, None, 2][:rank]}),
        Sample(((2, *(2,) * rank),), {"output_size": [3] * rank}),
        Sample(((0, 1, *(4,) * rank),), {"output_size": 1}),
    )


def _bad_sizes(rank: int) -> tuple[Refusal, ...]:
    return (
        Refusal(((4,) * rank,), {"output_size": 2}, "shape_mismatch"),
        Refusal(((1, *(0,) * rank),), {"output_size": 2}, "shape_mismatch"),
        Refusal(((1, *(4,) * rank),), {"output_size": [2] * (rank + 1)}, "invalid_graph"),
        Refusal(((1, *(4,) * rank),), {"output_size": -1}, "invalid_graph"),
        Refusal(((1, *(4,) * rank),), {"output_size": 2**31 - 1}, "limit_exceeded"),
    )


max_pool1d, avg_pool1d, lp_pool1d, adaptive_avg_pool1d, adaptive_max_pool1d = _pools(1)
max_pool2d, avg_pool2d, lp_pool2d, adaptive_avg_pool2d, adaptive_max_pool2d = _pools(2)
max_pool3d, avg_pool3d, lp_pool3d, adaptive_avg_pool3d, adaptive_max_pool3d = _pools(3)
