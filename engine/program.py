"""A graph as it was posted: names and statements, before any shape is known.

JSON and expression text both become a `Program`, the printer and `derivative_graph` write one, and its content gives
the id of a graph. `build` turns it into typed nodes once the inputs' shapes and dtypes are known.

A statement's inputs are references to other statements or to graph inputs, numbers (weak), or tensors. A name that no
statement bears is a graph input.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from engine.attrs import NON_FINITE
from engine.core import CONSTANT, INPUT, RESULT, Graph, Node, Op, Value, ops
from engine.errors import (
    DtypeMismatch,
    EngineError,
    GraphCycle,
    InvalidGraph,
    LimitExceeded,
    MissingInput,
    UnknownName,
    pointer_to,
)
from engine.limits import Limits
from engine.tensors import Tensor, read_tensor, write_tensor
from engine.types import INT64, Spec

ID_PATTERN = r"[A-Za-z_][A-Za-z0-9_\-]{0,63}"
ID = re.compile(ID_PATTERN + r"\Z")
ID_MEANING = "a letter or _, then up to 63 letters, digits, _ or -"
NODE_FIELDS = ("id", "op", "inputs", "attrs", "no_grad")


class Ref(NamedTuple):
    """A statement or a graph input by name; of a statement with several results, the one called `result`."""

    name: str
    result: str | None = None

    def __str__(self) -> str:
        return self.name if self.result is None else f"{self.name}.{self.result}"


Argument: TypeAlias = "Ref | Tensor | bool | int | float"


@dataclass(frozen=True)
class Statement:
    """One posted node. `named` is False where the id was made up for a part of an expression."""

    id: str
    op: Op
    inputs: tuple[Argument, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    no_grad: bool = False
    named: bool = True


@dataclass(frozen=True)
class Program:
    """Statements in any order, and outputs: name → reference."""

    statements: tuple[Statement, ...]
    outputs: tuple[tuple[str, Ref], ...]

    @cached_property
    def by_id(self) -> dict[str, Statement]:
        return {statement.id: statement for statement in self.statements}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs, in the order in which statements name them."""
        names = [ref.name for statement in self.ordered for ref in statement.inputs if isinstance(ref, Ref)]
        names += [ref.name for _, ref in self.outputs]
        return tuple(name for name in dict.fromkeys(names) if name not in self.by_id)

    @cached_property
    def _input_names(self) -> frozenset[str]:
        return frozenset(self.inputs)

    @cached_property
    def ordered(self) -> tuple[Statement, ...]:
        """The statements in an order in which each comes after what it needs. Raises GraphCycle.

        It follows from what the outputs need, from the left, so that equal graphs are built and summed alike however
        their nodes were posted. What no output needs comes first.
        """
        used = {ref.name for statement in self.statements for ref in _refs(statement)}
        outputs = [ref.name for _, ref in self.outputs if ref.name in self.by_id]
        ends = sorted(set(self.by_id) - used - set(outputs))
        order: dict[str, Statement] = {}
        for root in (*ends, *outputs, *sorted(self.by_id)):
            self._visit(root, order)
        return tuple(order.values())

    def _visit(self, root: str, order: dict[str, Statement]) -> None:
        """Add to `order` what `root` needs, and then itself."""
        open_ones: dict[str, Iterator[str]] = {} if root in order else {root: self._needs(root)}
        while open_ones:
            name, needs = next(reversed(open_ones.items()))
            need = next((each for each in needs if each not in order), None)
            if need is None:
                order[name] = self.by_id[name]
                del open_ones[name]
            elif need in open_ones:
                trail = list(open_ones)
                self._refuse_cycle(trail[trail.index(need) :])
            else:
                open_ones[need] = self._needs(need)

    def _needs(self, name: str) -> Iterator[str]:
        return (ref.name for ref in _refs(self.by_id[name]) if ref.name in self.by_id)

    def _refuse_cycle(self, cycle: Sequence[str]) -> None:
        """Name a cycle, from the one of its nodes that was posted first."""
        at = next(i for i, each in enumerate(self.statements) if each.id in cycle)
        first = cycle.index(self.statements[at].id)
        cycle = [*cycle[first:], *cycle[:first], cycle[first]]
        shown = " → ".join(cycle[:10]) + (" → …" if len(cycle) > 10 else "")
        raise GraphCycle(f"nodes wait for each other: {shown}", node=cycle[0], pointer=f"/nodes/{at}/inputs")

    def with_outputs(self, names: Sequence[str]) -> Program:
        """The same statements with other outputs. Raises UnknownName."""
        known = dict(self.outputs)
        return Program(self.statements, tuple((name, known.get(name) or self.find(name)) for name in names))

    def find(self, name: str) -> Ref:
        """The reference that `name` spells: an id, an input, or "id.result". Raises UnknownName."""
        ref = read_ref(name)
        if ref.name not in self.by_id and ref.name not in self._input_names:
            raise UnknownName(f"the graph has no node and no input called {name[:80]!r}")
        return ref

    @cached_property
    def digest(self) -> str:
        """The graph's id: equal for equal content, whatever the order of the statements."""
        known: dict[str, str] = {}
        for each in self.ordered:
            parts = [each.op.name, repr(each.op.read_attrs(each.attrs)), str(each.no_grad)]
            parts += [_argument_key(argument, known) for argument in each.inputs]
            known[each.id] = _hash(parts)
        named = sorted(f"{each.id}={known[each.id]}" for each in self.statements if each.named)
        outputs = [f"{name}={_argument_key(ref, known)}" for name, ref in self.outputs]
        return _hash([*named, "outputs", *outputs])[:32]


