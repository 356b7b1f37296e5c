"""Checking a graph's derivatives against numbers: analytic gradients against differences of values.

All outputs are folded into one scalar φ = Σ ⟨u, output⟩ with fixed random u, so that one analytic sweep is held against
as many differences as there are probes. For order 2, φ becomes Σ ⟨v, ∇φ⟩ and the same is done again. Probes are unit
vectors while there are few elements, else some of them and some random directions.

Each difference is Ridders' (Adv. Eng. Softw. 4, 1982): central differences at shrinking steps, extrapolated to step
zero, and the entry that its neighbours agree with best, measured against its own size. Steps run from a twentieth of x
down to where rounding rules, so that functions with a scale of their own, and points near the edge of a domain, are met
as well. At a kink no difference is the derivative: what lies between the slopes from the two sides passes.

Differences run in float64 whatever the graph's dtype, and through what is detached, as PyTorch's gradcheck does: there
the two disagree on purpose, and a warning says so. Random numbers are the same for equal requests, so that equal
requests have equal answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.calls import Question, Scene, ones, or_zero
from engine.core import Graph, Node, ops
from engine.derivative import plus
from engine.errors import LimitExceeded, NotDifferentiable, UnknownName
from engine.execute import run
from engine.limits import Limits
from engine.plan import Plan, make_plan
from engine.program import Statement
from engine.tensors import Tensor
from engine.transforms.batch import batch
from engine.transforms.reverse import reverse
from engine.types import FLOAT64, Array

MOST_PROBES = 64
LEAST_PROBES = 4
FLOPS = 2_000_000_000
"""Work that the differences of one wrt may take; fewer probes are taken of a large graph."""

FIRST_STEP, LAST_STEP, SHRINK = 0.05, 1e-7, 4.0
"""Steps, the first and last in units of x (or of 1, where that is larger, or smaller)."""
ONE_SIDED_STEP = 1e-6
EPSILON = 1e-15
NOISE = 1e-8
"""Slopes below this part of φ over x are compared as zeros."""
KINK = 1e-3
"""How far apart, relatively, the slopes of two sides are where the function bends."""
STEEP = 1e2
"""A one-sided slope that an infinite derivative may have."""

TOLERANCE = {"float64": 1e-6, "float32": 2e-3, "complex128": 1e-6, "complex64": 2e-3}
"""Largest relative error that passes, by the dtype in which the analytic derivative was computed."""


@dataclass(frozen=True)
class Probe:
    """A direction in one input."""

    direction: Array
    index: tuple[int, ...] | None
    """The element, where the direction is a unit vector."""


def check(question: Question, limits: Limits, tick: Callable[[], None] | None = None) -> dict[str, Any]:
    """Hold the gradient (order 1) or the Hessian (order 2) of a question's graph against differences of values.

    Returns passed, max_abs_error, max_rel_error, these with the worst probe by wrt, and warnings, if any. Relative
    errors are against the largest derivative found for that wrt, or 1 where that is smaller. Raises UnknownName for a
    wrt that is no input, NotDifferentiable for a complex one, LimitExceeded where the weights need too much memory.
    """
    _refuse(question)
    analytic = _analytic(question, limits, tick)
    numeric = _Numeric(_in_float64(question), limits, tick)
    with np.errstate(all="ignore"):
        by_wrt = {name: _compare(name, found, numeric) for name, found in analytic.items()}
    worst = {key: _most(row[key] for row in by_wrt.values()) for key in ("max_abs_error", "max_rel_error")}
    answer = {"passed": all(row["passed"] for row in by_wrt.values()), **worst, "wrt": by_wrt}
    warnings = [_warning(each) for each in question.program.statements if _is_cut(each)]
    return answer | ({"warnings": warnings} if warnings else {})


def _refuse(question: Question) -> None:
    for at, name in enumerate(question.wrt or ()):
        if name not in question.inputs:
            raise UnknownName(f"check moves inputs; {name[:64]!r} is none", pointer=f"/wrt/{at}")
        if question.inputs[name].spec.dtype.kind == "c":
            raise NotDifferentiable(f"check moves real inputs; {name} is complex", pointer=f"/wrt/{at}")


def _most(values: Iterator[float]) -> float:
    found = list(values)
    return float(np.max(found)) if found else 0.0


def _warning(statement: Statement) -> dict[str, str]:
    detail = f"{statement.id} is not tracked: differences see what passes through it, and the gradient does not"
    return {"code": "untracked", "detail": detail, "node": statement.id}


def _is_cut(statement: Statement) -> bool:
    return statement.no_grad or bool(getattr(statement.op.derivative, "cuts", False))


def _in_float64(question: Question) -> Question:
    inputs = {
        name: Tensor(each.array.astype(FLOAT64), True, each.requires_grad) if each.spec.dtype.kind == "f" else each
        for name, each in question.inputs.items()
    }
    return replace(question, inputs=inputs)


def _folded(question: Question, graph: Graph) -> tuple[Node, dict[str, Node]]:
    """φ of a question, and the leaves that it is differentiated by."""
    scene = Scene(question, graph)
    wrt = {name: scene.batched.get(x, x) for name, x in scene.wrt.items()}
    if not wrt:
        return graph.number(0.0), wrt
    outputs = list(scene.differentiable.values())
    if scene.batched:
        outputs = batch(scene.batched, outputs)
    phi = _against_random(outputs, seed=1)
    if question.order == 2:
        found = reverse([(phi, ones(phi))], list(wrt.values()))
        phi = _against_random([or_zero(g, x) for g, x in zip(found, wrt.values(), strict=True)], seed=2)
    return phi, wrt


def _against_random(nodes: list[Node], seed: int) -> Node:
    """Σ ⟨u, node⟩ with u of magnitudes from ½ to 1½, the same for equal shapes."""
    total: Node | None = None
    limit, size = nodes[0].graph.limits.peak_bytes, 2 * sum(node.spec.nbytes for node in nodes)
    if size > limit:
        raise LimitExceeded("peak_bytes", limit, size, "bytes of the outputs and of their weights")
    for at, node in enumerate(nodes):
        u = np.random.default_rng([seed, at]).uniform(0.5, 1.5, node.shape)
        total = plus(total, ops.sum(node * node.graph.constant(u, node.dtype)))
    assert total is not None
    return total


def _analytic(question: Question, limits: Limits, tick: Callable[[], None] | None) -> dict[str, Array]:
    graph = Graph(limits=limits, tick=tick, masked=question.nan_policy == "mask")
    phi, wrt = _folded(question, graph)
    found = reverse([(phi, ones(phi))], list(wrt.values()))
    nodes = [or_zero(g, x) for g, x in zip(found, wrt.values(), strict=True)]
    arrays = run(make_plan(nodes), _arrays(question), tick)
    return dict(zip(wrt, arrays, strict=True))


def _arrays(question: Question) -> dict[str, Array]:
    return {name: tensor.array for name, tensor in question.inputs.items()}


class _Numeric:
    """φ as a function of one moved input."""

    def __init__(self, question: Question, limits: Limits, tick: Callable[[], None] | None) -> None:
        phi, _ = _folded(question, Graph(limits=limits, tick=tick, masked=question.nan_policy == "mask"))
        self.plan: Plan = make_plan([phi])
        self.tensors: Mapping[str, Array] = _arrays(question)
        self.tick = tick

    def probes(self) -> int:
        """How many directions the work allows."""
        return int(np.clip(FLOPS // (30 * max(self.plan.flops, 1)), LEAST_PROBES, MOST_PROBES))

    def slope(self, name: str, direction: Array) -> float:
        """dφ/dh at x + h·direction, by Ridders' extrapolation; NaN where no step gives a number."""
        size = self._size(name, direction)
        h, end = FIRST_STEP * max(1.0, size), LAST_STEP * min(1.0, size or 1.0)
        floor = NOISE * self._height(name, direction)
        best, least = np.nan, np.inf
        row: list[float] = []
        while h > end:
            above, below = self._phi(name, h * direction), self._phi(name, -h * direction)
            previous, row = row, [(above - below) / (2 * h)]
            h /= SHRINK
            if not np.isfinite(row[0]):
                row = []  # a step out of the domain: start again from smaller ones
                continue
            for k, before in enumerate(previous):
                factor = SHRINK ** (2 * (k + 1))
                row.append((factor * row[k] - before) / (factor - 1))
                error = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - before)) / max(abs(row[k + 1]), floor, 1e-300)
                if error <= least:
                    best, least = row[k + 1], error
        return best

    def sides(self, name: str, direction: Array) -> tuple[float, float]:
        """Slopes from the left and from the right."""
        h = ONE_SIDED_STEP * (self._size(name, direction) or 1.0)
        here = self._phi(name, 0.0 * direction)
        left, right = self._phi(name, -h * direction), self._phi(name, h * direction)
        return (here - left) / h, (right - here) / h

    def noise(self, name: str, direction: Array) -> float:
        """What rounding of φ alone may add to a slope, at the largest step."""
        return EPSILON * self._height(name, direction) / FIRST_STEP

    def _height(self, name: str, direction: Array) -> float:
        return abs(self._phi(name, 0.0 * direction)) / max(1.0, self._size(name, direction))

    def _size(self, name: str, direction: Array) -> float:
        return float(np.abs(self.tensors[name][direction != 0]).max(initial=0.0))

    def _phi(self, name: str, shift: Array) -> float:
        moved = {**self.tensors, name: self.tensors[name] + shift}
        return float(run(self.plan, moved, self.tick)[0])


