"""Graphs within graphs: what a loop repeats and a branch may skip.

A `Body` is the value of an attribute: leaves, one for each operand that it is given, and output nodes, in a graph of
its own. A derived body (its tangent, its adjoint, its batch) grows in the same graph as the one that it is derived
from, so whatever both compute is one node, and leaves tell which operand is which.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from functools import cached_property

from engine.attrs import SubGraph
from engine.core import CONSTANT, Graph, Node
from engine.plan import Plan, make_plan
from engine.types import Spec


class Body(SubGraph):
    """Leaves and outputs in one graph. Equal bodies have the same `repr`, so that nodes that hold them intern."""

    def __init__(self, graph: Graph, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
        self.graph = graph
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._partners: dict[Hashable, Node] = {}

    @cached_property
    def plan(self) -> Plan:
        """The plan of one pass. Raises LimitExceeded."""
        return make_plan(self.outputs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What the plan calls the inputs."""
        return tuple(leaf.attrs["name"] for leaf in self.inputs)

    @cached_property
    def live(self) -> list[Node]:
        """The nodes that the outputs need, in topological order."""
        return self.graph.live(self.outputs)

    @property
    def specs(self) -> tuple[Spec, ...]:
        return tuple(node.spec for node in self.outputs)

    def partner(self, role: Hashable, leaf: Node, spec: Spec) -> Node:
        """A leaf that stands beside one of the body's, as its tangent: the same each time it is asked for."""
        if (role, leaf) not in self._partners:
            self._partners[role, leaf] = fresh_leaf(self.graph, spec)
        return self._partners[role, leaf]

    def inline(self, graph: Graph, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """The outputs, emitted in another graph on `nodes`."""
        known = dict(zip(self.inputs, nodes, strict=True))
        for node in self.live:
            if node.op is CONSTANT and node.value is not None:
                known[node] = graph.constant(node.value, weak=node.weak)
            elif node not in known:
                inputs = tuple(known[x] for x in node.inputs)
                known[node] = graph.intern(node.op, inputs, node.attrs, weak=node.weak)
        return tuple(known[node] for node in self.outputs)

    @cached_property
    def _content(self) -> str:
        """A digest of what is computed from which input, whatever the leaves are called."""
        number = {leaf: f"in{at}:{leaf.spec}" for at, leaf in enumerate(self.inputs)}
        digest = hashlib.blake2b(digest_size=16)
        for node in self.live:
            if node not in number:
                number[node] = f"%{len(number)}"
                value = "" if node.value is None else f"{node.dtype}{node.shape}{node.value.tobytes()!r}"
                inputs = ",".join(number[x] for x in node.inputs)
                digest.update(f"{node.op.name}({inputs}){node.attrs!r}{node.weak}{value};".encode())
        digest.update(",".join([*number.values(), "out", *(number[node] for node in self.outputs)]).encode())
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"<body {self._content}>"


def fresh_leaf(graph: Graph, spec: Spec, *, weak: bool = False) -> Node:
    """A leaf of `graph` like no other."""
    return graph.input(f"leaf/{len(graph)}", spec, weak=weak)
