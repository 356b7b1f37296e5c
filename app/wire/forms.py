"""What the forms of a body have in common: what may be wrong with bytes, and how values are measured."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

NEGATIVE_ZERO = re.compile(rb"-0(?![0-9.eE])")
"""How Go and some others write -0.0 in JSON; to most readers, as to Python, it is the integer 0."""
ENDLESS = 1 << 62


class Malformed(ValueError):
    """Bytes that are not of their form; the message says where, and `pointer` too where the place has one."""

    def __init__(self, message: str, pointer: str | None = None) -> None:
        super().__init__(message)
        self.pointer = pointer


class TooMuch(Exception):
    """A body over one of its limits."""

    def __init__(self, name: str, most: int, actual: int) -> None:
        super().__init__(name)
        self.name, self.most, self.actual = name, most, actual


class Most(NamedTuple):
    """How much a body may hold. `json_nesting` and `body_values` are settings of these names."""

    json_nesting: int = ENDLESS
    body_values: int = ENDLESS

    def check(self, name: str, actual: int) -> None:
        """Raises TooMuch where `actual` is over the limit `name`."""
        if actual > getattr(self, name):
            raise TooMuch(name, getattr(self, name), actual)


UNBOUNDED = Most()


class Measure(NamedTuple):
    """How deeply lists and objects stand in one another, and how many names the objects have together."""

    depth: int
    names: int


def measured(value: Any, most_depth: int) -> Measure:
    """The measure of a decoded value, given up below `most_depth` + 1. Raises Malformed where a name is no string."""
    depth = names = 0
    level = [value] if isinstance(value, dict | list) else []
    while level and depth <= most_depth:
        depth += 1
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                names += len(each)
                _check_names(each)
                inner.extend(part for part in each.values() if isinstance(part, dict | list))
            elif not {dict, list}.isdisjoint(map(type, each)):
                inner.extend(part for part in each if isinstance(part, dict | list))
        level = [each for each in inner if each]
        depth += bool(inner) and not level  # nothing stands in empty ones, however many they are
    return Measure(depth, names)


def _check_names(value: dict[Any, Any]) -> None:
    if not {*map(type, value)} <= {str}:
        raise Malformed("the keys of a map are strings")
