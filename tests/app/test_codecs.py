"""Forms of bodies: JSON, MessagePack and compressed ones say the same, and none is a way around a limit."""

from __future__ import annotations

import gzip
import json
import math
import random
import zlib
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.wire import msgpack, numbers
from app.wire.compression import LEAST_BYTES, TooLarge, expand, weights
from app.wire.forms import Malformed, Most, TooMuch
from app.wire.json import LARGE, decode
from app.wire.models import Request
from engine.calls import SEEDS, TENSOR_FIELDS
from engine.errors import InvalidTensor
from engine.tensors import read_tensor
from tests.app.support import post, problem
from tests.conftest import AppClient

MSGPACK = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
CUBE = {"expression": "y = sum(x**3)"}


def bin_of(array: Any) -> dict[str, Any]:
    array = np.asarray(array)
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": array.tobytes()}


def array_of(tensor: dict[str, Any]) -> Any:
    return np.frombuffer(tensor["data"], tensor["dtype"]).reshape(tensor["shape"])


# MessagePack


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_messagepack_carries_plain_bytes_both_ways(client: httpx.Client, dtype: str) -> None:
    x = np.array([1.0, -2.0, math.inf], dtype)
    body = {"expression": "y = 2 * x", "inputs": {"x": bin_of(x)}, "grad_outputs": {"y": bin_of(x)}}
    response = client.post("/grad", content=msgspec.msgpack.encode(body), headers=MSGPACK)
    assert response.headers["content-type"] == "application/msgpack"
    answer = msgspec.msgpack.decode(response.content)
    for tensor in (answer["values"]["y"], answer["gradients"]["x"]):
        assert array_of(tensor).tobytes() == (2 * x).tobytes()
        assert (tensor["dtype"], tensor["shape"]) == (dtype, [3])


@pytest.mark.parametrize("media_type", ["application/msgpack", "application/vnd.msgpack", "application/x-msgpack"])
def test_question_and_answer_may_differ_in_form(client: httpx.Client, media_type: str) -> None:
    """All four pairs of forms say the same."""
    plain = CUBE | {"inputs": {"x": [1.0, 2.0]}}
    packed = msgspec.msgpack.encode(CUBE | {"inputs": {"x": bin_of([1.0, 2.0])}})
    bodies = [(json.dumps(plain).encode(), "application/json"), (packed, media_type)]
    found = []
    for content, sent in bodies:
        for accept in ("application/json", media_type):
            response = client.post("/grad", content=content, headers={"Content-Type": sent, "Accept": accept})
            assert response.status_code == 200, response.text
            packs = response.headers["content-type"] == "application/msgpack"
            answer = msgspec.msgpack.decode(response.content) if packs else response.json()
            gradient = answer["gradients"]["x"]
            found.append((array_of(gradient).tolist() if packs else gradient["data"], answer["graph"]["id"]))
    assert found == [([3.0, 12.0], found[0][1])] * 4


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/msgpack, application/json", "application/json"),
        ("application/msgpack, application/json;q=0.5", "application/msgpack"),
        ("application/json;q=0, */*", "application/msgpack"),
        ("text/html, application/msgpack;q=0.1", "application/msgpack"),
    ],
)
def test_the_form_of_the_answer_is_what_the_client_likes_best(client: httpx.Client, accept: str, expected: str) -> None:
    response = post(client, "/grad", CUBE | {"inputs": {"x": [1.0]}}, headers={"Accept": accept})
    assert response.headers["content-type"] == expected
    assert "accept" in response.headers["vary"].lower()


def test_errors_are_problems_whatever_the_form(client: httpx.Client) -> None:
    response = client.post("/grad", content=msgspec.msgpack.encode({"expression": "x +"}), headers=MSGPACK)
    assert problem(response)["code"] == "syntax_error"


