"""Attributes of ops: what a value may be, read once from JSON or expression text into a canonical, hashable form.

A kind is a reader with its JSON schema. The schema is what `GET /ops` shows; the reader is what holds requests to it.
What depends on operand shapes (a negative axis) is settled later, by the op.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidGraph
from engine.types import DTYPES

REQUIRED: Any = object()
"""The default of an attribute that has none."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


@dataclass(frozen=True)
class Attr:
    """One attribute: how it is read, what it means, and its value when absent."""

    read: Callable[[Any], Hashable]
    schema: dict[str, Any]
    doc: str
    default: Any = REQUIRED

    names_function: bool = False
    """Whether its value is the name of a function of the graph."""

    @property
    def required(self) -> bool:
        return self.default is REQUIRED


def _wrong(value: Any, expected: str) -> InvalidGraph:
    return InvalidGraph(f"expected {expected}, got {shown(value)}")


def shown(value: Any) -> str:
    """A value in a message: briefly, and without walking into it."""
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else "null" if value is None else repr(value)[:60]


def read_integer(value: Any) -> int:
    """A whole number that fits int64; 2.0 counts, because a JSON client may not tell it from 2."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not INT64_MIN <= value <= INT64_MAX:
        raise _wrong(value, "an integer")
    return value


def read_real(value: Any) -> float:
    """A number, or one of the three strings of non-finite numbers."""
    if isinstance(value, str) and value in NON_FINITE:
        return NON_FINITE[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, "a number")
    try:
        return float(value)
    except OverflowError:
        raise _wrong(value, "a number that fits float64") from None


NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How numbers that JSON lacks are written, in and out."""


def read_boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "a string")
    return value


def read_integers(value: Any) -> tuple[int, ...]:
    """A list of integers; a bare one stands for a list of one."""
    if isinstance(value, list | tuple):
        return tuple(read_integer(each) for each in value)
    return (read_integer(value),)


def read_sizes(value: Any) -> tuple[int, ...]:
    """A shape: integers of 0 to 2³¹ − 1."""
    sizes = read_integers(value)
    if any(not 0 <= size < 2**31 for size in sizes):
        raise _wrong(value, "sizes from 0 to 2147483647")
    return sizes


def read_dtype(value: Any) -> str:
    if not isinstance(value, str) or value not in DTYPES:
        raise _wrong(value, "a dtype: " + ", ".join(DTYPES))
    return value


def _read_pairs(value: Any) -> Hashable:
    """An integer, a list of integers, or a list of lists of them, as tuples: pad_width, the axes of tensordot."""
    if not isinstance(value, list | tuple):
        return read_integer(value)
    return tuple(read_integers(each) if isinstance(each, list | tuple) else read_integer(each) for each in value)


INTEGER = {"type": "integer"}
INTEGERS = {"type": "array", "items": INTEGER}
ONE_OR_MORE = {"oneOf": [INTEGER, INTEGERS]}


def integer(doc: str, default: Any = REQUIRED) -> Attr:
    return optional(Attr(read_integer, INTEGER, doc, default))


def real(doc: str, default: Any = REQUIRED) -> Attr:
    schema = {"oneOf": [{"type": "number"}, {"enum": list(NON_FINITE)}]}
    return optional(Attr(read_real, schema, doc, default))


def boolean(doc: str, default: Any = REQUIRED) -> Attr:
    return Attr(read_boolean, {"type": "boolean"}, doc, default)


def text(doc: str, default: Any = REQUIRED) -> Attr:
    return Attr(read_text, {"type": "string"}, doc, default)


def integers(doc: str, default: Any = REQUIRED) -> Attr:
    return optional(Attr(read_integers, ONE_OR_MORE, doc, default))


def shape(doc: str = "Sizes of the axes of the result.", default: Any = REQUIRED) -> Attr:
    return Attr(read_sizes, ONE_OR_MORE, doc, default)


def dtype(doc: str = "Dtype of the result.", default: Any = REQUIRED) -> Attr:
    return optional(Attr(read_dtype, {"enum": list(DTYPES)}, doc, default))


class SubGraph:
    """A graph as the value of an attribute: what a function's name becomes when the graph is built."""

    inputs: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()


def function(doc: str) -> Attr:
    """A function of the graph, by name."""
    return Attr(_read_function, {"type": "string"}, doc, names_function=True)


def _read_function(value: Any) -> Hashable:
    if isinstance(value, SubGraph):
        return value
    if not isinstance(value, str):
        raise _wrong(value, "the name of a function of the graph")
    return value


def nested_integers(doc: str, default: Any = REQUIRED) -> Attr:
    schema = {"oneOf": [INTEGER, INTEGERS, {"type": "array", "items": INTEGERS}]}
    return Attr(_read_pairs, schema, doc, default)


def choice(doc: str, options: tuple[str, ...], default: Any = REQUIRED) -> Attr:
    """One out of a few strings."""

    def read(value: Any) -> str:
        if value not in options:
            raise _wrong(value, "one of " + ", ".join(options))
        return str(value)

    return Attr(read, {"enum": list(options)}, doc, default)


def axis(doc: str = "The axis; negative ones count from the end.", default: Any = REQUIRED) -> Attr:
    return optional(Attr(read_integer, INTEGER, doc, default))


def axes(doc: str = "The axis or axes; all of them when absent.", default: Any = None) -> Attr:
    """One axis, a list of axes, or null for all."""

    def read(value: Any) -> int | tuple[int, ...]:
        return read_integers(value) if isinstance(value, list | tuple) else read_integer(value)

    return optional(Attr(read, ONE_OR_MORE, doc, default))


def optional(attr: Attr) -> Attr:
    """`attr` that also takes null when null is its default."""
    if attr.default is not None:
        return attr

    def read(value: Any) -> Hashable:
        return None if value is None else attr.read(value)

    return Attr(read, {"oneOf": [attr.schema, {"type": "null"}]}, attr.doc, None)


def index(doc: str) -> Attr:
    """A basic index: a list with, for each axis, an integer, [start, stop], [start, stop, step], "..." or null."""
    part = {"oneOf": [INTEGER, {"type": "null"}]}
    item = {
        "oneOf": [
            INTEGER,
            {"type": "array", "items": part, "maxItems": 3},
            {"const": "..."},
            {"type": "null"},
        ]
    }
    return Attr(_read_index, {"type": "array", "items": item}, doc)


def _read_index(value: Any) -> Hashable:
    if not isinstance(value, list | tuple):
        raise _wrong(value, "a list of indices")
    return tuple(_read_index_item(item) for item in value)


def _read_index_item(item: Any) -> Hashable:
    if item is None or item == "...":
        return None if item is None else "..."
    if not isinstance(item, list | tuple):
        return read_integer(item)
    if len(item) > 3:
        raise _wrong(item, "[start, stop, step]")
    parts = [None if each is None else read_integer(each) for each in item]
    parts += [None] * (3 - len(parts))
    start, stop, step = parts
    if step == 0:
        raise _wrong(item, "a step other than 0")
    return (start, stop, step)
