"""What a client is told of a graph: its inputs and outputs, its size, its cost, and, when asked, every posted node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from engine.attrs import REQUIRED
from engine.calls import Compiled, Question
from engine.core import Node, Op, Sample
from engine.program import Built, Program, Ref, Statement, write_argument, write_attr
from engine.types import KINDS, Spec, is_inexact


def describe(compiled: Compiled, *, nodes: bool = False) -> dict[str, Any]:
    """The metadata of a compiled question; flops and peak_bytes are those of its whole plan."""
    built = compiled.built
    described = describe_program(compiled.question.program) | {
        "inputs": {name: _spec(built.inputs[name].spec) for name in built.program.inputs},
        "outputs": {name: _spec(node.spec) for name, node in built.outputs.items()},
        "flops": compiled.plan.flops,
        "peak_bytes": compiled.plan.peak_bytes,
        "nodes_removed": compiled.nodes_removed,
    }
    return described | ({"nodes": list(_nodes(compiled))} if nodes else {})


def describe_program(program: Program) -> dict[str, Any]:
    """What is known of a graph before the shapes of its inputs are: the fields that need them are null."""
    counts = Counter(statement.op.name for statement in program.statements)
    return {
        "id": program.digest,
        "inputs": dict.fromkeys(program.inputs),
        "outputs": {name: None for name, _ in program.outputs},
        "node_count": len(program.inputs) + len(program.statements),
        "edge_count": sum(isinstance(each, Ref) for one in program.statements for each in one.inputs),
        "depth": _depth(program),
        "ops": dict(sorted(counts.items())),
        "flops": None,
        "peak_bytes": None,
        "nodes_removed": None,
    }


def _depth(program: Program) -> int:
    """Ops on the longest path from an input or a constant to a node."""
    depths: dict[str, int] = {}
    for statement in program.ordered:
        below = (depths.get(each.name, 0) for each in statement.inputs if isinstance(each, Ref))
        depths[statement.id] = 1 + max(below, default=0)
    return max(depths.values(), default=0)


def _spec(spec: Spec) -> dict[str, Any]:
    return {"dtype": spec.dtype.name, "shape": list(spec.shape)}


def _nodes(compiled: Compiled) -> Iterator[dict[str, Any]]:
    """Inputs, then statements in topological order, with PyTorch's view of what is tracked."""
    built, question = compiled.built, compiled.question
    tracked = {name for name in built.program.inputs if _requires_grad(name, built, question)}
    for name in built.program.inputs:
        node = built.inputs[name]
        yield _node(name, "input", [], {}, _spec(node.spec), name in tracked, None)
    for statement in built.program.ordered:
        if question.call != "value" and _is_tracked(statement, built, tracked):
            tracked.add(statement.id)
        grad_fn = statement.op.grad_fn if statement.id in tracked else None
        inputs = [write_argument(each) for each in statement.inputs]
        attrs = {name: write_attr(value) for name, value in statement.attrs.items()}
        results = built.nodes[statement.id]
        spec = _spec(results[0].spec) if len(results) == 1 else _several(results)
        yield _node(statement.id, statement.op.name, inputs, attrs, spec, statement.id in tracked, grad_fn)


def _several(results: tuple[Node, ...]) -> dict[str, Any]:
    specs = [_spec(node.spec) for node in results]
    return {"dtype": [spec["dtype"] for spec in specs], "shape": [spec["shape"] for spec in specs]}


def _node(
    name: str,
    op: str,
    inputs: list[Any],
    attrs: dict[str, Any],
    spec: dict[str, Any],
    tracked: bool,
    grad_fn: str | None,
) -> dict[str, Any]:
    head = {"id": name, "op": op, "inputs": inputs, "attrs": attrs}
    # As in PyTorch, what does not require grad is a leaf by convention.
    return head | spec | {"requires_grad": tracked, "is_leaf": grad_fn is None, "grad_fn": grad_fn}


def _requires_grad(name: str, built: Built, question: Question) -> bool:
    tensor = question.inputs[name]
    asked = name in (question.wrt or ()) or tensor.requires_grad is not False
    return asked and is_inexact(built.inputs[name].dtype)


def _is_tracked(statement: Statement, built: Built, tracked: set[str]) -> bool:
    if statement.no_grad or getattr(statement.op.derivative, "cuts", False):
        return False
    if not any(is_inexact(node.dtype) for node in built.nodes[statement.id]):
        return False
    return any(isinstance(each, Ref) and each.name in tracked for each in statement.inputs)


def describe_op(op: Op) -> dict[str, Any]:
    """The catalogue's entry for one op: what it takes, how it is differentiated, an example."""
    return {
        "name": op.name,
        "doc": op.doc,
        "family": op.family,
        "aliases": list(op.aliases),
        "arity": None if op.is_variadic else len(op.operands),
        "operands": [
            {
                "name": each.name,
                "dtypes": list(dict.fromkeys(KINDS[kind] for kind in each.kinds)),
                "variadic": each.variadic,
            }
            for each in op.operands
        ],
        "results": list(op.results) or ["out"],
        "attributes": {
            name: {"schema": attr.schema, "doc": attr.doc, "required": attr.required}
            | ({} if attr.default is REQUIRED else {"default": write_attr(attr.default)})
            for name, attr in op.attrs.items()
        },
        "differentiable": op.derivative is None or not op.derivative.is_flat,
        "derivative": "composite" if op.derivative is None else op.derivative.kind,
        "grad_fn": op.grad_fn,
        "example": op.example or _example(op),
    }


def _example(op: Op) -> str:
    """A call as it is written in an expression, with what attributes the op cannot do without."""
    sample = next((each for each in op.samples if each.attrs), op.samples[0] if op.samples else Sample(()))
    needed = {name: sample.attrs[name] for name, attr in op.attrs.items() if attr.required and name in sample.attrs}
    names = [each.name for each in op.operands]
    return f"{op.name}({', '.join([*names, *(f'{name}={_literal(value)}' for name, value in needed.items())])})"


def _literal(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else repr(value)
