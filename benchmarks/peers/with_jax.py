"""JAX under `jit`, on the CPU, in float64 where the inputs are; compiled before the clock runs, unless work is cold."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.jet import jet
from jax.scipy.special import ndtr

from benchmarks.peers import Work

jax.config.update("jax_enable_x64", True)
VERSION: str = jax.__version__
THREADS: int | None = None

xp = SimpleNamespace(
    **{name: getattr(jnp, name) for name in ("sin", "cos", "exp", "log", "log1p", "sqrt", "tanh", "sum", "mean")},
    relu=jax.nn.relu,
    ndtr=ndtr,
    log_softmax=jax.nn.log_softmax,
)


def prepare(work: Work) -> Callable[[], Any] | None:
    inputs = {name: jnp.asarray(array) for name, array in work.inputs.items()}
    moved = [inputs[name] for name in work.wrt]
    fixed = {name: x for name, x in inputs.items() if name not in work.wrt}

    def jitted() -> Callable[..., Any]:
        # A function of its own each time: jit keeps what it compiled by the function.
        return jax.jit(lambda wrt, rest: _ANSWERS[work.call](work, wrt, rest))

    warm = jitted()

    def run() -> Any:
        return jax.block_until_ready((jitted() if work.cold else warm)(moved, fixed))

    return run


def _value(work: Work, rest: dict[str, Any]) -> Callable[..., Any]:
    return lambda *wrt: work.function(xp, **rest, **dict(zip(work.wrt, wrt, strict=True)))


def _grad(work: Work, wrt: list[Any], rest: dict[str, Any]) -> Any:
    out, pullback = jax.vjp(_value(work, rest), *wrt)
    return out, pullback(jnp.ones_like(out))


def _nth(work: Work, wrt: list[Any], rest: dict[str, Any]) -> Any:
    (x,) = wrt
    line = [jnp.ones_like(x), *[jnp.zeros_like(x)] * (work.order - 1)]
    return jet(_value(work, rest), (x,), (line,))


def _jacobian(work: Work, wrt: list[Any], rest: dict[str, Any]) -> Any:
    return _value(work, rest)(*wrt), jax.jacrev(_value(work, rest))(*wrt)


def _hessian(work: Work, wrt: list[Any], rest: dict[str, Any]) -> Any:
    return _grad(work, wrt, rest), jax.hessian(_value(work, rest))(*wrt)


_ANSWERS = {"grad": _grad, "nth": _nth, "jacobian": _jacobian, "hessian": _hessian}
