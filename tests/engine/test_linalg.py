"""Linear algebra to high order: series against mpmath, growth with the order, and matrices that are special.

The reference differentiates nothing: it evaluates a function of one number at a few points very near each other, in
hundreds of digits, and takes divided differences.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from mpmath import mp

from engine.calls import compile_question
from engine.errors import SingularMatrix
from tests.support.asking import LIMITS, ask, question
from tests.support.numeric import assert_close

ORDER, TOLERANCE = 20, 1e-12
A = np.array([[2.0, 0.5, -0.3], [0.25, -1.0, 0.7], [-0.6, 0.4, 1.5]])
B = np.array([[0.3, -0.8, 0.5], [0.6, 0.2, -0.4], [0.1, 0.9, -0.7]])
SPREAD = np.array([[4.0, 0.3, -0.2], [0.3, 1.0, 0.4], [-0.2, 0.4, 2.0]])
SYMMETRIC = (B + B.T) / 2
TALL, TALL_TURN = np.array([[2.0, 0.5], [-0.4, 1.0], [0.3, -0.6]]), B[:, :2]


def matrix(a: Any) -> Any:
    return mp.matrix(np.asarray(a).tolist())


def entries(a: Any) -> list[Any]:
    """The elements of a matrix, row by row."""
    return [a[i, j] for i in range(a.rows) for j in range(a.cols)]


def signed(vectors: Any) -> Any:
    """Columns with a positive first element."""
    signs = mp.diag([mp.sign(vectors[0, j]) for j in range(vectors.cols)])
    return vectors * signs


def series(f: Callable[[Any], list[Any]], order: int = ORDER) -> list[list[Any]]:
    """Taylor coefficients at 0 of functions, by Newton's divided differences at 0, h, 2h, …, to some 20 digits."""
    with mp.workdps(30 * (order + 3)):
        h = mp.mpf(10) ** -25
        row = [f(j * h) for j in range(order + 1)]
        found = [row[0]]
        for k in range(1, order + 1):
            row = [[(b - a) / (k * h) for a, b in zip(one, other, strict=True)] for one, other in pairwise(row)]
            found.append(row[0])
        return found


def _upper(a: Any) -> Any:
    return mp.matrix([[a[i, j] if j >= i else mp.zero for j in range(a.cols)] for i in range(a.rows)])


def _eigh(a: Any) -> tuple[Any, Any]:
    values, vectors = mp.eigsy(a)
    return values, signed(vectors)


def _eigvals(a: Any) -> list[Any]:
    """In the order that LAPACK has them in, for the matrices below: that is no function of the values."""
    found = list(mp.eig(a, left=False, right=False))
    order = np.linalg.eigvals(np.array(a.tolist(), float))
    return [min(found, key=lambda each: abs(complex(each) - value)) for value in order]


def _svd(a: Any) -> tuple[Any, Any, Any]:
    return mp.svd_r(a)  # type: ignore[no-any-return]


def _qr(a: Any) -> tuple[Any, Any]:
    """With a positive diagonal."""
    q, r = mp.qr(a, mode="skinny")
    signs = mp.diag([mp.sign(r[j, j]) for j in range(r.cols)])
    return q * signs, signs * r


