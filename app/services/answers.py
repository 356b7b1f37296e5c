"""From a request to the bytes of its answer: parse, compile, run, encode.

Where that happens is decided by size. What takes microseconds is done in the event loop, because a hop to a thread
costs more; what is known to be larger goes to one of a few threads. The figures are settings.

What a request has in common with earlier ones is not worked out again: a graph that was posted before is known by its
text, and a question of a known signature by its plan. Both caches are bounded by bytes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread

from app.problems import over_limit
from app.services.cache import Cache
from app.services.deadline import Clock
from app.services.graphs import Graphs
from app.services.questions import (
    form_of,
    inspection_of,
    pointing_at_id,
    pointing_into_graph,
    program_of,
    question_of,
    warned,
)
from app.settings import Settings
from app.wire.codecs import JSON, Codec
from app.wire.models import CheckRequest, GraphForm, InspectRequest, RegisterRequest, Request
from engine.blame import notices_of
from engine.calls import Compiled, Question, compile_question, map_tree
from engine.check import check
from engine.describe import describe, describe_program
from engine.program import Program, write_attr, write_graph
from engine.tensors import write_tensor
from engine.text import FORMS, folded, print_program, to_svg

T = TypeVar("T")

DRAWINGS = {"dot": "dot", "mmd": "mermaid"}
"""Drawings that are plain text, by the ends of their names."""
DERIVATIVE = "derivative_"
"""How the forms of the derivative's graph begin."""
PROGRAMS = 8
"""What part of the room for plans the graphs as they were posted may take beside it: one in so many."""


class Planned:
    """A plan that is kept, with what is said of its graph, ready to be sent."""

    def __init__(self, compiled: Compiled) -> None:
        self.compiled = compiled
        self.effort = compiled.plan.flops + compiled.plan.peak_bytes + compiled.answer_bytes
        if any(step.node.op.steers for step in compiled.plan.steps):
            self.effort = sys.maxsize  # a step of a loop takes more than its operations, and how many come is not known
        self._described: dict[Hashable, bytes] = {}

    def described(self, request: Request, codec: Codec) -> bytes:
        """The metadata of the graph in the form of `codec`."""
        wanted = [each for each in request.include if not each.startswith(DERIVATIVE)]
        if wanted:  # long, and rarely asked for
            return codec.encode(_described(self.compiled, request))
        if codec.name not in self._described:
            self._described[codec.name] = codec.encode(_described(self.compiled, request))
        return self._described[codec.name]


