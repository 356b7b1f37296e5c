"""What is known of one request while it is on its way: its ids, its sizes, its times, and what became of it.

It goes along in the ASGI scope, under SEEN, and whoever learns something notes it there: who reads the body, the clock;
who answers with a problem, its code. In the end one line of the log and a few counts are made of it. Nothing of the
request's own values is ever kept here.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from itertools import count
from typing import Protocol

SEEN = "gradwire.seen"
"""Where it is in the scope."""
REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""Version, trace, parent and flags, as W3C has them; later versions may have more."""

Ops = tuple[tuple[str, int], ...]
"""How often each op is in a plan."""


class Times(Protocol):
    """A clock, as far as it is looked at here: what took how long and when it first began, in seconds,
    what was said beside it, what was run and on which road."""

    start: float
    stages: dict[str, float]
    begun: dict[str, float]
    notes: dict[str, str]
    ops: Ops
    road: int | None


class Seen:
    """One request. Its status is 0 until there is an answer; the span is that of its caller, or its own where traces
    are collected."""

    __slots__ = (
        "begun",
        "bytes_in",
        "bytes_out",
        "clock",
        "code",
        "id",
        "limit",
        "method",
        "route",
        "span_id",
        "stages",
        "status",
        "total",
        "trace_id",
    )

    def __init__(self, id: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.begun = time.perf_counter()
        self.id = id
        self.trace_id: str | None = None
        self.span_id: str | None = None
        self.bytes_in = self.bytes_out = 0
        self.status = 0
        self.code: str | None = None
        self.limit: str | None = None
        self.clock: Times | None = None
        for name, value in headers:
            if name == b"x-request-id":
                self._call(value)
            elif name == b"traceparent":
                self._trace(value)

    def _call(self, id: bytes) -> None:
        """Take the client's id, if it can stand in a header and a line of text."""
        if REQUEST_ID.fullmatch(id):
            self.id = id.decode("ascii")

    def _trace(self, parent: bytes) -> None:
        """Take the trace that the request is part of; what is malformed is as if it were not there."""
        found = TRACEPARENT.fullmatch(parent)
        if found is None:
            return
        version, trace, span, _, more = found.groups()
        if version != b"ff" and not (version == b"00" and more) and trace.strip(b"0") and span.strip(b"0"):
            self.trace_id, self.span_id = trace.decode("ascii"), span.decode("ascii")

    def fail(self, status: int, code: str, limit: str | None) -> None:
        """It ends in a problem."""
        self.status, self.code, self.limit = status, code, limit

    def end(self, route: str, method: str) -> None:
        """It is answered. What was before the clock ran is reading."""
        self.total = time.perf_counter() - self.begun
        self.route, self.method = route, method
        self.stages = {"read": self.clock.start - self.begun, **self.clock.stages} if self.clock else {}

    @property
    def ids(self) -> Mapping[str, str]:
        """What a line of the log says of the request that it belongs to."""
        return {"request_id": self.id} | ({"trace_id": self.trace_id} if self.trace_id else {})


class Ids:
    """New ids, 32 hexadecimal digits each: half of them are this process's own, half are counted."""

    def __init__(self) -> None:
        self._own = secrets.token_hex(8)
        self._next = count(1).__next__

    def __call__(self) -> str:
        return f"{self._own}{self._next():016x}"


current: ContextVar[Seen | None] = ContextVar("current", default=None)
"""The request that is being answered here, for what is logged on its way."""
