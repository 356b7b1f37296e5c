"""Complex numbers: their parts, and what turns them. Elsewhere an op takes complex operands as it takes real ones.

Gradients are PyTorch's: for a real loss L of z = a + bi, ∂L/∂a + i·∂L/∂b, the direction of steepest ascent. These ops
are linear over the reals, not over the complex numbers; their adjoints are those of Re⟨u, v⟩.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.core import Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Linear, Slope
from engine.errors import ShapeMismatch
from engine.families import (
    ANY,
    MISMATCH,
    NUMERIC,
    PAIRWISE,
    POINTWISE,
    batch_aligned,
    binary,
    composite,
    costly,
    listed,
    over,
    part_dtype,
    rearranged,
    same_shape,
    unary,
)
from engine.types import Dtype, to_complex


def _itself(x: Node) -> Node | None:
    """A real number is its own conjugate, and its own real part."""
    return None if x.dtype.kind == "c" else x


conj = define(
    "conj",
    "The complex conjugate; of a real number, the number itself.",
    operands=NUMERIC,
    shape=same_shape,
    kernel=np.conjugate,
    derivative=Linear(lambda g, x: ops.conj(g)),
    batch=batch_aligned,
    same=_itself,
    holomorphic=False,
    family="elementwise",
    samples=POINTWISE,
    pointwise=True,
)

real = unary(
    "real",
    "The real part; of a real number, the number itself.",
    lambda x: np.array(np.real(x)),
    lambda out, x: 1.0,
    operands=NUMERIC,
    inexact=False,
    returns=part_dtype,
    same=_itself,
    family="complex",
)

imag = unary(
    "imag",
    "The imaginary part; of a real number, 0.",
    lambda x: np.array(np.imag(x)),
    lambda out, x: -1j if x.dtype.kind == "c" else 0.0,
    operands=NUMERIC,
    inexact=False,
    returns=part_dtype,
    family="complex",
)


def _angle_slope(out: Node, x: Node) -> Slope:
    """The angle is the imaginary part of log(x), that is, the real part of -i·log(x); at 0 its slope is 0."""
    return over(x.graph.number(-1j), x) if x.dtype.kind == "c" else 0.0


angle = costly(
    "angle",
    "The angle of a complex number with the positive axis, from -π to π; 0 or π of a real one. The slope at 0 is 0.",
    np.angle,
    _angle_slope,
    at=(0.5, 2.0),
    operands=ANY,
    returns=part_dtype,
    family="complex",
)


def _joined(real: Any, imag: Any) -> Any:
    # Not real + 1j·imag, which makes a NaN of the part beside an infinity.
    out = np.empty(np.broadcast_shapes(np.shape(real), np.shape(imag)), to_complex(real.dtype))
    out.real, out.imag = real, imag
    return out


def _complex_dtype(real: Dtype, imag: Dtype) -> Dtype:
    return to_complex(real)


join = binary(
    "complex",
    "The complex number with these real and imaginary parts.",
    _joined,
    (lambda out, x, y: 1.0, lambda out, x, y: 1j),
    operands=(Operand("real"), Operand("imag")),
    returns=_complex_dtype,
    inexact=True,
    family="complex",
    refusals=MISMATCH,
)

polar = composite(
    "polar",
    "The complex number of this magnitude and angle.",
    lambda abs, angle: ops.complex(abs * ops.cos(angle), abs * ops.sin(angle)),
    operands=(Operand("abs"), Operand("angle")),
    inexact=True,
    family="complex",
    domain=((0.5, 2.0), (-2.0, 2.0)),
    samples=PAIRWISE,
    refusals=MISMATCH,
)

adjoint = rearranged(
    "adjoint",
    "The conjugate of matrices with their last two axes exchanged.",
    lambda x: ops.matrix_transpose(x if x.dtype.kind == "b" else ops.conj(x)),
    samples=(Sample(((2, 3),)), Sample(((2, 3, 4),)), Sample(((0, 3),))),
    refusals=(Refusal(((3,),), {}, "shape_mismatch"),),
)

view_as_real = composite(
    "view_as_real",
    "Real and imaginary parts along a new last axis.",
    lambda x: ops.stack(ops.real(x), ops.imag(x), axis=-1),
    operands=(Operand("x", "c"),),
    family="complex",
    samples=(Sample(((2, 3),)), Sample(((),))),
    refusals=(Refusal(((3,),), {}, "dtype_mismatch"),),
)


def _as_complex(x: Node) -> Node:
    if x.shape[-1:] != (2,):
        raise ShapeMismatch(f"expected pairs of parts, in a last axis of length 2, got shape {listed(x.shape)}")
    return ops.complex(*(ops.slice(x, index=("...", part)) for part in (0, 1)))


view_as_complex = composite(
    "view_as_complex",
    "Complex numbers from pairs along the last axis.",
    _as_complex,
    operands=(Operand("x", "f"),),
    family="complex",
    samples=(Sample(((3, 2),)), Sample(((2,),)), Sample(((0, 2),))),
    refusals=(Refusal(((3,),), {}, "shape_mismatch"), Refusal(((),), {}, "shape_mismatch")),
)
