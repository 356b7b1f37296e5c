"""Sparse Jacobians and Hessians: as many products with vectors as colours, not as many as columns.

Where a derivative can be other than zero is known before the run (engine.sparsity). Columns that share no row are moved
together by one tangent, rows that share no column by one cotangent, and in a Hessian one of two equal entries is
enough (engine.colouring); every entry then has a place of its own in one of the products, and is taken from there.

Of a block only the values are nodes; where they stand is known. All wrts move at once, all outputs too: a colour may
have elements of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from engine.basis import Cutting, at_basis
from engine.colouring import Pattern, column_colours, star_colours
from engine.core import Node, cast, ops
from engine.derivative import filled, or_zero
from engine.jacobians import CLEAR, Nodes, by_kind, cost_of, probe, pulled_back
from engine.sparsity import members, pattern_of
from engine.transforms.forward import forward
from engine.transforms.paths import between
from engine.types import Array, Dtype, Spec

Block: TypeAlias = dict[str, Any]
"""A matrix by rows: indptr, indices, values, and its shape, output.size by wrt.size."""


class Entries(NamedTuple):
    """Entries of a matrix in the order of its rows, by row and column."""

    rows: Array
    columns: Array


def sparse_jacobian(outputs: Nodes, wrt: Nodes, mode: str, cutting: Cutting) -> dict[str, dict[str, Block]]:
    """∂output/∂x as sparse blocks. Raises LimitExceeded where they are too full to be sparse."""
    table: dict[str, dict[str, Block]] = {name: {} for name in outputs}
    for some_outputs, some_wrt, way in by_kind(outputs, wrt, mode):
        for name, row in _of_one_kind(some_outputs, some_wrt, way, cutting).items():
            table[name] |= row
    return {name: {by: row[by] for by in wrt} for name, row in table.items()}


def _of_one_kind(outputs: Nodes, wrt: Nodes, mode: str, cutting: Cutting) -> dict[str, dict[str, Block]]:
    """All blocks in one mode, that which takes fewer products, or else fewer operations."""
    pattern = pattern_of(list(wrt.values()), list(outputs.values()))
    ways = {"forward": _by_columns, "reverse": _by_rows}
    chosen = [ways[mode]] if mode in ways else list(ways.values())
    prepared = [way(outputs, wrt, pattern) for way in chosen]
    prepared = [each for each in prepared if each.products <= CLEAR * min(other.products for other in prepared)]
    found = [each.values(cutting) for each in prepared]
    values = min(found, key=lambda nodes: cost_of([nodes])) if len(found) > 1 else found[0]
    return _blocks(outputs, wrt, pattern, values)


class Way(NamedTuple):
    """One way to have all entries: how many products it takes, and what emits them."""

    products: int
    values: Callable[[Cutting], Node]


def _by_columns(outputs: Nodes, wrt: Nodes, pattern: Pattern) -> Way:
    """By jvps. Where a wrt stands behind another, each moves by itself: a seed would hide what comes through it."""
    nodes, targets = list(wrt.values()), list(outputs.values())
    places = list(members(nodes))
    together = [nodes] if not is_nested(nodes) else [[x] for x in nodes]
    own, counted, count = [], [], 0
    for place in [slice(0, pattern.shape[1])] if not is_nested(nodes) else places:
        found = column_colours(pattern[:, place], targets[0].graph.tick)
        own.append(found)
        counted.append(found + count)
        count += int(found.max(initial=-1)) + 1

    def values(cutting: Cutting) -> Node:
        parts = [
            images_of(some, colours, lambda moving: forward(moving, targets), targets, cutting)
            for some, colours in zip(together, own, strict=True)
        ]
        images = parts[0] if len(parts) == 1 else ops.concat(*parts, axis=0)
        rows, columns = entries_of(pattern)
        return taken(images, pattern.shape[0], np.concatenate(counted)[columns], rows)

    return Way(count, values)


def _by_rows(outputs: Nodes, wrt: Nodes, pattern: Pattern) -> Way:
    """By vjps."""
    nodes, targets = list(outputs.values()), list(wrt.values())
    colours = column_colours(pattern.T.tocsr(), nodes[0].graph.tick)

    def values(cutting: Cutting) -> Node:
        images = images_of(nodes, colours, lambda g: pulled_back(g, targets), targets, cutting)
        rows, columns = entries_of(pattern)
        return taken(images, pattern.shape[1], colours[rows], columns)

    return Way(int(colours.max(initial=-1)) + 1, values)


def sparse_hessian(gradients: Nodes, wrt: Nodes, cutting: Cutting) -> dict[str, dict[str, Block]]:
    """The derivative of every gradient by every wrt as sparse blocks, one entry standing for the one that mirrors it.

    Where they need not mirror each other, since a wrt stands behind another or a gradient is not that of its value,
    they are had as those of a Jacobian.
    """
    nodes, targets = list(wrt.values()), list(gradients.values())
    if not nodes or not is_symmetric(nodes, targets):
        return sparse_jacobian(gradients, wrt, "forward", cutting)
    pattern = symmetric_pattern(nodes, targets)
    colours = star_colours(pattern, targets[0].graph.tick)
    images = images_of(nodes, colours, lambda moving: forward(moving, targets), targets, cutting)
    rows, columns = entries_of(pattern)
    alone = _is_alone(colours, rows, columns)
    values = taken(
        images, pattern.shape[0], np.where(alone, colours[columns], colours[rows]), np.where(alone, rows, columns)
    )
    return _blocks(gradients, wrt, pattern, values)


def symmetric_pattern(wrt: Sequence[Node], gradients: Sequence[Node], most: int | None = None) -> Pattern:
    """What can be other than zero in a symmetric matrix: what its pattern and the mirrored one both have."""
    pattern = pattern_of(wrt, gradients, most)
    both = pattern.multiply(pattern.T).tocsr()
    both.sort_indices()
    return both


def _is_alone(colours: Array, rows: Array, columns: Array) -> Array:
    """Whether an entry is the only one in its row that has a column of its colour."""
    keys = rows * (int(colours.max(initial=0)) + 1) + colours[columns]
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    found: Array = counts[inverse] == 1
    return found


def is_nested(nodes: Sequence[Node]) -> bool:
    """Whether one of `nodes` depends on another."""
    wanted = set(nodes)
    return any(x in wanted for x in _behind(nodes, nodes))


def _behind(sources: Sequence[Node], targets: Sequence[Node]) -> Iterator[Node]:
    """Nodes that come after a source on the way to the targets."""
    path = set(between(sources, targets))
    return (node for node in path if any(x in path for x in node.inputs))


def is_symmetric(wrt: Sequence[Node], gradients: Sequence[Node]) -> bool:
    """Whether the gradients are those of one function of all wrts."""
    honest = all(node.op.family != "gradient" for node in between(wrt, gradients))
    return honest and not is_nested(wrt)


def entries_of(pattern: Pattern) -> Entries:
    rows = np.repeat(np.arange(pattern.shape[0]), np.diff(pattern.indptr))
    return Entries(rows, pattern.indices.astype(np.int64))


def images_of(
    nodes: Sequence[Node],
    colours: Array,
    sweep: Callable[[Mapping[Node, Node]], Sequence[Node | None]],
    targets: Sequence[Node],
    cutting: Cutting,
) -> Node:
    """What a sweep over `nodes`, all at once, gives of `targets` for every colour: a row of all their elements each."""
    probes = {node: probe(node) for node in nodes}
    own = {probes[node]: colours[place] for node, place in zip(nodes, members(nodes), strict=True)}
    images = [or_zero(image, node) for node, image in zip(targets, sweep(probes), strict=True)]

    def seeds(rows: range) -> Mapping[Node, Node]:
        return {leaf: _seeds(leaf, each, rows) for leaf, each in own.items()}

    count = int(colours.max(initial=-1)) + 1
    if not count:
        return filled(nodes[0].graph, 0, Spec((0, sum(node.size for node in targets)), targets[0].dtype))
    rows = at_basis(list(own), seeds, count, images, cutting)
    flat = [ops.reshape(each, shape=(count, each.size // count)) for each in rows]
    return flat[0] if len(flat) == 1 else ops.concat(*flat, axis=1)


def _seeds(node: Node, colours: Array, rows: range) -> Node:
    """A row for each of some colours: ones where an element of `node` has it."""
    graph = node.graph
    own = graph.constant(colours.reshape((1, *node.shape)))
    numbers = ops.arange.on(graph, start=rows.start, stop=rows.stop)
    chosen = ops.equal(own, ops.reshape(numbers, shape=(len(rows), *(1,) * node.rank)))
    return ops.astype(chosen, dtype=node.dtype.name)


def taken(images: Node, width: int, products: Array, places: Array) -> Node:
    """The entries that stand at these places of these products."""
    if not places.size:
        return filled(images.graph, 0, Spec((0,), images.dtype))
    at = images.graph.constant(products * width + places)
    return ops.take(ops.reshape(images, shape=(images.size,)), at, axis=0)


def _blocks(outputs: Nodes, wrt: Nodes, pattern: Pattern, values: Node) -> dict[str, dict[str, Block]]:
    """The matrix cut into blocks of an output and a wrt."""
    entries = entries_of(pattern)
    rows, columns = members(list(outputs.values())), list(members(list(wrt.values())))
    return {
        name: dict(zip(wrt, (_block(entries, own, other, values, output.dtype) for other in columns), strict=True))
        for (name, output), own in zip(outputs.items(), rows, strict=True)
    }


def _block(entries: Entries, rows: slice, columns: slice, values: Node, dtype: Dtype) -> Block:
    (inside,) = np.nonzero(
        (entries.rows >= rows.start)
        & (entries.rows < rows.stop)
        & (entries.columns >= columns.start)
        & (entries.columns < columns.stop)
    )
    counts = np.bincount(entries.rows[inside] - rows.start, minlength=rows.stop - rows.start)
    own = values if inside.size == values.size else ops.take(values, values.graph.constant(inside), axis=0)
    return {
        "indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "indices": entries.columns[inside] - columns.start,
        "values": own if own.dtype.kind == "c" else cast(own, dtype),
        "shape": [rows.stop - rows.start, columns.stop - columns.start],
    }
