"""Engine rows: value and derivative of a graph, against the same mathematics written out in NumPy, and against peers.

Warm: the question is compiled once, its run is timed. Cold: parsing, differentiating and planning are timed as well.
What is written by hand is what a careful person would write for this one function; a block's `by_hand` and `function`
take the inputs by name, and return values and derivatives in the order in which the engine answers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
from scipy.special import ndtr

import engine.ops  # noqa: F401 - fills the catalogue
from benchmarks.peers import Work, installed
from benchmarks.timing import BY_HAND, OURS, Bounds, Contender, Row, enter, numbers_of
from engine.calls import Question, compile_question
from engine.limits import Limits
from engine.program import Program, read_graph
from engine.tensors import Tensor
from engine.text import parse

LIMITS = Limits(expanded_nodes=10_000_000)
THREADS = os.cpu_count() or 1
POINTS = 1_000_000
BY_NUMPY = "by hand, NumPy"
"""By hand, where that alone would be Python's own floats."""
IN_BLOCKS = "by hand, blocks"
BLOCK = 8_192
"""Elements that a few operands and results of fit in the cache together."""

Inputs = Mapping[str, np.ndarray]
Graph = str | Callable[[], dict[str, Any]]
"""An expression, or what gives a graph in its JSON form."""


def program(graph: Graph) -> Program:
    return parse(graph, LIMITS) if isinstance(graph, str) else read_graph(graph(), LIMITS)


def question(call: str, graph: Graph, inputs: Inputs, wrt: Sequence[str] | None = None, **more: Any) -> Question:
    tensors = {name: Tensor(array, typed=True) for name, array in inputs.items()}
    return Question(call, program(graph), tensors, wrt=wrt, ones=True, **more)


def warm_run(asked: Question) -> Callable[[], Any]:
    """A run of the compiled question, over all cores where it is large."""
    compiled = compile_question(asked, LIMITS)
    tensors = compiled.bind()
    return lambda: compiled.run(tensors, threads=THREADS)


def cold_run(ask: Callable[[], Question]) -> Callable[[], Any]:
    """Everything from the posted graph to its numbers, each time anew."""

    def run() -> Any:
        compiled = compile_question(ask(), LIMITS)
        return compiled.run(compiled.bind(), threads=THREADS)

    return run


def arrays_of(answer: Any) -> list[np.ndarray]:
    """The arrays and floats of the engine's answer, without the integers and names that stand beside them."""
    if isinstance(answer, dict | list):
        return [each for part in (answer.values() if isinstance(answer, dict) else answer) for each in arrays_of(part)]
    return numbers_of(answer) if isinstance(answer, np.ndarray | float) else []


def engine_row(
    name: str,
    title: str,
    *,
    graph: Graph,
    inputs: Callable[[], Inputs],
    by_hand: Callable[..., Any],
    function: Callable[..., Any],
    also: Mapping[str, Callable[..., Any]] | None = None,
    without: Sequence[str] = (),
    call: str = "grad",
    wrt: Sequence[str] | None = None,
    order: int = 1,
    cold: bool = False,
    marks: Mapping[str, Bounds] | None = None,
    tolerance: float = 1e-9,
) -> Row:
    """`also` has further ways by hand, under their names; `without` names peers that are left out."""

    def contenders(stack: ExitStack) -> dict[str, Contender]:
        given = inputs()

        def ask() -> Question:
            return question(call, graph, given, wrt, order=order)

        found = {OURS: Contender(cold_run(ask) if cold else warm_run(ask()), arrays_of)}
        found |= {key: Contender(_bound(run, given)) for key, run in {BY_HAND: by_hand, **(also or {})}.items()}
        work = Work(call, function, given, wrt or tuple(given), order, cold)
        prepared = {key: peer.prepare(work) for key, peer in installed().items() if key not in without}
        return found | {key: Contender(run) for key, run in prepared.items() if run is not None}

    group = "engine, cold" if cold else "engine, warm"
    return enter(Row(name, title, group, contenders, marks=marks or {}, tolerance=tolerance))


def _bound(run: Callable[..., Any], given: Inputs) -> Callable[[], Any]:
    # By hand, a scalar is a float: NumPy would take fifty times as long for it.
    values = {name: array if array.ndim else array.item() for name, array in given.items()}
    return lambda: run(**values)


