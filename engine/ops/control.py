"""Control flow: branches and loops, whose bodies are graphs (engine.bodies).

An op that holds a graph is differentiated by transforming that graph, so this is the one place where ops know the
transforms. The tangent of a scan is a scan of the body's tangent, its adjoint a scan of the body's adjoint the other
way round, its series a scan of the body's series; the same of branches and of while loops, which have no adjoint: how
many steps they take is not known before they run. So what comes out are loops again, and any derivative can be derived.

Operands stand in one order: what every step is given alike (`consts`), what goes from step to step (`carry`), what is
taken row by row. What a function takes from around it joins the `consts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from engine import attrs as kinds
from engine.bodies import Body, fresh_leaf
from engine.core import Attrs, Graph, Node, Operand, Refusal, Sample, cast, define, ops
from engine.derivative import Series, filled, plus
from engine.errors import DtypeMismatch, InvalidGraph, LimitExceeded, NotDifferentiable, ShapeMismatch
from engine.families import with_rank
from engine.loops import Carry, Loop, Results, in_kinds
from engine.plan import Plan
from engine.transforms.batch import batch, batch_size, spread
from engine.transforms.paths import depending
from engine.transforms.reverse import reverse
from engine.transforms.taylor import series_along
from engine.types import BOOL, INT64, Shape, Spec, is_inexact, promote

VALUES = Operand("operands", "biufc", promotes=False, variadic=True)
CONSTS = kinds.integer("How many of the operands come first, and are the same in every step.", 0)

_Made = TypeVar("_Made")
_Cotangents: TypeAlias = tuple[dict[int, Node], dict[Node, Node | None]]
_Series: TypeAlias = Mapping[Node, Sequence[Node | None]]


# What a body becomes under a transform


def _zero(spec: Spec, graph: Graph) -> Node:
    return filled(graph, 0, spec)


def _cotangents(body: Body, given: Sequence[bool], wanted: Sequence[Node]) -> _Cotangents:
    """Leaves for the cotangents of the outputs that have one, by place; and the cotangents of the `wanted` inputs."""
    seeds = {
        at: body.partner(("cotangent", at), out, out.spec)
        for at, (out, has) in enumerate(zip(body.outputs, given, strict=True))
        if has
    }
    found = reverse([(body.outputs[at], seed) for at, seed in seeds.items()], wanted)
    return seeds, dict(zip(wanted, found, strict=True))


def _batched_body(body: Body, size: int, flagged: AbstractSet[Node], always: Sequence[bool]) -> tuple[Body, list[bool]]:
    """The body under one more axis of the inputs that are flagged; and which outputs have it.

    These are the outputs that depend on what is flagged, and those of `always`.
    """
    leaves = {x: body.partner(("batch", size), x, Spec((size, *x.shape), x.dtype)) for x in body.inputs if x in flagged}
    reached = {*leaves, *depending(leaves, body.outputs)}
    has_axis = [out in reached or one for out, one in zip(body.outputs, always, strict=True)]
    rows = batch(leaves, body.outputs) if leaves else [spread(out, size) for out in body.outputs]
    outputs = [row if has else out for row, out, has in zip(rows, body.outputs, has_axis, strict=True)]
    return Body(body.graph, [leaves.get(x, x) for x in body.inputs], outputs), has_axis


def _series_leaves(body: Body, moving: AbstractSet[Node], order: int) -> dict[Node, list[Node]]:
    """Leaves for the coefficients 1 to `order` of the inputs that move."""
    return {
        x: [body.partner(("coefficient", k), x, x.spec) for k in range(1, order + 1)]
        for x in body.inputs
        if x in moving
    }


def _settled(reached: AbstractSet[Node], step: Callable[[AbstractSet[Node]], tuple[_Made, AbstractSet[Node]]]) -> _Made:
    """What `step` makes of some inputs, once it reaches no more: what reaches a carry is there in the next step."""
    while True:
        made, found = step(reached)
        if found <= reached:
            return made
        reached = reached | found


def _flagged(body: Body, flags: Sequence[bool]) -> set[Node]:
    return {x for x, flag in zip(body.inputs, flags, strict=True) if flag}


def _any(values: Sequence[Any]) -> bool:
    return any(value is not None for value in values)


# Functions become bodies


def _specs_of(nodes: Sequence[Node]) -> list[Spec]:
    return [node.spec for node in nodes]


def _weak(nodes: Sequence[Node]) -> set[int]:
    """The places of bare numbers."""
    return {at for at, node in enumerate(nodes) if node.weak}


def _is_open(value: Any) -> bool:
    """Whether an attribute still names a function, and is no typed body yet."""
    return not isinstance(value, Body)


def _closure(value: Any, name: str) -> Any:
    if isinstance(value, str):
        raise InvalidGraph(f"{name} names the function {value[:64]!r}, but there are no functions here")
    return value


def _matched(carries: Sequence[Node], specs: Sequence[Spec], name: str) -> None:
    """Raises what a step would change of a carry."""
    for at, (node, spec) in enumerate(zip(carries, specs, strict=False)):
        if node.shape != spec.shape:
            raise ShapeMismatch(
                f"carry {at} of {name} starts with shape {list(node.shape)} and comes back with {list(spec.shape)}; "
                "a carry keeps its shape"
            )
        if node.dtype != spec.dtype:
            raise DtypeMismatch(
                f"carry {at} of {name} starts as {node.dtype.name} and comes back as {spec.dtype.name}; "
                "a carry keeps its dtype"
            )


def _strong(node: Node) -> Node:
    """A bare number as a tensor: float64, if nothing says otherwise."""
    return node.graph.constant(node.value) if node.weak and node.value is not None else node


def _number(node: Node) -> Node:
    """A bare number as a result: numbers that meet only numbers are float64."""
    return cast(node, np.dtype(float)) if node.weak and node.dtype == INT64 else node


def _plain(node: Node) -> Node:
    return _strong(_number(node))


def _traced(
    closure: Any, before: Sequence[Node], carries: Sequence[Node], after: Sequence[Spec]
) -> tuple[Body, list[Node], list[Node]]:
    """The body of a loop: its inputs are (captured, before, carries, after). Also what is captured, and the carries.

    A bare number that starts a carry takes the dtype in which the function gives it back.
    """
    start = list(carries)
    weak = _weak(before)
    numbers = [at for at, node in enumerate(carries) if node.weak]
    if numbers:
        given = weak | {len(before) + at for at in numbers}
        tried, _ = closure.trace([*_specs_of(before), *_specs_of(start), *after], given)
        for at, spec in zip(numbers, _carried(closure, tried, len(carries), numbers), strict=True):
            start[at] = _strong(cast(carries[at], spec.dtype))
    body, captured = closure.trace([*_specs_of(before), *_specs_of(start), *after], weak)
    _carried(closure, body, len(carries), range(len(carries)))
    body = Body(body.graph, body.inputs, _as_carries(body.outputs, start))
    _matched(start, body.specs, closure.name)
    return body, captured, start


def _as_carries(outputs: Sequence[Node], carries: Sequence[Node]) -> list[Node]:
    """The results of a step, with bare numbers in the dtypes of the carries that they are to be."""
    settled = [
        cast(out, carry.dtype) if out.weak and promote([carry.dtype], [out.dtype]) == carry.dtype else out
        for out, carry in zip(outputs, carries, strict=False)
    ]
    return [*settled, *outputs[len(carries) :]]


def _carried(closure: Any, body: Body, count: int, places: Sequence[int]) -> list[Spec]:
    """The specs of some of the carries that a step gives back. Raises ShapeMismatch where it gives too few results."""
    if len(body.outputs) < count:
        raise ShapeMismatch(f"{closure.name} has {len(body.outputs)} results; expected {count} carries first")
    return [body.specs[at] for at in places]


# scan


def _by_kind(node: Node, each: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
    return in_kinds(each, node.attrs["consts"], node.attrs["carry"])


def _close_scan(graph: Graph, nodes: Sequence[Node], attrs: Attrs) -> tuple[Sequence[Node], Attrs]:
    """Lengths settled, and the function traced. Raises what does not fit together."""
    consts, carry = attrs["consts"], attrs["carry"]
    if not (consts >= 0 and carry >= 0 and consts + carry <= len(nodes)):
        raise InvalidGraph(f"scan has {len(nodes)} operands: not {consts} consts and {carry} carries", pointer="/attrs")
    fixed, states, rows = in_kinds(nodes, consts, carry)
    length = _length(rows, attrs["length"], "scan")
    attrs = attrs | {"length": _bounded(graph, length)}
    if not _is_open(attrs["body_fn"]):
        return nodes, attrs
    specs = [Spec(x.shape[1:], x.dtype) for x in rows]
    body, captured, carries = _traced(_closure(attrs["body_fn"], "body_fn"), fixed, states, specs)
    attrs = attrs | {"body_fn": body, "consts": consts + len(captured)}
    return [*captured, *fixed, *carries, *rows], attrs


def _length(rows: Sequence[Node], given: int | None, name: str) -> int:
    """How many steps there are. Raises ShapeMismatch where rows and the attribute disagree, or neither says."""
    for x in rows:
        if not x.rank:
            raise ShapeMismatch(f"{name} goes along the first axis of what it takes row by row, got a scalar")
    sizes = {x.shape[0] for x in rows} | (set() if given is None else {given})
    if not sizes:
        raise InvalidGraph(f"{name} without rows needs the attribute 'length'", pointer="/attrs")
    if len(sizes) > 1:
        raise ShapeMismatch(f"{name} over rows of different lengths: {', '.join(map(str, sorted(sizes)))}")
    return sizes.pop()


def _bounded(graph: Graph, length: int) -> int:
    if length < 0:
        raise InvalidGraph(f"a loop takes 0 steps or more, got {length}", pointer="/attrs")
    if length > graph.limits.loop_steps:
        raise LimitExceeded("loop_steps", graph.limits.loop_steps, length, "steps of the loop")
    return length


def _scan_specs(*nodes: Node, body_fn: Body, consts: int, carry: int, length: int, reverse: bool) -> tuple[Spec, ...]:
    specs = body_fn.specs
    return (*specs[:carry], *(Spec((length, *spec.shape), spec.dtype) for spec in specs[carry:]))


def _scan(
    *operands: Any, body_fn: Body, consts: int, carry: int, length: int, reverse: bool, run: Callable[..., Any]
) -> tuple[Any, ...]:
    fixed, carries, rows = in_kinds(operands, consts, carry)
    plan, names = body_fn.plan, body_fn.names
    stacks = [np.empty((length, *spec.shape), spec.dtype) for spec in body_fn.specs[carry:]]
    for at in range(length - 1, -1, -1) if reverse else range(length):
        values = (*fixed, *carries, *(x[at] for x in rows))
        results = run(plan, dict(zip(names, values, strict=True)))
        carries = results[:carry]
        for stack, value in zip(stacks, results[carry:], strict=True):
            stack[at] = value
    return (*carries, *stacks)


KEPT = 4
"""What part of the memory there may be the kept carries may take: one in so many."""


def _scan_reverse(node: Node, g: Sequence[Node | None], wanted: Sequence[bool]) -> Sequence[Node | None]:
    """Back through the steps, by the carries that each began with: all of them, or, where there are many, some."""
    length, specs = node.attrs["length"], node.specs[: node.attrs["carry"]]
    kept = length * sum(spec.nbytes for spec in specs)
    is_long = length > LEAST_PIECES and kept > node.graph.limits.peak_bytes // KEPT
    return _reverse_by_pieces(node, g, wanted) if is_long else _reverse_by_steps(node, g, wanted)


LEAST_PIECES = 3
"""Steps that it is no use to put together."""


def _reverse_by_pieces(node: Node, g: Sequence[Node | None], wanted: Sequence[bool]) -> list[Node | None]:
    """The adjoint of the same loop as a loop of loops, which keeps the carries of the outer one (checkpoints)."""
    # Stand-ins, so that what one operand is made of does not count as another.
    operands = [
        ops.positive.apply(node.graph, [x], {}, tag=("piece", node.index, at))[0] for at, x in enumerate(node.inputs)
    ]
    pairs = [(result, each) for result, each in zip(_pieces(node, operands), g, strict=True) if each is not None]
    found = iter(reverse(pairs, [x for x, want in zip(operands, wanted, strict=True) if want]))
    return [next(found) if want else None for want in wanted]


def _pieces(node: Node, operands: Sequence[Node]) -> tuple[Node, ...]:
    """The results of a scan, from one of about as many pieces as each has steps, and one of the steps left over."""
    length, carry, is_reverse = node.attrs["length"], node.attrs["carry"], node.attrs["reverse"]
    steps = math.isqrt(length)
    pieces, rest = divmod(length, steps)
    consts, carries, rows = _by_kind(node, operands)
    first, last = (rest, 0) if is_reverse else (0, pieces * steps)

    def folded(x: Node) -> Node:
        taken = ops.slice(x, index=((first, first + pieces * steps, None),))
        return ops.reshape(taken, shape=(pieces, steps, *x.shape[1:]))

    outer = node.attrs | {"body_fn": _piece(node, steps), "length": pieces}
    results = ops.scan.apply(node.graph, [*consts, *carries, *map(folded, rows)], outer)
    carries = results[:carry]
    stacks = [ops.reshape(y, shape=(pieces * steps, *y.shape[2:])) for y in results[carry:]]
    if not rest:
        return (*carries, *stacks)
    rows = [ops.slice(x, index=((last, last + rest, None),)) for x in rows]
    left = ops.scan.apply(node.graph, [*consts, *carries, *rows], node.attrs | {"length": rest})
    pairs = zip(stacks, left[carry:], strict=True)
    joined = [ops.concat(*((b, a) if is_reverse else (a, b)), axis=0) for a, b in pairs]
    return (*left[:carry], *joined)


def _piece(node: Node, steps: int) -> Body:
    """The body of a scan, `steps` times."""
    body = node.attrs["body_fn"]
    graph = node.graph.offshoot()
    consts, carries, rows = _by_kind(node, body.inputs)
    stacks = [fresh_leaf(graph, Spec((steps, *x.shape), x.dtype)) for x in rows]
    inputs = [*(fresh_leaf(graph, x.spec) for x in (*consts, *carries)), *stacks]
    return Body(graph, inputs, ops.scan.apply(graph, inputs, node.attrs | {"length": steps}))


def _reverse_by_steps(node: Node, g: Sequence[Node | None], wanted: Sequence[bool]) -> Sequence[Node | None]:
    """A scan the other way round, of the body's adjoint at the carries that each step began with."""
    body, graph, loop = node.attrs["body_fn"], node.graph, Loop.of(node)
    seeds, found = _carried_cotangents(node, g, wanted)
    states = {
        seeds[at]: Carry(start or _zero(x.spec, graph), found[x] or _zero(x.spec, body.graph))
        for at, (x, start) in enumerate(zip(loop.carries, g, strict=False))
        if at in seeds
    }
    totals = {x: body.partner("sum", x, x.spec) for x in loop.consts if found.get(x) is not None}
    sums = {total: Carry(_zero(x.spec, graph), _given(plus(total, found[x]))) for x, total in totals.items()}
    taken = {seed: _given(g[at]) for at, seed in seeds.items() if at >= len(loop.carries)}
    stacked = [part for x in loop.rows if (part := found.get(x)) is not None]
    back = Loop(loop.consts, states | sums, {**_carries_before(node), **loop.rows, **taken}, stacked)
    results = back.emit(node, reverse=not node.attrs["reverse"])
    ends = [*map(totals.get, loop.consts), *map(seeds.get, range(len(loop.carries)))]
    return results.of(ends, map(found.get, loop.rows))


