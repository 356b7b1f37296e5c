"""Special functions: the error function and the normal distribution, integrals of exp, x·log(x), and inverses of these.

Kernels are SciPy's where those are accurate. Slopes close: erfcx and dawsn have their order as an attribute, so that
the derivative of one is the next, and none comes from subtracting what is nearly equal.
"""

from __future__ import annotations

import cmath
import itertools
import math
import operator
from typing import Any

import numpy as np
from scipy import special

from engine import attrs
from engine.core import Node, Refusal, Sample, ops
from engine.derivative import Slope
from engine.errors import InvalidGraph
from engine.families import LARGEST_ORDER, MISMATCH, ORDERS, POINTWISE, binary, costly, like_result, nth, order_shape
from engine.types import Shape

# The error function and the normal distribution

TWO_OVER_ROOT_PI = 2.0 / math.sqrt(math.pi)
ROOT_HALF = math.sqrt(0.5)


def _bell(x: Node) -> Node:
    """exp(-x²)"""
    return ops.exp(-(x * x))


erf = costly("erf", "The error function.", special.erf, lambda out, x: TWO_OVER_ROOT_PI * _bell(x), flops=60)

erfc = costly(
    "erfc",
    "1 - erf(x), exact where that is next to 0.",
    special.erfc,
    lambda out, x: -TWO_OVER_ROOT_PI * _bell(x),
    flops=60,
)


def _erfcx(x: Any, *, n: int) -> Any:
    if n == 0:
        return special.erfcx(x)
    return np.asarray(_erfcx_orders(np.asarray(x, np.float64), n)[n], x.dtype)


def _erfcx_orders(x: Any, n: int) -> list[Any]:
    """The derivatives of order 0 to n."""
    right = x > 0.5
    ahead, behind = np.where(right, x, 1.0), np.where(right, 0.5, x)
    both = zip(_erfcx_backward(ahead, n), _erfcx_forward(behind, n), strict=True)
    return [np.where(right, one, other) for one, other in both]


def _erfcx_forward(x: Any, n: int) -> list[Any]:
    """Up from order 0, by w″ = 2x·w′ + 2w and its derivatives: to the left, all terms have one sign."""
    out = [special.erfcx(x)]
    out.append(2.0 * x * out[0] - TWO_OVER_ROOT_PI)
    for k in range(1, n):
        out.append(2.0 * x * out[k] + 2.0 * k * out[k - 1])
    return out[: n + 1]


def _erfcx_backward(x: Any, n: int) -> list[Any]:
    """The same recurrence downwards, as a continued fraction for ratios of neighbours (Gautschi 1961)."""
    least = float(np.min(x, initial=np.inf))
    start = 20 + math.ceil((math.sqrt(n) + 9.5 / least) ** 2)
    ratio = 2.0 * start / (x + np.sqrt(x * x + 2.0 * start))
    ratios = []
    for k in range(start, 0, -1):
        ratio = 2.0 * k / (2.0 * x + ratio)
        if k <= n:
            ratios.append(-ratio)
    return list(itertools.accumulate(reversed(ratios), operator.mul, initial=special.erfcx(x)))


erfcx = nth(
    "erfcx",
    "exp(x²)·erfc(x), without underflow, or its n-th derivative.",
    _erfcx,
    samples=(*POINTWISE, Sample(([-1.0, 0.2, 0.8, 3.0],), {"n": 2})),
    scratch=lambda node: (3 * node.attrs["n"] + 4) * node.nbytes if node.attrs["n"] else 0,
    torch="special_erfcx",
)


def _dawsn(x: Any, *, n: int) -> Any:
    """Three ways, of which each loses digits where another is at home. The function is odd."""
    if n == 0:
        return special.dawsn(x)
    z = np.abs(np.asarray(x, np.float64))
    near, far = ~(z > 1.5), z * z >= 3.0 * n + 70.0
    out = _dawsn_upwards(np.where(near, z, 1.0), n)
    if np.any(far):
        out = np.where(far, _dawsn_far(np.where(far, z, np.inf), n), out)
    between = ~(near | far)
    if np.any(between):
        out = np.where(between, _dawsn_downwards(np.where(between, z, 1.0), n), out)
    return np.asarray(out if n % 2 else np.sign(x) * out, x.dtype)


def _dawsn_upwards(x: Any, n: int) -> Any:
    """By F″ = -2x·F′ - 2F and its derivatives, from F′ = 1 - 2x·F."""
    below = special.dawsn(x)
    out = 1.0 - 2.0 * x * below
    for k in range(1, n):
        below, out = out, -2.0 * x * out - 2.0 * k * below
    return out


def _dawsn_far(x: Any, n: int) -> Any:
    """The same recurrence downwards, as a continued fraction for ratios of neighbours."""
    out, ratio = special.dawsn(x), np.zeros_like(x)
    for k in range(n + 30, 0, -1):
        ratio = -2.0 * k / (2.0 * x + ratio)
        if k <= n:
            out = ratio * out
    return out


