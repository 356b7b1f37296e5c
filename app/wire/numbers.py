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

from app.wire.forms import NEGATIVE_ZERO
from engine.types import FLOAT64, Array

LEAST_NUMBERS = 64
"""Shorter lists are left to the strict reader's ways."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DIRECT = (None, "float64", "float32")
"""Dtypes for which numbers may be read as float64 first."""

_parsers = threading.local()


class Unusual(Exception):
    """Something that the strict reader should see."""


def decode(body: bytes, tensors: Collection[str]) -> Any:
    """Python objects from JSON, with arrays for the numbers of what stands in the top-level fields `tensors`.

    Raises Unusual for whatever is not plainly right.
    """
    if body.startswith(BYTE_ORDER_MARK):
        raise Unusual
    parser = _parsers.__dict__.pop("own", None) or simdjson.Parser()
    try:
        document = parser.parse(body)
        if not isinstance(document, simdjson.Object):
            raise Unusual
        reader = _Reader()
        found = {name: _field(reader, name, each, tensors) for name, each in _items(reader, document)}
    except (ValueError, RuntimeError, TypeError, KeyError, RecursionError) as error:
        raise Unusual from error
    _parsers.own = parser  # whose memory serves again; after a fault something may still refer to it
    if reader.brackets != body.count(b"[") or (reader.has_zero and NEGATIVE_ZERO.search(body)):
        raise Unusual
    return found


class _Reader:
    """What is to be compared with the text in the end: how many lists were opened, and whether a number was 0.

    Of -0 simdjson makes the integer 0.
    """

    def __init__(self) -> None:
        self.brackets = 0
        self.has_zero = False


def _field(reader: _Reader, name: str, value: Any, tensors: Collection[str]) -> Any:
    if name not in tensors or not isinstance(value, simdjson.Object):
        return _plain(reader, value)
    return {key: _tensor(reader, each) for key, each in _items(reader, value)}


def _tensor(reader: _Reader, value: Any) -> Any:
    if isinstance(value, simdjson.Array):
        return _numbers(reader, value)
    if not isinstance(value, simdjson.Object):
        return _plain(reader, value)
    fields = _items(reader, value)
    is_direct = dict(fields).get("dtype") in DIRECT
    return {
        name: (_numbers if name == "data" and is_direct and isinstance(each, simdjson.Array) else _plain)(reader, each)
        for name, each in fields
    }


def _items(reader: _Reader, value: Any) -> list[tuple[str, Any]]:
    items = list(value.items())
    if len(dict(items)) < len(items):
        raise Unusual
    reader.brackets += sum(name.count("[") for name, _ in items)
    return items


def _plain(reader: _Reader, value: Any) -> Any:
    """Python's own types, and the brackets that they were written with."""
    if isinstance(value, simdjson.Object):
        return {name: _plain(reader, each) for name, each in _items(reader, value)}
    if isinstance(value, simdjson.Array):
        reader.brackets += 1
        return [_plain(reader, each) for each in value]
    if isinstance(value, str):
        reader.brackets += value.count("[")
    return value


def _numbers(reader: _Reader, rows: Any) -> Array | list[Any]:
    """A regular list of numbers as float64; anything else as it stands."""
    shape = _shape(rows)
    if math.prod(shape) < LEAST_NUMBERS:
        found: list[Any] = _plain(reader, rows)
        return found
    _check_rows(rows, shape)
    try:
        numbers = np.frombuffer(rows.as_buffer(of_type="d"), FLOAT64)
    except TypeError:  # booleans, or the strings of non-finite numbers
        found = _plain(reader, rows)
        return found
    if numbers.size != math.prod(shape):
        raise Unusual
    reader.has_zero = reader.has_zero or not numbers.all()
    reader.brackets += sum(math.prod(shape[:depth]) for depth in range(len(shape)))
    return numbers.reshape(shape)


def _shape(rows: Any) -> tuple[int, ...]:
    shape = []
    while isinstance(rows, simdjson.Array):
        shape.append(len(rows))
        if not shape[-1]:
            break
        rows = rows[0]
    return tuple(shape)


def _check_rows(rows: Any, shape: tuple[int, ...]) -> None:
    """Raises Unusual where lists within the list differ in length."""
    level = [rows]
    for size in shape[1:]:
        level = [inner for each in level for inner in each]
        if any(not isinstance(each, simdjson.Array) or len(each) != size for each in level):
            raise Unusual