def _refs(statement: Statement) -> Iterable[Ref]:
    return (each for each in statement.inputs if isinstance(each, Ref))


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


def _argument_key(argument: Argument, known: Mapping[str, str]) -> str:
    if isinstance(argument, Ref):
        # An input is known by its name, a node by its content; the sign keeps the two apart.
        return f"#{known[argument.name]}.{argument.result}" if argument.name in known else f"@{argument.name}"
    if isinstance(argument, Tensor):
        raw = argument.array.tobytes()
        return f"{argument.array.dtype}{argument.array.shape}{argument.typed}{hashlib.sha256(raw).hexdigest()}"
    return repr(argument)


def read_ref(text: str) -> Ref:
    name, dot, result = text.partition(".")
    return Ref(name, result if dot else None)


# Reading the JSON form


def read_graph(value: Any, limits: Limits) -> Program:
    """A program from {"nodes": […], "outputs": […]}. Errors point into it. Raises InvalidGraph and its kin."""
    if not isinstance(value, dict):
        raise InvalidGraph('a graph is an object with "nodes"')
    for name in value:
        if name not in ("nodes", "outputs"):
            raise InvalidGraph(f"a graph has no field {name[:64]!r}; it has: nodes, outputs", pointer=pointer_to(name))
    nodes = value.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        raise InvalidGraph("expected a list of at least one node", pointer="/nodes")
    if len(nodes) > limits.nodes:
        raise LimitExceeded("nodes", limits.nodes, len(nodes), "nodes of the graph")
    statements = []
    for at, node in enumerate(nodes):
        try:
            statements.append(_read_statement(node))
        except EngineError as error:
            _point(error, node, at)
            raise
    _refuse_duplicates(statements)
    program = Program(tuple(statements), ())
    return Program(program.statements, _read_outputs(value.get("outputs"), program))


def _point(error: EngineError, node: Any, at: int) -> None:
    given = node.get("id") if isinstance(node, dict) else None
    error.node = given if isinstance(given, str) and ID.match(given) else None
    error.pointer = f"/nodes/{at}{error.pointer or ''}"


def _read_statement(node: Any) -> Statement:
    if not isinstance(node, dict):
        raise InvalidGraph("a node is an object with id, op and inputs")
    for name in node:
        if name not in NODE_FIELDS:
            raise InvalidGraph(
                f"a node has no field {name[:64]!r}; it has: {', '.join(NODE_FIELDS)}", pointer=pointer_to(name)
            )
    name, op_name = node.get("id"), node.get("op")
    if not isinstance(name, str) or not ID.match(name) or name in NON_FINITE:
        raise InvalidGraph(f"an id is {ID_MEANING}", pointer="/id")
    if not isinstance(op_name, str):
        raise InvalidGraph("expected the name of an op", pointer="/op")
    try:
        op = ops.find(op_name)
    except EngineError as error:
        error.pointer = "/op"
        raise
    inputs, attrs, no_grad = node.get("inputs", []), node.get("attrs") or {}, node.get("no_grad", False)
    if not isinstance(inputs, list):
        raise InvalidGraph("expected a list of operands", pointer="/inputs")
    if not isinstance(attrs, dict):
        raise InvalidGraph("expected an object of attributes", pointer="/attrs")
    if not isinstance(no_grad, bool):
        raise InvalidGraph("expected true or false", pointer="/no_grad")
    arguments = tuple(_read_argument(each, at) for at, each in enumerate(inputs))
    op.read_attrs(attrs)
    return Statement(name, op, arguments, attrs, no_grad)


