"""JSON in and out, strict and exact.

Of large bodies app.wire.numbers reads what is plainly right, and leaves the rest to app.wire.strict. orjson writes:
NumPy arrays without a detour, each float in the shortest form that reads back as the same bits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from app.wire import numbers, strict
from app.wire.forms import UNBOUNDED, Most

MEDIA_TYPE = "application/json"
LARGE = 1 << 15
"""Bytes from which reading numbers into arrays pays."""


def decode(body: bytes, tensors: Collection[str] = (), most: Most = UNBOUNDED) -> Any:
    """Python objects from JSON, with arrays for long lists of numbers in the fields `tensors`.

    Raises Malformed, and TooMuch where it holds more than `most`.
    """
    if not tensors or len(body) < LARGE:
        return strict.decode(body, most)
    try:
        value = numbers.decode(body, tensors, most)
    except numbers.Unusual:
        return strict.decode(body, most)
    strict.check_nesting(body, value, most)
    return value


def encode(value: Any) -> bytes:
    """JSON from Python objects and NumPy arrays. NaN and infinities must be strings already."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