def _dawsn_downwards(x: Any, n: int) -> Any:
    """The same recurrence downwards for bₖ = F⁽ᵏ⁾·rᵏ/k!, from two of them by Cauchy's integral on a circle of radius r.

    They start at x² or above: there the integral cancels nothing, with r² = k/2.
    """
    start = max(n, math.ceil(float(np.max(x)) ** 2))
    radius = math.sqrt((start + 1) / 2.0)
    points = 16 + math.ceil(6.0 * math.sqrt(start))
    above, out = np.zeros_like(x), np.zeros_like(x)
    for at in range(points):
        turn = math.pi * (at + 0.5) / points
        value = special.dawsn(x + radius * cmath.rect(1.0, turn)) / points
        out += (value * cmath.rect(1.0, -start * turn)).real
        above += (value * cmath.rect(1.0, -(start + 1) * turn)).real
    for k in range(start, n, -1):
        above, out = out, -x / radius * out - (k + 1) / (2.0 * radius * radius) * above
    return out * (math.factorial(n) / radius**n)


dawsn = nth(
    "dawsn",
    "Dawson's integral, exp(-x²)·∫ exp(t²) from 0 to x, or its n-th derivative.",
    _dawsn,
    samples=(*POINTWISE, Sample(([-0.3, 1.2, 4.0, 20.0],), {"n": 3})),
)

erfinv = costly(
    "erfinv",
    "The inverse of erf, on values between -1 and 1.",
    special.erfinv,
    lambda out, x: 1.0 / TWO_OVER_ROOT_PI * ops.exp(out * out),
    at=(-0.8, 0.8),
    flops=60,
)


def _density(x: Node) -> Node:
    """Of the standard normal distribution."""
    return 1.0 / math.sqrt(2.0 * math.pi) * ops.exp(-0.5 * (x * x))


ndtr = costly(
    "ndtr",
    "The distribution function of the standard normal distribution.",
    special.ndtr,
    lambda out, x: _density(x),
    flops=60,
    torch="special_ndtr",
)


def _inverse_mills(x: Any, *, n: int) -> Any:
    z = np.asarray(x, np.float64)
    right = z > 0.0
    ahead = _mills_ahead(np.where(right, z, 0.0), n)
    behind = _mills_behind(np.where(right, 0.0, z), n)
    return np.asarray(np.where(right, ahead, behind) * float(math.factorial(n)), x.dtype)


def _mills_ahead(x: Any, n: int) -> Any:
    """Coefficient n of the Taylor series, by m′ = -m·(x + m)."""
    out = [np.exp(-0.5 * x * x) / (math.sqrt(2.0 * math.pi) * special.ndtr(x))]
    for k in range(n):
        product = sum(out[j] * out[k - j] for j in range(k + 1))
        out.append(-(x * out[k] + (out[k - 1] if k else 0.0) + product) / (k + 1.0))
    return out[n]


def _mills_behind(x: Any, n: int) -> Any:
    """The same as a quotient by the series of erfcx(-x/√2): both factors of the other one vanish far to the left."""
    below = [(-ROOT_HALF) ** k / math.factorial(k) * w for k, w in enumerate(_erfcx_orders(-ROOT_HALF * x, n))]
    out = [math.sqrt(2.0 / math.pi) / below[0]]
    for k in range(1, n + 1):
        out.append(-sum(below[j] * out[k - j] for j in range(1, k + 1)) / below[0])
    return out[n]


inverse_mills = nth(
    "inverse_mills",
    "The density of the standard normal distribution over ndtr, the slope of log_ndtr; or its n-th derivative.",
    _inverse_mills,
    scratch=lambda node: (3 * node.attrs["n"] + 7) * node.nbytes,
)

