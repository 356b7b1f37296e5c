"""Logistic regression on Fisher's iris: SciPy minimises, the service answers with loss, gradient and Hessian.

Versicolor against virginica, from four measurements in cm and an intercept, with no penalty. (Setosa is left out: a
plane separates it from the others, so its maximum likelihood would lie at infinity.) Needs httpx, NumPy and SciPy.

Data: R. A. Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 7 (1936), 179-188.

python examples/iris.py [URL]
"""

import csv
import os
import sys
from pathlib import Path

import httpx
import numpy as np
from scipy.optimize import minimize

FEATURES = ["sepal_length", "sepal_width", "petal_length", "petal_width"]

# Minus the log-likelihood of labels y in {0, 1}, where virginica has the probability sigmoid(z).
LOSS = """
z = w[0] + X @ w[1:]
loss = sum(softplus(z) - y * z)
"""


def read_iris():
    """Measurements and labels (1 for virginica) of the two species that overlap."""
    with open(Path(__file__).with_name("iris.csv"), newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["species"] != "setosa"]
    X = np.array([[float(row[name]) for name in FEATURES] for row in rows])
    y = np.array([float(row["species"] == "virginica") for row in rows])
    return X, y


def fit(api, X, y):
    """SciPy's result: `x` holds the intercept and the four slopes, `fun` the loss there."""
    data = {"X": X.tolist(), "y": y.tolist()}

    def ask(call, w):
        request = {"expression": LOSS, "inputs": {**data, "w": w.tolist()}, "wrt": ["w"]}
        return api.post(call, json=request).raise_for_status().json()

    def loss_and_gradient(w):
        answer = ask("/grad", w)
        return answer["values"]["loss"]["data"], np.array(answer["gradients"]["w"]["data"])

    def hessian(w):
        return np.array(ask("/grad/hessian", w)["hessian"]["w"]["w"]["data"])

    start = np.zeros(1 + X.shape[1])
    return minimize(loss_and_gradient, start, jac=True, hess=hessian, method="trust-exact", options={"gtol": 1e-9})


if __name__ == "__main__":
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("GRADWIRE_URL", "http://127.0.0.1:8000")
    X, y = read_iris()
    with httpx.Client(base_url=url) as api:  # keeps its connection open from one step to the next
        result = fit(api, X, y)
    intercept, *slopes = result.x
    right = int(np.sum((intercept + X @ slopes > 0) == y))
    print(f"{'intercept':<14}{intercept:12.6f}")
    for name, slope in zip(FEATURES, slopes, strict=True):
        print(f"{name:<14}{slope:12.6f}")
    print(f"log-likelihood {-result.fun:.6f}, {right} of {len(y)} flowers classified rightly")
