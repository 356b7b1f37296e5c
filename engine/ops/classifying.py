"""Losses of classes: what a score of each class costs, where one class is right, or some are.

Classes lie along axis 1, or along the only axis. A target of whole numbers names the right class of each example; one
of real numbers has the shape of the input and says how probable each class is. A target that is to be ignored costs
nothing and counts for nothing in a mean; one that names no class is an error.
"""

from __future__ import annotations

import math

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, cast, ops
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import composite, is_number
from engine.ops.losses import INPUT_TARGET, MARGIN, REDUCTION, reduced
from engine.types import Shape, drop_axes

CLASS = Operand("target", "iu", promotes=False)
WEIGHT = Operand("weight", default=1)
IGNORE_INDEX = kinds.integer("The target that costs nothing and counts for nothing.", -100)


def _axis_of_classes(x: Node, name: str) -> int:
    if not x.rank:
        raise ShapeMismatch(f"{name} takes an input with an axis of classes, got a number")
    return min(1, x.rank - 1)


def _by_class(weight: Node, x: Node, axis: int) -> Node | None:
    """Weights of classes, broadcast against `x`; None where there are none. Raises ShapeMismatch."""
    if is_number(weight, 1):
        return None
    if weight.shape != (x.shape[axis],):
        raise ShapeMismatch(f"the weight should have shape {[x.shape[axis]]}, one for each class: {list(weight.shape)}")
    return ops.reshape(weight, shape=(*weight.shape, *(1,) * (x.rank - axis - 1)))


def _check_classes(x: Node, target: Node, axis: int) -> None:
    if target.shape != drop_axes(x.shape, (axis,)):
        expected = list(drop_axes(x.shape, (axis,)))
        raise ShapeMismatch(
            f"classes for an input of shape {list(x.shape)} have shape {expected}: {list(target.shape)}"
        )


def _picked(x: Node, at: Node, axis: int) -> Node:
    """The element of the class that `at` names, in the shape of `at`."""
    return ops.squeeze(ops.take_along_axis(x, ops.expand_dims(at, axis=axis), axis=axis), axis=axis)


def _likelihood(
    logs: Node, target: Node, weight: Node, axis: int, ignore_index: int, smoothing: float, reduction: str
) -> Node:
    """-log of the probability of the right class, mixed with the mean over all classes by `smoothing`."""
    _check_classes(logs, target, axis)
    target = ops.astype(target, dtype="int64")
    kept = ops.not_equal(target, ignore_index)
    at = ops.where(kept, target, 0)
    weights = _by_class(weight, logs, axis)
    counted = None if weights is None else ops.take(weight, at, axis=0)
    losses = -_picked(logs, at, axis)
    losses = losses if counted is None else losses * counted
    if smoothing:
        spread = -ops.mean(logs if weights is None else logs * weights, axis=axis)
        losses = (1.0 - smoothing) * losses + smoothing * spread
    losses = ops.where(kept, losses, 0.0)
    if reduction != "mean":
        return reduced(losses, reduction)
    total = ops.sum(cast(kept, logs.dtype) if counted is None else ops.where(kept, counted, 0.0))
    # The mean of nothing is NaN, but nothing moves it: no tangent is divided by 0.
    nothing = ops.equal(total, 0.0)
    return ops.where(nothing, math.nan, ops.sum(losses) / ops.where(nothing, 1.0, total))


def _divergence(logs: Node, target: Node, weight: Node, axis: int, smoothing: float, reduction: str) -> Node:
    """-Σ target·log over the classes."""
    target = cast(target, logs.dtype)
    if smoothing:
        target = target * (1.0 - smoothing) + smoothing / logs.shape[axis]
    weights = _by_class(weight, logs, axis)
    products = target * logs if weights is None else target * logs * weights
    return reduced(-ops.sum(products, axis=axis), reduction)


def _as_classes(target: Node, count: int) -> Node:
    """Real numbers as classes: what is not whole names none, which whoever looks it up will say."""
    whole = ops.astype(target, dtype="int64")
    return ops.where(ops.equal(whole, target), whole, count)


def _cross_entropy(
    x: Node, target: Node, weight: Node, *, ignore_index: int, reduction: str, label_smoothing: float
) -> Node:
    if not 0 <= label_smoothing <= 1:
        raise InvalidGraph(f"label_smoothing should be from 0 to 1, got {label_smoothing}")
    axis = _axis_of_classes(x, "cross_entropy")
    logs = ops.log_softmax(x, axis=axis)
    if target.dtype.kind == "f" and target.shape == x.shape:
        return _divergence(logs, target, weight, axis, label_smoothing, reduction)
    classes = target if target.dtype.kind in "iu" else _as_classes(target, x.shape[axis])
    return _likelihood(logs, classes, weight, axis, ignore_index, label_smoothing, reduction)


