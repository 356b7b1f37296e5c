"""What one graph may cost. Plain values: whoever calls the engine decides them, the engine holds to them.

Every figure is checked from static facts (shapes, counts), before anything of that size is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _at_most(default: float, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Limits:
    """Maxima of one request; a breach raises LimitExceeded under the field's name."""

    nodes: int = _at_most(100_000, "Nodes of a posted graph.")
    expanded_nodes: int = _at_most(1_000_000, "Nodes after expansion: what transforms emit counts, not what was sent.")
    functions: int = _at_most(256, "Functions of a posted graph.")
    function_depth: int = _at_most(32, "Functions that call one another, or loops within loops, one inside the other.")
    loop_steps: int = _at_most(1_000_000, "Steps of one loop.")
    elements: int = _at_most(100_000_000, "Logical elements of any one tensor; a broadcast view counts in full.")
    dimension: int = _at_most(2**31 - 1, "Size of one axis of any one tensor, also where another axis is empty.")
    rank: int = _at_most(16, "Axes of any one tensor.")
    arity: int = _at_most(64, "Operands of one node.")
    names: int = _at_most(256, "Inputs of a graph, and outputs of a graph.")
    peak_bytes: int = _at_most(1 << 30, "Bytes that a planned run holds at its peak.")
    cost_seconds: float = _at_most(10.0, "Seconds that a planned run takes, as estimated.")
    nonzeros: int = _at_most(20_000_000, "Entries of a sparse derivative, and of a pattern on the way to it.")
    taylor_order: int = _at_most(64, "Order of Taylor coefficients, and of derivatives by `order`.")
    tensor_order: int = _at_most(4, "Order of full derivative tensors.")
    nested_order: int = _at_most(16, "Order of a mixed derivative: the length of its `path`.")
    expression_characters: int = _at_most(65_536, "Characters of one expression.")
    expression_nesting: int = _at_most(200, "Brackets within brackets of one expression.")
    constant_exponent: int = _at_most(1_024, "Magnitude of a constant exponent.")
    linalg_dimension: int = _at_most(2_048, "Rows or columns of a matrix that is factorised.")
    einsum_operands: int = _at_most(8, "Operands of one einsum.")