def _carried_cotangents(node: Node, g: Sequence[Node | None], wanted: Sequence[bool]) -> _Cotangents:
    """The cotangents of one step, by all results that get one in some step."""
    body, loop = node.attrs["body_fn"], Loop.of(node)
    asked = _flagged(body, wanted)
    targets = [*loop.carries, *(x for x in (*loop.consts, *loop.rows) if x in asked and is_inexact(x.dtype))]
    stacked = [each is not None for each in g[len(loop.carries) :]]

    def step(active: AbstractSet[Node]) -> tuple[_Cotangents, set[Node]]:
        seeds, found = _cotangents(body, [*(x in active for x in loop.carries), *stacked], targets)
        return (seeds, found), {x for x in loop.carries if found[x] is not None}

    return _settled({x for x, each in zip(loop.carries, g, strict=False) if each is not None}, step)


def _given(node: Node | None) -> Node:
    assert node is not None
    return node


def _carries_before(node: Node) -> Mapping[Node, Node]:
    """The carries that each step of a scan begins with, as rows: the same scan, which says them instead of the rest."""
    loop = Loop.of(node)
    return replace(loop, stacked=[*loop.carries]).emit(node).stacked


def _scan_taylor(node: Node, coefficients: Sequence[Sequence[Node | None]], order: int) -> tuple[Node | None, ...]:
    """A scan of the body's series, whose carries are whole series."""
    loop, carries, stacked = _series_loop(node, coefficients, order)
    return loop.emit(node).of(carries, stacked)