ODD = [
    b"",
    b"\xc1",
    b"\x81",
    b"\x91" * 100_000,
    b"\xa1\xff",
    msgspec.msgpack.encode([1]),
    msgspec.msgpack.encode({1: 2}),
    msgspec.msgpack.encode(CUBE | {"inputs": {1: 2}}),
    msgspec.msgpack.encode({"graph": {"nodes": [{"id": "y", "op": "sin", "inputs": ["x"], "attrs": {3: 4}}]}}),
    msgspec.msgpack.encode(CUBE | {"inputs": {"x": msgspec.msgpack.Ext(5, b"abc")}}),
    msgspec.msgpack.encode(CUBE | {"inputs": {"x": b"12345678"}}),
    msgspec.msgpack.encode(CUBE | {"inputs": {"x": {"data": b"12345678"}}}),
    msgspec.msgpack.encode(CUBE | {"inputs": {"x": {"data": b"1234567", "dtype": "float64", "shape": [1]}}}),
    msgspec.msgpack.encode(CUBE | {"inputs": {"x": {"data": [b"1"], "dtype": "float64"}}}),
    msgspec.msgpack.encode({"expression": b"x"}),
    msgspec.msgpack.encode({"graph": b"x"}),
    msgspec.msgpack.encode(CUBE | {"inputs": {"x": 1}}) + b"\xc0",
    msgspec.msgpack.encode(CUBE | {"inputs": {"x": msgspec.msgpack.Ext(-1, b"\0\0\0\1")}}),
    b"\x82\xa1a\x01\xa1a\x02",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\x00\x0f\xff\xff" * 900 + bytes(1 << 20),
    b"\xc6\xff\xff\xff\xffx",
    b"\xcb\x00",
    b"\xa9x",
]


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_odd_messagepack_is_the_client_s_fault(client: httpx.Client, body: bytes) -> None:
    found = problem(client.post("/grad", content=body, headers=MSGPACK))
    assert found["status"] in (400, 422)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x81\xa6inputs\x82\xa1x\x01\xa1x\x02", "same key twice"),
        (b"\x81\xa1x\xd6\xff\x00\x00\x00\x01", "extension types"),
        (b"\x81\xa1x\xc7\x01\x05a", "extension types"),
        (b"\x81\xa1x\xdd\x7f\xff\xff\xff", "a size in it is wrong"),
        (b"\x81\xa1x\xdb\x7f\xff\xff\xff", "a size in it is wrong"),
        (b"\x81\xa1x\xde\x00", "a size in it is wrong"),
        (b"\x81\xa1x\xc1", "c1"),
        (b"\x81\xa1x\xcb", "too early"),
        (b"\x81\x01\x02", "strings"),
    ],
)
def test_messagepack_says_what_it_does_not_read(client: httpx.Client, body: bytes, said: str) -> None:
    found = problem(client.post("/grad", content=body, headers=MSGPACK))
    assert (found["code"], found["status"]) == ("invalid_json", 400)
    assert said in found["detail"]


SMALL_PARTS = {"short lists": b"\x90", "empty bytes": b"\xc4\x00", "empty maps": b"\x80", "nil": b"\xc0"}


@pytest.mark.parametrize("part", SMALL_PARTS.values(), ids=SMALL_PARTS)
def test_values_that_take_much_more_memory_than_bytes_are_counted(app_client: AppClient, part: bytes) -> None:
    """A byte that stands for a list becomes 64."""
    client = app_client(body_values=20_000)
    for count, status in ((19_000, 422), (30_000, 413)):
        body = b"\x81\xa6inputs\x81\xa1x\xdd" + count.to_bytes(4) + part * count
        found = problem(client.post("/grad/value", content=body, headers=MSGPACK))
        assert found["status"] == status
    assert found["limit"]["name"] == "body_values"


def test_each_form_has_its_own_limit(app_client: AppClient) -> None:
    client = app_client(body_bytes=100, msgpack_bytes=1000)
    body = CUBE | {"inputs": {"x": bin_of(np.arange(60.0))}}
    assert client.post("/grad", content=msgspec.msgpack.encode(body), headers=MSGPACK).status_code == 200
    body = CUBE | {"inputs": {"x": bin_of(np.arange(160.0))}}
    found = problem(client.post("/grad", content=msgspec.msgpack.encode(body), headers=MSGPACK))
    assert found["limit"]["name"] == "msgpack_bytes"


# Compressed bodies

SMALL = json.dumps(CUBE | {"inputs": {"x": [1.0, 2.0]}}).encode()
CODED = {"gzip": gzip.compress(SMALL), "x-gzip": gzip.compress(SMALL), "zstd": zstandard.compress(SMALL)}


@pytest.mark.parametrize("coding", CODED)
def test_a_compressed_body_is_read(client: httpx.Client, coding: str) -> None:
    response = client.post("/grad", content=CODED[coding], headers={"Content-Encoding": coding.upper()})
    assert response.json()["gradients"]["x"]["data"] == [3.0, 12.0]


