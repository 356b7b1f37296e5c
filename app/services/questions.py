"""From a request's model to the engine's question: its graph parsed, its tensors read, its faults pointed at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from app.problems import Problem
from app.wire.models import GraphForm, InspectRequest, Request
from engine.calls import SEEDS, Question
from engine.errors import EngineError, LimitExceeded, pointer_to
from engine.limits import Limits
from engine.program import ID, ID_MEANING, Program, read_graph
from engine.tensors import Tensor, read_spec, read_tensor
from engine.text import CONSTANTS, parse, parse_with_positions
from engine.warnings import Notice

FORMS = ("expression", "graph", "graph_id")
"""Fields of requests that say which graph it is."""
INTO_GRAPH = ("/nodes", "/functions")
"""How pointers begin that are relative to a graph."""


def question_of(request: Request, limits: Limits, known: Program | None = None) -> Question:
    """The engine's question. Raises EngineError and Problem, with pointers into the request.

    `known` is the request's graph, where that was read before.
    """
    fields = vars(request)
    seeds = {role: fields.get(role) or {} for role in SEEDS.get(request.call, ())}
    ones = seeds.get("grad_outputs") == "ones"
    order, path = fields.get("order"), fields.get("path")
    if request.call in ("nth", "tensors") and (order is None) == (path is None):
        raise Problem("invalid_request", "give either order or path", pointer="/order")
    program = program_of(request, limits, known)
    _check_names(request.inputs, request, program)
    return Question(
        call=request.call,
        program=program,
        inputs=_tensors("/inputs", request.inputs, limits),
        seeds={role: _tensors(f"/{role}", each, limits) for role, each in seeds.items() if each and each != "ones"},
        wrt=request.wrt,
        batch=tuple(request.batch),
        order=1 if order is None else order,
        path=path,
        mode=fields.get("mode", "auto"),
        sparse=fields.get("sparse", False),
        ones=ones,
        nan_policy=request.nan_policy,
    )


def _check_names(names: Iterable[str], request: GraphForm, program: Program) -> None:
    """Refuse inputs that no graph could name, and those that would be passed over in silence."""
    for name in names:
        if name in program.input_names:
            continue
        fault = _fault(name, request, program)
        if fault is not None:
            raise Problem("invalid_request", fault, pointer=pointer_to("inputs", name))


def _fault(name: str, request: GraphForm, program: Program) -> str | None:
    """What is wrong with the name of an input."""
    if not ID.match(name):
        return f"{name[:64]!r} is no name: {ID_MEANING}"
    if name in program.by_id:
        return f"{name} is a node of the graph, and an input; one of them needs another name"
    if request.expression is not None and name in CONSTANTS and name not in program.inputs:
        return f"in an expression {name} is the number {CONSTANTS[name]}; give the input another name"
    return None


def form_of(request: GraphForm) -> str:
    """In which of the three forms a request has its graph. Raises invalid_request where that is not exactly one."""
    forms = [name for name in FORMS if getattr(request, name, None) is not None]
    if len(forms) != 1:
        found = f"got {' and '.join(forms)}" if forms else "got none"
        raise Problem("invalid_request", f"a request has exactly one of {', '.join(FORMS)}; {found}", pointer="")
    return forms[0]


def program_of(request: GraphForm, limits: Limits, known: Program | None = None) -> Program:
    """The graph of a request, with the outputs that it asks for: the one that `graph_id` names, or that it has."""
    program = _parsed(request, limits) if known is None else known
    if request.outputs is None or list(dict.fromkeys(request.outputs)) == [name for name, _ in program.outputs]:
        return program
    with pointing("/outputs"):
        return program.with_outputs(list(dict.fromkeys(request.outputs)))


def _parsed(request: GraphForm, limits: Limits) -> Program:
    with pointing(f"/{form_of(request)}"):
        return read_graph(request.graph, limits) if request.expression is None else parse(request.expression, limits)


@contextmanager
def pointing(prefix: str) -> Iterator[None]:
    """Put `prefix` before the pointer of an engine's error that comes out of here."""
    try:
        yield
    except EngineError as error:
        error.pointer = f"{prefix}{error.pointer or ''}"
        raise


