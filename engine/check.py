"""Checking a graph's derivatives against numbers: analytic gradients against slopes of values.

One analytic sweep of φ, into which all outputs are folded (engine.slopes), is held against a slope for each of some
directions: unit vectors while there are few elements, else some of them and some random ones; of a complex input, 1 and
i at each element. For order 2, φ is made of the gradients and the same is done again.

Slopes are taken by a complex step where that applies, and then have to agree to ten digits; by differences elsewhere.
At a kink no difference is the derivative: what lies between the slopes from the two sides passes. Where something is
off, or passed as a kink only, the nodes to look at are looked for (engine.locate).

Slopes are taken in double precision whatever the graph's dtype, and through what is detached, as PyTorch's gradcheck
takes them: there the two disagree on purpose, and a warning says so. Random numbers are the same for equal requests, so
that equal requests have equal answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.blame import notices_of
from engine.calls import Question, compile_question
from engine.errors import EngineError, UnknownName
from engine.execute import is_finite, run
from engine.limits import Limits
from engine.locate import located
from engine.plan import make_plan
from engine.program import Statement
from engine.slopes import ComplexStep, Differences, Side, arrays_of, complex_step, folded, in_double
from engine.types import Array, Tick
from engine.warnings import Notice

MOST_PROBES = 64
LEAST_PROBES = 4
FLOPS = 2_000_000_000
"""Work that the slopes by one wrt may take; fewer probes are taken of a large graph."""

KINK = 1e-3
"""How far apart, relatively, the slopes of two sides are where the function bends."""
ONE_SIDED = 1e-4
"""How near, relatively, a derivative has to be to the slope of one side, where the function jumps on the other."""

TOLERANCE, STEP_TOLERANCE, SINGLE_TOLERANCE = 1e-6, 1e-10, 2e-3
"""Largest relative error that passes: against differences, against a complex step, and in single precision."""

LISTED, SPELT = 5, 3
"""Elements of one wrt that are listed, and that the sentence spells out."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A direction in one input."""

    direction: Array
    index: tuple[int, ...] | None
    """The element, where the direction is a unit vector."""
    part: str | None = None
    """Which part of a complex element moves."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What was found along one probe."""

    probe: Probe
    analytic: float
    numerical: float
    allowance: float
    """What rounding may have done to the two."""
    is_kink: bool = False

    @property
    def error(self) -> float:
        """How far apart they are; infinite where one of them is not finite and the other is another."""
        if self.analytic == self.numerical:
            return 0.0
        error = abs(self.analytic - self.numerical)
        return error if np.isfinite(error) else np.inf

    def passes(self, scale: float, tolerance: float) -> bool:
        return self.error <= scale * tolerance + self.allowance

    def told(self) -> dict[str, Any]:
        index = None if self.probe.index is None else list(self.probe.index)
        part = {} if self.probe.part is None else {"part": self.probe.part}
        return {"index": index} | part | {"analytic": self.analytic, "numerical": self.numerical}

    def spelt(self, name: str) -> str:
        at = " along a random direction"
        if self.probe.index is not None:
            at = str(list(self.probe.index)) if self.probe.index else ""
        part = "" if self.probe.part is None else f" ({self.probe.part} part)"
        return f"{name}{at}{part}: analytic {self.analytic:.9g}, numerical {self.numerical:.9g}"


