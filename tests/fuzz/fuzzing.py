"""What is fuzzed: seeds out of a small corpus, edits that break them, and what must hold of whatever comes out.

A target is a function of bytes or text. It fails by raising anything but the clean error of its reader, by taking what
another strict reader refuses or reading another value, or by a value that does not survive being written and read.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import strategies as st

import engine.ops  # noqa: F401 - fills the catalogue
from app.wire import msgpack, numbers, strict
from app.wire.codecs import TENSOR_FIELDS
from app.wire.compression import TooLarge, expand
from app.wire.forms import Malformed, Most, TooMuch
from engine.core import ops
from engine.errors import EngineError, ExpressionError
from engine.limits import Limits
from engine.tensors import Tensor, read_tensor, write_tensor
from engine.text import parse, print_program

CORPUS = Path(__file__).with_name("corpus")
MOST = Most(json_nesting=20, body_values=1000)
EXPANDED = 100_000
"""Bytes to which a body is expanded at most."""


def lines(name: str) -> list[str]:
    return (CORPUS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


# Edits

TOKENS = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"-",
    b"0",
    b"1e",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\xff",
    b"\x00",
    b".",
]
WORDS = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    "\n",
    "=",
    "**",
    "@",
    ":",
    "->",
    "...",
    "x",
    "f(",
    "1e9",
    ".5",
    "'",
    "`",
]
WORDS += ["\\", "#", "é", "\x00", "9" * 30, "-", "~", *sorted(op.name for op in ops)]


def _edited(draw: Any, seed: Any, words: list[Any]) -> Any:
    """A seed after a few edits: a part is cut out, said again, moved, or replaced by words."""
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(seed)))
        end = min(len(seed), start + draw(st.integers(0, 12)))
        part = draw(st.sampled_from([*words, seed[start:end] * 2, seed[:0]]))
        at = draw(st.sampled_from([start, end, draw(st.integers(0, len(seed)))]))
        seed = seed[:at] + part + seed[max(at, end) :]
    return seed


@st.composite
def edited_bytes(draw: Any, seeds: list[bytes]) -> bytes:
    words = [*TOKENS, *(bytes([each]) for each in draw(st.lists(st.integers(0, 255), max_size=4)))]
    found: bytes = _edited(draw, draw(st.sampled_from(seeds)), words)
    return found


@st.composite
def edited_text(draw: Any, seeds: list[str]) -> str:
    found: str = _edited(draw, draw(st.sampled_from(seeds)), WORDS)
    return found


# JSON


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("repeated")
    return dict(pairs)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("overflow")
    return number


def _refused(text: str) -> Any:
    raise ValueError(text)


def reference(body: bytes) -> Any:
    """JSON as Python reads it, told to be strict. Raises ValueError."""
    value = json.loads(
        body.decode(), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_refused, parse_int=_whole
    )
    json.dumps(value, ensure_ascii=False).encode()  # which fails on lone surrogates
    return value


def _whole(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def same(left: Any, right: Any) -> bool:
    """Equal, down to types and signs of zeros."""
    return repr(left) == repr(right)


def outcome(read: Callable[[], Any], *clean: type[Exception]) -> Any:
    """What came out, or None after a clean error."""
    try:
        return (read(),)
    except clean:
        return None


def json_body(body: bytes) -> None:
    """The strict reader takes what Python, told to be strict, takes; the quick one reads alike, or leaves it."""
    found = outcome(lambda: strict.decode(body, MOST), Malformed, TooMuch)
    expected = outcome(lambda: reference(body), ValueError, RecursionError)
    if found is not None:
        assert expected is not None and same(found[0], expected[0])
        assert same(strict.decode(msgspec.json.encode(found[0])), found[0])
    elif expected is not None:
        assert outcome(lambda: strict.decode(body), Malformed) is not None, "refused for more than its size"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "LEAST_NUMBERS", 1)
        patch.setattr(numbers, "LEAST_BYTES_PER_STRING", 0)
        quick = outcome(lambda: numbers.decode(body, TENSOR_FIELDS, MOST), numbers.Unusual, TooMuch)
    if quick is not None:
        assert expected is not None and same(rounded(quick[0]), rounded(expected[0]))


def listed(value: Any) -> Any:
    """The same with lists in place of arrays."""
    if isinstance(value, dict):
        return {name: listed(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def rounded(value: Any) -> Any:
    """The same with floats alone for numbers, as which arrays hold them."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list | np.ndarray):
        return [rounded(each) for each in value]
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


# MessagePack


def packed(body: bytes) -> None:
    """What is read is what msgspec reads, as strict as JSON; and it is read again from its shortest form."""
    found = outcome(lambda: msgpack.decode(body, MOST), Malformed, TooMuch)
    if found is not None:
        assert same(found[0], msgspec.msgpack.decode(body))
        assert same(msgpack.decode(msgspec.msgpack.encode(found[0]), MOST), found[0])


PACKED = [msgspec.msgpack.encode(json.loads(line)) for line in lines("json") if "1234567890123" not in line]
PACKED += [msgspec.msgpack.encode({"x": {"data": bytes(40), "s": "é" * 40}, "many": list(range(-200, 900, 60))})]
PACKED += [b"\xde\x00\x01\xd9\x01a\xdd\x00\x00\x00\x02\xca\x3f\x80\x00\x00\xd3" + bytes(8), b"\x81\xa1a\xd4\x05a"]


