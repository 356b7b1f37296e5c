"""Which nodes a derivative passes through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.attrs import SubGraph
from engine.core import RESULT, Node
from engine.types import is_inexact


def between(sources: Iterable[Node], targets: Sequence[Node]) -> list[Node]:
    """The nodes that `targets` need and that depend differentiably on `sources`, in topological order.

    Sources are among them even where they depend on nothing. An op whose derivative is zero ends a path.
    """
    if not targets:
        return []
    starts = set(sources)
    reached: set[Node] = set()
    for node in targets[0].graph.live(targets):
        if node in starts or (passes(node) and any(x in reached for x in node.inputs)):
            reached.add(node)
    return sorted(reached, key=lambda node: node.index)


def depending(sources: Iterable[Node], targets: Sequence[Node]) -> list[Node]:
    """The nodes that `targets` need and that depend on `sources`, by whatever path, in topological order."""
    if not targets:
        return []
    reached = dict.fromkeys(sources)
    count = len(reached)
    for node in targets[0].graph.live(targets):
        if any(x in reached for x in node.inputs):
            reached[node] = None
    return list(reached)[count:]


def unholomorphic(source: Node, target: Node) -> Node | None:
    """The first node between a complex source and a complex target that keeps it from being holomorphic, if any.

    What is real on the way is one: a real function has a complex derivative only where it is constant.
    """
    leads = {target}
    culprit = None
    for node in reversed(between([source], [target])):
        if node in leads:
            leads.update(node.inputs)
            culprit = culprit if _is_holomorphic(node) else node
    return culprit


def _is_holomorphic(node: Node) -> bool:
    """Whether a complex derivative goes on through a node: its result is complex, and so is what is inside of it."""
    if not node.op.holomorphic or (node.dtype.kind != "c" and not node.op.has_several):
        return False
    bodies = [each for each in node.attrs.values() if isinstance(each, SubGraph)]
    pairs = ((x, out) for body in bodies for x in body.inputs for out in body.outputs)
    return not any(x.dtype.kind == "c" and unholomorphic(x, out) for x, out in pairs)


def passes(node: Node) -> bool:
    """Whether a derivative can pass through the op of `node` at all."""
    if not any(is_inexact(spec.dtype) for spec in node.specs):
        return False
    return node.op is RESULT or (node.op.derivative is not None and not node.op.derivative.is_flat)
