"""Black-Scholes: prices of European calls and puts with all their first and second Greeks, in one request.

The price is written for one option. `batch` runs it on a column of each input, and the Hessian with it; `wrt` leaves
out `phi`, which is +1 for a call and -1 for a put.

python examples/black_scholes.py [URL]
"""

import os
import sys

import httpx

URL = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GRADWIRE_URL", "http://127.0.0.1:8000")

PRICE = """
d1 = (log(S / K) + (r + sigma**2 / 2) * T) / (sigma * sqrt(T))
d2 = d1 - sigma * sqrt(T)
price = phi * (S * ndtr(phi * d1) - K * exp(-r * T) * ndtr(phi * d2))
"""

# The first two columns are the example of Hull, Options, Futures, and Other Derivatives: 4.76 and 0.81.
OPTIONS = {
    "S": [42, 42, 42, 42],
    "K": [40, 40, 45, 45],
    "T": [0.5, 0.5, 1, 1],
    "r": [0.1, 0.1, 0.1, 0.1],
    "sigma": [0.2, 0.2, 0.3, 0.3],
    "phi": [1, -1, 1, -1],
}
WRT = ["S", "K", "T", "r", "sigma"]

# A Greek is named by what the price is differentiated by.
GREEKS = {
    "delta": ["S"],
    "dual delta": ["K"],
    "theta": ["T"],
    "rho": ["r"],
    "vega": ["sigma"],
    "gamma": ["S", "S"],
    "dual gamma": ["K", "K"],
    "charm": ["S", "T"],
    "vanna": ["S", "sigma"],
    "veta": ["sigma", "T"],
    "vera": ["r", "sigma"],
    "volga": ["sigma", "sigma"],
}


def price_with_derivatives(api, options):
    """The answer of the service: `values`, `gradients` and `hessian`, all by name, a list with a number per option."""
    request = {"expression": PRICE, "inputs": options, "batch": list(options), "wrt": WRT}
    return api.post("/grad/hessian", json=request).raise_for_status().json()


def greek(answer, by):
    """One Greek for every option. Time passes as T, the time that is left, shrinks: hence the sign of theta and kin."""
    found = answer["gradients"][by[0]] if len(by) == 1 else answer["hessian"][by[0]][by[1]]
    return [-value for value in found["data"]] if "T" in by else found["data"]


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GRADWIRE_URL", "http://127.0.0.1:8000")
    with httpx.Client(base_url=url) as api:
        answer = price_with_derivatives(api, OPTIONS)
    table = {"price": answer["values"]["price"]["data"]} | {name: greek(answer, by) for name, by in GREEKS.items()}
    titles = [f"{'call' if phi == 1 else 'put'} {K}" for phi, K in zip(OPTIONS["phi"], OPTIONS["K"], strict=True)]
    print(" " * 10 + "".join(f"{title:>14}" for title in titles))
    for name, values in table.items():
        print(f"{name:<10}" + "".join(f"{value:14.8f}" for value in values))
