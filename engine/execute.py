"""Running a plan: one NumPy call a node, and nothing else.

Floating-point exceptions are values here (inf, nan), as in IEEE 754; warnings are off. What a kernel does refuse (a
singular matrix) becomes an EngineError that names the posted node to blame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from engine.core import Node
from engine.errors import EngineError, InvalidTensor, NonFinite, OutOfMemory, SingularMatrix
from engine.plan import NOWHERE, Plan, Step
from engine.types import Array, is_inexact

Watch: TypeAlias = "Callable[[Node, Sequence[Any], Any], None]"
"""Is shown every node as it is computed, with the values of its operands and its own."""


def run(
    plan: Plan,
    inputs: Mapping[str, Array],
    tick: Callable[[], None] | None = None,
    *,
    watch: Watch | None = None,
) -> list[Array]:
    """The values of the plan's results, in order. Arrays may be read-only, and may share memory with `inputs`.

    `tick` is called every few milliseconds of estimated work, and may raise to stop the run. Raises SingularMatrix,
    InvalidTensor (an index out of range), and what `watch` raises.
    """
    run_chunk = _run_chunk if watch is None else partial(_run_watched, watch)

    def run_graph(plan: Plan, inputs: Mapping[str, Array]) -> list[Array]:
        values: list[Any] = list(plan.template)
        for place, name in plan.inputs:
            values[place] = inputs[name]
        for chunk in plan.chunks:
            if tick is not None:
                tick()
            run_chunk(chunk, values, run_graph)
        return [np.asarray(values[place]) for place in plan.results]

    with np.errstate(all="ignore"):
        return run_graph(plan, inputs)


RunGraph: TypeAlias = "Callable[[Plan, Mapping[str, Array]], list[Array]]"
"""Runs the plan of a graph within a graph, under the same clock and the same policy."""


def _run_chunk(chunk: tuple[Step, ...], values: list[Any], run_graph: RunGraph) -> None:
    step = chunk[0]
    try:
        for step in chunk:
            kernel, args, out, into, dead, _ = step
            operands = [values[place] for place in args]
            if into >= 0:
                values[out] = kernel(*operands, out=values[into])
            elif into == NOWHERE:
                values[out] = kernel(*operands)
            else:
                values[out] = kernel(*operands, run=run_graph)
            for place in dead:
                values[place] = None
    except EngineError as error:
        error.node = error.node or step.node.origin
        raise
    except MemoryError as error:
        raise OutOfMemory("there is no memory for this now", node=step.node.origin) from error
    except (ValueError, ArithmeticError) as error:
        raise _blamed(error, step) from error


def _run_watched(watch: Watch, chunk: tuple[Step, ...], values: list[Any], run_graph: RunGraph) -> None:
    """The same, showing every value; none is written over another."""
    for step in chunk:
        operands = [values[place] for place in step.args]
        _run_chunk((step._replace(into=min(step.into, NOWHERE)),), values, run_graph)
        watch(step.node, operands, values[step.out])


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


def _blamed(error: Exception, step: Step) -> EngineError:
    """The error of a kernel as one that names the posted node."""
    node = step.node
    if isinstance(error, np.linalg.LinAlgError):
        return SingularMatrix(f"{node.op.name}: {str(error).rstrip('.').lower()}", node=node.origin)
    return InvalidTensor(f"{node.op.name} cannot take these values: {str(error)[:120]}", node=node.origin)
