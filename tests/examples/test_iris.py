"""The regression on iris finds the maximum of the likelihood, to the last digits."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

from examples import iris


def newton(X, y):
    """The maximum-likelihood estimate by Newton's method, written out in NumPy."""
    A = np.column_stack([np.ones(len(y)), X])
    w = np.zeros(A.shape[1])
    for _ in range(20):
        p = 1 / (1 + np.exp(-A @ w))
        step = np.linalg.solve((A.T * (p * (1 - p))) @ A, A.T @ (y - p))
        w += step
    assert np.max(np.abs(step)) < 1e-9  # it has converged
    return w


@pytest.fixture
def flowers():
    return iris.read_iris()


def test_coefficients_are_those_of_newtons_method(api, flowers):
    result = iris.fit(api, *flowers)
    assert result.success
    np.testing.assert_allclose(result.x, newton(*flowers), rtol=1e-9)


def test_printed_coefficients_are_the_known_ones(run):
    done = run(sys.executable, "examples/iris.py")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "intercept       -42.637804",
        "sepal_length     -2.465220",
        "sepal_width      -6.680887",
        "petal_length      9.429385",
        "petal_width      18.286137",
        "log-likelihood -5.949273, 98 of 100 flowers classified rightly",
    ]


def test_the_data_are_fishers():
    """His table of means (setosa, versicolor, virginica), and rows 35 and 38, which other copies have wrong."""
    with open(Path(iris.__file__).with_name("iris.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    measured = np.array([[float(row[name]) for name in iris.FEATURES] for row in rows])
    assert [row["species"] for row in rows] == ["setosa"] * 50 + ["versicolor"] * 50 + ["virginica"] * 50
    means = [[5.006, 3.428, 1.462, 0.246], [5.936, 2.770, 4.260, 1.326], [6.588, 2.974, 5.552, 2.026]]
    np.testing.assert_allclose(measured.reshape(3, 50, 4).mean(axis=1), means, atol=1e-12)
    assert measured[[34, 37]].tolist() == [[4.9, 3.1, 1.5, 0.2], [4.9, 3.6, 1.4, 0.1]]
