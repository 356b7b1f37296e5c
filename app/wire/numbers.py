"""Large JSON bodies: numbers straight into arrays, by simdjson, three times as fast as by way of Python's lists.

simdjson is laxer than we are: it takes the first of two equal keys, and flattens ragged lists without a word. So this
road is left for the strict one at the first sign of anything unusual, which then says what is wrong. What tells that
all lists were as regular as they seemed is the number of their opening brackets.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection
from typing import Any

import numpy as np
import simdjson

from app.wire import strict
from app.wire.forms import NEGATIVE_ZERO, UNBOUNDED, Most
from engine.types import FLOAT64, Array

LEAST_NUMBERS = 64
"""Shorter lists are left to the strict reader's ways."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DIRECT = (None, "float64", "float32")
"""Dtypes for which numbers may be read as float64 first."""
KEPT_BYTES = 8 << 20
"""A parser that read more than this is let go: it holds some nine times as much memory."""

LEAST_BYTES_PER_STRING = 100
"""Where there are more strings than one in so many bytes, the strict reader is the quicker one."""
MOST_NAMES = 200
"""simdjson looks for each name from an object's beginning."""
SATURATED = 0xFFFFFF
"""simdjson counts the items of a list up to this many."""

_parsers = threading.local()


class Unusual(Exception):
    """Something that the strict reader should see."""


def decode(body: bytes, tensors: Collection[str], most: Most = UNBOUNDED) -> Any:
    """Python objects from JSON, with arrays for the numbers of what stands in the top-level fields `tensors`.

    Raises Unusual for whatever is not plainly right, and TooMuch where more than `most` allows stands elsewhere.
    """
    if body.startswith(BYTE_ORDER_MARK) or body.count(b'"') * LEAST_BYTES_PER_STRING > 2 * len(body):
        raise Unusual
    most.check("body_values", body.count(b"[") + body.count(b"{"))  # all are counted one by one, and cost memory
    parser = _parsers.__dict__.pop("own", None) or simdjson.Parser()
    try:
        document = parser.parse(body)
        if not isinstance(document, simdjson.Object):
            raise Unusual
        reader = _Reader(most)
        found = {name: _field(reader, document[name], name in tensors) for name in _names(reader, document)}
    except (ValueError, RuntimeError, TypeError, KeyError, RecursionError) as error:
        raise Unusual from error
    if len(body) <= KEPT_BYTES:
        _parsers.own = parser  # whose memory serves again; after a fault something may still refer to it
    if reader.brackets != body.count(b"[") or (reader.has_zero and NEGATIVE_ZERO.search(body)):
        raise Unusual
    return found


class _Reader:
    """What is to be compared with the text in the end: how many lists were opened, and whether a number was 0.

    Of -0 simdjson makes the integer 0. Lists are counted as they are met, because each takes many times the memory of
    its text.
    """

    def __init__(self, most: Most) -> None:
        self.most = most
        self.brackets = self.rows = 0
        self.has_zero = False

    def count(self, rows: int) -> None:
        self.rows += rows
        self.most.check("body_values", self.rows)


def _field(reader: _Reader, value: Any, has_tensors: bool) -> Any:
    if not has_tensors or not isinstance(value, simdjson.Object):
        return _plain(reader, value)
    return {name: _tensor(reader, value[name]) for name in _names(reader, value)}


def _tensor(reader: _Reader, value: Any) -> Any:
    if isinstance(value, simdjson.Array):
        return _numbers(reader, value)
    if not isinstance(value, simdjson.Object):
        return _plain(reader, value)
    is_direct = value.get("dtype") in DIRECT
    return {
        name: (_numbers if name == "data" and is_direct else _plain)(reader, value[name])
        for name in _names(reader, value)
    }


def _names(reader: _Reader, value: Any) -> list[str]:
    """The names of an object that has each of them once, and not so many that finding each takes long."""
    names = list(value.keys()) if len(value) <= MOST_NAMES else []
    if len(set(names)) < len(value):
        raise Unusual
    reader.brackets += sum(name.count("[") for name in names)
    return names


def _plain(reader: _Reader, value: Any) -> Any:
    """What holds no tensor, from text again, by the strict reader; and the brackets that it was written with.

    simdjson's own way to Python's lists writes beyond their ends from 2²⁴ items on, and drops equal names.
    """
    if not isinstance(value, simdjson.Object | simdjson.Array):
        reader.brackets += value.count("[") if isinstance(value, str) else 0
        reader.has_zero = reader.has_zero or value == 0
        return value
    text: Any = value.mini  # bytes, whatever its stub says
    reader.brackets += text.count(b"[")
    reader.has_zero = reader.has_zero or b"0" in text
    return strict.decode(text, reader.most)


def _numbers(reader: _Reader, rows: Any) -> Array | Any:
    """A regular list of numbers as float64; anything else as it stands."""
    shape = _shape(rows)
    if not shape or math.prod(shape) < LEAST_NUMBERS:
        return _plain(reader, rows)
    _check_rows(reader, rows, shape)
    try:
        numbers = np.frombuffer(rows.as_buffer(of_type="d"), FLOAT64)
    except TypeError:  # booleans, or the strings of non-finite numbers
        return _plain(reader, rows)
    if numbers.size != math.prod(shape):
        raise Unusual
    reader.has_zero = reader.has_zero or not numbers.all()
    reader.brackets += sum(math.prod(shape[:depth]) for depth in range(len(shape)))
    return numbers.reshape(shape)


def _shape(rows: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(rows, simdjson.Array):
        shape.append(len(rows))
        if shape[-1] >= SATURATED:
            raise Unusual
        if not shape[-1]:
            break
        rows = rows[0]
    return tuple(shape)


def _check_rows(reader: _Reader, rows: Any, shape: tuple[int, ...]) -> None:
    """Raises Unusual where lists within the list differ in length."""
    level = [rows]
    for depth, size in enumerate(shape[1:], 1):
        reader.count(math.prod(shape[:depth]))
        level = [inner for each in level for inner in each]
        if any(not isinstance(each, simdjson.Array) or len(each) != size for each in level):
            raise Unusual
