"""A graph as it was posted: names and statements, before any shape is known.

JSON and expression text both become a `Program`, the printer and `derivative_graph` write one, and its content gives
the id of a graph. `build` turns it into typed nodes once the inputs' shapes and dtypes are known.

A statement's inputs are references to other statements or to graph inputs, numbers (weak), or tensors. A name that no
statement bears is a graph input.

A program may have functions: programs of their own, with parameters, that statements call by name or hand to an op such
as scan. A name in a function that is neither a parameter nor a statement of its own is one of the graph around it.
A call is built in place; what an op is to repeat or may skip becomes a graph within the graph (engine.bodies).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from engine.attrs import NON_FINITE, SubGraph
from engine.bodies import Body, fresh_leaf
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
GRAPH_FIELDS = ("nodes", "outputs", "functions")
FUNCTION_FIELDS = ("inputs", "nodes", "outputs")
STATEMENT_BYTES = 1_500
"""What a statement takes, with its names and its place in the program (measured)."""
CALL = "call"
"""The op behind a call of a function by its name."""


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

    @cached_property
    def functions(self) -> tuple[str, ...]:
        """The functions that its attributes name."""
        named = (value for name, value in self.attrs.items() if self.op.attrs[name].names_function)
        return tuple(value for value in named if isinstance(value, str))


@dataclass(frozen=True)
class Function:
    """A program with parameters. `body` has no functions of its own: all are those of the program around it."""

    name: str
    parameters: tuple[str, ...]
    body: Program

    @cached_property
    def _statements(self) -> tuple[Statement, ...]:
        """In an order that tells nothing of how they were posted; or as posted, where some wait for each other."""
        try:
            return self.body.ordered
        except GraphCycle:
            return self.body.statements

    @cached_property
    def free(self) -> tuple[Ref, ...]:
        """What it takes from around it, but for what the functions take that it calls."""
        bound = {*self.parameters, *self.body.by_id}
        refs = [ref for each in self._statements for ref in _refs(each)] + [ref for _, ref in self.body.outputs]
        return tuple(ref for ref in dict.fromkeys(refs) if ref.name not in bound)

    @cached_property
    def calls(self) -> tuple[str, ...]:
        """The functions that its statements name."""
        return tuple(dict.fromkeys(name for each in self._statements for name in each.functions))


@dataclass(frozen=True)
class Program:
    """Statements in any order, outputs (name → reference), and functions in any order."""

    statements: tuple[Statement, ...]
    outputs: tuple[tuple[str, Ref], ...]
    functions: tuple[Function, ...] = ()
    is_body: bool = False
    """Of a function: what the functions that it calls take from around them is not its own."""

    @cached_property
    def by_id(self) -> dict[str, Statement]:
        return {statement.id: statement for statement in self.statements}

    @cached_property
    def by_name(self) -> dict[str, Function]:
        return {function.name: function for function in self.functions}

    @cached_property
    def captures(self) -> dict[str, tuple[Ref, ...]]:
        """What each function takes from around it, by itself or through those that it calls, which come before it.

        Raises GraphCycle.
        """
        found: dict[str, tuple[Ref, ...]] = {}
        for root in self.by_name:
            open_ones = [root]
            while open_ones:
                function = self.by_name[open_ones[-1]]
                needs = [name for name in function.calls if name in self.by_name and name not in found]
                if not needs:
                    own = [ref for name in function.calls for ref in found.get(name, ())]
                    found[function.name] = tuple(dict.fromkeys([*function.free, *own]))
                    open_ones.pop()
                elif needs[0] in open_ones:
                    trail = " → ".join([*open_ones[open_ones.index(needs[0]) :][:10], needs[0]])
                    raise GraphCycle(f"functions call each other: {trail}", pointer=pointer_to("functions", needs[0]))
                else:
                    open_ones.append(needs[0])
        return found

    @cached_property
    def written_out(self) -> int:
        """Statements, those of a function as often as it is called: 2ⁿ where each of n functions calls the one before
        twice."""
        counts: dict[str, int] = {}
        for name in self.captures:  # in which those that are called come first
            counts[name] = _count(self.by_name[name].body.statements, counts)
        return _count(self.statements, counts)

    def within(self, name: str) -> Program:
        """The body of a function, with all functions at hand."""
        if name not in self._bodies:
            self._bodies[name] = replace(self.by_name[name].body, functions=self.functions, is_body=True)
        return self._bodies[name]

    @cached_property
    def _bodies(self) -> dict[str, Program]:
        return {}

    def refs_of(self, statement: Statement) -> list[Ref]:
        """What a statement needs of the graph: its inputs, and what its functions take from around them."""
        functions = () if self.is_body else statement.functions
        captured = [ref for name in functions for ref in self.captures.get(name, ())]
        return [*_refs(statement), *captured]

    def results_of(self, statement: Statement) -> tuple[str, ...]:
        """Names of the results of a statement that has several."""
        return results_of(statement, self.by_name)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs, in the order in which statements name them."""
        names = [ref.name for statement in self.ordered for ref in self.refs_of(statement)]
        names += [ref.name for _, ref in self.outputs]
        return tuple(name for name in dict.fromkeys(names) if name not in self.by_id)

    @cached_property
    def input_names(self) -> frozenset[str]:
        """The same, to be looked up."""
        return frozenset(self.inputs)

    @cached_property
    def ordered(self) -> tuple[Statement, ...]:
        """The statements in an order in which each comes after what it needs. Raises GraphCycle.

        It follows from what the outputs need, from the left, so that equal graphs are built and summed alike however
        their nodes were posted. What no output needs comes first.
        """
        used = {ref.name for statement in self.statements for ref in self.refs_of(statement)}
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
        return (ref.name for ref in self.refs_of(self.by_id[name]) if ref.name in self.by_id)

    def _refuse_cycle(self, cycle: Sequence[str]) -> None:
        """Name a cycle, from the one of its nodes that was posted first."""
        at = next(i for i, each in enumerate(self.statements) if each.id in cycle)
        first = cycle.index(self.statements[at].id)
        cycle = [*cycle[first:], *cycle[:first], cycle[first]]
        shown = " → ".join(cycle[:10]) + (" → …" if len(cycle) > 10 else "")
        raise GraphCycle(f"nodes wait for each other: {shown}", node=cycle[0], pointer=f"/nodes/{at}/inputs")

    @cached_property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        statements = [*self.statements, *(each for function in self.functions for each in function.body.statements)]
        constants = (each for one in statements for each in one.inputs if isinstance(each, Tensor))
        return STATEMENT_BYTES * (len(statements) + 1) + sum(each.array.nbytes for each in constants)

    def with_outputs(self, names: Sequence[str]) -> Program:
        """The same statements with other outputs. Raises UnknownName."""
        known = dict(self.outputs)
        return replace(self, outputs=tuple((name, known.get(name) or self.find(name)) for name in names))

    def find(self, name: str) -> Ref:
        """The reference that `name` spells: an id, an input, or "id.result". Raises UnknownName."""
        ref = read_ref(name)
        if ref.name not in self.by_id and ref.name not in self.input_names:
            raise UnknownName(f"the graph has no node and no input called {name[:80]!r}")
        return ref

    @cached_property
    def digest(self) -> str:
        """The graph's id: equal for equal content, whatever the order of the statements.

        Names are content, as a wrt may be any of them: of two equal nodes, which one is used makes a difference.
        """
        known: dict[str, str] = {}
        for each in self.ordered:
            key = self._statement_key(each, known)
            known[each.id] = _hash([each.id, key]) if each.named else key
        outputs = [f"{name}={_argument_key(ref, known)}" for name, ref in self.outputs]
        return _hash([*sorted(known.values()), "outputs", *outputs])[:32]

    def _statement_key(self, each: Statement, known: Mapping[str, str]) -> str:
        attrs = each.op.read_attrs(each.attrs)
        named = {name: self._function_key(attrs[name]) for name in attrs if each.op.attrs[name].names_function}
        parts = [each.op.name, repr(attrs | named), str(each.no_grad)]
        return _hash([*parts, *(_argument_key(argument, known) for argument in (*each.inputs, *self._captured(each)))])

    def _captured(self, each: Statement) -> list[Ref]:
        return self.refs_of(each)[len(list(_refs(each))) :]

    def _function_key(self, name: str) -> str:
        """The content of a function: its parameters by place, what it captures by name."""
        if name not in self._function_keys:
            body = self.within(name)
            keys = {each: f"parameter {at}" for at, each in enumerate(self.by_name[name].parameters)}
            for each in body.ordered:
                keys[each.id] = self._statement_key(each, keys)
            self._function_keys[name] = _hash(_argument_key(ref, keys) for _, ref in body.outputs)
        return self._function_keys[name]

    @cached_property
    def _function_keys(self) -> dict[str, str]:
        return {}


