"""Loops that go over the same rows with the same step are run as one.

A loop, the same loop saying the carries that its adjoint needs, and that with tangents beside the values: derivatives
leave these side by side. Their bodies grew in one graph, so equal leaves and equal nodes tell what they share, and one
loop can carry and stack what any of them does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.bodies import Body
from engine.core import RESULT, Node, ops

MOST_LOOPS = 64
"""Loops of a graph with more than these are left apart: each is compared with those of its body."""


class Carry(NamedTuple):
    """What a carry starts with, and what it becomes in a step."""

    start: Node
    becomes: Node


@dataclass
class _Loop:
    """Several loops as one: by leaf of the body, what it is bound to; and what is stacked."""

    consts: dict[Node, Node] = field(default_factory=dict)
    carries: dict[Node, Carry] = field(default_factory=dict)
    rows: dict[Node, Node] = field(default_factory=dict)
    stacked: dict[Node, None] = field(default_factory=dict)

    @classmethod
    def of(cls, node: Node) -> _Loop:
        body, consts, carry = node.attrs["body_fn"], node.attrs["consts"], node.attrs["carry"]
        pairs = list(zip(body.inputs, node.inputs, strict=True))
        states = zip(pairs[consts : consts + carry], body.outputs, strict=False)
        return cls(
            dict(pairs[:consts]),
            {leaf: Carry(start, becomes) for (leaf, start), becomes in states},
            dict(pairs[consts + carry :]),
            dict.fromkeys(body.outputs[carry:]),
        )

    def agrees(self, other: _Loop) -> bool:
        """Whether every leaf that both know stands for the same in both."""
        kinds = ((self.consts, other.consts), (self.carries, other.carries), (self.rows, other.rows))
        mine, theirs = ([*each.consts, *each.carries, *each.rows] for each in (self, other))
        shared = sum(len(a.keys() & b.keys()) for a, b in kinds)
        return shared == len(set(mine) & set(theirs)) > 0 and all(_agree(a, b) for a, b in kinds)

    def join(self, other: _Loop) -> None:
        self.consts |= other.consts
        self.carries |= other.carries
        self.rows |= other.rows
        self.stacked |= other.stacked

    def emit(self, like: Node) -> tuple[Node, ...]:
        body: Body = like.attrs["body_fn"]
        leaves = [*self.consts, *self.carries, *self.rows]
        operands = [*self.consts.values(), *(each.start for each in self.carries.values()), *self.rows.values()]
        outputs = [*(each.becomes for each in self.carries.values()), *self.stacked]
        sizes = {"consts": len(self.consts), "carry": len(self.carries)}
        attrs = like.attrs | sizes | {"body_fn": Body(body.graph, leaves, outputs)}
        return ops.scan.apply(like.graph, operands, attrs)

    def places(self, node: Node) -> list[int]:
        """Where the results of one of the loops stand among those of all."""
        own = _Loop.of(node)
        carries, stacked = list(self.carries), list(self.stacked)
        body, carry = node.attrs["body_fn"], node.attrs["carry"]
        return [
            *(carries.index(leaf) for leaf in own.carries),
            *(len(carries) + stacked.index(out) for out in body.outputs[carry:]),
        ]


def _agree(a: Mapping[Node, object], b: Mapping[Node, object]) -> bool:
    return all(a[leaf] == b[leaf] for leaf in a.keys() & b.keys())


def with_loops_joined(roots: Sequence[Node]) -> Sequence[Node]:
    """Nodes that compute what `roots` do. One group at a time: what another waits for may be of the one before."""
    for _ in range(MOST_LOOPS):
        live = roots[0].graph.live(roots)
        known = _joined(live)
        if not known:
            break
        for node in live:
            if node not in known and any(x in known for x in node.inputs):
                tag = ("joined", node.index) if node.op is ops.positive else None
                known[node] = node.graph.again(node, tuple(known.get(x, x) for x in node.inputs), tag=tag)
        roots = [known.get(root, root) for root in roots]
    return roots


def _joined(live: Sequence[Node]) -> dict[Node, Node]:
    """What stands for the results of some loops that are run as one, by the node that read them."""
    loops = [node for node in live if node.op is ops.scan]
    group = _group(loops) if 1 < len(loops) <= MOST_LOOPS else []
    if not group:
        return {}
    whole = _Loop.of(group[0])
    for node in group[1:]:
        whole.join(_Loop.of(node))
    results = whole.emit(group[0])
    places = {node: whole.places(node) for node in group}
    reads = [each for each in live if each.op is RESULT and each.inputs[0] in places]
    return {read: results[places[read.inputs[0]][read.attrs["index"]]] for read in reads}


def _group(loops: Sequence[Node]) -> list[Node]:
    """Loops that can be one: over the same rows, of one body, none of which waits for another."""
    groups: list[list[Node]] = []
    for node in loops:
        group = next((group for group in groups if _fits(node, group)), None)
        if group is None:
            groups.append([node])
        else:
            group.append(node)
    return next((group for group in groups if len(group) > 1), [])


def _fits(node: Node, group: Sequence[Node]) -> bool:
    same = all(
        node.attrs[name] == each.attrs[name] and node.attrs["body_fn"].graph is each.attrs["body_fn"].graph
        for each in group
        for name in ("length", "reverse")
    )
    if not same or not all(_Loop.of(node).agrees(_Loop.of(each)) for each in group):
        return False
    before = set(node.graph.live(node.inputs))
    return not before & set(group)
