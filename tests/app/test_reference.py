"""What the service tells of itself: ops, limits. Each is read out of the table that owns it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import httpx
import jsonschema
import pytest

import engine.ops  # noqa: F401 - fills the catalogue
from app.settings import Settings
from engine.core import Op, ops
from engine.limits import Limits
from tests.app.support import ask, problem
from tests.conftest import AppClient

KINDS = {"elementwise", "linear", "bilinear", "control", "custom", "composite", "zero"}
NAMES = [(op, name) for op in ops for name in (op.name, *op.aliases)]


def test_the_catalogue_is_complete(client: httpx.Client) -> None:
    found = client.get("/ops").json()
    assert [each["name"] for each in found["ops"]] == [op.name for op in ops]
    assert found["count"] == len(found["ops"])


@pytest.mark.parametrize(("op", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_op_is_shown_under_each_of_its_names(client: httpx.Client, op: Op, name: str) -> None:
    found = client.get(f"/ops/{name}").json()
    assert (found["name"], found["doc"]) == (op.name, op.doc)
    assert found["arity"] == (None if op.is_variadic else len(op.operands))
    assert [each["name"] for each in found["operands"]] == [each.name for each in op.operands]
    assert list(found["attributes"]) == list(op.attrs)
    assert found["derivative"] in KINDS
    assert found["differentiable"] == (found["derivative"] != "zero")
    assert found["grad_fn"].endswith("Backward0")
    assert found["doc"].endswith(".") and found["family"] and found["example"]


def test_the_schema_of_an_attribute_takes_its_default(client: httpx.Client) -> None:
    for op in client.get("/ops").json()["ops"]:
        for name, attribute in op["attributes"].items():
            jsonschema.Draft202012Validator.check_schema(attribute["schema"])
            assert attribute["required"] == ("default" not in attribute), (op["name"], name)
            if not attribute["required"]:
                jsonschema.validate(attribute["default"], attribute["schema"])


@pytest.mark.parametrize("op", list(ops), ids=[op.name for op in ops])
def test_the_example_of_an_op_parses(client: httpx.Client, op: Op) -> None:
    found = client.get(f"/ops/{op.name}").json()
    counts = ask(client, "/graphs/inspect", {"expression": found["example"]})["ops"]
    assert op.name in counts


def test_an_op_that_is_not_offered_is_answered_with_the_reason(client: httpx.Client) -> None:
    assert "depends on values" in problem(client.get("/ops/nonzero"))["detail"]


def test_limits_are_listed_with_their_meaning(client: httpx.Client) -> None:
    found = {row["name"]: row for row in client.get("/limits").json()["limits"]}
    settings = Settings()
    for each in fields(Limits):
        assert found[each.name]["max"] == getattr(settings.limits, each.name)
        assert found[each.name]["doc"] == each.metadata["doc"]
    for name in ("seconds", "body_bytes", "url_bytes", "answer_bytes", "json_nesting"):
        assert found[name]["max"] == getattr(settings, name)
        assert found[name]["doc"]


def test_limits_are_those_of_this_service(app_client: AppClient) -> None:
    client = app_client(body_bytes=123, limits=Limits(nodes=7))
    found: dict[str, Any] = {row["name"]: row["max"] for row in client.get("/limits").json()["limits"]}
    assert (found["body_bytes"], found["nodes"]) == (123, 7)