def results_of(statement: Statement, functions: Mapping[str, Function]) -> tuple[str, ...]:
    """Names of the results of a statement that has several: those of its op, or of the function that gives them."""
    op = statement.op
    function = functions.get(statement.attrs.get(op.named_by, "")) if op.named_by else None
    names = op.results if function is None else tuple(name.replace(".", "_") for name, _ in function.body.outputs)
    return names if len(names) > 1 else ()


def _count(statements: Sequence[Statement], counts: Mapping[str, int]) -> int:
    """How many statements these are with those of the functions that they name, which are so many in each."""
    return sum(1 + sum(counts.get(name, 0) for name in each.functions) for each in statements)


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
    """A program from {"nodes": […], "outputs": […], "functions": {…}}. Errors point into it. Raises InvalidGraph and
    its kin."""
    _check_fields(value, GRAPH_FIELDS, "a graph")
    functions = {} if value.get("functions") is None else value["functions"]
    if not isinstance(functions, dict):
        raise InvalidGraph("expected an object of functions by name", pointer="/functions")
    if len(functions) > limits.functions:
        raise LimitExceeded("functions", limits.functions, len(functions), "functions of the graph")
    read = tuple(_read_function(name, each, functions, limits) for name, each in functions.items())
    program = replace(_read_nodes(value, functions, limits), functions=read)
    count = sum(len(each.statements) for each in (program, *(function.body for function in read)))
    if count > limits.nodes:
        raise LimitExceeded("nodes", limits.nodes, count, "nodes of the graph and its functions")
    _ = program.captures
    program = replace(program, outputs=_read_outputs(value.get("outputs"), program))
    _ = program.ordered  # circles are refused here, where pointers lead into the graph
    return program


