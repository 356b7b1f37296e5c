"""Elementwise ops as mpmath computes them: the arbiter of high orders, which no other system is fit to be."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from mpmath import mp


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def _softplus(x: Any) -> Any:
    return mp.log(1 + mp.exp(x))


def _ndtr(x: Any) -> Any:
    return mp.erfc(-x / mp.sqrt(2)) / 2


def _third_spherical(x: Any) -> Any:
    return (15 / x**3 - 6 / x) * mp.sin(x) / x - (15 / x**2 - 1) * mp.cos(x) / x


def _gelu(x: Any) -> Any:
    return x * _ndtr(x)


def _gelu_tanh(x: Any) -> Any:
    return x * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mp.mpf(0.044715) * x**3))) / 2


def _dawsn(x: Any) -> Any:
    return mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x)


def _density(x: Any) -> Any:
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


UNARY: dict[str, Callable[[Any], Any]] = {
    "negative(x)": lambda x: -x,
    "square(x)": lambda x: x * x,
    "reciprocal(x)": lambda x: 1 / x,
    "abs(x)": abs,
    "sqrt(x)": mp.sqrt,
    "rsqrt(x)": lambda x: 1 / mp.sqrt(x),
    "cbrt(x)": mp.cbrt,
    "exp(x)": mp.exp,
    "exp2(x)": lambda x: mp.mpf(2) ** x,
    "expm1(x)": lambda x: mp.exp(x) - 1,
    "log(x)": mp.log,
    "log1p(x)": lambda x: mp.log(1 + x),
    "log2(x)": lambda x: mp.log(x) / mp.log(2),
    "log10(x)": lambda x: mp.log(x) / mp.log(10),
    "sin(x)": mp.sin,
    "cos(x)": mp.cos,
    "tan(x)": mp.tan,
    "asin(x)": mp.asin,
    "acos(x)": mp.acos,
    "atan(x)": mp.atan,
    "sinh(x)": mp.sinh,
    "cosh(x)": mp.cosh,
    "tanh(x)": mp.tanh,
    "asinh(x)": mp.asinh,
    "acosh(x)": mp.acosh,
    "atanh(x)": mp.atanh,
    "sinc(x)": lambda x: mp.sin(mp.pi * x) / (mp.pi * x),
    "spherical_jn(x, n=0)": lambda x: mp.sin(x) / x,
    "spherical_jn(x, n=3)": _third_spherical,
    "sigmoid(x)": _sigmoid,
    "log_sigmoid(x)": lambda x: -_softplus(-x),
    "softplus(x)": _softplus,
    "softplus(x, beta=2)": lambda x: _softplus(2 * x) / 2,
    "silu(x)": lambda x: x * _sigmoid(x),
    "mish(x)": lambda x: x * mp.tanh(_softplus(x)),
    "gelu(x)": _gelu,
    "gelu(x, approximate='tanh')": _gelu_tanh,
    "softsign(x)": lambda x: x / (1 + abs(x)),
    "tanhshrink(x)": lambda x: x - mp.tanh(x),
    "erf(x)": mp.erf,
    "erfc(x)": mp.erfc,
    "erfcx(x)": lambda x: mp.exp(x * x) * mp.erfc(x),
    "erfinv(x)": mp.erfinv,
    "ndtr(x)": _ndtr,
    "log_ndtr(x)": lambda x: mp.log(_ndtr(x)),
    "ndtri(x)": lambda x: mp.sqrt(2) * mp.erfinv(2 * x - 1),
    "gamma(x)": mp.gamma,
    "lgamma(x)": mp.loggamma,
    "digamma(x)": mp.digamma,
    "polygamma(2, x)": lambda x: mp.polygamma(2, x),
    "entr(x)": lambda x: -x * mp.log(x),
    "logit(x)": lambda x: mp.log(x / (1 - x)),
    "expi(x)": mp.ei,
    "expi(x, n=2)": lambda x: (1 - 1 / x) * mp.exp(x) / x,
    "exp1(x)": mp.e1,
    "expn(4, x)": lambda x: mp.expint(4, x),
    "dawsn(x)": _dawsn,
    "dawsn(x, n=1)": lambda x: 1 - 2 * x * _dawsn(x),
    "lambertw(x)": mp.lambertw,
    "multigammaln(x + 1, p=2)": lambda x: mp.log(mp.pi) / 2 + mp.loggamma(x + 1) + mp.loggamma(x + mp.mpf(0.5)),
    "gammainc(2.5, x)": lambda x: mp.gammainc(2.5, 0, x, regularized=True),
    "gammaincc(2.5, x)": lambda x: 1 - mp.gammainc(2.5, 0, x, regularized=True),
    "betainc(2.5, 1.5, x / 6)": lambda x: mp.betainc(2.5, 1.5, 0, x / 6, regularized=True),
    "inverse_mills(x)": lambda x: _density(x) / _ndtr(x),
    "zeta(2.5, x)": lambda x: mp.zeta(2.5, x),
    "betaln(x, 1.25)": lambda x: mp.log(mp.beta(x, 1.25)),
    "i0(x)": lambda x: mp.besseli(0, x),
    "i1(x)": lambda x: mp.besseli(1, x),
    "i0e(x)": lambda x: mp.besseli(0, x) * mp.exp(-abs(x)),
    "i1e(x)": lambda x: mp.besseli(1, x) * mp.exp(-abs(x)),
    "j0(x)": lambda x: mp.besselj(0, x),
    "j1(x)": lambda x: mp.besselj(1, x),
    "y0(x)": lambda x: mp.bessely(0, x),
    "y1(x)": lambda x: mp.bessely(1, x),
    "k0(x)": lambda x: mp.besselk(0, x),
    "k1(x)": lambda x: mp.besselk(1, x),
    "k0e(x)": lambda x: mp.besselk(0, x) * mp.exp(x),
    "k1e(x)": lambda x: mp.besselk(1, x) * mp.exp(x),
    "jv(2.5, x)": lambda x: mp.besselj(2.5, x),
    "yv(2, x)": lambda x: mp.bessely(2, x),
    "iv(2, x)": lambda x: mp.besseli(2, x),
    "kv(2, x)": lambda x: mp.besselk(2, x),
    "deg2rad(x)": lambda x: x * mp.pi / 180,
    "rad2deg(x)": lambda x: x * 180 / mp.pi,
}
"""By the call. What is slow in mpmath is in SLOW, and what it knows the derivatives of in CLOSED."""

SLOW = ("erfinv(x)", "ndtri(x)", "lambertw(x)")


@cache
def _bessel(kind: str, v: int, x: Any) -> Any:
    """Of an order that may be negative, which mpmath would come to by a limit."""
    sign = (-1) ** v if v < 0 and kind in "jy" else 1
    return sign * getattr(mp, f"bessel{kind}")(abs(v), x)


def _neighbours(kind: str, v: int) -> Callable[[Any, int], Any]:
    """The k-th derivative by functions of the orders around (DLMF 10.6.7, 10.29.5)."""

    def derivative(x: Any, k: int) -> Any:
        turn = -1 if kind in "jy" else 1
        terms = [turn**j * mp.binomial(k, j) * _bessel(kind, v - k + 2 * j, x) for j in range(k + 1)]
        return mp.fsum(terms) / (-2 if kind == "k" else 2) ** k

    return derivative


def _scaled(kind: str, v: int, rate: int) -> Callable[[Any, int], Any]:
    """Of exp(rate·x) times a Bessel function, by Leibniz' rule, in twice as many digits as its terms cancel."""

    def derivative(x: Any, k: int) -> Any:
        with mp.workdps(80):
            bare = _neighbours(kind, v)
            return mp.exp(rate * x) * mp.fsum(mp.binomial(k, j) * bare(x, j) * rate ** (k - j) for j in range(k + 1))

    return derivative


