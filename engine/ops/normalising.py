"""Normalising: tensors brought to mean 0 and variance 1, or to length 1, over some of their axes.

All are compositions of one formula, (x - mean) / √(variance + eps)·weight + bias; they differ in the axes that are
averaged over. The variance is that of the elements, not of a sample. Weight and bias that are left out are 1 and 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, ops
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import ANY, ANYS, X1X2, composite, is_number
from engine.ops.convolving import per_axis
from engine.types import Shape, broadcast

WEIGHT, BIAS = Operand("weight", default=1), Operand("bias", default=0)
P = {"p": kinds.real("Order of the norm.", 2.0)}
EPS = kinds.real("What is added to a variance, so that nothing divides by 0.", 1e-5)


def _standardised(x: Node, axis: Sequence[int], eps: float) -> Node:
    mean, var = (fold(x, axis=tuple(axis), keepdims=True) for fold in (ops.mean, ops.var))
    return (x - mean) * ops.rsqrt(var + eps)


def _scaled(x: Node, weight: Node, bias: Node, spread: Callable[[Node], Node]) -> Node:
    """x·weight + bias, where `spread` lays each of them along the axes that it belongs to."""
    x = x if is_number(weight, 1) else x * spread(weight)
    return x if is_number(bias, 0) else x + spread(bias)


def _along_last(shape: Shape, name: str) -> Callable[[Node], Node]:
    """What belongs to the last axes, of this shape. Raises ShapeMismatch."""

    def spread(node: Node) -> Node:
        if node.shape != shape:
            raise ShapeMismatch(f"weight and bias of {name} have shape {list(shape)}, got {list(node.shape)}")
        return node

    return spread


def _along_channels(x: Node, name: str) -> Callable[[Node], Node]:
    """What belongs to axis 1. Raises ShapeMismatch."""

    def spread(node: Node) -> Node:
        if node.shape != x.shape[1:2]:
            raise ShapeMismatch(f"{name} takes one number for each of {x.shape[1]} channels, got {list(node.shape)}")
        return ops.reshape(node, shape=(*node.shape, *(1,) * (x.rank - 2)))

    return spread


def _has_channels(x: Node, least: int, name: str) -> None:
    if x.rank < least:
        raise ShapeMismatch(
            f"{name} takes x with {least} axes or more, of which axis 1 counts channels: {list(x.shape)}"
        )


# Over the last axes


def _last_axes(x: Node, shape: Shape, name: str) -> tuple[int, ...]:
    if not shape or x.shape[max(0, x.rank - len(shape)) :] != shape:
        raise ShapeMismatch(f"{name} over {list(shape)} takes x whose last axes are these, got {list(x.shape)}")
    return tuple(range(x.rank - len(shape), x.rank))


def _layer_norm(x: Node, weight: Node, bias: Node, *, normalized_shape: Shape, eps: float) -> Node:
    axes = _last_axes(x, normalized_shape, "layer_norm")
    return _scaled(_standardised(x, axes, eps), weight, bias, _along_last(normalized_shape, "layer_norm"))


NORMALIZED_SHAPE = kinds.shape("Sizes of the last axes, over which is averaged.")
OVER_LAST: Attrs = {
    "inexact": True,
    "family": "neural",
    "refusals": (
        Refusal(((2, 3),), {"normalized_shape": [2]}, "shape_mismatch"),
        Refusal(((3,),), {"normalized_shape": [2, 3]}, "shape_mismatch"),
        Refusal(((3,),), {"normalized_shape": []}, "shape_mismatch"),
        Refusal(((2, 3), (2,)), {"normalized_shape": [3]}, "shape_mismatch"),
    ),
}

layer_norm = composite(
    "layer_norm",
    "Mean 0 and variance 1 over the last axes, times weight, plus bias (Ba et al. 2016).",
    _layer_norm,
    operands=(Operand("x"), WEIGHT, BIAS),
    attrs={"normalized_shape": NORMALIZED_SHAPE, "eps": EPS},
    order=("x", "normalized_shape", "weight", "bias", "eps"),
    torch="native_layer_norm",
    samples=(
        Sample(((2, 3),), {"normalized_shape": 3}),
        Sample(((2, 3), (3,), (3,)), {"normalized_shape": [3], "eps": 0.5}),
        Sample(((2, 2, 3), (2, 3)), {"normalized_shape": [2, 3]}),
        Sample(((0, 3), 1, (3,)), {"normalized_shape": 3}),
    ),
    **OVER_LAST,
    example="layer_norm(x, [3], weight, bias)",
)


def _rms_norm(x: Node, weight: Node, *, normalized_shape: Shape, eps: float | None) -> Node:
    axes = _last_axes(x, normalized_shape, "rms_norm")
    least = float(np.finfo(x.dtype).eps) if eps is None else eps
    out = x * ops.rsqrt(ops.mean(ops.square(x), axis=axes, keepdims=True) + least)
    return out if is_number(weight, 1) else out * _along_last(normalized_shape, "rms_norm")(weight)


rms_norm = composite(
    "rms_norm",
    "Mean square 1 over the last axes, times weight (Zhang and Sennrich 2019).",
    _rms_norm,
    operands=(*ANY, Operand("weight", "biufc", default=1)),
    attrs={
        "normalized_shape": NORMALIZED_SHAPE,
        "eps": kinds.real("What is added to the mean square; the spacing of numbers at 1 when absent.", None),
    },
    order=("x", "normalized_shape", "weight", "eps"),
    samples=(
        Sample(((2, 3),), {"normalized_shape": 3}),
        Sample(((2, 3), (3,)), {"normalized_shape": [3], "eps": 0.5}),
        Sample(((0, 3),), {"normalized_shape": 3}),
    ),
    **OVER_LAST,
    example="rms_norm(x, [3], weight)",
)


# By channels, which axis 1 counts

RUNNING = (Operand("running_mean", default=0), Operand("running_var", default=1))
MOMENTUM = kinds.real(
    "How much statistics would move the running ones, which stay as they are: nothing depends on it.", 0.1
)
CHANNELED: Attrs = {"inexact": True, "family": "neural", "domain": ((-2.0, 2.0), (-1.0, 1.0), (0.5, 2.0), (-2.0, 2.0))}


def _by_running(x: Node, mean: Node, var: Node, eps: float, spread: Callable[[Node], Node]) -> Node:
    """Standardised by statistics that are given."""
    centred = x if is_number(mean, 0) else x - spread(mean)
    return centred * ops.rsqrt((var if is_number(var, 1) else spread(var)) + eps)


def _batch_norm(
    x: Node, mean: Node, var: Node, weight: Node, bias: Node, *, training: bool, momentum: float, eps: float
) -> Node:
    _has_channels(x, 2, "batch_norm")
    spread = _along_channels(x, "batch_norm")
    axes = (0, *range(2, x.rank))
    out = _standardised(x, axes, eps) if training else _by_running(x, mean, var, eps, spread)
    return _scaled(out, weight, bias, spread)


batch_norm = composite(
    "batch_norm",
    "Mean 0 and variance 1 in each channel, times weight, plus bias (Ioffe and Szegedy 2015): by the statistics of x "
    "in training, else by running ones.",
    _batch_norm,
    operands=(Operand("x"), *RUNNING, WEIGHT, BIAS),
    attrs={
        "training": kinds.boolean("Whether mean and variance are those of x.", False),
        "momentum": MOMENTUM,
        "eps": EPS,
    },
    torch="native_batch_norm",
    **CHANNELED,
    samples=(
        Sample(((2, 3, 2), (3,), (3,), (3,), (3,))),
        Sample(((4, 3), (3,), (3,), (3,), (3,)), {"training": True, "eps": 0.5}),
        Sample(((2, 3, 2), 0, 1, 1, (3,)), {"training": True}),
        Sample(((2, 3),)),
        Sample(((0, 3), (3,), (3,))),
    ),
    refusals=(
        Refusal(((3,), (3,), (3,)), {}, "shape_mismatch"),
        Refusal(((2, 3), (2,), (3,)), {}, "shape_mismatch"),
        Refusal(((2, 3), (3,), (3,), (2,)), {}, "shape_mismatch"),
    ),
    example="batch_norm(x, running_mean, running_var, weight, bias)",
)


def _instance_norm(
    x: Node, mean: Node, var: Node, weight: Node, bias: Node, *, use_input_stats: bool, momentum: float, eps: float
) -> Node:
    _has_channels(x, 3, "instance_norm")
    spread = _along_channels(x, "instance_norm")
    out = _standardised(x, range(2, x.rank), eps) if use_input_stats else _by_running(x, mean, var, eps, spread)
    return _scaled(out, weight, bias, spread)


instance_norm = composite(
    "instance_norm",
    "Mean 0 and variance 1 in each channel of each image, times weight, plus bias (Ulyanov et al. 2016).",
    _instance_norm,
    operands=(Operand("x"), *RUNNING, WEIGHT, BIAS),
    attrs={
        "use_input_stats": kinds.boolean("Whether mean and variance are those of x, or running ones.", True),
        "momentum": MOMENTUM,
        "eps": EPS,
    },
    torch="native_batch_norm",
    **CHANNELED,
    samples=(
        Sample(((2, 3, 4),)),
        Sample(((2, 3, 2, 2), 0, 1, (3,), (3,)), {"eps": 0.5}),
        Sample(((2, 3, 4), (3,), (3,), 1, (3,)), {"use_input_stats": False}),
    ),
    refusals=(
        Refusal(((2, 3),), {}, "shape_mismatch"),
        Refusal(((2, 3, 4), 0, 1, (4,)), {}, "shape_mismatch"),
    ),
    example="instance_norm(x)",
)


def _group_norm(x: Node, weight: Node, bias: Node, *, num_groups: int, eps: float) -> Node:
    _has_channels(x, 2, "group_norm")
    images, channels = x.shape[:2]
    if num_groups < 1 or channels % num_groups:
        raise InvalidGraph(f"{channels} channels do not fall into {num_groups} equal groups")
    groups = ops.reshape(x, shape=(images, num_groups, channels // num_groups * math.prod(x.shape[2:])))
    out = ops.reshape(_standardised(groups, (2,), eps), shape=x.shape)
    return _scaled(out, weight, bias, _along_channels(x, "group_norm"))


group_norm = composite(
    "group_norm",
    "Mean 0 and variance 1 in each group of channels of each image, times weight, plus bias (Wu and He 2018).",
    _group_norm,
    operands=(Operand("x"), WEIGHT, BIAS),
    attrs={"num_groups": kinds.integer("Into how many groups channels fall."), "eps": EPS},
    order=("x", "num_groups", "weight", "bias", "eps"),
    inexact=True,
    family="neural",
    torch="native_group_norm",
    samples=(
        Sample(((2, 4, 3),), {"num_groups": 2}),
        Sample(((2, 4), (4,), (4,)), {"num_groups": 2, "eps": 0.5}),
        Sample(((0, 4, 2), 1, (4,)), {"num_groups": 4}),
    ),
    refusals=(
        Refusal(((2, 4),), {"num_groups": 3}, "invalid_graph"),
        Refusal(((2, 4),), {"num_groups": 0}, "invalid_graph"),
        Refusal(((4,),), {"num_groups": 2}, "shape_mismatch"),
        Refusal(((2, 4), (2,)), {"num_groups": 2}, "shape_mismatch"),
    ),
    example="group_norm(x, 2, weight, bias)",
)


def _local_response_norm(x: Node, *, size: int, alpha: float, beta: float, k: float) -> Node:
    _has_channels(x, 3, "local_response_norm")
    (width,) = per_axis((size,), 1, "size")
    images, channels, *plane = x.shape
    rows = ops.reshape(ops.square(x), shape=(images, channels, math.prod(plane)))
    around = [[width // 2, (width - 1) // 2], [0, 0]]
    total = ops.window_sum(rows, kernel_size=[width, 1], padding=around)
    return x / ops.reshape(total * (alpha / width) + k, shape=x.shape) ** beta


local_response_norm = composite(
    "local_response_norm",
    "x / (k + alpha·mean of the squares of neighbouring channels)^beta (Krizhevsky et al. 2012).",
    _local_response_norm,
    attrs={
        "size": kinds.integer("How many channels are neighbours."),
        "alpha": kinds.real("Factor of the mean.", 1e-4),
        "beta": kinds.real("Exponent.", 0.75),
        "k": kinds.real("What is added to the mean.", 1.0),
    },
    inexact=True,
    family="neural",
    torch="div",
    samples=(
        Sample(((2, 4, 3),), {"size": 3, "alpha": 0.5}),
        Sample(((1, 3, 2, 2),), {"size": 2, "alpha": 0.5, "beta": 1.5, "k": 2}),
    ),
    refusals=(
        Refusal(((2, 4, 3),), {"size": 0}, "invalid_graph"),
        Refusal(((2, 4),), {"size": 2}, "shape_mismatch"),
    ),
    example="local_response_norm(x, 3)",
)


# To length 1


def _normalize(x: Node, *, p: float, axis: Any, eps: float) -> Node:
    return x / ops.clip(ops.vector_norm(x, ord=p, axis=axis, keepdims=True), eps)


normalize = composite(
    "normalize",
    "x over its norm along an axis, or over eps where the norm is less.",
    _normalize,
    operands=ANY,
    attrs={
        **P,
        "axis": kinds.axes("The axis or axes of the norm.", 1),
        "eps": kinds.real("The least that x is divided by.", 1e-12),
    },
    inexact=True,
    family="neural",
    torch="div",
    samples=(
        Sample(((2, 3),)),
        Sample(((3,),), {"axis": 0, "p": 3}),
        Sample(((2, 3, 2),), {"axis": [0, 2], "eps": 100}),
        Sample(((0, 3),)),
    ),
    refusals=(Refusal(((3,),), {}, "shape_mismatch"), Refusal(((2, 3),), {"p": "NaN"}, "invalid_graph")),
    example="normalize(x)",
)


# Against each other


def _cosine_similarity(a: Node, b: Node, *, axis: int, eps: float) -> Node:
    shape = broadcast(a.shape, b.shape)
    one, other = (ops.normalize(ops.broadcast_to(x, shape=shape), axis=axis, eps=eps) for x in (a, b))
    return ops.sum(one * other, axis=axis)


cosine_similarity = composite(
    "cosine_similarity",
    "The cosine between vectors along an axis; other axes broadcast. A norm below eps counts as eps.",
    _cosine_similarity,
    operands=X1X2,
    attrs={
        "axis": kinds.axis("The axis in the broadcast shape.", 1),
        "eps": kinds.real("The least norm.", 1e-8),
    },
    inexact=True,
    family="neural",
    torch="sum",
    samples=(
        Sample(((2, 3), (2, 3))),
        Sample(((3,), (2, 3)), {"axis": -1}),
        Sample(((2, 1, 3), (4, 3)), {"axis": 2, "eps": 0.5}),
        Sample(((1, 2, 3), (2, 1, 3)), {"axis": -2}),
        Sample(((0, 3), (0, 3))),
    ),
    refusals=(Refusal(((3,), (3,)), {}, "shape_mismatch"), Refusal(((2, 3), (2, 4)), {}, "shape_mismatch")),
    example="cosine_similarity(x1, x2)",
)

pairwise_distance = composite(
    "pairwise_distance",
    "The norm of x1 - x2 + eps along the last axis.",
    lambda a, b, *, p, eps, keepdims: ops.vector_norm(a - b + eps, ord=p, axis=-1, keepdims=keepdims),
    operands=ANYS,
    attrs={
        **P,
        "eps": kinds.real("What is added to differences.", 1e-6),
        "keepdims": kinds.boolean("Whether the last axis stays, with size one.", False),
    },
    inexact=True,
    family="neural",
    torch="linalg_vector_norm",
    samples=(
        Sample(((2, 3), (2, 3))),
        Sample(((3,), (2, 3)), {"p": 3, "keepdims": True}),
        Sample(((2, 3), (2, 3)), {"p": 1, "eps": 0.0}),
        Sample(((0, 3), (0, 3))),
    ),
    refusals=(Refusal(((2, 3), (2, 4)), {}, "shape_mismatch"),),
    example="pairwise_distance(x1, x2)",
)


def _cdist(a: Node, b: Node, *, p: float) -> Node:
    if min(a.rank, b.rank) < 2 or a.shape[-1] != b.shape[-1]:
        raise ShapeMismatch(f"cdist takes x1 (…, m, n) and x2 (…, k, n), got {list(a.shape)} and {list(b.shape)}")
    return ops.vector_norm(ops.expand_dims(a, axis=-2) - ops.expand_dims(b, axis=-3), ord=p, axis=-1)


cdist = composite(
    "cdist",
    "The norm of the difference of every row of x1 and every row of x2.",
    _cdist,
    operands=X1X2,
    attrs=P,
    inexact=True,
    family="neural",
    torch="cdist",
    samples=(Sample(((2, 3), (4, 3))), Sample(((2, 1, 3), (4, 3)), {"p": 3}), Sample(((0, 3), (2, 3)))),
    refusals=(Refusal(((2, 3), (2, 4)), {}, "shape_mismatch"), Refusal(((3,), (2, 3)), {}, "shape_mismatch")),
    example="cdist(x1, x2)",
)


def _pdist(x: Node, *, p: float) -> Node:
    if x.rank != 2:
        raise ShapeMismatch(f"pdist takes rows of a matrix, got {list(x.shape)}")
    first, second = (ops.take(x, side, axis=0) for side in _pairs(x))
    return ops.vector_norm(first - second, ord=p, axis=-1)


def _pairs(x: Node) -> tuple[Node, Node]:
    """The rows i < j of pair k, in order: row i comes first in pair i·(2n - i - 1) / 2."""
    rows = x.shape[0]
    k, twice = ops.arange.on(x.graph, start=rows * (rows - 1) // 2), 2 * rows - 1
    first = ops.astype(ops.floor((twice - ops.sqrt(twice**2 - 8.0 * k)) / 2.0), dtype="int64")
    return first, k + 1 + first - ops.floor_divide(first * (twice - first), 2)


pdist = composite(
    "pdist",
    "The norm of the difference of every two rows: of the first and each after it, then of the second, and so on.",
    _pdist,
    attrs=P,
    inexact=True,
    family="neural",
    torch="pdist",
    samples=(Sample(((4, 3),)), Sample(((3, 2),), {"p": 1.5}), Sample(((1, 2),)), Sample(((0, 2),))),
    refusals=(Refusal(((3,),), {}, "shape_mismatch"), Refusal(((10**6, 1),), {}, "limit_exceeded")),
    example="pdist(x)",
)
