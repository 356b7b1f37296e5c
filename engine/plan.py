"""A plan: the nodes that some results need, in order, each with its kernel, where its operands are, what dies after it.

Everything that a run will cost is known here, before an array exists: floating-point operations, and the bytes that are
held at the peak. A value is given up at its last use; a large elementwise result is written over an operand that dies
there, because fresh pages cost more than arithmetic.

Steps stand in pieces, by the road that they take: `Calls` of NumPy, `Floats` for what is scalar (engine.floats), and
`Blocks` for what is large and elementwise (engine.groups). Which road that is follows from the nodes alone.

A *buffer* is the memory behind a value. Views (reshape, slice, broadcast) share the buffer of what they look at, so
buffers, not nodes, are what is counted and what is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from engine.core import CONSTANT, INPUT, RESULT, Node
from engine.costs import FREE, MICRO, RUN, Cost, block_cost, float_cost, step_cost, total
from engine.errors import LimitExceeded
from engine.floats import Form, form_of, function_of
from engine.groups import BLOCK, OUTSIDE, Group, Layout, arrange, count_of, folds_rows, is_member, layout_of
from engine.types import FLOAT64, Array, Shape

REUSE_FROM = 1 << 10
"""Elements from which writing into a dying operand pays (measured: below, the bookkeeping costs more)."""

TICK_FLOPS = 1 << 22
TICK_SECONDS = 0.002
TICK_STEPS, TICK_FLOATS = 1 << 9, 1 << 13
"""Work between two looks at the clock, some milliseconds: operations, estimated seconds, steps that call NumPy, steps
over floats."""

LEAST_FLOATS = 4
"""Steps from which a run of scalars between other steps is worth the way to floats and back."""

MOST_THREADS = 8
"""Threads that a run may have, at the most: each has blocks of its own."""

WARM = 2
"""The run from which a plan is worth being written as source: one that is run twice is run often."""

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


@dataclass(frozen=True, eq=False)
class Calls:
    """Steps of some milliseconds altogether, each a call of NumPy."""

    steps: tuple[Step, ...]


@dataclass(eq=False)
class Floats:
    """Steps over Python floats. Scalars are taken out of arrays first, (array, float), and put into arrays at the end.

    `dead` are the arrays to forget then.
    """

    steps: tuple[Step, ...]
    forms: tuple[Form, ...]
    loads: tuple[tuple[int, int], ...]
    stores: tuple[tuple[int, int], ...]
    dead: tuple[int, ...]
    written: Callable[[list[Any]], None] | None = None
    """The same as one function, once there is one."""
    write: Callable[[], Callable[[list[Any]], None]] | None = None
    """Writes that function, once it is to be written."""

    @property
    def is_plain(self) -> bool:
        """Whether it makes no call of NumPy's."""
        return not any(form.kernel for form in self.forms)


@dataclass(eq=False)
class Blocks:
    """Elementwise steps of one shape, and reductions of what they give; `steps` would do the same one by one.

    `dead` are the values to forget then.
    """

    steps: tuple[Step, ...]
    shape: Shape
    layout: Layout
    dead: tuple[int, ...]
    written: Callable[..., None] | None = None
    """What computes a block, once there is one (engine.source)."""

    @cached_property
    def outside(self) -> tuple[int, ...]:
        """Where operands are that no step makes."""
        own = {step.out for step in self.steps}
        return tuple(dict.fromkeys(place for step in self.steps for place in step.args if place not in own))

    @cached_property
    def folds(self) -> tuple[Step, ...]:
        """The reductions."""
        return tuple(step for step in self.steps if step.node.op.fold is not None)

    @cached_property
    def kept(self) -> tuple[Step, ...]:
        """Elementwise steps whose values are needed as a whole."""
        targets = zip(self.steps, self.layout.targets, strict=True)
        return tuple(step for step, target in targets if target == OUTSIDE and step.node.op.fold is None)


Piece: TypeAlias = Calls | Floats | Blocks


