"""Large elementwise steps in groups, which run block by block (engine.blocks): what one step leaves in the cache, the
next one finds there, and values that nothing outside needs never exist as a whole.

A group has one shape. Its members are elementwise, in the order of the plan; reductions of members may stand among
them, for nothing in the group needs their results. A step in between that needs no member goes before the group, and
one that needs a member ends it, so that groups change as little as can be of what is computed when.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from engine.core import CONSTANT, INPUT, Node
from engine.types import Dtype, Shape

BLOCKS_FROM = 300_000
"""Elements from which blocks pay (measured: what is smaller stays in the cache as a whole)."""

BLOCK = 1 << 14
"""Elements of a block: some twenty of them lie in the cache side by side, and calls cost little beside arithmetic."""

COSTLY = 10
"""Flops an element from which a member is worth a group of its own, for the sake of threads."""


class Group(NamedTuple):
    """What runs together: a single step, or the members of a group of `shape`."""

    nodes: tuple[Node, ...]
    kept: tuple[Node, ...]
    """Those whose values are needed outside."""
    shape: Shape | None = None


class Cut(NamedTuple):
    """How a shape falls into blocks: `rows` of one axis, at each place of the axes before it."""

    axis: int
    rows: int


def cut_of(shape: Shape) -> Cut:
    """Depends on nothing but the shape, so that sums over blocks have the same bits whoever computes them."""
    axis = next((at for at in range(len(shape)) if math.prod(shape[at + 1 :]) <= BLOCK), 0)
    return Cut(axis, max(1, BLOCK // max(1, math.prod(shape[axis + 1 :]))))


def count_of(shape: Shape) -> int:
    """How many blocks a shape falls into."""
    axis, rows = cut_of(shape)
    return math.prod(shape[:axis]) * math.ceil(shape[axis] / rows)


def arrange(live: Iterable[Node], results: Sequence[Node], *, in_blocks: bool = True) -> list[Group]:
    """What is to be computed, in groups, in an order in which each comes after what it needs."""
    nodes = [node for node in live if node.op is not INPUT and node.op is not CONSTANT]
    if not in_blocks or not any(map(is_member, nodes)):
        return [Group((node,), (node,)) for node in nodes]
    found = list(_grouped(nodes))
    home = {node: at for at, (members, _) in enumerate(found) for node in members}
    needed = set(results)
    for at, (members, _) in enumerate(found):
        needed.update(x for node in members for x in node.inputs if home.get(x) != at)
    return [Group(members, tuple(node for node in members if node in needed), shape) for members, shape in found]


def is_member(node: Node) -> bool:
    """Whether a node may stand in a group: elementwise, large, with memory of its own."""
    return node.size >= BLOCKS_FROM and node.op.pointwise and not node.op.view


def _grouped(nodes: Sequence[Node]) -> Iterator[tuple[tuple[Node, ...], Shape | None]]:
    held = _Open()
    for node in nodes:
        if held.takes(node):
            held.add(node)
            continue
        if is_member(node) or any(x in held.members for x in node.inputs):
            yield from held.close()
            held = _Open()
        if is_member(node):
            held.add(node)
        else:
            yield (node,), None
    yield from held.close()


class _Open:
    """A group that may yet grow."""

    def __init__(self) -> None:
        self.members: dict[Node, None] = {}
        self.folds: set[Node] = set()
        self.shape: Shape | None = None

    def takes(self, node: Node) -> bool:
        if self.shape is None or any(x in self.folds for x in node.inputs):
            return False
        return node.shape == self.shape if is_member(node) else self._folds(node)

    def _folds(self, node: Node) -> bool:
        return node.op.fold is not None and node.inputs[0] in self.members and is_foldable(node)

    def add(self, node: Node) -> None:
        self.members[node] = None
        if is_member(node):
            self.shape = node.shape
        else:
            self.folds.add(node)

    def close(self) -> Iterator[tuple[tuple[Node, ...], Shape | None]]:
        """The group; or its one member alone, where blocks would not pay."""
        nodes = tuple(self.members)
        if len(nodes) == 1 and nodes[0].flops < COSTLY * nodes[0].size:
            yield nodes, None
        elif nodes:
            yield nodes, self.shape


def is_foldable(node: Node) -> bool:
    """Whether blocks give whole results of a reduction, or each a part of all of them that is small."""
    before = set(range(cut_of(node.inputs[0].shape).axis + 1))
    return folds_rows(node) or (before <= set(node.attrs["axis"]) and node.size <= BLOCK // 8)


def folds_rows(node: Node) -> bool:
    """Whether a block gives whole results of a reduction."""
    return cut_of(node.inputs[0].shape).axis < min(node.attrs["axis"], default=-1)


OUTSIDE, OWN = -1, -2


class Layout(NamedTuple):
    """Where members put their blocks: in a slot, by its number; OUTSIDE, in what is kept; in memory of their OWN."""

    targets: tuple[int, ...]
    slots: tuple[Dtype, ...]
    """The dtype of each slot."""

    @property
    def nbytes(self) -> int:
        return BLOCK * (sum(dtype.itemsize for dtype in self.slots) + 8 * self.targets.count(OWN))


def layout_of(group: Group) -> Layout:
    """A slot is free again after the last use of what is in it; that use may write over it."""
    last_use = {x: node for node in group.nodes for x in node.inputs}
    targets: dict[Node, int] = {}
    slots: list[Dtype] = []
    free: list[int] = []
    for node in group.nodes:
        free += [targets[x] for x in dict.fromkeys(node.inputs) if last_use[x] is node and targets.get(x, OWN) >= 0]
        targets[node] = OUTSIDE if node in group.kept else OWN
        if targets[node] == OWN and node.op.takes_out:
            targets[node] = _slot(node.dtype, free, slots)
    return Layout(tuple(targets[node] for node in group.nodes), tuple(slots))


def _slot(dtype: Dtype, free: list[int], slots: list[Dtype]) -> int:
    for at in free:
        if slots[at] == dtype:
            free.remove(at)
            return at
    slots.append(dtype)
    return len(slots) - 1