SIGNS = "diag(sign(diagonal(r)))"
ONE = {"A": A}, {"A": B}
TWO = {"A": SPREAD}, {"A": SYMMETRIC}
THREE = {"A": TALL}, {"A": TALL_TURN}
TURNING = {"C": np.array([[0.5, 2.0, 0.1], [-1.0, 0.3, 0.4], [0.2, -0.3, 1.5]])}, {"C": B}
"""A pair of complex eigenvalues."""
SERIES: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "inv(A)": (ONE, lambda a: a**-1),
    "solve(A, [1.0, 2.0, 3.0])": (ONE, lambda a: mp.lu_solve(a, mp.matrix([1, 2, 3]))),
    "solve_triangular(A, [1.0, 2.0, 3.0], upper=true)": (
        ONE,
        lambda a: mp.lu_solve(_upper(a), mp.matrix([1, 2, 3])),
    ),
    "det(A)": (ONE, lambda a: mp.matrix([mp.det(a)])),
    "slogdet(A).logabsdet": (ONE, lambda a: mp.matrix([mp.log(abs(mp.det(a)))])),
    "expm(A)": (ONE, lambda a: mp.expm(a, method="taylor")),
    "matrix_power(A, -3)": (ONE, lambda a: a**-3),
    "pinv(A)": (THREE, lambda a: (a.T * a) ** -1 * a.T),
    "cholesky(A)": (TWO, mp.cholesky),
    "eigvalsh(A)": (TWO, lambda a: mp.matrix(_eigh(a)[0])),
    "eigh(A).eigenvalues": (TWO, lambda a: mp.matrix(_eigh(a)[0])),
    "v = eigh(A).eigenvectors; v * sign(v[:1, :])": (TWO, lambda a: _eigh(a)[1]),
    "real(eigvals(A))": (ONE, lambda a: mp.matrix([mp.re(each) for each in _eigvals(a)])),
    "imag(eigvals(C))": (TURNING, lambda a: mp.matrix([mp.im(each) for each in _eigvals(a)])),
    "svdvals(A)": (THREE, lambda a: mp.matrix(_svd(a)[1])),
    "u = svd(A, full_matrices=false).U; u * sign(u[:1, :])": (THREE, lambda a: signed(_svd(a)[0])),
    "v = svd(A, full_matrices=false).Vh; v * sign(v[:, :1])": (THREE, lambda a: signed(_svd(a)[2].T).T),
    f"q, r = qr(A); q @ {SIGNS}": (THREE, lambda a: _qr(a)[0]),
    f"q, r = qr(A); {SIGNS} @ r": (THREE, lambda a: _qr(a)[1]),
}


@pytest.mark.parametrize("text", SERIES)
def test_series_against_divided_differences(text: str) -> None:
    """Every coefficient, to 1e-12 of the largest element of its own order."""
    (at, along), f = SERIES[text]
    expected = series(lambda t: entries(f(matrix(*at.values()) + t * matrix(*along.values()))))
    (found,) = ask("taylor", text, at, direction=along, order=ORDER)["coefficients"].values()
    for k, row in enumerate(expected):
        scale = max(abs(each) for each in row)
        if scale < mp.mpf(10) ** -15:
            continue  # a coefficient that is zero: the determinant's beyond its degree
        error = max(abs(mp.mpf(float(a)) - b) for a, b in zip(found[k].ravel(), row, strict=True))
        assert error < TOLERANCE * scale, f"order {k} is off by {mp.nstr(error / scale, 3)}"


# Growth

CURVE = "sin(t) * B + t**2 * A + A"
ALONG_A_CURVE = {
    **{name: f"{name}({CURVE})" for name in ("inv", "det", "expm", "cholesky", "pinv", "eigvalsh", "svdvals")},
    "det of a large matrix": f"det(kron({CURVE}, [[2.0, 1.0, 0.5], [0.0, 1.0, 3.0], [1.0, 0.0, 1.0]]))",
    "solve": f"solve({CURVE}, t * B)",
    "solve_triangular": f"solve_triangular({CURVE}, t * B, upper=true)",
    "slogdet": f"slogdet({CURVE}).logabsdet",
    "eigh": f"w, v = eigh({CURVE}); v * w",
    "eigvals": f"real(eigvals({CURVE}))",
    "eig": f"w, v = eig({CURVE}); real(v * w)",
    "svd": f"u, s, vh = svd({CURVE}); u * s + vh",
    "qr": f"q, r = qr({CURVE}); q + r",
    "lu": f"p, l, u = lu({CURVE}); l + u",
    "matrix_power": f"matrix_power({CURVE}, -5)",
}