@dataclass(eq=False)
class Plan:
    """What `engine.execute.run` runs."""

    pieces: tuple[Piece, ...]
    template: tuple[Any, ...]
    """Values before the run: constants in their places."""
    inputs: tuple[tuple[int, str], ...]
    results: tuple[int, ...]
    floats: tuple[bool, ...]
    """Which of the results are scalars of float64."""
    flops: int
    peak_bytes: int
    own_bytes: int = 0
    """The peak without the inputs, which are there before the run."""
    cost: Cost = FREE
    shared_seconds: float = 0.0
    """The part of the time that threads may share."""
    runs: int = 0
    written: Callable[[Mapping[str, Array]], list[Array]] | None = None
    """The whole plan as one function of its inputs, once there is one (engine.source)."""

    @property
    def seconds(self) -> float:
        """What a run takes on one thread, as estimated: within a factor of 3, mostly (benchmarks/calibrate.py)."""
        return self.cost.seconds

    @property
    def longest_seconds(self) -> float:
        """What the longest call takes that no deadline can interrupt: of LAPACK, say, or a sort."""
        return self.cost.longest

    @property
    def held_seconds(self) -> float:
        """How long the interpreter's lock may be held, altogether, and no other thread runs."""
        return self.cost.held

    def seconds_over(self, threads: int) -> float:
        """What a run takes over some threads, as estimated."""
        return self.seconds - self.shared_seconds + self.shared_seconds / max(1, min(threads, MOST_THREADS))

    @property
    def steps(self) -> Iterator[Step]:
        return (step for piece in self.pieces for step in piece.steps)


def make_plan(results: Sequence[Node], live: Sequence[Node] | None = None, *, watched: bool = False) -> Plan:
    """The plan that computes `results`; `live` are the nodes that they need, in the order in which to do so.

    What is to be `watched` has no blocks, and nothing in it is written over. Raises LimitExceeded when its peak is over
    the graph's limit, or its time.
    """
    if not results:
        return Plan((), (), (), (), (), 0, 0)
    live = results[0].graph.live(results) if live is None else live
    groups = arrange(live, results, in_blocks=not watched)
    buffers = _Buffers(live, groups, results, reuses=not watched)
    maker = _Maker(live, groups, results, buffers)
    pieces = tuple(maker.pieces())
    limits, cost = results[0].graph.limits, total(maker.costs)
    if buffers.peak > limits.peak_bytes:
        raise LimitExceeded("peak_bytes", limits.peak_bytes, buffers.peak, "bytes at the planned peak")
    if cost.seconds > limits.cost_seconds:
        raise LimitExceeded("cost_seconds", limits.cost_seconds, cost.seconds, "seconds that this would take")
    return Plan(
        pieces=pieces,
        template=tuple(maker.template),
        inputs=tuple((maker.place[node], node.attrs["name"]) for node in live if node.op is INPUT),
        results=tuple(maker.place[node] for node in results),
        floats=tuple(node.dtype is FLOAT64 and not node.shape for node in results),
        flops=maker.flops,
        peak_bytes=buffers.peak,
        own_bytes=buffers.peak - sum(node.nbytes for node in live if node.op is INPUT),
        cost=cost,
        shared_seconds=maker.shared_seconds,
    )


