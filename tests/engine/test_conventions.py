"""What derivatives are at kinks and singular points: the table of the documentation, a row a test.

The law is PyTorch's: the gradient where there is one; the subgradient of least norm where the function is convex, the
supergradient where it is concave; else by continuity, infinity allowed; NaN where nothing is defined.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from engine.core import ops
from engine.errors import NonFinite, NotDifferentiable
from tests.support.asking import ask
from tests.support.numeric import assert_close

NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Row:
    """An expression at a point, its value there, and its gradient by each input."""

    expression: str
    inputs: dict[str, Any]
    value: Any
    gradients: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.expression} at {', '.join(map(str, self.inputs.values()))}".replace(" ", "")

    @property
    def is_known(self) -> bool:
        return all(name in ops for name in re.findall(r"(\w+)\(", self.expression))


ROWS = [
    Row("abs(x)", {"x": 0.0}, 0.0, {"x": 0.0}),
    Row("sign(x)", {"x": 0.0}, 0.0, {"x": 0.0}),
    Row("copysign(x, y)", {"x": 0.0, "y": 1.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("relu(x)", {"x": 0.0}, 0.0, {"x": 0.0}),
    Row("relu6(x)", {"x": [0.0, 6.0]}, [0.0, 6.0], {"x": [0.0, 0.0]}),
    Row("leaky_relu(x, negative_slope=0.25)", {"x": 0.0}, 0.0, {"x": 0.25}),
    Row("maximum(x, y)", {"x": 3.0, "y": 3.0}, 3.0, {"x": 0.5, "y": 0.5}),
    Row("minimum(x, y)", {"x": 3.0, "y": 3.0}, 3.0, {"x": 0.5, "y": 0.5}),
    Row("fmax(x, y)", {"x": 3.0, "y": 3.0}, 3.0, {"x": 1.0, "y": 0.0}),
    Row("fmin(x, y)", {"x": 3.0, "y": 3.0}, 3.0, {"x": 1.0, "y": 0.0}),
    Row("fmax(x, y)", {"x": ["NaN", 2.0], "y": [1.0, "NaN"]}, [1.0, 2.0], {"x": [0.0, 1.0], "y": [1.0, 0.0]}),
    Row("fmin(x, y)", {"x": ["NaN", 2.0], "y": [1.0, "NaN"]}, [1.0, 2.0], {"x": [0.0, 1.0], "y": [1.0, 0.0]}),
    Row("fmod(x, y)", {"x": [-7.0, 6.0], "y": [3.0, 3.0]}, [-1.0, 0.0], {"x": [1.0, 1.0], "y": [2.0, -2.0]}),
    Row("max(x)", {"x": [1.0, 3.0, 3.0]}, 3.0, {"x": [0.0, 0.5, 0.5]}),
    Row("min(x)", {"x": [1.0, 1.0, 3.0]}, 1.0, {"x": [0.5, 0.5, 0.0]}),
    Row("max(x)", {"x": [2.0, 2.0, 2.0, 2.0]}, 2.0, {"x": [0.25, 0.25, 0.25, 0.25]}),
    Row("median(x)", {"x": [1.0, 3.0, 3.0]}, 3.0, {"x": [0.0, 0.5, 0.5]}),
    Row("median(x)", {"x": [4.0, 1.0, 3.0, 3.0]}, 3.0, {"x": [0.0, 0.0, 0.5, 0.5]}),
    Row(
        "median(x, method='midpoint')",
        {"x": [1.0, 2.0, 2.0, 5.0, 5.0, 9.0]},
        3.5,
        {"x": [0.0, 0.25, 0.25, 0.25, 0.25, 0.0]},
    ),
    Row("median(x)", {"x": [1.0, 2.0, 5.0, 9.0]}, 2.0, {"x": [0.0, 1.0, 0.0, 0.0]}),
    Row("nanmedian(x)", {"x": [1.0, 3.0, "NaN", 3.0]}, 3.0, {"x": [0.0, 0.5, 0.0, 0.5]}),
    Row("quantile(x, 0.5)", {"x": [1.0, 3.0, 3.0]}, 3.0, {"x": [0.0, 1.0, 0.0]}),
    Row("sort(x)[1]", {"x": [3.0, 1.0, 3.0]}, 3.0, {"x": [1.0, 0.0, 0.0]}),
    Row("sort(x, descending=true)[0]", {"x": [1.0, 3.0, 3.0]}, 3.0, {"x": [0.0, 1.0, 0.0]}),
    Row("sum(top_k(x, 2).values)", {"x": [3.0, 1.0, 3.0, 3.0]}, 6.0, {"x": [1.0, 0.0, 1.0, 0.0]}),
    Row("cumulative_max(x).values", {"x": [2.0, 1.0, 2.0]}, [2.0, 2.0, 2.0], {"x": [2.0, 0.0, 1.0]}),
    Row("scatter(x, [0, 0], v)", {"x": [1.0, 2.0], "v": [5.0, 7.0]}, [7.0, 2.0], {"x": [0.0, 1.0], "v": [0.0, 1.0]}),
    Row(
        "index_update(x, [0, 0], v)", {"x": [1.0, 2.0], "v": [5.0, 7.0]}, [7.0, 2.0], {"x": [0.0, 1.0], "v": [0.0, 1.0]}
    ),
    Row("matrix_norm(x)", {"x": [[0.0, 0.0], [0.0, 0.0]]}, 0.0, {"x": [[0.0, 0.0], [0.0, 0.0]]}),
    Row("matrix_norm(x, ord=1)", {"x": [[1.0, 1.0], [0.0, 0.0]]}, 1.0, {"x": [[0.5, 0.5], [0.0, 0.0]]}),
    Row("vector_norm(x, ord=0.5)", {"x": [0.0, 4.0]}, 4.0, {"x": [0.0, 1.0]}),
    Row("vector_norm(x, ord=-1)", {"x": [0.0, 4.0]}, 0.0, {"x": [0.0, 0.0]}),
    Row("vector_norm(x, ord=0)", {"x": [0.0, 4.0]}, 1.0, {"x": [0.0, 0.0]}),
    Row("cumulative_logsumexp(x)", {"x": [-INF, 0.0]}, [-INF, 0.0], {"x": [0.0, 1.0]}),
    Row("clip(x, 0, 1)", {"x": [0.0, 1.0, 2.0]}, [0.0, 1.0, 1.0], {"x": [1.0, 1.0, 0.0]}),
    Row("clip(x, low, 9)", {"x": 2.0, "low": 2.0}, 2.0, {"x": 1.0, "low": 0.0}),
    Row("sum(max_pool2d(x, kernel_size=2))", {"x": [[[[1.0, 1.0], [1.0, 1.0]]]]}, 1.0, {"x": [[[[1, 0], [0, 0]]]]}),
    Row("sum(max_pool2d(x, kernel_size=2, padding=1))", {"x": [[[-INF]]]}, -INF, {"x": [[[1.0]]]}),
    Row("sum(adaptive_max_pool1d(x, 2))", {"x": [[1.0, 1.0, 1.0]]}, 2.0, {"x": [[1.0, 1.0, 0.0]]}),
    Row("hardtanh(x)", {"x": [-1.0, 1.0]}, [-1.0, 1.0], {"x": [0.0, 0.0]}),
    Row("hardshrink(x)", {"x": [-0.5, 0.5]}, [0.0, 0.0], {"x": [0.0, 0.0]}),
    Row("softshrink(x)", {"x": [-0.5, 0.5]}, [0.0, 0.0], {"x": [0.0, 0.0]}),
    Row("threshold(x, 1, 5)", {"x": 1.0}, 5.0, {"x": 0.0}),
    Row("prelu(x, w)", {"x": 0.0, "w": 0.25}, 0.0, {"x": 0.25, "w": 0.0}),
    Row("celu(x, alpha=2)", {"x": 0.0}, 0.0, {"x": 1.0}),
    Row("l1_loss(x, y)", {"x": 2.0, "y": 2.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("margin_ranking_loss(x, y, 1)", {"x": 2.0, "y": 2.0}, 0.0, {"x": -1.0, "y": 1.0}),
    Row("normalize(x, axis=0)[0]", {"x": [0.0, 0.0]}, 0.0, {"x": [1e12, 0.0]}),
    Row("cosine_similarity(x, y, axis=0)", {"x": [0.0, 0.0], "y": [1.0, 0.0]}, 0.0, {"x": [1e8, 0.0], "y": [0.0, 0.0]}),
    Row("pairwise_distance(x, y, eps=0)", {"x": [1.0, 2.0], "y": [1.0, 2.0]}, 0.0, {"x": [0.0, 0.0], "y": [0.0, 0.0]}),
    Row("binary_cross_entropy(x, y)", {"x": 0.0, "y": 1.0}, 100.0, {"x": 0.0, "y": 100.0}),
    Row("cross_entropy(x, 1, ignore_index=1)", {"x": [1.0, 2.0]}, NAN, {"x": [0.0, 0.0]}),
    Row("sum(embedding([0, 1], x, padding_idx=1))", {"x": [[1.0], [2.0]]}, 3.0, {"x": [[1.0], [0.0]]}),
    Row(
        "sum(attention(x, k, v, [[False, False]]))",
        {"x": [[1.0]], "k": [[1.0], [2.0]], "v": [[1.0], [2.0]]},
        0.0,
        {"x": [[0.0]], "k": [[0.0], [0.0]], "v": [[0.0], [0.0]]},
    ),
    Row("x * log(y)", {"x": 0.0, "y": 0.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("x * log(1 + y)", {"x": 0.0, "y": -1.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("log(x) * 2", {"x": 0.0}, -INF, {"x": INF}),
    Row("sqrt(x)", {"x": 0.0}, 0.0, {"x": INF}),
    Row("cbrt(x)", {"x": 0.0}, 0.0, {"x": INF}),
    Row("log(x)", {"x": 0.0}, -INF, {"x": INF}),
    Row("vector_norm(x)", {"x": [0.0, 0.0]}, 0.0, {"x": [0.0, 0.0]}),
    Row("vector_norm(x, ord=1)", {"x": [0.0, -2.0]}, 2.0, {"x": [0.0, -1.0]}),
    Row("vector_norm(x, ord=3)", {"x": [0.0, 0.0]}, 0.0, {"x": [0.0, 0.0]}),
    Row("vector_norm(x, ord=Infinity)", {"x": [2.0, -2.0, 1.0]}, 2.0, {"x": [0.5, -0.5, 0.0]}),
    Row("std(x)", {"x": [2.0, 2.0]}, 0.0, {"x": [0.0, 0.0]}),
    Row("var(x)", {"x": [2.0, 2.0]}, 0.0, {"x": [0.0, 0.0]}),
    Row("pow(x, y)", {"x": 0.0, "y": 0.0}, 1.0, {"x": 0.0, "y": 0.0}),
    Row("pow(x, y)", {"x": 0.0, "y": 2.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("pow(x, y)", {"x": -2.0, "y": 2.0}, 4.0, {"x": -4.0, "y": NAN}),
    Row("x**0", {"x": 0.0}, 1.0, {"x": 0.0}),
    Row("x**1", {"x": 0.0}, 0.0, {"x": 1.0}),
    Row("x**2", {"x": 0.0}, 0.0, {"x": 0.0}),
    Row("x**0.5", {"x": 0.0}, 0.0, {"x": INF}),
    Row("atan2(x, y)", {"x": 0.0, "y": 0.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("hypot(x, y)", {"x": 0.0, "y": 0.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("prod(x)", {"x": [0.0, 2.0, 3.0]}, 0.0, {"x": [6.0, 0.0, 0.0]}),
    Row("prod(x)", {"x": [0.0, 0.0, 3.0]}, 0.0, {"x": [0.0, 0.0, 0.0]}),
    Row("cumulative_prod(x)", {"x": [2.0, 0.0, 3.0]}, [2.0, 0.0, 0.0], {"x": [1.0, 8.0, 0.0]}),
    Row("sinc(x)", {"x": 0.0}, 1.0, {"x": 0.0}),
    Row("i0(x)", {"x": 0.0}, 1.0, {"x": 0.0}),
    Row("i1(x)", {"x": 0.0}, 0.0, {"x": 0.5}),
    Row("j0(x)", {"x": 0.0}, 1.0, {"x": 0.0}),
    Row("j1(x)", {"x": 0.0}, 0.0, {"x": 0.5}),
    Row("i0e(x)", {"x": 0.0}, 1.0, {"x": 0.0}),
    Row("i1e(x)", {"x": 0.0}, 0.0, {"x": 0.5}),
    Row("lambertw(x)", {"x": 0.0}, 0.0, {"x": 1.0}),
    Row("lambertw(x)", {"x": -math.exp(-1)}, -1.0, {"x": INF}),
    Row("gammainc(1, x)", {"x": 0.0}, 0.0, {"x": 1.0}),
    Row("xlogy(x, y)", {"x": 0.0, "y": 0.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("xlog1py(x, y)", {"x": 0.0, "y": -1.0}, 0.0, {"x": 0.0, "y": 0.0}),
    Row("det(x)", {"x": [[1.0, 2.0], [2.0, 4.0]]}, 0.0, {"x": [[4.0, -2.0], [-2.0, 1.0]]}),
    Row(
        "det(x)",
        {"x": [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [1.0, 0.0, 1.0]]},
        0.0,
        {"x": [[4.0, 4.0, -4.0], [-2.0, -2.0, 2.0], [0.0, 0.0, 0.0]]},
    ),
    Row("sum(eigvalsh(x)**2)", {"x": [[2.0, 0.0], [0.0, 2.0]]}, 8.0, {"x": [[4.0, 0.0], [0.0, 4.0]]}),
    Row("sum(svdvals(x)**2)", {"x": [[2.0, 0.0], [0.0, 2.0]]}, 8.0, {"x": [[4.0, 0.0], [0.0, 4.0]]}),
    Row("logdet(x)", {"x": [[0.0, 1.0], [1.0, 0.0]]}, NAN, {"x": [[NAN, NAN], [NAN, NAN]]}),
    Row(
        "sum(solve_triangular(x, [1.0, 1.0], upper=true))",
        {"x": [[2.0, 0.0], [5.0, 1.0]]},
        1.5,
        {"x": [[-0.25, -0.5], [0.0, -1.0]]},
    ),
    Row("sum(cholesky_inverse(x))", {"x": [[1.0, 7.0], [0.0, 1.0]]}, 2.0, {"x": [[-2.0, 0.0], [-2.0, -2.0]]}),
    Row("sum(pinv(x))", {"x": [[2.0, 0.0], [0.0, 0.0]]}, 0.5, {"x": [[-0.25, 0.25], [0.25, 0.0]]}),
    Row("sum(expm(x))", {"x": [[0.0, 0.0], [0.0, 0.0]]}, 2.0, {"x": [[1.0, 1.0], [1.0, 1.0]]}),
    Row("sum(eigh(x).eigenvectors**2)", {"x": [[2.0, 0.0], [0.0, 2.0]]}, 2.0, {"x": [[NAN, NAN], [NAN, NAN]]}),
    Row("floor(x)", {"x": 2.0}, 2.0, {"x": 0.0}),
    Row("round(x)", {"x": [0.5, 1.5, 2.5]}, [0.0, 2.0, 2.0], {"x": [0.0, 0.0, 0.0]}),
    Row("where(x > 0, sqrt(x), 0)", {"x": 0.0}, 0.0, {"x": NAN}),
    Row("logsumexp(x)", {"x": [-INF, 0.0]}, 0.0, {"x": [0.0, 1.0]}),
    Row("softmax(x)[1]", {"x": [-INF, 0.0]}, 1.0, {"x": [0.0, 0.0]}),
    Row("nansum(x)", {"x": ["NaN", 2.0]}, 2.0, {"x": [0.0, 1.0]}),
    Row("nan_to_num(x)", {"x": ["NaN", 2.0]}, [0.0, 2.0], {"x": [0.0, 1.0]}),
]


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_known], ids=str)
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_convention(row: Row, mode: str) -> None:
    """Value and gradient are as decided; forward mode says the same as reverse mode."""
    found = ask("grad", row.expression, row.inputs, ones=True)
    assert_close(found["values"]["out"], row.value, 1e-12, "value")
    gradients = found["gradients"]
    if mode == "forward":
        jacobian = ask("jacobian", f"sum({row.expression})", row.inputs, mode="forward")["jacobian"]["out"]
        gradients = jacobian
    assert gradients.keys() == row.gradients.keys()
    for name, expected in row.gradients.items():
        if mode == "forward" and np.isnan(expected).any():
            continue
        assert_close(gradients[name], np.array(expected, float), 1e-12, f"gradient by {name}")


COMPLEX_ROWS = [
    Row("abs(z)", {"z": 0j}, 0.0, {"z": 0j}),
    Row("sign(z)", {"z": 0j}, 0j, {"z": 0j}),
    Row("angle(z)", {"z": 0j}, 0.0, {"z": 0j}),
    Row("angle(z)", {"z": -2 + 0j}, math.pi, {"z": -0.5j}),
    Row("angle(z)", {"z": complex(-2, -0.0)}, -math.pi, {"z": -0.5j}),
    Row("vector_norm(z)", {"z": [0j, 0j]}, 0.0, {"z": [0j, 0j]}),
    Row("vector_norm(z, ord=1)", {"z": [0j, 3j]}, 3.0, {"z": [0j, 1j]}),
    Row("vector_norm(z, ord=Infinity)", {"z": [2j, -2 + 0j, 1j]}, 2.0, {"z": [0.5j, -0.5, 0j]}),
    Row("std(z)", {"z": [1j, 1j]}, 0.0, {"z": [0j, 0j]}),
    Row("log(z)", {"z": -1 + 0j}, 1j * math.pi, {"z": -1 + 0j}),
    Row("log(z)", {"z": complex(-1, -0.0)}, -1j * math.pi, {"z": -1 + 0j}),
    Row("sqrt(z)", {"z": -4 + 0j}, 2j, {"z": 0.25j}),
    Row("sqrt(z)", {"z": complex(-4, -0.0)}, -2j, {"z": -0.25j}),
    Row("pow(z, w)", {"z": 0j, "w": 0j}, 1.0, {"z": 0j, "w": 0j}),
    Row("prod(z)", {"z": [0j, 2j, 3 + 0j]}, 0j, {"z": [-6j, 0j, 0j]}),
    Row("sum(irfft(z))", {"z": [1 + 5j, 2 + 5j, 3 + 5j]}, 1.0, {"z": [1.0, 0.0, 0.0]}),
    Row("irfft(z)[1]", {"z": [1 + 5j, 2 + 5j, 3 + 5j]}, -3.0, {"z": [0.25, -0.5j, -0.25]}),
]


@pytest.mark.parametrize("row", COMPLEX_ROWS, ids=str)
def test_convention_of_complex_numbers(row: Row) -> None:
    """The gradient is that of the real part of the output."""
    inputs = {name: np.array(value, complex) for name, value in row.inputs.items()}
    found = ask("grad", f"y = real({row.expression})", inputs)
    assert_close(ask("value", row.expression, inputs)["values"]["out"], np.array(row.value), 1e-12, "value")
    for name, expected in row.gradients.items():
        assert_close(found["gradients"][name], np.array(expected, complex), 1e-12, f"gradient by {name}")


SECOND = [
    Row("sum(abs(x))", {"x": 0.0}, None, {"x": 0.0}),
    Row("relu(x)", {"x": 0.0}, None, {"x": 0.0}),
    Row("x**2", {"x": 0.0}, None, {"x": 2.0}),
    Row("x**3", {"x": 0.0}, None, {"x": 0.0}),
    Row("sinc(x)", {"x": 0.0}, None, {"x": -(math.pi**2) / 3}),
    Row("i0(x)", {"x": 0.0}, None, {"x": 0.5}),
    Row("i1(x)", {"x": 0.0}, None, {"x": 0.0}),
    Row("j0(x)", {"x": 0.0}, None, {"x": -0.5}),
    Row("j1(x)", {"x": 0.0}, None, {"x": 0.0}),
    Row("i0e(x)", {"x": 0.0}, None, {"x": 1.5}),
    Row("i1e(x)", {"x": 0.0}, None, {"x": 0.0}),
    Row("lambertw(x)", {"x": 0.0}, None, {"x": -2.0}),
    Row("prod(x)", {"x": [0.0, 0.0, 3.0]}, None, {"x": [[0.0, 3.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]}),
    Row("sum(clip(x, 0, 1)**2)", {"x": [0.0, 1.0]}, None, {"x": [[2.0, 0.0], [0.0, 2.0]]}),
    Row("vector_norm(x)**2", {"x": [3.0, 4.0]}, None, {"x": [[2.0, 0.0], [0.0, 2.0]]}),
]


@pytest.mark.parametrize("row", [row for row in SECOND if row.is_known], ids=str)
def test_second_order_at_the_point(row: Row) -> None:
    hessian = ask("hessian", row.expression, row.inputs)["hessian"]
    assert_close(hessian["x"]["x"], np.array(row.gradients["x"], float), 1e-12, "Hessian")


# Derivatives that no formula gives

NO_FORMULA = [
    ("zeta(x, y)", "x", "y"),
    ("gammainc(x, y)", "x", "y"),
    ("gammaincc(x, y)", "x", "y"),
    ("betainc(x, 2, y)", "x", "y"),
    ("betainc(2, x, y)", "x", "y"),
]
POINT = {"x": 2.5, "y": 0.75}


@pytest.mark.parametrize(("call", "refused", "given"), NO_FORMULA)
def test_a_shape_parameter_is_refused_when_it_is_asked_for(call: str, refused: str, given: str) -> None:
    """In every call, with the reason and the node; the other operand is differentiated as ever."""
    tangents = {refused: 1.0}
    for how in ({"call": "grad", "wrt": [refused]}, {"call": "jvp", "tangents": tangents}, {"call": "grad"}):
        with pytest.raises(NotDifferentiable, match="no closed derivative") as caught:
            ask(graph=f"out_ = {call}", inputs=POINT, **how)
        assert caught.value.node == "out_"
    assert list(ask("grad", call, POINT, wrt=[given])["gradients"]) == [given]
    assert len(ask("nth", call, POINT, wrt=[given], order=5)["derivatives"]) == 5
    assert len(ask("taylor", call, POINT, direction={given: 1.0}, order=5)["coefficients"]["out"]) == 6


# nan_policy: "mask"

MASKED = [
    ("where(x > 0, sqrt(x), 0)", "sqrt(x)"),
    ("where(x > 0, log(x), 0)", "log(x)"),
    ("where(x > 0, 1 / x, 0)", "1 / x"),
    ("where(x > 0, x * log(x), 0)", "x * log(x)"),
    ("where(x > 0, x**1.5, 0)", "x**1.5"),
    ("where(x > 0, x**0.5 * exp(x), 0)", "x**0.5 * exp(x)"),
    ("where(x > 0, rsqrt(x), 0)", "rsqrt(x)"),
    ("where(x > 0, lgamma(x), 0)", "lgamma(x)"),
    ("where(x > 0, pow(x, sin(x)), 0)", "pow(x, sin(x))"),
]
X = np.array([0.0, 4.0])
every_masked = pytest.mark.parametrize(("guarded", "plain"), MASKED, ids=[guarded for guarded, _ in MASKED])


def masked(call: str, guarded: str, **more: Any) -> Any:
    return ask(call, guarded, {"x": X}, nan_policy="mask", **more)


def plain_derivatives(plain: str, order: int) -> list[float]:
    rows = ask("nth", plain, {"x": X[1]}, order=order)["derivatives"]
    return [float(row["value"]) for row in rows]


@every_masked
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_mask_gives_zero_where_the_branch_is_not_taken(guarded: str, plain: str, order: int) -> None:
    found = masked("nth", guarded, order=order)["derivatives"][-1]["value"]
    assert_close(found, np.array([0.0, plain_derivatives(plain, order)[-1]]), 1e-11, f"order {order}")


@every_masked
def test_mask_holds_in_every_call(guarded: str, plain: str) -> None:
    first, second = plain_derivatives(plain, 2)
    one, two = np.diag([0.0, first]), np.diag([0.0, second])
    ones = {"x": np.ones(2)}
    assert_close(masked("grad", guarded, ones=True)["gradients"]["x"], one.diagonal(), 1e-11, "grad")
    assert_close(masked("jvp", guarded, tangents=ones)["tangents"]["out"], one.diagonal(), 1e-11, "jvp")
    for mode in ("forward", "reverse"):
        assert_close(masked("jacobian", guarded, mode=mode)["jacobian"]["out"]["x"], one, 1e-11, f"jacobian {mode}")
    total = f"sum({guarded})"
    assert_close(masked("hessian", total)["hessian"]["x"]["x"], two, 1e-11, "hessian")
    assert_close(masked("hvp", total, vectors=ones)["hvp"]["x"], two.diagonal(), 1e-11, "hvp")
    path = masked("nth", guarded, path=["x", "x"])["derivatives"][-1]["value"]
    assert_close(path, two.diagonal(), 1e-11, "path")
    coefficients = masked("taylor", guarded, direction=ones, order=2)["coefficients"]["out"]
    assert_close(coefficients[2] * 2, two.diagonal(), 1e-11, "taylor")


@every_masked
def test_mask_changes_no_value(guarded: str, plain: str) -> None:
    assert np.array_equal(masked("value", guarded)["values"]["out"], ask("value", guarded, {"x": X})["values"]["out"])


def test_without_mask_the_branch_that_is_not_taken_shows() -> None:
    assert np.isnan(ask("grad", "where(x > 0, sqrt(x), 0)", {"x": X}, ones=True)["gradients"]["x"][0])


def test_mask_keeps_an_infinite_slope_that_counts() -> None:
    assert ask("grad", "sqrt(x)", {"x": 0.0}, nan_policy="mask")["gradients"]["x"] == INF


# nan_policy: "raise"


def test_raise_names_the_first_node_that_gave_an_infinity() -> None:
    with pytest.raises(NonFinite) as caught:
        ask("value", "a = x - 1\nb = log(a)\ny = b * 0", {"x": 1.0}, nan_policy="raise")
    assert caught.value.node == "b"


def test_raise_looks_at_derivatives() -> None:
    assert ask("value", "y = sqrt(x)", {"x": 0.0}, nan_policy="raise")["values"]["y"] == 0
    with pytest.raises(NonFinite) as caught:
        ask("grad", "r = sqrt(x); y = 2 * r", {"x": 0.0}, nan_policy="raise")
    assert caught.value.node == "r"


def test_raise_leaves_infinite_inputs_alone() -> None:
    found = ask("value", "exp(-x)", {"x": INF}, nan_policy="raise")
    assert found["values"]["out"] == 0


def test_raise_changes_nothing_that_is_finite() -> None:
    plain, careful = (ask("grad", "sin(x) * x", {"x": 0.7}, nan_policy=policy) for policy in ("ieee", "raise"))
    assert plain["gradients"]["x"] == careful["gradients"]["x"]


# Values of linear algebra are fine where vectors are not


@pytest.mark.skipif("eigh" not in ops, reason="needs eigh")
def test_vectors_at_equal_eigenvalues_have_no_derivative() -> None:
    found = ask("grad", "w, v = eigh(A); y = v[0, 0]", {"A": np.eye(2)}, outputs=["y"])
    assert np.isnan(found["gradients"]["A"]).any()


@pytest.mark.skipif("svd" not in ops, reason="needs svd")
def test_vectors_at_equal_singular_values_have_no_derivative() -> None:
    found = ask("grad", "u, s, vh = svd(A); y = u[0, 0]", {"A": np.eye(2)}, outputs=["y"])
    assert np.isnan(found["gradients"]["A"]).any()
