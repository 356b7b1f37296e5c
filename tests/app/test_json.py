"""What is JSON and what is not; and that no form of it, however odd, does more than be refused."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wire.forms import Malformed
from app.wire.json import LARGE, decode
from tests.app.mutations import PATHS
from tests.app.support import ask, post, problem, refused
from tests.conftest import AppClient

CALLS = sorted(PATHS.values())

NOT_JSON = {
    "empty": b"",
    "blank": b" \n",
    "cut": b'{"expression": "x"',
    "two": b"{}{}",
    "trailing words": b"{} x",
    "NaN": b'{"inputs": {"x": NaN}}',
    "Infinity": b'{"inputs": {"x": -Infinity}}',
    "overflow": b'{"inputs": {"x": 1e400}}',
    "endless integer": b'{"inputs": {"x": ' + b"9" * 5000 + b"}}",
    "trailing comma in a list": b'{"inputs": {"x": [1,]}}',
    "trailing comma in an object": b'{"expression": "x",}',
    "byte-order mark": b'\xef\xbb\xbf{"expression": "x"}',
    "invalid UTF-8": b'{"expression": "\xff"}',
    "overlong UTF-8": b'{"expression": "\xc0\xaf"}',
    "UTF-16": '{"expression": "x"}'.encode("utf-16"),
    "lone surrogate": b'{"expression": "\\ud800"}',
    "lone surrogate as a name": b'{"inputs": {"\\udfff": 1}}',
    "leading zero": b'{"inputs": {"x": 01}}',
    "leading plus": b'{"inputs": {"x": +1}}',
    "no digit before the point": b'{"inputs": {"x": .5}}',
    "hexadecimal": b'{"inputs": {"x": 0x10}}',
    "single quotes": b"{'expression': 'x'}",
    "name without quotes": b'{expression: "x"}',
    "comment": b'{"expression": "x"} // done',
    "control character": b'{"expression": "\n"}',
    "NUL": b"\x00",
    "deeper than any stack": b"[" * 200_000 + b"]" * 200_000,
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_refused(client: httpx.Client, body: bytes) -> None:
    found = refused(client, "/grad", body, "invalid_json")
    assert found["status"] == 400
    assert found["pointer"] is None


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_not_so_in_a_large_body_either(client: httpx.Client, body: bytes) -> None:
    """Another parser reads these first."""
    zeros = b'"z": [' + b"0.5, " * (LARGE // 5) + b"1]"
    for large in (body.replace(b"{", b'{"inputs": {%s}, ' % zeros, 1), body + b" " * LARGE):
        if large != body + b" " * LARGE or b"{" not in body or body == b"{}{}":
            refused(client, "/grad", large, "invalid_json")


REPEATED = {
    "at the root": (b'{"expression": "x", "expression": "y"}', "/expression"),
    "inside": (b'{"expression": "x", "inputs": {"x": 1, "x": 2}}', "/inputs/x"),
    "as an escape": (b'{"inputs": {"x": 1, "\\u0078": 2}}', "/inputs/x"),
    "in a node": (
        b'{"graph": {"nodes": [{"id": "y"}, {"id": "y", "attrs": {"a~/": 1, "a~/": 1}}]}}',
        "/graph/nodes/1/attrs/a~0~1",
    ),
    "in a tensor": (b'{"inputs": {"x": {"data": [1, 2], "data": [1, 2]}}}', "/inputs/x/data"),
    "beside colons": (b'{"expression": "x[1:2]", "inputs": {"::": ":", "x": 1, "x": ":"}}', "/inputs/x"),
    "made up for by an escape": (b'{"inputs": {"x": 1, "x": "\\u003a"}}', "/inputs/x"),
    "made up for in capitals": (b'{"inputs": {"x": 1, "x": "\\u003A"}}', "/inputs/x"),
    "within what is dropped": (b'{"inputs": {"x": {"a": 1, "a": 1}}, "inputs": {}}', "/inputs"),
    "without a name": (b'{"": 1, "": 2}', "/"),
}


@pytest.mark.parametrize(("body", "pointer"), REPEATED.values(), ids=REPEATED)
@pytest.mark.parametrize("is_large", [False, True])
def test_a_name_stands_once_in_an_object(client: httpx.Client, body: bytes, pointer: str, is_large: bool) -> None:
    if is_large:
        body = body[:-1] + b', "vectors": {"z": [%s1]}}' % (b"0.5, " * (LARGE // 5))
    found = refused(client, "/grad", body, "invalid_json")
    assert (found["status"], found["pointer"]) == (400, pointer)
    assert "twice" in found["detail"]


TREES = st.recursive(
    st.sampled_from([1, ":", "a:b", "\\u003a", '"', "\\", None]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from("ab:"), inner), max_size=3),
    max_leaves=8,
)


def written(tree: Any) -> str:
    """A tree as JSON, in which lists of pairs are objects, whatever their names."""
    if isinstance(tree, list) and tree and all(isinstance(each, tuple) for each in tree):
        return "{" + ", ".join(f"{json.dumps(name)} : {written(each)}" for name, each in tree) + "}"
    return "[" + ",".join(map(written, tree)) + "]" if isinstance(tree, list) else json.dumps(tree)


def repeats(tree: Any) -> bool:
    if not isinstance(tree, list):
        return False
    pairs = [each for each in tree if isinstance(each, tuple)]
    inner = [each[1] if isinstance(each, tuple) else each for each in tree]
    return len(dict(pairs)) < len(pairs) or any(map(repeats, inner))


@given(TREES)
def test_a_repeated_name_is_found_wherever_it_stands_and_nowhere_else(tree: Any) -> None:
    text = written(tree).encode()
    if repeats(tree):
        with pytest.raises(Malformed, match="twice"):
            decode(text)
    else:
        assert decode(text) == json.loads(text)


@pytest.mark.parametrize("part", [b"[],", b"{},", b'"a",', b"null,"])
def test_values_that_take_much_more_memory_than_bytes_are_counted(app_client: AppClient, part: bytes) -> None:
    client = app_client(body_values=20_000)
    for count, status in ((9_000, 422), (30_000, 413)):
        found = problem(post(client, "/grad/value", b'{"inputs": {"x": [' + part * count + b"1]}}"))
        assert found["status"] == status
    assert found["limit"]["name"] == "body_values"


def test_long_lists_of_numbers_are_not_counted(app_client: AppClient) -> None:
    body = {"expression": "sum(x)", "inputs": {"x": [[0.5] * 1000] * 30}}
    assert ask(app_client(body_values=20_000), "/grad/value", body)["values"]["out"]["data"] == 15_000


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("body", [b"null", b"[]", b"3", b'"x"', b"true", b"[{}]"])
def test_a_body_is_an_object(client: httpx.Client, path: str, body: bytes) -> None:
    found = refused(client, path, body, "invalid_request")
    assert found["pointer"] == ""


@pytest.mark.parametrize("path", CALLS)
def test_an_object_with_nothing_in_it_is_no_request(client: httpx.Client, path: str) -> None:
    refused(client, path, {}, "invalid_request")


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize("name", ["speed", "__proto__", "a/b~c", "x[0]", "", "é", "Inputs"])
def test_an_unknown_field_is_refused_by_name(client: httpx.Client, path: str, name: str) -> None:
    body = {"expression": "x", name: 1}
    found = problem(post(client, path, body))
    assert found["code"] == "invalid_request"
    pointers = [found["pointer"], *(each["pointer"] for each in found["errors"])]
    assert "/" + name.replace("~", "~0").replace("/", "~1") in pointers


@pytest.mark.parametrize(("levels", "status"), [(63, 422), (64, 422), (65, 400), (66, 400)])
def test_nesting_is_counted_with_the_body_itself(client: httpx.Client, levels: int, status: int) -> None:
    tensor: Any = 1
    for _ in range(levels - 2):
        tensor = [tensor]
    found = problem(post(client, "/grad/value", {"expression": "x", "inputs": {"x": tensor}}))
    assert found["status"] == status
    assert found["limit"]["name"] == ("rank" if status == 422 else "json_nesting")


def test_nesting_of_objects_counts_too(app_client: AppClient) -> None:
    client = app_client(json_nesting=3)
    ask(client, "/grad/value", {"expression": "x", "inputs": {"x": {"data": 1}}})
    found = refused(client, "/grad/value", {"expression": "x", "inputs": {"x": {"data": [1]}}}, "limit_exceeded")
    assert found["limit"] == {"name": "json_nesting", "max": 3, "actual": 4}


WRONG: list[Any] = [None, True, 3, -1.5, "q", [], [1], ["q"], {}, {"q": 1}, [[]]]
HARMLESS: dict[str, tuple[Any, ...]] = {
    "inputs": (None,),
    "include": ([],),
    "wrt": ([],),
    "batch": ([],),
    "timeout": (3,),
    "grad_outputs": ({},),
    "accumulate": ({},),
    "order": (3,),
    "name": ("q",),
    "sparse": (True,),
}
"""Values out of these that a field may have in some call; null stands for absence where absence is allowed."""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (path, name)
        for model, path in PATHS.items()
        for name in model.model_fields
        if (path, name) != ("/grad/value", "wrt")  # nothing is differentiated there
    ],
)
def test_a_field_of_the_wrong_type_is_refused(client: httpx.Client, path: str, name: str) -> None:
    for value in WRONG:
        # 1 is equal to True, and another value in JSON.
        if value is None or any(
            value is each or (value == each and value is not True) for each in HARMLESS.get(name, ())
        ):
            continue
        body = {"expression": "x + z", "inputs": {"x": 1, "z": 2}, name: value}
        assert 400 <= problem(post(client, path, body))["status"] < 500, value


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/grad/nth", "order", "2"),
        ("/grad/nth", "order", True),
        ("/grad/nth", "order", 1.5),
        ("/grad/check", "order", "1"),
        ("/grad/check", "order", True),
        ("/grad/value", "timeout", "5"),
        ("/grad/value", "timeout", True),
    ],
)
def test_text_and_booleans_are_no_numbers(client: httpx.Client, path: str, field: str, value: Any) -> None:
    found = refused(client, path, {"expression": "x", "inputs": {"x": 1}, field: value}, "invalid_request")
    assert found["pointer"] == f"/{field}"


HUGE = [2**63, 2**64, 10**30, 10**400, -(10**30)]


@pytest.mark.parametrize("huge", HUGE, ids=lambda huge: f"{float(str(huge)[:300]):.0e}")
def test_huge_integers_are_refused_wherever_they_stand(client: httpx.Client, huge: int) -> None:
    """They fit neither int64 nor, some of them, a float; and JSON writers have limits of their own."""
    bodies: list[tuple[str, Any]] = [
        ("/grad/nth", {"expression": "sin(x)", "inputs": {"x": 1}, "order": huge}),
        ("/grad/taylor", {"expression": "sin(x)", "inputs": {"x": 1}, "direction": {"x": 1}, "order": huge}),
        ("/grad/check", {"expression": "x", "inputs": {"x": 1}, "order": huge}),
        ("/grad/value", {"expression": "x", "inputs": {"x": {"data": huge, "dtype": "int64"}}}),
        ("/grad/value", {"expression": "x", "inputs": {"x": {"data": [1], "shape": [huge]}}}),
        ("/grad/value", {"graph": {"nodes": [{"id": "y", "op": "zeros", "attrs": {"shape": [huge]}}]}}),
        ("/grad/value", {"graph": {"nodes": [{"id": "y", "op": "eye", "attrs": {"n_rows": huge}}]}}),
        ("/grad/value", {"graph": {"nodes": [{"id": "y", "op": "sum", "inputs": [1], "attrs": {"axis": huge}}]}}),
        ("/graphs/inspect", {"expression": "x", "inputs": {"x": {"shape": [huge]}}}),
    ]
    for path, body in bodies:
        assert 400 <= problem(post(client, path, body))["status"] < 500


@pytest.mark.parametrize("huge", [10**30, 10**400], ids=["1e30", "1e400"])
def test_huge_integers_as_real_attributes_are_rounded_or_refused(client: httpx.Client, huge: int) -> None:
    for op, attrs in (("grad_scale", {"scale": huge}), ("pad", {"pad_width": 1, "constant_values": huge})):
        graph = {"nodes": [{"id": "y", "op": op, "inputs": ["x"], "attrs": attrs}]}
        response = post(client, "/grad/value", {"graph": graph, "inputs": {"x": [1]}, "include": ["nodes"]})
        assert response.status_code == 200 or problem(response)["status"] < 500
