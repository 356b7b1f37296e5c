"""Bessel functions: of order 0 and 1 by their names, of any real order v, and scaled so that nothing overflows.

No slope divides by x: a function of order v turns into those of order v - 1 and v + 1 (DLMF 10.6.1, 10.29.1), so that
derivatives of every order are right at 0, too, and few distinct nodes are met. In the scaled functions that would
cancel: far out their derivatives are much smaller than their neighbours. They have the order of the derivative as an
attribute instead, as erfcx has, and get it from an integral.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from engine import attrs as kinds
from engine.core import Node, Op, Refusal, Sample, ops
from engine.derivative import Slope
from engine.errors import InvalidGraph
from engine.families import LARGEST_ORDER, costly, nth
from engine.limits import Limits

RIGHT = (0.3, 6.0)
"""Where what is infinite at 0 is sampled."""


# Of order 0 and 1, and of any order


WEIGHTS = {"j": (0.5, -0.5), "y": (0.5, -0.5), "i": (0.5, 0.5), "k": (-0.5, -0.5)}
"""What the functions of the orders below and above count in a slope."""


def _of_order(letter: str, x: Node, v: float) -> Node:
    if v in (0.0, 1.0):
        return ops.find(f"{letter}{v:.0f}")(x)
    return ops.find(f"{letter}v")(x, v=v)


def _slope_of_order(letter: str, x: Node, v: float) -> Slope:
    below, above = WEIGHTS[letter]
    if v == 0:  # The function of order -1 is that of order 1, up to a sign that makes both terms one.
        return 2.0 * above * _of_order(letter, x, 1.0)
    return below * _of_order(letter, x, v - 1.0) + above * _of_order(letter, x, v + 1.0)


def _bounded_order(limits: Limits, x: Node, *, v: float) -> None:
    if not abs(v) <= LARGEST_ORDER:
        raise InvalidGraph(f"v should be from -{LARGEST_ORDER} to {LARGEST_ORDER}, got {v}", pointer="/attrs/v")


def _any_order(letter: str, doc: str, kernel: Callable[..., Any], at: tuple[float, float], **record: Any) -> Op:
    return costly(
        f"{letter}v",
        doc,
        lambda x, *, v: kernel(v, x),
        lambda out, x, *, v: _slope_of_order(letter, x, v),
        at=at,
        flops=1_200,
        attrs={"v": kinds.real(f"The order, from -{LARGEST_ORDER} to {LARGEST_ORDER}.")},
        order=("v", "x"),
        guard=_bounded_order,
        samples=(*[Sample(((3,),), {"v": v}) for v in (0, 1, 2.5, -3)], Sample(((0, 2),), {"v": 1})),
        refusals=(Refusal(((3,),), {"v": 171}, "invalid_graph"), Refusal(((3,),), {"v": "NaN"}, "invalid_graph")),
        example=f"{letter}v(2, x)",
        **record,
    )


j0 = costly(
    "j0",
    "Bessel function of the first kind, of order 0.",
    special.j0,
    lambda out, x: _slope_of_order("j", x, 0.0),
    aliases=("bessel_j0",),
)

j1 = costly(
    "j1",
    "Bessel function of the first kind, of order 1.",
    special.j1,
    lambda out, x: _slope_of_order("j", x, 1.0),
    aliases=("bessel_j1",),
)

jv = _any_order("j", "Bessel function of the first kind, of order v.", special.jv, (0.3, 6.0))

y0 = costly(
    "y0",
    "Bessel function of the second kind, of order 0.",
    special.y0,
    lambda out, x: _slope_of_order("y", x, 0.0),
    at=RIGHT,
    flops=60,
    aliases=("bessel_y0",),
)

y1 = costly(
    "y1",
    "Bessel function of the second kind, of order 1.",
    special.y1,
    lambda out, x: _slope_of_order("y", x, 1.0),
    at=RIGHT,
    flops=60,
    aliases=("bessel_y1",),
)

yv = _any_order("y", "Bessel function of the second kind, of order v.", special.yv, RIGHT)

i0 = costly(
    "i0",
    "Modified Bessel function of the first kind, of order 0.",
    special.i0,
    lambda out, x: _slope_of_order("i", x, 0.0),
    flops=130,
    aliases=("modified_bessel_i0",),
)

i1 = costly(
    "i1",
    "Modified Bessel function of the first kind, of order 1.",
    special.i1,
    lambda out, x: _slope_of_order("i", x, 1.0),
    flops=130,
    aliases=("modified_bessel_i1",),
    torch="special_i1",
)

iv = _any_order("i", "Modified Bessel function of the first kind, of order v.", special.iv, RIGHT)

k0 = costly(
    "k0",
    "Modified Bessel function of the second kind, of order 0.",
    special.k0,
    lambda out, x: _slope_of_order("k", x, 0.0),
    at=RIGHT,
    flops=130,
    aliases=("modified_bessel_k0",),
)

k1 = costly(
    "k1",
    "Modified Bessel function of the second kind, of order 1.",
    special.k1,
    lambda out, x: _slope_of_order("k", x, 1.0),
    at=RIGHT,
    flops=130,
    aliases=("modified_bessel_k1",),
)


def _kv(v: float, x: Any) -> Any:
    # SciPy's own gives 0 from x = 698 on, where there still are numbers.
    return special.kve(v, x) * np.exp(-x)


kv = _any_order("k", "Modified Bessel function of the second kind, of order v.", _kv, RIGHT)


# Scaled


def _trapezoid(
    x: Any, n: int, v: int, rise: Callable[[Any], Any], start: Any, stop: Any, points: int, unit: Any = 1.0
) -> Any:
    """The integral of (1 + v·rise)·riseⁿ·exp(-x·rise), which is even at `start` or next to nothing.

    Of such integrands the trapezoidal rule has all digits (Trefethen & Weideman, SIAM Review 56, 2014). Powers are
    taken of rise/unit, so that they stay within range.
    """
    step = (stop - start) / points
    total = np.zeros_like(x)
    for at in range(points + 1):
        height = rise(start + at * step)
        share = 0.5 if at in (0, points) else 1.0
        total += share * (1.0 + v * height) * (height / unit) ** n * np.exp(-x * height)
    return total * step * unit**n


def _depth(n: int) -> float:
    """How far riseⁿ·exp(-x·rise) has to be followed, in x·rise, until it is next to nothing."""
    return 50.0 + 2.2 * n


def _scaled_i(x: Any, *, n: int, v: int) -> Any:
    """∓ⁿ/π·∫ cos(vθ)·(1 - cos θ)ⁿ·exp(-|x|·(1 - cos θ)) from 0 to π: the derivative of DLMF 10.32.3 under its sign."""
    if n == 0:
        return (special.i0e, special.i1e)[v](x)
    z = np.minimum(np.abs(np.asarray(x, np.float64)), 1e300)
    stop = 2.0 * np.arcsin(np.sqrt(np.minimum(_depth(n) / (2.0 * np.maximum(z, 1.0)), 1.0)))
    out = _trapezoid(z, n, -v, lambda angle: 2.0 * np.sin(0.5 * angle) ** 2, 0.0, stop, 80 + n)
    side = np.sign(x) if (n + v) % 2 else 1.0
    return np.asarray(side * (-1.0) ** n / math.pi * out, x.dtype)


def _scaled_k(x: Any, *, n: int, v: int) -> Any:
    """(-1)ⁿ·∫ cosh(vt)·(cosh t - 1)ⁿ·exp(-x·(cosh t - 1)) from 0: the derivative of DLMF 10.32.9 under its sign."""
    if n == 0:
        return (special.k0e, special.k1e)[v](x)
    z = np.clip(np.asarray(x, np.float64), 1e-300, 1e300)
    stop = 2.0 * np.arcsinh(np.sqrt(_depth(n) / (2.0 * z)))
    # To the left of its crest, where x·rise is n, the integrand falls as exp(n·t), however near to 0 x is.
    start = np.maximum(stop - (1.0 + 40.0 / n + math.log(_depth(n) / n)), 0.0)
    out = _trapezoid(z, n, v, lambda t: 2.0 * np.sinh(0.5 * t) ** 2, start, stop, 80 + 120 // n, n / (math.e * z))
    return np.asarray((-1.0) ** n * np.where(x < 0, np.nan, np.where(x == 0, np.inf, out)), x.dtype)


i0e = nth(
    "i0e",
    "exp(-|x|)·i0(x), without overflow, or its n-th derivative; those of odd order are 0 at 0, where it has a kink.",
    lambda x, *, n: _scaled_i(x, n=n, v=0),
    at=(0.3, 6.0),
    torch="special_i0_e",
)

i1e = nth(
    "i1e",
    "exp(-|x|)·i1(x), without overflow, or its n-th derivative; those of even order are 0 at 0.",
    lambda x, *, n: _scaled_i(x, n=n, v=1),
    at=(0.3, 6.0),
    torch="special_i1_e",
)

k0e = nth(
    "k0e",
    "exp(x)·k0(x), without underflow, or its n-th derivative.",
    lambda x, *, n: _scaled_k(x, n=n, v=0),
    at=RIGHT,
    aliases=("scaled_modified_bessel_k0",),
)

k1e = nth(
    "k1e",
    "exp(x)·k1(x), without underflow, or its n-th derivative.",
    lambda x, *, n: _scaled_k(x, n=n, v=1),
    at=RIGHT,
    aliases=("scaled_modified_bessel_k1",),
)
