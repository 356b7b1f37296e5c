"""Products that contract: matmul, and everything that comes down to it.

One primitive, `matmul`, so that BLAS does the work and one derivative serves all. The others are composites.
Most say by labels which axes meet, as einsum does, and leave the rest to `contracted`. Booleans are refused, as
in the Array API.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine import attrs
from engine.core import Node, Op, Refusal, Sample, define, ops
from engine.derivative import Bilinear, is_one, times, unbroadcast
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import NUMERICS, aligned, composite, span
from engine.ops.contracting import Term, contracted
from engine.transforms.batch import batch_size
from engine.types import Shape, axes_of, axis_of, broadcast

FLAGS = Refusal(([True, False], [True, True]), {}, "dtype_mismatch")


def _matmul_shape(a: Shape, b: Shape) -> Shape:
    if not a or not b:
        raise ShapeMismatch(
            f"matmul takes operands with at least one axis, got {list(a)} and {list(b)}; multiply takes any"
        )
    if a[-1] != b[-2:][0]:
        raise ShapeMismatch(
            f"matmul of {list(a)} and {list(b)}: the last axis of the first has {a[-1]} elements, "
            f"but {'the last but one' if len(b) > 1 else 'the only one'} of the second {b[-2:][0]}"
        )
    return (*broadcast(a[:-2], b[:-2]), *a[-2:-1], *b[-2:][1:])


def _matmul(a: Any, b: Any) -> Any:
    # NumPy loops over a stack even where the other factor is one matrix; one tall product does the same.
    if b.ndim <= 2 < a.ndim and (rows := _viewed(a, (math.prod(a.shape[:-1]), a.shape[-1]))) is not None:
        return np.matmul(rows, b).reshape(a.shape[:-1] + b.shape[1:])
    if a.ndim == 2 < b.ndim and b.shape[-1] == 1:
        rows = _viewed(b, (math.prod(b.shape[:-2]), b.shape[-2]))
        if rows is not None:
            return np.matmul(rows, a.T).reshape((*b.shape[:-2], a.shape[0], 1))
    return np.matmul(a, b)


def _viewed(x: Any, shape: Shape) -> Any:
    """The array in another shape, where that takes no copy; else None."""
    try:
        return np.reshape(x, shape, copy=False)
    except ValueError:
        return None


def _left_cotangent(g: Node, a: Node, b: Node) -> Node | None:
    """g bᵀ, summed over the batch axes that `a` lacks (Giles, NA-08-01, section 2.2.2)."""
    if b.rank == 1:
        return times(ops.expand_dims(g, axis=-1), b)
    if a.rank == 2 < b.rank:
        axes = (*range(b.rank - 2), b.rank - 1)
        return ops.tensordot(g, b, axes=(axes, axes))
    if a.rank > 1:
        return unbroadcast(ops.matmul(g, ops.matrix_transpose(b)), a.shape)
    row = unbroadcast(ops.matmul(ops.expand_dims(g, axis=-2), ops.matrix_transpose(b)), (1, *a.shape))
    return row and ops.reshape(row, shape=a.shape)


def _right_cotangent(g: Node, a: Node, b: Node) -> Node | None:
    """aᵀ g, summed over the batch axes that `b` lacks: as one product, where `b` has none."""
    if b.rank <= 2:
        count = math.prod(a.shape[:-1])
        rows, own = ops.reshape(a, shape=(count, a.shape[-1])), ops.reshape(g, shape=(count, *b.shape[1:]))
        return ops.matmul(own, rows) if b.rank == 1 else ops.matmul(ops.matrix_transpose(rows), own)
    if a.rank == 1:
        a, g = ops.expand_dims(a, axis=0), ops.expand_dims(g, axis=-2)
    return unbroadcast(ops.matmul(ops.matrix_transpose(a), g), b.shape)


def _matmul_batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """As stacks of matrices: under a new axis a vector would pass for a matrix."""
    x, y = node.inputs
    a = args[0] if x.rank > 1 else ops.expand_dims(args[0], axis=-2)
    b = args[1] if y.rank > 1 else ops.expand_dims(args[1], axis=-1)
    stacks, size = aligned((a, b), batched, max(x.rank, y.rank, 2)), batch_size(args, batched)
    return ops.reshape(ops.matmul(*stacks), shape=(size, *node.shape))


def _matmul_diagonal(node: Node, at: int, scale: Node, rows: range) -> Node | None:
    """A vector with one element that is not 0 picks a row of the other factor, or a column, and scales it."""
    if scale.rank != 1:
        return None
    other = node.inputs[1 - at]
    if other.rank > 1:
        other = ops.moveaxis(other, source=(-2, -1)[at], destination=0)
    picked = span(other, 0, rows.start, rows.stop)
    if is_one(scale):
        return picked
    factors = span(scale, 0, rows.start, rows.stop)
    return ops.reshape(factors, shape=(len(rows), *(1,) * (picked.rank - 1))) * picked


def _matmul_links(node: Node, at: int) -> tuple[Any, Any]:
    """A row of the first factor, a column of the second, of the same stack, meet in each element."""
    x = node.inputs[at]
    mixed = (-1, -2)[at] if x.rank > 1 else -1
    kept = [1 if axis - x.rank == mixed else size for axis, size in enumerate(x.shape)]
    numbers = np.arange(math.prod(kept)).reshape(kept)
    # In the result the mixed axis is the other factor's, if neither is a vector.
    shown = np.squeeze(numbers, axis=mixed) if min(x.rank, node.inputs[1 - at].rank) == 1 else numbers
    return np.broadcast_to(numbers, x.shape).ravel(), np.broadcast_to(shown, node.shape).ravel()


def _matmul_flops(out: Shape, a: Shape, b: Shape) -> int:
    return 2 * math.prod(out) * a[-1]


def _matmul_scratch(node: Node) -> int:
    """NumPy copies a matrix that BLAS cannot read, such as a stretched one."""
    stretched = [x for x in node.inputs if x.op.view and x.inputs[0].size < x.size]
    return sum(math.prod(x.shape[-2:]) * x.dtype.itemsize for x in stretched)


matmul = define(
    "matmul",
    "Matrix product over the last two axes; other axes broadcast, and an operand with one axis is a vector.",
    operands=NUMERICS,
    shape=_matmul_shape,
    kernel=_matmul,
    owns=True,
    derivative=Bilinear(left=_left_cotangent, right=_right_cotangent),
    batch=_matmul_batch,
    diagonal=_matmul_diagonal,
    links=_matmul_links,
    flops=_matmul_flops,
    scratch=_matmul_scratch,
    pace=45.0,
    family="products",
    torch="mm",
    samples=(
        Sample(((2, 3), (3, 4))),
        Sample(((3,), (3,))),
        Sample(((3,), (3, 4))),
        Sample(((2, 3), (3,))),
        Sample(((5, 2, 3), (3, 4))),
        Sample(((5, 2, 3), (3,))),
        Sample(((2, 3), (5, 3, 4))),
        Sample(((2, 3), (5, 3, 1))),
        Sample(((3,), (5, 3, 4))),
        Sample(((5, 1, 2, 3), (4, 3, 2))),
        Sample(((2, 0), (0, 3))),
        Sample(((0, 3), (3, 2))),
    ),
    refusals=(
        Refusal(((2, 3), (2, 3)), {}, "shape_mismatch"),
        Refusal(((2, 2, 3), (3, 3, 2)), {}, "shape_mismatch"),
        Refusal(((), (3,)), {}, "shape_mismatch"),
        FLAGS,
    ),
    example="x1 @ x2",
    aliases=(
        "mm",
        "bmm",
        "mv",
    ),
)


# Products that have names. Labels are axis numbers; those of the second operand start at SECOND.

SECOND = 100


def _met(x: Node, y: Node, meeting: Sequence[tuple[int, int]], name: str) -> Node:
    """The sum of products over pairs of axes that meet; the other axes of `x`, then those of `y`."""
    for i, j in meeting:
        if x.shape[i] != y.shape[j]:
            raise ShapeMismatch(
                f"{name} of {list(x.shape)} and {list(y.shape)}: "
                f"axis {i} of the first has {x.shape[i]} elements, axis {j} of the second {y.shape[j]}"
            )
    partner = {j: i for i, j in meeting}
    rows = tuple(range(x.rank))
    columns = tuple(partner.get(at, SECOND + at) for at in range(y.rank))
    summed = set(partner.values())
    out = tuple(label for label in (*rows, *columns) if label not in summed)
    return contracted([Term(x, rows), Term(y, columns)], out)


def _product(name: str, doc: str, expand: Callable[..., Node], **record: Any) -> Op:
    """A product of two numeric operands."""
    return composite(name, doc, expand, **{"operands": NUMERICS, "family": "products"} | record)


def _dot(x: Node, y: Node) -> Node:
    if x.rank == 0 or y.rank == 0:
        return x * y
    return _met(x, y, [(x.rank - 1, max(y.rank - 2, 0))], "dot")


dot = _product(
    "dot",
    "NumPy's dot: over the last axis of x1 and the last but one of x2 (its only one, if x2 is a vector).",
    _dot,
    samples=(
        Sample(((3,), (3,))),
        Sample(((2, 3), (3, 4))),
        Sample(((2, 3), (3,))),
        Sample(((2, 3), (4, 3, 5))),
        Sample(((), (2, 3))),
        Sample(((2, 0), (0,))),
    ),
    refusals=(Refusal(((2, 3), (2, 3)), {}, "shape_mismatch"), FLAGS),
)


def _inner(x: Node, y: Node) -> Node:
    if x.rank == 0 or y.rank == 0:
        return x * y
    return _met(x, y, [(x.rank - 1, y.rank - 1)], "inner")


inner = _product(
    "inner",
    "Sum of products over the last axis of both operands.",
    _inner,
    samples=(Sample(((3,), (3,))), Sample(((2, 3), (4, 3))), Sample(((), (2, 3))), Sample(((2, 3), (3,)))),
    refusals=(Refusal(((2, 3), (3, 2)), {}, "shape_mismatch"), FLAGS),
)


def _vecdot(x: Node, y: Node, *, axis: int) -> Node:
    rank = max(x.rank, y.rank)
    place = axis_of(axis, rank) - rank
    short = min(x.rank, y.rank)
    if place < -short:
        raise ShapeMismatch(f"axis {axis} of vecdot is out of range for an operand with {short} axes")
    if x.shape[place] != y.shape[place]:
        raise ShapeMismatch(f"vecdot of {list(x.shape)} and {list(y.shape)}: sizes along axis {axis} differ")
    stretched = broadcast(x.shape, y.shape)
    terms = [Term(each, tuple(range(-each.rank, 0))) for each in (ops.conj(x), y)]
    return contracted(terms, tuple(label for label in range(-len(stretched), 0) if label != place))


vecdot = _product(
    "vecdot",
    "Sum of products along one axis, of the same size in both operands, x1 conjugated; the other axes broadcast.",
    _vecdot,
    attrs={"axis": attrs.axis("The axis in the broadcast shape; negative ones count from the end.", -1)},
    samples=(
        Sample(((3,), (3,))),
        Sample(((2, 3), (2, 3))),
        Sample(((2, 3), (2, 3)), {"axis": 0}),
        Sample(((4, 1, 3), (2, 3))),
        Sample(((2, 0), (2, 0))),
    ),
    refusals=(
        Refusal(((2, 3), (2, 1)), {}, "shape_mismatch"),
        Refusal(((2, 3), (3,)), {"axis": 0}, "shape_mismatch"),
        Refusal(((), ()), {}, "shape_mismatch"),
        FLAGS,
    ),
)


def _meeting(axes: Any, x: Node, y: Node) -> list[tuple[int, int]]:
    """The pairs of axes over which tensordot sums. Raises InvalidGraph, ShapeMismatch."""
    if isinstance(axes, int):
        if not 0 <= axes <= min(x.rank, y.rank):
            raise ShapeMismatch(f"tensordot over {axes} axes of operands with {x.rank} and {y.rank} axes")
        return [(x.rank - axes + at, at) for at in range(axes)]
    sides = [(side,) if isinstance(side, int) else side for side in axes]
    if len(sides) != 2 or not all(isinstance(axis, int) for side in sides for axis in side):
        raise InvalidGraph("axes of tensordot is a count, or two lists of axes", pointer="/attrs/axes")
    ours, theirs = sides
    if len(ours) != len(theirs):
        raise InvalidGraph(
            f"axes of tensordot lists {len(ours)} axes of the first operand and {len(theirs)} of the second",
            pointer="/attrs/axes",
        )
    for side, node in ((ours, x), (theirs, y)):
        axes_of(side, node.rank)
    return [(i % x.rank, j % y.rank) for i, j in zip(ours, theirs, strict=True)]


tensordot = _product(
    "tensordot",
    "Sum of products over several axes: the last of x1 with the first of x2, or those that are listed.",
    lambda x, y, *, axes: _met(x, y, _meeting(axes, x, y), "tensordot"),
    attrs={"axes": attrs.nested_integers("How many axes, or a list of axes of x1 and one of x2.", 2)},
    pace=35.0,
    samples=(
        Sample(((2, 3, 4), (3, 4, 5))),
        Sample(((2, 3), (3, 4)), {"axes": 1}),
        Sample(((2,), (3,)), {"axes": 0}),
        Sample(((2, 3, 4), (4, 5, 2)), {"axes": [[0, -1], [2, 0]]}),
        Sample(((2, 3), (3, 2)), {"axes": [1, 0]}),
        Sample(((2, 0), (0, 2)), {"axes": 1}),
    ),
    refusals=(
        Refusal(((2, 3), (2, 3)), {"axes": 1}, "shape_mismatch"),
        Refusal(((2, 3), (2, 3)), {"axes": 3}, "shape_mismatch"),
        Refusal(((2, 3), (2, 3)), {"axes": -1}, "shape_mismatch"),
        Refusal(((2, 3), (2, 3)), {"axes": [[0, 1], [0]]}, "invalid_graph"),
        Refusal(((2, 3), (2, 3)), {"axes": [[0, 0], [0, 1]]}, "shape_mismatch"),
        Refusal(((2, 3), (2, 3)), {"axes": [[2], [0]]}, "shape_mismatch"),
        Refusal(((2, 3), (2, 3)), {"axes": [[0]]}, "invalid_graph"),
    ),
    example="tensordot(x1, x2, axes=1)",
)


def _outer(x: Node, y: Node) -> Node:
    return ops.reshape(x, shape=(x.size, 1)) * ops.reshape(y, shape=(1, y.size))


outer = _product(
    "outer",
    "Every element of x1 times every element of x2, as a matrix.",
    _outer,
    samples=(Sample(((2,), (3,))), Sample(((2, 2), (3,))), Sample(((), (3,))), Sample(((0,), (3,)))),
    refusals=(FLAGS,),
)


def _kron(x: Node, y: Node) -> Node:
    rank = max(x.rank, y.rank)
    a, b = ((1,) * (rank - node.rank) + node.shape for node in (x, y))
    blocks = ops.reshape(x, shape=tuple(itertools.chain(*((size, 1) for size in a))))
    within = ops.reshape(y, shape=tuple(itertools.chain(*((1, size) for size in b))))
    return ops.reshape(blocks * within, shape=tuple(i * j for i, j in zip(a, b, strict=True)))


kron = _product(
    "kron",
    "Kronecker product: a block of x2 for every element of x1, times that element.",
    _kron,
    samples=(
        Sample(((2, 2), (3, 2))),
        Sample(((2,), (3,))),
        Sample(((2, 1), (3,))),
        Sample(((), (2, 3))),
        Sample(((0, 2), (3,))),
    ),
    refusals=(FLAGS,),
)


def _cross(x1: Node, x2: Node, *, axis: int) -> Node:
    rank = max(x1.rank, x2.rank)
    at = axis_of(axis, rank) - rank
    for x in (x1, x2):
        if x.rank < -at or x.shape[at] != 3:
            raise ShapeMismatch(f"vectors of a cross product have 3 components along axis {axis}: {list(x.shape)}")
    first, second = (ops.roll(x1, shift=-by, axis=at) * ops.roll(x2, shift=by, axis=at) for by in (1, -1))
    # Components 1, 2, 0 times 2, 0, 1: a turn by -1 is one by 2.
    return first - second


cross = composite(
    "cross",
    "The cross product of vectors of three components along an axis; the other axes broadcast.",
    _cross,
    operands=NUMERICS,
    attrs={"axis": attrs.axis("The axis of components; negative ones count from the end.", -1)},
    torch="linalg_cross",
    family="products",
    samples=(
        Sample(((3,), (3,))),
        Sample(((2, 3), (3,))),
        Sample(((3, 2), (3, 1)), {"axis": 0}),
        Sample(((0, 3), (3,))),
        Sample(([1, 2, 3], [4, 5, 6])),
    ),
    refusals=(
        Refusal(((2,), (2,)), {}, "shape_mismatch"),
        Refusal(((3,), (4,)), {}, "shape_mismatch"),
        Refusal(((), ()), {}, "shape_mismatch"),
        Refusal(((3, 2), (3,)), {"axis": 0}, "shape_mismatch"),
        Refusal(((3, 2), (3, 4)), {"axis": 0}, "shape_mismatch"),
    ),
    example="cross(x1, x2)",
)
