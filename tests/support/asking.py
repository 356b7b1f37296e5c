"""Questions to the engine in one line each: what a request would ask, without HTTP in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import engine.ops  # noqa: F401  (fills the catalogue)
from engine.calls import SEEDS, Compiled, Question, compile_question, map_tree
from engine.core import Graph, Node
from engine.execute import run
from engine.limits import Limits
from engine.plan import make_plan
from engine.program import Program, build, read_graph
from engine.tensors import Tensor, read_tensor
from engine.text import parse
from engine.types import Array, Spec

LIMITS = Limits()


def ask(call: str, graph: Any, inputs: Mapping[str, Any] | None = None, **more: Any) -> Any:
    """The answer of a call. `graph` is expression text, a JSON graph or a program; see `question`."""
    return answer_of(compiled_question(call, graph, inputs, **more))


def answer_of(compiled: Compiled) -> Any:
    """What a compiled question answers, with arrays of float64 for floats, too."""
    return map_tree(compiled.run(compiled.bind()), np.asarray)


def compiled_question(
    call: str, graph: Any, inputs: Mapping[str, Any] | None = None, *, limits: Limits = LIMITS, **more: Any
) -> Compiled:
    return compile_question(question(call, graph, inputs, limits=limits, **more), limits)


def question(
    call: str, graph: Any, inputs: Mapping[str, Any] | None = None, *, limits: Limits = LIMITS, **more: Any
) -> Question:
    """A question; seeds are given by the name of their field, outputs as a list of names."""
    program = program_of(graph, limits)
    outputs = more.pop("outputs", None)
    seeds = {role: tensors(more.pop(role)) for role in SEEDS.get(call, ()) if role in more}
    program = program if outputs is None else program.with_outputs(outputs)
    return Question(call, program, tensors(inputs or {}), seeds, **more)


def program_of(graph: Any, limits: Limits = LIMITS) -> Program:
    if isinstance(graph, Program):
        return graph
    return parse(graph, limits) if isinstance(graph, str) else read_graph(graph, limits)


def tensors(values: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: tensor(value) for name, value in values.items()}


def tensor(value: Any) -> Tensor:
    """An array is typed by its dtype; anything else is read as JSON would be."""
    if isinstance(value, Tensor):
        return value
    return Tensor(np.asarray(value), typed=True) if isinstance(value, np.ndarray | np.generic) else read_tensor(value)


def numbers(nodes: Sequence[Node], arrays: Mapping[str, Array]) -> list[Array]:
    """What nodes of one graph compute."""
    return run(make_plan(nodes), arrays)


def built(text: str, shapes: Mapping[str, Any], graph: Graph | None = None) -> tuple[list[Node], dict[str, Node]]:
    """Output nodes and input nodes of an expression; inputs are float64 unless `shapes` holds whole specs."""
    specs = {name: each if isinstance(each, Spec) else Spec(each, np.dtype(float)) for name, each in shapes.items()}
    made = build(parse(text, LIMITS), specs, Graph() if graph is None else graph)
    return list(made.outputs.values()), made.inputs


def node(name: str, op: str, *inputs: Any, **attrs: Any) -> dict[str, Any]:
    """A node in its JSON form."""
    return {"id": name, "op": op, "inputs": list(inputs)} | ({"attrs": attrs} if attrs else {})


def chain(length: int, op: str = "sin") -> dict[str, Any]:
    """x → op → op → …, as posted."""
    return {"nodes": [node(f"n{at}", op, f"n{at - 1}" if at else "x") for at in range(length)]}


def counting_tick(limit: int) -> Callable[[], None]:
    """A tick that raises TimeoutError the `limit`-th time it is called."""
    left = [limit]

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise TimeoutError

    return tick
