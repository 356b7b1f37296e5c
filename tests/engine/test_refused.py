"""Names that are known and not offered are answered with the reason, wherever an op may be named."""

from __future__ import annotations

import pytest

from engine.core import define, ops
from engine.errors import InvalidGraph, UnknownOp
from tests.support.asking import ask, node

every_refused_name = pytest.mark.parametrize("name", list(ops.refused))


@every_refused_name
def test_the_reason_is_given(name: str) -> None:
    for graph in (f"{name}(x)", {"nodes": [node("y", name, "x")]}):
        with pytest.raises(UnknownOp) as caught:
            ask("value", graph, {"x": [0.0, 1.0]})
        assert ops.refused[name] in caught.value.detail
        assert "did you mean" not in caught.value.detail


@pytest.mark.parametrize(
    "name", ["nonzero", "unique_values", "unique_all", "unique_counts", "unique_inverse", "masked_select", "argwhere"]
)
def test_what_has_a_shape_that_depends_on_values_is_refused_for_that(name: str) -> None:
    with pytest.raises(UnknownOp, match="shape of its result depends on values"):
        ops.find(name)


def test_counts_need_a_length() -> None:
    with pytest.raises(InvalidGraph, match="bincount needs the attribute 'length'"):
        ask("value", "bincount([0, 1])")


def test_a_name_is_an_op_or_refused() -> None:
    with pytest.raises(ValueError, match="is an op"):
        ops.refuse("there is no reason", "tanh")
    with pytest.raises(ValueError, match="is refused"):
        define("unique", "What is refused.")