@pytest.mark.parametrize("coding", CODED)
def test_a_bomb_is_given_up_at_the_limit(app_client: AppClient, coding: str) -> None:
    bomb = b" " * (64 << 20)
    body = gzip.compress(bomb) if "gzip" in coding else zstandard.compress(bomb)
    found = problem(app_client(body_bytes=1 << 20).post("/grad", content=body, headers={"Content-Encoding": coding}))
    assert (found["status"], found["limit"]["name"], found["limit"]["max"]) == (413, "body_bytes", 1 << 20)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_size_that_is_told_is_believed_where_it_is_too_large(coding: str) -> None:
    """No time is spent on what a bomb says of itself."""
    body = {"gzip": gzip.compress, "zstd": zstandard.compress}[coding](bytes(1 << 20))
    spoilt = bytearray(body)
    spoilt[len(body) // 2] ^= 0xFF
    with pytest.raises(TooLarge):
        expand(bytes(spoilt), coding, (1 << 20) - 1)


def test_a_frame_may_refer_back_so_far_and_no_further() -> None:
    """A reader keeps as much as a frame may refer back to, whatever its own size."""
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(Malformed, match="zstd"):
        expand(frame, "zstd", 1 << 20)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_expanding_stops_exactly_above_the_limit(coding: str) -> None:
    assert expand(CODED[coding], coding, len(SMALL)) == SMALL
    with pytest.raises(TooLarge):
        expand(CODED[coding], coding, len(SMALL) - 1)


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "spoil", [lambda b: b + b, lambda b: b[:-5], lambda b: b"", lambda b: b"{}", lambda b: b + b"x"]
)
def test_a_body_is_one_whole_member(coding: str, spoil: Any) -> None:
    with pytest.raises(Malformed):
        expand(spoil(CODED[coding]), coding, 1 << 20)


LONG = {"expression": "zeros([20000]) + x", "inputs": {"x": 1.0}}


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        ("gzip", "gzip"),
        ("gzip, zstd", "zstd"),
        ("zstd;q=0, gzip", "gzip"),
        ("br", None),
        ("identity", None),
        ("", None),
    ],
)
def test_a_long_answer_is_compressed_where_that_pays(client: httpx.Client, accept: str, coding: str | None) -> None:
    with client.stream("POST", "/grad/value", json=LONG, headers={"Accept-Encoding": accept}) as response:
        raw = b"".join(response.iter_raw())
    assert response.headers.get("content-encoding") == coding
    plain = raw if coding is None else expand(raw, coding, 1 << 30)
    assert json.loads(plain)["values"]["out"]["data"] == [1.0] * 20000
    assert len(raw) < LEAST_BYTES or coding is None


def test_digits_of_arbitrary_floats_are_not_compressed(client: httpx.Client) -> None:
    x = np.random.default_rng(0).normal(size=20_000).tolist()
    response = post(client, "/grad/value", {"expression": "x", "inputs": {"x": x}}, headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in response.headers


def test_weights_of_accept_headers() -> None:
    assert weights("a, b;q=0.5 , c; q=2, d;q=x,,e;q=-1") == {"a": 1, "b": 0.5, "c": 1, "d": 1, "e": 0}


# Numbers straight into arrays

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**64 - 1)
LEAVES = NUMBERS | st.booleans() | st.sampled_from(["NaN", "[", '"', "é"]) | st.none()
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
REGULAR = st.integers(1, 3).flatmap(
    lambda columns: st.lists(st.lists(NUMBERS, min_size=columns, max_size=columns), max_size=40)
)


def test_requests_have_the_seeds_that_their_calls_take() -> None:
    for model in Request.__subclasses__():
        fields = [name for name in model.model_fields if name in TENSOR_FIELDS]
        assert fields == ["inputs", *SEEDS.get(model.call, ())], model.__name__


def told(value: Any) -> Any:
    """A tensor as it is read, or the fault that it has."""
    try:
        tensor = read_tensor(value)
    except InvalidTensor as error:
        return error.detail
    return tensor.array.dtype, tensor.array.shape, tensor.array.tobytes(), tensor.typed