def _compare(name: str, analytic: Array, numeric: _Numeric) -> dict[str, Any]:
    """The largest errors over the probes of one wrt, and the probe that has them."""
    worst: dict[str, Any] | None = None
    largest, scale, most, noise = 0.0, 1.0, 0.0, 0.0
    tolerance = TOLERANCE[analytic.dtype.name]
    for probe in _probes(analytic.shape, numeric.probes()):
        exact, found = float((analytic * probe.direction).sum()), numeric.slope(name, probe.direction)
        if not _close(exact, found, tolerance):
            found = _between(exact, numeric.sides(name, probe.direction), found, tolerance)
        error = 0.0 if exact == found else abs(exact - found)
        if worst is None or not error <= largest:
            index = None if probe.index is None else list(probe.index)
            worst = {"index": index, "analytic": exact, "numerical": found}
            largest = error if np.isfinite(error) else np.inf
        if np.isfinite(found):
            scale = max(scale, abs(found))
        most = max(most, error if np.isfinite(error) else np.inf)
        noise = max(noise, numeric.noise(name, probe.direction))
    row = {"passed": most <= scale * tolerance + noise, "max_abs_error": most, "max_rel_error": most / scale}
    return row if worst is None else row | {"worst": worst}


def _close(exact: float, found: float, tolerance: float) -> bool:
    return abs(exact - found) <= tolerance * max(1.0, abs(found))