# Compression


def _expanded(coding: str) -> Callable[[bytes], None]:
    def target(body: bytes) -> None:
        found = outcome(lambda: expand(body, coding, EXPANDED), Malformed, TooLarge)
        if found is None:
            return
        assert len(found[0]) <= EXPANDED
        whole = (
            gzip.decompress(body) if coding == "gzip" else zstandard.ZstdDecompressor().decompressobj().decompress(body)
        )
        assert found[0] == whole

    return target


gzipped, zstandardised = _expanded("gzip"), _expanded("zstd")
PLAIN = [b"", b"{}", "\n".join(lines("json")).encode(), bytes(EXPANDED + 1), bytes(EXPANDED)]
GZIPPED = [gzip.compress(each, level, mtime=0) for each in PLAIN for level in (0, 9)]
GZIPPED += [zlib.compress(b"{}"), gzip.compress(b"a") + gzip.compress(b"b")]
ZSTANDARD = [
    zstandard.ZstdCompressor(level=1, write_content_size=told).compress(each) for each in PLAIN for told in (0, 1)
]


# Tensors


def tensor(body: bytes) -> None:
    """A tensor is read or refused, and what was read comes back from what is written, bit for bit."""
    value = outcome(lambda: strict.decode(body, MOST), Malformed, TooMuch)
    found = value and outcome(lambda: read_tensor(value[0]), EngineError)
    if found is None:
        return
    read: Tensor = found[0]
    for encoding in ("json", "base64"):
        again = read_tensor(strict.decode(json.dumps(listed(write_tensor(read.array, encoding))).encode()))
        assert (again.array.dtype, again.array.shape) == (read.array.dtype, read.array.shape)
        assert np.array_equal(again.array, read.array, equal_nan=read.array.dtype.kind in "fc")


# Expressions

LIMITS = Limits(nodes=2000)


def expression(text: str) -> None:
    """A text is read, and its printed form as the same; or refused at a place that it has."""
    try:
        program = parse(text, LIMITS)
    except ExpressionError as error:
        assert error.line is not None and 1 <= error.line <= 1 + len(text.splitlines())
        return
    except EngineError as error:
        assert error.detail
        return
    printed = print_program(program)
    assert print_program(parse(printed, LIMITS)) == printed


_NAME = st.sampled_from(["x", "y", "A", "f", "`a b`", "pi", "out", *sorted(op.name for op in ops)[::17]])
_ATOM = _NAME | st.sampled_from(
    ["1", "2.5", ".5e-3", "3j", "True", "[1, 2]", '"ij,jk->ik"', "[[1.0], [x]]", "None", "..."]
)
_CALLS = [op.name for op in ops]


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operator = st.sampled_from(["+", "-", "*", "/", "//", "%", "@", "**", "<", "==", "&", "|", "^"])
    return st.one_of(
        st.tuples(inner, operator, inner).map(" ".join),
        inner.map("({})".format),
        st.tuples(st.sampled_from("-+~"), inner).map("".join),
        st.tuples(inner, inner).map(lambda two: "{}[{}]".format(*two)),
        st.tuples(inner, st.lists(inner, max_size=3).map(":".join)).map(lambda two: "{}[{}]".format(*two)),
        st.tuples(st.sampled_from(_CALLS), st.lists(inner, max_size=3).map(", ".join)).map(
            lambda two: "{}({})".format(*two)
        ),
        st.tuples(st.sampled_from(_CALLS), inner, st.sampled_from(["axis", "shape", "dtype", "k"]), inner).map(
            lambda four: "{}({}, {}={})".format(*four)
        ),
    )


_EXPRESSION = st.recursive(_ATOM, _larger, max_leaves=12)
_STATEMENT = st.one_of(
    _EXPRESSION,
    st.tuples(_NAME, _EXPRESSION).map(" = ".join),
    st.tuples(_NAME, _NAME, _EXPRESSION).map(lambda three: "{}({}) = {}".format(*three)),
    st.tuples(_NAME, _NAME, _EXPRESSION).map(lambda three: "{}, {} = {}".format(*three)),
)
GRAMMATICAL = st.lists(_STATEMENT, min_size=1, max_size=4).map("\n".join)
EXPRESSIONS = [line.replace("\\n", "\n") for line in lines("expressions")]

TARGETS: dict[str, tuple[Callable[[Any], None], st.SearchStrategy[Any]]] = {
    "json": (json_body, edited_bytes([line.encode() for line in lines("json")])),
    "msgpack": (packed, edited_bytes(PACKED)),
    "gzip": (gzipped, edited_bytes(GZIPPED)),
    "zstd": (zstandardised, edited_bytes(ZSTANDARD)),
    "tensors": (tensor, edited_bytes([line.encode() for line in lines("tensors")])),
    "texts": (expression, edited_text(EXPRESSIONS)),
    "expressions": (expression, GRAMMATICAL),
    "characters": (expression, st.text(max_size=40)),
    "bytes": (
        lambda body: [each(body) for each in (json_body, packed, gzipped, zstandardised)],
        st.binary(max_size=60),
    ),
}
"""By name: what must hold, and of what."""
