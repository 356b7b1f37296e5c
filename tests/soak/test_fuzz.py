"""The fuzzers, the broken requests and the API document again: for minutes, and with other seeds every time."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given, settings

from tests.app.mutations import mutated
from tests.app.test_mutations import judge, quick  # noqa: F401 - a fixture
from tests.app.test_schema import QUIET, SCHEMA
from tests.fuzz.fuzzing import TARGETS
from tests.fuzz.test_fuzz import fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused(name: str) -> None:
    fuzz(name, 10_000)


@settings(max_examples=10_000, **QUIET)
@given(request=mutated())
def test_ten_thousand_broken_requests(quick: httpx.Client, request: tuple[str, Any]) -> None:  # noqa: F811
    judge(quick, *request)


@SCHEMA.parametrize()
@settings(max_examples=100, **QUIET)
def test_every_route_keeps_to_the_document(case: schemathesis.Case) -> None:
    case.call_and_validate()
