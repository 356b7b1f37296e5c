"""Plans as Python source: a function that does what the interpreter of a plan does, with nothing between two steps.

It pays from the second run on (compiling takes some eight microseconds a step), and gives the same bits, by the same
kernels and the same forms (engine.floats). What goes into the source are variables, as v12, literals, the forms of ops,
and names of what is bound beside it; no posted text.

Values share variables: one that was read for the last time gives its own to the next. So what is at work stays few
enough to lie in the cache, as the text of a long function does (it halves the time of a chain of 20,000 scalars).

If a step raises, the interpreter does the work again from the start: it knows what to do then, and whom to blame. So
nothing is written as a function that writes over anything but its own values, or that takes long.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from engine.floats import literal
from engine.groups import OUTSIDE
from engine.plan import NOWHERE, STEERS, TICK_FLOPS, Blocks, Calls, Floats, Piece, Plan, Step
from engine.types import Array

MOST_CALLS, MOST_STEPS = 1 << 10, 1 << 16
"""Of one function: steps that call NumPy, and steps over floats, which take some 20 ns. In pieces the latter take half
as long again; but compiling takes 3 kB a step for a moment, and holds the interpreter."""

FUNCTION = re.compile(r"math_\w+")
"""What forms name of `math`, as a variable of its own: that is found sooner than by way of the module."""


def translate(plan: Plan) -> None:
    """Write the plan as a function if it is short; else have those of its pieces written that are over floats."""
    if is_short(plan):
        plan.written = written_plan(plan)
        return
    later: set[int] = set()
    for piece in reversed(plan.pieces):
        if isinstance(piece, Floats):
            left = [step.out for step in piece.steps if step.out in later]
            left += [out for _, out in piece.loads if out in later]
            piece.write = partial(_written_floats, piece, plan.template, left)
            later.update(place for step in piece.steps for place in step.args)


def is_short(plan: Plan) -> bool:
    """Whether a plan may be one function."""
    if plan.flops > TICK_FLOPS or any(isinstance(piece, Blocks) for piece in plan.pieces):
        return False
    calls = [step for piece in plan.pieces if isinstance(piece, Calls) for step in piece.steps]
    floats = sum(len(piece.steps) for piece in plan.pieces if isinstance(piece, Floats))
    return len(calls) <= MOST_CALLS and floats <= MOST_STEPS and not any(step.into == STEERS for step in calls)


def written_plan(plan: Plan) -> Callable[[Mapping[str, Array]], list[Array]]:
    """A function from a plan's inputs, by name, to its results."""
    source = _whole(plan, plan.results)
    return source.function("inputs", f"return [{', '.join(map(source.result, plan.results))}]")


def written_answer(plan: Plan, tree: Any) -> Callable[[Mapping[str, Array]], Any]:
    """A function from a plan's inputs, by name, to a tree of its results, at whose leaves are places among them, in
    tuples. Scalars of float64 come as floats. It leaves NumPy's warnings off."""
    floats = [piece for piece in plan.pieces if isinstance(piece, Floats)]
    numbers = {array: number for piece in floats for number, array in piece.stores}
    places = [numbers.get(at, at) if is_float else at for at, is_float in zip(plan.results, plan.floats, strict=True)]
    source = _whole(plan, places)
    texts = [
        source.result(place) if not is_float else source.value(place) if place != at else source.item(place)
        for place, at, is_float in zip(places, plan.results, plan.floats, strict=True)
    ]
    written = source.function("inputs", f"return {_tree_text(tree, texts, source)}")
    return written if all(isinstance(each, Floats) and each.is_plain for each in plan.pieces) else _quiet(written)


def _quiet(written: Callable[[Mapping[str, Array]], Any]) -> Callable[[Mapping[str, Array]], Any]:
    def run(inputs: Mapping[str, Array]) -> Any:
        with np.errstate(all="ignore"):
            return written(inputs)

    return run


def _whole(plan: Plan, results: Sequence[int]) -> _Source:
    """All of a plan, to the point where the values at `results` are there."""
    source = _Source(plan.template, _uses(plan.pieces, results))
    for place, name in plan.inputs:
        source.put(place, f"inputs[{source.bound(name)}]")
    for piece in plan.pieces:
        assert not isinstance(piece, Blocks)
        source.floats(piece) if isinstance(piece, Floats) else source.calls(piece)
    return source


def _uses(pieces: Sequence[Piece], results: Iterable[int]) -> Counter[int]:
    """How often each value is read. What is stored for nobody is not."""
    uses = Counter(results)
    uses.update(chain.from_iterable(step.args for piece in pieces for step in piece.steps))
    floats = [piece for piece in pieces if isinstance(piece, Floats)]
    uses.update(place for piece in floats for place, _ in piece.loads)
    uses.update([place for piece in floats for place, out in piece.stores if uses[out]])
    return uses


def _written_floats(piece: Floats, template: Sequence[Any], left: Sequence[int]) -> Callable[[list[Any]], None]:
    """A function that runs one piece on the list of values, in which it leaves what stands at `left`."""
    stored = [out for _, out in piece.stores]
    source = _Source(template, _uses([piece], stored), left)
    source.floats(piece)
    source.lines += [f"values[{place}] = {source.value(place)}" for place in stored]
    source.lines += [f"values[{place}] = None" for place in piece.dead]
    return source.function("values", "return")


