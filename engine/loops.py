"""A loop as a value: what each leaf of its body is bound to, and which nodes of the body are stacked.

The derivatives of a loop are loops over bodies that grew in the same graph, and leaves tell what each of them is given.
So one is made of another by adding to its tables, and nothing counts places: results are found by the leaf of the carry
that ended there, or by the node that was stacked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from engine.bodies import Body
from engine.core import Graph, Node, ops

Each = TypeVar("Each")


class Carry(NamedTuple):
    """What a carry starts with, and what it becomes in a step."""

    start: Node
    becomes: Node


class Results(NamedTuple):
    """How carries end, by their leaves, and what is stacked, by the node of the body."""

    carries: Mapping[Node, Node]
    stacked: Mapping[Node, Node]

    def of(self, carries: Iterable[Node | None], stacked: Iterable[Node | None]) -> tuple[Node | None, ...]:
        """The results by some leaves, then those by some nodes; None by what the loop has none for."""
        return (*(x and self.carries.get(x) for x in carries), *(y and self.stacked.get(y) for y in stacked))


@dataclass(frozen=True)
class Loop:
    """A scan or a while_loop: by leaf of the body, what every step is given alike, what goes from step to step, and
    what is taken row by row."""

    consts: Mapping[Node, Node]
    carries: Mapping[Node, Carry]
    rows: Mapping[Node, Node]
    stacked: Sequence[Node] = ()

    @classmethod
    def of(cls, node: Node) -> Loop:
        body: Body = node.attrs["body_fn"]
        pairs = list(zip(body.inputs, node.inputs, strict=True))
        consts, states, rows = in_kinds(pairs, node.attrs["consts"], node.attrs.get("carry", len(pairs)))
        carries = {leaf: Carry(start, becomes) for (leaf, start), becomes in zip(states, body.outputs, strict=False)}
        return cls(dict(consts), carries, dict(rows), body.outputs[len(carries) :])

    @property
    def leaves(self) -> tuple[Node, ...]:
        return (*self.consts, *self.carries, *self.rows)

    @property
    def operands(self) -> tuple[Node, ...]:
        return (*self.consts.values(), *(each.start for each in self.carries.values()), *self.rows.values())

    @property
    def outputs(self) -> tuple[Node, ...]:
        return (*(each.becomes for each in self.carries.values()), *self.stacked)

    def joined(self, other: Loop) -> Loop:
        """Both as one, which stacks once what both do."""
        return Loop(
            {**self.consts, **other.consts},
            {**self.carries, **other.carries},
            {**self.rows, **other.rows},
            list(dict.fromkeys([*self.stacked, *other.stacked])),
        )

    def emit(self, like: Node, **attrs: Any) -> Results:
        """A scan of this, without the operands that no step needs, otherwise as the scan `like` or as `attrs` have it.

        What neither carries nor stacks anything is no loop, and gives nothing.
        """
        graph = like.attrs["body_fn"].graph
        lean = self._lean(graph)
        if not lean.outputs:
            return Results({}, {})
        sizes = {"consts": len(lean.consts), "carry": len(lean.carries)}
        body = Body(graph, lean.leaves, lean.outputs)
        found = iter(ops.scan.apply(like.graph, lean.operands, like.attrs | attrs | sizes | {"body_fn": body}))
        return Results(
            dict(zip(lean.carries, found, strict=False)),
            dict(zip(lean.stacked, found, strict=True)),
        )

    def _lean(self, graph: Graph) -> Loop:
        needed = set(graph.live(self.outputs))
        return Loop(
            {leaf: x for leaf, x in self.consts.items() if leaf in needed},
            self.carries,
            {leaf: x for leaf, x in self.rows.items() if leaf in needed},
            list(dict.fromkeys(self.stacked)),
        )


def in_kinds(each: Sequence[Each], consts: int, carry: int) -> tuple[Sequence[Each], Sequence[Each], Sequence[Each]]:
    """What goes with each operand of a loop, apart for consts, carries and rows."""
    return each[:consts], each[consts : consts + carry], each[consts + carry :]