def _series_loop(
    node: Node, coefficients: Sequence[Sequence[Node | None]], order: int
) -> tuple[Loop, list[Node | None], list[Node | None]]:
    """A loop that carries series beside values; and which of its carries, and which of the nodes that it stacks, are
    coefficient `order` of the results of `node`."""
    body, loop = node.attrs["body_fn"], Loop.of(node)
    along, series = _carried_series(body, loop, coefficients, order)
    starts = {
        x: [(leaf, c or _zero(operand.spec, node.graph)) for leaf, c in zip(along.get(x, ()), each, strict=False)]
        for x, operand, each in zip(body.inputs, node.inputs, coefficients, strict=True)
    }
    consts, rows = ({leaf: start for x in kind for leaf, start in starts[x]} for kind in (loop.consts, loop.rows))
    carries = {
        leaf: Carry(start, c or _zero(leaf.spec, body.graph))
        for x, each in loop.carries.items()
        for (leaf, start), c in zip(starts[x], series[each.becomes], strict=False)
    }
    stacked = [series[out][-1] for out in loop.stacked]
    whole = Loop(
        {**loop.consts, **consts},
        {**loop.carries, **carries},
        {**loop.rows, **rows},
        [out for out in stacked if out is not None],
    )
    return whole, [along[x][-1] if x in along else None for x in loop.carries], stacked


