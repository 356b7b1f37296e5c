"""Derivatives of functions of numbers, by differences: the yardstick that knows nothing of the engine's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.types import Array

LEVELS = 7


def ridders(f: Callable[[float], Array], step: float = 0.02) -> Array:
    """df/dh at 0, element by element: central differences at halved steps, extrapolated to step zero.

    Of all entries of the tableau, each element takes the one that its neighbours agree with best
    (Ridders, Adv. Eng. Softw. 4, 1982).
    """
    row: list[Any] = []
    best = least = None
    for level in range(LEVELS):
        h = step / 2.0**level
        previous, row = row, [(f(h) - f(-h)) / (2 * h)]
        if best is None:
            best, least = row[0], np.full(np.shape(row[0]), np.inf)
        for k, before in enumerate(previous):
            factor = 4.0 ** (k + 1)
            row.append((factor * row[k] - before) / (factor - 1))
            error = np.maximum(np.abs(row[k + 1] - row[k]), np.abs(row[k + 1] - before))
            better = error <= least
            best, least = np.where(better, row[k + 1], best), np.where(better, error, least)
    return np.asarray(best)


def assert_close(found: Any, expected: Any, tolerance: float, what: str) -> None:
    """Equal shapes, and values that differ by no more than `tolerance` of the largest expected one, or of 1."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, expected {expected.shape}"
    if expected.dtype.kind == "b":
        assert np.array_equal(found, expected), f"{what}: {found}, expected {expected}"
        return
    finite = np.isfinite(expected)
    assert np.array_equal(np.isnan(found), np.isnan(expected)), f"{what}: NaN in {found}, expected {expected}"
    assert np.array_equal(found[~finite], expected[~finite], equal_nan=True), f"{what}: {found}, expected {expected}"
    scale = max(1.0, float(np.abs(expected[finite]).max(initial=0.0)))
    error = float(np.abs(found[finite] - expected[finite]).max(initial=0.0))
    assert error <= tolerance * scale, f"{what}: off by {error:.3g} at scale {scale:.3g}: {found}, expected {expected}"


def assert_same_bits(found: Any, expected: Any, what: str) -> None:
    """Equal dtype, shape and bits; one NaN is as good as another."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), f"{what}: {found!r}, expected {expected!r}"
    parts = [(found, expected)]
    if found.dtype.kind == "c":
        parts = [(found.real, expected.real), (found.imag, expected.imag)]
    for a, b in parts:
        same = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        same = same and (a.dtype.kind != "f" or np.array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0])))
        assert same, f"{what}: {found!r}, expected {expected!r}"


def are_near(found: Any, expected: Any, ulps: int = 2) -> Any:
    """Where two arrays differ by no more than some units in the last place; all NaN are alike."""
    found, expected = np.asarray(found), np.asarray(expected)
    if expected.dtype.kind not in "fc":
        return found == expected
    with np.errstate(all="ignore"):
        gap = np.abs(found - expected) <= ulps * np.spacing(np.abs(expected))
    return gap | (found == expected) | (np.isnan(found) & np.isnan(expected))


def inner(u: Array, v: Array) -> float:
    """The real inner product: of complex numbers, that of their real and imaginary parts."""
    return float(np.vdot(np.asarray(u, np.result_type(u, float)), np.asarray(v, np.result_type(v, float))).real)