def live_nodes(text: str, order: int, nested: bool = False) -> int:
    inputs = {"A": A, "B": B, "t": 0.5}
    how: dict[str, Any] = {"direction": {"t": 1.0}, "order": order}
    if nested:
        *before, last = text.split("; ")
        text, how = "; ".join((*before, f"sum({last})")), {"path": ["t"] * order}
    compiled = compile_question(question("nth" if nested else "taylor", text, inputs, **how), LIMITS)
    return len(list(compiled.plan.steps))


@pytest.mark.parametrize("name", ALONG_A_CURVE)
def test_series_grow_like_the_square_of_the_order(name: str) -> None:
    """Twice the order, at most five times the nodes."""
    low, middle, high = (live_nodes(ALONG_A_CURVE[name], order) for order in (4, 8, 16))
    assert middle <= 5 * low, (low, middle, high)
    assert high <= 5 * middle, (low, middle, high)
    assert high < 8_000, (low, middle, high)


@pytest.mark.parametrize("name", ALONG_A_CURVE)
def test_nested_derivatives_grow_polynomially(name: str) -> None:
    """Twice the order, at most twelve times the nodes."""
    low, high = (live_nodes(ALONG_A_CURVE[name], order, nested=True) for order in (4, 8))
    assert high <= 12 * low, (low, high)


# Special matrices

FULL = [
    ("u, s, vh = svd(A, full_matrices={}); sum(abs(u[:, :2]) * B)", TALL),
    ("u, s, vh = svd(A, full_matrices={}); sum(abs(vh[:2, :]) * matrix_transpose(B))", TALL.T),
    ("u, s, vh = svd(A, full_matrices={}); sum((u[:, :2] * s) @ vh[:2, :2] * B)", TALL),
]


@pytest.mark.parametrize(("text", "a"), FULL)
@pytest.mark.parametrize("call", ["grad", "hvp", "jvp"])
def test_full_vectors_that_go_with_a_value_have_the_derivative_of_reduced_ones(text: str, a: Any, call: str) -> None:
    inputs = {"A": a, "B": TALL_TURN}
    more = {"jvp": {"tangents": inputs}, "hvp": {"vectors": {"A": a}}}.get(call, {})
    wrt = {} if call == "jvp" else {"wrt": ["A"]}
    full, reduced = (ask(call, text.format(which), inputs, **more, **wrt) for which in ("true", "false"))
    field = {"grad": "gradients", "hvp": "hvp", "jvp": "tangents"}[call]
    for name, expected in reduced[field].items():
        assert_close(full[field][name], expected, 1e-12, name)


def test_full_vectors_that_go_with_no_value_have_no_derivative() -> None:
    values = ask("value", "svd(A).U", {"A": TALL})["values"].popitem()[1]
    assert_close(values.T @ values, np.eye(3), 1e-14, "orthonormal")
    gradient = ask("grad", "y = svd(A).U[0, 2]", {"A": TALL})["gradients"]["A"]
    assert np.isnan(gradient).all()


NOT_FINITE = (
    "eig(A).eigenvalues",
    "eigvals(A)",
    "svd(A).S",
    "svdvals(A)",
    "pinv(A)",
    "eigvalsh(A)",
    "eigh(A).eigenvalues",
    "cholesky(A)",
)
SPREADS = ("inv(A)", "solve(A, A)", "det(A)", "expm(A)", "qr(A).Q", "lu(A).U", "matrix_power(A, 3)")


