"""JSON in and out, strict and exact.

msgspec reads: it refuses NaN, overflowing floats and byte-order marks, and keeps large integers whole, so that one
which does not fit its dtype can be refused rather than rounded. Of large bodies app.wire.numbers reads what is plainly
right, and leaves the rest to it. orjson writes: NumPy arrays without a detour, each float in the shortest form that
reads back as the same bits.
"""

from __future__ import annotations

import json as slow_json
from collections.abc import Collection
from typing import Any

import msgspec
import orjson

from app.wire import numbers
from app.wire.forms import NEGATIVE_ZERO, Malformed

MEDIA_TYPE = "application/json"
LARGE = 1 << 15
"""Bytes from which reading numbers into arrays pays."""


def decode(body: bytes, tensors: Collection[str] = ()) -> Any:
    """Python objects from JSON, with arrays for long lists of numbers in the fields `tensors`. Raises Malformed."""
    if tensors and len(body) >= LARGE:
        try:
            return numbers.decode(body, tensors)
        except numbers.Unusual:
            pass
    return _decode_strictly(body)


def _decode_strictly(body: bytes) -> Any:
    try:
        value = msgspec.json.decode(body)
        return value if NEGATIVE_ZERO.search(body) is None else slow_json.loads(body, parse_int=_signed)
    except RecursionError:
        raise Malformed("lists and objects are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8 at byte {error.start}") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Malformed(str(error)) from None


def _signed(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)


def encode(value: Any) -> bytes:
    """JSON from Python objects and NumPy arrays. NaN and infinities must be strings already."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def nesting(value: Any, most: int) -> int:
    """How deeply lists and objects stand in one another, counted up to `most` + 1; tensors' rows count, too."""
    depth, level = 0, [value]
    while level and depth <= most:
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list) and not _is_flat(each):
                inner.extend(each)
        containers = any(isinstance(each, dict | list) for each in level)
        depth, level = depth + containers, inner
    return depth


def _is_flat(row: list[Any]) -> bool:
    return not {list, dict} & set(map(type, row))