class _Maker:
    """Groups, in their order, as pieces."""

    def __init__(
        self, live: Sequence[Node], groups: Sequence[Group], results: Sequence[Node], buffers: _Buffers
    ) -> None:
        self.groups = groups
        self.buffers = buffers
        self.place = {node: at for at, node in enumerate(live)}
        self.template: list[Any] = [node.value for node in live]
        self.forms = _forms(groups)
        self.floats: dict[Node, int] = {}
        """Where values are that are floats: in places of their own."""
        self.flops = 0
        self.costs = [Cost(MICRO * RUN, 0.0, MICRO * RUN)]
        self.shared_seconds = 0.0
        self.boxed = set(results)
        """Scalars that are needed as arrays, too."""
        for group in groups:
            self.boxed.update(x for node in group.nodes if node not in self.forms for x in node.inputs)

    def pieces(self) -> Iterator[Piece]:
        for road, found in groupby(self.groups, self._road):
            if road is Floats:
                nodes = [group.nodes[0] for group in found]
                for at in range(0, len(nodes), TICK_FLOATS):
                    yield self._floats(nodes[at : at + TICK_FLOATS])
            elif road is Calls:
                yield from self._calls([group.nodes[0] for group in found])
            else:
                for group in found:
                    yield self._blocks(group)

    def _road(self, group: Group) -> type[Piece]:
        return Blocks if group.shape is not None else Floats if group.nodes[0] in self.forms else Calls

    def _calls(self, nodes: Sequence[Node]) -> Iterator[Calls]:
        """Steps in pieces that take some milliseconds each, so that a deadline is looked at in between."""
        steps: list[Step] = []
        work = 0.0
        for node in nodes:
            into = self.buffers.allocate((node,), (node,), node.scratch_bytes)
            steps.append(self._step(node, into))
            cost = step_cost(node)
            self.flops += node.flops
            self.costs.append(cost)
            work += cost.seconds
            if work >= TICK_SECONDS or len(steps) >= TICK_STEPS:
                yield Calls(tuple(steps))
                steps, work = [], 0.0
        if steps:
            yield Calls(tuple(steps))

    def _step(self, node: Node, into: Node | None) -> Step:
        return Step(
            kernel=kernel_of(node),
            args=tuple([self.place[x] for x in node.inputs]),
            out=self.place[node],
            into=self.place[into] if into is not None else STEERS if node.op.steers else NOWHERE,
            dead=tuple([self.place[x] for x in self.buffers.dying((node,))]),
            node=node,
        )

    def _floats(self, nodes: Sequence[Node]) -> Floats:
        loads: list[tuple[int, int]] = []
        dead: list[int] = []
        steps = []
        for node in nodes:
            dead += [self.place[x] for x in self.buffers.pass_by(node, self.forms)]
            args = tuple([self._float(x, loads) for x in node.inputs])
            out = self._float_place(node)
            steps.append(Step(function_of(self.forms[node], len(args)), args, out, NOWHERE, (), node))
            self.flops += node.flops
        self.costs.append(float_cost(len(nodes)))
        stores = [(self.floats[node], self.place[node]) for node in nodes if node in self.boxed]
        forms = tuple([self.forms[node] for node in nodes])
        return Floats(tuple(steps), forms, tuple(loads), tuple(stores), tuple(dead))

    def _float(self, x: Node, loads: list[tuple[int, int]]) -> int:
        """Where `x` is as a float. A constant is one from the start, what comes in an array is taken out of it once."""
        if x not in self.floats:
            place = self._float_place(x)
            if x.value is None:
                loads.append((self.place[x], place))
            else:
                self.template[place] = x.value.item()
        return self.floats[x]

    def _float_place(self, node: Node) -> int:
        self.floats[node] = len(self.template)
        self.template.append(None)
        return self.floats[node]

    def _blocks(self, group: Group) -> Blocks:
        assert group.shape is not None
        layout = layout_of(group)
        self.buffers.allocate(group.nodes, group.kept, _block_bytes(group, layout))
        self.flops += sum(node.flops for node in group.nodes)
        cost = block_cost(group.nodes, group.kept)
        self.costs.append(cost)
        self.shared_seconds += cost.seconds
        dead = tuple(self.place[x] for x in self.buffers.dying(group.nodes))
        inner = {self.place[node] for node in group.nodes if node not in group.kept}
        last_use = {self.place[x]: node for node in group.nodes for x in node.inputs}
        ends: dict[Node, list[int]] = {node: [] for node in group.nodes}
        for place in (*dead, *(inner & last_use.keys())):
            ends[last_use[place]].append(place)
        steps = tuple(self._step(node, None)._replace(dead=tuple(ends[node])) for node in group.nodes)
        return Blocks(steps, group.shape, layout, dead)


