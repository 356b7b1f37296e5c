"""Elementwise ops of two operands as mpmath computes them, and those of one that are made of pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmath import mp

PAIRS: dict[str, Callable[[Any, Any], Any]] = {
    "add({}, {})": lambda a, b: a + b,
    "subtract({}, {})": lambda a, b: a - b,
    "multiply({}, {})": lambda a, b: a * b,
    "masked_multiply({}, {})": lambda a, b: a * b,
    "divide({}, {})": lambda a, b: a / b,
    "pow({}, {})": lambda a, b: a**b,
    "atan2({}, {})": mp.atan2,
    "hypot({}, {})": mp.hypot,
    "logaddexp({}, {})": lambda a, b: mp.log(mp.exp(a) + mp.exp(b)),
    "logaddexp2({}, {})": lambda a, b: mp.log(mp.mpf(2) ** a + mp.mpf(2) ** b) / mp.log(2),
    "xlogy({}, {})": lambda a, b: a * mp.log(b),
    "xlog1py({}, {})": lambda a, b: a * mp.log(1 + b),
    "maximum({}, {})": max,
    "minimum({}, {})": min,
    "fmax({}, {})": max,
    "fmin({}, {})": min,
    "copysign({}, {})": lambda a, b: abs(a) * mp.sign(b),
    "remainder({}, {})": lambda a, b: a - b * mp.floor(a / b),
    "lerp({}, {}, 0.25)": lambda a, b: a + (b - a) / 4,
    "mse_loss({}, {})": lambda a, b: (a - b) ** 2,
    "huber_loss({}, {})": lambda a, b: (a - b) ** 2 / 2 if abs(a - b) < 1 else abs(a - b) - mp.mpf(1) / 2,
}
"""By the call, with places for the operands."""

OPERANDS: dict[tuple[str, str], Callable[[Any], tuple[Any, Any]]] = {
    ("x", "0.75"): lambda x: (x, mp.mpf(0.75)),
    ("1.25", "x"): lambda x: (mp.mpf(1.25), x),
    ("x", "(1.5 + x / 2)"): lambda x: (x, 1.5 + x / 2),
    ("exp(x)", "x**2"): lambda x: (mp.exp(x), x * x),
}
"""What is put in these places: the first moves, the second, both alike, and both each in its own way."""


def _elu(x: Any, alpha: Any = 1, scale: Any = 1) -> Any:
    return scale * (x if x > 0 else alpha * (mp.exp(x) - 1))


SELU = mp.mpf("1.6732632423543772848170429916717"), mp.mpf("1.0507009873554804934193349852946")

PIECES: dict[str, tuple[float, Callable[[Any], Any]]] = {
    "positive(x)": (0.3, lambda x: x),
    "relu(x)": (0.3, lambda x: x),
    "relu(-x)": (0.3, lambda x: 0 * x),
    "relu6(5 * x)": (1.3, lambda x: 6 + 0 * x),
    "leaky_relu(x)": (-0.3, lambda x: x * mp.mpf(0.01)),
    "elu(x, alpha=1.5)": (-0.3, lambda x: _elu(x, mp.mpf(1.5))),
    "elu(x * x)": (0.7, lambda x: _elu(x * x)),
    "selu(x)": (-0.3, lambda x: _elu(x, *SELU)),
    "hard_sigmoid(x)": (0.3, lambda x: x / 6 + mp.mpf(1) / 2),
    "hard_swish(x)": (0.3, lambda x: x * (x + 3) / 6),
    "clip(exp(x), 0, 2)": (0.3, mp.exp),
    "clip(exp(x), x, 1)": (0.3, lambda x: 1 + 0 * x),
    "nan_to_num(exp(x))": (0.3, mp.exp),
    "where(x > 0, exp(x), 0)": (0.3, mp.exp),
    "where(x > 0, 0, exp(x))": (-0.3, mp.exp),
    "softplus(x, beta=2, threshold=1)": (0.7, lambda x: x),
    "hard_tanh(x / 2)": (0.3, lambda x: x / 2),
    "softmax(stack(x, 2 * x))[0]": (0.3, lambda x: 1 / (1 + mp.exp(x))),
    "log_softmax(stack(x, 2 * x))[0]": (0.3, lambda x: -mp.log(1 + mp.exp(x))),
    "abs(-exp(x))": (0.3, mp.exp),
    "grad_scale(exp(x), scale=1)": (0.3, mp.exp),
}
"""By the call: a point within one of its pieces, and the function there."""