def _between(exact: float, sides: tuple[float, float], found: float, tolerance: float) -> float:
    """The numerical derivative at a kink: the analytic one, where the slopes of the two sides have it between them.

    Where the function ends, as sqrt does at 0, one side is NaN and says nothing; an infinite derivative then stands if
    the other side is steep.
    """
    low, high = (min(sides), max(sides)) if not np.isnan(sides).any() else (np.nan, np.nan)
    is_kink = high - low > KINK * max(1.0, abs(high), abs(low))
    if is_kink and low - tolerance <= exact <= high + tolerance:
        return exact
    is_end = np.isnan(sides).any() and np.nanmax(np.abs(sides), initial=0.0) > STEEP
    return exact if np.isinf(exact) and is_end else found


def _probes(shape: tuple[int, ...], count: int) -> Iterator[Probe]:
    size = int(np.prod(shape))
    rng = np.random.default_rng(3)
    chosen = np.arange(size) if size <= count else rng.choice(size, count // 2, replace=False)
    for flat in chosen:
        unit = np.zeros(size)
        unit[flat] = 1.0
        index = tuple(int(each) for each in np.unravel_index(flat, shape)) if shape else ()
        yield Probe(unit.reshape(shape), index)
    for _ in range(0 if size <= count else count - count // 2):
        yield Probe(rng.choice([-1.0, 1.0], shape) / np.sqrt(size), None)
