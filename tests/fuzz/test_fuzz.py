"""Readers of what strangers send answer anything at all with a value or a clean error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.fuzzing import TARGETS

EXAMPLES = 200


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_read_or_refused(name: str) -> None:
    fuzz(name, EXAMPLES)


def fuzz(name: str, examples: int, **options: Any) -> None:
    """Hold a target against so many examples."""
    target, examples_of = TARGETS[name]

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck), **options)
    @given(examples_of)
    def fuzzed(example: Any) -> None:
        target(example)

    fuzzed()


def test_the_fuzzer_would_find_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that takes the last of two equal names does not get through."""
    monkeypatch.setattr("app.wire.strict._may_repeat_names", lambda body, value: False)
    with pytest.raises(AssertionError):
        fuzz("json", 500, derandomize=True)