def check(question: Question, limits: Limits, tick: Tick | None = None) -> dict[str, Any]:
    """Hold the gradient (order 1) or the Hessian (order 2) of a question's graph against slopes of values.

    Returns passed, max_abs_error, max_rel_error; by wrt these, the method, the worst probe, and where it failed a list
    of the worst and a sentence; and warnings, if any, as notices. Relative errors are against the largest derivative
    found for that wrt, or 1 where that is smaller. Raises UnknownName for a wrt that is no input, LimitExceeded where
    the weights need too much memory.
    """
    _refuse(question)
    analytic = _analytic(question, limits, tick)
    with np.errstate(all="ignore"):
        checked = _Checked(question, limits, tick)
        by_wrt = {name: checked.row(name, found) for name, found in analytic.items()}
    worst = {key: _most(row[key] for row in by_wrt.values()) for key in ("max_abs_error", "max_rel_error")}
    notices = [_untracked(each) for each in question.program.ordered if _is_cut(each)]
    if not all(map(is_finite, analytic.values())):
        notices += _not_finite(question, limits, tick)
    notices += checked.notices
    for row in by_wrt.values():
        if "detail" in row:
            row["detail"] += _pointing(question, notices)
    answer = {"passed": all(row["passed"] for row in by_wrt.values()), **worst, "wrt": by_wrt}
    return answer | ({"warnings": list(dict.fromkeys(notices))} if notices else {})


def _refuse(question: Question) -> None:
    for at, name in enumerate(question.wrt or ()):
        if name not in question.inputs:
            raise UnknownName(f"check moves inputs; {name[:64]!r} is none", pointer=f"/wrt/{at}")


def _most(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.max(found)) if found else 0.0


def _analytic(question: Question, limits: Limits, tick: Tick | None) -> dict[str, Array]:
    fold = folded(question, limits, tick)
    return dict(zip(fold.wrt, run(make_plan(fold.gradient()), arrays_of(question), tick), strict=True))


# What is said of nodes


def _untracked(statement: Statement) -> Notice:
    detail = f"{statement.op.name} is not tracked: slopes see what passes through it, and the gradient does not"
    return Notice("untracked", detail, statement.id)


def _is_cut(statement: Statement) -> bool:
    return statement.no_grad or bool(getattr(statement.op.derivative, "cuts", False))


def _not_finite(question: Question, limits: Limits, tick: Tick | None) -> list[Notice]:
    """Where derivatives that are not finite began."""
    try:
        compiled = compile_question(replace(question, call="nth", path=None), limits, tick)
        tensors = compiled.bind()
        return notices_of(compiled, tensors, compiled.run(tensors, tick), tick)
    except EngineError:
        return []


def _pointing(question: Question, notices: Iterable[Notice]) -> str:
    """The end of a sentence: which named nodes the warnings are about."""
    by_id = question.program.by_id
    named = [f"{each.node} ({each.code})" for each in notices if each.node in by_id and by_id[str(each.node)].named]
    return f"; look at {', '.join(dict.fromkeys(named))}" if named else ""


# One wrt


