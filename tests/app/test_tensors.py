"""Tensors over the wire: every dtype in and out, exactly, in every form."""

from __future__ import annotations

import base64
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from engine.types import DTYPES
from tests.app.support import ask, refused


def through(client: httpx.Client, tensor: Any, **more: Any) -> Any:
    """A tensor that goes in and comes out."""
    return ask(client, "/grad/value", {"expression": "x", "inputs": {"x": tensor}, **more})["values"]["out"]


@pytest.mark.parametrize(
    ("tensor", "dtype", "shape", "data"),
    [
        (3, "float64", [], 3.0),
        (-2.5, "float64", [], -2.5),
        (True, "bool", [], True),
        ([1, 2], "float64", [2], [1.0, 2.0]),
        ([[1], [2]], "float64", [2, 1], [[1.0], [2.0]]),
        ([True, False], "bool", [2], [True, False]),
        ([], "float64", [0], []),
        ([[], []], "float64", [2, 0], [[], []]),
        ({"data": [1, 2, 3, 4], "shape": [2, 2]}, "float64", [2, 2], [[1.0, 2.0], [3.0, 4.0]]),
        ({"data": 7, "shape": [1, 1]}, "float64", [1, 1], [[7.0]]),
        ({"data": [[1, 2]], "dtype": "int16"}, "int16", [1, 2], [[1, 2]]),
        ({"data": [2.0], "dtype": "uint8"}, "uint8", [1], [2]),
        ({"data": [[1, -2], [0, 0.5]], "dtype": "complex64"}, "complex64", [2], [[1.0, -2.0], [0.0, 0.5]]),
        ({"data": [1, 2], "dtype": "complex128"}, "complex128", [], [1.0, 2.0]),
        ({"data": ["NaN", "Infinity", "-Infinity", 1]}, "float64", [4], ["NaN", "Infinity", "-Infinity", 1.0]),
        ({"data": "NaN", "dtype": "float32"}, "float32", [], "NaN"),
        ([[["-Infinity"]]], "float64", [1, 1, 1], [[["-Infinity"]]]),
        ({"data": [["NaN", 1]], "dtype": "complex64"}, "complex64", [1], [["NaN", 1.0]]),
        ({"data": [1], "requires_grad": True}, "float64", [1], [1.0]),
    ],
)
def test_a_tensor_comes_out_as_it_went_in(
    client: httpx.Client, tensor: Any, dtype: str, shape: list[int], data: Any
) -> None:
    assert through(client, tensor) == {"dtype": dtype, "shape": shape, "data": data}


def extremes(dtype: str) -> np.ndarray[Any, Any]:
    """The outermost values of a dtype, and some between."""
    kind = DTYPES[dtype].kind
    if kind == "b":
        return np.array([[True, False]])
    if kind in "iu":
        return np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1]], dtype)
    parts = np.dtype("f4" if dtype in ("float32", "complex64") else "f8")
    found = np.finfo(parts)
    values = np.array(
        [found.max, -found.max, found.tiny, found.smallest_subnormal, -0.0, 0.1, 1 / 3, np.nan, np.inf], parts
    )
    return values if kind == "f" else values[:8].view(dtype)


def b64(array: np.ndarray[Any, Any], dtype: str) -> dict[str, Any]:
    raw = array.astype(DTYPES[dtype].newbyteorder("<")).tobytes()
    return {"b64": base64.b64encode(raw).decode(), "dtype": dtype, "shape": list(array.shape)}


