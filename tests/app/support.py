"""How tests ask, and what every problem must be."""

from __future__ import annotations

import json
from typing import Any

import httpx

from app.http.problems import MEDIA_TYPE
from app.problems import CODES

FIELDS = {"type", "title", "status", "detail", "instance", "code", "pointer"}
"""What every problem has."""
SOMETIMES = {"node", "limit", "line", "column", "errors", "checks"}
"""What a problem has where it makes sense."""
LIMITED = {"limit_exceeded", "rate_limited", "deadline_exceeded"}
"""Codes of a limit that is always named; `overloaded` has one where a setting decides."""
DOWN = "x - 1 + 0 * sum(sin(x * linspace(0, 1, 1000)))"
LOOP: dict[str, Any] = {
    "expression": f"more(x) = x > 0\ndown(x) = {DOWN}\nwhile_loop(more, down, x)",
    "inputs": {"x": 900_000},
}
"""Some ten seconds of work that looks at its clock, for a worker."""
ECHO = 200
"""Characters of the request that a detail may repeat."""


def ask(client: httpx.Client, path: str, body: Any, **options: Any) -> Any:
    """The answer to a request that is served, from a body of plain values or bytes."""
    response = post(client, path, body, **options)
    assert response.status_code in (200, 201), response.text[:2000]
    assert response.headers["content-type"] == "application/json"
    return response.json()


def post(client: httpx.Client, path: str, body: Any, **options: Any) -> httpx.Response:
    """The response to a body of plain values, or of bytes as they are."""
    content = body if isinstance(body, bytes) else json.dumps(body, allow_nan=False).encode()
    headers = {"Content-Type": "application/json"} | options.pop("headers", {})
    return client.post(path, content=content, headers=headers, **options)


def refused(client: httpx.Client, path: str, body: Any, code: str, **options: Any) -> dict[str, Any]:
    """The problem of a request that is refused with this code; its form is checked."""
    response = post(client, path, body, **options)
    found = problem(response)
    assert found["code"] == code, response.text[:2000]
    if isinstance(body, dict) and found["pointer"] is not None:
        assert resolves(found["pointer"], body), f"{found['pointer']} leads nowhere"
    return found


def problem(response: httpx.Response) -> dict[str, Any]:
    """The problem that a response is. Its form is checked against RFC 9457 and the table of codes."""
    assert response.headers["content-type"] == MEDIA_TYPE, response.text[:2000]
    found: dict[str, Any] = response.json()
    assert found.keys() >= FIELDS, f"{FIELDS - found.keys()} are missing"
    assert found.keys() <= FIELDS | SOMETIMES, f"{found.keys() - FIELDS - SOMETIMES} are unknown"
    assert found["code"] in CODES
    assert found["type"] == f"/errors#{found['code']}"
    assert found["title"] == CODES[found["code"]].title
    assert found["status"] == response.status_code
    assert found["detail"] and "\n" not in found["detail"]
    assert found["code"] == "overloaded" or ("limit" in found) == (found["code"] in LIMITED)
    if "limit" in found:
        assert found["limit"].keys() == {"name", "max", "actual"}
        assert found["limit"]["actual"] > found["limit"]["max"]
    if found["code"] == "syntax_error":
        assert found["line"] >= 1 and found["column"] >= 1
    return found


def resolves(pointer: str, body: Any) -> bool:
    """Whether a JSON pointer (RFC 6901) leads to a part of `body`, or to where an absent member would stand."""
    tokens = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")]
    if tokens.pop(0) != "":
        return False
    for at, token in enumerate(tokens):
        if isinstance(body, dict):
            if token not in body:
                return at == len(tokens) - 1
            body = body[token]
        elif isinstance(body, list) and token.isdecimal() and int(token) < len(body):
            body = body[int(token)]
        else:
            return False
    return True


def at(pointer: str, body: Any) -> Any:
    """The part of `body` that a pointer leads to."""
    for token in pointer.split("/")[1:]:
        body = body[int(token)] if isinstance(body, list) else body[token.replace("~1", "/").replace("~0", "~")]
    return body


def node(name: str, op: str, *inputs: Any, **attrs: Any) -> dict[str, Any]:
    """A node of a posted graph."""
    return {"id": name, "op": op, "inputs": list(inputs)} | ({"attrs": attrs} if attrs else {})


def graph(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), **more}
