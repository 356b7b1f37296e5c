"""Complex numbers: their parts, and what turns them. Elsewhere an op takes complex operands as it takes real ones.

Gradients are PyTorch's: for a real loss L of z = a + bi, ∂L/∂a + i·∂L/∂b, the direction of steepest ascent. These ops
are linear over the reals, not over the complex numbers; their adjoints are those of Re⟨u, v⟩.
"""

from __future__ import annotations

import numpy as np

from engine.core import Operand, define, ops
from engine.derivative import Linear
from engine.families import POINTWISE, batch_aligned, same_shape

conj = define(
    "conj",
    "The complex conjugate; of a real number, the number itself.",
    operands=(Operand("x", "iufc"),),
    shape=same_shape,
    kernel=np.conjugate,
    derivative=Linear(lambda g, x: ops.conj(g)),
    batch=batch_aligned,
    same=lambda x: None if x.dtype.kind == "c" else x,
    family="elementwise",
    samples=POINTWISE,
)
