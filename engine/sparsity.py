"""Sparsity: which elements of a node can depend on which elements of others, found in the graph before it runs.

A pattern is a superset: what it lacks is zero at every value of the inputs. It is carried from the sources along the
nodes in between as a sparse boolean matrix with a row for each element of the node. What an op does to it is said by
labels: an element of the result depends on the elements of an operand that bear its own label (`Links`). They are found
without knowing ops:

- element by element, each has its own place, stretched as operands are;
- an op that only moves elements, or drops some, is asked to move their numbers; one that sums is told by its adjoint,
  which moves. A linear op of any other kind that is small, or one of two factors of which the other is known, is asked
  for its whole matrix;
- an attribute `axis` names, here as everywhere, the axes along which an op mixes; a batch rule that leaves attributes
  alone says that leading axes do not mix;
- of all else, everything depends on everything.

An op may say better (`Op.links`): matmul does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from engine.basis import Cutting, at_unit_vectors
from engine.colouring import Pattern
from engine.core import INPUT, RESULT, Graph, Node
from engine.derivative import Bilinear, Linear, Partials
from engine.errors import EngineError, LimitExceeded
from engine.execute import run
from engine.families import acts_in_place, batch_same
from engine.plan import make_plan
from engine.transforms.paths import between
from engine.types import Array, Shape, drop_axes

SMALL = 1 << 22
"""Elements up to which the whole matrix of a linear op is worth its time."""


class Links(NamedTuple):
    """Labels of an operand's elements and of the result's, flat; -1 is none. None labels each by its place."""

    operand: Array | None
    result: Array | None


def pattern_of(sources: Sequence[Node], targets: Sequence[Node], most: int | None = None) -> Pattern:
    """Which elements of `targets`, one after the other, depend on which of `sources`, one after the other.

    Raises LimitExceeded where a pattern on the way has more than `most` entries, or than the graph's limits allow.
    """
    return _Patterns(sources, most).of(targets)


class _Patterns:
    """Patterns of the nodes between sources and targets, each kept as long as it is needed."""

    def __init__(self, sources: Sequence[Node], most: int | None) -> None:
        self.sources = sources
        self.width = sum(node.size for node in sources)
        limit = sources[0].graph.limits.nonzeros if sources else 0
        self.limit = limit if most is None else min(most, limit)
        self.known: dict[Node, list[Pattern]] = {}
        self.constants = _Constants()

    def of(self, targets: Sequence[Node]) -> Pattern:
        path, wanted = between(self.sources, targets), set(targets)
        last_use = {x: node for node in path for x in node.inputs}
        for node in path:
            if node.graph.tick is not None:
                node.graph.tick()
            self.known[node] = [self._of_node(node, result) for result in range(len(node.specs))]
            for x in node.inputs:
                if last_use[x] is node and x not in wanted:
                    self.known.pop(x, None)
        rows = [self.known[node][0] if node in self.known else self._none(node.size) for node in targets]
        return self._checked(_stacked(rows, self.width))

    def _none(self, rows: int) -> Pattern:
        return sparse.csr_array((rows, self.width), dtype=bool)

    def _of_node(self, node: Node, result: int) -> Pattern:
        size = node.specs[result].size
        if max(size, *(x.size for x in node.inputs), 0) > self.limit:
            raise LimitExceeded("nonzeros", self.limit, size, "elements whose dependence is looked for")
        parts = [self._own(node)] if node in self.sources else []
        if node.op is RESULT:
            parts += self.known.get(node.inputs[0], [])[node.attrs["index"] :][:1]
        else:
            parts += [
                self._through(node, at, result, self.known[x][0]) for at, x in enumerate(node.inputs) if x in self.known
            ]
        return self._united(parts, size)

    def _own(self, source: Node) -> Pattern:
        start = sum(node.size for node in self.sources[: self.sources.index(source)])
        return sparse.eye_array(source.size, self.width, k=start, dtype=bool, format="csr")

    def _united(self, parts: Sequence[Pattern], rows: int) -> Pattern:
        """The union; a pattern that comes twice, as that of x in x·x, is taken once."""
        first, *others = {id(part): part for part in parts}.values() or [self._none(rows)]
        for part in others:
            first = first + part
        return self._checked(first)

    def _through(self, node: Node, at: int, result: int, pattern: Pattern) -> Pattern:
        """What `node` makes of the pattern of its operand number `at`."""
        links = links_of(node, at, result, self.constants) if pattern.nnz else None
        if links is None:
            return self._none(node.specs[result].size)
        if not isinstance(links, Links):
            return self._checked(links @ pattern)
        if links.operand is not None:
            count = node.specs[result].size
            if links.result is not None:
                count = int(max(links.operand.max(initial=-1), links.result.max(initial=-1))) + 1
            pattern = _gathering(links.operand, count) @ pattern
        return pattern if links.result is None else self._picked(pattern, links.result)

    def _picked(self, pattern: Pattern, labels: Array) -> Pattern:
        """The row of each label, an empty one for -1."""
        if labels.min(initial=0) < 0:
            pattern = sparse.vstack([pattern, self._none(1)], format="csr")
        self._count(int(np.diff(pattern.indptr)[labels].sum()))
        return pattern[labels]

    def _checked(self, pattern: Pattern) -> Pattern:
        self._count(pattern.nnz)
        return pattern

    def _count(self, nonzeros: int) -> None:
        if nonzeros > self.limit:
            raise LimitExceeded("nonzeros", self.limit, nonzeros, "nonzeros of a sparse pattern")


def _stacked(rows: Sequence[Pattern], width: int) -> Pattern:
    found = sparse.vstack(rows, format="csr", dtype=bool) if rows else sparse.csr_array((0, width), dtype=bool)
    found.sum_duplicates()
    return found


def _gathering(labels: Array, count: int) -> Pattern:
    """The matrix that unites the rows of one label in the row of that number."""
    (there,) = np.nonzero(labels >= 0)
    return sparse.csr_array((np.ones(there.size, bool), (labels[there], there)), shape=(count, labels.size))


# What an op does


def links_of(node: Node, at: int, result: int, constants: _Constants) -> Links | Pattern | None:
    """How elements of a result of `node` depend on those of one of its operands: labels, a matrix, or not at all."""
    rule = node.op.derivative
    if isinstance(rule, Linear) and at in rule.fixed:
        return None
    if acts_in_place(node):
        return _in_place(node, at, constants)
    if node.op.links is not None:
        exact = _by_matrix(node, at, constants)
        return exact if exact is not None else Links(*node.op.links(node, at))
    shape = node.specs[result].shape
    found = _by_moving(node, at, constants)
    if found is None:
        found = _along_axis(node, at, shape) or _behind_leading(node, at, shape)
    return Links(np.zeros(node.inputs[at].size, int), np.zeros(math.prod(shape), int)) if found is None else found


def _in_place(node: Node, at: int, constants: _Constants) -> Links | Pattern | None:
    rule, x = node.op.derivative, node.inputs[at]
    if isinstance(rule, Partials) and rule.slopes[at] is None:
        return None
    if isinstance(rule, Linear) and rule.fixed and (found := _by_moving(node, at, constants)) is not None:
        return found  # a condition that is known selects
    places = _places(x.shape, node.shape)
    if isinstance(rule, Bilinear) and (factor := constants.value(node.inputs[1 - at])) is not None:
        if np.size(factor) == 1 or factor.all():
            return None if not np.all(factor) else Links(None, places)
        at_hand = np.arange(node.size) if places is None else places
        return Links(None, np.where(np.broadcast_to(factor, node.shape).ravel() != 0, at_hand, -1))
    return Links(None, places)


def _places(x: Shape, shape: Shape) -> Array | None:
    """Which element of a stretched operand stands where; None where each stands in its own place."""
    if math.prod(x) == math.prod(shape):
        return None
    return np.broadcast_to(np.arange(math.prod(x)).reshape(x), shape).ravel()


def _by_moving(node: Node, at: int, constants: _Constants) -> Links | Pattern | None:
    """Of an op that is linear in this operand: by the numbers that it moves, or that its adjoint does."""
    rule = node.op.derivative
    if not isinstance(rule, Linear) or len(node.specs) > 1:
        return None
    fixed = [constants.value(x) if place in rule.fixed else np.zeros(x.shape) for place, x in enumerate(node.inputs)]
    if any(value is None for value in fixed):
        return None
    x = node.inputs[at]
    try:
        forth = _moves(partial(_moved, node, at, fixed), x.size, node.size)
        if forth is not None:
            return Links(None, forth)
        back = _moves(partial(_moved_back, node, at, fixed), node.size, x.size)
        return Links(back, None) if back is not None else _by_matrix(node, at, constants)
    except (EngineError, ValueError, TypeError, ArithmeticError):
        return None


def _moved(node: Node, at: int, fixed: Sequence[Any], values: Array) -> Array:
    """What the op makes of these values in the place of its operand number `at`."""
    x = node.inputs[at]
    own = values.reshape(x.shape) * _unit(x)
    assert node.op.kernel is not None
    return np.asarray(node.op.kernel(*fixed[:at], own, *fixed[at + 1 :], **node.attrs))


def _moved_back(node: Node, at: int, fixed: Sequence[Any], values: Array) -> Array:
    """What its adjoint makes of these values for that operand."""
    assert isinstance(node.op.derivative, Linear)
    graph = Graph(limits=node.graph.limits)
    leaves = [graph.input(f"x{place}", each.spec) for place, each in enumerate(node.inputs)]
    adjoint = node.op.derivative.adjoint(graph.input("g", node.spec), *leaves, **node.attrs)
    part = adjoint if isinstance(adjoint, Node) else adjoint[at]
    tensors = {f"x{place}": np.asarray(value) for place, value in enumerate(fixed)}
    return run(make_plan([part]), tensors | {"g": values.reshape(node.shape) * _unit(node)})[0]


def _unit(node: Node) -> complex:
    """One, and for complex numbers one that has both parts, lest what takes only one of them seem to take none."""
    return 1.0 + 0.7j if node.dtype.kind == "c" else 1.0


def _moves(act: Callable[[Array], Array], size: int, out: int) -> Array | None:
    """Where each element of the result comes from, -1 for a zero; None where one comes from several.

    A linear map that takes ones, numbers of places, and random numbers alike to one place is no sum, but with a
    probability that is nothing.
    """
    given = (np.ones(size), np.arange(1.0, size + 1), np.random.default_rng(size).uniform(1, 2, size))
    factors, places, drawn = (np.asarray(act(each)).ravel() for each in given)
    if any(each.size != out for each in (factors, places, drawn)):
        return None
    there = factors != 0
    if places[~there].any() or drawn[~there].any():
        return None
    found = np.full(out, -1)
    numbers = np.rint((places[there] / factors[there]).real)
    if not ((numbers >= 1) & (numbers <= size)).all():
        return None
    found[there] = numbers.astype(int) - 1
    expected = given[2][found[there]] * factors[there]
    return found if np.allclose(drawn[there], expected, rtol=1e-12, atol=0) else None


def _by_matrix(node: Node, at: int, constants: _Constants) -> Pattern | None:
    """The nonzeros of the op's own matrix by this operand, where it has one that is known and small."""
    rule, x = node.op.derivative, node.inputs[at]
    if x.size * node.size > SMALL or len(node.specs) > 1 or node.op.batch is None or x.dtype.kind == "c":
        return None
    others = [place for place in range(len(node.inputs)) if place != at]
    values = {place: constants.value(node.inputs[place]) for place in others}
    if isinstance(rule, Linear):
        values |= {place: np.zeros(node.inputs[place].shape) for place in others if place not in rule.fixed}
    elif not isinstance(rule, Bilinear):
        return None
    if any(value is None for value in values.values()) or not x.size:
        return None
    graph = Graph()
    leaves = [
        graph.constant(values[place], each.dtype) if place != at else graph.input("x", each.spec)
        for place, each in enumerate(node.inputs)
    ]
    out = node.op(*leaves, **node.attrs)
    (rows,) = run(make_plan(at_unit_vectors(leaves[at], [out], Cutting())), {})
    return sparse.csr_array(np.asarray(rows).reshape(x.size, node.size).T != 0)


