"""Small requests that ask for the world: each is answered with its code, at once, in next to no memory.

What a request would become counts, not what was sent. Memory is what NumPy and Python report to tracemalloc. The time
is printed (`-s`), and held to a bound that only a machine that stands still breaks.
"""

from __future__ import annotations

import base64
import gzip
import json
import time
import tracemalloc
import zlib
from typing import Any, NamedTuple

import pytest
import zstandard

from tests.app.support import graph, node, post, problem
from tests.conftest import AppClient
from tests.support.memory import measured

MEMORY = 64 << 20
SECONDS = 2.0

OK, LIMIT, NO_TENSOR = "", "limit_exceeded", "invalid_tensor"


class Bomb(NamedTuple):
    """A request, and the code that answers it; OK where it is harmless after all. `limit` is the one that it breaks."""

    name: str
    body: dict[str, Any]
    code: str = LIMIT
    limit: str = ""
    path: str = "/grad/value"


def text(
    name: str, expression: str, code: str = LIMIT, limit: str = "", path: str = "/grad/value", **more: Any
) -> Bomb:
    return Bomb(name, {"expression": expression, "inputs": {"x": 2}} | more, code, limit, path)


def vector(size: int) -> dict[str, Any]:
    """Zeros, as base64: what is long as JSON is no small request."""
    return {"b64": base64.b64encode(bytes(size * 8)).decode(), "dtype": "float64", "shape": [size]}


def matrix(rows: int, columns: int) -> dict[str, Any]:
    return vector(rows * columns) | {"shape": [rows, columns]}


def calls_of_calls(depth: int) -> str:
    """Each function calls the one before twice."""
    lines = [f"f{at}(x) = f{at - 1}(f{at - 1}(x)) + f{at - 1}(x)" if at else "f0(x) = sin(x)" for at in range(depth)]
    return "\n".join([*lines, f"f{depth - 1}(x)"])


def loops_of_loops(depth: int) -> str:
    lines = [f"f{at}(x) = scan(f{at - 1}, x, length=1000000)" if at else "f0(x) = sin(x)" for at in range(depth)]
    return "\n".join([*lines, f"f{depth - 1}(x)"])


MANY_OUTPUTS = graph(*(node(f"n{i}", "sin", 1) for i in range(1_000)), outputs=[f"n{i}" for i in range(1_000)])
OPERANDS = 14