def _check_fields(value: Any, fields: Sequence[str], what: str, needed: str = 'with "nodes"') -> None:
    if not isinstance(value, dict):
        raise InvalidGraph(f"{what} is an object {needed}")
    for name in value:
        if name not in fields:
            raise InvalidGraph(
                f"{what} has no field {name[:64]!r}; it has: {', '.join(fields)}", pointer=pointer_to(name)
            )


def _read_function(name: str, value: Any, functions: Container[str], limits: Limits) -> Function:
    try:
        if not ID.match(name) or name in NON_FINITE:
            raise InvalidGraph(f"a function's name is {ID_MEANING}")
        _check_fields(value, FUNCTION_FIELDS, "a function")
        parameters = _read_parameters(value.get("inputs", []))
        body = _read_nodes(value, functions, limits)
        for at, statement in enumerate(body.statements):
            if statement.id in parameters:
                detail = f"{statement.id!r} is an input of the function, and a node of it"
                raise InvalidGraph(detail, pointer=f"/nodes/{at}/id")
        body = replace(body, outputs=_read_outputs(value.get("outputs"), body, parameters))
        _ = body.ordered  # a circle is refused here
        return Function(name, parameters, body)
    except EngineError as error:
        error.pointer = f"{pointer_to('functions', name)}{error.pointer or ''}"
        error.node = None
        raise