log_ndtr = costly(
    "log_ndtr",
    "The logarithm of ndtr, exact far to the left.",
    special.log_ndtr,
    lambda out, x: ops.inverse_mills(x),
    flops=110,
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


# Integrals of the exponential function


def _expi(x: Any, *, n: int) -> Any:
    """From order 1 on the derivatives of y = exp(x)/x, by x·y⁽ᵏ⁾ + k·y⁽ᵏ⁻¹⁾ = exp(x): upwards where k is below x."""
    if n == 0:
        return special.expi(x)
    z = np.minimum(x, 1e300).astype(np.float64)
    right = (z > 0.0) & (z < n)
    out = _expi_upwards(np.where(right, np.inf, z), n)
    return np.asarray(np.where(right, _expi_downwards(np.where(right, z, 1.0), n), out), x.dtype)


def _expi_upwards(x: Any, n: int) -> Any:
    """Divided by exp(x), which is no less than any of them to the right; to the left, all terms have one sign."""
    out = np.reciprocal(x)
    for k in range(1, n):
        out = (1.0 - k * out) / x
    half = np.exp(0.5 * x)  # exp(x) itself overflows before the result does
    return half * out * half


def _expi_downwards(x: Any, n: int) -> Any:
    """Of (exp(x) - 1)/x, from so far above that what it starts from is forgotten; and of 1/x."""
    out = np.zeros_like(x)
    for k in range(n + 30 + math.ceil(9.0 * math.sqrt(n)), n - 1, -1):
        out = (1.0 - x * out) / k
    return out * np.exp(x) - math.factorial(n - 1) * (-np.reciprocal(x)) ** n


expi = nth(
    "expi",
    "The exponential integral, ∫ exp(t)/t from -∞ to x, its principal value where x is positive; or its n-th "
    "derivative.",
    _expi,
    at=(0.5, 3.0),
)

exp1 = costly(
    "exp1",
    "∫ exp(-t)/t from x to ∞, of positive values.",
    special.exp1,
    lambda out, x: -ops.exp(-x) * ops.reciprocal(x),
    at=(0.5, 3.0),
    flops=1_400,
)


def _expn(x: Any, *, n: int) -> Any:
    return np.asarray(special.expn(n, x), x.dtype)  # SciPy's runs in float64 only.


def _expn_slope(out: Node, x: Node, *, n: int) -> Slope:
    if n == 0:
        return -out * (ops.reciprocal(x) + 1.0)
    return -ops.expn(x, n=n - 1)


expn = costly(
    "expn",
    "∫ exp(-xt)/tⁿ from 1 to ∞, the generalised exponential integral.",
    _expn,
    _expn_slope,
    at=(0.5, 3.0),
    attrs={"n": attrs.integer(f"The power, from 0 to {LARGEST_ORDER}.")},
    order=("n", "x"),
    shape=order_shape,
    samples=(*[Sample(((3,),), {"n": n}) for n in (0, 1, 4)], Sample(((0,),), {"n": 2})),
    refusals=ORDERS,
    example="expn(2, x)",
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
    scratch=like_result(1),
    samples=(*POINTWISE, Sample(((3,),), {"eps": 0.1}), Sample(([0.05, 0.5, 0.99],), {"eps": 0.1})),
    refusals=(Refusal(((3,),), {"eps": 0.7}, "invalid_graph"),),
    example="logit(x)",
)


# The inverse of x·exp(x)

BRANCH_POINT = -0.36787944117144233, 1.2428753672788363e-17
"""-1/e, as a float64 and what that lacks of it."""

NEAR_BRANCH_POINT = (
    *(-1, 1, -1 / 3, 11 / 72, -43 / 540, 769 / 17280, -221 / 8505, 680863 / 43545600, -1963 / 204120),
    *(226287557 / 37623398400, -5776369 / 1515591000, 169709463197 / 69528040243200, -1118511313 / 709296588000),
    *(667874164916771 / 650782456676352000, -500525573 / 744761417400),
)
"""Coefficients of W in ±√(2·(e·x + 1)) (Corless et al., On the Lambert W function, 1996, (4.22))."""


NEAR = 2e-3


def _lambertw(x: Any, *, k: int) -> Any:
    z = np.asarray(x, np.float64)
    gap = math.e * ((z - BRANCH_POINT[0]) - BRANCH_POINT[1])
    root = math.copysign(1.0, k) * np.sqrt(2.0 * np.clip(gap, 0.0, NEAR))
    out = np.where(gap < NEAR, np.polyval(NEAR_BRANCH_POINT[::-1], root), special.lambertw(z, k).real)
    # The float64 next to the branch point is a little below it, and is meant when it is posted.
    beyond = (gap < -1e-16) | (z > 0.0) if k else gap < -1e-16
    return np.asarray(np.where(beyond, np.nan, out), x.dtype)


def _lambertw_slope(out: Node, x: Node, *, k: int) -> Slope:
    # Not W / (x·(1 + W)): x may be 0.
    return ops.exp(-out) * ops.reciprocal(out + 1.0)


def _branch_shape(shape: Shape, *, k: int) -> Shape:
    if k not in (0, -1):
        raise InvalidGraph(f"lambertw is real on its branches 0 and -1 only, got k = {k}")
    return shape


lambertw = costly(
    "lambertw",
    "The w for which w·exp(w) is x: on branch 0 that from -1 up, of x from -1/e, on branch -1 that from -1 down, "
    "of x from -1/e to 0; NaN where it is not real.",
    _lambertw,
    _lambertw_slope,
    at=(-0.2, 2.0),
    attrs={"k": attrs.integer("The branch, 0 or -1.", 0)},
    shape=_branch_shape,
    scratch=like_result(5),
    samples=(*POINTWISE, Sample(([-0.3, -0.1, -0.02],), {"k": -1})),
    refusals=(Refusal(((3,),), {"k": 1}, "invalid_graph"),),
    example="lambertw(x)",
)
