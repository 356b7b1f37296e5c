"""Special functions: the error function and the normal distribution, the logarithm of gamma, and x·log(x).

Kernels are SciPy's where those are accurate. Slopes close: polygamma and erfcx have their order as an
attribute, so that the derivative of one is the next, and none comes from subtracting what is nearly equal.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from scipy import special

from engine import attrs
from engine.core import Node, Refusal, Sample, ops
from engine.derivative import Slope
from engine.errors import InvalidGraph
from engine.families import MISMATCH, POINTWISE, binary, costly, unary
from engine.types import Shape

LARGEST_ORDER = 170
"""The order up to which the factorial in a derivative of that order is a float64."""

ORDERS = (Refusal(((3,),), {"n": -1}, "invalid_graph"), Refusal(((3,),), {"n": 171}, "invalid_graph"))


def _order_shape(shape: Shape, *, n: int) -> Shape:
    if not 0 <= n <= LARGEST_ORDER:
        raise InvalidGraph(f"the order n should be from 0 to {LARGEST_ORDER}, got {n}")
    return shape


# The error function and the normal distribution

TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)
ROOT_HALF = math.sqrt(0.5)


def _bell(x: Node) -> Node:
    """exp(-x²)"""
    return ops.exp(-(x * x))


erf = costly("erf", "The error function.", special.erf, lambda out, x: TWO_OVER_ROOT_PI * _bell(x))

erfc = costly(
    "erfc",
    "1 - erf(x), exact where that is next to 0.",
    special.erfc,
    lambda out, x: -TWO_OVER_ROOT_PI * _bell(x),
)


def _erfcx(x: Any, *, n: int) -> Any:
    if n == 0:
        return special.erfcx(x)
    z = np.asarray(x, np.float64)
    right = z > 0.5
    ahead, behind = np.where(right, z, 1.0), np.where(right, 0.5, z)
    return np.asarray(np.where(right, _erfcx_backward(ahead, n), _erfcx_forward(behind, n)), x.dtype)


def _erfcx_forward(x: Any, n: int) -> Any:
    """Up from order 0, by w″ = 2x·w′ + 2w and its derivatives: to the left, all terms have one sign."""
    below, out = special.erfcx(x), 2.0 * x * special.erfcx(x) - TWO_OVER_ROOT_PI
    for k in range(1, n):
        below, out = out, 2.0 * x * out + 2.0 * k * below
    return out


def _erfcx_backward(x: Any, n: int) -> Any:
    """The same recurrence downwards, as a continued fraction for ratios of neighbours (Gautschi 1961)."""
    least = float(np.min(x, initial=np.inf))
    start = 20 + math.ceil((math.sqrt(n) + 9.5 / least) ** 2)
    ratio = 2.0 * start / (x + np.sqrt(x * x + 2.0 * start))
    out = special.erfcx(x)
    for k in range(start, 0, -1):
        ratio = 2.0 * k / (2.0 * x + ratio)
        if k <= n:
            out = -ratio * out
    return out


erfcx = unary(
    "erfcx",
    "exp(x²)·erfc(x), without underflow, or its n-th derivative.",
    _erfcx,
    lambda out, x, *, n: ops.erfcx(x, n=n + 1),
    shape=_order_shape,
    attrs={"n": attrs.integer(f"Which derivative, from 0 to {LARGEST_ORDER}.", 0)},
    samples=(*POINTWISE, Sample(([-1.0, 0.2, 0.8, 3.0],), {"n": 2})),
    refusals=ORDERS,
    torch="special_erfcx",
    # Counted for order 1 and above, where the continued fraction makes some hundreds of passes.
    flops=2_000,
    scratch=lambda out, x, *, n: 4 * math.prod(out),
    example="erfcx(x)",
)

erfinv = costly(
    "erfinv",
    "The inverse of erf, on values between -1 and 1.",
    special.erfinv,
    lambda out, x: 1.0 / TWO_OVER_ROOT_PI * ops.exp(out * out),
    at=(-0.8, 0.8),
)


def _density(x: Node) -> Node:
    """Of the standard normal distribution."""
    return 1.0 / math.sqrt(2.0 * math.pi) * ops.exp(-0.5 * (x * x))


ndtr = costly(
    "ndtr",
    "The distribution function of the standard normal distribution.",
    special.ndtr,
    lambda out, x: _density(x),
    torch="special_ndtr",
)


def _log_ndtr_slope(out: Node, x: Node) -> Slope:
    """Density over distribution function; to the left, where both vanish, both times exp(x² / 2)."""
    right = x > 0.0
    ahead, behind = ops.where(right, x, 0.0), ops.where(right, 0.0, x)
    left_ratio = math.sqrt(2.0 / math.pi) * ops.reciprocal(ops.erfcx(-ROOT_HALF * behind))
    return ops.where(right, _density(ahead) * ops.reciprocal(ops.ndtr(ahead)), left_ratio)


log_ndtr = costly(
    "log_ndtr",
    "The logarithm of ndtr, exact far to the left.",
    special.log_ndtr,
    _log_ndtr_slope,
    torch="special_log_ndtr",
)

ndtri = costly(
    "ndtri",
    "The inverse of ndtr: quantiles of the standard normal distribution, of values between 0 and 1.",
    special.ndtri,
    lambda out, x: math.sqrt(2.0 * math.pi) * ops.exp(0.5 * (out * out)),
    at=(0.1, 0.9),
    torch="special_ndtri",
)


# The logarithm of gamma and its derivatives


@functools.cache
def _cotangent_derivative(n: int) -> tuple[float, ...]:
    """The n-th derivative of cot as a polynomial in cot, over n!, highest power first.

    From c' = -(1 + c²). All its terms have one sign, so that evaluating it cancels nothing.
    """
    coefficients = [0, 1]
    for _ in range(n):
        slope = [power * each for power, each in enumerate(coefficients)][1:]
        coefficients = [-(a + b) for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return tuple(each / math.factorial(n) for each in reversed(coefficients))


def _reflection(x: Any, n: int) -> Any:
    """What reflects polygamma from x to 1 - x, over n!: -π·dⁿ/dxⁿ cot(πx) (DLMF 5.15.6)."""
    # Distances to the next pole and to the next root are exact: rounding π·x costs nothing there.
    pole = x - np.round(x)
    root = np.tan(math.pi * (0.5 - np.abs(pole)))
    cotangent = np.where(np.abs(pole) < 0.25, np.reciprocal(np.tan(math.pi * pole)), np.copysign(root, pole))
    turned = -(math.pi ** (n + 1)) * np.polyval(_cotangent_derivative(n), cotangent)
    return np.where(pole == 0, np.inf if n % 2 else np.nan, turned)


def _digamma(x: Any) -> Any:
    # SciPy's keeps its accuracy at the root near -0.504, but loses it towards the poles.
    left = (x < 0) & (np.abs(x + 0.5) > 0.25)
    out = special.psi(np.where(left, 1.0 - x, x))
    return np.asarray(np.where(left, out + _reflection(x, 0), out), x.dtype) if np.any(left) else out


def _polygamma(x: Any, *, n: int) -> Any:
    if n == 0:
        return _digamma(x)
    z = np.asarray(x, np.float64)
    left = z < 0
    # ψₙ(z) = (-1)ⁿ⁺¹·n!·ζ(n + 1, z) (DLMF 5.15.2 and 25.11.12), from the right half where z is not in it.
    out = special.zeta(n + 1.0, np.where(left, 1.0 - z, z))
    out = np.where(left, _reflection(z, n) - out, (-1.0) ** (n + 1) * out) if np.any(left) else (-1.0) ** (n + 1) * out
    return np.asarray(out * float(math.factorial(n)), x.dtype)


lgamma = costly(
    "lgamma",
    "The logarithm of the magnitude of gamma.",
    special.gammaln,
    lambda out, x: ops.digamma(x),
    at=(0.5, 4.0),
    aliases=("gammaln",),
)

digamma = costly(
    "digamma",
    "The derivative of lgamma.",
    _digamma,
    lambda out, x: ops.polygamma(x, n=1),
    at=(0.5, 4.0),
    aliases=("psi",),
)

polygamma = unary(
    "polygamma",
    "The n-th derivative of digamma.",
    _polygamma,
    lambda out, x, *, n: ops.polygamma(x, n=n + 1),
    at=(0.5, 4.0),
    flops=50,
    scratch=lambda out, x, **attrs: 4 * math.prod(x),
    shape=_order_shape,
    attrs={"n": attrs.integer(f"The order, from 0 to {LARGEST_ORDER}.")},
    order=("n", "x"),
    samples=(
        *[Sample(((3,),), {"n": n}) for n in range(4)],
        Sample(([-1.3, -0.4, -2.6],), {"n": 2}),
        Sample(((0,),), {"n": 1}),
        Sample(((),), {"n": 1}),
    ),
    refusals=ORDERS,
    example="polygamma(1, x)",
)


# x·log(x) and relations


def _guarded(settled: Node, x: Node, instead: float) -> Node:
    """`x`, or a harmless value where the result is settled without it: no infinity reaches a gradient."""
    return ops.where(settled, instead, x)


def _xlogy_slope(out: Node, x: Node, y: Node) -> Slope:
    settled = ops.equal(x, 0.0) & (y <= 0.0)
    return ops.where(settled, 0.0, ops.log(_guarded(settled, y, 1.0)))


def _xlogy_other_slope(out: Node, x: Node, y: Node) -> Slope:
    settled = ops.equal(x, 0.0) & ops.equal(y, 0.0)
    return x * ops.reciprocal(_guarded(settled, y, 1.0))


xlogy = binary(
    "xlogy",
    "x1·log(x2), and 0 where x1 is 0; both slopes are 0 at (0, 0).",
    special.xlogy,
    (_xlogy_slope, _xlogy_other_slope),
    at=((-2.0, 2.0), (0.5, 2.0)),
    inexact=True,
    flops=22,
    refusals=MISMATCH,
)


def _xlog1py_slope(out: Node, x: Node, y: Node) -> Slope:
    settled = ops.equal(x, 0.0) & (y <= -1.0)
    return ops.where(settled, 0.0, ops.log1p(_guarded(settled, y, 0.0)))


def _xlog1py_other_slope(out: Node, x: Node, y: Node) -> Slope:
    settled = ops.equal(x, 0.0) & ops.equal(y, -1.0)
    return x * ops.reciprocal(_guarded(settled, y, 0.0) + 1.0)


xlog1py = binary(
    "xlog1py",
    "x1·log(1 + x2), and 0 where x1 is 0; both slopes are 0 at (0, -1).",
    special.xlog1py,
    (_xlog1py_slope, _xlog1py_other_slope),
    at=((-2.0, 2.0), (-0.5, 2.0)),
    inexact=True,
    flops=22,
    torch="special_xlog1_py",
    refusals=MISMATCH,
)

entr = costly(
    "entr",
    "-x·log(x), 0 at 0 and -∞ below: what one probability adds to an entropy.",
    special.entr,
    lambda out, x: -ops.log(x) - 1.0,
    at=(0.2, 2.0),
    torch="special_entr",
)


def _logit(x: Any, *, eps: float | None) -> Any:
    return special.logit(x if eps is None else np.clip(x, eps, 1.0 - eps))


def _logit_slope(out: Node, x: Node, *, eps: float | None) -> Slope:
    least, beyond = (0.0, math.nan) if eps is None else (eps, 0.0)
    return ops.where((x < least) | (x > 1.0 - least), beyond, ops.reciprocal(x * (1.0 - x)))


def _logit_shape(shape: Shape, *, eps: float | None) -> Shape:
    if eps is not None and not 0 <= eps <= 0.5:
        raise InvalidGraph(f"logit clips its operand to eps and 1 - eps, with eps from 0 to 0.5, got {eps}")
    return shape


logit = costly(
    "logit",
    "log(x / (1 - x)), the inverse of sigmoid; with eps, x is clipped to eps and 1 - eps before.",
    _logit,
    _logit_slope,
    at=(0.2, 0.8),
    shape=_logit_shape,
    attrs={"eps": attrs.real("How far x is kept from 0 and 1; it is not when absent.", None)},
    samples=(*POINTWISE, Sample(((3,),), {"eps": 0.1}), Sample(([0.05, 0.5, 0.99],), {"eps": 0.1})),
    refusals=(Refusal(((3,),), {"eps": 0.7}, "invalid_graph"),),
    example="logit(x)",
)
