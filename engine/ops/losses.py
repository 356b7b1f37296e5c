"""Losses of numbers: how far an input is from its target, element by element, and one number made of all.

What is missed is summed, averaged, or left as it is (`reduction`). A weight that is left out is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from engine import attrs as kinds
from engine.core import Attrs, Node, Op, Operand, Refusal, Sample, ops
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import MISMATCH, composite, is_number
from engine.types import broadcast

REDUCTION = kinds.choice("What is made of the losses of all elements.", ("none", "mean", "sum"), "mean")
INPUT_TARGET = (Operand("input"), Operand("target"))
WEIGHT = Operand("weight", default=1)
APART = Operand("weight", promotes=False, default=1)
"""Real, whatever the others are."""
LOSSES = (
    Sample(((3,), (3,))),
    Sample(((2, 3), (2, 3)), {"reduction": "sum"}),
    Sample(((2, 3), (3,)), {"reduction": "none"}),
    Sample(((0, 3), (0, 3)), {"reduction": "sum"}),
)
WEIGHTED = (Sample(((2, 3), (2, 3), (2, 3))), Sample(((2, 3), (2, 3), (3,)), {"reduction": "none"}))


def reduced(losses: Node, reduction: str) -> Node:
    return losses if reduction == "none" else ops.sum(losses) if reduction == "sum" else ops.mean(losses)


def _loss(name: str, doc: str, losses: Callable[..., Node], **record: Any) -> Op:
    """Losses of all elements, from `losses(*operands, **attrs)`; the attribute `reduction` comes after the others."""
    return _own_reduction(
        name, doc, lambda *nodes, reduction, **attrs: reduced(losses(*nodes, **attrs), reduction), **record
    )


def _own_reduction(name: str, doc: str, expand: Callable[..., Node], **record: Any) -> Op:
    defaults: dict[str, Any] = {
        "operands": INPUT_TARGET,
        "inexact": True,
        "family": "loss",
        "samples": LOSSES,
        "refusals": (*MISMATCH, Refusal(((2,), (2,)), {"reduction": "max"}, "invalid_graph")),
        "example": f"{name}(input, target)",
    }
    own = record.pop("attrs", {})
    return composite(name, doc, expand, attrs=own | {"reduction": REDUCTION}, **defaults | record)


def _weighted(losses: Node, weight: Node) -> Node:
    return losses if is_number(weight, 1) else losses * weight


def _weighted_mean(losses: Node, weight: Node, reduction: str) -> Node:
    """The same, reduced; a mean is one by weight."""
    if is_number(weight, 1) or reduction != "mean":
        return reduced(_weighted(losses, weight), reduction)
    weight = ops.broadcast_to(weight, shape=broadcast(losses.shape, weight.shape))
    return ops.sum(losses * weight) / ops.sum(weight)


def _is_positive(value: float, name: str) -> None:
    if not value > 0:
        raise InvalidGraph(f"{name} must be positive, got {value}")


# Distances

mse_loss = _own_reduction(
    "mse_loss",
    "(input - target)², averaged.",
    lambda x, y, weight, *, reduction: _weighted_mean(ops.square(x - y), weight, reduction),
    operands=(*INPUT_TARGET, WEIGHT),
    samples=(*LOSSES, *WEIGHTED),
)

l1_loss = _own_reduction(
    "l1_loss",
    "abs(input - target), averaged.",
    lambda x, y, weight, *, reduction: _weighted_mean(ops.abs(x - y), weight, reduction),
    operands=(Operand("input", "biufc"), Operand("target", "biufc"), APART),
    torch="mean",
    samples=(*LOSSES, *WEIGHTED),
)


def _huber(x: Node, y: Node, weight: Node, *, delta: float) -> Node:
    _is_positive(delta, "delta of huber_loss")
    error = x - y
    size = ops.abs(error)
    losses = ops.where(size <= delta, 0.5 * ops.square(error), delta * (size - 0.5 * delta))
    return _weighted(losses, weight)


huber_loss = _loss(
    "huber_loss",
    "(input - target)² / 2 up to a distance of delta, delta·(distance - delta / 2) above it; averaged.",
    _huber,
    operands=(*INPUT_TARGET, WEIGHT),
    attrs={"delta": kinds.real("Where the parabola ends.", 1.0)},
    samples=(*LOSSES, *WEIGHTED, Sample(((2, 3), (2, 3)), {"delta": 0.5})),
    refusals=(*MISMATCH, Refusal(((2,), (2,)), {"delta": 0}, "invalid_graph")),
)


def _smooth_l1(x: Node, y: Node, *, beta: float) -> Node:
    if not beta >= 0:
        raise InvalidGraph(f"beta of smooth_l1_loss should be 0 or more, got {beta}")
    error = x - y
    size = ops.abs(error)
    return size if beta == 0 else ops.where(size < beta, ops.square(error) * (0.5 / beta), size - 0.5 * beta)


smooth_l1_loss = _loss(
    "smooth_l1_loss",
    "(input - target)² / (2·beta) up to a distance of beta, distance - beta / 2 above it; averaged.",
    _smooth_l1,
    attrs={"beta": kinds.real("Where the parabola ends.", 1.0)},
    samples=(*LOSSES, Sample(((2, 3), (2, 3)), {"beta": 0.5}), Sample(((3,), (3,)), {"beta": 0})),
    refusals=(*MISMATCH, Refusal(((2,), (2,)), {"beta": -1}, "invalid_graph")),
)


# Likelihoods

LEAST_LOG = -100.0
"""Below this a logarithm of a probability is cut off, so that a wrong certainty costs much and not all."""


def _cut_log(x: Node) -> Node:
    tiny = x < math.exp(LEAST_LOG)
    return ops.where(tiny, LEAST_LOG, ops.log(ops.where(tiny, 1.0, x)))


def _bce(x: Node, y: Node, weight: Node) -> Node:
    return _weighted(-(y * _cut_log(x) + (1.0 - y) * _cut_log(1.0 - x)), weight)


binary_cross_entropy = _loss(
    "binary_cross_entropy",
    "-(target·log(input) + (1 - target)·log(1 - input)), averaged; logarithms end at -100.",
    _bce,
    operands=(*INPUT_TARGET, WEIGHT),
    domain=((0.1, 0.9),),
    samples=(*LOSSES, *WEIGHTED),
)


def _bce_with_logits(x: Node, y: Node, weight: Node, pos_weight: Node) -> Node:
    missed = ops.softplus(-x)
    missed = missed if is_number(pos_weight, 1) else missed * (1.0 + (pos_weight - 1.0) * y)
    return _weighted((1.0 - y) * x + missed, weight)


binary_cross_entropy_with_logits = _loss(
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy of sigmoid(input), without overflow; pos_weight weighs targets of 1.",
    _bce_with_logits,
    operands=(*INPUT_TARGET, WEIGHT, Operand("pos_weight", default=1)),
    samples=(*LOSSES, *WEIGHTED, Sample(((2, 3), (2, 3), (3,), (3,))), Sample(((3,), (3,), 1, ()))),
)


def _kl_div(x: Node, y: Node, *, reduction: str, log_target: bool) -> Node:
    losses = ops.exp(y) * (y - x) if log_target else ops.xlogy(y, y) - y * x
    if reduction != "batchmean":
        return reduced(losses, reduction)
    return ops.sum(losses) / (x.shape[0] if x.rank else 1)


kl_div = composite(
    "kl_div",
    "target·(log(target) - input), averaged: the divergence of exp(input) from the target (Kullback and Leibler 1951).",
    _kl_div,
    operands=INPUT_TARGET,
    attrs={
        "reduction": kinds.choice(
            "What is made of the losses of all elements; batchmean is their sum over the size of the first axis.",
            ("none", "mean", "sum", "batchmean"),
            "mean",
        ),
        "log_target": kinds.boolean("Whether the target, too, is given by its logarithm.", False),
    },
    inexact=True,
    family="loss",
    domain=((-2.0, 2.0), (0.1, 0.9)),
    torch="mean",
    samples=(
        *LOSSES,
        Sample(((2, 3), (2, 3)), {"reduction": "batchmean"}),
        Sample(((2, 3), (2, 3)), {"log_target": True}),
    ),
    refusals=MISMATCH,
    example="kl_div(input, target)",
)


def _poisson(x: Node, y: Node, *, log_input: bool, full: bool, eps: float) -> Node:
    losses = ops.exp(x) - y * x if log_input else x - y * ops.log(x + eps)
    if not full:
        return losses
    large = y > 1
    count = ops.where(large, y, 1.0)
    # Stirling's formula for log(count!); DLMF 5.11.1
    return losses + ops.where(large, count * ops.log(count) - count + 0.5 * ops.log(2.0 * math.pi * count), 0.0)


poisson_nll_loss = _loss(
    "poisson_nll_loss",
    "exp(input) - target·input, averaged: the likelihood of counts, by the logarithm of their mean.",
    _poisson,
    attrs={
        "log_input": kinds.boolean("Whether the input is the logarithm of the mean, or the mean.", True),
        "full": kinds.boolean("Whether log(target!) is added, by Stirling's formula, for targets above 1.", False),
        "eps": kinds.real("What is added to a mean before its logarithm is taken.", 1e-8),
    },
    domain=((0.2, 3.0),),
    torch="mean",
    samples=(*LOSSES, Sample(((2, 3), (2, 3)), {"log_input": False}), Sample(((2, 3), (2, 3)), {"full": True})),
)


def _gaussian(x: Node, y: Node, var: Node, *, full: bool, eps: float) -> Node:
    if var.shape != x.shape and var.shape == x.shape[:-1]:
        var = ops.expand_dims(var, axis=-1)
    if broadcast(x.shape, var.shape) != x.shape:
        raise ShapeMismatch(
            f"var should be of the input's shape {list(x.shape)}, or broadcast to it: {list(var.shape)}"
        )
    var = ops.clip(var, eps)
    losses = 0.5 * (ops.log(var) + ops.square(x - y) / var)
    return losses + 0.5 * math.log(2.0 * math.pi) if full else losses


gaussian_nll_loss = _loss(
    "gaussian_nll_loss",
    "(log(var) + (input - target)² / var) / 2, averaged; var has the input's shape, or lacks its last axis.",
    _gaussian,
    operands=(*INPUT_TARGET, Operand("var")),
    attrs={
        "full": kinds.boolean("Whether log(2π) / 2 is added.", False),
        "eps": kinds.real("The least variance.", 1e-6),
    },
    domain=((-2.0, 2.0), (-2.0, 2.0), (0.5, 2.0)),
    torch="mean",
    samples=(
        Sample(((3,), (3,), (3,))),
        Sample(((2, 3), (2, 3), (2,)), {"full": True}),
        Sample(((2, 3), (2, 3), (2, 1)), {"reduction": "sum"}),
        Sample(((2, 3), (3,), ()), {"reduction": "none"}),
    ),
    refusals=(Refusal(((2, 3), (2, 3), (4,)), {}, "shape_mismatch"),),
    example="gaussian_nll_loss(input, target, var)",
)


# Margins: what is beyond them costs nothing


def _missing(x: Node) -> Node:
    return ops.clip(x, 0.0)


SIGNS = [1, -1, 1]
SIGN = Operand("target", promotes=False)
MARGIN = kinds.real("How far beyond is far enough.", 1.0)

hinge_embedding_loss = _loss(
    "hinge_embedding_loss",
    "The input where the target is 1, what it lacks of the margin where the target is -1; averaged.",
    lambda x, y, *, margin: (
        ops.where(ops.not_equal(y, 1), _missing(margin - x), 0.0) + ops.where(ops.not_equal(y, -1), x, 0.0)
    ),
    operands=(Operand("input"), SIGN),
    attrs={"margin": MARGIN},
    torch="mean",
    samples=(
        Sample(((3,), SIGNS)),
        Sample(((2, 3), SIGNS), {"margin": 0.5, "reduction": "none"}),
        Sample(((0, 3), SIGNS), {"reduction": "sum"}),
    ),
)

soft_margin_loss = _loss(
    "soft_margin_loss",
    "log(1 + exp(-target·input)), averaged, without overflow.",
    lambda x, y: ops.softplus(-(y * x)),
)

margin_ranking_loss = _loss(
    "margin_ranking_loss",
    "max(0, margin - target·(input1 - input2)), averaged.",
    lambda a, b, y, *, margin: _missing(margin - y * (a - b)),
    operands=(Operand("input1"), Operand("input2"), Operand("target")),
    attrs={"margin": kinds.real("How far beyond is far enough.", 0.0)},
    torch="mean",
    samples=(
        Sample(((3,), (3,), [1.0, -1.0, 1.0])),
        Sample(((2, 3), (2, 3), [1.0, -1.0, 1.0]), {"margin": 0.5, "reduction": "none"}),
        Sample(((0, 3), (3,), [1.0, -1.0, 1.0]), {"reduction": "sum"}),
    ),
    refusals=(Refusal(((2,), (3,), (3,)), {}, "shape_mismatch"),),
    example="margin_ranking_loss(input1, input2, target)",
)


def _cosine(a: Node, b: Node) -> Node:
    sizes = [ops.sum(ops.square(x), axis=-1) + 1e-12 for x in (a, b)]
    return ops.sum(a * b, axis=-1) / ops.sqrt(sizes[0] * sizes[1])


def _cosine_embedding(a: Node, b: Node, y: Node, *, margin: float) -> Node:
    if not a.rank or a.rank != y.rank + 1:
        raise ShapeMismatch(f"the target lacks the last axis of inputs of shape {list(a.shape)}; got {list(y.shape)}")
    cosine = _cosine(a, b)
    same, other = ops.equal(y, 1), ops.equal(y, -1)
    return ops.where(same, 1.0 - cosine, 0.0) + ops.where(other, _missing(cosine - margin), 0.0)


cosine_embedding_loss = _loss(
    "cosine_embedding_loss",
    "1 - cos of two vectors where the target is 1, what cos is above the margin where it is -1; averaged.",
    _cosine_embedding,
    operands=(Operand("input1"), Operand("input2"), SIGN),
    attrs={"margin": kinds.real("The cosine below which two vectors are unlike enough.", 0.0)},
    torch="mean",
    samples=(
        Sample(((3, 4), (3, 4), SIGNS)),
        Sample(((4,), (4,), 1), {"reduction": "sum"}),
        Sample(((3, 4), (3, 4), SIGNS), {"margin": 0.5, "reduction": "none"}),
    ),
    refusals=(Refusal(((3, 4), (3, 4), (4, 3)), {}, "shape_mismatch"),),
    example="cosine_embedding_loss(input1, input2, target)",
)


def _triplet(a: Node, near: Node, far: Node, *, margin: float, p: float, eps: float, swap: bool) -> Node:
    _is_positive(margin, "margin of triplet_margin_loss")
    attrs: Attrs = {"p": p, "eps": eps}
    apart = ops.pairwise_distance(a, far, **attrs)
    if swap:
        apart = ops.minimum(apart, ops.pairwise_distance(near, far, **attrs))
    return _missing(margin + ops.pairwise_distance(a, near, **attrs) - apart)


triplet_margin_loss = _loss(
    "triplet_margin_loss",
    "What a negative example lacks of being farther than the positive one, by a margin; averaged "
    "(Balntas et al. 2016).",
    _triplet,
    operands=(Operand("anchor", "biufc"), Operand("positive", "biufc"), Operand("negative", "biufc")),
    attrs={
        "margin": MARGIN,
        "p": kinds.real("Order of the norm.", 2.0),
        "eps": kinds.real("What is added to differences.", 1e-6),
        "swap": kinds.boolean("Whether the distance of both examples counts, where it is less.", False),
    },
    torch="mean",
    samples=(
        Sample(((2, 3), (2, 3), (2, 3)), {"margin": 5}),
        Sample(((2, 3), (2, 3), (2, 3)), {"margin": 5, "swap": True, "p": 3, "reduction": "none"}),
        Sample(((3,), (3,), (3,)), {"margin": 5, "reduction": "sum"}),
    ),
    refusals=(
        Refusal(((2, 3), (2, 4), (2, 3)), {}, "shape_mismatch"),
        Refusal(((3,), (3,), (3,)), {"margin": 0}, "invalid_graph"),
    ),
    example="triplet_margin_loss(anchor, positive, negative)",
)
