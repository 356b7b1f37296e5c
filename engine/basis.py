"""Sweeps over a basis: nodes that vanish with a probe, at every basis vector of the probe.

A *probe* is a leaf that stands for a tangent or a cotangent. What a sweep emitted for it is batched here over the rows
of a basis, as `engine.transforms.batch` would do it, with two things more.

Structure: what all rows have in common is kept apart from them, as a factor (`Scaled`). The basis of unit vectors is no
matrix at first: it stays a diagonal through whatever acts element by element, and a product with a matrix picks rows of
that matrix. So tanh(A x) has the Jacobian of a careful person, A with scaled rows, and no product with the identity.

Chunks: rows come in chunks, one after the other, so that what is held on the way fits the limits. A chunk is as large
as they allow (`Cutting`), so there are few of them, and a basis that fits is one chunk whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from engine.core import Node, cast, ops
from engine.costs import arithmetic_seconds
from engine.derivative import Bilinear, Linear, Partials, is_constant, ones, times
from engine.errors import LimitExceeded
from engine.families import acts_in_place, span
from engine.transforms.batch import in_batch, spread
from engine.transforms.paths import depending

CUT_FOR = {"peak_bytes": 0, "elements": 1}
"""Limits that smaller chunks help to keep, and how often a cut may fail to help: other nodes may break the second."""
FAR = 2.0
"""How much too long is far too long."""


class Scaled(NamedTuple):
    """The rows of `base` (of unit vectors, where it is None), each times `scale`, element by element."""

    base: Node | None
    scale: Node


Basis = Callable[[range], Mapping[Node, Any]]
"""Stand-ins of probes for some rows: a Scaled, or a node with the rows as its first axis."""


@dataclass
class Cutting:
    """Into how many chunks every basis is cut. A compilation that breaks a limit is tried again with `finer` ones."""

    parts: int = 1
    widest: int = 0
    """Rows of the largest basis that was swept."""
    broken: LimitExceeded | None = None
    stalls: int = 0
    examples: int = 1
    """Examples of a batch, which every answer has an axis for in the end."""

    def finer(self, error: LimitExceeded) -> Cutting | None:
        """What to try after `error`; None where smaller chunks would not help."""
        last = self.broken
        stalls = self.stalls + (last is not None and error.name == last.name and error.actual > 0.99 * last.actual)
        if error.name not in CUT_FOR or self.parts >= self.widest or stalls > CUT_FOR[error.name]:
            return None
        times = max(2, math.ceil(error.actual / error.maximum))
        return Cutting(min(self.parts * times, self.widest), broken=error, stalls=stalls)

    def chunks(self, rows: int) -> Iterator[range]:
        """The rows of a basis, cut."""
        self.widest = max(self.widest, rows)
        length = math.ceil(rows / self.parts) or 1
        for start in range(0, max(rows, 1), length):
            yield range(start, min(start + length, rows))


def at_unit_vectors(probe: Node, images: Sequence[Node], cutting: Cutting, *, linear: bool = True) -> list[Node]:
    """The value of each image at every unit vector of `probe`: shape (probe.size, *image.shape).

    `linear` says that the images are linear in the probe; else they are sums of products of it (Taylor coefficients).
    """
    whole = Scaled(None, ones(probe))
    return at_basis([probe], lambda rows: {probe: whole}, probe.size, images, cutting, linear=linear)


def at_basis(
    probes: Sequence[Node],
    basis: Basis,
    rows: int,
    images: Sequence[Node],
    cutting: Cutting,
    *,
    linear: bool = True,
) -> list[Node]:
    """The value of each image at every row of a basis. Raises LimitExceeded where the answer itself is too large."""
    for image in images:
        _check_answer(rows * cutting.examples, image)
    if not images:
        return []
    moving, own = depending(probes, images), len(images[0].graph)
    pieces: list[list[Node]] = []
    for chunk in cutting.chunks(rows):
        piece = _Sweep(basis(chunk), chunk, linear).over(moving, images)
        if not pieces and len(chunk) < rows:
            _check_cost(piece, own, rows / len(chunk))
        pieces.append(piece if len(chunk) == rows else [_apart(image) for image in piece])
    return [joined(parts) for parts in zip(*pieces, strict=True)]


def _apart(image: Node) -> Node:
    """A part of the answer with memory of its own, lest it keep all of what it is a part of until the end."""
    return ops.concat(image, axis=0) if image.op.view else image


def _check_answer(rows: int, image: Node) -> None:
    """Refuse what no cutting would help, before anything is emitted."""
    limits = image.graph.limits
    for name, most, actual, what in (
        ("elements", limits.elements, rows * image.size, "elements of the answer"),
        ("peak_bytes", limits.peak_bytes, rows * image.nbytes, "bytes of the answer"),
    ):
        if actual > most:
            raise LimitExceeded(name, most, actual, what)


def _check_cost(piece: Sequence[Node], own: int, times: float) -> None:
    """Refuse so many pieces like this one, of nodes from the index `own` on, before the others are emitted, where their
    arithmetic alone takes too long: far too long, since some of it may be simplified."""
    graph = piece[0].graph
    most = graph.limits.cost_seconds
    nodes = [each for each in graph.live(piece) if each.index >= own and each.inputs and each.op.trips is None]
    seconds = times * math.fsum(map(arithmetic_seconds, nodes))
    if seconds > FAR * most:
        raise LimitExceeded("cost_seconds", most, seconds, "seconds that this would take")


def joined(parts: Sequence[Node]) -> Node:
    """Parts one after the other, by joints of as many operands as a posted graph may have."""
    arity = parts[0].graph.limits.arity
    while len(parts) > 1:
        parts = [_concat(parts[at : at + max(arity, 2)]) for at in range(0, len(parts), max(arity, 2))]
    return parts[0]


def _concat(parts: Sequence[Node]) -> Node:
    return parts[0] if len(parts) == 1 else ops.concat(*parts, axis=0)


class _Sweep:
    """One chunk of rows: what stands for each node that moves with a probe, a node or a Scaled."""

    def __init__(self, stand_ins: Mapping[Node, Any], rows: range, linear: bool) -> None:
        self.known: dict[Node, Any] = dict(stand_ins)
        self.rows = rows
        self.linear = linear

    def over(self, moving: Sequence[Node], images: Sequence[Node]) -> list[Node]:
        """The images at these rows, by way of the nodes that move."""
        for node in moving:
            node.graph.origin = node.origin
            self.known[node] = self._at_rows(node)
        return [self._dense(node) if node in self.known else spread(node, len(self.rows)) for node in images]

    def _at_rows(self, node: Node) -> Any:
        moving = [at for at, x in enumerate(node.inputs) if x in self.known]
        if not node.op.results and len(node.specs) == 1:
            found = self._scaled(node, moving) or self._picked(node, moving)
            if found is not None:
                return found
        args = [self._dense(x) if x in self.known else x for x in node.inputs]
        return in_batch(node, args, [x in self.known for x in node.inputs])

    def _scaled(self, node: Node, moving: Sequence[int]) -> Scaled | None:
        """`node` as what it does to the factors, where rows go through it as they are."""
        values = [self._as_scaled(node.inputs[at]) for at in moving]
        bases, scales = (
            {each.base for each in values},
            {at: each.scale for at, each in zip(moving, values, strict=True)},
        )
        if len(bases) > 1 or any(scale.size != node.size for scale in scales.values()):
            return None
        (base,) = bases
        if not (self._spares_zeros(node, moving) if base is None else self._spares_rows(node, moving)):
            return None
        scale = node.op(*[scales.get(at, x) for at, x in enumerate(node.inputs)], **node.attrs)
        return Scaled(base if base is None else ops.reshape(base, shape=(len(self.rows), *node.shape)), scale)

    def _as_scaled(self, x: Node) -> Scaled:
        value = self.known[x]
        return value if isinstance(value, Scaled) else Scaled(value, ones(x))

    def _spares_zeros(self, node: Node, moving: Sequence[int]) -> bool:
        """Whether an element of `node` is zero where all that moves in its place is, places being in C order."""
        if not acts_in_place(node):
            return node.op.packs
        rule = node.op.derivative
        if isinstance(rule, Bilinear):
            return True
        still = [at for at in range(len(node.inputs)) if at not in moving]
        if isinstance(rule, Linear):
            if any(at in rule.fixed for at in moving):
                return False
            still = [at for at in still if at not in rule.fixed]
        elif not _is_sum(node):
            return node.op is ops.divide and 1 in still
        return all(is_constant(node.inputs[at], 0) for at in still)

    def _spares_rows(self, node: Node, moving: Sequence[int]) -> bool:
        """Whether `node` of rows times factors is the rows times `node` of the factors.

        Not what selects, which would become a product with 0; nor complex numbers, of which it may take the real part.
        """
        if not self.linear or len(self.rows) < 2 or any(x.dtype.kind != "f" for x in (node, *node.inputs)):
            return False
        if not acts_in_place(node) or any(node.inputs[at].shape != node.shape for at in moving):
            return node.op.packs
        return isinstance(node.op.derivative, Bilinear) or (_is_sum(node) and len(moving) == len(node.inputs))

    def _picked(self, node: Node, moving: Sequence[int]) -> Node | None:
        """`node` of a diagonal, where its op makes something of that."""
        value = self.known[node.inputs[moving[0]]]
        if node.op.diagonal is None or len(moving) > 1 or not isinstance(value, Scaled) or value.base is not None:
            return None
        return node.op.diagonal(node, moving[0], value.scale, self.rows)

    def _dense(self, x: Node) -> Any:
        """The rows of a node that moves, written out."""
        value = self.known[x]
        if not isinstance(value, Scaled):
            return value
        if value.base is None:
            return _unit_rows(value.scale, self.rows)
        product = times(cast(value.base, x.dtype), value.scale)
        assert product is not None
        return product


def _unit_rows(scale: Node, rows: range) -> Node:
    """Some of the unit vectors, each times its element of `scale`."""
    if is_constant(scale, 1):
        at = {"n_rows": len(rows), "n_cols": scale.size, "k": rows.start}
        matrix = ops.eye.on(scale.graph, dtype=scale.dtype.name, **at)
    else:
        own = span(ops.reshape(scale, shape=(scale.size,)), 0, rows.start, rows.stop)
        matrix = ops.undiagonal(own, shape=(len(rows), scale.size), offset=rows.start)
    return ops.reshape(matrix, shape=(len(rows), *scale.shape))


def _is_sum(node: Node) -> bool:
    """Whether the slopes of `node` are bare numbers: add, subtract, negative."""
    rule = node.op.derivative
    return isinstance(rule, Partials) and all(
        isinstance(rule.slope(node, at), int | float | complex) for at in range(len(node.inputs))
    )