def in_blocks(run: Callable[..., Sequence[np.ndarray]]) -> Callable[..., Sequence[np.ndarray]]:
    """The same elementwise work, a cacheful at a time, over all cores."""

    def blocked(**inputs: np.ndarray) -> Sequence[np.ndarray]:
        size = len(next(iter(inputs.values())))
        whole = [np.empty(size, part.dtype) for part in run(**{name: array[:1] for name, array in inputs.items()})]

        def block(at: int) -> None:
            parts = run(**{name: array[at : at + BLOCK] for name, array in inputs.items()})
            for array, part in zip(whole, parts, strict=True):
                array[at : at + BLOCK] = part

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(block, range(0, size, BLOCK)))
        return whole

    return blocked


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# Three scalars: what is left when there is no arithmetic to speak of.


def scalars_inputs() -> Inputs:
    return {"x": np.array(0.7), "y": np.array(-1.3), "z": np.array(0.4)}


SCALARS = "sin(x * y) + exp(z) * x / (y * y + 1.0) - tanh(x * z)"


def _scalars_by_hand(x: float, y: float, z: float) -> Any:
    xy, e, d, t = x * y, math.exp(z), 1.0 / (y * y + 1.0), math.tanh(x * z)
    c, slope, ed = math.cos(xy), 1.0 - t * t, e * d
    out = math.sin(xy) + ed * x - t
    return out, c * y + ed - slope * z, c * x - 2.0 * y * d * ed * x, ed * x - slope * x


def _scalars_in_numpy(x: float, y: float, z: float) -> Any:
    xy, e, d, t = x * y, np.exp(z), 1.0 / (y * y + 1.0), np.tanh(x * z)
    c, slope, ed = np.cos(xy), 1.0 - t * t, e * d
    out = np.sin(xy) + ed * x - t
    return out, c * y + ed - slope * z, c * x - 2.0 * y * d * ed * x, ed * x - slope * x


def _scalars_function(xp: Any, x: Any, y: Any, z: Any) -> Any:
    return xp.sin(x * y) + xp.exp(z) * x / (y * y + 1.0) - xp.tanh(x * z)


engine_row(
    "scalars",
    "3 scalars, 10 ops",
    graph=SCALARS,
    inputs=scalars_inputs,
    by_hand=_scalars_by_hand,
    function=_scalars_function,
    also={BY_NUMPY: _scalars_in_numpy},
    marks={BY_NUMPY: 2, "jax": 1},
)

# Rosenbrock's function: slices, whose adjoints overlap.


def _rosenbrock_by_hand(x: np.ndarray) -> Any:
    head, tail = x[:-1], x[1:]
    gap, short = tail - head * head, 1.0 - head
    gradient = np.zeros_like(x)
    gradient[:-1] = -400.0 * gap * head - 2.0 * short
    gradient[1:] += 200.0 * gap
    return 100.0 * (gap @ gap) + short @ short, gradient


engine_row(
    "rosenbrock",
    "Rosenbrock, n = 1,000",
    graph="sum(100 * (x[1:] - x[:-1]**2)**2 + (1 - x[:-1])**2)",
    inputs=lambda: {"x": random().uniform(-1, 1, 1_000)},
    by_hand=_rosenbrock_by_hand,
    function=lambda xp, x: xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
    marks={BY_HAND: 1.5, "jax": 1.2},
)

# A small neural network: matrix products in float32, little else.


def _mlp_inputs() -> Inputs:
    r = random()

    def normal(scale: float, *shape: int) -> np.ndarray:
        return r.normal(0, scale, shape).astype(np.float32)

    targets = np.eye(10, dtype=np.float32)[r.integers(0, 10, 128)]
    return {
        "x": normal(1, 128, 784),
        "targets": targets,
        "W1": normal(0.05, 784, 256),
        "b1": normal(0.05, 256),
        "W2": normal(0.1, 256, 10),
        "b2": normal(0.1, 10),
    }


