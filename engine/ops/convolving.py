"""Convolution as neural networks mean it: a kernel laid over every place of an image, and not turned around.

One trilinear form carries it all,

    T(x, w, y) = Σ x[n, g, i, stride·p + dilation·k - padding] · w[g, o, i, k] · y[n, g, o, p],

over images n, groups g, channels i and o of a group, places p and taps k. The primitives are its partial derivatives:
`convolution` by y, `convolution_input` (the transposed convolution) by x, `convolution_weight` by w. So the two
adjoints of each are the other two, and every order of derivative is convolutions again.

Under one more axis nothing is unrolled. Whichever of x, w and y is the same for all examples lacks one of the axes
n, o, i; the new axis joins that one, and where all three differ it joins the groups.

The kernels copy what lies under the taps into columns, a block of places at a time, and leave the sums to BLAS.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Op, Operand, Refusal, Sample, define, ops
from engine.derivative import Bilinear
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import composite, is_number, listed
from engine.transforms.batch import batch_size
from engine.types import Shape

Pairs = tuple[tuple[int, int], ...]

BLOCK = 1 << 20
"""Elements of the columns that are copied at a time (measured: more gains nothing, less makes thin products)."""

COLUMN_FLOPS = 8
"""What it takes to move an element, in operations that BLAS would get done meanwhile."""


# Attributes


def per_axis(value: tuple[int, ...], rank: int, what: str, least: int = 1) -> tuple[int, ...]:
    """One number for each spatial axis; a single one stands for all. Raises InvalidGraph."""
    sizes = value * rank if len(value) == 1 else value
    if len(sizes) != rank:
        raise InvalidGraph(f"{what} should be one number, or {rank} of them, got {len(sizes)}")
    if any(not least <= size < 2**31 for size in sizes):
        raise InvalidGraph(f"{what} should be {least} or more, got {listed(sizes)}")
    return sizes


def pairs_of(padding: Any, rank: int) -> Pairs:
    """What is added before and after each spatial axis. Raises InvalidGraph."""
    sides = padding if isinstance(padding, tuple) else (padding,)
    if any(isinstance(side, tuple) and len(side) != 2 for side in sides):
        raise InvalidGraph("padding should be a number, one for each axis, or a pair [before, after] for each axis")
    pairs = [side if isinstance(side, tuple) else (side, side) for side in sides]
    before, after = (per_axis(tuple(pair[at] for pair in pairs), rank, "padding", 0) for at in (0, 1))
    return tuple(zip(before, after, strict=True))


STRIDE = kinds.shape("Steps between places: one number, or one for each axis.", (1,))
DILATION = kinds.shape("Steps between taps: one number, or one for each axis.", (1,))
GROUPS = kinds.integer("Into how many groups channels fall; each is convolved by itself.", 1)
GEOMETRY: Attrs = {
    "stride": STRIDE,
    "padding": kinds.nested_integers("Zeros around the image: a number, one for each axis, or pairs.", 0),
    "dilation": DILATION,
    "groups": GROUPS,
}


def _settled(attrs: Attrs, left: Shape, right: Shape) -> Attrs:
    """Everything with one entry for each spatial axis."""
    rank = len(left) - 2
    if rank < 1 or len(left) != len(right):
        raise ShapeMismatch(f"a convolution takes two tensors of 3 axes or more, got {list(left)} and {list(right)}")
    if attrs["groups"] < 1:
        raise InvalidGraph(f"groups should be 1 or more, got {attrs['groups']}")
    settled: Attrs = {name: per_axis(attrs[name], rank, name) for name in ("stride", "dilation")}
    settled["padding"] = pairs_of(attrs["padding"], rank)
    if "size" in attrs:
        settled["size"] = per_axis(attrs["size"], rank, "size", 0)
    return attrs | settled


# Geometry


def places_of(size: Shape, kernel: Shape, stride: Shape, padding: Pairs, dilation: Shape) -> Shape:
    """How many places a kernel has along each axis. Raises ShapeMismatch where it has none."""
    places = []
    for n, k, step, (before, after), gap in zip(size, kernel, stride, padding, dilation, strict=True):
        room, reach = n + before + after, gap * (k - 1) + 1
        if k < 1 or reach > room:
            raise ShapeMismatch(f"a kernel that spans {reach} does not fit an axis of {n}, {room} with padding")
        places.append((room - reach) // step + 1)
    return tuple(places)


class _Form(NamedTuple):
    """Sizes of the trilinear form."""

    images: int
    groups: int
    channels: int
    """Channels of x in a group."""
    filters: int
    """Channels of y in a group."""
    size: Shape
    kernel: Shape
    places: Shape
    stride: Shape
    padding: Pairs
    dilation: Shape

    @property
    def taps(self) -> int:
        """Elements of one group under the kernel at one place."""
        return self.channels * math.prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether nothing but channels is mixed: then no columns are needed."""
        return set(self.kernel) == set(self.stride) == {1} and self.size == self.places

    @property
    def margins(self) -> Pairs | None:
        """The padding of y by which convolution by the turned kernel goes back, where that is the faster way.

        It is where places lie side by side and columns of y are no longer than those of x (measured: 1.4 times).
        """
        reach = [gap * (k - 1) for gap, k in zip(self.dilation, self.kernel, strict=True)]
        margins = tuple((to - before, to - after) for to, (before, after) in zip(reach, self.padding, strict=True))
        is_dense = set(self.stride) == {1} and self.filters <= self.channels
        return margins if is_dense and all(side >= 0 for pair in margins for side in pair) else None

    @property
    def _block(self) -> tuple[int, int]:
        """How many images, and how many rows of places, go into columns at a time."""
        row = max(1, self.groups * self.taps * math.prod(self.places[1:]))
        if row * self.places[0] <= BLOCK:
            return min(max(self.images, 1), BLOCK // (row * self.places[0])), self.places[0]
        return 1, max(1, min(self.places[0], BLOCK // row))

    def blocks(self) -> Iterator[Any]:
        """Some images and rows of places at a time, as an index of what ends in (images, *places)."""
        images, rows = self._block
        rest = (slice(None),) * (len(self.places) - 1)
        for n, row in itertools.product(range(0, self.images, images), range(0, self.places[0], rows)):
            yield (..., slice(n, n + images), slice(row, row + rows), *rest)

    @property
    def workspace(self) -> int:
        """Elements of the padded image, and of a block of columns and of y."""
        if self.is_pointwise:
            return 0
        room = math.prod(n + sum(pair) for n, pair in zip(self.size, self.padding, strict=True))
        padded = self.images * self.groups * self.channels * room if any(map(any, self.padding)) else 0
        count = math.prod(self._block) * math.prod(self.places[1:])
        return padded + self.groups * count * (self.taps + self.filters)

    @property
    def flops(self) -> int:
        """Those of the products, and some for each element of the columns, which are put together first."""
        columns = self.images * math.prod(self.places) * self.groups * self.taps
        return columns * (2 * self.filters + (0 if self.is_pointwise else COLUMN_FLOPS))


def _form(x: Shape, w: Shape, y: Shape | None, *, groups: int, **rest: Any) -> _Form:
    """The form that x, w and y are operands of; y is as it has to be if not given. Raises ShapeMismatch."""
    if x[1] != groups * w[1] or w[0] % groups:
        raise ShapeMismatch(
            f"in {groups} groups, a kernel of shape {list(w)} takes {groups * w[1]} channels, in as many filters "
            f"for each group; got an image of {x[1]}"
        )
    places = places_of(x[2:], w[2:], **rest)
    if y is not None and y != (x[0], w[0], *places):
        raise ShapeMismatch(f"a kernel {list(w)} on an image {list(x)} gives {[x[0], w[0], *places]}, not {list(y)}")
    return _Form(x[0], groups, w[1], w[0] // groups, x[2:], w[2:], places, **rest)


def _form_of_input(y: Shape, w: Shape, *, size: Shape, groups: int, **rest: Any) -> _Form:
    return _form((y[0], groups * w[1], *size), w, y, groups=groups, **rest)


def _form_of_weight(x: Shape, y: Shape, *, size: Shape, groups: int, **rest: Any) -> _Form:
    return _form(x, (y[1], x[1] // groups, *size), y, groups=groups, **rest)


# Kernels


def _padded(x: Any, padding: Pairs) -> Any:
    return np.pad(x, ((0, 0), (0, 0), *padding)) if any(map(any, padding)) else x


def _under_taps(x: Any, form: _Form) -> Any:
    """What a padded image has under each tap at each place: a view (groups, channels, *taps, images, *places)."""
    images, channels, *axes = x.strides
    taps = [step * gap for step, gap in zip(axes, form.dilation, strict=True)]
    moves = [step * stride for step, stride in zip(axes, form.stride, strict=True)]
    return np.lib.stride_tricks.as_strided(
        x,
        (form.groups, form.channels, *form.kernel, form.images, *form.places),
        (channels * form.channels, channels, *taps, images, *moves),
    )


def _by_group(y: Any, form: _Form) -> Any:
    """y as a view (groups, filters, images, *places)."""
    return np.moveaxis(y.reshape(form.images, form.groups, form.filters, *form.places), 0, 2)


def _matrices(block: Any, form: _Form, rows: int) -> Any:
    """A block that ends in (images, *places) as matrices with so many rows, one for each group."""
    return block.reshape(form.groups, rows, math.prod(block.shape[-1 - len(form.places) :]))


# Columns bear no name in what follows, so that those of one block are gone before the next are made.


def _convolution(x: Any, w: Any, **attrs: Any) -> Any:
    form = _form(x.shape, w.shape, None, **attrs)
    if form.is_pointwise:
        return _mixed(w[(...,) + (0,) * len(form.size)], x, form, (form.filters, form.channels))
    view, weight = _under_taps(_padded(x, form.padding), form), w.reshape(form.groups, form.filters, form.taps)
    out = np.empty((form.images, form.groups * form.filters, *form.places), x.dtype)
    target = _by_group(out, form)
    for at in form.blocks():
        part = target[at]
        part[...] = np.matmul(weight, _matrices(view[at], form, form.taps)).reshape(part.shape)
    return out


def _mixed(mixing: Any, x: Any, form: _Form, shape: tuple[int, int]) -> Any:
    """Channels mixed within their group by one matrix of this shape, at every place alike."""
    rows = x.reshape(form.images, form.groups, shape[1], math.prod(form.size))
    out = np.matmul(mixing.reshape(form.groups, *shape), rows)
    return out.reshape(form.images, form.groups * shape[0], *form.size)


def _convolution_input(y: Any, w: Any, *, size: Shape, **attrs: Any) -> Any:
    form = _form_of_input(y.shape, w.shape, size=size, **attrs)
    weight = w.reshape(form.groups, form.filters, form.taps)
    if form.is_pointwise:
        return _mixed(np.ascontiguousarray(weight.swapaxes(1, 2)), y, form, (form.channels, form.filters))
    margins = form.margins
    if margins is not None:
        return _convolution(y, _turned(w, form), **attrs | {"padding": margins})
    room = [n + sum(pair) for n, pair in zip(size, form.padding, strict=True)]
    out = np.zeros((form.images, form.groups * form.channels, *room), y.dtype)
    view, source, back = _under_taps(out, form), _by_group(y, form), weight.swapaxes(1, 2)
    for at in form.blocks():
        _add_to_places(view[at], np.matmul(back, _matrices(source[at], form, form.filters)), len(size))
    return out[:, :, *(slice(before, before + n) for n, (before, _) in zip(size, form.padding, strict=True))]


def _turned(w: Any, form: _Form) -> Any:
    """The kernel turned around, its channels and filters exchanged: a convolution by it goes back."""
    parts = w.reshape(form.groups, form.filters, form.channels, *form.kernel)
    back = np.flip(np.swapaxes(parts, 1, 2), tuple(range(3, parts.ndim)))
    return back.reshape(form.groups * form.channels, form.filters, *form.kernel)


def _add_to_places(target: Any, columns: Any, rank: int) -> None:
    """Add columns where they came from. Taps overlap, so one tap, or one place, is added at a time."""
    kernel, places, columns = target.shape[2 : 2 + rank], target.shape[3 + rank :], columns.reshape(target.shape)
    if math.prod(kernel) <= math.prod(places):
        for tap in np.ndindex(*kernel):
            target[:, :, *tap] += columns[:, :, *tap]
    else:
        for place in np.ndindex(*places):
            target[..., *place] += columns[..., *place]


def _convolution_weight(x: Any, y: Any, *, size: Shape, **attrs: Any) -> Any:
    form = _form_of_weight(x.shape, y.shape, size=size, **attrs)
    view, source = _under_taps(_padded(x, form.padding), form), _by_group(y, form)
    out = np.zeros((form.groups, form.filters, form.taps), x.dtype)
    for at in form.blocks():
        own = _matrices(source[at], form, form.filters)
        out += np.matmul(own, _matrices(view[at], form, form.taps).swapaxes(1, 2))
    return out.reshape(form.groups * form.filters, form.channels, *size)


# Under one more axis

AXES = {"x": ("n", "gi"), "w": ("go", "i"), "y": ("n", "go")}
"""Which axes of the form the first two axes of each tensor hold."""
JOINED_IF_SHARED = {"w": "n", "x": "o", "y": "i"}


def _batch(left: str, right: str, result: str) -> Callable[..., Node]:
    def rule(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
        shared = [role for role, has in zip((left, right), batched, strict=True) if not has]
        axis, groups = JOINED_IF_SHARED[shared[0]] if shared else "g", node.attrs["groups"]
        count = batch_size(args, batched)
        joined = [
            _join(arg, role, axis, groups) if has else arg
            for arg, role, has in zip(args, (left, right), batched, strict=True)
        ]
        out = node.op(*joined, **node.attrs | {"groups": groups * (count if axis == "g" else 1)})
        return _part(out, node.shape, result, axis, groups, count)

    return rule


def _sizes(shape: Shape, role: str, groups: int) -> list[int]:
    """The sizes of the axes of the form that a tensor of this shape holds."""
    held = zip(shape[:2], AXES[role], strict=True)
    return [size for n, axes in held for size in ((groups, n // groups) if len(axes) == 2 else (n,))]


def _join(x: Node, role: str, axis: str, groups: int) -> Node:
    """`x`, whose first axis is the batch, with that axis made a part of another."""
    count, *own = x.shape
    sizes, at = _sizes(tuple(own), role, groups), "".join(AXES[role]).index(axis)
    moved = ops.moveaxis(ops.reshape(x, shape=(count, *sizes, *own[2:])), source=0, destination=at)
    wide = [count * n if axis in axes else n for n, axes in zip(own, AXES[role], strict=False)]
    return ops.reshape(moved, shape=(*wide, *own[2:]))


def _part(out: Node, shape: Shape, role: str, axis: str, groups: int, count: int) -> Node:
    """The reverse: a result whose examples, of this shape, are a part of another axis."""
    sizes, at = _sizes(shape, role, groups), "".join(AXES[role]).index(axis)
    apart = ops.reshape(out, shape=(*sizes[:at], count, *sizes[at:], *shape[2:]))
    return ops.reshape(ops.moveaxis(apart, source=at, destination=0), shape=(count, *shape))


# The three primitives

SIZE = kinds.shape("Sizes of the spatial axes of the result.")


def _primitive(name: str, doc: str, roles: tuple[str, str, str], form: Callable[..., _Form], **record: Any) -> Op:
    left, right, result = roles
    names = {"x": "x", "w": "weight", "y": "y"}
    return define(
        name,
        doc,
        operands=(Operand(names[left], "iufc"), Operand(names[right], "iufc")),
        attrs=({} if result == "y" else {"size": SIZE}) | GEOMETRY,
        canonical=_settled,
        batch=_batch(*roles),
        flops=lambda out, a, b, **attrs: form(a, b, **attrs).flops,
        scratch=lambda node: (
            node.dtype.itemsize * _workspace(form(*[x.shape for x in node.inputs], **node.attrs), result)
        ),
        pace=15.0,
        family="neural",
        **record,
    )


def _workspace_bytes(node: Node, form: Callable[..., _Form], result: str) -> int:
    return node.dtype.itemsize * _workspace(form(*[x.shape for x in node.inputs], **node.attrs), result)


def _workspace(form: _Form, result: str) -> int:
    weights = form.groups * form.taps * form.filters
    if result != "x" or form.margins is None:
        return form.workspace + (weights if result == "w" else 0)  # products are added up
    back = form._replace(
        channels=form.filters, filters=form.channels, size=form.places, places=form.size, padding=form.margins
    )
    return back.workspace + weights


def _form_of_output(x: Shape, w: Shape, **attrs: Any) -> _Form:
    return _form(x, w, None, **attrs)


def _output_shape(x: Shape, w: Shape, **attrs: Any) -> Shape:
    form = _form(x, w, None, **attrs)
    return (x[0], w[0], *form.places)


def _input_shape(y: Shape, w: Shape, **attrs: Any) -> Shape:
    form = _form_of_input(y, w, **attrs)
    return (y[0], form.groups * form.channels, *form.size)


def _weight_shape(x: Shape, y: Shape, **attrs: Any) -> Shape:
    form = _form_of_weight(x, y, **attrs)
    return (y[1], form.channels, *form.kernel)


_ALL: Attrs = {"stride": [2, 1], "padding": [[1, 2], [0, 1]], "dilation": [1, 2], "groups": 2}

convolution = _primitive(
    "convolution",
    "At every place the sum of products of a kernel with the part of the image under it, over any number of axes: "
    "x is (images, channels, …), the weight (filters, channels of a group, …).",
    ("x", "w", "y"),
    _form_of_output,
    kernel=_convolution,
    shape=_output_shape,
    derivative=Bilinear(
        left=lambda g, x, w, **attrs: ops.convolution_input(g, w, size=x.shape[2:], **attrs),
        right=lambda g, x, w, **attrs: ops.convolution_weight(x, g, size=w.shape[2:], **attrs),
    ),
    samples=(
        Sample(((2, 3, 6), (4, 3, 3))),
        Sample(((1, 2, 4, 5), (3, 2, 2, 3))),
        Sample(((2, 4, 5, 6), (6, 2, 3, 2)), _ALL),
        Sample(((1, 2, 2, 3, 3), (2, 1, 2, 2, 2)), {"groups": 2, "padding": 1}),
        Sample(((1, 1, 4), (1, 1, 4))),
        Sample(((2, 4, 3, 2), (6, 2, 1, 1)), {"groups": 2}),
        Sample(((1, 2, 3), (2, 2, 1)), {"stride": 2, "padding": 1}),
        Sample(((0, 2, 4), (3, 2, 3))),
        Sample(((2, 0, 4), (3, 0, 3))),
    ),
    refusals=(
        Refusal(((2, 3), (4, 3)), {}, "shape_mismatch"),
        Refusal(((2, 3, 6), (4, 3, 3, 3)), {}, "shape_mismatch"),
        Refusal(((2, 3, 6), (4, 2, 3)), {}, "shape_mismatch"),
        Refusal(((2, 4, 6), (3, 2, 3)), {"groups": 2}, "shape_mismatch"),
        Refusal(((2, 3, 6), (4, 3, 7)), {}, "shape_mismatch"),
        Refusal(((2, 3, 6), (4, 3, 0)), {}, "shape_mismatch"),
        Refusal(((2, 3, 6), (4, 3, 3)), {"stride": 0}, "invalid_graph"),
        Refusal(((2, 3, 6), (4, 3, 3)), {"stride": [1, 1]}, "invalid_graph"),
        Refusal(((2, 3, 6), (4, 3, 3)), {"padding": -1}, "invalid_graph"),
        Refusal(((2, 3, 6), (4, 3, 3)), {"padding": [[1, 2, 3]]}, "invalid_graph"),
        Refusal(((2, 3, 6), (4, 3, 3)), {"groups": 0}, "invalid_graph"),
        Refusal(((1, 1, 6), (1, 1, 3)), {"padding": 2**30, "stride": 2**30}, "limit_exceeded"),
    ),
    example="convolution(x, weight, padding=1)",
)

convolution_input = _primitive(
    "convolution_input",
    "Every element of y times the kernel, added up where the kernel was laid on an image of the given size: the "
    "adjoint of convolution, also called transposed convolution.",
    ("y", "w", "x"),
    _form_of_input,
    kernel=_convolution_input,
    shape=_input_shape,
    derivative=Bilinear(
        left=lambda g, y, w, *, size, **attrs: ops.convolution(g, w, **attrs),
        right=lambda g, y, w, *, size, **attrs: ops.convolution_weight(g, y, size=w.shape[2:], **attrs),
    ),
    samples=(
        Sample(((2, 4, 4), (4, 3, 3)), {"size": 6}),
        Sample(((2, 6, 4, 5), (6, 2, 3, 2)), _ALL | {"size": [6, 6]}),
        Sample(((1, 2, 1), (2, 1, 4)), {"size": 5, "stride": 2}),
        Sample(((2, 3, 4), (3, 3, 3)), {"size": 5, "padding": [[0, 1]]}),
        Sample(((2, 6, 3, 2), (6, 2, 1, 1)), {"size": [3, 2], "groups": 2}),
        Sample(((0, 4, 4), (4, 3, 3)), {"size": 6}),
    ),
    refusals=(
        Refusal(((2, 4, 4), (4, 3, 3)), {"size": 7}, "shape_mismatch"),
        Refusal(((2, 5, 4), (4, 3, 3)), {"size": 6}, "shape_mismatch"),
        Refusal(((2, 4, 4), (4,)), {"size": 6}, "shape_mismatch"),
    ),
    torch="convolution_backward",
    example="convolution_input(y, weight, size=[6, 6])",
)

convolution_weight = _primitive(
    "convolution_weight",
    "The kernel of the given size by which images x are convolved, as y varies with it: the other adjoint of "
    "convolution.",
    ("x", "y", "w"),
    _form_of_weight,
    kernel=_convolution_weight,
    shape=_weight_shape,
    derivative=Bilinear(
        left=lambda g, x, y, *, size, **attrs: ops.convolution_input(y, g, size=x.shape[2:], **attrs),
        right=lambda g, x, y, *, size, **attrs: ops.convolution(x, g, **attrs),
    ),
    samples=(
        Sample(((2, 3, 6), (2, 4, 4)), {"size": 3}),
        Sample(((2, 4, 5, 6), (2, 6, 3, 5)), _ALL | {"size": [3, 2]}),
        Sample(((0, 3, 6), (0, 4, 4)), {"size": 3}),
    ),
    refusals=(
        Refusal(((2, 3, 6), (2, 4, 5)), {"size": 3}, "shape_mismatch"),
        Refusal(((2, 3, 6), (3, 4, 4)), {"size": 3}, "shape_mismatch"),
        Refusal(((2, 3, 6), (2,)), {"size": 3}, "shape_mismatch"),
    ),
    torch="convolution_backward",
    example="convolution_weight(x, y, size=[3, 3])",
)


# As they are called


def _read_padding(value: Any) -> Hashable:
    return value if value in ("same", "valid") else kinds.read_sizes(value)


PADDING = kinds.Attr(
    _read_padding,
    {"oneOf": [*kinds.ONE_OR_MORE["oneOf"], {"enum": ["same", "valid"]}]},
    'Zeros around the image: a number, one for each axis, "valid" for none, or "same" for as many as keep its size.',
    (0,),
)


def _pairs(padding: Any, kernel: Shape, stride: Shape, dilation: Shape) -> Pairs:
    """Padding as pairs. What is uneven about "same" goes to the end."""
    if padding != "same":
        return pairs_of(0 if padding == "valid" else padding, len(kernel))
    if any(step != 1 for step in stride):
        raise InvalidGraph(f'padding "same" keeps the size, which a stride of {listed(stride)} does not')
    reach = [gap * (size - 1) for size, gap in zip(kernel, dilation, strict=True)]
    return tuple((total // 2, total - total // 2) for total in reach)


def images_of(x: Node, rank: int, name: str) -> Node:
    """`x` with its axis of images, which one image lacks. Raises ShapeMismatch."""
    if x.rank not in (rank + 1, rank + 2):
        what = f"(images, channels and {rank} spatial axes), or one image without the first axis"
        raise ShapeMismatch(f"{name} takes x with {rank + 2} axes {what}; got {list(x.shape)}")
    return x if x.rank == rank + 2 else ops.reshape(x, shape=(1, *x.shape))


def like_images(out: Node, x: Node, rank: int) -> Node:
    """`out` without the axis that `images_of` put before `x`."""
    return out if x.rank == rank + 2 else ops.reshape(out, shape=out.shape[1:])


def _kernel_shape(weight: Node, rank: int, name: str) -> Shape:
    if weight.rank != rank + 2:
        raise ShapeMismatch(f"{name} takes a weight with {rank + 2} axes, got {list(weight.shape)}")
    return weight.shape[2:]


def _biased(out: Node, bias: Node, rank: int) -> Node:
    if is_number(bias, 0):
        return out
    if bias.shape != out.shape[1:2]:
        raise ShapeMismatch(
            f"the bias should have shape {list(out.shape[1:2])}, one number a filter: {list(bias.shape)}"
        )
    return out + ops.reshape(bias, shape=(*bias.shape, *(1,) * rank))


def _conv(rank: int) -> Callable[..., Node]:
    name = f"conv{rank}d"

    def expand(x: Node, weight: Node, bias: Node, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Node:
        kernel = _kernel_shape(weight, rank, name)
        stride, dilation = per_axis(stride, rank, "stride"), per_axis(dilation, rank, "dilation")
        pairs = _pairs(padding, kernel, stride, dilation)
        images = images_of(x, rank, name)
        out = ops.convolution(images, weight, stride=stride, padding=pairs, dilation=dilation, groups=groups)
        return like_images(_biased(out, bias, rank), x, rank)

    return expand


def _conv_transpose(rank: int) -> Callable[..., Node]:
    name = f"conv_transpose{rank}d"

    def expand(x: Node, weight: Node, bias: Node, *, output_padding: Any, **attrs: Any) -> Node:
        kernel, y = _kernel_shape(weight, rank, name), images_of(x, rank, name)
        names = {"stride": 1, "padding": 0, "dilation": 1}
        geometry = [per_axis(attrs[each], rank, each, least) for each, least in names.items()]
        more = per_axis(output_padding, rank, "output_padding", 0)
        axes = zip(y.shape[2:], kernel, *geometry, more, strict=True)
        size, padding, rest = zip(*[_reached(*axis) for axis in axes], strict=True)
        out = ops.convolution_input(y, weight, **attrs | {"size": size, "padding": padding})
        out = ops.pad(out, pad_width=[(0, 0), (0, 0), *((0, each) for each in rest)])
        return like_images(_biased(out, bias, rank), x, rank)

    return expand


def _reached(places: int, k: int, stride: int, padding: int, gap: int, more: int) -> tuple[int, tuple[int, int], int]:
    """Along an axis the size that a transposed convolution reaches, what is taken off it, and the zeros after it.

    What is added at the end is at first what would have been taken off there.
    """
    if more >= max(stride, gap):
        raise InvalidGraph(f"output_padding should be below the stride or the dilation, got {more}")
    after = max(0, padding - more)
    size = (places - 1) * stride + gap * (k - 1) + 1 - padding - after
    if size < 1 or places < 1:
        raise ShapeMismatch(f"of {places} places and a padding of {padding}, a kernel of {k} leaves nothing")
    return size, (padding, after), max(0, more - padding)


OPERANDS = (Operand("x", "iufc"), Operand("weight", "iufc"), Operand("bias", "iufc", default=0))
AXES_NAMED = {1: "one axis", 2: "two axes", 3: "three axes"}


def _samples(rank: int, *more: Sample) -> tuple[Sample, ...]:
    image, kernel = (5, 4, 3)[:rank], (3, 2, 2)[:rank]
    return (
        Sample(((2, 3, *image), (4, 3, *kernel), (4,))),
        Sample(((3, *image), (2, 3, *kernel))),
        Sample(((2, 4, *image), (4, 2, *kernel)), {"groups": 2, "stride": 2, "padding": 1, "dilation": 2}),
        Sample(((2, 3, *image), (2, 3, *kernel)), {"padding": "same"}),
        Sample(((0, 3, *image), (2, 3, *kernel), (2,)), {"padding": "valid"}),
        *more,
    )


def _transposed_samples(rank: int) -> tuple[Sample, ...]:
    image, kernel = (4, 3, 2)[:rank], (3, 2, 2)[:rank]
    return (
        Sample(((2, 3, *image), (3, 2, *kernel), (2,))),
        Sample(((3, *image), (3, 2, *kernel))),
        Sample(((2, 4, *image), (4, 1, *kernel)), {"groups": 2, "stride": 2, "padding": 1, "output_padding": 1}),
        Sample(((1, 2, *image), (2, 1, *kernel)), {"dilation": 3, "padding": 1, "output_padding": 2}),
        Sample(((0, 3, *image), (3, 2, *kernel))),
    )


def _named(rank: int) -> Op:
    image, kernel = (4,) * rank, (3,) * rank
    return composite(
        f"conv{rank}d",
        f"Convolution over {AXES_NAMED[rank]}: x is (images, channels, …), or one image without the first axis; the "
        "weight (filters, channels of a group, …), the bias a number for each filter.",
        _conv(rank),
        operands=OPERANDS,
        attrs={"stride": STRIDE, "padding": PADDING, "dilation": DILATION, "groups": GROUPS},
        family="neural",
        torch="convolution",
        samples=_samples(rank),
        refusals=(
            Refusal(((2, *image), (2, 3, *kernel)), {}, "shape_mismatch"),
            Refusal((image, (2, 3, *kernel)), {}, "shape_mismatch"),
            Refusal(((3, *image), kernel), {}, "shape_mismatch"),
            Refusal(((3, *image), (2, 3, *kernel), (3,)), {}, "shape_mismatch"),
            Refusal(((3, *image), (2, 3, *kernel)), {"padding": "same", "stride": 2}, "invalid_graph"),
            Refusal(((3, *image), (2, 3, *kernel)), {"padding": "full"}, "invalid_graph"),
            Refusal(((3, *image), (2, 3, *kernel)), {"stride": [1] * (rank + 1)}, "invalid_graph"),
        ),
        example=f"conv{rank}d(x, weight, bias, padding=1)",
    )


def _named_transposed(rank: int) -> Op:
    image, kernel = (4,) * rank, (3,) * rank
    return composite(
        f"conv_transpose{rank}d",
        f"Transposed convolution over {AXES_NAMED[rank]}: the adjoint of conv{rank}d in its image. The weight is "
        "(channels of x, filters of a group, …).",
        _conv_transpose(rank),
        operands=OPERANDS,
        attrs={
            "stride": STRIDE,
            "padding": kinds.shape("What is taken off around the result: one number, or one for each axis.", (0,)),
            "output_padding": kinds.shape("What is added at the end of each axis of the result.", (0,)),
            "groups": GROUPS,
            "dilation": DILATION,
        },
        family="neural",
        torch="convolution",
        samples=_transposed_samples(rank),
        refusals=(
            Refusal(((2, *image), (3, 2, *kernel)), {}, "shape_mismatch"),
            Refusal(((3, *image), (3, 2, *kernel)), {"output_padding": 1}, "invalid_graph"),
            Refusal(((3, *image), (3, 2, *kernel)), {"padding": 9}, "shape_mismatch"),
            Refusal(((3, *image), (3, 2, *kernel), (3,)), {}, "shape_mismatch"),
        ),
        example=f"conv_transpose{rank}d(x, weight, stride=2)",
    )


conv1d, conv_transpose1d = _named(1), _named_transposed(1)
conv2d, conv_transpose2d = _named(2), _named_transposed(2)
conv3d, conv_transpose3d = _named(3), _named_transposed(3)