BOMBS = [
    # Out of nothing
    text("zeros", "zeros([100000, 100000])", limit="elements"),
    text("ones", "ones([2147483647, 2147483647, 2147483647])", limit="elements"),
    text("full", "full([1000000, 1000000], 3)", limit="elements"),
    text("eye", "eye(1000000)", limit="elements"),
    text("eye-overflows", "eye(9223372036854775807)", limit="dimension"),
    text("arange", "arange(1000000000000)", limit="dimension"),
    text("arange-steps", "arange(0, 1, 1e-12)", limit="dimension"),
    text("arange-endless", "arange(0, 1e308, 1e-300)"),
    text("linspace", "linspace(0, 1, 1000000000)", limit="elements"),
    text("identity-of-identities", "kron(eye(10000), eye(10000))", limit="elements"),
    text("sum-of-ones", "sum(ones([1000000000]))", limit="elements"),
    text("random-name", "rand([100000, 100000])", "unknown_op"),
    text("hann", "hann_window(1000000000000)", "unknown_op"),
    # Out of little
    text("repeat", "repeat([1, 2], 1000000000)", limit="elements"),
    text("tile", "tile([1, 2], [100000, 100000])", limit="elements"),
    text("pad", "pad([1], 1000000000)", limit="elements"),
    text("outer", "outer(arange(1000000), arange(1000000))", limit="elements"),
    text("broadcast", "broadcast_to(1, [1000000, 1000000])", limit="elements"),
    text("broadcast-sum", "sum(broadcast_to(1, [1000000, 1000000]))", limit="elements"),
    text("added-crosswise", "a = arange(1000000)\nreshape(a, [-1, 1]) + a", limit="elements"),
    text("one-hot", "one_hot([1, 2], num_classes=1000000000)", limit="elements"),
    text("kron", "kron(arange(100000), arange(100000))", limit="elements"),
    text("vander", "vander(arange(100000), 100000)", limit="elements"),
    text("diag", "diag(arange(1000000))", limit="elements"),
    text("diag-embed", "diag_embed(arange(1000000))", limit="elements"),
    text("triu", "triu(ones([100000, 100000]))", limit="elements"),
    text("unfold", "unfold(ones([1, 1, 2000, 2000]), kernel_size=1000)", limit="elements"),
    text("concat", "a = ones([90000000])\nconcat([a, a], axis=0)"),
    text("stack", "a = ones([50000000])\nstack([a, a, a], axis=0)"),
    text("peak", "a = arange(90000000)\nsum(sort(sin(a)))", limit="peak_bytes"),
    text("meshgrid", "a = arange(100000)\nmeshgrid(a, a)"),
    text("distances", "a = reshape(arange(100000), [-1, 1])\ncdist(a, a)", limit="elements"),
    text("one-to-many-gather", "take([1, 2], zeros([1000000000], dtype='int64'), axis=0)", limit="elements"),
    text("matmul-of-columns", "ones([1000000, 1]) @ ones([1, 1000000])", limit="elements"),
    text("tensordot", "tensordot(ones([10000]), ones([100000]), axes=0)", limit="elements"),
    text("einsum-outer", "einsum('i,j,k->ijk', arange(10000), arange(10000), arange(10000))", limit="elements"),
    text("einsum-operands", f"einsum('{','.join(['ab'] * OPERANDS)}->', {', '.join(['[[1]]'] * OPERANDS)})"),
    text("index-of-ellipses", "x[..., " + "None, " * 40 + "]", limit="rank"),
    text("deep-shape", f"ones({[1] * 60})", limit="rank"),
    text("scatter", "scatter_add(zeros([1000000000]), [0], [1.0], axis=0)", limit="elements"),
    text("one-hot-of-loop", "f(x) = sum(one_hot([1], num_classes=1000000000))\nscan(f, x, length=1)"),
    # Shapes that overflow
    text("reshape-empty", "reshape(zeros([0]), [2147483647, 2147483647, 0])", NO_TENSOR),
    text("zeros-empty", "zeros([0, 2147483647, 2147483647, 2147483647, 2147483647])"),
    text("zero-beside-2-62", "zeros([0, 4611686018427387904])", code="invalid_graph"),
    text("axis-2-31", "sum(zeros([0, 2147483648]))", "invalid_graph"),
    text("negative", "zeros([-1, 5])", "invalid_graph"),
    Bomb("input-empty", {"expression": "x", "inputs": {"x": {"data": [], "shape": [0, 2**62]}}}, NO_TENSOR),
    Bomb("input-shape", {"expression": "x", "inputs": {"x": {"data": [1], "shape": [2**40]}}}, NO_TENSOR),
    Bomb(
        "input-overflows", {"expression": "x", "inputs": {"x": {"data": [1], "shape": [2**33] * 8}}}, "invalid_tensor"
    ),
    # Numbers
    text("tower", "9**9**9", OK),
    text("taller-tower", "9**9**9**9**9", OK),
    text("power", "x**999999999", limit="constant_exponent"),
    text("integer-power", "x**9**9**9", OK),
    text("digits", "1" * 60_000, "syntax_error"),
    text("exponent-of-a-number", "1e999999999", "syntax_error"),
    text("factorial", "gamma(171.5) ** 1024", OK),
    text("shift", "x << 1000000000", "syntax_error"),
    text("denormals", "sum(arange(100000) * 1e-320)", OK),
    Bomb("long-integer", {"graph": graph(node("y", "add", "x", 10**4000)), "inputs": {"x": 1}}, "dtype_mismatch"),
    # What takes long
    text("convolution", "conv1d(ones([1, 1, 1000000]), ones([1, 1, 1000000]), padding=500000)", limit="cost_seconds"),
    text("convolution-wide", "conv2d(ones([1, 1, 9000, 9000]), ones([1, 1, 3000, 3000]))", limit="peak_bytes"),
    text("fft-of-a-prime", "sum(abs(fft(ones([67867967]))))"),
    text("large-solve", "solve(ones([100000, 100]), ones([100000, 100]))", limit="linalg_dimension"),
    text("large-inverse", "inv(ones([2049, 2049]))", limit="linalg_dimension"),
    text("many-inverses", "inv(ones([20, 2000, 2000]))"),
    text("large-svd", "svd(ones([2048, 2048, 4]))"),
    text("large-products", "a = ones([9000, 9000])\n" + "b = a @ a\n" * 1 + "sum(b @ b)"),
    text("long-loop", "f(x) = sin(x)\nscan(f, x, length=1000000000)", limit="loop_steps"),
    text("loop-in-loop", loops_of_loops(3), limit="cost_seconds"),
    text("loops-within", loops_of_loops(20), limit="cost_seconds"),
    text(
        "large-stack",
        "f(h) = h, h * 2\nlast, all = scan(f, ones([1000000]), length=100000)\nsum(all)",
        limit="elements",
    ),
    text("loop-of-large-steps", "f(h) = sin(h)\nsum(scan(f, ones([10000000]), length=10000))", limit="cost_seconds"),
    text("functions-of-functions", calls_of_calls(30), limit="expanded_nodes"),
    text("sort", "f(h) = sort(h)\nsum(scan(f, ones([10000000]), length=100))", limit="cost_seconds"),
    # Derivatives
    text("taylor", "exp(sin(x))", limit="taylor_order", path="/grad/nth", order=10_000),
    Bomb(
        "path",
        {"expression": "exp(x)", "inputs": {"x": 1}, "path": ["x"] * 100},
        limit="nested_order",
        path="/grad/nth",
    ),
    Bomb("jacobian", {"expression": "sin(x) * sum(x)", "inputs": {"x": vector(100_000)}}, path="/grad/jacobian"),
    Bomb("jacobian-of-an-outer", {"expression": "outer(x, x)", "inputs": {"x": vector(3_000)}}, path="/grad/jacobian"),
    Bomb("hessian", {"expression": "sum(x)**2", "inputs": {"x": vector(100_000)}}, path="/grad/hessian"),
    Bomb(
        "tensors",
        {"expression": "sum(x)**4", "inputs": {"x": vector(500)}, "order": 4},
        path="/grad/tensors",
    ),
    Bomb(
        "batch",
        {"expression": "x * ones([100000])", "inputs": {"x": vector(10_000)}, "batch": ["x"], "grad_outputs": "ones"},
        limit="elements",
        path="/grad",
    ),
    Bomb(
        "tensors-of-outputs", {"expression": "sin(x)", "inputs": {"x": vector(2_000)}, "order": 3}, path="/grad/tensors"
    ),
    Bomb(
        "jacobians",
        {"expression": "sin(x) * sum(x)", "inputs": {"x": matrix(100, 2_000)}, "batch": ["x"]},
        limit="elements",
        path="/grad/jacobian",
    ),
    Bomb(
        "laplacian",
        {"expression": "prod(x)", "inputs": {"x": vector(100_000)}},
        limit="cost_seconds",
        path="/grad/laplacian",
    ),
    Bomb(
        "order",
        {"expression": "x", "inputs": {"x": 1}, "order": 10**400},
        limit="taylor_order",
        path="/grad/nth",
    ),
    Bomb(
        "loop-backwards",
        {"expression": "f(h) = sin(h)\nsum(scan(f, x, length=1000000))", "inputs": {"x": vector(1_000)}},
        path="/grad",
    ),
    # Text
    text("brackets", "(" * 10_000 + "x" + ")" * 10_000, limit="expression_nesting"),
    text("lists", "[" * 10_000 + "1" + "]" * 10_000, limit="expression_nesting"),
    text("powers", "x" + "**x" * 1_000, OK),
    text("signs", "-" * 1_000 + "x", OK),
    text("sums", "x" + "+x" * 1_000, OK),
    text("characters", "x" * 100_000, limit="expression_characters"),
    text("a-long-name", "y" * 60_000, "syntax_error"),
    text("many-functions", "\n".join(f"f{at}(x) = x" for at in range(1_000)) + "\nx", limit="functions"),
    text("a-function-of-itself", "f(x) = f(x)\nf(x)", "unknown_op"),
    text("strings", "einsum('" + "i" * 60_000 + "', x)", "shape_mismatch"),
    text("arity", f"concat([{', '.join('x' * 10_000)}], axis=0)", limit="arity"),
    text("operands", f"max({', '.join('x' * 10_000)})", "syntax_error"),
    text("a-list-of-names", f"sum([{','.join('x' * 30_000)}])", limit="arity"),
    text("lists-of-names", f"sum([{','.join(['[x]'] * 15_000)}])", limit="arity"),
    text("parameters", f"f({','.join(f'a{at}' for at in range(10_000))}) = a0\nf(x)", "syntax_error"),
    text("a-parameter-often", f"f({','.join('a' * 30_000)}) = a\nf(x)", "syntax_error"),
    text("axes", f"sum(x, axis=[{'0,' * 20_000}])", "shape_mismatch"),
    text("tensordot-axes", f"tensordot([1], [1], axes=[[{'0,' * 10_000}], [{'0,' * 10_000}]])", "shape_mismatch"),
    text("a-long-shape", f"reshape(x, [{'1,' * 30_000}])", limit="rank"),
    text("breaks", ";" * 60_000 + "x", OK),
    text("backslashes", "'" + "\\" * 60_000, "syntax_error"),
    Bomb("operands-of-a-node", {"graph": graph(node("y", "add", *[1] * 100_000))}, limit="arity"),
    Bomb("many-inputs", {"expression": "1", "inputs": {f"x{at}": 1 for at in range(1_000)}}, limit="names"),
    Bomb("many-outputs", {"graph": MANY_OUTPUTS}, limit="names"),
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.name)
def test_a_bomb_goes_out(app_client: AppClient, bomb: Bomb) -> None:
    client, body = app_client(), json.dumps(bomb.body).encode()
    begun = time.perf_counter()
    response = post(client, bomb.path, body)
    seconds = time.perf_counter() - begun
    with measured() as peak:
        assert post(client, bomb.path, body).status_code == response.status_code
    found = {} if response.status_code == 200 else problem(response)
    print(
        f"{bomb.name}: {response.status_code} {found.get('code', '')} {found.get('limit', '')} "
        f"{1e3 * seconds:.0f} ms, {peak() / 2**20:.1f} MiB"
    )
    assert found.get("code", OK) == bomb.code, response.text[:500]
    if bomb.limit:
        assert found["limit"]["name"] == bomb.limit
    assert len(response.content) < 4_000
    assert peak() < MEMORY
    assert seconds < SECONDS