def _along_axis(node: Node, at: int, shape: Shape) -> Links | None:
    """By the attribute `axis`: elements mix along these axes, and the others are those of the result."""
    if "axis" not in node.attrs:
        return None
    x, axis = node.inputs[at].shape, node.attrs["axis"]
    axes = tuple(range(len(x))) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    if any(not 0 <= each < len(x) for each in axes):
        return None
    kept = drop_axes(x, axes)
    if shape == kept:
        return Links(_labels(x, kept, axes), None)
    if len(shape) == len(x) and drop_axes(shape, axes) == kept:
        return Links(_labels(x, kept, axes), _labels(shape, kept, axes))
    return None


def _labels(shape: Shape, kept: Shape, axes: Sequence[int]) -> Array:
    """The place of every element in the axes that are kept."""
    numbers = np.arange(math.prod(kept)).reshape([1 if at in axes else size for at, size in enumerate(shape)])
    return np.broadcast_to(numbers, shape).ravel()


def _behind_leading(node: Node, at: int, shape: Shape) -> Links | None:
    """By a batch rule that says: only the last axes matter, whatever stands before."""
    x = node.inputs[at].shape
    if node.op.batch is not batch_same or len(node.inputs) > 1:
        return None
    for lead in range(len(x), 0, -1):
        if x[:lead] == shape[:lead] and _fits(node, x[lead:], shape[lead:]):
            axes = range(lead, max(len(x), len(shape)))
            return Links(_labels(x, x[:lead], axes), _labels(shape, x[:lead], axes))
    return None