def both_ways(body: bytes) -> None:
    """What the quick reader makes of a body, if anything, is what the strict one does."""
    try:
        quick = numbers.decode(body, TENSOR_FIELDS)
    except numbers.Unusual:
        return
    strict = decode(body)
    assert list(quick) == list(strict)
    for name in strict:
        if name in TENSOR_FIELDS and isinstance(strict[name], dict):
            assert {key: told(each) for key, each in quick[name].items()} == {
                key: told(each) for key, each in strict[name].items()
            }
        else:
            assert quick[name] == strict[name]


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(["x", "y[", "z"]), TREES | REGULAR), st.sampled_from(["float64", "int64", None]))
@example({"x": [[1, 2], [3]]}, None)
@example({"x": [1.0, [2.0]]}, None)
@example({"x": [[1, 2], [3], [4, 5, 6]]}, None)
def test_the_quick_reader_reads_as_the_strict_one(tensors: dict[str, Any], dtype: str | None) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "LEAST_NUMBERS", 1)
        patch.setattr(numbers, "LEAST_BYTES_PER_STRING", 0)
        both_ways(json.dumps({"expression": "x[1:]", "inputs": tensors}).encode())
        typed = {name: {"data": each, "dtype": dtype} if dtype else {"data": each} for name, each in tensors.items()}
        both_ways(json.dumps({"inputs": typed, "vectors": tensors}).encode())


@pytest.mark.parametrize(
    "part",
    [
        '"x": [-0, 1]',
        '"x": [1e400, 1]',
        '"x": [1], "x": [2]',
        '"x": [123456789012345678901234567890]',
        '"x": [NaN]',
        '"x": [[1, 2], [3]]',
        '"x": [1, [2]]',
        '"x": [[1, 2], [3], [4, 5, 6]]',
        '"x": [true, 1]',
        '"x": [1, "1"]',
    ],
)
def test_what_is_unusual_goes_to_the_strict_reader(part: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "LEAST_NUMBERS", 1)
        patch.setattr(numbers, "LEAST_BYTES_PER_STRING", 0)
        body = f'{{"inputs": {{{part}}}}}'.encode()
        with pytest.raises((numbers.Unusual, AssertionError)):
            found = numbers.decode(body, TENSOR_FIELDS)
            assert any(isinstance(each, np.ndarray) for each in found["inputs"].values())


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"data": x}, lambda x: {"data": x, "dtype": "float32"}])
def test_the_quick_reader_is_what_reads_large_tensors(wrap: Any) -> None:
    x = np.random.default_rng(0).normal(size=(100, 30)).tolist()
    body = {"expression": "x[1:]", "inputs": {"x": wrap(x)}, "wrt": ["x"]}
    found = numbers.decode(json.dumps(body).encode(), TENSOR_FIELDS)
    read = found["inputs"]["x"]
    array = read if wrap(x) is x else read.pop("data")
    assert isinstance(array, np.ndarray) and array.tolist() == x
    assert found | {"inputs": 0} == body | {"inputs": 0}
    assert read is array or read == {name: each for name, each in wrap(x).items() if name != "data"}


def test_a_list_longer_than_simdjson_counts_is_left_to_the_strict_reader() -> None:
    """It counts to 2**24 − 1, and its lists of Python's own would be written beyond their ends."""
    for field in ("inputs", "include"):
        body = b'{"%s": {"x": [%s1]}}' % (field.encode(), b"1," * (1 << 24))
        with pytest.raises((numbers.Unusual, TooMuch)):
            numbers.decode(body, TENSOR_FIELDS, Most(64, 1_000_000))


def test_large_tensors_are_read_exactly(client: httpx.Client) -> None:
    rng = random.Random(0)
    x = [[rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(5)] for _ in range(2000)]
    body = json.dumps({"expression": "x", "inputs": {"x": x}})
    assert len(body) > LARGE
    assert client.post("/grad/value", content=body).json()["values"]["out"]["data"] == x


def test_a_truncated_gzip_header_is_no_crash() -> None:
    with pytest.raises(Malformed):
        expand(zlib.compress(SMALL), "gzip", 1 << 20)


@pytest.mark.parametrize("count", [10, 5000, 20_000])
@pytest.mark.parametrize("maps", [1, 12, 40])
def test_values_are_counted_in_messagepack_wherever_they_stand(count: int, maps: int) -> None:
    names = [f"n{number}" for number in range(maps)]
    body = msgspec.msgpack.encode({name: {"data": [1] * count} for name in names})
    values = 1 + maps * (2 + 2 + count)  # the outer map; of each a name, a map, its key, a list and what is in it
    msgpack.decode(body, Most(body_values=values))
    with pytest.raises(TooMuch):
        msgpack.decode(body, Most(body_values=values - 1))
