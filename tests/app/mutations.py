"""Requests that nobody meant to send: the examples of the API document with a few things broken in each.

A mutation picks places in a request's tree and deletes, replaces, repeats, renames, wraps or exchanges what stands
there. What is put in is drawn from values that have broken JSON services before.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from app.wire.examples import EXAMPLES
from app.wire.models import (
    CheckRequest,
    GradRequest,
    HessianRequest,
    HvpRequest,
    InspectRequest,
    JacobianRequest,
    JvpRequest,
    LaplacianRequest,
    NthRequest,
    RegisterRequest,
    TaylorRequest,
    TensorsRequest,
    ValueRequest,
)

PATHS = {
    GradRequest: "/grad",
    ValueRequest: "/grad/value",
    JvpRequest: "/grad/jvp",
    JacobianRequest: "/grad/jacobian",
    HessianRequest: "/grad/hessian",
    HvpRequest: "/grad/hvp",
    NthRequest: "/grad/nth",
    TaylorRequest: "/grad/taylor",
    LaplacianRequest: "/grad/laplacian",
    TensorsRequest: "/grad/tensors",
    CheckRequest: "/grad/check",
    InspectRequest: "/graphs/inspect",
    RegisterRequest: "/graphs",
}
"""Where a request of each form goes."""

REQUESTS = [(PATHS[model], row["value"]) for model, rows in EXAMPLES.items() for row in rows.values()]

NAMES = ["x", "y", "out", "x.0", "", "a/b~c", "~1", "__proto__", "constructor", "grad_outputs/y", "probe/1", "é" * 70]
NUMBERS = [0, -0.0, -1, 2, 3.5, 17, 1e308, 5e-324, 2**31, 2**53 + 1, 2**63, 2**64, 10**30, 10**400]
TEXTS = ["NaN", "-Infinity", "nan", "1", "ones", "float32", "int64", "complex64", "\x00", "\ud83d\ude00", "x" * 300]
EXPRESSIONS = [
    "x; x",
    "y = x; y = x",
    "sum(x)",
    "x @ x",
    "svd(x)",
    "x[9]",
    "x**-1",
    "(" * 9,
    "log(-x)",
    "x # y",
    "'",
    "1",
]
TENSORS: list[Any] = [
    {"data": [1, 2], "dtype": "float32"},
    {"data": [1.5], "dtype": "int8"},
    {"data": [[1, 2]], "dtype": "complex64"},
    {"data": [], "shape": [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]},
    {"data": 1, "shape": [1] * 80},
    {"b64": "AAAAAAAA8D8=", "dtype": "float64", "shape": []},
    {"b64": "===", "dtype": "bool", "shape": [3]},
    {"shape": [2**31 - 1] * 16, "dtype": "float64"},
    [[1], [2, 3]],
    [[], []],
    [True, 1],
]
NODES: list[Any] = [
    {"id": "y", "op": "sin", "inputs": ["y"]},
    {"id": "z", "op": "nope", "inputs": ["x"]},
    {"id": "z", "op": "sum", "inputs": ["x"], "attrs": {"axis": 7}},
    {"id": "z", "op": "where", "inputs": [True, "x", 10**30]},
    {"id": "z", "op": "reshape", "inputs": ["x"], "attrs": {"shape": [-1, 0]}},
    {"id": "z", "op": "qr", "inputs": [[[1, 2], [3, 4]]]},
]
OTHERS: list[Any] = [None, True, False, [], {}, [[]], {"": {}}]

hostile = st.one_of(
    *(st.sampled_from(each) for each in (NAMES, NUMBERS, TEXTS, EXPRESSIONS, TENSORS, NODES, OTHERS)),
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers()
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ),
)

Place = tuple[Any, Any]
"""A list or object of the request, and the index or key of one of its parts."""


def places(value: Any) -> Iterator[Place]:
    """Every place in a request, the outer ones first."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def _delete(place: Place, draw: Any) -> None:
    owner, key = place
    del owner[key]


def _replace(place: Place, draw: Any) -> None:
    owner, key = place
    owner[key] = copy.deepcopy(draw(hostile))


def _repeat(place: Place, draw: Any) -> None:
    owner, key = place
    if isinstance(owner, list):
        owner.insert(key, copy.deepcopy(owner[key]))
    else:
        owner[draw(st.sampled_from(NAMES))] = copy.deepcopy(owner[key])


def _rename(place: Place, draw: Any) -> None:
    owner, key = place
    if isinstance(owner, dict):
        owner[draw(st.sampled_from(NAMES))] = owner.pop(key)


def _wrap(place: Place, draw: Any) -> None:
    owner, key = place
    for _ in range(draw(st.sampled_from([1, 2, 17, 70]))):
        owner[key] = [owner[key]]


def _borrow(place: Place, draw: Any) -> None:
    """Put in a part of another request."""
    owner, key = place
    _, other = draw(st.sampled_from(REQUESTS))
    there, name = draw(st.sampled_from(list(places(other))))
    owner[key] = copy.deepcopy(there[name])


def _add(place: Place, draw: Any) -> None:
    """Put a part of another request under its own name into this one's outermost object."""
    owner, _ = place
    _, other = draw(st.sampled_from(REQUESTS))
    if isinstance(owner, dict):
        name = draw(st.sampled_from(sorted(other)))
        owner[name] = copy.deepcopy(other[name])


EDITS: list[Callable[[Place, Any], None]] = [_delete, _replace, _repeat, _rename, _wrap, _borrow, _add]


@st.composite
def mutated(draw: Any) -> tuple[str, Any]:
    """A path, and a request for it in which one to three things are wrong."""
    path, body = draw(st.sampled_from(REQUESTS))
    body = copy.deepcopy(body)
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        found = list(places(body))
        if found:
            draw(st.sampled_from(EDITS))(draw(st.sampled_from(found)), draw)
    return path, body
