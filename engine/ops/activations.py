"""Activations, and softmax.

Names and attributes are PyTorch's. Activations with a kink have boolean slopes, which select and never
multiply; the smooth ones are written in sigmoid, tanh and ndtr, whose slopes stay accurate far out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, define, ops
from engine.derivative import Custom, Slope, times
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import (
    ANY,
    COMPUTED_IN,
    POINTWISE,
    REAL,
    X,
    batch_shifted,
    composite,
    costly,
    like_mask,
    like_operand,
    like_result,
    reduced_axes,
    same_shape,
    settle_axes,
    unary,
)
from engine.types import Shape, axis_of


def _under(attrs: Attrs) -> tuple[Sample, ...]:
    """Samples that show one setting of an op's attributes."""
    return (Sample(((2, 3),), attrs),)


# Sigmoids


def opposite(x: Node) -> Node:
    """-x, taking a minus off where there is one: slopes that go to and fro between x and -x then close."""
    return x.inputs[0] if x.op is ops.negative else -x


def _sigmoid_slope(out: Node, x: Node) -> Slope:
    # Not out·(1 − out), which cancels for large x.
    return out * ops.sigmoid(opposite(x))


def _sigmoid(x: Any) -> Any:
    if x.dtype.kind == "f":
        return special.expit(x)
    # SciPy's is real only. The exponential of what lies left never overflows.
    is_left = x.real < 0
    small = np.exp(np.where(is_left, x, -x))
    return np.where(is_left, small, x.dtype.type(1)) / (1 + small)


sigmoid = costly(
    "sigmoid",
    "1 / (1 + exp(-x)).",
    _sigmoid,
    _sigmoid_slope,
    operands=ANY,
    aliases=("expit",),
    scalar="1.0 / (1.0 + math.exp(-{0}))",
)


def _softplus(x: Any, *, beta: float, threshold: float | None) -> Any:
    scaled = x if beta == 1 else beta * x
    smooth = np.logaddexp(0.0, scaled)
    if beta != 1:
        smooth = smooth / beta
    return smooth if threshold is None else np.where(scaled > threshold, x, smooth)


def _softplus_slope(out: Node, x: Node, *, beta: float, threshold: float | None) -> Slope:
    scaled = x if beta == 1 else beta * x
    slope = ops.sigmoid(scaled)
    return slope if threshold is None else ops.where(scaled > threshold, 1.0, slope)


def _softplus_shape(shape: Shape, *, beta: float, threshold: float | None) -> Shape:
    if beta == 0 or not math.isfinite(beta):
        raise InvalidGraph(f"softplus divides by beta, which must be finite and not 0, got {beta}")
    return shape


softplus = costly(
    "softplus",
    "log(1 + exp(beta·x)) / beta, without overflow; x itself where beta·x is above the threshold.",
    _softplus,
    _softplus_slope,
    shape=_softplus_shape,
    attrs={
        "beta": kinds.real("How sharp the bend is.", 1.0),
        "threshold": kinds.real("Where the linear part begins, in beta·x; nowhere when absent.", None),
    },
    scratch=like_result(2),
    flops=90,
    samples=(*POINTWISE, *_under({"beta": 2.5}), *_under({"beta": 2.0, "threshold": 1.0})),
    refusals=(Refusal(((3,),), {"beta": 0}, "invalid_graph"),),
    example="softplus(x)",
)

log_sigmoid = composite(
    "log_sigmoid",
    "log(sigmoid(x)), without overflow.",
    lambda x: -ops.softplus(opposite(x)),
    inexact=True,
    aliases=("logsigmoid",),
    samples=POINTWISE,
)

silu = composite(
    "silu",
    "x·sigmoid(x), also called swish.",
    lambda x: x * ops.sigmoid(x),
    operands=ANY,
    inexact=True,
    aliases=("swish",),
    samples=POINTWISE,
)