@pytest.mark.parametrize("text", NOT_FINITE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_where_it_would_not_converge(text: str, bad: float) -> None:
    with pytest.raises(SingularMatrix, match="infinite"):
        ask("value", text, {"A": np.where(np.eye(3), 2.0, bad)})


@pytest.mark.parametrize("text", SPREADS)
def test_what_is_not_finite_spreads(text: str) -> None:
    value = ask("value", text, {"A": [[1.0, "NaN"], ["NaN", 2.0]]})["values"].popitem()[1]
    assert np.isnan(value).any()


@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("shapes", [((80, 80), (80,)), ((80, 80), (2, 80, 3)), ((2, 80, 80), (80, 3))])
def test_large_triangles_are_solved(upper: bool, shapes: Any) -> None:
    """One by one, where small ones are solved as a stack."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=shape) for shape in shapes)
    a = a / 10 + 2 * np.eye(80)
    part = np.triu(a) if upper else np.tril(a)
    found = ask("value", f"solve_triangular(a, b, upper={str(upper).lower()})", {"a": a, "b": b})["values"]["out"]
    expected = np.linalg.solve(part, b if b.ndim > 1 else b[:, None])
    assert_close(found, expected if b.ndim > 1 else expected[:, 0], 1e-12, "solution")


@pytest.mark.parametrize("a", [[[1.0, 2.0], [0.0, 3.0]], [[0.0, 2.0], [-1.0, 0.5]], [[2.0, 1.0], [1.0, 2.0]]])
def test_vectors_of_general_matrices_have_a_phase_of_their_own(a: Any) -> None:
    """Length 1, and the largest element real and positive, the first of them in a tie."""
    found = ask("value", "w, v = eig(A)", {"A": a}, outputs=["w", "v"])["values"]
    w, v = found["w"], found["v"]
    assert_close(a @ v, v * w, 1e-14, "A V")
    assert_close(np.linalg.norm(v, axis=0), np.ones(2), 1e-14, "lengths")
    lead = v[(np.abs(v) > np.abs(v).max(axis=0) - 1e-9).argmax(axis=0), [0, 1]]
    assert np.all(lead.imag == 0)
    assert np.all(lead.real > 0)


def test_values_of_a_matrix_without_a_basis_of_vectors_have_no_derivative() -> None:
    """A Jordan block: values move like a root."""
    found = ask("grad", "y = real(sum(exp(eigvals(A))))", {"A": [[1.0, 1.0], [0.0, 1.0]]})["gradients"]["A"]
    assert np.isnan(found).all()


EXPONENTIALS = {
    "a rotation by many turns": [[0.0, 300.0], [-300.0, 0.0]],
    "far from normal": [[1.0, 1e6], [0.0, 1.0]],
    "nilpotent": [[0.0, 1e200], [0.0, 0.0]],
    "decaying": [[-50.0, -1.0], [-1.0, -50.0]],
    "badly scaled": [[-131.0, 19.0, 18.0], [-390.0, 56.0, 54.0], [-387.0, 57.0, 52.0]],
    "zero": [[0.0, 0.0], [0.0, 0.0]],
    "small": [[1e-12, 1e-9], [0.0, 1e-12]],
}


@pytest.mark.parametrize("what", EXPONENTIALS)
def test_exponential_of_special_matrices(what: str) -> None:
    with mp.workdps(400):
        expected = np.array(mp.expm(mp.matrix(EXPONENTIALS[what]), method="taylor").tolist(), float)
    found = ask("value", "expm(A)", {"A": EXPONENTIALS[what]})["values"]["out"]
    scale = np.abs(expected).max()
    assert_close(found / scale, expected / scale, 2e-13, what)


def test_exponential_of_a_matrix_that_is_too_large_is_nan() -> None:
    assert np.isnan(ask("value", "expm(A)", {"A": [[0.0, 1e300], [-1e300, 0.0]]})["values"]["out"]).all()


def test_exponential_along_a_large_direction() -> None:
    """The derivative is linear in its direction, at any scale."""
    small, large = (
        ask("jvp", "expm(A)", {"A": A}, tangents={"A": scale * B})["tangents"]["out"] for scale in (1.0, 1e12)
    )
    assert_close(large / 1e12, small, 1e-13, "tangent")


def test_least_squares_of_a_matrix_that_lacks_rank() -> None:
    """The shortest solution, and its rank."""
    a, b = np.outer([1.0, 2.0, -1.0], [1.0, 0.5]), np.array([1.0, 0.0, 2.0])
    found = ask("value", "r = lstsq(a, b)", {"a": a, "b": b}, outputs=["r.solution", "r.rank", "r.residuals"])["values"]
    solution, _, rank, _ = np.linalg.lstsq(a, b, rcond=None)
    assert_close(found["r.solution"], solution, 1e-14, "solution")
    assert found["r.rank"] == rank == 1
    assert_close(found["r.residuals"], np.sum((a @ solution - b) ** 2), 1e-14, "residuals")


def test_pseudo_inverse_moves_at_constant_rank() -> None:
    """Along a curve of matrices of rank 1 the derivative is that of the closed form."""
    text = "u = stack(1, t, t**2); v = stack(1 + t, 2); pinv(reshape(u, [3, 1]) * v)"
    closed = "u = stack(1, t, t**2); v = stack(1 + t, 2); reshape(v, [2, 1]) * u / (sum(u * u) * sum(v * v))"
    found, expected = (
        ask("taylor", each, {"t": 0.4}, direction={"t": 1.0}, order=6)["coefficients"]["out"] for each in (text, closed)
    )
    assert_close(found, expected, 1e-11, "series")


def of_rank(n: int, rank: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(rank)
    return np.asarray(rng.integers(-3, 4, size=(n, rank)) @ rng.integers(-3, 4, size=(rank, n)), float)


@pytest.mark.parametrize(
    ("n", "rank"), [(4, 0), (6, 2), (7, 1), (7, 5), (7, 6), (7, 7), (8, 2), (8, 7), (9, 3), (9, 8)]
)
def test_determinants_along_a_line_from_a_singular_matrix(n: int, rank: int) -> None:
    """det(A + tB) is a polynomial: all its coefficients, down to rank n - 6."""
    a, b = of_rank(n, rank), of_rank(n, n)
    expected = [float(row[0]) for row in series(lambda t: [mp.det(matrix(a) + t * matrix(b))], n)]
    found = ask("taylor", "det(A)", {"A": a}, direction={"A": b}, order=n + 1)["coefficients"]["out"]
    assert_close(found, np.array([*expected, 0.0]), 1e-13, "coefficients")


@pytest.mark.parametrize(("n", "rank"), [(7, 0), (8, 1), (9, 0), (12, 10), (12, 3)])
def test_second_derivatives_of_determinants_at_any_rank(n: int, rank: int) -> None:
    a, b = of_rank(n, rank), of_rank(n, n)
    expected = [float(row[0]) for row in series(lambda t: [mp.det(matrix(a) + t * matrix(b))], 2)]
    product = ask("hvp", "det(A)", {"A": a}, vectors={"A": b})["hvp"]["A"]
    scale = max(1.0, abs(np.linalg.det(b)))
    assert_close(np.sum(product * b) / 2 / scale, expected[2] / scale, 1e-13, "second derivative")


def test_third_derivatives_of_determinants_far_below_full_rank_are_nan() -> None:
    """Not a number that may be wrong."""
    row = ask("taylor", "det(A)", {"A": of_rank(9, 2)}, direction={"A": of_rank(9, 9)}, order=3)["coefficients"]["out"]
    assert np.isnan(row).tolist() == [False, False, False, True]


def test_third_derivatives_of_determinants_along_what_moves_itself() -> None:
    """Along t·X and t²·X at once, so that the direction depends on what is differentiated."""
    a = of_rank(7, 6)
    expected = series(lambda t: [mp.det(matrix(a) * (1 + t + t * t) + t * matrix(of_rank(7, 7)))], 5)
    text, inputs = "det(A * (1 + t + t**2) + t * B)", {"A": a, "B": of_rank(7, 7), "t": 0.0}
    rows = ask("nth", text, inputs, path=["t"] * 5, wrt=None)["derivatives"]
    for row, coefficient in zip(rows, expected[1:], strict=True):
        size = float(coefficient[0] * mp.factorial(row["order"]))
        assert float(row["value"]) == pytest.approx(size, rel=1e-9), row["order"]


def test_the_limit_is_of_the_matrix_not_of_what_it_solves_for() -> None:
    """Thousands of right-hand sides are no large matrix."""
    factor = [[2.0, 0.0], [0.5, 1.0]]
    found = ask("value", "cholesky_solve(b, l)", {"b": np.ones((2, 3000)), "l": factor})["values"]["out"]
    assert found.shape == (2, 3000)