def _read_argument(value: Any, at: int) -> Argument:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if value in NON_FINITE:
            return NON_FINITE[value]
        ref = read_ref(value)
        if ID.match(ref.name) and ref.result != "":
            return ref
        raise InvalidGraph(f"{value[:80]!r} is not the name of a node or input", pointer=f"/inputs/{at}")
    try:
        return read_tensor(value)
    except EngineError as error:
        error.pointer = f"/inputs/{at}{error.pointer or ''}"
        raise


def _refuse_duplicates(statements: Sequence[Statement]) -> None:
    seen: set[str] = set()
    for at, statement in enumerate(statements):
        if statement.id in seen:
            raise InvalidGraph(f"two nodes are called {statement.id!r}", node=statement.id, pointer=f"/nodes/{at}/id")
        seen.add(statement.id)


def _read_outputs(value: Any, program: Program) -> tuple[tuple[str, Ref], ...]:
    if value is None:
        last = program.statements[-1]
        names = [f"{last.id}.{result}" for result in last.op.results] or [last.id]
    elif isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        names = list(dict.fromkeys(value))
    else:
        raise InvalidGraph("expected a list of node ids", pointer="/outputs")
    try:
        return program.with_outputs(names).outputs
    except UnknownName as error:
        error.pointer = "/outputs"
        raise


def write_graph(program: Program, encoding: str = "json") -> dict[str, Any]:
    """The JSON form of a program; what `read_graph` reads back as an equal one."""
    return {
        "nodes": [_write_statement(statement, encoding) for statement in program.statements],
        "outputs": [str(ref) for _, ref in program.outputs],
    }


def _write_statement(statement: Statement, encoding: str) -> dict[str, Any]:
    node: dict[str, Any] = {"id": statement.id, "op": statement.op.name}
    node["inputs"] = [write_argument(argument, encoding) for argument in statement.inputs]
    if statement.attrs:
        node["attrs"] = {name: write_attr(value) for name, value in statement.attrs.items()}
    return node | ({"no_grad": True} if statement.no_grad else {})


def write_argument(argument: Argument, encoding: str = "json") -> Any:
    """An operand in JSON: a name, a number, or a tensor."""
    if isinstance(argument, Ref):
        return str(argument)
    if isinstance(argument, Tensor):
        return _write_constant(argument, encoding)
    return write_attr(argument)


def _write_constant(tensor: Tensor, encoding: str) -> Any:
    """A tensor so that it reads back equal: a plain list where that says all there is to say."""
    plain = write_tensor(tensor.array)["data"]
    if not tensor.typed and tensor.requires_grad is None and tensor.array.ndim and tensor.array.size:
        return plain
    written = (
        write_tensor(tensor.array, encoding) if tensor.typed else {"shape": list(tensor.spec.shape), "data": plain}
    )
    return written if tensor.requires_grad is None else written | {"requires_grad": tensor.requires_grad}