class _Checked:
    """Checks one wrt after the other, and keeps what there is to say of nodes."""

    def __init__(self, question: Question, limits: Limits, tick: Tick | None) -> None:
        self.question = in_double(question)
        self.limits, self.tick = limits, tick
        self.differences = Differences(self.question, limits, tick)
        self.notices: list[Notice] = []

    def row(self, name: str, analytic: Array) -> dict[str, Any]:
        """What the answer says of one wrt."""
        step = complex_step(self.differences, name, self.limits) if is_finite(analytic) else None
        tolerance = self._tolerance(analytic, step)
        probes = _probes(analytic, self._count())
        readings = [self._read(name, analytic, probe, step, tolerance) for probe in probes]
        scale = _most([1.0, *(abs(each.numerical) for each in readings if np.isfinite(each.numerical))])
        most = _most(each.error for each in readings)
        failed = [each for each in readings if not each.passes(scale, tolerance)]
        row = {"passed": not failed, "method": (step or self.differences).method}
        row |= {"max_abs_error": most, "max_rel_error": most / scale}
        if not readings:
            return row
        worst = sorted(readings, key=lambda each: -each.error)
        self._locate(name, [each for each in worst if each in failed or each.is_kink])
        return row | {"worst": worst[0].told()} | (_failure(name, worst, failed) if failed else {})

    def _tolerance(self, analytic: Array, step: ComplexStep | None) -> float:
        if max(self.differences.epsilon, np.finfo(analytic.dtype).eps) > np.finfo(np.float64).eps:
            return SINGLE_TOLERANCE
        return TOLERANCE if step is None else STEP_TOLERANCE

    def _count(self) -> int:
        """How many directions the work allows."""
        return int(np.clip(FLOPS // (30 * max(self.differences.plan.flops, 1)), LEAST_PROBES, MOST_PROBES))

    def _read(self, name: str, analytic: Array, probe: Probe, step: ComplexStep | None, tolerance: float) -> Reading:
        exact = float((np.conj(analytic) * probe.direction).sum().real)
        if step is not None:
            found = step.slope(probe.direction)
            allowance = 0.0 if _close(exact, found, tolerance) else 10 * step.wobble(probe.direction)
            return Reading(probe, exact, found, allowance)
        found, sides = self.differences.slope(name, probe.direction), self.differences.sides(name, probe.direction)
        if not _close(exact, found, tolerance) and _stands(exact, sides, tolerance):
            found = exact
        noise = self.differences.noise(name, probe.direction)
        return Reading(probe, exact, found, noise, _is_kink(sides))

    def _locate(self, name: str, readings: list[Reading]) -> None:
        """Look for the nodes to name, along the worst probe."""
        if readings:
            self.notices += located(self.question, name, readings[0].probe.direction, self.limits, self.tick)


def _failure(name: str, worst: list[Reading], failed: list[Reading]) -> dict[str, Any]:
    listed = [each for each in worst if each in failed][:LISTED]
    more = f"; and {len(failed) - SPELT} more" if len(failed) > SPELT else ""
    return {
        "failed": [each.told() for each in listed],
        "detail": "; ".join(each.spelt(name) for each in listed[:SPELT]) + more,
    }


def _close(exact: float, found: float, tolerance: float) -> bool:
    return abs(exact - found) <= tolerance * max(1.0, abs(found))


def _stands(exact: float, sides: tuple[Side, Side], tolerance: float) -> bool:
    """Whether a derivative is as good as any where the slopes of two sides differ.

    At a kink what lies between them is. Where the function jumps on one side, as floor does, the other side's slope is.
    An infinite one is where a side climbs without bound. Where the function ends, the side beyond is NaN and says
    nothing.
    """
    if np.isinf(exact):
        return any(side.climbs and np.copysign(1, side.slope) == np.copysign(1, exact) for side in sides)
    calm = [side.slope for side in sides if not side.jumps and np.isfinite(side.slope)]
    if len(calm) < len(sides):
        return any(abs(exact - slope) <= ONE_SIDED * max(1.0, abs(slope)) for slope in calm)
    return _is_kink(sides) and min(calm) - tolerance <= exact <= max(calm) + tolerance


def _is_kink(sides: tuple[Side, Side]) -> bool:
    """Whether the slopes of the two sides differ, or one of them is none."""
    left, right = (side.slope for side in sides)
    if any(side.jumps or side.climbs for side in sides):
        return True
    return not abs(right - left) <= KINK * max(1.0, abs(left), abs(right))


def _probes(x: Array, count: int) -> Iterator[Probe]:
    rng = np.random.default_rng(3)
    chosen = np.arange(x.size) if x.size <= count else rng.choice(x.size, count // 2, replace=False)
    for flat in chosen:
        index = tuple(int(each) for each in np.unravel_index(flat, x.shape)) if x.shape else ()
        for part, unit in _units(x):
            direction = np.zeros(x.size, unit.dtype)
            direction[flat] = unit
            yield Probe(direction.reshape(x.shape), index, part)
    for _ in range(0 if x.size <= count else count - count // 2):
        signs = rng.choice([-1.0, 1.0], x.shape) / np.sqrt(x.size)
        yield Probe(signs * _units(x)[-1][1], None)


def _units(x: Array) -> list[tuple[str | None, Any]]:
    """What an element moves by: of a complex one, its two parts by themselves."""
    return [("real", np.array(1 + 0j)), ("imaginary", np.array(1j))] if x.dtype.kind == "c" else [(None, np.array(1.0))]
