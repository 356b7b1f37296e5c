"""One connection: uvicorn's protocol, with an end to its patience, and problems for what is no HTTP.

uvicorn waits for ever for a request that was begun, and for a client that takes no more of its answer. So a clock runs
while a head or a body is on its way; for a request that came whole, which is nearly all of them, none is started. What
the parser refuses, and what is too long before it can be parsed, is answered as anything else: with problem details.

Connections without a request wait for one, the oldest first. Past the bound on connections the oldest makes room for
one more, and requests on those beyond are answered that the service is full; probes are not.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.http.problems import respond
from app.http.routers.health import PROBES
from app.http.watching import Watching
from app.problems import Problem, over_for_now, over_limit, past
from app.services.memory import Share
from app.settings import Settings

HEAD_SLACK = 4 << 10
"""What a head may have beside its URL and headers: the method, colons, line ends."""
LINGER_SECONDS = 1.0
"""So long what still comes after a refusal is taken and thrown away: closing at once would reset the connection, and
the client might never see why."""
SPARE_CONNECTIONS = 32
"""Connections over the bound that are still listened to, as one of them may be a probe."""


BODY_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


class Phase(Enum):
    """What of a request is on its way. The value is the setting that bounds its time."""

    HEAD = "header_seconds"
    BODY = "body_seconds"


WHAT = {Phase.HEAD: "seconds until the headers had come", Phase.BODY: "seconds until the body had come"}


class Protocol(HttpToolsProtocol):
    """A connection. Settings come with the application's state, out of its lifespan."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings: Settings = self.app_state["settings"]
        self.watching: Watching = self.app_state["watching"]
        self.waiting: dict[Protocol, None] = self.app_state.setdefault("waiting", {})
        self.phase: Phase | None = None
        self.timed: Phase | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.stall: asyncio.TimerHandle | None = None
        self.unread = Share(self.app_state["memory"])
        self.since = 0.0
        self.head_bytes = self.framing_bytes = 0
        self.is_refused = False
        self.url = b""

    # The life of a connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.waiting[self] = None
        self._watch()
        if len(self.connections) > self.settings.connections + SPARE_CONNECTIONS:
            next(iter(self.waiting)).transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        for timer in (self.timer, self.stall):
            if timer is not None:
                timer.cancel()
        self.unread.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.is_refused:
            return
        self._unset_keepalive_if_required()
        if self.phase is Phase.BODY:
            self.framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.is_refused = True  # nothing is spoken here but HTTP/1.1, and the parser stopped at another's beginning
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            reason = error.__context__ or error  # a fault of our own callbacks is wrapped
            self._refuse(Problem("invalid_request", f"this is no HTTP request: {str(reason)[:200]}", status=400))
            return
        if self.phase is not None:
            self._check_size(len(data))
        self._watch()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if len(self.connections) > self.settings.connections and cycle.scope["path"] not in PROBES:
            cycle.keep_alive = False
            app = partial(self.watching.watch, partial(_full, len(self.connections), self.settings.connections))
        elif self.parser.should_upgrade() and BODY_HEADERS & {name for name, _ in self.headers}:
            app = partial(self.watching.watch, _no_upgrade)
        super()._start_asgi_task(cycle, app)

    # What the parser sees

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.phase, self.head_bytes = Phase.HEAD, 0
        if self.timer is not None:
            self._rest()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.phase is Phase.HEAD:  # what comes after the body has no say in the request
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.waiting.pop(self, None)
        self.phase, self.framing_bytes = Phase.BODY, 0

    def on_body(self, body: bytes) -> None:
        self.framing_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self.phase = None
        if self.cycle.response_complete and not self.is_refused:
            self._keep_alive()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.waiting[self] = None
        if self.phase is not None:  # the answer came before the request's end, or the next one began
            self._unset_keepalive_if_required()

    def _keep_alive(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    # Bounds

    def _check_size(self, size: int) -> None:
        """Refuse what has no end: a head, and what stands between the pieces of a chunked body."""
        own = self.settings
        if self.phase is Phase.BODY:
            if self.framing_bytes > own.framing_bytes:
                what = "bytes of the body that are not its content"
                self._refuse(over_limit("framing_bytes", own.framing_bytes, self.framing_bytes, what, 413))
            return
        self.head_bytes += size
        if len(self.url) > own.url_bytes:
            self._refuse(over_limit("url_bytes", own.url_bytes, len(self.url), "bytes of the URL", 414))
        elif self.head_bytes > own.url_bytes + own.header_bytes + HEAD_SLACK:
            self._refuse(over_limit("header_bytes", own.header_bytes, self.head_bytes, "bytes of the headers", 431))

    def _watch(self) -> None:
        """Let the clock run that is due: none while a whole request is answered, or a connection is kept alive."""
        due = self.phase
        if due is None and self.timeout_keep_alive_task is None and not self._is_answering():
            due = Phase.HEAD
        if due is not self.timed:
            self._rest()
            if due is not None and not self.transport.is_closing():
                self._start(due)

    def _start(self, phase: Phase) -> None:
        self.timed, self.since = phase, self.loop.time()
        self.timer = self.loop.call_later(getattr(self.settings, phase.value), self._late)

    def _rest(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.timed = None

    def _late(self) -> None:
        phase, self.timer, self.timed = self.timed, None, None
        if phase is None or self.is_refused or self.transport.is_closing():
            return
        if phase is Phase.BODY and (self.flow.read_paused or self.cycle.waiting_for_100_continue):
            self._start(phase)  # it is we who are late
            return
        if self.phase is None:  # not a byte of a request came
            self.transport.close()
            return
        most = getattr(self.settings, phase.value)
        self._refuse(over_limit(phase.value, most, past(most, self.loop.time() - self.since), WHAT[phase], 408))

    # Refusals

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _refuse(self, problem: Problem) -> None:
        """Say what is wrong, where an answer may still be given, and be done with the connection."""
        self._rest()
        self._unset_keepalive_if_required()
        self.is_refused = True
        if self.pipeline:
            self.transport.close()
        elif self.phase is not Phase.BODY and self._is_answering():
            self.cycle.keep_alive = False  # the request before this one is answered yet, and then it ends
        else:
            self._give_up(self._seen(problem))

    def _seen(self, problem: Problem) -> Response:
        """The response of a problem, which no application will see."""
        path = self.url.partition(b"?")[0]
        response = respond(problem, path.decode("ascii", "replace")[:200])
        scope: Any = self.cycle.scope if self._is_answering() else None
        response.headers["X-Request-ID"] = self.watching.refuse(problem, path, scope)
        return response

    def _give_up(self, response: Response) -> None:
        """Send a last answer, unless one was begun, and listen no more."""
        is_first = self.phase is not Phase.BODY
        if self._is_answering():
            is_first = not self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if is_first:
            self.transport.write(_raw(response))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    # Clients that do not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread.hold(self.transport.get_write_buffer_size())
        self._wait_for_reader()

    def resume_writing(self) -> None:
        if self.stall is not None:
            self.stall.cancel()
            self.stall = None
        self.unread.close()
        super().resume_writing()

    def _wait_for_reader(self) -> None:
        self.stall = self.loop.call_later(self.settings.body_seconds, self._drop_if_stalled, self._untaken())

    def _untaken(self) -> int:
        """Bytes of the answer that the client has not acknowledged: ours, and those that the system holds (tcp(7))."""
        waiting = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return self.transport.get_write_buffer_size() + int.from_bytes(waiting, sys.byteorder)

    def _drop_if_stalled(self, before: int) -> None:
        """Drop a connection over which next to nothing of the answer went in all that time."""
        if self.transport.is_closing():
            self.transport.abort()
        elif before - self._untaken() >= max(1, self.settings.answer_pace * self.settings.body_seconds):
            self._wait_for_reader()
        else:
            self.transport.abort()


def _raw(response: Response) -> bytes:
    """A response as it goes over the wire, on a connection that ends with it."""
    phrase = HTTPStatus(response.status_code).phrase
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [b"HTTP/1.1 %d %s" % (response.status_code, phrase.encode()), *(b"%s: %s" % each for each in headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])


async def _full(count: int, most: int, scope: Scope, receive: Receive, send: Send) -> None:
    problem = over_for_now("overloaded", "connections", most, count, "too many connections are open")
    await respond(problem, scope["path"])(scope, receive, send)


async def _no_upgrade(scope: Scope, receive: Receive, send: Send) -> None:
    """The parser stops where another protocol would begin, and so before the body."""
    problem = Problem("invalid_request", "HTTP/1.1 is spoken here; send the body without Upgrade", status=400)
    await respond(problem, scope["path"])(scope, receive, send)