def write_attr(value: Any) -> Any:
    """An attribute's value in JSON: tuples as lists, non-finite numbers as strings."""
    if isinstance(value, tuple | list):
        return [write_attr(each) for each in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return next(name for name, known in NON_FINITE.items() if repr(known) == repr(value))
    return value


# From names to typed nodes, and back


@dataclass(frozen=True)
class Built:
    """A program in typed nodes: by statement, one node for each result; and the inputs."""

    program: Program
    graph: Graph
    nodes: dict[str, tuple[Node, ...]]
    inputs: dict[str, Node]

    def find(self, ref: Ref) -> Node:
        """The node that `ref` names. Raises UnknownName, with the names there are."""
        if ref.name in self.inputs and ref.name not in self.nodes and ref.result is None:
            return self.inputs[ref.name]
        if ref.name not in self.nodes:
            raise UnknownName(f"the graph has no node and no input called {str(ref)[:80]!r}")
        several, names = self.nodes[ref.name], self.program.by_id[ref.name].op.results
        if ref.result is None and len(several) == 1:
            return several[0]
        if ref.result in names:
            return several[names.index(str(ref.result))]
        numbers = [str(at) for at in range(len(several))]
        if ref.result in numbers and len(several) > 1:
            return several[numbers.index(ref.result)]
        known = ", ".join(names or numbers)
        if len(several) == 1:
            raise UnknownName(f"{ref.name} has one result; refer to it as {ref.name!r}", node=ref.name)
        raise UnknownName(
            f"{ref.name} has several results ({known}); refer to one as {ref.name}.{known.split(', ')[0]}"
        )

    @property
    def outputs(self) -> dict[str, Node]:
        return {name: self.find(ref) for name, ref in self.program.outputs}


def build(program: Program, specs: Mapping[str, Spec], graph: Graph, marks: Iterable[str] = ()) -> Built:
    """Typed nodes for every statement. Raises what ops refuse, with the statement to blame.

    Statements called in `marks` become nodes of their own, shared with no equal one: they are to be differentiated
    with respect to. `specs` may hold inputs that the graph does not use.
    """
    for name in program.inputs:
        if name not in specs:
            user = next((each.id for each in program.statements if any(r.name == name for r in _refs(each))), None)
            raise MissingInput(f"the graph's input {name!r} has no tensor in inputs", node=user)
    built = Built(program, graph, {}, {name: graph.input(name, spec) for name, spec in specs.items()})
    marked = {read_ref(name).name for name in marks}
    position = {id(statement): at for at, statement in enumerate(program.statements)}
    for statement in program.ordered:
        graph.origin = statement.id
        try:
            built.nodes[statement.id] = _emit(statement, built, statement.id in marked)
        except EngineError as error:
            error.node = error.node or statement.id
            if not error.detail.startswith((statement.op.name, "attribute ")):
                error.detail = f"{statement.op.name}: {error.detail}"
            error.pointer = f"/nodes/{position[id(statement)]}{error.pointer or ''}"
            raise
    graph.origin = None
    return built


def _emit(statement: Statement, built: Built, marked: bool) -> tuple[Node, ...]:
    op = statement.op
    operands = [_operand(argument, op, at, built) for at, argument in enumerate(statement.inputs)]
    results = op.apply(built.graph, operands, statement.attrs, posted=True)
    if statement.no_grad:
        results = tuple(ops.detach(result) for result in results)
    if marked:
        results = tuple(ops.positive.apply(built.graph, [each], {}, tag=("wrt", statement.id))[0] for each in results)
    return results


def _operand(argument: Argument, op: Op, at: int, built: Built) -> Value:
    if isinstance(argument, Ref):
        try:
            return built.find(argument)
        except EngineError as error:
            error.pointer = f"/inputs/{at}"
            raise
    takes_integers = bool(op.operands) and op.operand(at).is_integer
    if isinstance(argument, Tensor):
        array = argument.array
        if takes_integers and not argument.typed:
            array = _as_int64(array, op, at)
        return built.graph.constant(array)
    if takes_integers and isinstance(argument, float) and argument.is_integer():
        return int(argument)
    return argument


def _as_int64(array: Any, op: Op, at: int) -> Any:
    if array.dtype.kind != "f" or not np.array_equal(np.trunc(array), array) or (np.abs(array) >= 2.0**63).any():
        raise DtypeMismatch(f"{op.name} takes whole numbers as {op.operand(at).name}", pointer=f"/inputs/{at}")
    return array.astype(INT64)


def to_program(outputs: Mapping[str, Node], bound: Mapping[Node, Tensor]) -> Program:
    """The program that computes `outputs` (name → node). Inputs in `bound` become constants.

    Names of outputs are kept; other nodes are numbered.
    """
    roots = list(outputs.values())
    live = roots[0].graph.live(roots) if roots else []
    taken = {node.attrs["name"] for node in live if node.op is INPUT and node not in bound} | set(outputs)
    names = {node: name for name, node in outputs.items() if node.inputs and node.op is not RESULT}
    arguments: dict[Node, Argument] = {}
    statements = []
    for node in live:
        if node.op is CONSTANT:
            arguments[node] = _constant_argument(node)
        elif node.op is INPUT:
            arguments[node] = bound[node] if node in bound else Ref(node.attrs["name"])
        elif node.op is RESULT:
            source = arguments[node.inputs[0]]
            assert isinstance(source, Ref)
            arguments[node] = Ref(source.name, node.inputs[0].op.results[node.attrs["index"]])
        else:
            name = names.get(node) or _fresh(taken)
            statements.append(Statement(name, node.op, tuple(arguments[x] for x in node.inputs), _given_attrs(node)))
            arguments[node] = Ref(name)
    for name, node in outputs.items():
        if arguments[node] != Ref(name):
            statements.append(Statement(name, ops.positive, (arguments[node],)))
    return Program(tuple(statements), tuple((name, Ref(name)) for name in outputs))


def _constant_argument(node: Node) -> Argument:
    assert node.value is not None
    if node.weak and not node.shape and node.dtype.kind != "c":
        number: bool | int | float = node.value.item()
        return number
    return Tensor(node.value, typed=True)


def _given_attrs(node: Node) -> dict[str, Any]:
    """The attributes of a node that differ from their defaults, as they would be posted."""
    return {name: value for name, value in node.attrs.items() if repr(value) != repr(node.op.attrs[name].default)}


def _fresh(taken: set[str]) -> str:
    number = len(taken) + 1
    while f"t{number}" in taken:
        number += 1
    taken.add(f"t{number}")
    return f"t{number}"