cross_entropy = composite(
    "cross_entropy",
    "-log softmax(input) of the right class, averaged; classes along axis 1. The target names the class by a whole "
    "number, or has the input's shape and, as real numbers, the probability of each.",
    _cross_entropy,
    operands=(Operand("input"), Operand("target", "iuf", promotes=False), WEIGHT),
    attrs={
        "ignore_index": IGNORE_INDEX,
        "reduction": REDUCTION,
        "label_smoothing": kinds.real("How much of a target is spread over all classes.", 0.0),
    },
    inexact=True,
    family="loss",
    torch="nll_loss",
    domain=((-2.0, 2.0), (0.1, 0.9), (0.5, 2.0)),
    samples=(
        Sample(((2, 3), [2, 0])),
        Sample(((3, 3), [2, -100, 0], (3,)), {"label_smoothing": 0.25}),
        Sample(((2, 3, 2), [[2, 0], [1, 1]], (3,)), {"reduction": "none", "ignore_index": 1}),
        Sample(((3,), 1), {"reduction": "sum"}),
        Sample(((2, 3), (2, 3))),
        Sample(((2, 3, 2), (2, 3, 2), (3,)), {"label_smoothing": 0.25, "reduction": "sum"}),
        Sample(([[1000.0, 0.0, -1000.0]], [1]), {"reduction": "sum"}),
        Sample(((0, 3), (0, 3)), {"reduction": "none"}),
    ),
    refusals=(
        Refusal(((), ()), {}, "shape_mismatch"),
        Refusal(((2, 3), (2, 4)), {}, "shape_mismatch"),
        Refusal(((2, 3), (2,)), {}, "invalid_tensor"),
        Refusal(((2, 3), [0, 3]), {}, "invalid_tensor"),
        Refusal(((2, 3), (2, 3), (2,)), {}, "shape_mismatch"),
        Refusal(((2, 3), (2, 3)), {"label_smoothing": 2}, "invalid_graph"),
    ),
    example="cross_entropy(input, target)",
)


def _nll_loss(x: Node, target: Node, weight: Node, *, ignore_index: int, reduction: str) -> Node:
    return _likelihood(x, target, weight, _axis_of_classes(x, "nll_loss"), ignore_index, 0.0, reduction)


nll_loss = composite(
    "nll_loss",
    "-input of the right class, averaged: cross_entropy of what is log_softmax already.",
    _nll_loss,
    operands=(Operand("input"), CLASS, WEIGHT),
    attrs={"ignore_index": IGNORE_INDEX, "reduction": REDUCTION},
    inexact=True,
    family="loss",
    domain=((-2.0, 2.0), (0.0, 0.0), (0.5, 2.0)),
    samples=(
        Sample(((2, 3), [2, 0])),
        Sample(((3, 3), [2, -100, 0], (3,))),
        Sample(((2, 3, 2), [[2, 0], [1, 1]]), {"reduction": "none", "ignore_index": 1}),
        Sample(((0, 3), (0,)), {"reduction": "sum"}),
    ),
    refusals=(Refusal(((2, 3), (2,)), {}, "dtype_mismatch"),),
    example="nll_loss(input, [2, 0])",
)


# Margins between classes


def _examples(x: Node, target: Node, lead: Shape, name: str) -> tuple[Node, Node]:
    """Input and target with an axis of examples before the classes. Raises ShapeMismatch."""
    if x.rank > 2:
        raise ShapeMismatch(f"{name} takes an input (examples, classes) or (classes), got {list(x.shape)}")
    rows = ops.reshape(x, shape=(x.shape[0] if x.rank > 1 else 1, x.shape[-1] if x.rank else 1))
    if target.size != rows.shape[0] * (lead[0] if lead else 1):
        raise ShapeMismatch(
            f"an input of shape {list(x.shape)} does not go with a target of shape {list(target.shape)}"
        )
    return rows, ops.reshape(ops.astype(target, dtype="int64"), shape=(rows.shape[0], *lead))


def _multi_margin(x: Node, target: Node, weight: Node, *, p: int, margin: float, reduction: str) -> Node:
    if p not in (1, 2):
        raise InvalidGraph(f"p of multi_margin_loss is 1 or 2, got {p}")
    rows, at = _examples(x, target, (), "multi_margin_loss")
    right = ops.take_along_axis(rows, ops.expand_dims(at, axis=1), axis=1)
    classes = ops.arange.on(x.graph, start=rows.shape[1])
    short = ops.clip(margin - right + rows, 0.0)
    short = short if p == 1 else ops.square(short)
    if _by_class(weight, rows, 1) is not None:
        short = short * ops.expand_dims(ops.take(weight, at, axis=0), axis=1)
    others = ops.not_equal(ops.expand_dims(at, axis=1), classes)
    return _of_examples(ops.where(others, short, 0.0), x, reduction)


