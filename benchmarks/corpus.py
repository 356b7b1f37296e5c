"""Graphs of every kind at sizes that take milliseconds to a second: what estimates of time and memory are held against.

A work is a call of the engine: an expression and its inputs. Which of them are large enough for which question is for
those to say that use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.rows.engine import question
from engine.calls import Compiled, compile_question
from engine.limits import Limits

MILLION = 1_000_000
LIMITS = Limits(cost_seconds=1e9)

Draw = Callable[[np.random.Generator], Mapping[str, Any]]


@dataclass(frozen=True)
class Work:
    """A call of an expression, and what draws its inputs."""

    name: str
    call: str
    graph: str
    inputs: Draw
    more: Mapping[str, Any] = field(default_factory=dict)

    def compiled(self) -> Compiled:
        """The plan, for inputs that are drawn anew."""
        drawn = self.inputs(np.random.default_rng(1))
        return compile_question(question(self.call, self.graph, drawn, **self.more), LIMITS)


WORKS: dict[str, Work] = {}


def enter(name: str, call: str, graph: str, inputs: Draw, **more: Any) -> None:
    WORKS[name] = Work(name, call, graph, inputs, more)


def normal(**shapes: int | tuple[int, ...]) -> Draw:
    return lambda rng: {name: rng.normal(size=shape) for name, shape in shapes.items()}


def uniform(**shapes: int | tuple[int, ...]) -> Draw:
    """Between 0.5 and 2: where most functions are smooth."""
    return lambda rng: {name: rng.uniform(0.5, 2.0, size=shape) for name, shape in shapes.items()}


def positive_definite(rng: np.random.Generator, n: int) -> Any:
    a = rng.normal(size=(n, n))
    return a @ a.T / n + np.eye(n)


CHAIN = "\n".join(f"x{at + 1} = {op}(x{at})" for at, op in enumerate(("sin", "exp", "tanh", "cos", "sigmoid") * 4))
RNN = "step(h, x) = { n = tanh(w @ h + x); n, n * 2 }\nlast, all = scan(step, h, x)\nsum(last) + sum(all)"

# What goes element by element, at three sizes
enter("scalars", "grad", "sin(x * y) + exp(-x) * y**2 - log(x + 3)", uniform(x=(), y=()))
enter("thousand", "grad", "sum(sin(x) * exp(-x * x) / (1 + x**2))", normal(x=1_000))
enter("hundred-thousand", "grad", "sum(sin(x) * exp(-x * x) / (1 + x**2))", normal(x=100_000))
enter("million", "grad", "sum(sin(x) * exp(-x * x) / (1 + x**2))", normal(x=3 * MILLION))
enter("chain", "grad", f"x0 = x\n{CHAIN}\nsum(x20)", normal(x=3 * MILLION))
enter("add", "value", "x + y", normal(x=3 * MILLION, y=3 * MILLION))
enter("broadcast", "grad", "sum(tanh(x * w + b))", normal(x=(2_000, 1_000), w=1_000, b=(2_000, 1)))
enter("float32", "grad", "sum(sin(x) * exp(-x * x))", lambda rng: {"x": rng.normal(size=3 * MILLION).astype("float32")})
enter(
    "complex",
    "value",
    "exp(1j * x) * conj(z)",
    lambda rng: {"x": rng.normal(size=MILLION), "z": rng.normal(size=MILLION) * 1j},
)
enter("integers", "value", "(x + y) % 7 // 2", lambda rng: {name: rng.integers(1, 99, MILLION) for name in "xy"})
enter("comparisons", "value", "sum(where((x < y) & (x > 0), x, y))", normal(x=2 * MILLION, y=2 * MILLION))
enter("powers", "grad", "sum(x ** 2.5 + x ** y)", uniform(x=MILLION, y=MILLION))
enter("gammas", "grad", "sum(lgamma(x) + digamma(x))", uniform(x=200_000))
enter("errors", "grad", "sum(erf(x) + ndtr(x))", normal(x=MILLION))
enter("bessel", "grad", "sum(j0(x) * i1e(x))", uniform(x=300_000))
enter("softmax", "grad", "-mean(sum(log_softmax(x, axis=-1) * y, axis=-1))", normal(x=(4_000, 500), y=(4_000, 500)))
enter("layer-norm", "grad", "sum(layer_norm(x, [500])**2)", normal(x=(4_000, 500), w=500, b=500))
enter("variance", "grad", "sum(var(x, axis=0))", normal(x=(4_000, 500)))
enter("norms", "grad", "sum(vector_norm(x, axis=-1)) + logsumexp(x)", normal(x=(4_000, 500)))

# Products
enter(
    "mlp",
    "grad",
    "h = relu(x @ a + b)\nmean(logsumexp(h @ c, axis=1))",
    normal(x=(2_000, 784), a=(784, 512), b=512, c=(512, 10)),
)
enter("matmul", "grad", "sum((a @ b)**2)", normal(a=(800, 800), b=(800, 800)))
enter(
    "attention",
    "grad",
    "sum(softmax(q @ matrix_transpose(k) / 8, axis=-1) @ v)",
    normal(q=(8, 400, 64), k=(8, 400, 64), v=(8, 400, 64)),
)
enter(
    "einsum",
    "grad",
    "sum(einsum('bij,bjk,kl->bil', x, y, z)**2)",
    normal(x=(40, 120, 100), y=(40, 100, 110), z=(110, 90)),
)
enter("tensordot", "value", "tensordot(x, y, axes=2)", normal(x=(60, 100, 100), y=(100, 100, 60)))
enter("outer", "value", "outer(x, y)", normal(x=2_000, y=1_500))
enter("convolution", "grad", "sum(conv2d(x, w, padding=1)**2)", normal(x=(16, 8, 64, 64), w=(16, 8, 3, 3)))
enter("convolution-1d", "value", "conv1d(x, y)", normal(x=(1, 1, 50_000), y=(1, 1, 500)))
enter(
    "pooling",
    "grad",
    "sum(max_pool2d(x, kernel_size=2, stride=2)) + sum(avg_pool2d(x, kernel_size=3))",
    normal(x=(16, 8, 128, 128)),
)

# Transforms
enter("fft", "grad", "sum(abs(fft(x))**2)", normal(x=1 << 20))
enter("fft-rows", "value", "fft2(x)", normal(x=(1_000, 1_000)))
enter("fft-prime", "value", "fft(x)", normal(x=262_147))
enter("rfft", "value", "irfft(rfft(x) * 2)", normal(x=MILLION))

# Linear algebra
enter(
    "solve",
    "grad",
    "sum(solve(a, b)**2)",
    lambda rng: {"a": positive_definite(rng, 600), "b": rng.normal(size=(600, 300))},
)
enter("inverse", "value", "inv(a)", normal(a=(700, 700)))
enter("determinant", "grad", "logdet(a)", lambda rng: {"a": positive_definite(rng, 500)})
enter("cholesky", "grad", "sum(cholesky(a))", lambda rng: {"a": positive_definite(rng, 600)})
enter(
    "triangular",
    "value",
    "solve_triangular(tril(a) + 30 * eye(800), b, upper=false)",
    normal(a=(800, 800), b=(800, 400)),
)
enter("qr", "value", "qr(a)", normal(a=(1_200, 500)))
enter("svd", "value", "svd(a).S", normal(a=(700, 500)))
enter("svd-vectors", "value", "svd(a)", normal(a=(500, 500)))
enter("eigh", "grad", "sum(sin(eigh(a).eigenvalues))", lambda rng: {"a": positive_definite(rng, 500)})
enter("eig", "value", "eig(a)", normal(a=(300, 300)))
enter("lu", "value", "lu(a)", normal(a=(800, 800)))
enter("expm", "value", "expm(a / 20)", normal(a=(400, 400)))
enter("pinv", "value", "pinv(a)", normal(a=(600, 400)))
enter(
    "small-matrices",
    "grad",
    "sum(solve(a, b))",
    lambda rng: {"a": rng.normal(size=(20_000, 4, 4)) + 4 * np.eye(4), "b": rng.normal(size=(20_000, 4, 1))},
)

# Order, places, runs
enter("sort", "grad", "sum(sort(x) * w)", normal(x=MILLION, w=MILLION))
enter("argsort", "value", "argsort(x, axis=0)", normal(x=(2_000, 500)))
enter("top-k", "value", "top_k(x, k=10).values", normal(x=(2_000, 500)))
enter("median", "value", "median(x) + quantile(x, 0.3)", normal(x=MILLION))
enter("cumsum", "grad", "sum(cumsum(x, axis=0)**2)", normal(x=2 * MILLION))
enter("cumprod", "grad", "sum(cumprod(x, axis=0))", lambda rng: {"x": rng.uniform(0.999, 1.001, MILLION)})
enter(
    "take",
    "grad",
    "sum(take(x, i, axis=0)**2)",
    lambda rng: {"x": rng.normal(size=MILLION), "i": rng.integers(0, MILLION, MILLION)},
)
enter(
    "scatter",
    "grad",
    "sum(scatter_add(x, i, u, axis=0)**2)",
    lambda rng: {"x": rng.normal(size=MILLION), "i": rng.integers(0, MILLION, MILLION), "u": rng.normal(size=MILLION)},
)
enter(
    "embedding",
    "grad",
    "sum(take(x, i, axis=0)**2)",
    lambda rng: {"x": rng.normal(size=(10_000, 64)), "i": rng.integers(0, 10_000, 30_000)},
)
enter("joining", "grad", "sum(concat([x, flip(x, axis=0), roll(x, 3)], axis=0)**2)", normal(x=MILLION))
enter("transposed", "grad", "sum(reshape(matrix_transpose(x), [-1]) * w)", normal(x=(1_500, 1_000), w=1_500_000))
enter("repeated", "value", "tile(x, [3]) + repeat(x, 3)", normal(x=MILLION))
enter("searched", "value", "searchsorted(sort(x), y)", normal(x=100_000, y=MILLION))

# Derivatives of other kinds
enter("jacobian", "jacobian", "tanh(a @ x)", normal(a=(700, 700), x=700), wrt=["x"])
enter("hessian", "hessian", "sum(log(1 + exp(a @ x)))", normal(a=(1_000, 300), x=300), wrt=["x"])
enter("hessian-dense", "hessian", "sum(sin(x))**2", normal(x=1_000))
enter("hvp", "nth", "sum(exp(sin(x)))", normal(x=200_000), order=2)
enter("taylor", "nth", "sin(exp(x))", normal(x=100_000), order=8)
enter("batch", "grad", "sum(tanh(w @ x))", normal(w=(200, 200), x=(2_000, 200)), batch=["x"])
enter("sparse", "jacobian", "x[1:] * x[:-1] + sin(x[1:])", normal(x=300_000), sparse=True)

# Loops and branches
enter(
    "loop-scalars",
    "grad",
    "f(h, x) = tanh(h + x) * x, h\nlast, all = scan(f, 0.5, x)\nlast + sum(all)",
    normal(x=3_000),
)
enter("loop-vectors", "grad", RNN, normal(w=(100, 100), h=100, x=(1_000, 100)), wrt=["w", "h", "x"])
enter(
    "loop-large",
    "grad",
    "f(h) = sin(h) * 1.1\nsum(fori_loop(0, 10, g, x))\n".replace("f(h)", "g(i, h)"),
    normal(x=MILLION),
)
enter(
    "loop-body",
    "value",
    "f(h, x) = { a = outer(h, h); n = tanh(a @ h) / 10 + x; n, sum(a) }\nlast, all = scan(f, h, x)\nall",
    normal(h=1_500, x=(20, 1_500)),
)
enter("map", "grad", "f(r) = sum(sin(r) * w)\nsum(map(f, x))", normal(x=(2_000, 1_000), w=1_000))
enter("branch", "grad", "f(x) = sin(x)\ng(x) = 2 * x\nsum(cond(sum(x) > 0, f, g, x))", normal(x=2 * MILLION))
enter("while", "value", "c(x) = sum(x) > 1e-3\nf(x) = x * 0.9\nwhile_loop(c, f, x)", uniform(x=100_000))
