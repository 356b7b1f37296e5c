"""Tensors on the wire: strict on the way in, exact on the way out."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from engine.errors import InvalidTensor
from engine.tensors import from_bytes, read_spec, read_tensor, to_bytes, write_tensor
from engine.types import DTYPES
from tests.support.numeric import assert_same_bits


def encoded(*numbers: float, form: str = "<d") -> str:
    return base64.b64encode(b"".join(struct.pack(form, each) for each in numbers)).decode()


READ: list[tuple[Any, Any]] = [
    (3, np.float64(3)),
    (3.5, np.float64(3.5)),
    (True, np.array(True)),
    ([1, 2.5], np.array([1, 2.5])),
    ([[1, 2], [3, 4]], np.array([[1.0, 2], [3, 4]])),
    ([True, False], np.array([True, False])),
    ([], np.zeros(0)),
    ([[], []], np.zeros((2, 0))),
    ("NaN", np.float64("nan")),
    (["Infinity", "-Infinity", 1], np.array([np.inf, -np.inf, 1])),
    ([["NaN"], [0]], np.array([[np.nan], [0]])),
    ({"data": 2}, np.float64(2)),
    ({"data": [1, 2], "dtype": "int64"}, np.array([1, 2])),
    ({"data": [1.0, 2.0], "dtype": "int8"}, np.array([1, 2], np.int8)),
    ({"data": [1, 2, 3, 4], "shape": [2, 2]}, np.array([[1.0, 2], [3, 4]])),
    ({"data": [[1, 2], [3, 4]], "shape": [2, 2]}, np.array([[1.0, 2], [3, 4]])),
    ({"data": 5, "shape": [1, 1]}, np.array([[5.0]])),
    ({"data": [5], "shape": []}, np.float64(5)),
    ({"data": [], "shape": [0, 3]}, np.zeros((0, 3))),
    ({"data": [[], []], "shape": [2, 0]}, np.zeros((2, 0))),
    ({"data": [], "dtype": "bool"}, np.zeros(0, bool)),
    ({"data": [1, 2], "dtype": "complex128"}, np.complex128(1 + 2j)),
    ({"data": [[1, 2], [3, -4]], "dtype": "complex64"}, np.array([1 + 2j, 3 - 4j], np.complex64)),
    ({"data": [["NaN", 0], [0, "Infinity"]], "dtype": "complex128"}, np.array([complex("nan"), complex(0, np.inf)])),
    ({"data": -1, "dtype": "int64"}, np.int64(-1)),
    ({"data": 2**63 - 1, "dtype": "int64"}, np.int64(2**63 - 1)),
    ({"data": -(2**63), "dtype": "int64"}, np.int64(-(2**63))),
    ({"data": 2**64 - 1, "dtype": "uint64"}, np.uint64(2**64 - 1)),
    ({"data": 2**53 + 1, "dtype": "int64"}, np.int64(2**53 + 1)),
    ({"data": [0.1], "dtype": "float32"}, np.array([0.1], np.float32)),
    ({"data": 3.4028234e38, "dtype": "float32"}, np.float32(3.4028234e38)),
    ({"data": ["Infinity"], "dtype": "float32"}, np.array([np.inf], np.float32)),
    ({"data": 1e-45, "dtype": "float32"}, np.float32(1e-45)),
    ({"b64": encoded(1.0, 2.0), "dtype": "float64", "shape": [2]}, np.array([1.0, 2.0])),
    ({"b64": "AQA=", "dtype": "bool", "shape": [2]}, np.array([True, False])),
    ({"b64": "", "dtype": "int32", "shape": [0, 4]}, np.zeros((0, 4), np.int32)),
    ({"b64": encoded(7, form="<h"), "dtype": "int16", "shape": []}, np.int16(7)),
]


@pytest.mark.parametrize(("value", "expected"), READ, ids=str)
def test_reads(value: Any, expected: Any) -> None:
    tensor = read_tensor(value)
    assert_same_bits(tensor.array, expected, "tensor")
    assert not tensor.array.flags.writeable
    assert tensor.typed == (isinstance(value, dict) and "dtype" in value)
    assert read_spec(value) == tensor.spec


REFUSED: list[tuple[Any, str | None]] = [
    (None, None),
    ("1.5", None),
    ("nan", None),
    ("inf", None),
    ("+Infinity", None),
    ([1, "two"], None),
    ([1, None], None),
    ([1, {}], None),
    ([[1], [1, 2]], None),
    ([[1, 2], 3], None),
    ([1, [2]], None),
    ([[], [1]], None),
    ([True, 1], None),
    ([1.0, False], None),
    ([[True], [0]], None),
    ({}, None),
    ({"shape": [2]}, None),
    ({"data": 1, "b64": ""}, None),
    ({"data": 1, "color": "red"}, "/color"),
    ({"data": 1, "dtype": "float16"}, "/dtype"),
    ({"data": 1, "dtype": 64}, "/dtype"),
    ({"data": [1, 2], "shape": [3]}, "/data"),
    ({"data": [[1, 2], [3, 4]], "shape": [4]}, "/data"),
    ({"data": [[1, 2, 3], [4, 5, 6]], "shape": [3, 2]}, "/data"),
    ({"data": 1, "shape": [-1]}, "/shape"),
    ({"data": 1, "shape": [1.5]}, "/shape"),
    ({"data": 1, "shape": "1"}, "/shape"),
    ({"data": [], "shape": [2**31]}, "/shape"),
    ({"data": [], "shape": [0, 2147483647, 2147483647]}, "/shape"),
    ({"data": 1, "requires_grad": 1}, "/requires_grad"),
    ({"data": 1, "requires_grad": "yes"}, "/requires_grad"),
    ({"data": [True], "dtype": "float64"}, "/data"),
    ({"data": [1], "dtype": "bool"}, "/data"),
    ({"data": [1.5], "dtype": "int64"}, "/data"),
    ({"data": ["NaN"], "dtype": "int64"}, "/data"),
    ({"data": ["Infinity"], "dtype": "uint8"}, "/data"),
    ({"data": 1e39, "dtype": "float32"}, "/data"),
    ({"data": [1.0, -1e39], "dtype": "float32"}, "/data"),
    ({"data": [1e39, 0], "dtype": "complex64"}, "/data"),
    ({"data": 1, "dtype": "complex128"}, "/data"),
    ({"data": [1, 2, 3], "dtype": "complex128"}, "/data"),
    ({"data": [True, False], "dtype": "complex128"}, "/data"),
    ({"data": 10**400}, "/data"),
    ({"data": 10**400, "dtype": "int64"}, "/data"),
    ({"b64": "AAAA", "dtype": "float64", "shape": [1]}, "/b64"),
    ({"b64": encoded(1.0), "dtype": "float64", "shape": [2]}, "/b64"),
    ({"b64": encoded(1.0), "dtype": "float64"}, "/b64"),
    ({"b64": encoded(1.0), "shape": [1]}, "/b64"),
    ({"b64": "!!!!", "dtype": "int8", "shape": [3]}, "/b64"),
    ({"b64": "AQ", "dtype": "int8", "shape": [1]}, "/b64"),
    ({"b64": 7, "dtype": "int8", "shape": [1]}, "/b64"),
    ({"b64": "AgE=", "dtype": "bool", "shape": [2]}, "/b64"),
    ({"data": None}, "/data"),
]


@pytest.mark.parametrize(("value", "pointer"), REFUSED, ids=lambda each: str(each)[:60])
def test_refuses(value: Any, pointer: str | None) -> None:
    with pytest.raises(InvalidTensor) as caught:
        read_tensor(value)
    assert caught.value.pointer == pointer
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize("dtype", [name for name, dtype in DTYPES.items() if dtype.kind in "iu"])
def test_whole_numbers_fit_or_are_refused(dtype: str) -> None:
    least, most = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    assert read_tensor({"data": [least, most], "dtype": dtype}).array.tolist() == [least, most]
    for beyond in (least - 1, most + 1):
        with pytest.raises(InvalidTensor):
            read_tensor({"data": [0, beyond], "dtype": dtype})


def test_a_float_that_is_no_int64_is_refused() -> None:
    with pytest.raises(InvalidTensor):
        read_tensor({"data": 2.0**63, "dtype": "int64"})


def test_a_tensor_of_great_depth_is_refused_without_recursion() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidTensor):
        read_tensor(value)


def test_messages_do_not_echo_much() -> None:
    with pytest.raises(InvalidTensor) as caught:
        read_tensor("x" * 100_000)
    assert len(caught.value.detail) < 300


def test_shape_and_dtype_alone_make_a_spec() -> None:
    assert read_spec({"dtype": "float32", "shape": [2, 3]}) == ((2, 3), np.dtype("float32"))
    assert read_spec({}) == ((), np.dtype("float64"))
    with pytest.raises(InvalidTensor):
        read_spec({"dtype": "float32", "size": 3})


# Out and in again


def sent(array: Any, encoding: str) -> Any:
    """What a client gets, and would send back."""
    written = write_tensor(np.asarray(array), encoding)
    return json.loads(orjson.dumps(written, option=orjson.OPT_SERIALIZE_NUMPY))


def assert_round_trip(array: Any) -> None:
    for encoding in ("json", "base64"):
        value = sent(array, encoding)
        assert value["dtype"] == array.dtype.name
        assert value["shape"] == list(array.shape)
        assert_same_bits(read_tensor(value).array, array, encoding)
    assert_same_bits(from_bytes(to_bytes(array), array.dtype, array.shape), array, "bytes")


EXACT = [
    np.array([-0.0, 0.0]),
    np.array([5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]),
    np.array([0.1, 1 / 3, math.pi, 1e23, 9007199254740993.0]),
    np.array([1e-45, 1.1754942e-38, 3.4028235e38, 0.1, 1 / 3], np.float32),
    np.array([-0.0, np.nan, np.inf, -np.inf, 1e-45, 0.1], np.float32),
    np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
    np.array(np.nan),
    np.array(np.float32("inf")),
    np.array([2**53 + 1, -(2**63), 2**63 - 1]),
    np.array([2**64 - 1, 0], np.uint64),
    np.array([complex(-0.0, np.nan), complex(np.inf, 5e-324)]),
    np.array([0.1 + 0.2j], np.complex64),
    np.array(1 + 2j),
    np.zeros((0, 3)),
    np.zeros((2, 0), np.complex128),
    np.zeros((3, 0, 2), bool),
    np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(10.0)[::-2],
    np.broadcast_to(1.5, (2, 3)),
    np.arange(3, dtype=">f8"),
    np.array(True),
]


@pytest.mark.parametrize("array", EXACT, ids=lambda array: f"{array.dtype}{list(array.shape)}{array.ravel()[:2]}")
def test_round_trip_is_exact(array: Any) -> None:
    value = array.astype(array.dtype.newbyteorder("="))
    assert_round_trip(value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_goes_out_and_in(dtype: str) -> None:
    for shape in ((), (3,), (2, 2), (0,), (1, 0, 2)):
        assert_round_trip(np.ones(shape, dtype))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(list(DTYPES.values())).flatmap(
        lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    )
)
def test_any_tensor_goes_out_and_in(array: Any) -> None:
    assert_round_trip(array)


def test_scalars_are_bare_numbers() -> None:
    assert sent(np.array(2.5), "json") == {"dtype": "float64", "shape": [], "data": 2.5}
    assert sent(np.array(3), "json") == {"dtype": "int64", "shape": [], "data": 3}
    assert sent(np.array(np.nan), "json")["data"] == "NaN"
    assert sent(np.array(True), "json")["data"] is True


def test_float32_is_written_in_its_own_digits() -> None:
    assert sent(np.array([0.1], np.float32), "json")["data"] == [0.1]
    assert sent(np.float32(0.1), "json")["data"] == 0.1
    assert sent(np.array([0.1, np.nan], np.float32), "json")["data"] == [0.1, "NaN"]


def test_complex_numbers_are_pairs() -> None:
    assert sent(np.array([1 + 2j]), "json")["data"] == [[1.0, 2.0]]
    assert sent(np.array(1 - 0j), "json")["data"] == [1.0, 0.0]
    assert sent(np.array(complex(np.inf, np.nan)), "json")["data"] == ["Infinity", "NaN"]


# Anything at all

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["NaN", "Infinity", "-Infinity", "", "1", "float64", "AAAA"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["data", "b64", "dtype", "shape", "requires_grad", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    """What is read goes out and in again as the same bits; what is not is an InvalidTensor, never another error."""
    try:
        tensor = read_tensor(value)
    except InvalidTensor:
        return
    assert_round_trip(tensor.array)
