"""Answers in JSON whose text is always the same, but for the numbers.

A plan answers with the same names, dtypes and shapes each time, and says the same of its graph. Of a small answer most
of the time would go into writing these; so they are written once, with holes where the numbers go.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import orjson

from app.wire import json
from engine.calls import Tree, map_tree
from engine.tensors import write_tensor

HOLE = b"\0"
"""What no JSON text has in it: there it is an escape."""


class Letter:
    """The text of an answer with these results."""

    def __init__(self, results: Tree, described: bytes) -> None:
        blank = map_tree(results, lambda leaf: write_tensor(leaf) | {"data": orjson.Fragment(HOLE)})
        self._first, *self._parts = json.encode(blank | {"graph": orjson.Fragment(described)}).split(HOLE)

    def filled(self, results: Tree) -> bytes | None:
        """The answer with these numbers; None where some are not finite, or not real, which are written otherwise."""
        written, numbers = [self._first], list[Any]()
        _gather(results, numbers)
        for number, part in zip(numbers, self._parts, strict=True):
            if not _is_plain(number):
                return None
            written += (json.encode(number), part)
        return b"".join(written)


def _gather(tree: Tree, numbers: list[Any]) -> None:
    """Add the numbers of an answer, in the order of its text."""
    for each in tree.values() if type(tree) is dict else tree:
        kind = type(each)
        if kind is float or kind is np.ndarray:
            numbers.append(each)
        elif kind is dict or kind is list:
            _gather(each, numbers)


def _is_plain(number: Any) -> bool:
    """Whether orjson writes a number as it is to be read."""
    if type(number) is float:
        return math.isfinite(number)
    is_whole = number.ndim > 0 and number.dtype.kind != "c" and number.flags.c_contiguous
    return is_whole and bool(np.isfinite(number).all())