def _block_bytes(group: Group, layout: Layout) -> int:
    """Blocks of every thread, with the workspace that kernels take for a block; and the parts of reductions, which are
    put into one array."""
    own = max((node.scratch_bytes * BLOCK // max(1, node.size) for node in group.nodes if is_member(node)), default=0)
    assert group.shape is not None
    folds = [node for node in group.nodes if not is_member(node) and not folds_rows(node)]
    return MOST_THREADS * (layout.nbytes + own) + 2 * count_of(group.shape) * sum(node.nbytes for node in folds)


def kernel_of(node: Node) -> Callable[..., Any]:
    """The kernel of a node with its attributes settled."""
    kernel = node.op.kernel
    assert kernel is not None
    if node.op.settled is not None:
        return node.op.settled(**node.attrs)
    return partial(kernel, **node.attrs) if node.attrs else kernel


def _forms(groups: Sequence[Group]) -> dict[Node, Form]:
    """The nodes that run as floats: all that can, but for a few that stand alone between others."""
    forms = {node: form for group in groups if (form := form_of(node := group.nodes[0])) is not None}
    if len(forms) == len(groups):
        return forms
    kept: dict[Node, Form] = {}
    for is_float, run in groupby(groups, lambda group: group.nodes[0] in forms):
        nodes = [group.nodes[0] for group in run]
        if is_float and len(nodes) >= LEAST_FLOATS:
            kept |= {node: forms[node] for node in nodes}
    return kept


class _Buffers:
    """Which memory lives when, in one walk over the groups in order."""

    def __init__(
        self, live: Sequence[Node], groups: Sequence[Group], results: Sequence[Node], *, reuses: bool = True
    ) -> None:
        self._reuses = reuses
        self._owner: dict[Node, Node] = {}
        self._copies: dict[Node, int] = {}
        self._home: dict[Node, int] = {}
        """The group of each node, by its number."""
        self._last_use: dict[Node, int] = {}
        self._end: dict[Node, int] = {}
        """The last group that needs a buffer, by its owner."""
        leaves = [node for node in live if node.op is INPUT or node.op is CONSTANT]
        for node in leaves:
            self._owner[node] = node
        for at, group in enumerate(groups):
            for node in group.nodes:
                self._enter(node, at)
        for node in results:
            self._end[self._owner[node]] = len(groups)
            self._last_use.pop(node, None)
        self._taken_over: set[Node] = set(leaves)
        """Owners whose memory is not given back at their end: leaves, mere blocks, and what another took over."""
        self._held = sum(node.nbytes for node in leaves)
        self.peak = self._held

    def _enter(self, node: Node, at: int) -> None:
        self._home[node] = at
        self._owner[node] = owner = self._owner[node.inputs[0]] if _is_view(node) else node
        if _is_copy(node):
            # It lives as long as its owner, at the worst.
            self._copies[owner] = self._copies.get(owner, 0) + node.nbytes
        for x in node.inputs:
            self._last_use[x] = at
            self._end[self._owner[x]] = at

    def dying(self, nodes: Sequence[Node]) -> list[Node]:
        """The operands of a group that nothing needs after it."""
        at = self._home[nodes[0]]
        operands = dict.fromkeys(x for node in nodes for x in node.inputs)
        return [x for x in operands if self._last_use.get(x) == at and self._home.get(x) != at]

    def allocate(self, nodes: Sequence[Node], kept: Sequence[Node], scratch: int) -> Node | None:
        """Count the memory of a group; of a single node, the operand whose buffer it takes over, if any."""
        at = self._home[nodes[0]]
        victim = self._victim(nodes[0]) if len(nodes) == 1 else None
        if victim is not None:
            # The buffer goes on under a new owner, to the new owner's end.
            self._taken_over.add(victim)
        else:
            self._held += sum(node.nbytes for node in kept if not _is_view(node) or _is_copy(node))
            self._taken_over.update(node for node in nodes if node not in kept)
        self.peak = max(self.peak, self._held + scratch)
        for x in dict.fromkeys(self._owner[x] for node in nodes for x in node.inputs):
            if self._end.get(x) == at:
                self._release(x)
        return victim

    def pass_by(self, node: Node, floats: Container[Node]) -> list[Node]:
        """Count a node over floats, in short; the arrays among its operands that nothing needs after it."""
        at = self._home[node]
        self._held += node.nbytes
        self.peak = max(self.peak, self._held)
        operands = dict.fromkeys(node.inputs)
        for owner in {self._owner[x] for x in operands}:
            if self._end.get(owner) == at:
                self._release(owner)
        return [x for x in operands if x not in floats and self._last_use.get(x) == at]

    def _victim(self, node: Node) -> Node | None:
        if not self._reuses or not node.op.takes_out or node.size < REUSE_FROM:
            return None
        for x in node.inputs:
            if x.spec == node.spec and _is_fresh(x) and self._end.get(x) == self._home[node]:
                return x
        return None

    def _release(self, owner: Node) -> None:
        """Give back a buffer at its end, unless another took it over."""
        self._held -= self._copies.get(owner, 0)
        if owner not in self._taken_over:
            self._held -= owner.nbytes


def _is_fresh(x: Node) -> bool:
    op = x.op
    return isinstance(op.kernel, np.ufunc) or op.owns or (op.pointwise and not op.view)


def _is_view(node: Node) -> bool:
    return bool(node.inputs) and (node.op.view or node.op is RESULT)


def _is_copy(node: Node) -> bool:
    """Whether a view has to be a copy, as reshape makes of what is stretched, transposed or sliced."""
    x = node.inputs[0] if node.inputs else node
    return node.op.packs and x.op.view and not x.op.packs