mish = composite(
    "mish",
    "x·tanh(softplus(x)).",
    lambda x: x * ops.tanh(ops.softplus(x)),
    inexact=True,
    samples=POINTWISE,
)


def _gelu(x: Node, *, approximate: str) -> Node:
    if approximate == "none":
        return x * ops.ndtr(x)
    # (1 + tanh(u)) / 2 = sigmoid(2u), which does not cancel for negative u.
    return x * ops.sigmoid(math.sqrt(8.0 / math.pi) * (x + 0.044715 * (x * x * x)))


gelu = composite(
    "gelu",
    "x·ndtr(x), the Gaussian error linear unit, or near it x·(1 + tanh(√(2/π)·(x + 0.044715·x³))) / 2.",
    _gelu,
    attrs={"approximate": kinds.choice("none or tanh.", ("none", "tanh"), "none")},
    inexact=True,
    samples=(*POINTWISE, *_under({"approximate": "tanh"})),
    refusals=(Refusal(((3,),), {"approximate": "erf"}, "invalid_graph"),),
    example="gelu(x)",
)


# Rectifiers

relu = unary(
    "relu",
    "The larger of x and 0; its slope at 0 is 0.",
    lambda x, out=None: np.maximum(x, 0, out=out),
    lambda out, x: out > 0,  # not x > 0, so that x need not be kept
    operands=REAL,
    inexact=False,
    scalar="{0} if {0} > 0.0 or {0} != {0} else 0.0",
    fills=True,
)

relu6 = unary(
    "relu6",
    "x, but not below 0 and not above 6; its slope at both bounds is 0.",
    lambda x: np.clip(x, 0, 6),
    lambda out, x: (x > 0) & (x < 6),
    operands=REAL,
    inexact=False,
    flops=2,
    torch="hardtanh",
    samples=(*POINTWISE, Sample(([-1.0, 3.0, 7.0],))),
    scalar="6.0 if {0} > 6.0 else {0} if {0} >= 0.0 or {0} != {0} else 0.0",
)

leaky_relu = composite(
    "leaky_relu",
    "x where it is above 0, else negative_slope·x.",
    lambda x, *, negative_slope: ops.where(x > 0, x, negative_slope * x),
    attrs={"negative_slope": kinds.real("The slope below 0, and at 0.", 0.01)},
    inexact=True,
    samples=(*POINTWISE, *_under({"negative_slope": 0.2})),
    example="leaky_relu(x)",
)


def _elu(x: Node, *, alpha: float) -> Node:
    # The choice inside keeps an infinity of the branch that is not taken out of gradients.
    above = x > 0
    return ops.where(above, x, alpha * ops.expm1(ops.where(above, 0.0, x)))


elu = composite(
    "elu",
    "x where it is above 0, else alpha·(exp(x) - 1).",
    _elu,
    attrs={"alpha": kinds.real("What it tends to below, with its sign changed.", 1.0)},
    inexact=True,
    samples=(*POINTWISE, *_under({"alpha": 0.5})),
    example="elu(x)",
)

selu = composite(
    "selu",
    "1.0507…·elu(x, alpha=1.6732…), which keeps mean 0 and variance 1 (Klambauer et al. 2017).",
    lambda x: 1.0507009873554804934193349852946 * ops.elu(x, alpha=1.6732632423543772848170429916717),
    inexact=True,
    torch="elu",
    samples=POINTWISE,
)

hard_sigmoid = composite(
    "hard_sigmoid",
    "relu6(x + 3) / 6.",
    lambda x: ops.relu6(x + 3.0) / 6.0,
    inexact=True,
    aliases=("hardsigmoid",),
    torch="hardsigmoid",
    samples=(*POINTWISE, Sample(([-4.0, 4.0],))),
)

hard_swish = composite(
    "hard_swish",
    "x·relu6(x + 3) / 6.",
    lambda x: x * ops.hard_sigmoid(x),
    inexact=True,
    aliases=("hardswish",),
    torch="hardswish",
    samples=(*POINTWISE, Sample(([-4.0, 4.0],))),
)