def _read_parameters(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and ID.match(name) for name in value):
        raise InvalidGraph(f"expected a list of names ({ID_MEANING})", pointer="/inputs")
    if len(set(value)) < len(value):
        raise InvalidGraph("two inputs of the function have one name", pointer="/inputs")
    return tuple(value)


def _read_nodes(value: Mapping[str, Any], functions: Container[str], limits: Limits) -> Program:
    """The statements of a graph or of a function."""
    nodes = value.get("nodes")
    if not isinstance(nodes, list) or not nodes:
        raise InvalidGraph("expected a list of at least one node", pointer="/nodes")
    if len(nodes) > limits.nodes:
        raise LimitExceeded("nodes", limits.nodes, len(nodes), "nodes of the graph")
    statements = []
    for at, node in enumerate(nodes):
        try:
            statements.append(_read_statement(node, functions))
        except EngineError as error:
            _point(error, node, at)
            raise
    _refuse_duplicates(statements)
    return Program(tuple(statements), ())


def _point(error: EngineError, node: Any, at: int) -> None:
    given = node.get("id") if isinstance(node, dict) else None
    error.node = given if isinstance(given, str) and ID.match(given) else None
    error.pointer = f"/nodes/{at}{error.pointer or ''}"


def _read_statement(node: Any, functions: Container[str]) -> Statement:
    _check_fields(node, NODE_FIELDS, "a node", "with id, op and inputs")
    name, op_name = node.get("id"), node.get("op")
    if not isinstance(name, str) or not ID.match(name) or name in NON_FINITE:
        raise InvalidGraph(f"an id is {ID_MEANING}", pointer="/id")
    if not isinstance(op_name, str):
        raise InvalidGraph("expected the name of an op", pointer="/op")
    op = _read_op(op_name, functions)
    inputs, attrs, no_grad = node.get("inputs", []), node.get("attrs") or {}, node.get("no_grad", False)
    if not isinstance(inputs, list):
        raise InvalidGraph("expected a list of operands", pointer="/inputs")
    if not isinstance(attrs, dict):
        raise InvalidGraph("expected an object of attributes", pointer="/attrs")
    if not isinstance(no_grad, bool):
        raise InvalidGraph("expected true or false", pointer="/no_grad")
    arguments = tuple(_read_argument(op, each, at) for at, each in enumerate(inputs))
    attrs = {"function": op_name} | attrs if op_name in functions else attrs
    arguments, attrs = _with_named_operands(op, arguments, attrs)
    op.read_attrs(attrs)
    statement = Statement(name, op, arguments, attrs, no_grad)
    check_functions(statement, functions)
    return statement


def _with_named_operands(
    op: Op, arguments: tuple[Argument, ...], attrs: Mapping[str, Any]
) -> tuple[tuple[Argument, ...], dict[str, Any]]:
    """Operands that came by name, among the attributes, put into their places; those between are left out."""
    names = [] if op.is_variadic else [operand.name for operand in op.operands]
    named = {names.index(name): value for name, value in attrs.items() if name in names and name not in op.attrs}
    placed: list[Argument] = list(arguments)
    for at in range(len(arguments), max(named, default=-1) + 1):
        placed.append(_read_argument(op, named.get(at), at, pointer_to("attrs", names[at])))
    twice = next((names[at] for at in named if at < len(arguments)), None)
    if twice is not None:
        raise InvalidGraph(f"{op.name} got its operand {twice} twice", pointer=pointer_to("attrs", twice))
    return tuple(placed), {name: value for name, value in attrs.items() if name in op.attrs or name not in names}


def _read_op(name: str, functions: Container[str]) -> Op:
    """The op of a node. A function's name stands for a call of it, even where an op has the same name."""
    try:
        return ops.find(CALL if name in functions else name)
    except EngineError as error:
        error.pointer = "/op"
        raise