def written_block(piece: Blocks) -> Callable[..., None]:
    """A function that computes a block of a group, a line for a step. It takes the block's number and its index; then
    the operands from outside, what is kept, the reductions, and the slots, each as `Blocks` and its layout list them.
    """
    source = _Source((), Counter())
    text = {place: f"x{place}" for place in piece.outside}
    for step, target in zip(piece.steps, piece.layout.targets, strict=True):
        operands = ", ".join(text[place] for place in step.args)
        if step.node.op.fold is not None:
            source.lines.append(f"f{step.out}.put(at, index, {operands})")
            continue
        kernel = source.kernel(step)
        out = text[step.out] = f"y{step.out}" if target == OUTSIDE else f"s{target}" if target >= 0 else f"v{step.out}"
        if target >= 0 or (step.node.op.takes_out and target == OUTSIDE):
            source.lines.append(f"{kernel}({operands}, out={out})")
        else:
            source.lines.append(f"{out}{'[...]' if target == OUTSIDE else ''} = {kernel}({operands})")
    taken = [*(text[place] for place in piece.outside), *(f"y{step.out}" for step in piece.kept)]
    taken += [*(f"f{step.out}" for step in piece.folds), *(f"s{at}" for at in range(len(piece.layout.slots)))]
    return source.function(", ".join(["at", "index", *taken]), "return")


def _tree_text(tree: Any, results: Sequence[str], source: _Source) -> str:
    """A tree of dicts and lists, at whose leaves are places among the results, in tuples."""
    if isinstance(tree, tuple) and len(tree) == 1:
        return results[tree[0]]
    if isinstance(tree, dict):
        items = [f"{source.bound(name)}: {_tree_text(each, results, source)}" for name, each in tree.items()]
        return f"{{{', '.join(items)}}}"
    if isinstance(tree, list):
        return f"[{', '.join(_tree_text(each, results, source) for each in tree)}]"
    return source.bound(tree)


class _Source:
    """A function as it is being written. `uses` tells how often each value is yet to be read.

    Of a piece of a plan: what is not made in it is read where it is needed, and what is `left` for later pieces is laid
    down where it is made, from and to the list of values.
    """

    def __init__(self, template: Sequence[Any], uses: Counter[int], left: Iterable[int] = ()) -> None:
        self.template = template
        self.uses = uses
        self.left = frozenset(left)
        self.lines: list[str] = []
        self.names: dict[str, Any] = {"array": np.array, "asarray": np.asarray}
        self.arrays: set[int] = set()
        """Places of what is known to be an array, where a kernel might have given a scalar of NumPy's."""
        self._variables: dict[int, int] = {}
        self._free: list[int] = []
        self._ended: list[int] = []
        self._count = 0

    def bound(self, value: Any) -> str:
        """A name for a value that stands beside the source."""
        name = f"n{len(self.names)}"
        self.names[name] = value
        return name

    def put(self, place: int, text: str) -> None:
        """Give the value of `text` a variable, perhaps one whose value `text` reads for the last time."""
        for ended in self._ended:
            heapq.heappush(self._free, ended)
        self._ended.clear()
        self._assign(place, text)
        if place in self.left:
            self.lines.append(f"values[{place}] = v{self._variables[place]}")
            if not self.uses[place]:
                self._ended.append(self._variables[place])

    def _assign(self, place: int, text: str) -> None:
        if not self._free:
            self._free.append(self._count)
            self._count += 1
        variable = self._variables[place] = heapq.heappop(self._free)
        self.lines.append(f"v{variable} = {text}")

    def value(self, place: int) -> str:
        """What stands for a value that is read: its variable, or the name of a constant, or a literal."""
        constant = self.template[place]
        if constant is None:
            if place not in self._variables:
                self._assign(place, f"values[{place}]")
            self.uses[place] -= 1
            if not self.uses[place]:
                self._ended.append(self._variables[place])
            return f"v{self._variables[place]}"
        if isinstance(constant, bool | float):
            return literal(constant)
        self.names[f"c{place}"] = constant
        return f"c{place}"

    def result(self, place: int) -> str:
        return self.value(place) if place in self.arrays else f"asarray({self.value(place)})"

    def item(self, place: int) -> str:
        return f"{self.value(place)}.item()"

    def floats(self, piece: Floats) -> None:
        for place, out in piece.loads:
            self.put(out, self.item(place))
        for step, form in zip(piece.steps, piece.forms, strict=True):
            kernel = f"{step.node.op.name}_"
            if form.kernel is not None:
                self.names[kernel] = form.kernel
            self.put(step.out, form.written(*map(self.value, step.args), kernel=kernel))
        for place, out in piece.stores:
            if self.uses[out]:
                self.put(out, f"array({self.value(place)})")
                self.arrays.add(out)

    def calls(self, piece: Calls) -> None:
        for step in piece.steps:
            kernel = self.kernel(step)
            into = "" if step.into == NOWHERE else f", out=v{self._variables[step.into]}"
            text = f"{kernel}({', '.join(map(self.value, step.args))}{into})"
            dead = {*self._ended}
            self.put(step.out, text)
            self.lines += [f"del v{each}" for each in dead - {self._variables[step.out]}]
            if step.node.shape:
                self.arrays.add(step.out)

    def kernel(self, step: Step) -> str:
        """The name of a step's kernel."""
        name = f"{step.node.op.name}_{step.out if step.node.attrs else ''}"
        self.names[name] = step.kernel
        return name

    def function(self, parameters: str, last: str) -> Callable[..., Any]:
        text = "\n    ".join([*self.lines, last]).replace("math.", "math_")
        functions = sorted(set(FUNCTION.findall(text)))
        self.names |= {name: getattr(math, name.removeprefix("math_")) for name in functions}
        head = ", ".join([parameters, *(f"{name}={name}" for name in functions)])
        exec(compile(f"def written({head}):\n    {text}", "<plan>", "exec"), self.names)
        found: Callable[..., Any] = self.names.pop("written")
        return found
