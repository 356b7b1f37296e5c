"""Casting: the same values in another dtype. Only between inexact dtypes does a derivative pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine import attrs as kinds
from engine.core import Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Linear
from engine.families import batch_aligned, named_dtype, same_shape
from engine.types import is_inexact


@dataclass(frozen=True)
class _LinearCast(Linear):
    """Linear between inexact dtypes; a cast to or from integers and booleans ends the path."""

    def forward(self, node: Node, tangents: Sequence[Node | None]) -> Node | None:
        return super().forward(node, tangents) if _is_smooth(node) else None

    def reverse(self, node: Node, g: Node, wanted: Sequence[bool]) -> Sequence[Node | None]:
        return super().reverse(node, g, wanted) if _is_smooth(node) else [None]


def _is_smooth(node: Node) -> bool:
    return is_inexact(node.dtype) and is_inexact(node.inputs[0].dtype)


def _cast(x: Any, *, dtype: str) -> Any:
    # The adjoint of taking a real number for a complex one is the real part: no warning is due.
    return (x.real if x.dtype.kind == "c" and dtype.startswith(("i", "u", "f")) else x).astype(dtype)


def _cast_scalar(node: Node) -> str:
    return "float({0})" if node.dtype.kind == "f" else "{0} != 0.0"


astype = define(
    "astype",
    "The same values in another dtype; integers and booleans carry no derivative.",
    operands=(Operand("x", "biufc", promotes=False),),
    attrs={"dtype": kinds.dtype()},
    shape=same_shape,
    returns=named_dtype,
    kernel=_cast,
    derivative=_LinearCast(lambda g, x, *, dtype: ops.astype(g, dtype=x.dtype.name)),
    batch=batch_aligned,
    # A weak number of that dtype is not yet a tensor of it.
    same=lambda x, *, dtype: x if x.dtype.name == dtype and not x.weak else None,
    torch="to_copy",
    family="shape",
    samples=(
        Sample(((2, 3),), {"dtype": "float32"}),
        Sample(((2, 3),), {"dtype": "float64"}),
        Sample(([1, 2],), {"dtype": "float64"}),
        Sample(((3,),), {"dtype": "int64"}),
        Sample(([True, False],), {"dtype": "uint8"}),
        Sample(((0,),), {"dtype": "bool"}),
    ),
    refusals=(Refusal(((3,),), {"dtype": "float16"}, "invalid_graph"), Refusal(((3,),), {}, "invalid_graph")),
    example='astype(x, "float32")',
    scalar=_cast_scalar,
    pointwise=True,
)