@pytest.mark.parametrize("dtype", DTYPES)
def test_base64_and_lists_say_the_same(client: httpx.Client, dtype: str) -> None:
    packed = b64(extremes(dtype), dtype)
    assert through(client, packed, encoding="base64") == packed
    listed = through(client, packed)
    assert listed.keys() == {"dtype", "shape", "data"}
    assert (listed["dtype"], listed["shape"]) == (dtype, packed["shape"])
    again = {"data": listed["data"], "dtype": dtype}
    assert through(client, again) == listed
    if DTYPES[dtype].kind not in "fc":  # there, NaN has many bits
        assert through(client, again, encoding="base64") == packed


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_empty_tensor_keeps_its_shape_and_dtype(client: httpx.Client, dtype: str) -> None:
    for shape in ([0], [2, 0, 3]):
        found = through(client, {"b64": "", "dtype": dtype, "shape": shape})
        assert (found["dtype"], found["shape"]) == (dtype, shape)


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


finite = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(finite, max_size=40))
def test_the_bits_of_float64_survive(client: httpx.Client, values: list[float]) -> None:
    answer = through(client, values)
    assert [bits(each) for each in answer["data"]] == [bits(each) for each in values]


@settings(max_examples=60, deadline=None)
@given(
    values=arrays.arrays("<f4", st.integers(0, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
)
def test_the_bits_of_float32_survive(client: httpx.Client, values: np.ndarray[Any, Any]) -> None:
    packed = b64(values, "float32")
    answer = through(client, packed)
    assert np.array(answer["data"], "<f4").tobytes() == values.tobytes()
    assert through(client, {"data": answer["data"], "dtype": "float32"}, encoding="base64") == packed


@settings(max_examples=30, deadline=None)
@given(raw=st.binary(min_size=8, max_size=80).map(lambda raw: raw[: len(raw) // 8 * 8]))
def test_any_bits_survive_base64(client: httpx.Client, raw: bytes) -> None:
    for dtype in ("float64", "int64", "uint64", "float32", "complex64"):
        size = DTYPES[dtype].itemsize
        packed = {"b64": base64.b64encode(raw).decode(), "dtype": dtype, "shape": [len(raw) // size]}
        assert through(client, packed, encoding="base64") == packed


@settings(max_examples=30, deadline=None)
@given(value=finite)
def test_a_number_that_is_written_with_all_its_digits_is_read_exactly(client: httpx.Client, value: float) -> None:
    body = f'{{"expression": "x", "inputs": {{"x": {value:.800e}}}}}'.encode()
    assert bits(ask(client, "/grad/value", body)["values"]["out"]["data"]) == bits(value)


def test_large_integers_are_exact(client: httpx.Client) -> None:
    assert through(client, {"data": [2**53 + 1, -(2**63)], "dtype": "int64"})["data"] == [2**53 + 1, -(2**63)]
    assert through(client, {"data": 2**64 - 1, "dtype": "uint64"})["data"] == 2**64 - 1


@pytest.mark.parametrize(
    ("tensor", "pointer"),
    [
        ([[1], [1, 2]], ""),
        ([1, [2]], ""),
        ([1, None], ""),
        ([1, {}], ""),
        ("1", ""),
        (["nan"], ""),
        ([True, 1], ""),
        (None, ""),
        ({}, ""),
        ({"shape": [1]}, ""),
        ({"data": 1, "b64": "AA=="}, ""),
        ({"data": 1, "file": "/etc/passwd"}, "/file"),
        ({"data": 1, "dtype": "float16"}, "/dtype"),
        ({"data": 1, "dtype": ["float64"]}, "/dtype"),
        ({"data": 300, "dtype": "uint8"}, "/data"),
        ({"data": -1, "dtype": "uint64"}, "/data"),
        ({"data": 2**64, "dtype": "uint64"}, "/data"),
        ({"data": 2**63, "dtype": "int64"}, "/data"),
        ({"data": 1.5, "dtype": "int64"}, "/data"),
        ({"data": "NaN", "dtype": "int64"}, "/data"),
        ({"data": 1e39, "dtype": "float32"}, "/data"),
        ({"data": 1, "dtype": "bool"}, "/data"),
        ({"data": True, "dtype": "float64"}, "/data"),
        ({"data": [1, 2, 3], "dtype": "complex128"}, "/data"),
        ({"data": 1, "dtype": "complex128"}, "/data"),
        ({"data": [1, 2], "shape": [3]}, "/data"),
        ({"data": [[1, 2]], "shape": [2, 1]}, "/data"),
        ({"data": [1], "shape": [-1]}, "/shape"),
        ({"data": [1], "shape": [1.5]}, "/shape"),
        ({"data": [1], "shape": "1"}, "/shape"),
        ({"data": [1], "shape": [2**31]}, "/shape"),
        ({"data": [1], "requires_grad": "yes"}, "/requires_grad"),
        ({"b64": "AAAA"}, "/b64"),
        ({"b64": "AAAA", "dtype": "float64", "shape": [1]}, "/b64"),
        ({"b64": "AAA", "dtype": "uint8", "shape": [2]}, "/b64"),
        ({"b64": "A A=", "dtype": "uint8", "shape": [1]}, "/b64"),
        ({"b64": "é===", "dtype": "uint8", "shape": [1]}, "/b64"),
        ({"b64": [0], "dtype": "uint8", "shape": [1]}, "/b64"),
        ({"b64": "Ag==", "dtype": "bool", "shape": [1]}, "/b64"),
    ],
    ids=str,
)
def test_what_is_no_tensor_is_refused_where_it_is_wrong(client: httpx.Client, tensor: Any, pointer: str) -> None:
    found = refused(client, "/grad/value", {"expression": "x", "inputs": {"x": tensor}}, "invalid_tensor")
    assert found["pointer"] in (f"/inputs/x{pointer}", "/inputs/x")


@pytest.mark.parametrize("shape", [[1] * 80, [0] + [2**31 - 1] * 3, [0, 2**31 - 1, 2**31 - 1, 8], [2**31 - 1] * 16])
@pytest.mark.parametrize("path", ["/grad/value", "/graphs/inspect"])
def test_a_shape_that_no_memory_could_hold_is_refused(client: httpx.Client, path: str, shape: list[int]) -> None:
    """NumPy itself raises at more than 64 axes, and where the sizes beside a zero overflow."""
    tensors: list[Any] = [{"data": [], "shape": shape}, {"b64": "", "dtype": "int8", "shape": shape}]
    for tensor in [*tensors, {"data": 1, "shape": shape}, *([{"shape": shape}] if path == "/graphs/inspect" else [])]:
        response = client.post(path, json={"expression": "x", "inputs": {"x": tensor}})
        assert response.status_code == 422, response.text
        assert response.json()["code"] in ("invalid_tensor", "limit_exceeded")


def test_constants_in_a_graph_have_every_form_of_a_tensor(client: httpx.Client) -> None:
    packed = b64(np.array([1.0, 2.0]), "float64")
    for constant in ([1, 2], {"data": [1, 2]}, packed, {"data": [1, 2], "shape": [2]}):
        graph = {"nodes": [{"id": "y", "op": "multiply", "inputs": ["x", constant]}]}
        assert ask(client, "/grad/value", {"graph": graph, "inputs": {"x": 3}})["values"]["y"]["data"] == [3.0, 6.0]
    graph = {"nodes": [{"id": "y", "op": "exp", "inputs": ["-Infinity"]}]}
    assert ask(client, "/grad/value", {"graph": graph})["values"]["y"]["data"] == 0.0


def test_answers_in_base64_are_so_throughout(client: httpx.Client) -> None:
    body = {"expression": "y = x**2", "inputs": {"x": [1, 2]}, "grad_outputs": "ones", "encoding": "base64"}
    answer = ask(client, "/grad", body | {"include": ["derivative_graph"]})
    assert answer["values"]["y"] == b64(np.array([1.0, 4.0]), "float64")
    assert answer["gradients"]["x"] == b64(np.array([2.0, 4.0]), "float64")
    assert '"data"' not in str(answer["derivative_graph"])
