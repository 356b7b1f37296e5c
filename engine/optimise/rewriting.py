"""The sweep: every node once, in index order, emitted again where its inputs or it itself were rewritten.

Which rewrites are worth trying on a node is looked up by its op and those of its first operands; for most nodes that
is none, so a sweep costs little more than walking the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.core import Node, Op, ops
from engine.optimise import rows, rules
from engine.optimise.patterns import Rewrite, Row
from engine.types import broadcast

STAGES: dict[str, Sequence[Row | rules.Rule]] = {
    "before": [*rules.BEFORE, *rows.BEFORE],
    "after": [*rules.AFTER, *rows.AFTER],
}
"""What is tried before a graph is differentiated, and afterwards."""
MOST_REWRITES = 16
"""Rewrites of one node, one after the other. No two rows undo each other; this is if they did."""
LOOKED_AT = 3
"""Operands by whose ops rewrites are looked up."""
TICK_NODES = 256

_worth_trying: dict[str, dict[tuple[Op, ...], tuple[Rewrite, ...]]] = {stage: {} for stage in STAGES}


class Optimised(NamedTuple):
    """Nodes in the place of others, and how many fewer are computed for them."""

    nodes: list[Node]
    removed: int


def optimised(roots: Sequence[Node], stage: str) -> Optimised:
    """Nodes that compute what `roots` do. A graph near its limit of nodes is left as it is."""
    graph = roots[0].graph
    live = graph.live(roots)
    if len(graph) + 2 * len(live) > graph.limits.expanded_nodes:
        return Optimised(list(roots), 0)
    known = _Sweep(stage).over(live)
    if not known:
        return Optimised(list(roots), 0)
    found = [known.get(root, root) for root in roots]
    return Optimised(found, _computed(live) - _computed(graph.live(found)))


def _computed(live: Sequence[Node]) -> int:
    return sum([1 for node in live if node.inputs])


class _Sweep:
    """One walk over a graph."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._rewrites = _worth_trying[stage]

    def over(self, live: Sequence[Node]) -> dict[Node, Node]:
        """What stands for each node for which another one does."""
        graph = live[0].graph
        known: dict[Node, Node] = {}
        for at, node in enumerate(live):
            if graph.tick is not None and at % TICK_NODES == 0:
                graph.tick()
            graph.origin = node.origin
            again = node
            for x in node.inputs:
                if x in known:
                    again = _on_others(node, tuple([known.get(x, x) for x in node.inputs]))
                    break
            if self._rewrites_of(again):
                again = self.settle(again)
            if again is not node:
                known[node] = again
        graph.origin = None
        return known

    def settle(self, node: Node) -> Node:
        """`node`, rewritten until nothing concerns it any more."""
        for _ in range(MOST_REWRITES):
            found = self._once(node)
            if found is None:
                break
            node = found
        return node

    def _once(self, node: Node) -> Node | None:
        for rewrite in self._rewrites_of(node):
            found = rewrite(node, self.settle)
            if found is not None:
                found = _in_place_of(node, found)
                if found is not None and found is not node:
                    return found
        return None

    def _rewrites_of(self, node: Node) -> Sequence[Rewrite]:
        """What to try on a node, from the ops of it and of its first operands."""
        inputs = node.inputs
        if not inputs:
            return ()
        if len(inputs) == 1:
            key: tuple[Op, ...] = (node.op, inputs[0].op)
        elif len(inputs) == 2:
            key = (node.op, inputs[0].op, inputs[1].op)
        else:
            key = (node.op, *[x.op for x in inputs[:LOOKED_AT]])
        found = self._rewrites.get(key)
        if found is None:
            found = self._rewrites[key] = _rewrites_of(self._stage, key)
        return found


def _on_others(node: Node, inputs: tuple[Node, ...]) -> Node:
    """The op of `node` on other inputs. What is differentiated by stays a node of its own."""
    tag = ("optimised", node.index) if node.op is ops.positive else None
    return node.graph.again(node, inputs, tag=tag)


def _rewrites_of(stage: str, key: tuple[Op, ...]) -> tuple[Rewrite, ...]:
    op, *below = key
    return tuple(rewrite for each in STAGES[stage] for rewrite in each.rewrites(op, below))


def _in_place_of(node: Node, found: Node) -> Node | None:
    """`found` in the spec of `node`, stretched where it has to be; None where it cannot stand in."""
    if found.dtype != node.dtype or found.weak != node.weak:
        return None
    if found.shape == node.shape:
        return found
    if len(found.shape) > len(node.shape) or broadcast(found.shape, node.shape) != node.shape:
        return None
    return ops.broadcast_to(found, shape=node.shape)