def lists_of(item: bytes, count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4) + item * count


MANY = {
    "empty-bytes": lists_of(b"\xc4\x00", 8 << 20),
    "empty-bytes-of-four": lists_of(b"\xc6\x00\x00\x00\x00", 3 << 20),
    "empty-strings": lists_of(b"\xd9\x00", 8 << 20),
    "empty-lists": lists_of(b"\xdc\x00\x00", 5 << 20),
    "empty-maps": lists_of(b"\x80", 8 << 20),
    "bytes-and-numbers": lists_of(b"\xc4\x00\x01", 5 << 20),
    "open-lists": b"\xdc\x00\x10" * (5 << 20),
}
"""MessagePack of many values that are next to nothing."""


@pytest.mark.parametrize("body", MANY.values(), ids=MANY)
def test_many_short_things_are_not_read_one_by_one(app_client: AppClient, body: bytes) -> None:
    client, headers = app_client(), {"Content-Type": "application/msgpack"}
    begun = time.perf_counter()
    with measured() as peak:
        response = post(client, "/grad", body, headers=headers)
    print(f"{1e3 * (time.perf_counter() - begun):.0f} ms, {peak() / 2**20:.1f} MiB")
    assert problem(response)["limit"]["name"] == "body_values"
    assert peak() < MEMORY


