"""Checking a graph's derivatives against numbers: analytic gradients against differences of values.

All outputs are folded into one scalar φ = Σ ⟨u, output⟩ with fixed random u, so that one analytic sweep is held against
as many differences as there are probes. For order 2, φ becomes Σ ⟨v, ∇φ⟩ and the same is done again. Probes are unit
vectors while there are few elements, else some of them and some random directions.

Each difference is Ridders' (Adv. Eng. Softw. 4, 1982): central differences at shrinking steps, extrapolated to step
zero, and the entry that its neighbours agree with best. They run in float64 whatever the graph's dtype. Random numbers
are the same for equal requests, so that equal requests have equal answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.calls import Question, Scene
from engine.core import Graph, Node, cast, ops
from engine.derivative import plus, zeros
from engine.errors import NotDifferentiable, UnknownName
from engine.execute import run
from engine.limits import Limits
from engine.plan import Plan, make_plan
from engine.tensors import Tensor
from engine.transforms.batch import batch
from engine.transforms.reverse import reverse
from engine.types import FLOAT64, Array

MOST_PROBES = 64
LEAST_PROBES = 4
FLOPS = 2_000_000_000
"""Work that the differences of one wrt may take; fewer probes are taken of a large graph."""

LEVELS = 7
FIRST_STEP = 0.05
SHRINK = 2.0

TOLERANCE = {"float64": 1e-6, "float32": 2e-3, "complex128": 1e-6, "complex64": 2e-3}
"""Largest relative error that passes, by the dtype in which the analytic derivative was computed."""


@dataclass(frozen=True)
class Probe:
    """A direction in one input, and what its derivative along it was found to be."""

    direction: Array
    index: tuple[int, ...] | None
    """The element, where the direction is a unit vector."""


def check(question: Question, limits: Limits, tick: Callable[[], None] | None = None) -> dict[str, Any]:
    """Hold the gradient (order 1) or the Hessian (order 2) of a question's graph against differences of values.

    Returns passed, max_abs_error, max_rel_error, and these with the worst probe by wrt. Relative errors are against
    the largest derivative found for that wrt, or 1 where that is smaller. Raises UnknownName for a wrt that is no
    input, and NotDifferentiable for a complex one.
    """
    _refuse(question)
    if question.wrt is not None and not question.wrt:
        return {"passed": True, "max_abs_error": 0.0, "max_rel_error": 0.0, "wrt": {}}
    analytic = _analytic(question, limits, tick)
    numeric = _Numeric(_in_float64(question), limits, tick)
    by_wrt = {name: _compare(name, found, numeric) for name, found in analytic.items()}
    worst = {key: _most(row[key] for row in by_wrt.values()) for key in ("max_abs_error", "max_rel_error")}
    return {"passed": all(row["passed"] for row in by_wrt.values()), **worst, "wrt": by_wrt}


def _refuse(question: Question) -> None:
    for at, name in enumerate(question.wrt or ()):
        if name not in question.inputs:
            raise UnknownName(f"check moves inputs; {name[:64]!r} is none", pointer=f"/wrt/{at}")
        if question.inputs[name].spec.dtype.kind == "c":
            raise NotDifferentiable(f"check moves real inputs; {name} is complex", pointer=f"/wrt/{at}")


def _most(values: Iterator[float]) -> float:
    found = list(values)
    return float(np.max(found)) if found else 0.0


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
    outputs = list(scene.differentiable.values())
    if scene.batched:
        outputs = batch(scene.batched, outputs)
    phi = _against_random(outputs, seed=1)
    if question.order == 2:
        found = reverse([(phi, cast(graph.number(1.0), phi.dtype))], list(wrt.values()))
        phi = _against_random(
            [zeros(x, x.spec) if g is None else g for g, x in zip(found, wrt.values(), strict=True)], seed=2
        )
    return phi, wrt


def _against_random(nodes: list[Node], seed: int) -> Node:
    """Σ ⟨u, node⟩ with u of magnitudes from ½ to 1½, the same for equal shapes."""
    total: Node | None = None
    for at, node in enumerate(nodes):
        u = np.random.default_rng([seed, at]).uniform(0.5, 1.5, node.shape)
        total = plus(total, ops.sum(node * node.graph.constant(u, node.dtype)))
    assert total is not None
    return total


def _analytic(question: Question, limits: Limits, tick: Callable[[], None] | None) -> dict[str, Array]:
    graph = Graph(limits=limits, tick=tick, masked=question.nan_policy == "mask")
    phi, wrt = _folded(question, graph)
    found = reverse([(phi, cast(graph.number(1.0), phi.dtype))], list(wrt.values()))
    nodes = [zeros(x, x.spec) if g is None else g for g, x in zip(found, wrt.values(), strict=True)]
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
        return int(np.clip(FLOPS // (2 * LEVELS * max(self.plan.flops, 1)), LEAST_PROBES, MOST_PROBES))

    def slope(self, name: str, direction: Array) -> float:
        """dφ/dh at x + h·direction, by Ridders' extrapolation."""
        scale = FIRST_STEP * max(1.0, float(np.abs(self.tensors[name][direction != 0]).max(initial=0.0)))
        best, least = np.nan, np.inf
        row: list[float] = []
        for level in range(LEVELS):
            h = scale / SHRINK**level
            previous, row = (
                row,
                [(self._phi(name, h * direction) - self._phi(name, -h * direction)) / (2 * h)],
            )
            for k, before in enumerate(previous):
                factor = SHRINK ** (2 * (k + 1))
                row.append((factor * row[k] - before) / (factor - 1))
                error = max(abs(row[k + 1] - row[k]), abs(row[k + 1] - before))
                if error <= least:
                    best, least = row[k + 1], error
        return best

    def _phi(self, name: str, shift: Array) -> float:
        moved = {**self.tensors, name: self.tensors[name] + shift}
        return float(run(self.plan, moved, self.tick)[0])


def _compare(name: str, analytic: Array, numeric: _Numeric) -> dict[str, Any]:
    """The largest errors over the probes of one wrt, and the probe that has them."""
    probes = list(_probes(analytic.shape, numeric.probes()))
    exact = np.array([float((analytic * probe.direction).sum()) for probe in probes])
    found = np.array([numeric.slope(name, probe.direction) for probe in probes])
    errors = np.abs(exact - found)
    scale = max(1.0, float(np.abs(found[np.isfinite(found)]).max(initial=0.0)))
    row: dict[str, Any] = {
        "passed": bool((errors <= scale * TOLERANCE[analytic.dtype.name]).all()),
        "max_abs_error": float(errors.max(initial=0.0)),
        "max_rel_error": float(errors.max(initial=0.0)) / scale,
    }
    if probes:
        at = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
        index = None if probes[at].index is None else list(probes[at].index or ())
        row["worst"] = {"index": index, "analytic": float(exact[at]), "numerical": float(found[at])}
    return row


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
