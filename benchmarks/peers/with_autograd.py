"""HIPS autograd, which traces NumPy anew in every run."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import autograd.numpy as anp
from autograd import hessian as hessian_of
from autograd import jacobian as jacobian_of
from autograd import make_vjp
from autograd.scipy.special import erf, logsumexp

from benchmarks.peers import Work

VERSION = version("autograd")
THREADS: int | None = None

xp = SimpleNamespace(
    **{name: getattr(anp, name) for name in ("sin", "cos", "exp", "log", "log1p", "sqrt", "tanh", "sum", "mean")},
    relu=lambda x: anp.maximum(x, 0),
    ndtr=lambda x: 0.5 * (1.0 + erf(x * 0.5**0.5)),
    log_softmax=lambda x: x - logsumexp(x, axis=-1, keepdims=True),
)


def prepare(work: Work) -> Callable[[], Any] | None:
    wrt = [work.inputs[name] for name in work.wrt]

    def value(*moved: Any) -> Any:
        return work.function(xp, **dict(work.inputs) | dict(zip(work.wrt, moved, strict=True)))

    def grad() -> Any:
        pullback, out = make_vjp(lambda moved: value(*moved))(tuple(wrt))
        return out, pullback(anp.ones_like(out))

    def jacobian() -> Any:
        return value(*wrt), jacobian_of(value)(*wrt)

    def hessian() -> Any:
        return grad(), hessian_of(value)(*wrt)

    # Of higher orders it has only nested reverse mode, which takes minutes at order 10.
    return {"grad": grad, "jacobian": jacobian, "hessian": hessian}.get(work.call)
