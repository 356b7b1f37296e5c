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
from typing import Any, NoReturn, TypeAlias

import numpy as np

from engine.blocks import Fault, Team, run_blocks
from engine.core import Node
from engine.errors import EngineError, InvalidTensor, NonFinite, OutOfMemory, SingularMatrix
from engine.plan import NOWHERE, WARM, Blocks, Calls, Floats, Piece, Plan, Step, kernel_of
from engine.source import translate, written_block
from engine.types import Array, Tick, is_inexact

OFF_THE_ROAD = (ArithmeticError, ValueError, MemoryError, EngineError)
"""What forms over floats raise where IEEE 754 has an infinity or a NaN; and what kernels raise, whose step is not known
where a whole plan is one function."""

Watch: TypeAlias = "Callable[[Node, Sequence[Any], Any], None]"
"""Is shown every node as it is computed, with the values of its operands and its own."""


def run(
    plan: Plan,
    inputs: Mapping[str, Array],
    tick: Tick | None = None,
    *,
    watch: Watch | None = None,
    threads: int = 1,
) -> list[Array]:
    """The values of the plan's results, in order. Arrays may be read-only, and may share memory with `inputs`.

    `tick` is called every few milliseconds of estimated work, and may raise to stop the run. Large elementwise work is
    spread over `threads`, which changes no bit. Raises SingularMatrix, InvalidTensor (an index out of range), and what
    `watch` raises.
    """
    with np.errstate(all="ignore"):
        return _Run(Team(threads, tick), watch).graph(plan, inputs)


class _Run:
    """A run under one clock and one watch, of a plan and of the graphs within its graph."""

    def __init__(self, team: Team, watch: Watch | None) -> None:
        self.team = team
        self.watch = watch

    def graph(self, plan: Plan, inputs: Mapping[str, Array]) -> list[Array]:
        if self.watch is None:
            plan.runs += 1
            if plan.runs == WARM:
                translate(plan)
            if plan.written is not None:
                if self.team.tick is not None:
                    self.team.tick()
                try:
                    return plan.written(inputs)
                except OFF_THE_ROAD:
                    pass  # step by step one knows what to do then, or whom to blame
        values = [*plan.template]
        for place, name in plan.inputs:
            values[place] = inputs[name]
        for piece in plan.pieces:
            if self.team.tick is not None:
                self.team.tick()
            self._piece(piece, values)
        if self.team.tick is not None and not plan.pieces:  # a million steps that do nothing take their time, too
            self.team.tick()
        return [np.asarray(values[place]) for place in plan.results]

    def _piece(self, piece: Piece, values: list[Any]) -> None:
        try:
            self._go(piece, values)
        except MemoryError as error:
            _blame(error, piece.steps[0])

    def _go(self, piece: Piece, values: list[Any]) -> None:
        if self.watch is not None:
            self._show(piece, values, self.watch)
        elif isinstance(piece, Calls):
            self._call(piece.steps, values)
        elif isinstance(piece, Floats):
            _run_floats(piece, values)
        else:
            self._share(piece, values)

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
        piece.written = piece.written or written_block(piece)
        try:
            kept = run_blocks(piece, values, self.team)
        except Fault as fault:
            _blame(fault.error, fault.step)
        for place in piece.dead:
            values[place] = None
        for place, array in kept:
            values[place] = array

    def _show(self, piece: Piece, values: list[Any], watch: Watch) -> None:
        """Step by step, each with whole values, none of which is written over another."""
        if isinstance(piece, Floats):
            _load(piece, values)
        for step in piece.steps:
            operands = [values[place] for place in step.args]
            if isinstance(piece, Floats):
                _run_steps((step,), values)
                watch(step.node, [*map(np.asarray, operands)], np.asarray(values[step.out]))
            else:
                self._call((step._replace(into=min(step.into, NOWHERE)),), values)
                watch(step.node, operands, values[step.out])
        if isinstance(piece, Floats):
            _store(piece, values)


def refuse_non_finite(node: Node, operands: Sequence[Any], value: Any) -> None:
    """A watch that raises NonFinite at the first node that makes a NaN or an infinity from finite operands."""
    if not is_finite(value) and all(map(is_finite, operands)):
        raise NonFinite(f"{node.op.name} gave a NaN or an infinity from finite operands", node=node.origin)


def is_finite(value: Any) -> bool:
    """Whether a node's value, or each of its values, has neither a NaN nor an infinity."""
    if isinstance(value, tuple):
        return all(map(is_finite, value))
    if not value.ndim and value.dtype.kind == "f":
        return math.isfinite(value)  # several times as fast
    return not is_inexact(value.dtype) or bool(np.isfinite(value).all())


def _run_floats(piece: Floats, values: list[Any]) -> None:
    if piece.write is not None:
        piece.written, piece.write = piece.written or piece.write(), None
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
                kernel, args, out, _, _, _ = step
                values[out] = kernel(*[values[place] for place in args])
            return
        except OFF_THE_ROAD:
            values[step.out] = kernel_of(step.node)(*[np.array(values[place]) for place in step.args]).item()


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