def _fits(node: Node, x: Shape, shape: Shape) -> bool:
    """Whether the op takes an example of shape `x` to one of `shape`."""
    assert node.op.shape is not None
    try:
        found = node.op.shape(x, **node.attrs)
    except (EngineError, IndexError, ValueError):
        return False
    return shape in found if node.op.results else bool(found == shape)


class _Constants:
    """Values that the graph knows before it runs, by node: constants, and what follows from them alone."""

    def __init__(self) -> None:
        self._known: dict[Node, Array | None] = {}
        self._is_given = bytearray()

    def value(self, node: Node) -> Array | None:
        if node not in self._known:
            self._known[node] = None if self._depends(node) else self._computed(node)
        return self._known[node]

    def _depends(self, node: Node) -> bool:
        """Whether an input stands behind `node`; settled for all nodes up to it, since operands stand before."""
        for each in node.graph.nodes[len(self._is_given) : node.index + 1]:
            self._is_given.append(each.op is INPUT or any(self._is_given[x.index] for x in each.inputs))
        return bool(self._is_given[node.index])

    def _computed(self, node: Node) -> Array | None:
        try:
            return run(make_plan([node]), {})[0]
        except EngineError:
            return None


def members(nodes: Sequence[Node]) -> Iterator[slice]:
    """Where each node's elements stand among those of all."""
    start = 0
    for node in nodes:
        yield slice(start, start + node.size)
        start += node.size
