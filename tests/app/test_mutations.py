"""However a request is broken, the service says what is wrong with it, and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings

from app.main import create_app
from app.settings import Settings
from engine.limits import Limits
from tests.app.mutations import mutated
from tests.app.support import ask, post, problem, resolves
from tests.conftest import InProcess


@pytest.fixture(scope="module")
def quick() -> Iterator[httpx.Client]:
    """The service under limits that keep every answer quick."""
    app = create_app(
        Settings(store="memory", seconds=5, limits=Limits(taylor_order=8, nested_order=5, elements=100_000))
    )
    with httpx.Client(transport=InProcess(app), base_url="http://in-process") as it:
        yield it


@seed(2)
@settings(max_examples=600, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(request=mutated())
def test_a_broken_request_is_answered_or_refused_and_never_crashes(
    quick: httpx.Client, request: tuple[str, Any]
) -> None:
    judge(quick, *request)


def judge(client: httpx.Client, path: str, body: Any) -> None:
    """An answer, or a problem of the client's own making that points at a part of the body."""
    response = post(client, path, body)
    if response.status_code in (200, 201):
        return
    found = problem(response)
    assert 400 <= found["status"] < 500 or found["code"] == "deadline_exceeded", found
    assert found["pointer"] is None or resolves(found["pointer"], body), found
    assert len(found["detail"]) <= 600


def test_and_the_service_goes_on(quick: httpx.Client) -> None:
    ask(quick, "/grad", {"expression": "x**2", "inputs": {"x": 3}})
