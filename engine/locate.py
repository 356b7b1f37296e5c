"""Where a check fails: the nodes at which the point is a kink, a jump or an edge, or whose rule is not their slope.

The graph is run at the point and at three small steps to either side, along the direction in which the check looked,
and every node's values are kept. From those alone one sees what bends, jumps or ends there. Each rule is then held
against the values by itself, u being random: ⟨u, change of the node⟩ = Σ ⟨its rule at u, change of the operand⟩.

Of nodes that bend, jump or end, the first on a path are named: the rest follows from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.calls import Question
from engine.core import INPUT, RESULT, Node
from engine.errors import EngineError, LimitExceeded
from engine.execute import run
from engine.limits import Limits
from engine.plan import make_plan
from engine.slopes import Fold, arrays_of, folded, size_along, weights_like
from engine.types import Array, Dtype, Tick, is_inexact
from engine.warnings import Notice

SHRINK = 64.0
STEPS = tuple(1e-4 / SHRINK**k for k in (1, 2, 3))
"""In units of x. What a node does over one of them tells little: waves that are shorter look like jumps."""
KINK = 1e-3
"""How far apart, relatively, the slopes of two sides are where a node bends."""
JUMP = 1e-9
"""What a node that jumps changes by, at least, relative to its value."""
DIFFERS = 1e-3
"""How far, relatively, a rule is from the slope of values where it is called wrong."""
CLEAR = 0.1
"""How far, relatively, the slopes over two steps may be apart for any of this to mean something."""
ROUNDING = 1e-14

MOST = 5
"""Nodes that are named at once."""

SAYS = {
    "kink": "{} bends here: its slopes to the two sides differ",
    "discontinuity": "{} jumps here: its value is another on one side",
    "edge_of_domain": "{} has no finite value on one side of the point",
    "derivative_differs": "{} passes back a derivative that is not that of its values",
}


class Around(NamedTuple):
    """One result of a node at the point, and to the left and right of it, from the largest step to the smallest."""

    here: Array
    left: tuple[Array, ...]
    right: tuple[Array, ...]

    @property
    def moved(self) -> Array:
        """How it changes from left to right, over the largest step."""
        return np.asarray(self.right[0] - self.left[0])


def located(question: Question, name: str, direction: Array, limits: Limits, tick: Tick | None) -> list[Notice]:
    """The nodes to look at where a check along `direction` in an input did not go as usual.

    `question` is in double precision. There is no answer where there is no memory to keep all values.
    """
    try:
        fold = folded(question, limits, tick)
        tensors = arrays_of(question)
        kept = _kept(fold, tensors, name, direction, tick)
        found = [*_breaks(kept), *_faults(kept, tensors, tick)]
    except EngineError:
        return []
    return list(dict.fromkeys(_notice(code, node, question) for code, node in found))[:MOST]


def _notice(code: str, node: Node, question: Question) -> Notice:
    statement = question.program.by_id.get(node.origin or "")
    subject = node.op.name
    if statement is not None and statement.op is not node.op:
        subject = f"{subject}, within {statement.op.name} or its derivative,"
    return Notice(code, SAYS[code].format(subject), node.origin)


def _kept(
    fold: Fold, tensors: Mapping[str, Array], name: str, direction: Array, tick: Tick | None
) -> dict[Node, tuple[Around, ...]]:
    """What every node that moves is around the point. Raises LimitExceeded."""
    graph, plan = fold.targets[0].graph, make_plan(fold.targets)
    moving = _moving(graph.live(fold.targets), name)
    held = (1 + 2 * len(STEPS)) * sum(node.nbytes for node in moving)
    if held > graph.limits.peak_bytes:
        raise LimitExceeded("peak_bytes", graph.limits.peak_bytes, held, "bytes of all values around the point")
    size = size_along(tensors[name], direction) or 1.0
    runs = []
    for at in (0.0, *(-h for h in STEPS), *STEPS):
        shifted = tensors[name] + at * size * direction
        seen: dict[Node, tuple[Array, ...]] = {node: (shifted,) for node in moving if node.op is INPUT}
        run(plan, {**tensors, name: shifted}, tick, watch=_keeping(seen, moving))
        runs.append(seen)
    return {node: tuple(map(_around, zip(*(seen[node] for seen in runs), strict=True))) for node in moving}


def _around(values: tuple[Array, ...]) -> Around:
    return Around(values[0], values[1 : 1 + len(STEPS)], values[1 + len(STEPS) :])


def _keeping(seen: dict[Node, tuple[Array, ...]], moving: Mapping[Node, None]) -> Any:
    def watch(node: Node, operands: Sequence[Any], value: Any) -> None:
        if node in moving:
            seen[node] = tuple(map(np.asarray, value)) if isinstance(value, tuple) else (np.asarray(value),)

    return watch


def _moving(live: Sequence[Node], name: str) -> dict[Node, None]:
    """What depends on an input, differentiably or not, in order; up to where it is rounded to single precision.

    What comes after that goes in stairs, and small steps tell nothing of it.
    """
    found: dict[Node, None] = {}
    for node in live:
        moves = (node.op is INPUT and node.attrs["name"] == name) or any(x in found for x in node.inputs)
        if moves and not any(_is_single(spec.dtype) for spec in node.specs):
            found[node] = None
    return found


def _is_single(dtype: Dtype) -> bool:
    return is_inexact(dtype) and np.finfo(dtype).eps > np.finfo(np.float64).eps


# What bends, jumps or ends


def _breaks(kept: Mapping[Node, tuple[Around, ...]]) -> list[tuple[str, Node]]:
    """The first nodes of each path that are not smooth."""
    broken: dict[Node, str] = {}
    first = []
    for node, results in kept.items():
        codes = [code for each in results if (code := _break(each))]
        if codes:
            broken[node] = codes[0]
            before = [broken[x] for x in node.inputs if x in broken and _like(x, node)]
            if node.op is not RESULT and not before:
                first.append((codes[0], node))
    return first


def _like(x: Node, node: Node) -> bool:
    """Whether both are numbers or neither: a comparison that jumps need not make what it selects jump, or bend."""
    return is_inexact(x.dtype) == any(is_inexact(spec.dtype) for spec in node.specs)


def _break(each: Around) -> str | None:
    if not is_inexact(each.here.dtype):
        is_moved = (each.left[-1] != each.here).any() or (each.right[-1] != each.here).any()
        return "discontinuity" if is_moved else None
    with np.errstate(all="ignore"):
        ends = np.isfinite(each.left[-1]) != np.isfinite(each.right[-1])
        found = (("edge_of_domain", ends), ("discontinuity", _jumps(each)), ("kink", _bends(each)))
    return next((code for code, where in found if where.any()), None)


def _jumps(each: Around) -> Any:
    """Where a node changes over the smallest step by about as much as over any other."""
    pairs = zip(each.left, each.right, strict=True)
    changes = [np.maximum(np.abs(left - each.here), np.abs(right - each.here)) for left, right in pairs]
    lasts = [near > far / 2 for far, near in itertools.pairwise(changes)]
    return np.logical_and.reduce(lasts) & (changes[-1] > JUMP * (1.0 + np.abs(each.here)))


def _bends(each: Around) -> Any:
    """Where what a node bends by falls in proportion to the step, and not to its square as with what is curved."""
    bends = [np.abs(left + right - 2 * each.here) for left, right in zip(each.left, each.right, strict=True)]
    slow = [near * 4 * SHRINK > far for far, near in itertools.pairwise(bends)]
    change = np.maximum(np.abs(each.left[-1] - each.here), np.abs(each.right[-1] - each.here))
    return np.logical_and.reduce(slow) & (bends[-1] > KINK * change + ROUNDING * np.abs(each.here))


# Rules that are not the slope of their values


class _Asked(NamedTuple):
    """A node, weights of its results, and what its reverse rule makes of these for each operand that moves."""

    node: Node
    weights: Sequence[Array | None]
    parts: Sequence[tuple[Node, Node]]


def _faults(
    kept: Mapping[Node, tuple[Around, ...]], tensors: Mapping[str, Array], tick: Tick | None
) -> list[tuple[str, Node]]:
    """Nodes whose reverse rule does not agree with how their values change."""
    rng = np.random.default_rng(6)
    smooth = [node for node, results in kept.items() if _is_ruled(node) and not any(map(_break, results))]
    asked = [_ask(node, kept, rng) for node in smooth]
    arrays = iter(run(make_plan([part for each in asked for _, part in each.parts]), tensors, tick))
    found = [(each, list(itertools.islice(arrays, len(each.parts)))) for each in asked]
    return [("derivative_differs", each.node) for each, parts in found if not _agrees(each, kept, parts)]


def _is_ruled(node: Node) -> bool:
    return (
        node.op.derivative is not None
        and not node.op.derivative.is_flat
        and any(is_inexact(spec.dtype) for spec in node.specs)
    )


def _ask(node: Node, kept: Mapping[Node, Any], rng: np.random.Generator) -> _Asked:
    node.graph.origin = node.origin
    weights = [weights_like(spec, rng) if is_inexact(spec.dtype) else None for spec in node.specs]
    given = [
        None if u is None else node.graph.constant(u, spec.dtype) for u, spec in zip(weights, node.specs, strict=True)
    ]
    wanted = [x in kept and is_inexact(x.dtype) for x in node.inputs]
    assert node.op.derivative is not None
    parts = node.op.derivative.reverse(node, tuple(given) if node.op.has_several else given[0], wanted)
    moved = zip(node.inputs, parts, wanted, strict=True)
    return _Asked(node, weights, [(x, part) for x, part, want in moved if want and part is not None])


def _agrees(asked: _Asked, kept: Mapping[Node, tuple[Around, ...]], arrays: Sequence[Array]) -> bool:
    """⟨u, change of the node⟩ = Σ ⟨rule at u, change of the operand⟩, as far as rounding lets one tell."""
    change = size = rounding = 0.0
    if not all(map(_is_clear, kept[asked.node])):
        return True
    with np.errstate(all="ignore"):
        for u, each in zip(asked.weights, kept[asked.node], strict=True):
            if u is not None:
                change += _inner(u, each.moved)
                size += float((np.abs(u) * np.abs(each.moved)).sum())
                rounding += ROUNDING * float((np.abs(u) * np.abs(each.here)).sum())
        for (x, _), part in zip(asked.parts, arrays, strict=True):
            change -= _inner(part, kept[x][0].moved)
            size += float((np.abs(part) * np.abs(kept[x][0].moved)).sum())
    return not abs(change) > DIFFERS * size + rounding


def _is_clear(each: Around) -> bool:
    """Whether the steps are so small that what a node changes by is in proportion to them."""
    with np.errstate(all="ignore"):
        far, near = each.right[0] - each.left[0], SHRINK * (each.right[1] - each.left[1])
        rounding = SHRINK * ROUNDING * np.abs(each.here)
        return bool((np.abs(far - near) <= CLEAR * np.abs(far) + rounding).all())


def _inner(u: Array, v: Array) -> float:
    return float((np.conj(u) * v).sum().real)