def _carried_series(
    body: Body, loop: Loop, coefficients: Sequence[Sequence[Node | None]], order: int
) -> tuple[dict[Node, list[Node]], _Series]:
    """Leaves for the series of all inputs that move in some step, and the series of the outputs."""

    def step(moving: AbstractSet[Node]) -> tuple[tuple[dict[Node, list[Node]], _Series], set[Node]]:
        along = _series_leaves(body, moving, order)
        series = dict(zip(body.outputs, series_along(along, body.outputs, order), strict=True))
        return (along, series), {x for x, each in loop.carries.items() if _any(series[each.becomes])}

    return _settled(_flagged(body, [*map(_any, coefficients)]), step)


def _scan_batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> tuple[Node, ...]:
    """A scan of the batched body; carries have the new axis where anything that they meet has it."""
    body, loop = node.attrs["body_fn"], Loop.of(node)
    size = batch_size(args, batched)
    rest = [False] * len(loop.stacked)

    def step(active: AbstractSet[Node]) -> tuple[tuple[Body, list[bool]], set[Node]]:
        made = _batched_body(body, size, active, [*(x in active for x in loop.carries), *rest])
        return made, {x for x, has in zip(loop.carries, made[1], strict=False) if has}

    inner, outputs = _settled(_flagged(body, batched), step)
    consts, carries, rows = _by_kind(node, [*zip(args, batched, strict=True)])
    operands = [
        *(x for x, _ in consts),
        *(spread(x, size) if has and not had else x for (x, had), has in zip(carries, outputs, strict=False)),
        *(ops.moveaxis(x, source=1, destination=0) if has else x for x, has in rows),
    ]
    results = ops.scan.apply(node.graph, operands, node.attrs | {"body_fn": inner})
    pairs = list(zip(results, outputs, strict=True))
    return (
        *(c if has else spread(c, size) for c, has in pairs[: len(carries)]),
        *(ops.moveaxis(y, source=1, destination=0) if has else spread(y, size) for y, has in pairs[len(carries) :]),
    )


# The derivative of all of them


@dataclass(frozen=True)
class Transformed:
    """`series(node, coefficients, order)` gives coefficient `order` of every result, from those of the operands.

    The tangent is the first of them. `adjoint(node, g, wanted)` gives the cotangents.
    """

    series: Callable[..., tuple[Node | None, ...]]
    adjoint: Callable[..., Sequence[Node | None]]
    kind: ClassVar[str] = "control"
    is_flat: ClassVar[bool] = False

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Any:
        return self.series(node, [[t] for t in tangents], 1) if _any(tangents) else None

    def reverse(self, node: Node, g: Any, wanted: Sequence[bool]) -> Sequence[Node | None]:
        return self.adjoint(node, g, wanted)

    def taylor(self, node: Node, order: int) -> Series:
        coefficients = []
        for x in node.inputs:
            row = []
            for k in range(1, order + 1):
                row.append((yield x, k))
            coefficients.append(row)
        return self.series(node, coefficients, order) if any(map(_any, coefficients)) else None


def _loop_flops(out: Shape, *shapes: Shape, body_fn: Body, length: int, **attrs: Any) -> int:
    return length * body_fn.plan.flops


def _step_bytes(node: Node) -> int:
    """What one step makes beside what it is given: the carries that it replaces are those of the result."""
    plan: Plan = node.attrs["body_fn"].plan
    return plan.own_bytes


def _branch_bytes(node: Node) -> int:
    """What the larger branch makes beside what it is given, and its results."""
    return max(0, max(body.plan.own_bytes for body in _branches(node)) - node.nbytes)


GUESSED_STEPS = 100
"""Steps that a while loop is taken for: how many they are is known when it ends, and deadlines look in at each."""


def _taken(node: Node) -> list[tuple[Plan, int, int]]:
    """The branch that takes longer."""
    return [(max((body.plan for body in _branches(node)), key=lambda plan: plan.seconds), 1, 1)]


def _guessed(node: Node) -> list[tuple[Plan, int, int]]:
    most = node.attrs["max_steps"]
    steps = min(GUESSED_STEPS, most)
    return [(node.attrs["cond_fn"].plan, steps + 1, most + 1), (node.attrs["body_fn"].plan, steps, most)]


def _counted(node: Node) -> list[tuple[Plan, int, int]]:
    length = node.attrs["length"]
    return [(node.attrs["body_fn"].plan, length, length)]