softsign = composite(
    "softsign",
    "x / (1 + abs(x)).",
    lambda x: x / (ops.abs(x) + 1.0),
    operands=ANY,
    inexact=True,
    samples=POINTWISE,
    domain=((0.5, 2.0),),
)


celu = composite(
    "celu",
    "x where it is above 0, else alpha·(exp(x / alpha) - 1), whose slope at 0 is 1 (Barron 2017).",
    lambda x, *, alpha: _celu(x, alpha),
    attrs={"alpha": kinds.real("What it tends to below, with its sign changed; not 0.", 1.0)},
    inexact=True,
    samples=(*POINTWISE, *_under({"alpha": 0.5})),
    refusals=(Refusal(((3,),), {"alpha": 0}, "invalid_graph"),),
    example="celu(x)",
)


def _celu(x: Node, alpha: float) -> Node:
    if alpha == 0:
        raise InvalidGraph("celu divides by alpha, which must not be 0")
    above = x > 0
    return ops.where(above, x, alpha * ops.expm1(ops.where(above, 0.0, x) * (1.0 / alpha)))


def _prelu(x: Node, weight: Node) -> Node:
    channels = x.shape[1] if x.rank > 1 else 1
    if weight.rank > 1 or weight.size not in (1, channels):
        raise ShapeMismatch(
            f"the weight of prelu is one number, or {channels}, one a channel; got {list(weight.shape)}"
        )
    slope = ops.reshape(weight, shape=(weight.size, *(1,) * max(x.rank - 2, 0)) if weight.size > 1 else ())
    return ops.where(x > 0, x, slope * x)


prelu = composite(
    "prelu",
    "x where it is above 0, else weight·x; the weight is one number, or one for each channel, which axis 1 counts.",
    _prelu,
    operands=(*X, Operand("weight")),
    inexact=True,
    torch="prelu_kernel",
    samples=(Sample(((3,), ())), Sample(((2, 3, 2), (3,))), Sample(((2, 3), (1,))), Sample(((0, 3), (3,)))),
    refusals=(Refusal(((2, 3), (2,)), {}, "shape_mismatch"), Refusal(((3,), (3,)), {}, "shape_mismatch")),
)


def _rrelu(x: Node, *, lower: float, upper: float) -> Node:
    return ops.leaky_relu(x, negative_slope=(lower + upper) / 2)


rrelu = composite(
    "rrelu",
    "leaky_relu by the mean of two slopes: what the randomised one is outside of training (Xu et al. 2015).",
    _rrelu,
    attrs={
        "lower": kinds.real("The least slope below 0.", 0.125),
        "upper": kinds.real("The largest.", 1.0 / 3.0),
    },
    inexact=True,
    samples=(*POINTWISE, *_under({"lower": 0.0, "upper": 1.0})),
    example="rrelu(x)",
)


# Cut off

hardtanh = unary(
    "hardtanh",
    "x, but not below min_val and not above max_val; its slope at both bounds is 0.",
    lambda x, *, min_val, max_val: np.asarray(np.clip(x, min_val, max_val), x.dtype),
    lambda out, x, *, min_val, max_val: (x > min_val) & (x < max_val),
    attrs={"min_val": kinds.real("The lower bound.", -1.0), "max_val": kinds.real("The upper bound.", 1.0)},
    flops=2,
    samples=(*POINTWISE, *_under({"min_val": -0.25, "max_val": 1.5})),
    example="hardtanh(x)",
)


def _is_outside(out: Node, x: Node, *, lambd: float) -> Node:
    return ops.abs(x) > lambd


LAMBD = {"lambd": kinds.real("How far from 0 the part that vanishes reaches.", 0.5)}

