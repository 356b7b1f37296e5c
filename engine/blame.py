"""Where a NaN or an infinity in a derivative began: the posted node, and what to do about it.

Nothing is looked for until a derivative is not finite. Then the plan is run once more, and what every node gave is
kept as a word: finite, infinite, NaN. From the derivative one goes back along operands that are no better, to the nodes
that made it out of finite numbers. A NaN is followed to NaNs where there are any; else it was made, as zero times
infinity is, and the infinity is followed. What came in with the inputs is nobody's fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from engine.calls import Compiled, Place, Tree
from engine.core import INPUT, Node
from engine.errors import EngineError
from engine.execute import is_finite, run
from engine.plan import make_plan
from engine.types import Array, Tick, is_inexact
from engine.warnings import Notice

MOST = 5
"""Nodes that one answer names."""

INFINITE, NAN = 1, 2
NOUN = {INFINITE: "an infinity", NAN: "a NaN"}
ADJECTIVE = {INFINITE: "infinite", NAN: "NaN"}


def notices_of(
    compiled: Compiled, tensors: Mapping[str, Array], answer: Tree, tick: Tick | None = None
) -> list[Notice]:
    """What to say of an answer of `compiled.run(tensors)`; nothing, at once, where all derivatives are finite.

    What cannot be found out, for want of time or memory, is not said.
    """
    if _is_fine(_derived(answer)):
        return []
    try:
        rung = list(dict.fromkeys(_rung(compiled, tensors, tick)))
        traced = _traced(compiled, tensors, tick)
    except EngineError:
        return []
    settled = {notice.node for notice in rung}
    return [*rung, *(each for each in traced if each.node not in settled)][:MOST]


def _derived(tree: Tree) -> Tree:
    return [each for name, each in tree.items() if name != "values"]


def _is_fine(tree: Tree) -> bool:
    """Whether all numbers of a tree are finite."""
    if isinstance(tree, float):
        return math.isfinite(tree)
    if isinstance(tree, dict):
        return all(map(_is_fine, tree.values()))
    if isinstance(tree, list):
        return all(map(_is_fine, tree))
    return not isinstance(tree, np.ndarray) or is_finite(tree)


def _leaves(tree: Tree) -> Iterator[Any]:
    """The places of a tree."""
    if isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(each)
    elif isinstance(tree, Place):
        yield tree


def _rung(compiled: Compiled, tensors: Mapping[str, Array], tick: Tick | None) -> Iterator[Notice]:
    """The notices of alarms whose condition holds."""
    conditions = run(make_plan(list(compiled.alarms)), tensors, tick)
    for notice, condition in zip(compiled.alarms.values(), conditions, strict=True):
        if condition.any():
            yield notice._replace(detail=f"{_op_name(compiled, notice.node)}: {notice.detail}")


def _traced(compiled: Compiled, tensors: Mapping[str, Array], tick: Tick | None) -> list[Notice]:
    kinds: dict[Node, int] = {}

    def watch(node: Node, operands: Sequence[Any], value: Any) -> None:
        kinds[node] = _kind(value)

    for node in compiled.built.graph.nodes:
        if node.op is INPUT and node.attrs["name"] in tensors:
            kinds[node] = _kind(tensors[node.attrs["name"]])
    run(compiled.plan, tensors, tick, watch=watch)
    # Of what is sparse the tree has arrays, too: the places of its numbers, known before the run.
    places = [each for each in _leaves(_derived(compiled.tree)) if isinstance(each, Place)]
    roots = [compiled.results[place.at] for place in places]
    sources = _sources([node for node in roots if kinds.get(node)], kinds)
    values = [compiled.results[place.at] for place in _leaves(compiled.tree["values"])]
    forward = set(compiled.built.graph.live(values))
    is_nan = any(kinds.get(node) == NAN for node in roots)
    found = {each.origin: _notice(compiled, each, kinds[each], each in forward, is_nan) for each in reversed(sources)}
    place = {statement.id: at for at, statement in enumerate(compiled.question.program.ordered)}
    return sorted(found.values(), key=lambda notice: place.get(notice.node or "", -1))


def _kind(value: Any) -> int:
    """The worst that a value, or a tuple of values, has: 0 where all is finite."""
    if isinstance(value, tuple):
        return max(map(_kind, value), default=0)
    if not is_inexact(value.dtype) or np.isfinite(value).all():
        return 0
    return NAN if np.isnan(value).any() else INFINITE


def _sources(roots: Sequence[Node], kinds: Mapping[Node, int]) -> list[Node]:
    """The nodes, in order, that made what is not finite in `roots` out of operands that are."""
    sources, stack, seen = [], list(roots), set(roots)
    while stack:
        node = stack.pop()
        worst = max((kinds.get(x, 0) for x in node.inputs), default=0)
        before = [x for x in node.inputs if worst and kinds.get(x) == worst]
        if not before and node.op is not INPUT:
            sources.append(node)
        stack += [x for x in before if x not in seen]
        seen.update(before)
    return sorted(sources, key=lambda node: node.index)


def _op_name(compiled: Compiled, origin: str | None) -> str:
    statement = compiled.question.program.by_id.get(origin or "")
    return "the call" if statement is None else statement.op.name


def _notice(compiled: Compiled, node: Node, kind: int, is_forward: bool, is_nan: bool) -> Notice:
    name = _op_name(compiled, node.origin)
    if is_forward:
        detail = f"{name} gives {NOUN[kind]} here, out of finite numbers, and derivatives are not finite because of it"
    else:
        detail = f"the derivative of {name} is {ADJECTIVE[kind]} here"
    if is_nan and compiled.question.nan_policy == "ieee":
        detail += '; where a zero cotangent meets it, as in a branch that is not taken, nan_policy "mask" makes that 0'
    return Notice("non_finite_gradient", detail, node.origin)
