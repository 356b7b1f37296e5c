"""Products that contract: matmul, and everything that comes down to it.

One primitive, `matmul`, so that BLAS does the work and one derivative serves all. The others are composites.
Most say by labels which axes meet, as einsum does, and leave the rest to `_contracted`: it lowers products of
labelled tensors to diagonals, sums and pairwise products. Booleans are refused, as in the Array API.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine import attrs
from engine.core import Node, Op, Operand, Refusal, Sample, cast, define, ops
from engine.derivative import Bilinear, times, unbroadcast
from engine.errors import InvalidGraph, LimitExceeded, ShapeMismatch
from engine.families import composite, with_rank
from engine.limits import Limits
from engine.types import Shape, axes_of, axis_of, broadcast

FACTORS = (Operand("x1", "iuf"), Operand("x2", "iuf"))
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
    if b.ndim <= 2 < a.ndim and a.flags.c_contiguous:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return np.matmul(rows, b).reshape(a.shape[:-1] + b.shape[1:])
    if a.ndim == 2 < b.ndim and b.shape[-1] == 1 and b.flags.c_contiguous:
        rows = b.reshape(math.prod(b.shape[:-2]), b.shape[-2])
        return np.matmul(rows, a.T).reshape((*b.shape[:-2], a.shape[0], 1))
    return np.matmul(a, b)


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
    rank, size = max(x.rank, y.rank, 2), args[0 if batched[0] else 1].shape[0]
    stacks = [with_rank(each, rank) if has else each for each, has in zip((a, b), batched, strict=True)]
    return ops.reshape(ops.matmul(*stacks), shape=(size, *node.shape))


def _matmul_flops(out: Shape, a: Shape, b: Shape) -> int:
    return 2 * math.prod(out) * a[-1]


def _matmul_scratch(out: Shape, a: Shape, b: Shape) -> int:
    """NumPy copies a matrix that BLAS cannot read, such as a stretched one."""
    return math.prod(a[-2:]) + math.prod(b[-2:])


matmul = define(
    "matmul",
    "Matrix product over the last two axes; other axes broadcast, and an operand with one axis is a vector.",
    operands=FACTORS,
    shape=_matmul_shape,
    kernel=_matmul,
    derivative=Bilinear(left=_left_cotangent, right=_right_cotangent),
    batch=_matmul_batch,
    flops=_matmul_flops,
    scratch=_matmul_scratch,
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
)


# Products of labelled tensors.

Labels = tuple[Hashable, ...]


class _Term(NamedTuple):
    """A tensor with a label for each of its axes; axes with one label meet."""

    x: Node
    labels: Labels

    def with_axes(self, labels: Iterable[Hashable]) -> _Term:
        """The same with its axes in this order."""
        order = tuple(labels)
        return _Term(ops.permute_dims(self.x, axes=tuple(self.labels.index(each) for each in order)), order)


def _contracted(terms: Sequence[_Term], out: Labels) -> Node:
    """Σ over all labels not in `out` of the product of `terms`, with the axes of `out`, all different.

    An axis of size 1 stretches to the size of its namesakes. Raises ShapeMismatch where sizes differ else.
    """
    sizes = _sizes(terms)
    kept = tuple(label for label in out if sizes[label] != 1)
    rest = [_without_ones(_on_diagonals(term)) for term in terms]
    rest = [_summed(term, kept, rest[:at] + rest[at + 1 :]) for at, term in enumerate(rest)]
    while len(rest) > 1:
        a, b = min(itertools.combinations(rest, 2), key=lambda pair: _growth(pair, kept, rest))
        others = _others(rest, (a, b))
        rest = [*others, _paired(a, b, _union(others, kept), kept)]
    return ops.reshape(rest[0].with_axes(kept).x, shape=tuple(sizes[label] for label in out))


def _sizes(terms: Sequence[_Term]) -> dict[Hashable, int]:
    """The size of each label."""
    sizes: dict[Hashable, int] = {}
    for at, term in enumerate(terms):
        own: dict[Hashable, int] = {}
        for label, size in zip(term.labels, term.x.shape, strict=True):
            known = own.setdefault(label, size)
            if size != known:
                raise ShapeMismatch(f"axis {label!r} is both {known} and {size} long in operand {at}")
        for label, size in own.items():
            known = sizes.get(label, 1)
            if 1 not in (known, size) and known != size:
                raise ShapeMismatch(f"axis {label!r} is {size} long in operand {at}, but {known} before")
            sizes[label] = size if known == 1 else known
    return sizes


def _on_diagonals(term: _Term) -> _Term:
    """`term` with each label once: axes with one label become their diagonal."""
    for label, count in Counter(term.labels).items():
        for _ in range(count - 1):
            one, two = [at for at, each in enumerate(term.labels) if each == label][:2]
            rest = [at for at in range(term.x.rank) if at not in (one, two)]
            x = ops.diagonal(ops.permute_dims(term.x, axes=(*rest, one, two)))
            term = _Term(x, (*(term.labels[at] for at in rest), label))
    return term


def _without_ones(term: _Term) -> _Term:
    """`term` without axes of size one: they change no product, and broadcast of themselves."""
    long = tuple(label for label, size in zip(term.labels, term.x.shape, strict=True) if size != 1)
    return _Term(ops.reshape(term.x, shape=tuple(size for size in term.x.shape if size != 1)), long)


def _summed(term: _Term, kept: Labels, others: Sequence[_Term]) -> _Term:
    """`term` summed over the labels that nothing else asks for."""
    needed = _union(others, kept)
    gone = tuple(at for at, label in enumerate(term.labels) if label not in needed)
    if not gone:
        return term
    # sum widens small integers, which a product of tensors does not.
    total = cast(ops.sum(term.x, axis=gone), term.x.dtype)
    return _Term(total, tuple(label for label in term.labels if label in needed))


def _union(terms: Iterable[_Term], kept: Labels) -> set[Hashable]:
    return set(kept).union(*(term.labels for term in terms))


def _others(terms: Sequence[_Term], pair: Sequence[_Term]) -> list[_Term]:
    return [term for term in terms if all(term is not each for each in pair)]


def _growth(pair: tuple[_Term, _Term], kept: Labels, terms: Sequence[_Term]) -> tuple[int, int]:
    """What contracting a pair adds to the elements held, then what it costs: the greedy choice is the least.

    It is opt_einsum's (Smith and Gray, 2018).
    """
    a, b = pair
    sizes = dict(zip(a.labels, a.x.shape, strict=True)) | dict(zip(b.labels, b.x.shape, strict=True))
    needed = _union(_others(terms, pair), kept)
    result = math.prod(size for label, size in sizes.items() if label in needed)
    return result - a.x.size - b.x.size, math.prod(sizes.values())


def _paired(a: _Term, b: _Term, needed: set[Hashable], kept: Labels) -> _Term:
    """The product of two terms, summed over the labels they share that nothing else asks for."""
    shared = [label for label in a.labels if label in b.labels]
    inner = [label for label in shared if label not in needed]
    if not inner:
        return _stretched(a, b, kept)
    both = [label for label in shared if label in needed]
    left, right = ([label for label in term.labels if label not in shared] for term in (a, b))
    if left and right and left[0] in kept and right[0] in kept and kept.index(right[0]) < kept.index(left[0]):
        a, b, left, right = b, a, right, left
    rows, columns = _as_stack(a, both, left, inner), _as_stack(b, both, inner, right)
    sizes = dict(zip(a.labels + b.labels, a.x.shape + b.x.shape, strict=True))
    labels = (*both, *left, *right)
    return _Term(ops.reshape(ops.matmul(rows, columns), shape=tuple(sizes[each] for each in labels)), labels)


def _as_stack(term: _Term, stacked: list[Hashable], *groups: list[Hashable]) -> Node:
    """The tensor as matrices whose axes are two groups of labels; a vector, where one would be empty."""
    x, labels = term.with_axes((*stacked, *groups[0], *groups[1]))
    sizes = dict(zip(labels, x.shape, strict=True))
    flat = [math.prod(sizes[each] for each in group) for group in groups if group or stacked]
    return ops.reshape(x, shape=(*(sizes[each] for each in stacked), *flat))


def _stretched(a: _Term, b: _Term, kept: Labels) -> _Term:
    """The product of two terms that share no label to sum over, in the order of `kept` as far as it goes."""
    labels = tuple(dict.fromkeys((*kept, *a.labels, *b.labels)))
    labels = tuple(label for label in labels if label in a.labels or label in b.labels)
    return _Term(_aligned(a, labels) * _aligned(b, labels), labels)


def _aligned(term: _Term, labels: Labels) -> Node:
    """The tensor with an axis for each of `labels`, of size 1 where it has none."""
    x, own = term.with_axes(label for label in labels if label in term.labels)
    sizes = dict(zip(own, x.shape, strict=True))
    first = next((at for at, label in enumerate(labels) if label in sizes), len(labels))
    return ops.reshape(x, shape=tuple(sizes.get(label, 1) for label in labels[first:]))


# einsum

_PART = re.compile(r"[A-Za-z]*(\.\.\.[A-Za-z]*)?")


def _read_equation(equation: str) -> tuple[list[str], str | None]:
    """The terms of the operands, and that of the result where it is given. Raises InvalidGraph."""
    inputs, arrow, output = "".join(equation.split()).partition("->")
    terms = inputs.split(",")
    for term in (*terms, output):
        if not _PART.fullmatch(term):
            stray = re.sub(r"[A-Za-z]", "", term.replace("...", "", 1))
            raise _malformed(
                equation,
                f"{stray[:10]!r} is in the way in {term[:30]!r}; a term is letters and at most one '...'",
            )
    if not arrow:
        return terms, None
    letters = output.replace("...", "")
    twice = next((letter for letter in letters if letters.count(letter) > 1), None)
    if twice:
        raise _malformed(equation, f"the result names {twice!r} twice")
    alien = next((letter for letter in letters if letter not in inputs), None)
    if alien:
        raise _malformed(equation, f"the result names {alien!r}, which no operand does")
    return terms, output


def _malformed(equation: str, reason: str) -> InvalidGraph:
    return InvalidGraph(f"einsum equation {equation[:60]!r}: {reason}", pointer="/attrs/equation")


def _labels(term: str, unnamed: int) -> Labels:
    """A label for each axis; the `unnamed` ones under the ellipsis are labelled by distance from its end."""
    head, _, tail = term.partition("...")
    return (*head, *(f"...{distance}" for distance in range(unnamed, 0, -1)), *tail)


def _unnamed(term: str, rank: int, at: int) -> int:
    """How many axes the ellipsis of a term stands for. Raises ShapeMismatch."""
    named = len(term.replace("...", ""))
    if named > rank or (named < rank and "..." not in term):
        raise ShapeMismatch(f"operand {at} of einsum has {rank} axes, but {term[:60]!r} names {named}")
    return rank - named


def _einsum(*operands: Node, equation: str) -> Node:
    terms, output = _read_equation(equation)
    if len(terms) != len(operands):
        raise _malformed(equation, f"it has {len(terms)} terms for {len(operands)} operands")
    unnamed = [_unnamed(term, x.rank, at) for at, (term, x) in enumerate(zip(terms, operands, strict=True))]
    if output is None:
        count = Counter("".join(terms).replace(".", ""))
        output = "..." + "".join(sorted(letter for letter in count if count[letter] == 1))
    stretch = max(unnamed) if "..." in output else 0
    named = map(_labels, terms, unnamed)
    labelled = [_Term(x, labels) for x, labels in zip(operands, named, strict=True)]
    return _contracted(labelled, _labels(output, stretch))


def _few_operands(limits: Limits, *operands: Node, equation: str) -> None:
    if len(operands) > limits.einsum_operands:
        raise LimitExceeded("einsum_operands", limits.einsum_operands, len(operands), "operands of einsum")


einsum = composite(
    "einsum",
    "Product of tensors whose axes are named by letters, summed over letters that the result does not name. "
    "A letter twice in a term is a diagonal; '...' stands for axes that broadcast. "
    "Without '->' the result has the letters that occur once, in alphabetical order.",
    _einsum,
    operands=(Operand("operands", "iuf", variadic=True),),
    attrs={"equation": attrs.text("A term of letters for each operand, and for the result: 'ij,jk->ik'.")},
    order=("equation", "operands"),
    guard=_few_operands,
    family="products",
    samples=(
        Sample(((2, 3), (3, 4)), {"equation": "ij,jk->ik"}),
        Sample(((2, 3), (3, 4)), {"equation": "ij, jk"}),
        Sample(((3, 3),), {"equation": "ii"}),
        Sample(((3, 3, 2, 3),), {"equation": "iiki->ki"}),
        Sample(((2, 3),), {"equation": "ij->ji"}),
        Sample(((2, 3),), {"equation": "ij->j"}),
        Sample(((3,), (4,)), {"equation": "i,j->ji"}),
        Sample(((5, 2, 3), (5, 3, 4)), {"equation": "bij,bjk->bki"}),
        Sample(((5, 1, 2, 3), (4, 3, 2)), {"equation": "...ij,...jk->...ik"}),
        Sample(((5, 2, 3), (3,)), {"equation": "...j,j->"}),
        Sample(((2, 3), (3, 4), (4, 2), (2,)), {"equation": "ij,jk,ki,i->"}),
        Sample(((3,), (3,), (3,)), {"equation": "i,i,i->i"}),
        Sample(((2, 1), (3, 4)), {"equation": "ij,jk->ik"}),
        Sample(((2, 0), (0, 3)), {"equation": "ij,jk->ik"}),
    ),
    refusals=(
        Refusal(((2, 3),), {"equation": "i$->i"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij->i->j"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij->ii"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij->k"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "...i...->i"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ij,jk->ik"}, "invalid_graph"),
        Refusal(((2, 3),), {"equation": "ijk->i"}, "shape_mismatch"),
        Refusal(((2, 3),), {"equation": "ii->i"}, "shape_mismatch"),
        Refusal(((2, 3), (2, 4)), {"equation": "ij,jk->ik"}, "shape_mismatch"),
        Refusal(((2,),) * 9, {"equation": "a,b,c,d,e,f,g,h,i->"}, "limit_exceeded"),
    ),
    example='einsum("ij,jk->ik", x, y)',
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
    return _contracted([_Term(x, rows), _Term(y, columns)], out)


def _product(name: str, doc: str, expand: Callable[..., Node], **record: Any) -> Op:
    """A product of two numeric operands."""
    return composite(name, doc, expand, **{"operands": FACTORS, "family": "products"} | record)


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
    terms = [_Term(each, tuple(range(-each.rank, 0))) for each in (x, y)]
    return _contracted(terms, tuple(label for label in range(-len(stretched), 0) if label != place))


vecdot = _product(
    "vecdot",
    "Sum of products along one axis, of the same size in both operands; the other axes broadcast.",
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