class Answers:
    """Answers requests, within the settings."""

    def __init__(self, settings: Settings, graphs: Graphs) -> None:
        self.settings = settings
        self.graphs = graphs
        self.programs: Cache[Program] = Cache(settings.plan_cache_bytes // PROGRAMS)
        self.plans: Cache[Planned] = Cache(settings.plan_cache_bytes)
        self._threads = anyio.CapacityLimiter(settings.threads)
        self._run_threads = settings.run_threads or os.cpu_count() or 1

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do `work` in one of the service's threads."""
        return await anyio.to_thread.run_sync(work, limiter=self._threads)

    async def of(self, request: Request | InspectRequest, clock: Clock, is_light: bool, codec: Codec = JSON) -> bytes:
        """The answer to a request, in the form of `codec`. What `is_light` may stay in the event loop, as far as its
        cost allows."""
        if isinstance(request, InspectRequest):
            inspecting = partial(self._inspect, request, clock)
            return await self.in_thread(lambda: codec.encode(inspecting()[1]))
        clock.lower(request.timeout)
        if form_of(request) != "graph_id":
            return await self._answer(request, clock, is_light, codec)
        with pointing_at_id():
            found = await self.graphs.find(request.graph_id or "")
            is_light = is_light and len(found.program.statements) <= self.settings.inline_nodes
            # With its text, faults can be shown where they are.
            request = request.model_copy(update={"expression": found.expression})
            return await self._answer(request, clock, is_light, codec, found.asked(request, self.settings.limits))

    async def _answer(
        self, request: Request, clock: Clock, is_light: bool, codec: Codec, registered: Program | None = None
    ) -> bytes:
        parsing = partial(self._parse, request, clock, registered)
        if isinstance(request, CheckRequest):  # which runs the graph many times
            return await self.in_thread(lambda: self._check(parsing(), request, clock, codec))
        question = parsing() if is_light else await self.in_thread(parsing)
        planned = self._known(question, clock)
        if planned is None:
            compiling = partial(self._compile, question, request, clock)
            is_light = is_light and _compile_effort(question) <= self.settings.inline_nodes
            planned = compiling() if is_light else await self.in_thread(compiling)
        running = partial(self._run, planned, question, request, clock, codec)
        return (
            running() if is_light and planned.effort <= self.settings.inline_effort else await self.in_thread(running)
        )

    async def register(self, request: RegisterRequest, clock: Clock, codec: Codec) -> tuple[str, bool, bytes]:
        """Keep a graph. Its id, whether it is new, and the answer."""

        def inspected() -> tuple[Program, bytes, bytes]:
            program, described = self._inspect(request, clock)
            lasting = {name: each for name, each in described.items() if name not in request.include}
            return program, JSON.encode(lasting), codec.encode(described | {"name": request.name})

        program, description, answer = await self.in_thread(inspected)
        is_new = await self.graphs.register(request, program, description)
        return program.digest, is_new, answer

    async def shown(self, id: str, codec: Codec) -> bytes:
        """All there is to say of a registered graph: what it is without knowing its inputs' shapes, and itself in two
        forms."""
        program = (await self.graphs.find(id)).program

        def encoded() -> bytes:
            forms = {"expression": print_program(program), "graph": write_graph(program, codec.tensors or "json")}
            return codec.encode(describe_program(program) | forms)

        return await self.in_thread(encoded)

    async def drawn(self, id: str, form: str) -> bytes:
        """A registered graph as a drawing, in one of DRAWINGS."""
        program = (await self.graphs.find(id)).program
        if form == "svg":
            return (await self.in_thread(partial(to_svg, program, self.settings.svg_parts))).encode()
        return (await self.in_thread(partial(FORMS[DRAWINGS[form]], program))).encode()

    def _parse(self, request: Request, clock: Clock, registered: Program | None) -> Question:
        with clock.stage("parse"):
            return question_of(request, self.settings.limits, registered or self._program(request))

    def _program(self, request: Request) -> Program | None:
        """The graph of a request, if it was read before; else it is read now, and kept. None where it has no one graph:
        whoever reads the request will say so."""
        key = _key_of(request)
        if key is None:
            return None
        limits = self.settings.limits
        return self.programs.of(key, lambda: program_of(request, limits), lambda program: program.nbytes)

    def _known(self, question: Question, clock: Clock) -> Planned | None:
        with clock.stage("compile"):
            planned = self.plans.get(question.signature)
        if planned is not None:
            clock.note("plan", "hit")
        return planned

    def _compile(self, question: Question, request: Request, clock: Clock) -> Planned:
        with clock.stage("compile"), pointing_into_graph(request, self.settings.limits):
            compiled = compile_question(question, self.settings.limits, clock).lasting()
        size = compiled.answer_bytes
        if size > self.settings.answer_bytes:
            raise over_limit("answer_bytes", self.settings.answer_bytes, size, "bytes of the answer's tensors")
        planned = Planned(compiled)
        self.plans.put(question.signature, planned, compiled.nbytes)
        return planned

    def _run(self, planned: Planned, question: Question, request: Request, clock: Clock, codec: Codec) -> bytes:
        compiled = planned.compiled
        with clock.stage("run"), pointing_into_graph(request, self.settings.limits):
            tensors = compiled.bind(question)
            results = compiled.run(tensors, clock, self._run_threads)
            notices = notices_of(compiled, tensors, results, clock)
        with clock.stage("encode"):
            encoding = codec.tensors or request.encoding
            answer: dict[str, Any] = map_tree(results, partial(write_tensor, encoding=encoding))
            answer["graph"] = codec.embed(planned.described(request, codec))
            if compiled.derivative and any(each.startswith(DERIVATIVE) for each in request.include):
                answer |= _derivative(compiled.derivative_program(question), request, encoding)
            return codec.encode(answer | warned(notices, request, self.settings.limits))

    def _check(self, question: Question, request: CheckRequest, clock: Clock, codec: Codec) -> bytes:
        limits = self.settings.limits
        with clock.stage("compile"), pointing_into_graph(request, self.settings.limits):
            described = compile_question(replace(question, call="grad", ones=True), limits, clock)
        with clock.stage("run"), pointing_into_graph(request, self.settings.limits):
            found = check(question, limits, clock)
        with clock.stage("encode"):
            notices = warned(found.pop("warnings", []), request, limits)
            return codec.encode(_plain(found) | notices | {"graph": _described(described, request)})

    def _inspect(self, request: InspectRequest, clock: Clock) -> tuple[Program, dict[str, Any]]:
        limits = self.settings.limits
        with clock.stage("parse"):
            question = inspection_of(request, limits)
        if question.program.inputs and request.inputs is None:
            return question.program, describe_program(question.program) | _texts(question.program, request.include)
        with clock.stage("compile"), pointing_into_graph(request, self.settings.limits):
            compiled = compile_question(question, limits, clock)
        return question.program, _described(compiled, request)


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

    What is sparse, or may turn out to be, takes time for each element as well, and so do tensors; and of functions it
    does not show how often they are called. These are no small thing whatever the graph.
    """
    if question.sparse or question.call in ("laplacian", "tensors") or question.program.functions:
        return sys.maxsize
    order = len(question.path) if question.path is not None else question.order
    sweeps = len(question.inputs) if question.call in ("jacobian", "hessian") else max(order, 1) ** 2
    return len(question.program.statements) * max(sweeps, 1)


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
