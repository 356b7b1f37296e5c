"""PyTorch, eager: `torch.autograd.grad` for gradients, `torch.func` for Jacobians and Hessians."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.peers import Work

VERSION: str = torch.__version__
THREADS: int | None = torch.get_num_threads()

xp = SimpleNamespace(
    **{name: getattr(torch, name) for name in ("sin", "cos", "exp", "log", "log1p", "sqrt", "tanh", "sum", "mean")},
    relu=torch.relu,
    ndtr=torch.special.ndtr,
    log_softmax=lambda x: torch.log_softmax(x, -1),
)


def prepare(work: Work) -> Callable[[], Any] | None:
    inputs = {name: torch.tensor(array) for name, array in work.inputs.items()}
    wrt = [inputs[name] for name in work.wrt]

    def value(*moved: torch.Tensor) -> torch.Tensor:
        return work.function(xp, **inputs | dict(zip(work.wrt, moved, strict=True)))

    def grad() -> Any:
        out = value(*wrt)
        return out, torch.autograd.grad(out, wrt, torch.ones_like(out))

    def nth() -> Any:
        (x,) = wrt
        rows = [value(x)]
        for k in range(work.order):
            rows += torch.autograd.grad(rows[-1].sum(), x, create_graph=k + 1 < work.order)
        return rows

    def jacobian() -> Any:
        return value(*wrt), torch.func.jacrev(value)(*wrt)

    def hessian() -> Any:
        return grad(), torch.func.hessian(value)(*wrt)

    if work.call in ("grad", "nth", "hessian"):
        for each in wrt:
            each.requires_grad_()
    return {"grad": grad, "nth": nth, "jacobian": jacobian, "hessian": hessian}[work.call]
