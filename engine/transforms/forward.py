"""Forward mode: tangents of inputs, carried along to the outputs, in one sweep in index order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core import RESULT, Node, cast
from engine.transforms.paths import between


def forward(tangents: Mapping[Node, Node | None], outputs: Sequence[Node]) -> list[Node | None]:
    """The tangent of each of `outputs`: the Jacobian-vector product. None is a zero.

    `tangents` maps nodes to tangents of their shape and dtype; None holds a node where it is.
    """
    known: dict[Node, Any] = dict(tangents)
    for node in between(tangents, outputs):
        if node not in known:
            node.graph.origin = node.origin
            known[node] = tangent_of(node, [known.get(x) for x in node.inputs])
    return [known.get(node) for node in outputs]


def tangent_of(node: Node, tangents: Sequence[Any]) -> Any:
    """The tangent of one node from those of its inputs: a node, None for zero, or a tuple for several results."""
    if node.op is RESULT:
        return tangents[0] and tangents[0][node.attrs["index"]]
    assert node.op.derivative is not None
    t = node.op.derivative.forward(node, tangents)
    return cast(t, node.dtype) if isinstance(t, Node) else t
