"""Batching (vmap): a graph written for one example, run on many at once along one new leading axis.

One sweep in index order. A node that depends on nothing batched stays as it is; every other is emitted again by its
op's batch rule. An op without a rule is emitted once per example, and the results are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core import RESULT, Node, ops


def batch(replacements: Mapping[Node, Node], outputs: Sequence[Node]) -> list[Node]:
    """`outputs` with the new axis in front, all of them, where `replacements` maps nodes to batched stand-ins.

    A stand-in has the shape of its node with the size of the batch before it.
    """
    if not outputs:
        return []
    size = next(iter(replacements.values())).shape[0]
    known: dict[Node, Any] = dict(replacements)
    for node in outputs[0].graph.live(outputs):
        if node not in known and any(x in known for x in node.inputs):
            node.graph.origin = node.origin
            known[node] = in_batch(node, [known.get(x, x) for x in node.inputs], [x in known for x in node.inputs])
    return [known[node] if node in known else spread(node, size) for node in outputs]


def spread(node: Node, size: int) -> Node:
    """`node`, the same for every example."""
    return ops.broadcast_to(node, shape=(size, *node.shape))


def batch_size(args: Sequence[Node], batched: Sequence[bool]) -> int:
    """The length of the new axis, of which a rule sees operands with it and others without."""
    return next(arg.shape[0] for arg, has in zip(args, batched, strict=True) if has)


def in_batch(node: Node, args: Sequence[Any], batched: Sequence[bool]) -> Any:
    """The op of `node` on `args`, of which those flagged in `batched` have the new axis in front."""
    if node.op is RESULT:
        return args[0][node.attrs["index"]]
    if node.op.batch is not None:
        return node.op.batch(node, args, batched)
    return _unrolled(node, args, batched)


def _unrolled(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Any:
    """One call per example, stacked: right for any op, and long."""
    size = batch_size(args, batched)
    rows = [
        node.op.apply(
            node.graph,
            [ops.slice(arg, index=(at,)) if has else arg for arg, has in zip(args, batched, strict=True)],
            node.attrs,
        )
        for at in range(size)
    ]
    stacked = tuple(ops.stack(*column, axis=0) for column in zip(*rows, strict=True))
    return stacked if node.op.has_several else stacked[0]