def _mlp_by_hand(x: Any, targets: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> Any:
    h = x @ W1
    h += b1
    np.maximum(h, 0, out=h)
    z = h @ W2
    z += b2
    z -= z.max(axis=1, keepdims=True)
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    loss = -((z - np.log(total)) * targets).sum() / len(x)
    p /= total
    p -= targets
    p *= np.float32(1 / len(x))
    gh = p @ W2.T
    gh *= h > 0
    return loss, x.T @ gh, gh.sum(axis=0), h.T @ p, p.sum(axis=0)


engine_row(
    "mlp",
    "MLP 784-256-10, batch 128, float32",
    graph="h = relu(x @ W1 + b1); loss = -mean(sum(log_softmax(h @ W2 + b2, axis=-1) * targets, axis=1))",
    inputs=_mlp_inputs,
    wrt=("W1", "b1", "W2", "b2"),
    by_hand=_mlp_by_hand,
    function=lambda xp, x, targets, W1, b1, W2, b2: (
        -xp.mean(xp.sum(xp.log_softmax(xp.relu(x @ W1 + b1) @ W2 + b2) * targets, 1))
    ),
    tolerance=1e-4,
    marks={BY_HAND: 1.1, "torch": 1, "jax": 1},
)

# Black–Scholes: a call's price, and its derivatives by all five parameters, at a million points.


def _options() -> Inputs:
    r = random()
    bounds = {"S": (50, 150), "K": (50, 150), "T": (0.2, 2), "r": (0.0, 0.1), "v": (0.1, 0.5)}
    return {name: r.uniform(low, high, POINTS) for name, (low, high) in bounds.items()}


def _black_scholes_by_hand(S: Any, K: Any, T: Any, r: Any, v: Any) -> Any:
    root = np.sqrt(T)
    spread = v * root
    d1 = (np.log(S / K) + (r + 0.5 * v * v) * T) / spread
    d2 = d1 - spread
    n1, n2 = ndtr(d1), ndtr(d2)
    discount = np.exp(-r * T)
    paid = K * discount * n2
    vega = S * np.exp(-0.5 * d1 * d1) * (root / math.sqrt(2 * math.pi))
    return S * n1 - paid, n1, -discount * n2, r * paid + vega * v / (2 * T), T * paid, vega


def _black_scholes_function(xp: Any, S: Any, K: Any, T: Any, r: Any, v: Any) -> Any:
    d1 = (xp.log(S / K) + (r + 0.5 * v * v) * T) / (v * xp.sqrt(T))
    return S * xp.ndtr(d1) - K * xp.exp(-r * T) * xp.ndtr(d1 - v * xp.sqrt(T))


engine_row(
    "black-scholes",
    "Black–Scholes and 5 Greeks, 10⁶ points",
    graph="d1 = (log(S / K) + (r + 0.5*v*v) * T) / (v * sqrt(T))\n"
    "price = S * ndtr(d1) - K * exp(-r * T) * ndtr(d1 - v * sqrt(T))",
    inputs=_options,
    by_hand=_black_scholes_by_hand,
    also={IN_BLOCKS: in_blocks(_black_scholes_by_hand)},
    function=_black_scholes_function,
    marks={BY_HAND: 0.75, "torch": 1.1, "jax": 0.5},
)

# Sines of sines: transcendental functions and memory traffic.


def _sin_chain_by_hand(x: np.ndarray) -> Any:
    values = [x]
    for _ in range(10):
        values.append(np.sin(values[-1]))
    gradient = np.cos(values[9])
    for each in values[8::-1]:
        gradient *= np.cos(each)
    return values[10], gradient


def _sin_chain_function(xp: Any, x: Any) -> Any:
    for _ in range(10):
        x = xp.sin(x)
    return x


SIN_CHAIN = "y = " + "sin(" * 10 + "x" + ")" * 10

engine_row(
    "sin-chain",
    "10-fold sin chain, 10⁶ points",
    graph=SIN_CHAIN,
    inputs=lambda: {"x": random().uniform(-3, 3, POINTS)},
    by_hand=_sin_chain_by_hand,
    also={IN_BLOCKS: in_blocks(_sin_chain_by_hand)},
    function=_sin_chain_function,
    marks={IN_BLOCKS: 1.1, "jax": 0.85},
)

# A Hessian, whose form by hand is one matrix product.


def _observations() -> Inputs:
    r = random()
    X = r.normal(size=(1_000, 100))
    return {"X": X, "y": (r.uniform(size=1_000) < 0.5).astype(float), "w": r.normal(0, 0.1, 100)}


def _logistic_by_hand(X: np.ndarray, y: np.ndarray, w: np.ndarray) -> Any:
    z = X @ w
    p = 1.0 / (1.0 + np.exp(-z))
    weights = p * (1.0 - p) / len(y)
    return (np.log1p(np.exp(z)) - y * z).mean(), (p - y) @ X / len(y), X.T @ (X * weights[:, None])


engine_row(
    "hessian",
    "Hessian of logistic loss, 1,000 × 100",
    graph="z = X @ w; loss = mean(log1p(exp(z)) - y * z)",
    inputs=_observations,
    wrt=("w",),
    call="hessian",
    by_hand=_logistic_by_hand,
    function=lambda xp, X, y, w: xp.mean(xp.log1p(xp.exp(X @ w)) - y * (X @ w)),
    marks={BY_HAND: 2, "jax": 1.2},
)

# A Jacobian, whose form by hand is a scaling of rows.


def _jacobian_by_hand(A: np.ndarray, x: np.ndarray) -> Any:
    out = np.tanh(A @ x)
    return out, (1.0 - out * out)[:, None] * A


engine_row(
    "jacobian",
    "Jacobian of tanh(Ax), 200 × 200",
    graph="tanh(A @ x)",
    inputs=lambda: {"A": random().normal(0, 0.1, (200, 200)), "x": random(1).normal(size=200)},
    wrt=("x",),
    call="jacobian",
    by_hand=_jacobian_by_hand,
    function=lambda xp, A, x: xp.tanh(A @ x),
    marks={BY_HAND: 4, "jax": 0.5},
)

# A long chain of scalars: what a node costs.


STEP = 0.001


def chain(length: int) -> dict[str, Any]:
    """x ← x + h·tanh(sin(x)), over and over, as a graph of `length` nodes in its JSON form.

    Steps this small keep the slope away from 0 and from infinity, however long the chain.
    """
    nodes: list[dict[str, Any]] = []
    for at in range(0, length, 4):
        x, s, t, moved, out = (f"n{at - 1}" if at else "x", *(f"n{at + k}" for k in range(4)))
        nodes += [
            {"id": s, "op": "sin", "inputs": [x]},
            {"id": t, "op": "tanh", "inputs": [s]},
            {"id": moved, "op": "multiply", "inputs": [t, STEP]},
            {"id": out, "op": "add", "inputs": [x, moved]},
        ]
    return {"nodes": nodes}


def chain_by_hand(length: int) -> Callable[[float], Any]:
    def run(x: float) -> Any:
        slope = 1.0
        for _ in range(length // 4):
            t = math.tanh(math.sin(x))
            slope += slope * STEP * (1.0 - t * t) * math.cos(x)
            x += STEP * t
        return x, slope

    return run


def chain_function(length: int) -> Callable[..., Any]:
    def run(xp: Any, x: Any) -> Any:
        for _ in range(length // 4):
            x = x + xp.tanh(xp.sin(x)) * STEP
        return x

    return run


def scalar() -> Inputs:
    return {"x": np.array(0.3)}


engine_row(
    "chain",
    "chain of 20,000 scalar ops",
    graph=lambda: chain(20_000),
    inputs=scalar,
    by_hand=chain_by_hand(20_000),
    function=chain_function(20_000),
    without=("jax",),  # XLA compiles this for minutes
    marks={"torch": 1 / 50},
)

# All derivatives up to the tenth, by hand with the recurrences of exp, sin and cos.


def _tenth_by_hand(x: np.ndarray) -> Any:
    order = 10
    e, s, c = np.empty((3, order + 1, len(x)))
    e[0] = np.exp(x)
    s[0], c[0] = np.sin(e[0]), np.cos(e[0])
    rows = [s[0]]
    for k in range(1, order + 1):
        e[k] = e[k - 1] / k
        weighted = e[1 : k + 1] * (np.arange(1, k + 1)[:, None] / k)
        s[k] = (weighted * c[k - 1 :: -1]).sum(axis=0)
        c[k] = -(weighted * s[k - 1 :: -1]).sum(axis=0)
        rows.append(s[k] * math.factorial(k))
    return rows


SIN_EXP = "sin(exp(x))"

engine_row(
    "tenth",
    "derivatives 1 to 10 of sin(exp x), 1,000 points",
    graph=SIN_EXP,
    inputs=lambda: {"x": random().uniform(-1, 1, 1_000)},
    call="nth",
    order=10,
    by_hand=_tenth_by_hand,
    function=lambda xp, x: xp.sin(xp.exp(x)),
    tolerance=1e-8,
    marks={BY_HAND: 2},
)

# Cold: a graph that nobody has seen before. By hand there is nothing to compile.

engine_row(
    "cold-10",
    "first gradient of 10 nodes",
    graph=SCALARS,
    inputs=scalars_inputs,
    by_hand=_scalars_by_hand,
    function=_scalars_function,
    cold=True,
    marks={OURS: 2e-3},
)

engine_row(
    "cold-10000",
    "first gradient of 10,000 nodes",
    graph=lambda: chain(10_000),
    inputs=scalar,
    by_hand=chain_by_hand(10_000),
    function=chain_function(10_000),
    without=("jax",),
    cold=True,
    marks={OURS: 1.0},
)