scan = define(
    "scan",
    "A loop along the first axis: body_fn(*consts, *carry, *rows) gives the next carry, then what is stacked.",
    operands=(VALUES,),
    attrs={
        "body_fn": kinds.function("The function of one step."),
        "carry": kinds.integer("How many operands go from step to step.", 1),
        "consts": CONSTS,
        "length": kinds.integer("How many steps; that of the rows when absent.", None),
        "reverse": kinds.boolean("Whether the last row comes first.", False),
    },
    order=("body_fn",),
    specs=_scan_specs,
    close=_close_scan,
    named_by="body_fn",
    steers=True,
    kernel=_scan,
    derivative=Transformed(_scan_taylor, _scan_reverse),
    batch=_scan_batch,
    flops=_loop_flops,
    scratch=_step_bytes,
    trips=_counted,
    family="control",
    samples=(
        Sample(((3,), (4, 3)), {"body_fn": "f"}, "f(h, x) = { new = tanh(h) * x; new, sin(new) }"),
        Sample(((3, 3), (3,), (4, 3)), {"body_fn": "f", "consts": 1}, "f(w, h, x) = { n = tanh(w @ h + x); n, n * 2 }"),
        Sample(((), ()), {"body_fn": "f", "carry": 2, "length": 3}, "f(a, b) = b, a * b"),
        Sample(((2,), (3, 2)), {"body_fn": "f", "reverse": True}, "f(h, x) = h * x + sin(h), h + x"),
        Sample(((5, 2), (5,)), {"body_fn": "f", "carry": 0}, "f(x, y) = x * y, exp(y)"),
        Sample((0, (3,)), {"body_fn": "f"}, "f(s, x) = s + x * x"),
        Sample(((), (2, 3)), {"body_fn": "f"}, "g(a, x) = a * x + sin(a)\nf(h, row) = scan(g, h, row)"),
        Sample(((2,), (0, 2)), {"body_fn": "f"}, "f(h, x) = h * x, h"),
    ),
    refusals=(
        Refusal(((3,), (4,)), {"body_fn": "f"}, "shape_mismatch", "f(h, x) = sum(h) * x"),
        Refusal(((3,), (4,)), {"body_fn": "f"}, "dtype_mismatch", "f(h, x) = h < x"),
        Refusal(((3,), (4,)), {"body_fn": "f"}, "invalid_graph", "f(h) = h"),
        Refusal(((3,),), {"body_fn": "f"}, "invalid_graph", "f(h) = h"),
        Refusal(((3,), (4,)), {"body_fn": "f", "length": 3}, "shape_mismatch", "f(h, x) = h * x"),
        Refusal(((3,), ()), {"body_fn": "f"}, "shape_mismatch", "f(h, x) = h * x"),
        Refusal(((3,),), {"body_fn": "f", "carry": 2, "length": 1}, "invalid_graph", "f(h, x) = h, x"),
        Refusal(((3,),), {"body_fn": "f", "length": -1}, "invalid_graph", "f(h) = h"),
        Refusal(((3,),), {"body_fn": 3, "length": 1}, "invalid_graph"),
    ),
    example="step(h, x) = {\n  new = tanh(h + x)\n  new, new * 2\n}\nlast, all = scan(step, 0.0, x)",
)


# cond


def _close_cond(graph: Graph, nodes: Sequence[Node], attrs: Attrs) -> tuple[Sequence[Node], Attrs]:
    if not _is_open(attrs["true_fn"]):
        return nodes, attrs
    pred, *given = nodes
    if pred.rank:
        raise ShapeMismatch(f"cond takes one boolean as pred, got shape {list(pred.shape)}; where takes many")
    specs, weak = _specs_of(given), _weak(given)
    sides = [_closure(attrs[name], name).trace(specs, weak) for name in ("true_fn", "false_fn")]
    captured = list(dict.fromkeys(node for _, taken in sides for node in taken))
    true_fn, false_fn = _alike(*[_taking(body, taken, captured) for body, taken in sides])
    return [pred, *captured, *given], attrs | {"true_fn": true_fn, "false_fn": false_fn}


def _taking(body: Body, taken: Sequence[Node], captured: Sequence[Node]) -> Body:
    """The body with an input for all that is captured by any of several, before its own."""
    own = dict(zip(taken, body.inputs, strict=False))
    leaves = [own.pop(node) if node in own else fresh_leaf(body.graph, node.spec) for node in captured]
    return Body(body.graph, [*leaves, *body.inputs[len(taken) :]], body.outputs)


def _alike(true_fn: Body, false_fn: Body) -> tuple[Body, Body]:
    """Two branches with results of the same shapes and dtypes. Raises what differs."""
    if len(true_fn.outputs) != len(false_fn.outputs):
        raise ShapeMismatch(f"the branches have {len(true_fn.outputs)} and {len(false_fn.outputs)} results")
    pairs = [_agreed(a, b) for a, b in zip(true_fn.outputs, false_fn.outputs, strict=True)]
    return tuple(  # type: ignore[return-value]
        Body(body.graph, body.inputs, [pair[at] for pair in pairs]) for at, body in enumerate((true_fn, false_fn))
    )


def _agreed(a: Node, b: Node) -> tuple[Node, Node]:
    a, b = (_plain(cast(x, y.dtype) if x.weak and not y.weak else x) for x, y in ((a, b), (b, a)))
    if a.shape != b.shape:
        raise ShapeMismatch(f"the branches give shapes {list(a.shape)} and {list(b.shape)}; they should agree")
    if a.dtype != b.dtype:
        raise DtypeMismatch(f"the branches give {a.dtype.name} and {b.dtype.name}; they should agree")
    return a, b


def _branches(node: Node) -> tuple[Body, Body]:
    return node.attrs["true_fn"], node.attrs["false_fn"]


def _cond(pred: Any, *operands: Any, true_fn: Body, false_fn: Body, run: Callable[..., Any]) -> tuple[Any, ...]:
    chosen = true_fn if pred else false_fn
    return tuple(run(chosen.plan, dict(zip(chosen.names, operands, strict=True))))


