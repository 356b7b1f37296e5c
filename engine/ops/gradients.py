"""The identity forward, something else backward: ops that shape gradients and leave values alone."""

from __future__ import annotations

import math
from typing import Any

from engine import attrs
from engine.core import Derivative, Node, Op, Operand, Refusal, Sample, define, ops
from engine.derivative import Custom, Flat, Partials
from engine.errors import InvalidGraph
from engine.families import ANY, batch_aligned, free, same_shape
from engine.types import Shape

SAMPLES = (Sample(((3,),)), Sample(((),)), Sample(((0, 2),)))


def _identity(x: Any, **attrs: Any) -> Any:
    return x


def _shaping(name: str, doc: str, derivative: Derivative, **record: Any) -> Op:
    """An identity that must stay in the graph, because its derivative is not the identity's."""
    defaults: dict[str, Any] = {"operands": ANY, "shape": same_shape, "samples": SAMPLES}
    return define(
        name,
        doc,
        kernel=_identity,
        scalar="{0}",
        derivative=derivative,
        batch=batch_aligned,
        view=True,
        flops=free,
        family="gradient",
        **defaults | record,
    )


detach = _shaping(
    "detach",
    "The value itself, as a constant: no gradient passes.",
    Flat(cuts=True),
    aliases=("stop_gradient",),
)


def _finite_scale(shape: Shape, *, scale: float) -> Shape:
    if not math.isfinite(scale):
        raise InvalidGraph(f"a gradient can be scaled by a finite number only, got {scale}")
    return shape


grad_scale = _shaping(
    "grad_scale",
    "The value itself; tangents and gradients are multiplied by scale (-1 reverses them).",
    Partials((lambda out, x, *, scale: scale,)),
    attrs={"scale": attrs.real("What gradients are multiplied by.")},
    shape=_finite_scale,
    samples=(*(Sample(each.operands, {"scale": -0.5}) for each in SAMPLES), Sample(((3,),), {"scale": 0})),
    refusals=(Refusal(((3,),), {}, "invalid_graph"), Refusal(((3,),), {"scale": "NaN"}, "invalid_graph")),
    example="grad_scale(x, scale=-1)",
)


def _bounded(shape: Shape, *, min: float, max: float) -> Shape:
    if not min <= max:
        raise InvalidGraph(f"expected min up to max, got {min} and {max}")
    return shape


def _clipped(node: Node, g: Node) -> Node:
    return ops.clip(g, node.attrs["min"], node.attrs["max"])


grad_clip = _shaping(
    "grad_clip",
    "The value itself; gradients that come back through it are clipped. Forward mode sees the identity.",
    Custom(lambda node, t: t, _clipped),
    operands=(Operand("x", "biuf"),),
    attrs={
        "min": attrs.real("Gradients are not below it.", -math.inf),
        "max": attrs.real("Gradients are not above it.", math.inf),
    },
    shape=_bounded,
    samples=(*SAMPLES, Sample(((2, 3),), {"min": -100, "max": 100})),
    refusals=(Refusal(((3,),), {"min": 1, "max": -1}, "invalid_graph"),),
    example="grad_clip(x, min=-1, max=1)",
)
