"""Loops that go over the same rows with the same step are run as one.

A loop, the same loop saying the carries that its adjoint needs, and that with tangents beside the values: derivatives
leave these side by side. Their bodies grew in one graph, so equal leaves and equal nodes tell what they share, and one
loop can carry and stack what any of them does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

from engine.core import RESULT, Node, ops
from engine.loops import Loop

MOST_LOOPS = 64
"""Loops of a graph with more than these are left apart: each is compared with those of its body."""


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
    found = [node for node in live if node.op is ops.scan]
    loops = _group(found) if 1 < len(found) <= MOST_LOOPS else {}
    if not loops:
        return {}
    results = reduce(Loop.joined, loops.values()).emit(next(iter(loops)))
    own = {node: results.of(loop.carries, loop.stacked) for node, loop in loops.items()}
    reads = [(each, each.inputs[0]) for each in live if each.op is RESULT and each.inputs[0] in own]
    return {read: stood for read, node in reads if (stood := own[node][read.attrs["index"]]) is not None}


def _group(nodes: Sequence[Node]) -> dict[Node, Loop]:
    """Loops that can be one: over the same rows, of one body, none of which waits for another."""
    groups: list[dict[Node, Loop]] = []
    for node in nodes:
        loop = Loop.of(node)
        group = next((group for group in groups if _fits(node, loop, group)), None)
        if group is None:
            groups.append({node: loop})
        else:
            group[node] = loop
    return next((group for group in groups if len(group) > 1), {})


def _fits(node: Node, loop: Loop, group: Mapping[Node, Loop]) -> bool:
    if not all(_is_alike(node, each) and _agree(loop, other) for each, other in group.items()):
        return False
    before = set(node.graph.live(node.inputs))
    return before.isdisjoint(group)


def _is_alike(node: Node, other: Node) -> bool:
    """Whether two loops take the same steps in the same order, of bodies that grew in one graph."""
    a, b = node.attrs, other.attrs
    return (a["length"], a["reverse"]) == (b["length"], b["reverse"]) and a["body_fn"].graph is b["body_fn"].graph


def _agree(loop: Loop, other: Loop) -> bool:
    """Whether they share leaves, and every one that they share stands for the same in both."""
    kinds = ((loop.consts, other.consts), (loop.carries, other.carries), (loop.rows, other.rows))
    shared = sum(len(a.keys() & b.keys()) for a, b in kinds)
    return shared == len(set(loop.leaves) & set(other.leaves)) > 0 and all(_same(a, b) for a, b in kinds)


def _same(a: Mapping[Node, object], b: Mapping[Node, object]) -> bool:
    return all(a[leaf] == b[leaf] for leaf in a.keys() & b.keys())