def _emit_cond(node: Node, operands: Sequence[Node], sides: Sequence[tuple[Sequence[Node], Sequence[Any]]]) -> Any:
    """A cond on the same predicate; `sides` are leaves and outputs. What is None on both sides stays None."""
    found = [at for at, pair in enumerate(zip(*[outputs for _, outputs in sides], strict=True)) if _any(pair)]
    count = len(sides[0][1])
    if not found:
        return [None] * count
    specs = {at: next(outputs[at].spec for _, outputs in sides if outputs[at] is not None) for at in found}
    bodies = [
        Body(body.graph, leaves, [outputs[at] or _zero(specs[at], body.graph) for at in found])
        for body, (leaves, outputs) in zip(_branches(node), sides, strict=True)
    ]
    attrs = dict(zip(("true_fn", "false_fn"), bodies, strict=True))
    results = dict(zip(found, ops.cond.apply(node.graph, [node.inputs[0], *operands], attrs), strict=True))
    return [results.get(at) for at in range(count)]


def _cond_taylor(node: Node, coefficients: Sequence[Sequence[Node | None]], order: int) -> tuple[Node | None, ...]:
    """The series of the branch that is taken."""
    moving = [*map(_any, coefficients[1:])]
    given = [c or _zero(x.spec, node.graph) for x, each in _moved(node.inputs[1:], coefficients[1:]) for c in each]
    sides = []
    for body in _branches(node):
        along = _series_leaves(body, _flagged(body, moving), order)
        series = series_along(along, body.outputs, order)
        sides.append(([*body.inputs, *(leaf for each in along.values() for leaf in each)], [c[-1] for c in series]))
    return tuple(_emit_cond(node, [*node.inputs[1:], *given], sides))


def _moved(nodes: Sequence[Node], coefficients: Sequence[Sequence[Node | None]]) -> Iterator[tuple[Node, Any]]:
    return ((x, each) for x, each in zip(nodes, coefficients, strict=True) if _any(each))


def _cond_reverse(node: Node, g: Sequence[Node | None], wanted: Sequence[bool]) -> list[Node | None]:
    """The adjoint of the branch that is taken."""
    has = [each is not None for each in g]
    sides = []
    for body in _branches(node):
        chosen = [x for x, want in zip(body.inputs, wanted[1:], strict=True) if want]
        seeds, found = _cotangents(body, has, chosen)
        sides.append(([*body.inputs, *seeds.values()], [*found.values()]))
    found = iter(_emit_cond(node, [*node.inputs[1:], *filter(None, g)], sides))
    return [None, *(next(found) if want else None for want in wanted[1:])]


def _cond_batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> tuple[Node, ...]:
    """Both branches, and a choice between them, where the predicate has the new axis; else the batched branch."""
    size = batch_size(args, batched)
    every = [True] * len(node.specs)
    sides = [_batched_body(body, size, _flagged(body, batched[1:]), every)[0] for body in _branches(node)]
    if not batched[0]:
        return ops.cond.apply(node.graph, args, dict(zip(("true_fn", "false_fn"), sides, strict=True)))
    values = zip(*[body.inline(node.graph, args[1:]) for body in sides], strict=True)
    return tuple(ops.where(with_rank(args[0], a.rank - 1), a, b) for a, b in values)


def _cond_specs(*nodes: Node, true_fn: Body, false_fn: Body) -> tuple[Spec, ...]:
    return true_fn.specs


cond = define(
    "cond",
    "true_fn(*operands) where pred holds, else false_fn(*operands): only the one that is taken is run.",
    operands=(Operand("pred", "b", promotes=False), Operand("operands", "biufc", False, variadic=True, may_lack=True)),
    attrs={
        "true_fn": kinds.function("The function that is called where pred holds."),
        "false_fn": kinds.function(
            "The function that is called where it does not; its results are of the same shapes."
        ),
    },
    order=("pred", "true_fn", "false_fn"),
    specs=_cond_specs,
    close=_close_cond,
    named_by="true_fn",
    steers=True,
    kernel=_cond,
    derivative=Transformed(_cond_taylor, _cond_reverse),
    batch=_cond_batch,
    flops=lambda out, *shapes, true_fn, false_fn: max(true_fn.plan.flops, false_fn.plan.flops),
    scratch=_branch_bytes,
    trips=_taken,
    family="control",
    samples=(
        Sample((True, (3,)), {"true_fn": "f", "false_fn": "g"}, "f(x) = sin(x)\ng(x) = 2 * x"),
        Sample((False, (3,)), {"true_fn": "f", "false_fn": "g"}, "f(x) = sin(x)\ng(x) = 2 * x"),
        Sample(
            (False, (3,), (3, 2)), {"true_fn": "f", "false_fn": "g"}, "f(x, y) = sum(x), x\ng(x, y) = sum(x @ y), 3 * x"
        ),
        Sample((True, (2,)), {"true_fn": "f", "false_fn": "f"}, "f(x) = prod(x)"),
    ),
    refusals=(
        Refusal((True, (3,)), {"true_fn": "f", "false_fn": "g"}, "shape_mismatch", "f(x) = x\ng(x) = sum(x)"),
        Refusal((True, (3,)), {"true_fn": "f", "false_fn": "g"}, "dtype_mismatch", "f(x) = x\ng(x) = x > 1"),
        Refusal((True, (3,)), {"true_fn": "f", "false_fn": "g"}, "shape_mismatch", "f(x) = x\ng(x) = x, x"),
        Refusal(([True, False], (3,)), {"true_fn": "f", "false_fn": "f"}, "shape_mismatch", "f(x) = x"),
        Refusal((1.0, (3,)), {"true_fn": "f", "false_fn": "f"}, "dtype_mismatch", "f(x) = x"),
    ),
    example="f(x) = sqrt(x)\ng(x) = 0 * x\ncond(x > 0, f, g, x)",
)


# while_loop


