"""Reverse mode: cotangents of outputs, carried back to where they were asked for.

One sweep over the nodes in between, in descending index order: a node's cotangents are all summed before its rule
runs, so every rule runs once. On a static graph residuals are just nodes; nothing is taped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.core import RESULT, Node, cast
from engine.derivative import plus
from engine.transforms.paths import between


def reverse(outputs: Iterable[tuple[Node, Node | None]], wrt: Sequence[Node]) -> list[Node | None]:
    """The cotangent of each of `wrt`: Σ over outputs of the vector-Jacobian product. None is a zero.

    `outputs` pairs nodes with cotangents of their shape and dtype.
    """
    pending: dict[Node, Any] = {}
    for node, g in outputs:
        pending[node] = plus(pending.get(node), g)
    path = between(wrt, list(pending))
    on_path = set(path)
    for node in reversed(path):
        g = pending.get(node)
        if g is not None and node.inputs:
            node.graph.origin = node.origin
            _carry_back(node, g, on_path, pending)
    return [pending.get(node) for node in wrt]


def _carry_back(node: Node, g: Any, on_path: set[Node], pending: dict[Node, Any]) -> None:
    """Add the cotangents that `g` gives to the inputs of `node`."""
    if node.op is RESULT:
        several = node.inputs[0]
        if several in on_path:
            slots = pending.setdefault(several, [None] * len(several.specs))
            slots[node.attrs["index"]] = plus(slots[node.attrs["index"]], g)
        return
    wanted = [x in on_path for x in node.inputs]
    if not any(wanted):
        return
    assert node.op.derivative is not None
    for x, part, want in zip(node.inputs, node.op.derivative.reverse(node, g, wanted), wanted, strict=True):
        if want and part is not None:
            pending[x] = plus(pending.get(x), cast(part, x.dtype))