def check_functions(statement: Statement, functions: Container[str]) -> None:
    """Raises UnknownName for an attribute that names a function that is not there."""
    for attr, name in statement.attrs.items():
        if statement.op.attrs[attr].names_function and name not in functions:
            raise UnknownName(
                f"{attr} of {statement.op.name}: no function is called {name!r:.80}", pointer=f"/attrs/{attr}"
            )


def _read_argument(op: Op, value: Any, at: int, pointer: str = "") -> Argument:
    """An operand; null leaves one out that may be. `pointer` is where it was given, if not among the inputs."""
    pointer = pointer or f"/inputs/{at}"
    if value is None:
        return _left_out(op, at, pointer)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        if value in NON_FINITE:
            return NON_FINITE[value]
        ref = read_ref(value)
        if ID.match(ref.name) and ref.result != "":
            return ref
        raise InvalidGraph(f"{value[:80]!r} is not the name of a node or input", pointer=pointer)
    try:
        return read_tensor(value)
    except EngineError as error:
        error.pointer = f"{pointer}{error.pointer or ''}"
        raise


def _left_out(op: Op, at: int, pointer: str) -> float:
    """What stands for an operand that is left out. Raises InvalidGraph where it may not be."""
    operand = op.operands[at] if at < len(op.operands) and not op.is_variadic else None
    if operand is None or operand.default is None:
        name = "" if operand is None else f" {operand.name}"
        raise InvalidGraph(f"{op.name} needs its operand{name}: null leaves out optional ones only", pointer=pointer)
    return operand.default


def _refuse_duplicates(statements: Sequence[Statement]) -> None:
    seen: set[str] = set()
    for at, statement in enumerate(statements):
        if statement.id in seen:
            raise InvalidGraph(f"two nodes are called {statement.id!r}", node=statement.id, pointer=f"/nodes/{at}/id")
        seen.add(statement.id)


def _read_outputs(value: Any, program: Program, parameters: Sequence[str] = ()) -> tuple[tuple[str, Ref], ...]:
    if value is None:
        last = program.statements[-1]
        names = [f"{last.id}.{result}" for result in program.results_of(last)] or [last.id]
    elif isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        names = list(dict.fromkeys(value))
    else:
        raise InvalidGraph("expected a list of node ids", pointer="/outputs")
    try:
        if parameters:
            return tuple((name, read_ref(name) if name in parameters else program.find(name)) for name in names)
        return program.with_outputs(names).outputs
    except UnknownName as error:
        error.pointer = "/outputs"
        raise


def write_graph(program: Program, encoding: str = "json") -> dict[str, Any]:
    """The JSON form of a program; what `read_graph` reads back as an equal one."""
    functions = {
        each.name: {"inputs": list(each.parameters), **_write_nodes(each.body, encoding)} for each in program.functions
    }
    return ({"functions": functions} if functions else {}) | _write_nodes(program, encoding)


def _write_nodes(program: Program, encoding: str) -> dict[str, Any]:
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
    """A program in typed nodes: by statement, one node for each result; and the inputs.

    Of a function, `around` holds what it takes from around it, and `depth` counts the functions that it stands in.
    """

    program: Program
    graph: Graph
    nodes: dict[str, tuple[Node, ...]]
    inputs: dict[str, Node]
    around: Mapping[str, Node] | None = None
    depth: int = 0

    def find(self, ref: Ref) -> Node:
        """The node that `ref` names. Raises UnknownName, with the names there are."""
        if ref.name in self.inputs and ref.name not in self.nodes and ref.result is None:
            return self.inputs[ref.name]
        if ref.name not in self.nodes:
            if self.around is not None and str(ref) in self.around:
                return self.around[str(ref)]
            raise UnknownName(f"the graph has no node and no input called {str(ref)[:80]!r}")
        several, names = self.nodes[ref.name], self.program.results_of(self.program.by_id[ref.name])
        names = names if len(names) == len(several) else ()
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

    def find_around(self, ref: Ref) -> Node:
        """What a function called here takes from around it: functions see the graph, never one another's names."""
        return self.find(ref) if self.around is None else self.around[str(ref)]

    @property
    def outputs(self) -> dict[str, Node]:
        return {name: self.find(ref) for name, ref in self.program.outputs}


