"""Running a plan, each piece of it by its own road.

Calls of NumPy are made in a lean loop; steps over floats are called one by one, and from the second run on as one
function of source (engine.source); large groups go block by block over threads (engine.blocks). Every road gives the
same bits each time, and which one it is follows from the plan.

Floating-point exceptions are values here (inf, nan), as in IEEE 754; warnings are off. What a kernel does refuse (a
singular matrix) becomes an EngineError that names the posted node to blame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from engine.blocks import Fault, Team, Work, is_finite
from engine.errors import EngineError, InvalidTensor, NonFinite, OutOfMemory, SingularMatrix
from engine.plan import NOWHERE, WARM, Blocks, Calls, Floats, Plan, Step, kernel_of
from engine.source import translate
from engine.types import Array

OFF_THE_ROAD = (ArithmeticError, ValueError)
"""What Python raises where IEEE 754 has an infinity or a NaN, and where it knows no better."""


def run(
    plan: Plan,
    inputs: Mapping[str, Array],
    tick: Callable[[], None] | None = None,
    *,
    raise_non_finite: bool = False,
    threads: int = 1,
) -> list[Array]:
    """The values of the plan's results, in order. Arrays may be read-only, and may share memory with `inputs`.

    `tick` is called every few milliseconds of estimated work, and may raise to stop the run. Large elementwise work is
    spread over `threads`, which changes no bit. Raises SingularMatrix, InvalidTensor (an index out of range), and, when
    asked to, NonFinite at the first node that makes a NaN or an infinity from finite operands.
    """
    if plan.is_plain and plan.written is not None and not raise_non_finite:
        if tick is not None:
            tick()
        try:
            return plan.written(inputs)
        except OFF_THE_ROAD:
            pass
    team = Team(threads, tick)
    try:
        with np.errstate(all="ignore"):
            return _Run(team, raise_non_finite).graph(plan, inputs)
    finally:
        team.close()


class _Run:
    """A run under one clock and one policy, of a plan and of the graphs within its graph."""

    def __init__(self, team: Team, checked: bool) -> None:
        self.team = team
        self.checked = checked

    def graph(self, plan: Plan, inputs: Mapping[str, Array]) -> list[Array]:
        tick = self.team.tick
        if not self.checked:
            plan.runs += 1
            if plan.runs == WARM:
                translate(plan)
            if plan.written is not None:
                if tick is not None:
                    tick()
                try:
                    return plan.written(inputs)
                except OFF_THE_ROAD:
                    pass  # the loops below know what to do then, or whom to blame
        values = [*plan.template]
        for place, name in plan.inputs:
            values[place] = inputs[name]
        for piece in plan.pieces:
            if tick is not None:
                tick()
            self._piece(piece, values)
        return [np.asarray(values[place]) for place in plan.results]

    def _piece(self, piece: Calls | Floats | Blocks, values: list[Any]) -> None:
        if isinstance(piece, Blocks):
            self._share(piece, values)
        elif self.checked:
            self._look(piece, values)
        elif isinstance(piece, Floats):
            _run_floats(piece, values)
        else:
            self._call(piece.steps, values)

    def _call(self, steps: Sequence[Step], values: list[Any]) -> None:
        step = steps[0]
        try:
            for step in steps:
                kernel, args, out, into, dead, _ = step
                operands = [values[place] for place in args]
                if into >= 0:
                    values[out] = kernel(*operands, out=values[into])
                elif into == NOWHERE:
                    values[out] = kernel(*operands)
                else:
                    values[out] = kernel(*operands, run=self.graph)
                for place in dead:
                    values[place] = None
        except Exception as error:
            _blame(error, step)

    def _share(self, piece: Blocks, values: list[Any]) -> None:
        work = Work(piece, values, watched=self.checked)
        try:
            work.run(self.team)
        except Fault as fault:
            _blame(fault.error, fault.step)
        if work.suspect is not None:
            raise _non_finite(work.suspect)
        for place, array in work.results():
            values[place] = array
        for place in piece.dead:
            values[place] = None

    def _look(self, piece: Calls | Floats, values: list[Any]) -> None:
        """Step by step, looking at every value."""
        if isinstance(piece, Floats):
            _load(piece, values)
        for step in piece.steps:
            finite = all(is_finite(values[place]) for place in step.args)
            if isinstance(piece, Floats):
                _run_steps((step,), values)
            else:
                self._call((step._replace(into=min(step.into, NOWHERE)),), values)
            if finite and not is_finite(values[step.out]):
                raise _non_finite(step)
        if isinstance(piece, Floats):
            _store(piece, values)


def _run_floats(piece: Floats, values: list[Any]) -> None:
    if piece.written is not None:
        try:
            return piece.written(values)
        except OFF_THE_ROAD:
            pass
    _load(piece, values)
    _run_steps(piece.steps, values)
    _store(piece, values)


def _load(piece: Floats, values: list[Any]) -> None:
    for place, out in piece.loads:
        values[out] = values[place].item()


def _store(piece: Floats, values: list[Any]) -> None:
    for place, out in piece.stores:
        values[out] = np.array(values[place])
    for place in piece.dead:
        values[place] = None


def _run_steps(steps: Sequence[Step], values: list[Any]) -> None:
    """Steps over floats. Where Python raises, the op's kernel gives the infinity, or the NaN, and then it goes on."""
    rest = iter(steps)
    while True:
        try:
            for step in rest:
                values[step.out] = step.kernel(*[values[place] for place in step.args])
            return
        except OFF_THE_ROAD:
            kernel = kernel_of(step.node)
            values[step.out] = kernel(*[np.array(values[place]) for place in step.args]).item()


def _non_finite(step: Step) -> NonFinite:
    return NonFinite(f"{step.node.op.name} gave a NaN or an infinity from finite operands", node=step.node.origin)


def _blame(error: Exception, step: Step) -> NoReturn:
    """Raise the error of a kernel as one that names the posted node; what is none of a kernel's stays as it is."""
    node = step.node
    if isinstance(error, EngineError):
        error.node = error.node or node.origin
        raise error
    if isinstance(error, MemoryError):
        raise OutOfMemory("there is no memory for this now", node=node.origin) from error
    if isinstance(error, np.linalg.LinAlgError):
        raise SingularMatrix(f"{node.op.name}: {str(error).rstrip('.').lower()}", node=node.origin) from error
    if isinstance(error, ValueError | ArithmeticError):
        message = f"{node.op.name} cannot take these values: {str(error)[:120]}"
        raise InvalidTensor(message, node=node.origin) from error
    raise error
