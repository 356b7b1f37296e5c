"""A plan: the nodes that some results need, in order, each with its kernel, where its operands are, what dies after it.

Everything that a run will cost is known here, before an array exists: floating-point operations, and the bytes that are
held at the peak. A value is given up at its last use; a large elementwise result is written over an operand that dies
there, because fresh pages cost more than arithmetic.

A *buffer* is the memory behind a value. Views (reshape, slice, broadcast) share the buffer of what they look at, so
buffers, not nodes, are what is counted and what is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from engine.core import CONSTANT, INPUT, RESULT, Node
from engine.errors import LimitExceeded
from engine.types import Array

REUSE_FROM = 1 << 10
"""Elements from which writing into a dying operand pays (measured: below, the bookkeeping costs more)."""

TICK_FLOPS = 1 << 22
TICK_STEPS = 512
"""Work between two looks at the clock: some milliseconds."""


NOWHERE, STEERS = -1, -2


class Step(NamedTuple):
    """Call `kernel` on the values at `args`; keep the result at `out`; then forget the values at `dead`."""

    kernel: Callable[..., Any]
    args: tuple[int, ...]
    out: int
    into: int
    """The place of the operand that the result overwrites; or NOWHERE; or STEERS, for a kernel that runs graphs."""
    dead: tuple[int, ...]
    node: Node


@dataclass(frozen=True)
class Plan:
    """What `engine.execute.run` runs."""

    chunks: tuple[tuple[Step, ...], ...]
    template: tuple[Array | None, ...]
    """Values before the run: constants in their places."""
    inputs: tuple[tuple[int, str], ...]
    results: tuple[int, ...]
    flops: int
    peak_bytes: int


def make_plan(results: Sequence[Node], live: Sequence[Node] | None = None) -> Plan:
    """The plan that computes `results`; `live` are the nodes that they need, in the order in which to do so.

    Raises LimitExceeded when its peak is over the graph's limit.
    """
    if not results:
        return Plan((), (), (), (), 0, 0)
    live = results[0].graph.live(results) if live is None else live
    place = {node: at for at, node in enumerate(live)}
    buffers = _Buffers(live, results)
    steps = [_step(node, place, buffers) for node in live if node.op is not INPUT and node.op is not CONSTANT]
    limit = results[0].graph.limits.peak_bytes
    if buffers.peak > limit:
        raise LimitExceeded("peak_bytes", limit, buffers.peak, "bytes at the planned peak")
    costs = [flops_of(step.node) for step in steps]
    return Plan(
        chunks=_chunked(steps, costs),
        template=tuple(node.value for node in live),
        inputs=tuple((place[node], node.attrs["name"]) for node in live if node.op is INPUT),
        results=tuple(place[node] for node in results),
        flops=sum(costs),
        peak_bytes=buffers.peak,
    )


def flops_of(node: Node) -> int:
    """Floating-point operations of one node; an element counts as one operation unless its op says otherwise."""
    if node.op.flops is None:
        return node.size
    return node.op.flops(node.shape, *[x.shape for x in node.inputs], **node.attrs)


def _step(node: Node, place: dict[Node, int], buffers: _Buffers) -> Step:
    kernel = node.op.kernel
    assert kernel is not None
    into = buffers.allocate(node)
    return Step(
        kernel=partial(kernel, **node.attrs) if node.attrs else kernel,
        args=tuple(place[x] for x in node.inputs),
        out=place[node],
        into=place[into] if into is not None else STEERS if node.op.steers else NOWHERE,
        dead=tuple(place[x] for x in buffers.dying(node)),
        node=node,
    )


def _chunked(steps: Sequence[Step], costs: Sequence[int]) -> tuple[tuple[Step, ...], ...]:
    """Steps in groups that take some milliseconds each, so that a deadline is looked at in between."""
    chunks: list[tuple[Step, ...]] = []
    start, work = 0, 0
    for at, cost in enumerate(costs):
        work += cost
        if work >= TICK_FLOPS or at + 1 - start >= TICK_STEPS:
            chunks.append(tuple(steps[start : at + 1]))
            start, work = at + 1, 0
    return (*chunks, tuple(steps[start:])) if start < len(steps) else tuple(chunks)


class _Buffers:
    """Which memory lives when, in one walk over the nodes in order."""

    def __init__(self, live: Sequence[Node], results: Sequence[Node]) -> None:
        self._owner: dict[Node, Node] = {}
        self._copies: dict[Node, int] = {}
        self._last_use: dict[Node, Node] = {}
        self._end: dict[Node, Node | None] = {}
        for node in live:
            self._owner[node] = self._owner[node.inputs[0]] if _is_view(node) else node
            if _is_copy(node):
                # It lives as long as its owner, at the worst.
                self._copies[self._owner[node]] = self._copies.get(self._owner[node], 0) + node.nbytes
            for x in node.inputs:
                self._last_use[x] = node
                self._end[self._owner[x]] = node
        for node in results:
            self._end[self._owner[node]] = None
            self._last_use.pop(node, None)
        self._taken_over: set[Node] = set()
        self._held = sum(node.nbytes for node in live if node.op is INPUT or node.op is CONSTANT)
        self.peak = self._held

    def dying(self, node: Node) -> list[Node]:
        """The operands of `node` that nothing needs after it."""
        return [x for x in dict.fromkeys(node.inputs) if self._last_use.get(x) is node]

    def allocate(self, node: Node) -> Node | None:
        """Count the memory of `node`; the operand whose buffer it takes over, if any."""
        victim = self._victim(node)
        if victim is not None:
            # The buffer goes on under a new owner, to the new owner's end.
            self._taken_over.add(victim)
        elif not _is_view(node) or _is_copy(node):
            self._held += node.nbytes
        scratch = (
            0 if node.op.scratch is None else node.op.scratch(node.shape, *[x.shape for x in node.inputs], **node.attrs)
        )
        self.peak = max(self.peak, self._held + scratch * node.dtype.itemsize)
        self._release(node)
        return victim

    def _victim(self, node: Node) -> Node | None:
        if not isinstance(node.op.kernel, np.ufunc) or node.size < REUSE_FROM:
            return None
        for x in node.inputs:
            if x.spec == node.spec and isinstance(x.op.kernel, np.ufunc) and self._end.get(x) is node:
                return x
        return None

    def _release(self, node: Node) -> None:
        """Give back the buffers that end with `node`, unless it took one over."""
        for x in node.inputs:
            owner = self._owner[x]
            if self._end.get(owner) is not node:
                continue
            self._end[owner] = None
            self._held -= self._copies.get(owner, 0)
            if owner not in self._taken_over and owner.op is not INPUT and owner.op is not CONSTANT:
                self._held -= owner.nbytes


def _is_view(node: Node) -> bool:
    return bool(node.inputs) and (node.op.view or node.op is RESULT)


def _is_copy(node: Node) -> bool:
    """Whether a view has to be a copy, as reshape makes of what is stretched, transposed or sliced."""
    x = node.inputs[0] if node.inputs else node
    return node.op.packs and x.op.view and not x.op.packs