def _close_while(graph: Graph, nodes: Sequence[Node], attrs: Attrs) -> tuple[Sequence[Node], Attrs]:
    consts = attrs["consts"]
    if not 0 <= consts <= len(nodes):
        raise InvalidGraph(f"while_loop has {len(nodes)} operands: not {consts} consts", pointer="/attrs")
    most = graph.limits.loop_steps if attrs["max_steps"] is None else attrs["max_steps"]
    attrs = attrs | {"max_steps": _bounded(graph, most)}
    if not _is_open(attrs["body_fn"]):
        return nodes, attrs
    fixed = nodes[:consts]
    body, taken, carries = _traced(_closure(attrs["body_fn"], "body_fn"), fixed, nodes[consts:], [])
    test, asked = _closure(attrs["cond_fn"], "cond_fn").trace(_specs_of([*fixed, *carries]), _weak(fixed))
    if test.specs != (Spec((), BOOL),):
        given = ", ".join(map(str, test.specs))
        raise DtypeMismatch(f"cond_fn of while_loop gives one boolean; {attrs['cond_fn'].name} gives {given}")
    captured = list(dict.fromkeys([*taken, *asked]))
    attrs = attrs | {
        "cond_fn": _taking(test, asked, captured),
        "body_fn": _taking(body, taken, captured),
        "consts": consts + len(captured),
    }
    return [*captured, *fixed, *carries], attrs


def _while_specs(*nodes: Node, body_fn: Body, **attrs: Any) -> tuple[Spec, ...]:
    return body_fn.specs


def _while(
    *operands: Any, cond_fn: Body, body_fn: Body, consts: int, max_steps: int, run: Callable[..., Any]
) -> tuple[Any, ...]:
    fixed, carries = operands[:consts], operands[consts:]
    for _ in range(max_steps + 1):
        if not run(cond_fn.plan, dict(zip(cond_fn.names, (*fixed, *carries), strict=True)))[0]:
            return tuple(carries)
        carries = run(body_fn.plan, dict(zip(body_fn.names, (*fixed, *carries), strict=True)))
    raise LimitExceeded("loop_steps", max_steps, max_steps + 1, "steps of while_loop")


def _while_taylor(node: Node, coefficients: Sequence[Sequence[Node | None]], order: int) -> tuple[Node | None, ...]:
    """A loop whose carries are series, for as many steps as the values take."""
    loop, carries, _ = _series_loop(node, coefficients, order)
    results = ops.while_loop.apply(node.graph, loop.operands, _attrs_of_while(node, loop))
    return Results(dict(zip(loop.carries, results, strict=True)), {}).of(carries, ())


def _attrs_of_while(node: Node, loop: Loop) -> Attrs:
    """Those of the same loop with more operands, of which its condition asks nothing."""
    body, asks = node.attrs["body_fn"], node.attrs["cond_fn"]
    own = dict(zip(body.inputs, asks.inputs, strict=True))
    inputs = [own.get(leaf) or fresh_leaf(asks.graph, leaf.spec) for leaf in loop.leaves]
    return node.attrs | {
        "cond_fn": Body(asks.graph, inputs, asks.outputs),
        "body_fn": Body(body.graph, loop.leaves, loop.outputs),
        "consts": len(loop.consts),
    }


def _while_reverse(node: Node, g: Sequence[Node | None], wanted: Sequence[bool]) -> list[Node | None]:
    raise NotDifferentiable(
        "while_loop has no reverse mode: how many steps it takes is not known before the run; "
        "use scan or fori_loop, or a forward call (jvp, taylor)",
        node=node.origin,
    )