hardshrink = unary(
    "hardshrink",
    "x where its magnitude is above lambd, else 0.",
    lambda x, *, lambd: np.asarray(np.where(np.abs(x) <= lambd, 0, x), x.dtype),
    _is_outside,
    attrs=LAMBD,
    flops=9,
    scratch=like_mask,
    samples=(*POINTWISE, *_under({"lambd": 1.25}), *_under({"lambd": -1})),
    example="hardshrink(x)",
)


def _softshrink_shape(shape: Shape, *, lambd: float) -> Shape:
    if not lambd >= 0:
        raise InvalidGraph(f"lambd of softshrink should be 0 or more, got {lambd}")
    return shape


softshrink = unary(
    "softshrink",
    "x nearer to 0 by lambd, and 0 where its magnitude is below that.",
    lambda x, *, lambd: np.asarray(np.copysign(np.maximum(np.abs(x) - lambd, 0), x), x.dtype),
    _is_outside,
    shape=_softshrink_shape,
    attrs=LAMBD,
    flops=4,
    scratch=like_operand(1),
    samples=(*POINTWISE, *_under({"lambd": 1.25}), *_under({"lambd": 0})),
    refusals=(Refusal(((3,),), {"lambd": -1}, "invalid_graph"), Refusal(((3,),), {"lambd": "NaN"}, "invalid_graph")),
    example="softshrink(x)",
)

tanhshrink = composite(
    "tanhshrink",
    "x - tanh(x).",
    lambda x: x - ops.tanh(x),
    operands=ANY,
    inexact=True,
    torch="sub",
    samples=POINTWISE,
)

threshold = unary(
    "threshold",
    "x where it is above the threshold, else a value; the slope is 0 at the threshold and below.",
    lambda x, *, threshold, value: np.asarray(np.where(x <= threshold, value, x), x.dtype),
    lambda out, x, *, threshold, value: x > threshold,
    attrs={"threshold": kinds.real("What x has to be above."), "value": kinds.real("What stands for the rest.")},
    scratch=like_mask,
    flops=9,
    samples=(*_under({"threshold": 0.5, "value": -1.0}), Sample(((0,),), {"threshold": 0, "value": 0})),
    refusals=(Refusal(((3,),), {"threshold": 0}, "invalid_graph"),),
    example="threshold(x, 0.5, 0)",
)


def _glu(x: Node, *, axis: int) -> Node:
    at = axis_of(axis, x.rank)
    if x.shape[at] % 2:
        raise ShapeMismatch(f"glu halves an axis, and axis {at} has {x.shape[at]} elements")
    left, right = ops.split.several(x, indices_or_sections=2, axis=at)
    return left * ops.sigmoid(right)


glu = composite(
    "glu",
    "The first half of an axis times the sigmoid of the second (Dauphin et al. 2016).",
    _glu,
    attrs={"axis": kinds.axis("The axis to halve.", -1)},
    inexact=True,
    samples=(Sample(((4,),)), Sample(((2, 3),), {"axis": 0}), Sample(((2, 0),))),
    refusals=(Refusal(((2, 3),), {}, "shape_mismatch"), Refusal(((2,),), {"axis": 1}, "shape_mismatch")),
    example="glu(x)",
)


# Softmax


SHORT = 32
"""Elements of a last axis up to which columns pay: along rows NumPy's reductions begin anew with each, some 50 ns."""


def _is_short(shape: Shape, axis: tuple[int, ...]) -> bool:
    return len(shape) > 1 and axis == (len(shape) - 1,) and 0 < shape[-1] <= SHORT


def _by_columns(kernel: Callable[[Any, tuple[int, ...]], Any]) -> Callable[..., Any]:
    """A kernel that goes along columns where rows are short: up to seven times as fast, the two copies included."""

    def run(x: Any, *, axis: tuple[int, ...], **cast: None) -> Any:
        if not _is_short(x.shape, axis):
            return kernel(x, axis)
        last = x.ndim - 1
        columns = np.ascontiguousarray(x.transpose(last, *range(last)))
        return np.ascontiguousarray(kernel(columns, (0,)).transpose(*range(1, x.ndim), 0))

    return run


