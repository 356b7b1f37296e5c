"""Prices and Greeks are those of the closed forms."""

import sys

import numpy as np
import pytest
from scipy.stats import norm

from examples import black_scholes
from examples.black_scholes import GREEKS, WRT, greek


def some_options(count=200):
    """Options of both kinds, from far out of the money to far in it."""
    draw = np.random.default_rng(1973).uniform
    S, K, T = draw(50, 150, count), draw(50, 150, count), draw(0.05, 3, count)
    r, sigma, phi = draw(0, 0.1, count), draw(0.1, 0.6, count), np.resize([1.0, -1.0], count)
    return {"S": S, "K": K, "T": T, "r": r, "sigma": sigma, "phi": phi}


def closed_forms(S, K, T, r, sigma, phi):
    """Price, gradient and Hessian, derived by hand; S·n(d1) = K·exp(−rT)·n(d2) lets most terms cancel."""
    root = np.sqrt(T)
    d1 = (np.log(S / K) + (r + sigma**2 / 2) * T) / (sigma * root)
    d2 = d1 - sigma * root
    n1, N1, N2 = norm.pdf(d1), phi * norm.cdf(phi * d1), phi * norm.cdf(phi * d2)
    paid = K * np.exp(-r * T)
    m = S * n1  # and that is paid * n(d2)
    price = S * N1 - paid * N2
    gradient = {
        "S": N1,
        "K": -paid / K * N2,
        "T": m * sigma / (2 * root) + r * paid * N2,
        "r": T * paid * N2,
        "sigma": m * root,
    }
    slope = sigma * root
    d1_by = {"S": 1 / (S * slope), "K": -1 / (K * slope), "r": root / sigma, "sigma": -d2 / sigma}
    d1_by["T"] = r / slope - d2 / (2 * T)
    d2_by = d1_by | {"T": d1_by["T"] - sigma / (2 * root), "sigma": -d1 / sigma}
    hessian = {
        "SS": n1 * d1_by["S"],
        "SK": n1 * d1_by["K"],
        "ST": n1 * d1_by["T"],
        "Sr": n1 * d1_by["r"],
        "Ssigma": n1 * d1_by["sigma"],
        "KK": -m / K * d2_by["K"],
        "KT": (r * paid * N2 - m * d2_by["T"]) / K,
        "Kr": (T * paid * N2 - m * d2_by["r"]) / K,
        "Ksigma": -m / K * d2_by["sigma"],
        "TT": -m * sigma / (2 * root) * (d1 * d1_by["T"] + 1 / (2 * T)) + r * (m * d2_by["T"] - r * paid * N2),
        "Tr": -m * sigma / (2 * root) * d1 * d1_by["r"] + (1 - r * T) * paid * N2 + r * m * d2_by["r"],
        "Tsigma": m / (2 * root) * (1 - sigma * d1 * d1_by["sigma"]) + r * m * d2_by["sigma"],
        "rr": T * (m * d2_by["r"] - T * paid * N2),
        "rsigma": T * m * d2_by["sigma"],
        "sigmasigma": -m * root * d1 * d1_by["sigma"],
    }
    return price, gradient, hessian


@pytest.fixture
def options():
    return some_options()


@pytest.fixture
def answer(api, options):
    return black_scholes.price_with_derivatives(api, {name: column.tolist() for name, column in options.items()})


def test_price_gradient_and_whole_hessian_are_the_closed_forms(answer, options):
    price, gradient, hessian = closed_forms(**options)
    agree(answer["values"]["price"]["data"], price)
    for a in WRT:
        agree(answer["gradients"][a]["data"], gradient[a])
        for b in WRT:
            agree(answer["hessian"][a][b]["data"], hessian[a + b if a + b in hessian else b + a])


def agree(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_named_greeks_solve_the_black_scholes_equation(answer, options):
    """theta + ½σ²S²·gamma + r·S·delta = r·price, which fixes their signs."""
    S, r, sigma = options["S"], options["r"], options["sigma"]
    theta, gamma, delta = (np.array(greek(answer, GREEKS[name])) for name in ("theta", "gamma", "delta"))
    price = np.array(answer["values"]["price"]["data"])
    np.testing.assert_allclose(theta + sigma**2 * S**2 / 2 * gamma + r * S * delta, r * price, rtol=0, atol=1e-10)


def test_printed_prices_are_those_of_hulls_example(run):
    done = run(sys.executable, "examples/black_scholes.py")
    assert done.returncode == 0, done.stderr
    titles, prices, *greeks = done.stdout.splitlines()
    assert titles.split()[:4] == ["call", "40", "put", "40"]
    assert [round(float(word), 2) for word in prices.split()[1:3]] == [4.76, 0.81]
    assert [line[:10].strip() for line in greeks] == list(GREEKS)
