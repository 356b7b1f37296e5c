"""Plans as Python source: a function that does what the interpreter of a plan does, with nothing between two steps.

It pays from the second run on (compiling takes some ten microseconds a step), and gives the same bits, by the same
kernels and the same forms (engine.floats). What goes into the source are places of values, as v12, literals, the forms
of ops, and names of what is bound beside it; no posted text, but for names of inputs, as string literals.

If a step raises, the interpreter does the work again from the start: it knows what to do then, and whom to blame. So
nothing is written as a function that writes over anything but its own values, or that takes long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from engine.floats import literal
from engine.plan import NOWHERE, STEERS, TICK_FLOPS, Blocks, Calls, Floats, Plan
from engine.types import Array

MOST_STEPS = 1024
"""Steps of one function."""


def translate(plan: Plan) -> None:
    """Write the plan as a function if it is short; else those of its pieces that are over floats."""
    if _is_short(plan):
        plan.written = written_plan(plan)
        plan.is_swift = all(isinstance(each, Floats) and each.is_plain for each in plan.pieces)
        return
    later: set[int] = set()
    for piece in reversed(plan.pieces):
        if isinstance(piece, Floats):
            piece.written = _written_floats(piece, plan.template, later)
            later.update(place for step in piece.steps for place in step.args)


def _is_short(plan: Plan) -> bool:
    steps = list(plan.steps)
    if len(steps) > MOST_STEPS or plan.flops > TICK_FLOPS or any(step.into == STEERS for step in steps):
        return False
    return not any(isinstance(piece, Blocks) for piece in plan.pieces)


def written_plan(plan: Plan, tree: Any = None) -> Callable[[Mapping[str, Array]], Any]:
    """A function from a plan's inputs, by name, to its results: in a list, or in the form of a tree."""
    source = _Source(plan.template)
    for place, name in plan.inputs:
        source.put(place, f"inputs[{name!r}]")
    for piece in plan.pieces:
        assert not isinstance(piece, Blocks)
        source.floats(piece) if isinstance(piece, Floats) else source.calls(piece)
    results = [source.result(place) for place in plan.results]
    answer = f"[{', '.join(results)}]" if tree is None else _tree_text(tree, results, source.names)
    return source.function("inputs", f"return {answer}")


def _written_floats(piece: Floats, template: Sequence[Any], later: Container[int]) -> Callable[[list[Any]], None]:
    """A function that runs one piece on the list of values, in which it leaves what is needed `later`."""
    source = _Source(template)
    made = {step.out for step in piece.steps} | {place for _, place in piece.loads}
    taken = {place for step in piece.steps for place in step.args if template[place] is None}
    for place in sorted((taken - made) | {place for place, _ in piece.loads}):
        source.put(place, f"values[{place}]")
    source.floats(piece)
    for place in [place for place in made if place in later] + [place for _, place in piece.stores]:
        source.lines.append(f"values[{place}] = v{place}")
    source.lines += [f"values[{place}] = None" for place in piece.dead]
    return source.function("values", "return")


def _tree_text(tree: Any, results: Sequence[str], names: dict[str, Any]) -> str:
    """A tree of dicts and lists, at whose leaves are places among the results, in tuples."""
    if isinstance(tree, tuple) and len(tree) == 1:
        return results[tree[0]]
    if isinstance(tree, dict):
        items = [f"{_bound(name, names)}: {_tree_text(each, results, names)}" for name, each in tree.items()]
        return f"{{{', '.join(items)}}}"
    if isinstance(tree, list):
        return f"[{', '.join(_tree_text(each, results, names) for each in tree)}]"
    return _bound(tree, names)


def _bound(value: Any, names: dict[str, Any]) -> str:
    name = f"n{len(names)}"
    names[name] = value
    return name


class _Source:
    """A function as it is being written."""

    def __init__(self, template: Sequence[Any]) -> None:
        self.template = template
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"math": math, "array": np.array, "asarray": np.asarray}
        self.arrays: set[int] = set()
        """Places of what is known to be an array, where a kernel might have given a scalar of NumPy's."""

    def put(self, place: int, text: str) -> None:
        self.lines.append(f"v{place} = {text}")

    def value(self, place: int) -> str:
        """What stands for a value: its name, or that of a constant, or a literal."""
        constant = self.template[place]
        if constant is None:
            return f"v{place}"
        if isinstance(constant, bool | float):
            return literal(constant)
        self.names[f"c{place}"] = constant
        return f"c{place}"

    def result(self, place: int) -> str:
        return self.value(place) if place in self.arrays else f"asarray({self.value(place)})"

    def floats(self, piece: Floats) -> None:
        for place, out in piece.loads:
            self.put(out, f"{self.value(place)}.item()")
        for step, form in zip(piece.steps, piece.forms, strict=True):
            kernel = f"{step.node.op.name}_"
            if form.kernel is not None:
                self.names[kernel] = form.kernel
            self.put(step.out, form.written(*map(self.value, step.args), kernel=kernel))
        for place, out in piece.stores:
            self.put(out, f"array(v{place})")
            self.arrays.add(out)

    def calls(self, piece: Calls) -> None:
        for step in piece.steps:
            kernel = f"{step.node.op.name}_{step.out if step.node.attrs else ''}"
            self.names[kernel] = step.kernel
            operands = [self.value(place) for place in step.args]
            if step.into != NOWHERE:
                operands.append(f"out=v{step.into}")
            self.put(step.out, f"{kernel}({', '.join(operands)})")
            self.lines += [f"del v{place}" for place in step.dead if self.template[place] is None]
            if step.node.shape:
                self.arrays.add(step.out)

    def function(self, parameter: str, last: str) -> Callable[..., Any]:
        text = "\n    ".join([f"def written({parameter}):", *self.lines, last])
        exec(compile(text, "<plan>", "exec"), self.names)
        found: Callable[..., Any] = self.names.pop("written")
        return found
