"""JSON in and out, strict and exact.

msgspec reads: it refuses NaN, overflowing floats and byte-order marks, and keeps large integers whole, so that one
which does not fit its dtype can be refused rather than rounded. orjson writes: NumPy arrays without a detour, each
float in the shortest form that reads back as the same bits.
"""

from __future__ import annotations

import json as slow_json
import re
from typing import Any

import msgspec
import orjson

MEDIA_TYPE = "application/json"


NEGATIVE_ZERO = re.compile(rb"-0(?![0-9.eE])")
"""How Go and some others write -0.0; to msgspec, as to Python, it is the integer 0."""


class MalformedJson(ValueError):
    """Bytes that are not JSON in UTF-8; the message says where."""


def decode(body: bytes) -> Any:
    """Python objects from JSON. Raises MalformedJson."""
    try:
        value = msgspec.json.decode(body)
        return value if NEGATIVE_ZERO.search(body) is None else slow_json.loads(body, parse_int=_signed)
    except RecursionError:
        raise MalformedJson("lists and objects are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise MalformedJson(f"the body is not UTF-8 at byte {error.start}") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise MalformedJson(str(error)) from None


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