class pointing_into_graph:
    """Make an error at a node one at a place of the request: a pointer into `graph`, a line of the expression."""

    def __init__(self, request: GraphForm, limits: Limits) -> None:
        self.request = request
        self.limits = limits

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, EngineError):
            return
        if self.request.expression is not None and error.node is not None:
            _locate(error, self.request.expression, self.limits)
        elif error.pointer is not None and error.pointer.startswith(INTO_GRAPH):
            error.pointer = f"/graph{error.pointer}"


def point_at_id(error: EngineError | Problem) -> None:
    """Make an error within a graph one at its id, which is all that the request has of it."""
    is_within = error.pointer is not None and error.pointer.startswith(("/expression", "/graph/", *INTO_GRAPH))
    if is_within or error.code == "unknown_graph":
        error.pointer = "/graph_id"


def _locate(error: EngineError, expression: str, limits: Limits) -> None:
    """Say where in an expression the node to blame stands; ids that were made up for its parts are no help."""
    program, positions = parse_with_positions(expression, limits)
    place = error.place or error.node
    if place not in positions:
        return
    line, column = positions[place]
    error.detail = f"line {line}, column {column}: {error.detail}"
    error.line, error.column = line, column
    if error.pointer is None or error.pointer.startswith(INTO_GRAPH):
        error.pointer = "/expression"
    error.node = error.node if error.node in program.by_id and program.by_id[error.node].named else None


def warned(notices: Sequence[Notice], request: GraphForm, limits: Limits) -> dict[str, Any]:
    """The field `warnings` of an answer, where there are any: nodes of an expression go by line and column, too."""
    if not notices:
        return {}
    if request.expression is not None:
        program, positions = parse_with_positions(request.expression, limits)
        notices = [_located(notice, program, positions) for notice in notices]
    return {"warnings": [notice._asdict() for notice in notices]}


def _located(notice: Notice, program: Program, positions: Mapping[str, tuple[int, int]]) -> Notice:
    if notice.node is None or notice.node not in positions:
        return notice
    line, column = positions[notice.node]
    node = notice.node if program.by_id[notice.node].named else None
    return Notice(notice.code, f"line {line}, column {column}: {notice.detail}", node)


def _tensors(pointer: str, values: Mapping[str, Any], limits: Limits) -> dict[str, Tensor]:
    return {
        name: read_tensor(value) if type(value) is float else _tensor(pointer, name, value, limits, read_tensor)
        for name, value in values.items()  # a float is within any limit
    }


def _tensor(pointer: str, name: str, value: Any, limits: Limits, read: Callable[[Any], Any]) -> Any:
    try:
        tensor = read(value)
        shape = tensor.spec.shape
        if len(shape) > limits.rank:
            raise LimitExceeded("rank", limits.rank, len(shape), "axes of the tensor")
        if tensor.spec.size > limits.elements:
            raise LimitExceeded("elements", limits.elements, tensor.spec.size, "elements of the tensor")
    except EngineError as error:
        error.pointer = f"{pointer}{pointer_to(name)}{error.pointer or ''}"
        raise
    return tensor


def inspection_of(request: InspectRequest, limits: Limits) -> Question:
    """A question about values whose tensors have shapes and dtypes, but no memory."""

    def hollow(value: Any) -> Tensor:
        spec = read_spec(value)
        return Tensor(np.broadcast_to(np.zeros((), spec.dtype), spec.shape), typed=True)

    given = request.inputs or {}
    inputs = {name: _tensor("/inputs", name, value, limits, hollow) for name, value in given.items()}
    program = program_of(request, limits)
    _check_names(given, request, program)
    return Question("value", program, inputs)
