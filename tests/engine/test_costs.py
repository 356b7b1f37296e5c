"""What plans say of their time: how it grows with the work, where it cannot be stopped, and where it holds the lock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.limits import Limits
from engine.plan import Plan
from tests.support.asking import compiled_question

ANY_TIME = Limits(cost_seconds=1e9)


def plan_of(text: str, call: str = "value", **inputs: Any) -> Plan:
    return compiled_question(call, text, inputs, limits=ANY_TIME).plan


@pytest.mark.parametrize(
    ("text", "power"),
    [
        ("sin(x)", 1),
        ("sort(x)", 1),
        ("fft(x)", 1),
        ("outer(x, x)", 2),
        ("inv(outer(x, x))", 3),
        ("cumsum(x, axis=0)", 1),
    ],
)
def test_twice_the_elements_take_as_much_longer_as_the_work_grows(text: str, power: int) -> None:
    small, large = (plan_of(text, x=np.ones(size)).seconds for size in (1_000, 2_000))
    least, most = 1.5 ** (power - 1), 2 * 2**power  # what no longer fits the caches takes longer
    assert least <= large / small <= most


def test_twice_the_steps_take_twice_the_time() -> None:
    text = "f(x) = tanh(x) * 2\nscan(f, x, length={})"
    once, twice = (plan_of(text.format(steps), x=np.ones(10)) for steps in (1_000, 2_000))
    assert twice.seconds == pytest.approx(2 * once.seconds, rel=0.01)
    assert twice.held_seconds == pytest.approx(2 * once.held_seconds, rel=0.01)
    assert twice.longest_seconds == once.longest_seconds


def test_what_lapack_does_cannot_be_stopped_and_holds_no_lock() -> None:
    plan = plan_of("inv(x)", x=np.eye(1_500))
    assert plan.longest_seconds > 0.25
    assert plan.longest_seconds > 0.9 * plan.seconds
    assert plan.held_seconds < 0.01 * plan.seconds


def test_blocks_can_be_stopped_between_any_two_and_are_shared() -> None:
    plan = plan_of("\n".join(["x = sin(x0)", *["y = sin(x) * cos(x)"]]), x0=np.ones(5_000_000))
    assert plan.longest_seconds < 0.01 * plan.seconds
    assert plan.seconds_over(4) < 0.3 * plan.seconds
    assert plan.seconds_over(1) == plan.seconds


def test_small_steps_hold_the_lock() -> None:
    plan = plan_of("f(x) = tanh(x @ x)\nscan(f, x, length=10000)", x=np.eye(3))
    assert plan.held_seconds > 0.9 * plan.seconds
    assert plan.longest_seconds < 0.001


def test_a_loop_that_may_go_on_counts_as_some_steps_and_not_as_all() -> None:
    plan = plan_of("c(x) = sum(x) > 1\nf(x) = x * 0.5\nwhile_loop(c, f, x)", x=np.ones(1_000))
    assert 1e-5 < plan.seconds < 0.1