def _while_batch(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> tuple[Node, ...]:
    """A loop that goes on while any example does; an example that is done keeps what it has."""
    body, asks, consts = node.attrs["body_fn"], node.attrs["cond_fn"], node.attrs["consts"]
    size = batch_size(args, batched)
    flags = [*batched[:consts], *[True] * (len(args) - consts)]
    inner, _ = _batched_body(body, size, _flagged(body, flags), [True] * len(body.outputs))
    test, _ = _batched_body(asks, size, _flagged(asks, flags), [True])
    goes_on = test.inline(inner.graph, inner.inputs)[0]
    kept = [
        ops.where(with_rank(goes_on, new.rank - 1), new, old)
        for new, old in zip(inner.outputs, inner.inputs[consts:], strict=True)
    ]
    carries = [arg if has else spread(arg, size) for arg, has in zip(args[consts:], batched[consts:], strict=True)]
    attrs = node.attrs | {
        "cond_fn": Body(test.graph, test.inputs, [ops.any(test.outputs[0])]),
        "body_fn": Body(inner.graph, inner.inputs, kept),
    }
    return ops.while_loop.apply(node.graph, [*args[:consts], *carries], attrs)


while_loop = define(
    "while_loop",
    "body_fn(*consts, *carry) gives the next carry for as long as cond_fn(*consts, *carry) holds. No reverse mode.",
    operands=(VALUES,),
    attrs={
        "cond_fn": kinds.function("The function that says, as one boolean, whether there is another step."),
        "body_fn": kinds.function("The function of one step."),
        "consts": CONSTS,
        "max_steps": kinds.integer("Steps after which the loop is given up; the limit loop_steps when absent.", None),
    },
    order=("cond_fn", "body_fn"),
    specs=_while_specs,
    close=_close_while,
    named_by="body_fn",
    steers=True,
    kernel=_while,
    derivative=Transformed(_while_taylor, _while_reverse),
    batch=_while_batch,
    flops=lambda out, *shapes, body_fn, **attrs: body_fn.plan.flops,
    scratch=lambda node: max(node.attrs[name].plan.own_bytes for name in ("body_fn", "cond_fn")),
    trips=_guessed,
    family="control",
    samples=(
        Sample(((), 3.0), {"cond_fn": "c", "body_fn": "f", "consts": 1}, "c(a, n) = n > 0\nf(a, n) = n - 1"),
        Sample(((3,), 4), {"cond_fn": "c", "body_fn": "f"}, "c(x, n) = n > 0\nf(x, n) = sin(x) * 2, n - 1"),
        Sample(((3,), 4), {"cond_fn": "c", "body_fn": "f", "max_steps": 4}, "c(x, n) = n > 0\nf(x, n) = x * x, n - 1"),
    ),
    refusals=(
        Refusal(((3,),), {"cond_fn": "c", "body_fn": "f"}, "dtype_mismatch", "c(x) = x > 0\nf(x) = x"),
        Refusal(((3,),), {"cond_fn": "c", "body_fn": "f"}, "dtype_mismatch", "c(x) = sum(x)\nf(x) = x"),
        Refusal(((3,),), {"cond_fn": "c", "body_fn": "f"}, "shape_mismatch", "c(x) = true\nf(x) = sum(x)"),
        Refusal(((3,),), {"cond_fn": "c", "body_fn": "f", "consts": 2}, "invalid_graph", "c(x) = true\nf(x) = x"),
    ),
    example="far(x) = x > 1\nhalf(x) = x / 2\nwhile_loop(far, half, x)",
)


# What comes down to these


def _fori_loop(*nodes: Node, lower: int, upper: int, body_fn: Any) -> tuple[Node, ...]:
    """A scan over the numbers from `lower` to `upper`."""
    graph = nodes[0].graph
    upper = max(lower, upper)
    numbers = ops.arange.on(graph, start=lower, stop=upper, dtype="int64")
    start = graph.constant(lower, INT64)
    body, captured, carries = _traced(_closure(body_fn, "body_fn"), [start], nodes, [])
    count = len(captured)
    number = body.inputs[count]
    inputs = [*body.inputs[:count], *body.inputs[count + 1 :], number]
    attrs = {
        "body_fn": Body(body.graph, inputs, body.outputs),
        "consts": count,
        "carry": len(carries),
        "length": _bounded(graph, upper - lower),
        "reverse": False,
    }
    return ops.scan.apply(graph, [*captured, *carries, numbers], attrs)


fori_loop = define(
    "fori_loop",
    "A loop over whole numbers: body_fn(i, *carry) gives the next carry, for i from lower up to upper.",
    operands=(VALUES,),
    attrs={
        "lower": kinds.integer("The first number."),
        "upper": kinds.integer("Where the numbers end; it is not among them."),
        "body_fn": kinds.function("The function of one step."),
    },
    order=("lower", "upper", "body_fn"),
    expand=_fori_loop,
    named_by="body_fn",
    family="control",
    samples=(
        Sample(((3,),), {"lower": 0, "upper": 4, "body_fn": "f"}, "f(i, x) = sin(x) * take(x, i % 3, axis=0)"),
        Sample(((), ()), {"lower": 2, "upper": 5, "body_fn": "f"}, "f(i, a, b) = b, a * b"),
        Sample(((3,),), {"lower": 4, "upper": 2, "body_fn": "f"}, "f(i, x) = sin(x)"),
    ),
    refusals=(
        Refusal(((3,),), {"lower": 0, "upper": 4, "body_fn": "f"}, "invalid_graph", "f(x) = x"),
        Refusal(((3,),), {"lower": 0, "upper": 4, "body_fn": "f"}, "shape_mismatch", "f(i, x) = sum(x)"),
        Refusal(((3,),), {"lower": 0, "body_fn": "f"}, "invalid_graph", "f(i, x) = x"),
    ),
    example="grow(i, x) = x * 1.5 + i\nfori_loop(0, 4, grow, x)",
)


def _map(*nodes: Node, body_fn: Any) -> tuple[Node, ...]:
    """The function on leaves that stand for one row each, batched."""
    graph = nodes[0].graph
    _length(nodes, None, "map")
    leaves = [fresh_leaf(graph, Spec(x.shape[1:], x.dtype)) for x in nodes]
    results = _closure(body_fn, "body_fn").inline(leaves)
    rows = batch(dict(zip(leaves, nodes, strict=True)), results)
    return tuple(rows)


mapped = define(
    "map",
    "body_fn of every row of the operands, all at once, and the results stacked.",
    operands=(VALUES,),
    attrs={"body_fn": kinds.function("The function of one row of each operand.")},
    order=("body_fn",),
    expand=_map,
    named_by="body_fn",
    family="control",
    samples=(
        Sample(((4, 3),), {"body_fn": "f"}, "f(x) = sum(sin(x))"),
        Sample(((4, 3), (4,)), {"body_fn": "f"}, "f(x, y) = x * y, y"),
        Sample(((0, 3),), {"body_fn": "f"}, "f(x) = sum(sin(x))"),
    ),
    refusals=(
        Refusal(((4, 3), (3,)), {"body_fn": "f"}, "shape_mismatch", "f(x, y) = x * y"),
        Refusal(((),), {"body_fn": "f"}, "shape_mismatch", "f(x) = x"),
        Refusal(((3,),), {"body_fn": "f"}, "invalid_graph", "f(x, y) = x"),
    ),
    example="f(x) = sum(x ** 2)\nmap(f, [[1, 2], [3, 4]])",
)


def _call(*nodes: Any, function: Any) -> tuple[Node, ...]:
    operands = [node for node in nodes if isinstance(node, Node)]
    return tuple(_number(result) for result in _closure(function, "function").inline(operands))


call = define(
    "call",
    "A function of the graph, called on operands. A function's own name does the same: f(x).",
    operands=(Operand("operands", "biufc", promotes=False, variadic=True, may_lack=True),),
    attrs={"function": kinds.function("The function.")},
    order=("function",),
    expand=_call,
    named_by="function",
    family="control",
    samples=(
        Sample(((3,), ()), {"function": "f"}, "f(x, w) = tanh(x * w)"),
        Sample(((3,),), {"function": "f"}, "g(x) = x * x\nf(x) = { y = g(x); y, sin(y) + g(y) }"),
    ),
    refusals=(
        Refusal(((3,),), {"function": "f"}, "invalid_graph", "f(x, w) = x * w"),
        Refusal(((3,),), {"function": "f"}, "shape_mismatch", "f(x) = x @ [1, 2]"),
    ),
    example="f(x, w) = tanh(x * w)\nf(x, 2) + f(x, 3)",
)