def gzipped() -> bytes:
    """A gibibyte of spaces in a mebibyte."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * (1 << 20)
    return b"".join(packer.compress(block) for _ in range(1_024)) + packer.flush()


def test_a_packed_body_is_not_unpacked_whole(app_client: AppClient) -> None:
    """A gibibyte of spaces in little is unpacked up to the limit of bodies, which a body may have anyway."""
    client, body = app_client(body_bytes=8 << 20), gzipped()
    begun = time.perf_counter()
    with measured() as peak:
        response = post(client, "/grad/value", body, headers={"Content-Encoding": "gzip"})
    print(f"gzip: {1e3 * (time.perf_counter() - begun):.0f} ms, {peak() / 2**20:.1f} MiB")
    found = problem(response)
    assert (found["status"], found["limit"]["name"]) == (413, "body_bytes")
    assert peak() < MEMORY


def streamed() -> bytes:
    """The same by zstd, as a frame that does not say how long it is."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    return b"".join(packer.compress(b" " * (1 << 20)) for _ in range(1_024)) + packer.flush()


@pytest.mark.parametrize("media_type", ["application/json", "application/msgpack"])
@pytest.mark.parametrize("coding", ["gzip", "cut off", "with a small size", "zstd"])
def test_what_is_too_long_is_not_kept(app_client: AppClient, coding: str, media_type: str) -> None:
    """A gibibyte, under the limits that the service has by itself."""
    bombs = {"zstd": streamed, "gzip": gzipped, "cut off": lambda: gzipped()[:-100]}
    body = bombs.get(coding, lambda: gzipped()[:-4] + b"\x07\x00\x00\x00")()
    client = app_client()
    headers = {"Content-Encoding": "zstd" if coding == "zstd" else "gzip", "Content-Type": media_type}
    begun = time.perf_counter()
    with measured() as peak:
        response = post(client, "/grad", body, headers=headers)
    print(f"{1e3 * (time.perf_counter() - begun):.0f} ms, {peak() / 2**20:.1f} MiB")
    assert problem(response)["status"] == 413
    assert peak() < MEMORY


def test_a_size_that_is_not_so_is_refused(app_client: AppClient) -> None:
    body = gzip.compress(b'{"expression": "1"}')
    response = post(app_client(), "/grad/value", body[:-4] + b"\x02\x00\x00\x00", headers={"Content-Encoding": "gzip"})
    assert problem(response)["code"] == "invalid_request"


def test_a_streamed_zstd_bomb_is_not_expanded(app_client: AppClient) -> None:
    """A frame that does not say how long it is becomes a gigabyte of spaces."""
    bomb, client = streamed(), app_client(body_bytes=8 << 20)
    tracemalloc.start()
    try:
        response = post(client, "/grad", bomb, headers={"Content-Encoding": "zstd"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problem(response)["limit"]["name"] == "body_bytes"
    assert peak < 64 << 20
