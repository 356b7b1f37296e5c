"""The log: one line an event, as JSON or as text for eyes, on standard error.

Whoever logs puts a few fields into a queue, and a thread makes lines of what has come together and writes them: a
reader that has stopped reading must not stop the service. Of a full queue the newest are dropped, and counted. Lines
of Python's own `logging`, uvicorn's among them, go the same way in the same form; they are few, and waited for, so that
what is said last before a process ends is not lost.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from app.seen import current

Fields = Mapping[str, Any]
MOST_LINES = 10_000
"""Lines that wait to be written."""
TOGETHER_SECONDS = 0.02
"""How long a line waits for others, to be written with them."""
PATIENCE_SECONDS = 0.2
"""How long one waits for the lines of `logging` to be written."""
LEVELS = ("debug", "info", "warning", "error", "critical")
APART = frozenset({"time", "level", "message", "exception"})
"""Fields that have their own place in a line of text."""


def as_json(fields: Fields) -> bytes:
    try:
        return orjson.dumps(fields, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE, default=str)
    except TypeError:  # half a character, which is no UTF-8
        return json.dumps(fields, default=str).encode() + b"\n"


def as_text(fields: Fields) -> bytes:
    """Time, level, message, and the rest as name=value; a traceback comes last, in lines of its own."""
    more = [f"{name}={value}" for name, value in fields.items() if name not in APART]
    line = escaped(f"{fields['time'].isoformat()[:19]}Z {fields['level']:<7} {fields['message']} {' '.join(more)}")
    trace = f"\n{fields['exception']}" if "exception" in fields else ""
    return f"{line}{trace}\n".encode(errors="backslashreplace")


def escaped(text: str) -> str:
    """A text in one line: nobody writes lines of the log by what they send."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


FORMS: dict[str, Callable[[Fields], bytes]] = {"json": as_json, "text": as_text}


class Log:
    """Lines on their way to a file descriptor."""

    def __init__(self, form: str = "json", level: str = "info", descriptor: int = 2) -> None:
        self.dropped = 0
        self._form = FORMS[form]
        self._said = frozenset(LEVELS[LEVELS.index(level) :])
        self._descriptor = descriptor
        self._waiting: deque[Fields | threading.Event] = deque()
        self._woken, self._hurried = threading.Event(), threading.Event()
        threading.Thread(target=self._write_all, name="log", daemon=True).start()

    def says(self, level: str) -> bool:
        """Whether what is this severe is logged."""
        return level in self._said

    def put(self, fields: Fields) -> None:
        """Log a line, without waiting for it."""
        if len(self._waiting) >= MOST_LINES:
            self.dropped += 1
            return
        self._waiting.append(fields)
        if not self._woken.is_set():
            self._woken.set()

    def flush(self) -> None:
        """Wait until what was logged before is written, but not for long."""
        done = threading.Event()
        self._waiting.append(done)
        self._hurried.set()
        self._woken.set()
        done.wait(PATIENCE_SECONDS)

    def _write_all(self) -> None:
        while True:
            self._woken.wait()
            self._hurried.wait(TOGETHER_SECONDS)
            self._hurried.clear()
            self._woken.clear()
            self._write(*self._taken())

    def _taken(self) -> tuple[bytes, list[threading.Event]]:
        lines, awaited = [], []
        while self._waiting:
            found = self._waiting.popleft()
            if isinstance(found, threading.Event):
                awaited.append(found)
            else:
                lines.append(self._form(found))
        return b"".join(lines), awaited

    def _write(self, text: bytes, awaited: list[threading.Event]) -> None:
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:  # nobody reads any more, or the disk is full: that is no reason to stop serving
            self.dropped += text.count(b"\n")
        for each in awaited:
            each.set()


class Records(logging.Handler):
    """Puts the records of `logging` into the log, with the ids of the request on whose way they were made."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        seen = current.get()
        if seen is not None:
            fields |= seen.ids
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        self._log.put(fields)
        self._log.flush()


def install(form: str, level: str) -> Log:
    """The log of this process; all that Python logs goes there from now on."""
    log = Log(form, level)
    root = logging.getLogger()
    root.handlers = [Records(log)]
    root.setLevel(level.upper())
    return log
