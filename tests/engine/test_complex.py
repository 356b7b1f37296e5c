"""Complex numbers in the calls: PyTorch's convention, and what has no complex derivative is refused with the reason.

Ops are held to account at complex operands by tests.engine.test_ops, and against PyTorch by tests.engine.test_peers.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from mpmath import mp

from engine.core import ops
from engine.errors import EngineError, NotDifferentiable
from engine.types import Spec
from tests.support.asking import ask, built
from tests.support.numeric import assert_close, ridders
from tests.support.references import UNARY

Z = np.array([0.7 - 0.4j, -1.2 + 0.3j])
X = np.array([0.6, -1.1])


def code_of(call: str, text: str, inputs: dict[str, Any], **more: Any) -> tuple[str, str]:
    with pytest.raises(EngineError) as caught:
        ask(call, text, inputs, **more)
    return caught.value.code, caught.value.detail


# Gradients


def test_a_gradient_is_the_direction_of_steepest_ascent() -> None:
    """∂L/∂a + i·∂L/∂b, by differences of both parts."""
    gradient = ask("grad", "sum(real(exp(z) * conj(z)**2))", {"z": Z})["gradients"]["z"]

    def moved(h: float, turn: complex) -> Any:
        shifted = [Z + h * turn * np.eye(2)[at] for at in range(2)]
        return np.array([np.sum(np.exp(z) * z.conj() ** 2).real for z in shifted])

    parts = [ridders(lambda h, turn=turn: moved(h, turn)) for turn in (1, 1j)]  # type: ignore[misc]
    assert_close(gradient, parts[0] + 1j * parts[1], 1e-8, "gradient")


def test_the_gradient_of_a_real_input_is_real() -> None:
    found = ask("grad", "sum(abs(x * z)**2)", {"x": X, "z": Z})["gradients"]
    assert found["x"].dtype == np.float64
    assert_close(found["x"], 2 * X * np.abs(Z) ** 2, 1e-14, "gradient by x")
    assert_close(found["z"], 2 * X**2 * Z, 1e-14, "gradient by z")


def test_a_complex_output_implies_no_cotangent() -> None:
    code, detail = code_of("grad", "sum(z)", {"z": Z})
    assert code == "grad_outputs_required"
    assert "real(" in detail
    assert ask("grad", "sum(2j * z)", {"z": Z}, ones=True)["gradients"]["z"].tolist() == [-2j, -2j]
    given = ask("grad", "y = sum(2j * z)", {"z": Z}, grad_outputs={"y": np.complex128(1j)})
    assert given["gradients"]["z"].tolist() == [2, 2]


def test_single_precision_stays() -> None:
    z = Z.astype(np.complex64)
    found = ask("grad", "y = sum(abs((1 + 2j) * z**2 - 3))", {"z": z})
    assert found["values"]["y"].dtype == np.float32
    assert found["gradients"]["z"].dtype == np.complex64


def test_tangents_are_complex() -> None:
    found = ask("jvp", "w = z**2; r = abs(z)", {"z": Z}, tangents={"z": 1j * Z}, outputs=["w", "r"])["tangents"]
    assert_close(found["w"], 2j * Z**2, 1e-14, "tangent of a square")
    assert_close(found["r"], np.zeros(2), 1e-14, "a turn changes no magnitude")


def test_series_along_a_complex_direction() -> None:
    v = 0.3 + 0.8j
    found = ask("taylor", "exp(z)", {"z": Z}, direction={"z": np.full(2, v)}, order=12)["coefficients"]["out"]
    expected = [np.exp(Z) * v**k / math.factorial(k) for k in range(13)]
    assert_close(found, np.array(expected), 1e-14, "coefficients")


def test_series_of_a_magnitude() -> None:
    """|z + t·v|² = |z|² + 2·Re(conj(z)·v)·t + |v|²·t², and nothing after it."""
    v = np.array([0.3 + 0.8j, -1j])
    found = ask("taylor", "abs(z)**2", {"z": Z}, direction={"z": v}, order=6)["coefficients"]["out"]
    expected = np.zeros((7, 2))
    expected[:3] = np.abs(Z) ** 2, 2 * (Z.conj() * v).real, np.abs(v) ** 2
    assert_close(found, expected, 1e-13, "coefficients")


def test_mask_lets_a_zero_cotangent_win() -> None:
    z = np.array([0j, 4 + 0j])
    for policy, first in (("ieee", np.nan), ("mask", 0)):
        found = ask("grad", "sum(real(where(abs(z) > 1, sqrt(z), 0)))", {"z": z}, nan_policy=policy)["gradients"]["z"]
        assert np.array_equal(found[0].real, first, equal_nan=True)
        assert found[1] == 0.25


# Jacobians


def test_jacobian_of_a_real_output_is_its_gradient() -> None:
    for mode in ("auto", "forward", "reverse"):
        found = ask("jacobian", "abs(z)**2", {"z": Z}, mode=mode)["jacobian"]["out"]["z"]
        assert_close(found, np.diag(2 * Z), 1e-14, mode)


def test_jacobian_by_a_real_input_has_both_parts() -> None:
    for mode in ("auto", "forward", "reverse"):
        found = ask("jacobian", "exp(1j * x)", {"x": X}, mode=mode)["jacobian"]["out"]["x"]
        assert_close(found, np.diag(1j * np.exp(1j * X)), 1e-14, mode)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_jacobian_of_a_holomorphic_function_is_its_complex_derivative(mode: str) -> None:
    found = ask("jacobian", "w = stack(z[0]**2 * z[1], exp(z[1]), sum(z))", {"z": Z}, mode=mode)["jacobian"]["w"]["z"]
    a, b = Z
    assert_close(found, np.array([[2 * a * b, a**2], [0, np.exp(b)], [1, 1]]), 1e-14, "derivative")


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("conj(z)", "conj"),
        ("z * abs(z)", "abs"),
        ("z + real(z)", "real"),
        ("sign(z)", "sign"),
        ("exp(1j * angle(z))", "angle"),
        ("z + astype(astype(z, 'float64'), 'complex128')", "astype"),
        ("vecdot(z, z)", "conj"),
        ("qr(outer(z, z) + eye(2)).Q", "qr"),
        ("f(h, x) = h * x, abs(h)\nr = scan(f, z[0], z)\nr.0", "scan"),
    ],
)
def test_jacobian_of_what_is_not_holomorphic_is_refused(text: str, culprit: str) -> None:
    code, detail = code_of("jacobian", text, {"z": Z})
    assert code == "not_differentiable"
    assert f"{culprit} is on the way" in detail


def test_what_no_derivative_passes_may_be_real() -> None:
    found = ask("jacobian", "where(real(z) > 0, z, 2 * z) / detach(abs(z))", {"z": Z})["jacobian"]["out"]["z"]
    assert_close(found, np.diag([1, 2] / np.abs(Z)), 1e-14, "derivative")


def of_one_complex_operand() -> list[str]:
    """Ops that make complex numbers of a square matrix, which is in the domain of most, without attributes."""
    found = [op.name for op in ops if len(op.operands) == 1 and "c" in op.operands[0].kinds and _is_complex(op.name)]
    found.remove("pinv")  # of a regular matrix it is the inverse, which is holomorphic: in general it is not
    return found


def _is_complex(name: str) -> bool:
    try:
        results, _ = built(f"y_ = {name}(z)", {"z": Spec((2, 2), np.dtype(complex))})
    except EngineError:  # it needs an attribute
        return False
    return len(results) == 1 and results[0].dtype.kind == "c"


@pytest.mark.parametrize("name", of_one_complex_operand())
def test_what_has_a_jacobian_is_holomorphic(name: str) -> None:
    """Cauchy and Riemann: the derivative along i·t is i times that along t, or the Jacobian is refused."""
    z = np.array([[0.7 - 0.4j, 0.2 + 0.3j], [-0.1j, 0.9 + 0.2j]])
    t = np.array([[0.3, -0.8], [0.5, 0.4]]).astype(complex)
    text = f"y_ = {name}(z)"
    along, turned = (ask("jvp", text, {"z": z}, tangents={"z": d})["tangents"]["y_"] for d in (t, 1j * t))
    try:
        jacobian = ask("jacobian", text, {"z": z})["jacobian"]["y_"]["z"]
    except NotDifferentiable:
        assert not np.allclose(turned, 1j * along)
    else:
        assert_close(np.tensordot(jacobian, 1j * t, 2), turned, 1e-9, name)


def test_jacobian_of_a_holomorphic_loop() -> None:
    """The last carry of h ← h·x + 1, from 2."""
    text = "f(h, x) = h * x + 1, h\nr = scan(f, 2 + 0j, z)\nw = r.0"
    found = ask("jacobian", text, {"z": Z}, outputs=["w"])["jacobian"]["w"]["z"]
    assert_close(found, np.array([2 * Z[1], 2 * Z[0] + 1]), 1e-14, "derivative")


# Higher orders


def test_calls_that_need_a_real_scalar_say_so() -> None:
    for call, more in (("hessian", {}), ("hvp", {"vectors": {"x": X}})):
        code, detail = code_of(call, "sum(exp(1j * x))", {"x": X}, **more)
        assert code == "not_scalar"
        assert "real(" in detail
    assert code_of("nth", "sum(exp(1j * x))", {"x": X}, order=2)[0] == "not_differentiable"


def test_a_hessian_by_complex_numbers_is_refused() -> None:
    code, detail = code_of("hessian", "sum(abs(z)**2)", {"z": Z})
    assert code == "not_differentiable"
    assert "hvp" in detail
    found = ask("hessian", "sum(abs(x * z)**2)", {"x": X, "z": Z}, wrt=["x"])["hessian"]["x"]["x"]
    assert_close(found, np.diag(2 * np.abs(Z) ** 2), 1e-13, "Hessian by the real input")


def test_orders_by_complex_numbers_end_with_the_first() -> None:
    """As PyTorch has it: order 2 would start from the sum of a complex gradient."""
    (row,) = ask("nth", "abs(z)**2", {"z": Z}, order=1)["derivatives"]
    assert_close(row["value"], 2 * Z, 1e-14, "order 1")
    assert code_of("nth", "abs(z)**2", {"z": Z}, order=2)[0] == "not_differentiable"


def test_a_path_may_end_in_a_complex_number() -> None:
    rows = ask("nth", "abs(x * z)**2", {"x": X, "z": Z}, path=["x", "z"])["derivatives"]
    assert_close(rows[0]["value"], 2 * X * np.abs(Z) ** 2, 1e-13, "by x")
    assert_close(rows[1]["value"], 4 * X * Z, 1e-13, "by x, then by z")
    assert code_of("nth", "abs(x * z)**2", {"x": X, "z": Z}, path=["z", "x"])[0] == "not_differentiable"


# What complex numbers have no order for


@pytest.mark.parametrize(
    "text",
    [
        "z > 1",
        "max(z)",
        "floor(z)",
        "relu(z)",
        "erf(z)",
        "maximum(z, 1)",
        "clip(z, 0, 1)",
        "z // 2",
        "z % 2",
        "sort(z)",
    ],
)
def test_what_means_nothing_of_complex_numbers_is_refused(text: str) -> None:
    name = text.split("(", maxsplit=1)[0]
    if "(" in text and name not in ops:
        pytest.skip(f"needs {name}")
    code, detail = code_of("value", text, {"z": Z})
    assert code == "dtype_mismatch"
    assert "complex128" in detail


# Fourier transforms, against NumPy's

SIGNAL = np.random.default_rng(4).normal(size=(3, 4, 5)) + 1j * np.random.default_rng(5).normal(size=(3, 4, 5))
LINES = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
PLANES = [f"{name}{suffix}" for name in LINES[:4] for suffix in ("2", "n")]


def agrees_with_numpy(name: str, single: bool, attrs: str, **theirs: Any) -> None:
    x = SIGNAL.real if name.startswith(("rfft", "ihfft")) else SIGNAL
    x = x.astype(np.float32 if x.dtype.kind == "f" else np.complex64) if single else x
    found = ask("value", f"y_ = {name}(x{attrs})", {"x": x})["values"]["y_"]
    expected = getattr(np.fft, name)(x, **theirs)
    assert found.dtype == expected.dtype
    assert_close(found, expected, 1e-5 if single else 1e-13, name)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
@pytest.mark.parametrize("name", LINES)
def test_transforms_along_an_axis_are_numpy_s(name: str, n: int, norm: str, single: bool) -> None:
    agrees_with_numpy(name, single, f", {n}, 1, '{norm}'", n=n, axis=1, norm=norm)
    agrees_with_numpy(name, single, f", norm='{norm}'", norm=norm)


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("name", PLANES)
def test_transforms_along_several_axes_are_numpy_s(name: str, norm: str) -> None:
    agrees_with_numpy(name, False, f", norm='{norm}'", norm=norm)
    agrees_with_numpy(name, False, f", [4, 3], axes=[2, 0], norm='{norm}'", s=(4, 3), axes=(2, 0), norm=norm)


@pytest.mark.parametrize("name", ["fftfreq", "rfftfreq"])
def test_frequencies_are_numpy_s(name: str) -> None:
    for n in range(1, 9):
        found = ask("value", f"{name}({n}, d=0.3)")["values"]["out"]
        assert found.tolist() == getattr(np.fft, name)(n, 0.3).tolist()


def test_shifts_undo_each_other() -> None:
    for n in range(7):
        found = ask("value", "a = fftshift(x); ifftshift(a), a", {"x": np.arange(float(n))})["values"]
        assert found["out"].tolist() == [*range(n)]
        assert found["a"].tolist() == np.fft.fftshift(np.arange(n)).tolist()


def test_a_convolution_by_its_spectrum_has_the_gradient_of_the_convolution() -> None:
    x, k = np.array([0.3, -1.0, 2.0, 0.7, 0.1]), np.array([0.5, -0.2, 0.1, 0.0, 0.4])
    by_spectrum = ask("grad", "sum(irfft(rfft(x) * rfft(k), n=5)**2)", {"x": x, "k": k})["gradients"]
    turned = "take(x, [[0, 4, 3, 2, 1], [1, 0, 4, 3, 2], [2, 1, 0, 4, 3], [3, 2, 1, 0, 4], [4, 3, 2, 1, 0]], axis=0)"
    directly = ask("grad", f"sum(({turned} @ k)**2)", {"x": x, "k": k})["gradients"]
    for name in ("x", "k"):
        assert_close(by_spectrum[name], directly[name], 1e-13, name)


# High orders

ANALYTIC = [
    call
    for call in UNARY
    if (name := call.split("(", maxsplit=1)[0]) in ops
    and "c" in ops.find(name).operands[0].kinds
    and name not in ("abs", "softsign")
]


@pytest.mark.parametrize("call", ANALYTIC)
def test_series_at_a_complex_point(call: str) -> None:
    """Along a complex direction, against mpmath; each coefficient to its own size, or a part of its neighbours'."""
    low, high = ops.find(call.split("(", maxsplit=1)[0]).domain[0]
    z, v = complex(low + 0.37 * (high - low), 0.3), 0.6 - 0.8j
    text = call.replace("x)", "z)").replace("(x,", "(z,")
    series = ask("taylor", text, {"z": np.complex128(z)}, direction={"z": np.complex128(v)}, order=20)
    with mp.workdps(40):
        expected = np.array([complex(c) * v**k for k, c in enumerate(mp.taylor(UNARY[call], mp.mpc(z), 20))])
    size = np.abs(expected)
    scale = np.maximum(size, 0.25 * np.maximum(np.r_[size[1:], 0], np.r_[0, size[:-1]]))
    error = np.abs(series["coefficients"]["out"] - expected)
    assert (error <= 1e-12 * scale).all(), f"order {np.argmax(error / scale)} is off by {np.max(error / scale):.2g}"