def build(program: Program, specs: Mapping[str, Spec], graph: Graph, marks: Iterable[str] = ()) -> Built:
    """Typed nodes for every statement. Raises what ops refuse, with the statement to blame.

    Statements called in `marks` become nodes of their own, shared with no equal one: they are to be differentiated
    with respect to. `specs` may hold inputs that the graph does not use.
    """
    if program.functions and program.written_out > graph.limits.expanded_nodes:
        most = graph.limits.expanded_nodes
        raise LimitExceeded(
            "expanded_nodes", most, program.written_out, "nodes of functions, each time they are called"
        )
    for name in program.inputs:
        if name not in specs:
            users = (each.id for each in program.statements if any(ref.name == name for ref in program.refs_of(each)))
            user = next(users, None)
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
            _blame(error, statement, position[id(statement)])
            raise
    graph.origin = None
    return built


def _blame(error: EngineError, statement: Statement, at: int) -> None:
    """Say which statement it was. An error of a function's statement says so already."""
    if (error.pointer or "").startswith("/functions"):
        return
    if not error.detail.startswith((statement.op.name, "attribute ")):
        error.detail = f"{statement.op.name}: {error.detail}"
    error.pointer = f"/nodes/{at}{error.pointer or ''}"


@dataclass(frozen=True, eq=False)
class Closure(SubGraph):
    """A function at the place where it is named: what it captures is found there."""

    function: Function
    built: Built

    @property
    def name(self) -> str:
        return self.function.name

    @cached_property
    def _captured(self) -> dict[str, Node]:
        return {str(ref): self.built.find_around(ref) for ref in self.built.program.captures[self.name]}

    def inline(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """The function's results, emitted in the graph around it. Raises what its statements refuse."""
        return self._build(self.built.graph, nodes, self._captured)

    def trace(self, specs: Sequence[Spec], weak: Container[int] = ()) -> tuple[Body, list[Node]]:
        """The function as a graph of its own, for operands of these specs, after what it captures; and that.

        Operands at the places in `weak` promote as bare numbers do.
        """
        graph = self.built.graph.offshoot()
        captured = list(dict.fromkeys(self._captured.values()))  # two names may stand for one node
        partners = {node: fresh_leaf(graph, node.spec, weak=node.weak) for node in captured}
        around = {name: partners[node] for name, node in self._captured.items()}
        leaves = [fresh_leaf(graph, spec, weak=at in weak) for at, spec in enumerate(specs)]
        return Body(graph, [*partners.values(), *leaves], self._build(graph, leaves, around)), captured

    def _build(self, graph: Graph, nodes: Sequence[Node], around: Mapping[str, Node]) -> tuple[Node, ...]:
        parameters, depth, limits = self.function.parameters, self.built.depth + 1, graph.limits
        if len(nodes) != len(parameters):
            named = ", ".join(parameters) or "none"
            raise InvalidGraph(f"the function {self.name} takes {len(parameters)} operands ({named}), got {len(nodes)}")
        if depth > limits.function_depth:
            raise LimitExceeded("function_depth", limits.function_depth, depth, "functions within functions")
        program = self.built.program.within(self.name)
        graph.count(len(program.statements))
        inputs = dict(zip(parameters, nodes, strict=True))
        built = Built(program, graph, {}, inputs, around, depth)
        position = {id(statement): at for at, statement in enumerate(program.statements)}
        for statement in program.ordered:
            try:
                built.nodes[statement.id] = _emit(statement, built, False)
            except EngineError as error:
                self._blame(error, statement, position[id(statement)])
                raise
        return tuple(built.find(ref) for _, ref in program.outputs)

    def _blame(self, error: EngineError, statement: Statement, at: int) -> None:
        if not (error.pointer or "").startswith("/functions"):
            _blame(error, statement, at)
            error.pointer = f"{pointer_to('functions', self.name)}{error.pointer}"
            error.detail = f"in the function {self.name}: {error.detail}"
            error.place = f"{self.name}/{statement.id}"


def _emit(statement: Statement, built: Built, marked: bool) -> tuple[Node, ...]:
    op, attrs = statement.op, statement.attrs
    operands = [_operand(argument, op, at, built) for at, argument in enumerate(statement.inputs)]
    if statement.functions:
        functions = built.program.by_name
        attrs = attrs | {
            name: Closure(functions[value], built) for name, value in attrs.items() if op.attrs[name].names_function
        }
    results = op.apply(built.graph, operands, attrs, posted=True)
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

    Names of outputs are kept; other nodes are numbered. Graphs within the graph become functions.
    """
    writer = _Writer({}, {})
    roots = list(outputs.values())
    live = roots[0].graph.live(roots) if roots else []
    arguments: dict[Node, Argument] = dict(bound)
    arguments |= {node: Ref(node.attrs["name"]) for node in live if node.op is INPUT and node not in bound}
    program = writer.program(outputs, arguments)
    return replace(program, functions=tuple(writer.functions.values()))


@dataclass
class _Writer:
    """Typed nodes on their way to statements. Functions are known by the content of their bodies."""

    functions: dict[str, Function]
    names: dict[str, str]

    def program(self, outputs: Mapping[str, Node], arguments: dict[Node, Argument]) -> Program:
        """The statements that compute `outputs`, where `arguments` says what the leaves are."""
        roots = list(outputs.values())
        live = roots[0].graph.live(roots) if roots else []
        taken = {each.name for each in arguments.values() if isinstance(each, Ref)} | set(outputs)
        names = {node: name for name, node in outputs.items() if node.inputs and node.op is not RESULT}
        statements = []
        for node in live:
            if node in arguments:
                continue
            if node.op is CONSTANT:
                arguments[node] = _constant_argument(node)
            elif node.op is RESULT:
                source, several = arguments[node.inputs[0]], node.inputs[0]
                assert isinstance(source, Ref)
                at = node.attrs["index"]
                name = several.op.results[at] if several.op.results else str(at)
                arguments[node] = Ref(source.name, name if len(several.specs) > 1 else None)
            else:
                name = names.get(node) or _fresh(taken)
                inputs = tuple(arguments[x] for x in node.inputs)
                statements.append(Statement(name, node.op, inputs, self._attrs(node)))
                arguments[node] = Ref(name)
        for name, node in outputs.items():
            if arguments[node] != Ref(name):
                statements.append(Statement(name, ops.positive, (arguments[node],)))
        return Program(tuple(statements), tuple((name, Ref(name)) for name in outputs))

    def _attrs(self, node: Node) -> dict[str, Any]:
        """The attributes of a node that differ from their defaults, as they would be posted."""
        given = {name: value for name, value in node.attrs.items() if repr(value) != repr(node.op.attrs[name].default)}
        return {name: self._function(value) if isinstance(value, Body) else value for name, value in given.items()}

    def _function(self, body: Body) -> str:
        """The name of the function that is this body."""
        key = repr(body)
        if key not in self.names:
            self.names[key] = f"f{len(self.names) + 1}"
            leaves: dict[Node, Argument] = {leaf: Ref(f"x{at}") for at, leaf in enumerate(body.inputs)}
            outputs = {f"y{at}": node for at, node in enumerate(body.outputs)}
            parameters = tuple(f"x{at}" for at in range(len(body.inputs)))
            self.functions[key] = Function(self.names[key], parameters, self.program(outputs, leaves))
        return self.names[key]


def _constant_argument(node: Node) -> Argument:
    assert node.value is not None
    if node.weak and not node.shape and node.dtype.kind != "c":
        number: bool | int | float = node.value.item()
        return number
    return Tensor(node.value, typed=True)


def _fresh(taken: set[str]) -> str:
    number = len(taken) + 1
    while f"t{number}" in taken:
        number += 1
    taken.add(f"t{number}")
    return f"t{number}"
