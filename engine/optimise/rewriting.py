"""The sweep: every node once, in index order, emitted again where its inputs or it itself were rewritten.

Which rewrites are worth trying on a node is looked up by its op and those of its first operands; for most nodes that
is none, so a sweep costs little more than walking the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from engine.bodies import Body
from engine.core import Node, Op, ops
from engine.optimise import rows, rules
from engine.optimise.loops import with_loops_joined
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
    """Nodes in the place of others."""

    nodes: list[Node]
    live: list[Node]
    """What they need, themselves included, in an order that keeps to that of the nodes that were there before."""
    removed: int
    """How many fewer nodes are computed."""


def optimised(roots: Sequence[Node], stage: str) -> Optimised:
    """Nodes that compute what `roots` do. A graph near its limit of nodes is left as it is."""
    graph = roots[0].graph
    live = graph.live(roots)
    if graph.emitted[0] + 2 * len(live) > graph.limits.expanded_nodes:
        return Optimised(list(roots), live, 0)
    posted = live
    if stage == "after" and any(node.op.steers for node in live):
        roots = with_loops_joined(roots)
        live = graph.live(roots)
    sweep = _Sweep(stage, live, roots)
    found = sweep.over()
    if not sweep.known:
        return Optimised(found, live, _computed(posted) - _computed(live))
    lean = graph.live(found)
    return Optimised(found, sweep.in_order(lean), sweep.removed_within + _computed(posted) - _computed(lean))


def _computed(live: Sequence[Node]) -> int:
    return sum([1 for node in live if node.inputs])


class _Sweep:
    """One walk over a graph. `known` says what stands for a node, where that is another one."""

    def __init__(self, stage: str, live: Sequence[Node], roots: Sequence[Node]) -> None:
        self.known: dict[Node, Node] = {}
        self.removed_within = 0
        """Nodes taken away from the bodies of loops and branches."""
        self._stage = stage
        self._rewrites = _worth_trying[stage]
        self._live = live
        self._roots = roots
        self._instead_of: dict[Node, list[Node]] = {}
        self._at = 0
        self._first_needed: dict[Node, int] = {}

    def over(self) -> list[Node]:
        """What computes the roots."""
        graph, known = self._live[0].graph, self.known
        for at, node in enumerate(self._live):
            if graph.tick is not None and at % TICK_NODES == 0:
                graph.tick()
            graph.origin = node.origin
            self._at = at
            again = node
            for x in node.inputs:
                if x in known:
                    again = _on_others(node, tuple([known.get(x, x) for x in node.inputs]))
                    break
            again = self._settled(self._with_lean_bodies(again) if node.op.steers else again)
            if again is not node:
                known[node] = again
                self._first_needed.setdefault(again, at)
                self._instead_of.setdefault(again, []).append(node)
        graph.origin = None
        return [known.get(root, root) for root in self._roots]

    def _with_lean_bodies(self, node: Node) -> Node:
        """A loop or a branch on the same operands, with what it runs optimised."""
        bodies = {name: each for name, each in node.attrs.items() if isinstance(each, Body) and each.outputs}
        lean = {name: optimised(each.outputs, self._stage) for name, each in bodies.items()}
        if not any(each.removed or tuple(each.nodes) != bodies[name].outputs for name, each in lean.items()):
            return node
        self.removed_within += sum(each.removed for each in lean.values())
        attrs = {name: Body(body.graph, body.inputs, lean[name].nodes) for name, body in bodies.items()}
        return node.graph.intern(node.op, node.inputs, node.attrs | attrs, weak=node.weak)

    def in_order(self, live: Sequence[Node]) -> list[Node]:
        """Nodes in the order in which the graph before the sweep needed them, or what they stand for.

        By index, all that is new would come last, and what it is computed from would be held until then.
        """
        places = self._first_needed | {node: at for at, node in enumerate(self._live) if node not in self._first_needed}
        for node in live:
            places[node] = max([places.get(node, 0), *[places[x] for x in node.inputs]])
        return sorted(live, key=places.__getitem__)

    def is_used_once(self, node: Node) -> bool:
        """Whether a node, with all that it stands for, is one operand of one node that was there before the sweep."""
        return sum(self._uses[each] for each in (node, *self._instead_of.get(node, ()))) <= 1

    @cached_property
    def _uses(self) -> Counter[Node]:
        return Counter([*self._roots, *(x for node in self._live for x in node.inputs)])

    def settle(self, node: Node) -> Node:
        """`node`, rewritten until nothing concerns it any more."""
        self._first_needed.setdefault(node, self._at)
        return self._settled(node)

    def _settled(self, node: Node) -> Node:
        for _ in range(MOST_REWRITES):
            rewrites = self._rewrites_of(node)
            found = self._once(node, rewrites) if rewrites else None
            if found is None:
                break
            self._first_needed.setdefault(found, self._at)
            node = found
        return node

    def _once(self, node: Node, rewrites: Sequence[Rewrite]) -> Node | None:
        for rewrite in rewrites:
            found = rewrite(node, self)
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
