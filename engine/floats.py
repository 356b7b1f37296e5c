"""Scalars as Python floats: a NumPy call takes half a microsecond however small its operands are, a float some 20 ns.

An op states its form over floats in its own block (`Op.scalar`): a Python expression, in which operands are {0}, {1}.
One text serves two roads that give the same bits: as a function, called step by step, and written into the source of
a whole plan (engine.source). Which steps run on floats depends on the plan alone, so equal requests give equal bits.

A form gives NumPy's value, to the last bit where IEEE 754 demands it. Where Python raises instead of giving an infinity
or a NaN, the op's kernel is asked. Only what is known to the catalogue goes into a form, and literals; no posted text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from engine.core import Node
from engine.types import BOOL, FLOAT64


class Form(NamedTuple):
    """An expression in the operands {0}, {1}, …, and in {kernel}, where it calls one."""

    text: str
    kernel: np.ufunc | None = None

    def written(self, *operands: str, kernel: str = "kernel") -> str:
        return self.text.format(*operands, kernel=kernel)


def form_of(node: Node) -> Form | None:
    """The form of a node over floats, if it and all its operands are scalars of float64, or truth values."""
    op = node.op
    kernel = op.kernel if isinstance(op.kernel, np.ufunc) and not node.attrs else None
    if node.shape or not node.inputs or not (op.scalar or kernel):
        return None
    if not (_is_scalar(node) and all(map(_is_scalar, node.inputs)) and _is_plain(node)):
        return None
    text = op.scalar if isinstance(op.scalar, str) else op.scalar(node)
    if text:
        return Form(text)
    if kernel is None:
        return None
    places = ", ".join(f"{{{at}}}" for at in range(len(node.inputs)))
    return Form(f"{{kernel}}({places}).item()", kernel)


def _is_scalar(node: Node) -> bool:
    return not node.shape and (node.dtype is FLOAT64 or node.dtype is BOOL) and len(node.specs) == 1


def _is_plain(node: Node) -> bool:
    """Whether truth values are not counted: True + True is 2 in Python, and True in NumPy."""
    if node.dtype is BOOL and node.op.returns is not None:
        return True
    return not any(x.dtype is not FLOAT64 and node.op.operand(at).promotes for at, x in enumerate(node.inputs))


@lru_cache(maxsize=4096)
def function_of(form: Form, arity: int) -> Callable[..., Any]:
    """A form as a function."""
    operands = [f"x{at}" for at in range(arity)]
    text = f"lambda {', '.join(operands)}: {form.written(*operands)}"
    function: Callable[..., Any] = eval(text, {"math": math, "kernel": form.kernel})
    return function


def literal(value: float | bool) -> str:
    """A number as it stands in source; a negative one in brackets."""
    if value is True or value is False or math.isfinite(value):
        return f"({value!r})" if str(value).startswith("-") else repr(value)
    return "math.nan" if math.isnan(value) else "math.inf" if value > 0 else "(-math.inf)"
