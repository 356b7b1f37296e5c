"""A registered graph as bytes: as it was posted, so that it is read again by what reads requests, and its answers are
those of the graph in full."""

from __future__ import annotations

from typing import Any

import msgspec

from app.services.questions import program_of
from app.stores import Record
from app.wire.codecs import JSON
from app.wire.models import GraphForm, RegisterRequest, Request
from engine.limits import Limits
from engine.program import Program

FORM = ("expression", "graph", "outputs")
"""Fields of a request that say what graph it is."""
MOST_VARIANTS = 8
"""Choices of outputs of one graph that are remembered."""


class Registered:
    """A registered graph at hand. `expression` is its text, if it was posted as one."""

    def __init__(self, program: Program, expression: str | None) -> None:
        self.program = program
        self.expression = expression
        self._variants: dict[tuple[str, ...], Program] = {}

    @classmethod
    def read(cls, source: bytes, limits: Limits) -> Registered:
        """The graph of a record's source."""
        form = GraphForm.model_construct(**_unpacked(source))
        return cls(program_of(form, limits), form.expression)

    def asked(self, request: Request, limits: Limits) -> Program:
        """The graph with the outputs that a request asks for: for the same ones the same object, by which plans are
        kept."""
        if request.outputs is None:
            return self.program
        outputs = tuple(request.outputs)
        if outputs not in self._variants:
            if len(self._variants) == MOST_VARIANTS:
                self._variants.clear()
            self._variants[outputs] = program_of(request, limits, self.program)
        return self._variants[outputs]


class Registration(msgspec.Struct, array_like=True, frozen=True):
    """A graph that is to be kept, and what is said of it."""

    id: str
    source: bytes
    description: bytes
    """What the list of graphs says of it, in JSON."""
    name: str | None
    redescribe: bool
    answer: bytes

    @classmethod
    def of(cls, request: RegisterRequest, program: Program, described: dict[str, Any], answer: bytes) -> Registration:
        form = {name: getattr(request, name) for name in FORM if getattr(request, name) is not None}
        lasting = {name: each for name, each in described.items() if name not in request.include}
        redescribe = request.inputs is not None
        return cls(program.digest, _packed(form), JSON.encode(lasting), request.name, redescribe, answer)

    @property
    def record(self) -> Record:
        return Record(self.id, self.source, self.description)


def _packed(form: dict[str, Any]) -> bytes:
    """A graph as it was posted. MessagePack takes bytes, but no integers beyond 64 bits; JSON the other way round."""
    try:
        return msgspec.msgpack.encode(form)
    except OverflowError:
        return msgspec.json.encode(form)


def _unpacked(source: bytes) -> dict[str, Any]:
    decode = msgspec.json.decode if source.startswith(b"{") else msgspec.msgpack.decode
    return dict(decode(source))
