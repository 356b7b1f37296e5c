"""JSON in, by msgspec: strict and exact.

It refuses NaN, overflowing floats and byte-order marks, and keeps large integers whole, so that one which does not fit
its dtype can be refused rather than rounded. Of equal names in one object it keeps the last without a word. That a name
was lost shows in the colons: written again, the value has as many as the text, or else the text is read once more by a
parser that tells.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from app.wire.forms import NEGATIVE_ZERO, UNBOUNDED, Malformed, Most, measured
from engine.errors import pointer_to


def decode(body: bytes, most: Most = UNBOUNDED) -> Any:
    """Python objects from JSON. Raises Malformed, and TooMuch where it holds more than `most`."""
    if len(body) > most.body_values:
        most.check("body_values", body.count(b",") + body.count(b"[") + body.count(b"{"))
    try:
        value = msgspec.json.decode(body)
        check_nesting(body, value, most)
        if _may_repeat_names(body, value):
            _refuse_repeated_names(body)
        return value if NEGATIVE_ZERO.search(body) is None else json.loads(body, parse_int=_signed)
    except RecursionError:
        raise Malformed("lists and objects are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8 at byte {error.start}") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Malformed(str(error)) from None


def check_nesting(body: bytes, value: Any, most: Most) -> None:
    """Raises TooMuch where a value is nested too deeply; where few brackets are opened, there is nothing to measure."""
    if body.count(b"[") + body.count(b"{") > most.json_nesting:
        most.check("json_nesting", measured(value, most.json_nesting).depth)


def _may_repeat_names(body: bytes, value: Any) -> bool:
    """Whether a name was lost. Exact, but for colons that the text has as escapes: these count as a sign, too."""
    if b"\\" in body and b"\\u003" in body:
        return True
    return msgspec.json.encode(value).count(b":") != body.count(b":")


class _Repeated:
    """What stands for an object in which a name is repeated."""

    def __init__(self, name: str) -> None:
        self.name = name


def _refuse_repeated_names(body: bytes) -> None:
    """Raises Malformed where an object has a name twice; of several, at the one nearest to the root."""
    level: list[tuple[tuple[str | int, ...], Any]] = [((), json.loads(body, object_pairs_hook=_object))]
    while level:
        inner = []
        for path, each in level:
            if isinstance(each, _Repeated):
                pointer = pointer_to(*path, each.name)
                raise Malformed(f"the name {each.name[:64]!r} stands twice in one object", pointer)
            if isinstance(each, dict | list):
                parts = each.items() if isinstance(each, dict) else enumerate(each)
                inner += [((*path, step), part) for step, part in parts if isinstance(part, dict | list | _Repeated)]
        level = inner


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Repeated:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    return _Repeated(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]


def _signed(digits: str) -> int | float:
    return -0.0 if digits == "-0" else int(digits)
