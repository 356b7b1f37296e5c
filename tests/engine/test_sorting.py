"""Sorting, searching and scattering against NumPy: every order, side, method and tie, with NaN among the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.errors import EngineError, InvalidTensor
from tests.support.asking import ask
from tests.support.numeric import assert_close

NAN = np.nan
RAGGED = np.array([[3.0, NAN, 1.0, 3.0, -np.inf], [2.0, 2.0, NAN, NAN, 0.0]])


def value(expression: str, **inputs: Any) -> Any:
    return ask("value", expression, inputs)["values"].popitem()[1]


# Order


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_ascending_order_is_numpys(axis: int) -> None:
    assert np.array_equal(value(f"sort(x, axis={axis})", x=RAGGED), np.sort(RAGGED, axis), equal_nan=True)
    assert np.array_equal(value(f"argsort(x, axis={axis})", x=RAGGED), np.argsort(RAGGED, axis, kind="stable"))


def test_descending_order_starts_with_nan_and_keeps_ties_in_order() -> None:
    expected = [[1, 0, 3, 2, 4], [2, 3, 0, 1, 4]]
    assert value("argsort(x, descending=true)", x=RAGGED).tolist() == expected
    assert value("top_k(x, 3).indices", x=RAGGED).tolist() == [row[:3] for row in expected]


@pytest.mark.parametrize("stable", ["true", "false"])
def test_many_ties_keep_their_order(stable: str) -> None:
    x = np.random.default_rng(0).integers(0, 3, 1000)
    assert np.array_equal(value(f"argsort(x, stable={stable})", x=x), np.argsort(x, kind="stable"))


# Searching


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_searched_as_numpy_searches_each(side: str) -> None:
    rng = np.random.default_rng(1)
    for length in (0, 1, 2, 3, 7, 8):
        table = np.sort(np.append(rng.integers(0, 4, (5, length)), np.full((5, 1), NAN), axis=1), axis=1)
        wanted = np.append(rng.integers(-1, 6, (5, 6)), np.full((5, 1), NAN), axis=1)
        expected = [np.searchsorted(row, each, side) for row, each in zip(table, wanted, strict=True)]
        assert np.array_equal(value(f"searchsorted(t, w, side='{side}')", t=table, w=wanted), expected)


def test_isin_is_numpys() -> None:
    x, y = np.array([1.0, NAN, 3.0, 9.0]), np.array([3.0, NAN, 1.0, 1.0])
    assert np.array_equal(value("isin(x, y)", x=x, y=y), np.isin(x, y))
    assert np.array_equal(value("isin(x, y, invert=true)", x=x, y=y), ~np.isin(x, y))


# Quantiles


@pytest.mark.parametrize("method", ["linear", "lower", "higher", "midpoint", "nearest"])
@pytest.mark.parametrize("name", ["quantile", "nanquantile"])
def test_quantiles_are_numpys(name: str, method: str) -> None:
    x = np.random.default_rng(2).normal(size=(4, 3, 5))
    x[0, 0, :3] = x[1, 1, 1] = NAN
    q = np.array([0.0, 0.25, 1.0, 0.375, 0.5, 0.9])
    for axis in (None, 1, (0, 2)):
        expected = getattr(np, name)(x, q, axis, method=method, keepdims=True)
        where = "null" if axis is None else str(np.atleast_1d(axis).tolist())
        found = value(f"{name}(x, q, axis={where}, method='{method}', keepdims=true)", x=x, q=q)
        assert_close(found, expected, 1e-14, f"{name} over {axis}")


@pytest.mark.parametrize("name", ["median", "nanmedian"])
@pytest.mark.parametrize("columns", [2, 5, 6])
def test_medians_are_numpys(name: str, columns: int) -> None:
    x = np.random.default_rng(3).normal(size=(6, columns))
    x[0, 0] = NAN
    for axis in (0, 1, None):
        where = "null" if axis is None else axis
        found = value(f"{name}(x, axis={where}, method='midpoint')", x=x)
        assert_close(found, getattr(np, name)(x, axis), 1e-15, f"{name} over {axis}")


@pytest.mark.parametrize("q", [-0.1, 1.5, NAN])
def test_a_quantile_outside_is_refused_and_named(q: float) -> None:
    with pytest.raises(InvalidTensor, match=r"numbers from 0 to 1, got"):
        value("quantile(x, q)", x=np.arange(3.0), q=np.array([0.5, q]))


# Scattering


def test_the_last_of_many_values_stands() -> None:
    rng = np.random.default_rng(4)
    x, indices, values = np.zeros((3, 7)), rng.integers(-7, 7, (3, 500)), rng.normal(size=(3, 500))
    expected = x.copy()
    for row in range(3):
        for at, each in zip(indices[row], values[row], strict=True):
            expected[row, at] = each
    assert np.array_equal(value("scatter(x, i, v, axis=1)", x=x, i=indices, v=values), expected)
    found = value("index_update(x, i, v, axis=1)", x=x, i=indices[0], v=values)
    assert np.array_equal(found[0], expected[0])


def test_sums_of_many_updates() -> None:
    rng = np.random.default_rng(5)
    x, indices, values = rng.normal(size=(5, 4)), rng.integers(-5, 5, (200, 3)), rng.normal(size=(200, 3))
    expected = x.copy()
    np.add.at(expected, (indices, np.arange(3)), values)
    assert_close(value("scatter_add(x, i, v, axis=0)", x=x, i=indices, v=values), expected, 1e-13, "sums")
    assert np.array_equal(
        value("bincount(i, length=5)", i=indices % 5), np.bincount((indices % 5).ravel(), minlength=5)
    )


@pytest.mark.parametrize(
    "call",
    ["gather(x, i)", "scatter(x, i, 1)", "scatter_add(x, i, 1)", "index_add(x, i, 1)", "index_update(x, i, 1)"],
)
@pytest.mark.parametrize("wrong", [3, -4])
def test_an_index_out_of_range_is_refused_for_its_own_axis(call: str, wrong: int) -> None:
    with pytest.raises(EngineError) as caught:
        value(f"y = {call}", x=np.zeros(3), i=np.array([0, wrong]))
    assert (caught.value.code, caught.value.node) == ("invalid_tensor", "y")
    assert f"index {wrong} is out of range for an axis of size 3" in caught.value.detail


def test_an_index_of_one_row_does_not_reach_into_the_next() -> None:
    for call in ("gather(x, i, axis=1)", "scatter_add(x, i, 1, axis=1)", "take_along_axis(x, i)"):
        with pytest.raises(InvalidTensor, match="index 3 is out of range"):
            value(call, x=np.zeros((2, 3)), i=np.array([[3], [0]]))
