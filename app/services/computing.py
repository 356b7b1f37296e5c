"""The work itself, from a body to the bytes of its answer: read, compile, run, encode. Blocking; any thread may ask.

The event loop, its threads and the worker processes all do it here, each on its road: what turns out to be too much for
a road raises TooHeavy, before it is begun. Plans are kept, and so are graphs as they were read.
"""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel

from app.problems import Problem, over_limit
from app.seen import Ops
from app.services.bodies import decoded, validated
from app.services.cache import Cache
from app.services.deadline import Clock
from app.services.letters import Letter
from app.services.machine import cores
from app.services.questions import (
    form_of,
    inspection_of,
    point_at_id,
    pointing_into_graph,
    program_of,
    question_of,
    warned,
)
from app.services.records import Registered, Registration
from app.services.tasks import Road, Task, TooHeavy
from app.settings import Settings
from app.wire.codecs import JSON, Codec
from app.wire.models import CheckRequest, GraphForm, InspectRequest, RegisterRequest, Request
from engine.blame import notices_of
from engine.calls import Compiled, Question, Tree, compile_question, map_tree
from engine.check import check
from engine.describe import describe, describe_program
from engine.errors import EngineError
from engine.program import Program, write_attr, write_graph
from engine.tensors import write_tensor
from engine.text import FORMS, folded

M = TypeVar("M", bound=BaseModel)

DERIVATIVE = "derivative_"
"""How the forms of the derivative's graph begin."""
PROGRAMS = 8
"""What part of the room for plans the graphs as they were posted may take beside it: one in so many."""
TOO_LONG = "bytes of the answer's tensors, which msgpack, or encoding base64, would send in fewer than JSON does"
DENSE = ("laplacian", "tensors")
"""Calls whose compiling takes time for each element of a tensor."""
LOOP = 8
"""Times that a step of a loop is built: itself, its tangent, its adjoint, and what of them is simplified."""
GLANCES, GLANCE_BYTES = 16, 1 << 14
"""Parts of a body that are looked at, and their length: to look at all of a long one takes longer than to read it."""
ENCODING = 4e-9
"""Seconds that it takes to write a byte of a tensor in JSON."""
CHARACTERS = 8
"""Of an expression, to a node."""


Find = Callable[[str], Registered]


class Planned:
    """A plan that is kept, with the road that it is for, and what is said of its graph, ready to be sent."""

    def __init__(self, compiled: Compiled, settings: Settings) -> None:
        self.compiled = compiled
        self.road = _road_of(compiled, settings)
        self.memory = compiled.plan.peak_bytes + compiled.answer_bytes
        self.ops: Ops = tuple(Counter(step.node.op.name for step in compiled.plan.steps).items())
        self._described: dict[Hashable, bytes] = {}
        self._letter: Letter | None = None

    def __del__(self) -> None:
        # It is in no cache any more, and no request is at it.
        self.compiled.come_apart()

    def described(self, request: Request, codec: Codec) -> bytes:
        """The metadata of the graph in the form of `codec`."""
        wanted = [each for each in request.include if not each.startswith(DERIVATIVE)]
        if wanted:  # long, and rarely asked for
            return codec.encode(_described(self.compiled, request))
        if codec.name not in self._described:
            self._described[codec.name] = codec.encode(_described(self.compiled, request))
        return self._described[codec.name]

    def brief(self, results: Tree, request: Request, codec: Codec) -> bytes | None:
        """The answer with these results, where it is small and plain."""
        if self.road is not Road.LINE or codec is not JSON or request.include or request.encoding != "json":
            return None
        if self._letter is None:
            self._letter = Letter(results, self.described(request, codec))
        return self._letter.filled(results)


def _road_of(compiled: Compiled, settings: Settings) -> Road:
    plan = compiled.plan
    if plan.longest_seconds > settings.thread_call_seconds or plan.held_seconds > settings.thread_held_seconds:
        return Road.WORKER
    seconds = plan.seconds + ENCODING * compiled.answer_bytes
    return Road.LINE if seconds <= settings.inline_seconds else Road.THREAD