def _below_largest(x: Any, axis: tuple[int, ...]) -> Any:
    """x less its largest element, in memory of its own: exp of it cannot overflow."""
    return np.asarray(x - np.maximum.reduce(x, axis=axis, keepdims=True, initial=-np.inf))


@_by_columns
def _softmax(x: Any, axis: tuple[int, ...]) -> Any:
    out = _below_largest(x, axis)
    np.exp(out, out=out)
    out /= np.add.reduce(out, axis=axis, keepdims=True)
    return out


@_by_columns
def _log_softmax(x: Any, axis: tuple[int, ...]) -> Any:
    out = _below_largest(x, axis)
    out -= np.log(np.add.reduce(np.exp(out), axis=axis, keepdims=True))
    return out


def _soft_scratch(along_rows: int) -> Callable[[Node], int]:
    """Along short rows the columns, and what they become; else so many arrays of the whole."""
    return lambda node: node.nbytes * (2 if _is_short(node.shape, node.attrs["axis"]) else along_rows)


def _dot(t: Node, weights: Node, node: Node) -> Node:
    """Σ t·weights over the axes of `node`."""
    products = times(t, weights)
    assert products is not None
    return ops.sum(products, axis=reduced_axes(node), keepdims=True)


def _softmax_product(node: Node, t: Node) -> Node | None:
    """The Jacobian diag(s) - s·sᵀ times t. It is symmetric, so it serves both modes."""
    return times(t - _dot(t, node, node), node)


def _log_softmax_forward(node: Node, t: Node) -> Node:
    return t - _dot(t, ops.exp(node), node)


def _log_softmax_reverse(node: Node, g: Node) -> Node:
    part = times(ops.sum(g, axis=reduced_axes(node), keepdims=True), ops.exp(node))
    assert part is not None
    return g - part


SOFT: Attrs = {
    "operands": X,
    "attrs": {
        "axis": kinds.axes("The axis, or axes, over which exponentials are summed.", -1),
        "dtype": COMPUTED_IN,
    },
    "casts": "dtype",
    "shape": same_shape,
    "canonical": settle_axes,
    "inexact": True,
    "batch": batch_shifted("axis"),
    "family": "neural",
    "flops": lambda out, x, **attrs: 25 * math.prod(x),
    "samples": (
        Sample(((3,),)),
        Sample(((2, 3),)),
        Sample(((2, 3),), {"axis": 0}),
        Sample(((2, 3, 2),), {"axis": [0, 2]}),
        Sample(((0, 3),), {"axis": 0}),
        Sample(([1000.0, 999.0, 998.5],)),
        Sample(([1, 2, 4],)),
        Sample(([1, 2, 4],), {"dtype": "float32"}),
    ),
    "refusals": (Refusal(((2, 3),), {"axis": 2}, "shape_mismatch"), Refusal(((),), {"axis": 1}, "shape_mismatch")),
}

softmax = define(
    "softmax",
    "exp(x) over its sum along an axis, without overflow.",
    kernel=_softmax,
    derivative=Custom(_softmax_product, _softmax_product),
    scratch=_soft_scratch(0),
    **SOFT,
    example="softmax(x, axis=-1)",
)

log_softmax = define(
    "log_softmax",
    "The logarithm of softmax, exact where softmax is next to 0.",
    kernel=_log_softmax,
    derivative=Custom(_log_softmax_forward, _log_softmax_reverse),
    scratch=_soft_scratch(1),
    **SOFT,
    example="log_softmax(x, axis=-1)",
)

softmin = composite(
    "softmin",
    "softmax of -x.",
    lambda x, *, axis, **cast: ops.softmax(opposite(x), axis=axis),
    torch="softmax",
    **{name: SOFT[name] for name in ("operands", "attrs", "casts", "inexact", "family", "samples", "refusals")},
    example="softmin(x, axis=-1)",
)