def _of_examples(short: Node, x: Node, reduction: str) -> Node:
    """The mean over classes, reduced; of one example without an axis of its own, a number."""
    losses = ops.sum(short, axis=1) / max(1, short.shape[1])
    return reduced(losses if x.rank > 1 else ops.reshape(losses, shape=()), reduction)


multi_margin_loss = composite(
    "multi_margin_loss",
    "Σ max(0, margin - input of the right class + input of another)^p over the others, by the number of classes; "
    "averaged.",
    _multi_margin,
    operands=(Operand("input"), CLASS, WEIGHT),
    attrs={"p": kinds.integer("1 or 2.", 1), "margin": MARGIN, "reduction": REDUCTION},
    inexact=True,
    family="loss",
    domain=((-2.0, 2.0), (0.0, 0.0), (0.5, 2.0)),
    samples=(
        Sample(((2, 3), [2, 0])),
        Sample(((2, 3), [2, 0], (3,)), {"p": 2, "margin": 5, "reduction": "none"}),
        Sample(((3,), 1), {"reduction": "sum"}),
        Sample(((0, 3), (0,)), {"reduction": "sum"}),
    ),
    refusals=(Refusal(((2, 3), (2,)), {}, "dtype_mismatch"),),
    example="multi_margin_loss(input, [2, 0])",
)


def _multilabel_margin(x: Node, target: Node, *, reduction: str) -> Node:
    rows, at = _examples(x, target, (x.shape[-1] if x.rank else 1,), "multilabel_margin_loss")
    named = ops.equal(ops.cumulative_sum(ops.astype(at < 0, dtype="int64"), axis=1), 0)
    at = ops.where(named, at, 0)
    right = ops.expand_dims(ops.take_along_axis(rows, at, axis=1), axis=2)
    classes = ops.arange.on(x.graph, start=rows.shape[1])
    is_named = ops.expand_dims(named, axis=2)
    hot = ops.any(ops.equal(ops.expand_dims(at, axis=2), classes) & is_named, axis=1, keepdims=True)
    short = ops.clip(1.0 - right + ops.expand_dims(rows, axis=1), 0.0)
    return _of_examples(ops.sum(ops.where(is_named & ~hot, short, 0.0), axis=1), x, reduction)


multilabel_margin_loss = composite(
    "multilabel_margin_loss",
    "Σ max(0, 1 - input of a right class + input of a wrong one) over all such pairs, by the number of classes; "
    "averaged. The target lists the right classes, up to the first -1.",
    _multilabel_margin,
    operands=(Operand("input"), CLASS),
    attrs={"reduction": REDUCTION},
    inexact=True,
    family="loss",
    samples=(
        Sample(((2, 3), [[2, 0, -1], [1, -1, 0]])),
        Sample(((3,), [1, -1, -1]), {"reduction": "sum"}),
        Sample(((2, 3), [[-1, 0, 0], [0, 1, 2]]), {"reduction": "none"}),
    ),
    refusals=(Refusal(((2, 3), (2, 3)), {}, "dtype_mismatch"),),
    example="multilabel_margin_loss(input, [[2, 0, -1]])",
)


def _multilabel_soft_margin(x: Node, y: Node, weight: Node, *, reduction: str) -> Node:
    if not x.rank:
        raise ShapeMismatch("multilabel_soft_margin_loss takes an input with an axis of classes, got a number")
    losses = y * ops.softplus(-x) + (1.0 - y) * ops.softplus(x)
    return reduced(ops.mean(losses if is_number(weight, 1) else losses * weight, axis=-1), reduction)


MULTILABEL: Attrs = {"attrs": {"reduction": REDUCTION}, "inexact": True, "family": "loss", "torch": "mean"}

multilabel_soft_margin_loss = composite(
    "multilabel_soft_margin_loss",
    "binary_cross_entropy_with_logits, averaged over the classes, which lie along the last axis, and then as told.",
    _multilabel_soft_margin,
    operands=(*INPUT_TARGET, WEIGHT),
    **MULTILABEL,
    samples=(
        Sample(((2, 3), (2, 3))),
        Sample(((2, 3), (2, 3), (3,)), {"reduction": "none"}),
        Sample(((3,), (3,)), {"reduction": "sum"}),
    ),
    refusals=(Refusal(((2, 3), (2, 4)), {}, "shape_mismatch"), Refusal(((), ()), {}, "shape_mismatch")),
    example="multilabel_soft_margin_loss(input, target)",
)