class Computer:
    """Does tasks, within the settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.programs: Cache[Program] = Cache(settings.plan_cache_bytes // PROGRAMS)
        self.plans: Cache[Planned] = Cache(settings.plan_cache_bytes)
        self._threads = settings.run_threads or cores()
        self._most = {
            Road.LINE: settings.inline_nodes,
            Road.THREAD: settings.thread_nodes,
            Road.WORKER: sys.maxsize,
        }
        """Effort of compiling that a road bears."""

    def answer(self, task: Task[Any], road: Road, find: Find) -> bytes:
        """The body of the answer; of a graph that is to be kept its `Registration`, in MessagePack.

        `find` looks registered graphs up. Raises Problem, EngineError, and TooHeavy.
        """
        task.clock.road = road
        request = self._read(task)
        if isinstance(request, InspectRequest):
            return self._inspect(request, task, road)
        task.clock.lower(request.timeout)
        if form_of(request) != "graph_id":
            return self._compute(request, task, road)
        try:
            found = find(request.graph_id or "")
            request.expression = found.expression  # with its text, faults can be shown where they are
            return self._compute(request, task, road, found.asked(request, self.settings.limits))
        except (EngineError, Problem) as error:
            point_at_id(error)
            raise

    def _read(self, task: Task[M]) -> M:
        with task.clock.stage("parse"):
            return validated(task.model, decoded(task.body, task.form, self.settings))

    def _compute(self, request: Request, task: Task[Any], road: Road, registered: Program | None = None) -> bytes:
        if isinstance(request, CheckRequest) and road is not Road.WORKER:  # which runs the graph many times
            raise TooHeavy(Road.WORKER)
        limits, clock = self.settings.limits, task.clock
        with clock.stage("parse"):
            question = question_of(request, limits, registered or self._program(request, road))
        if isinstance(request, CheckRequest):
            return self._check(question, request, task)
        planned = self._known(question, clock) or self._compile(question, request, clock, road)
        if planned.road > road:
            raise TooHeavy(planned.road)
        if road is Road.THREAD:  # what runs in line is small, and for a worker the most was counted
            task.share.grow(planned.memory)
        return self._run(planned, question, request, task)

    def _program(self, request: Request, road: Road) -> Program | None:
        """The graph of a request, if it was read before; else it is read now, and kept. None where it has no one graph:
        whoever reads the request will say so."""
        key = _key_of(request)
        if key is None:
            return None
        found = self.programs.get(key)
        if found is None:
            self._bear(_length(request), road)
            found = program_of(request, self.settings.limits)
            self.programs.put(key, found, found.nbytes)
        return found

    def _bear(self, effort: int, road: Road) -> None:
        """Raises TooHeavy where compiling takes more than a road bears, with the first that does."""
        if effort > self._most[road]:
            raise TooHeavy(next(each for each in Road if effort <= self._most[each]))

    def _known(self, question: Question, clock: Clock) -> Planned | None:
        with clock.stage("compile"):
            planned = self.plans.get(question.signature)
        if planned is not None:
            clock.note("plan", "hit")
        return planned

    def _compile(self, question: Question, request: Request, clock: Clock, road: Road) -> Planned:
        self._bear(_compile_effort(question), road)
        with clock.stage("compile"), pointing_into_graph(request, self.settings.limits):
            compiled = compile_question(question, self.settings.limits, clock).lasting()
        size = compiled.answer_bytes
        if size > self.settings.answer_bytes:
            raise over_limit("answer_bytes", self.settings.answer_bytes, size, TOO_LONG)
        planned = Planned(compiled, self.settings)
        self.plans.put(question.signature, planned, compiled.nbytes)
        return planned

    def _run(self, planned: Planned, question: Question, request: Request, task: Task[Any]) -> bytes:
        compiled, clock, codec = planned.compiled, task.clock, task.answer
        with clock.stage("run"), pointing_into_graph(request, self.settings.limits):
            tensors = compiled.bind(question)
            results = compiled.run(tensors, clock, self._threads)
            clock.ops = planned.ops
        with clock.stage("encode"):
            brief = planned.brief(results, request, codec)
        if brief is not None:  # all numbers are finite: there is nothing to warn of
            return brief
        with clock.stage("run"):
            notices = notices_of(compiled, tensors, results, clock)
        with clock.stage("encode"):
            encoding = codec.tensors or request.encoding
            answer: dict[str, Any] = map_tree(results, partial(write_tensor, encoding=encoding))
            answer["graph"] = codec.embed(planned.described(request, codec))
            if compiled.derivative and any(each.startswith(DERIVATIVE) for each in request.include):
                answer |= _derivative(compiled.derivative_program(question), request, encoding)
            return codec.encode(answer | warned(notices, request, self.settings.limits))

    def _check(self, question: Question, request: CheckRequest, task: Task[Any]) -> bytes:
        limits, clock = self.settings.limits, task.clock
        with clock.stage("compile"), pointing_into_graph(request, limits):
            described = compile_question(replace(question, call="grad", ones=True), limits, clock)
        with clock.stage("run"), pointing_into_graph(request, limits):
            found = check(question, limits, clock)
        with clock.stage("encode"):
            notices = warned(found.pop("warnings", []), request, limits)
            return task.answer.encode(_plain(found) | notices | {"graph": _described(described, request)})

    def _inspect(self, request: InspectRequest, task: Task[Any], road: Road) -> bytes:
        self._bear(_length(request), road)
        program, described = self._inspected(request, task.clock)
        if not isinstance(request, RegisterRequest):
            return task.answer.encode(described)
        answer = task.answer.encode(described | {"name": request.name})
        return msgspec.msgpack.encode(Registration.of(request, program, described, answer))

    def _inspected(self, request: InspectRequest, clock: Clock) -> tuple[Program, dict[str, Any]]:
        limits = self.settings.limits
        with clock.stage("parse"):
            question = inspection_of(request, limits)
        if question.program.inputs and request.inputs is None:
            return question.program, describe_program(question.program) | _texts(question.program, request.include)
        with clock.stage("compile"), pointing_into_graph(request, limits):
            compiled = compile_question(question, limits, clock)
        return question.program, _described(compiled, request)


def nodes_at_a_glance(body: bytes, form: Codec) -> int:
    """About how many nodes a graph in this body has, without reading it: how often it says `op`, or would if all of
    it were as some parts are."""
    if len(body) <= GLANCES * GLANCE_BYTES:
        return body.count(form.op)
    stride = len(body) // GLANCES
    seen = sum(body.count(form.op, at, at + GLANCE_BYTES) for at in range(0, stride * GLANCES, stride))
    return seen * stride // GLANCE_BYTES


def _length(request: GraphForm) -> int:
    """About how many nodes the graph of a request has, not read yet."""
    if request.expression is not None:
        return len(request.expression) // CHARACTERS
    nodes = request.graph.get("nodes") if isinstance(request.graph, dict) else None
    return len(nodes) if isinstance(nodes, list) else 0


def _key_of(request: Request) -> Hashable:
    """What tells the graph of a request from others: its text, and which outputs are asked for."""
    outputs = request.outputs and tuple(request.outputs)
    if (request.expression is None) == (request.graph is None) or request.graph_id is not None:
        return None
    if request.expression is not None:
        return request.expression, outputs
    try:
        return hashlib.blake2b(JSON.encode(request.graph)).digest(), outputs
    except TypeError:  # an integer beyond 64 bits, which the reader of the graph will see
        return None


def _compile_effort(question: Question) -> int:
    """Posted nodes, times what the call makes of each: the square of the order, or a sweep for each wrt.

    What is sparse, or may turn out to be, takes time for each element as well, and so do tensors: these are no small
    thing whatever the graph. Functions count as often as they are called, and those of loops as what their derivatives
    are, too.
    """
    program = question.program
    if question.sparse or question.call in DENSE:
        return sys.maxsize
    nodes = len(program.statements)
    if program.functions:
        nodes = program.written_out + LOOP * sum(len(each.body.statements) for each in program.functions)
    order = len(question.path) if question.path is not None else question.order
    sweeps = len(question.inputs) if question.call in ("jacobian", "hessian") else max(order, 1) ** 2
    return min(nodes * max(sweeps, 1), sys.maxsize)


def _described(compiled: Compiled, request: GraphForm) -> dict[str, Any]:
    """The metadata of the posted graph, with what more was asked for."""
    described = describe(compiled, nodes="nodes" in request.include)
    return described | _texts(compiled.question.program, request.include)


def _derivative(program: Program, request: Request, encoding: str) -> dict[str, Any]:
    """The graph that computed the derivative, in the forms that were asked for."""
    wanted = [each.removeprefix(DERIVATIVE) for each in request.include if each.startswith(DERIVATIVE)]
    found: dict[str, Any] = {"graph": write_graph(program, encoding)} if "graph" in wanted else {}
    if set(wanted) - {"graph"}:
        found |= _texts(folded(program), wanted)
    return {f"{DERIVATIVE}{form}": each for form, each in found.items()}


def _texts(program: Program, wanted: Iterable[str]) -> dict[str, str]:
    """A program as text, in each of the forms that are wanted."""
    return {form: FORMS[form](program) for form in wanted if form in FORMS}


def _plain(tree: Any) -> Any:
    """Numbers that JSON lacks as strings."""
    if isinstance(tree, dict):
        return {name: _plain(each) for name, each in tree.items()}
    return [_plain(each) for each in tree] if isinstance(tree, list) else write_attr(tree)
