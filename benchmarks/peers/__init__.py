"""Other systems that differentiate, where they are installed; a row is asked of them through one interface.

A row's function is written once, against `xp`: the NumPy names that the three share, and these, which they spell in
their own way: `relu`, `ndtr`, `log_softmax` (over the last axis).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np

MODULES = {
    "torch": "benchmarks.peers.with_torch",
    "jax": "benchmarks.peers.with_jax",
    "autograd": "benchmarks.peers.with_autograd",
}


class Work(NamedTuple):
    """What a row asks: `call` of `function(xp, **inputs)`, differentiated by the inputs in `wrt`."""

    call: str
    function: Callable[..., Any]
    inputs: Mapping[str, np.ndarray]
    wrt: Sequence[str]
    order: int
    cold: bool
    """Nothing may be kept from one run to the next."""


class Peer(Protocol):
    """A module that answers work. It returns None for a call that it has no way to do."""

    VERSION: str
    THREADS: int | None

    def prepare(self, work: Work) -> Callable[[], Any] | None: ...


@cache
def installed() -> dict[str, Any]:
    """The peers that can be imported here, by name."""
    return {name: import_module(module) for name, module in MODULES.items() if find_spec(name) is not None}