CLOSED: dict[str, Callable[[Any, int], Any]] = {
    "lgamma(x)": lambda x, k: mp.psi(k - 1, x) if k else mp.loggamma(x),
    "digamma(x)": lambda x, k: mp.psi(k, x),
    "polygamma(2, x)": lambda x, k: mp.psi(k + 2, x),
    "zeta(2.5, x)": lambda x, k: (-1) ** k * mp.rf(2.5, k) * mp.zeta(mp.mpf(2.5) + k, x),
    "betaln(x, 1.25)": lambda x, k: mp.psi(k - 1, x) - mp.psi(k - 1, x + 1.25) if k else mp.log(mp.beta(x, 1.25)),
    "multigammaln(x + 1, p=2)": lambda x, k: (
        mp.psi(k - 1, x + 1) + mp.psi(k - 1, x + 0.5) if k else mp.log(mp.pi) / 2 + mp.loggamma(x + 1)
    ),
    "expn(4, x)": lambda x, k: (-1) ** k * mp.expint(4 - k, x),
    **{f"{kind}{v}(x)": _neighbours(kind, v) for kind in "jyik" for v in (0, 1)},
    **{f"{kind}v(2, x)": _neighbours(kind, 2) for kind in "yik"},
    **{f"i{v}e(x)": _scaled("i", v, -1) for v in (0, 1)},
    **{f"k{v}e(x)": _scaled("k", v, 1) for v in (0, 1)},
}
"""The k-th derivative at x."""


def derivatives(call: str, x: float, order: int) -> list[Any]:
    """The derivatives of order 0 to `order`, to some thirty digits."""
    with mp.workdps(40):
        if call in CLOSED:
            return [CLOSED[call](mp.mpf(x), k) for k in range(order + 1)]
        return [c * mp.factorial(k) for k, c in enumerate(mp.taylor(UNARY[call], mp.mpf(x), order))]
