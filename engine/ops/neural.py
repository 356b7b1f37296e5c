"""What networks are made of beside convolutions, pools and norms: layers with weights, embedding, dropout, attention.

Nothing is drawn at random here: where a network throws elements away, the mask comes with the request.
"""

from __future__ import annotations

import math

from engine import attrs as kinds
from engine.core import Node, Operand, Refusal, Sample, cast, ops
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import X, composite, is_number

# Layers

BIAS = Operand("bias", default=0)


def _biased(out: Node, bias: Node, features: tuple[int, ...]) -> Node:
    if is_number(bias, 0):
        return out
    if bias.shape not in (features, ()):
        raise ShapeMismatch(f"the bias should have shape {list(features)}, one for each feature: {list(bias.shape)}")
    return out + bias


def _linear(x: Node, weight: Node, bias: Node) -> Node:
    if not x.rank or weight.rank not in (1, 2) or x.shape[-1] != weight.shape[-1]:
        raise ShapeMismatch(
            f"linear takes x (…, features) and a weight (features of the result, features), or (features); "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    turned = weight if weight.rank == 1 else ops.matrix_transpose(weight)
    return _biased(ops.matmul(x, turned), bias, weight.shape[:-1])


linear = composite(
    "linear",
    "x times the transpose of the weight, over the last axis, plus bias.",
    _linear,
    operands=(Operand("x", "iufc"), Operand("weight", "iufc"), Operand("bias", "iufc", default=0)),
    family="neural",
    torch="addmm",
    samples=(
        Sample(((2, 3), (4, 3), (4,))),
        Sample(((3,), (4, 3))),
        Sample(((2, 2, 3), (3,), ())),
        Sample(((0, 3), (4, 3), (4,))),
    ),
    refusals=(
        Refusal(((2, 3), (3, 4)), {}, "shape_mismatch"),
        Refusal(((2, 3), (4, 3), (3,)), {}, "shape_mismatch"),
        Refusal(((), (4, 3)), {}, "shape_mismatch"),
    ),
    example="linear(x, weight, bias)",
)


def _bilinear(a: Node, b: Node, weight: Node, bias: Node) -> Node:
    if weight.rank != 3 or not a.rank or not b.rank or (a.shape[-1], b.shape[-1]) != weight.shape[1:]:
        raise ShapeMismatch(
            f"bilinear takes x1 (…, m), x2 (…, n) and a weight (features, m, n); "
            f"got {list(a.shape)}, {list(b.shape)} and {list(weight.shape)}"
        )
    return _biased(ops.einsum(a, weight, b, equation="...i,oij,...j->...o"), bias, weight.shape[:1])


bilinear = composite(
    "bilinear",
    "Σ x1_i·weight_oij·x2_j over the last axes, plus bias.",
    _bilinear,
    operands=(Operand("x1"), Operand("x2"), Operand("weight"), BIAS),
    inexact=True,
    family="neural",
    torch="trilinear",
    samples=(Sample(((2, 3), (2, 4), (5, 3, 4), (5,))), Sample(((3,), (4,), (2, 3, 4)))),
    refusals=(
        Refusal(((2, 3), (2, 4), (5, 4, 3)), {}, "shape_mismatch"),
        Refusal(((2, 3), (2, 4), (5, 3, 4), (4,)), {}, "shape_mismatch"),
    ),
    example="bilinear(x1, x2, weight, bias)",
)


# Embedding


def _embedding(
    indices: Node,
    weight: Node,
    *,
    padding_idx: int | None,
    max_norm: float | None,
    norm_type: float,
    scale_grad_by_freq: bool,
) -> Node:
    if weight.rank != 2:
        raise ShapeMismatch(f"embedding takes a weight (rows, features), got {list(weight.shape)}")
    at = ops.checked_index(indices, size=weight.shape[0])
    rows = ops.take(weight, at, axis=0)
    if max_norm is not None:
        rows = _within_norm(rows, max_norm, norm_type)
    if scale_grad_by_freq:
        rows = _slowed(rows, ops.reciprocal(cast(_frequencies(at, weight.shape[0]), weight.dtype)))
    if padding_idx is not None:
        padding = ops.equal(at, _row_of(padding_idx, weight.shape[0]))
        rows = ops.where(ops.expand_dims(padding, axis=-1), ops.detach(rows), rows)
    return rows


def _row_of(padding_idx: int, rows: int) -> int:
    if not -rows <= padding_idx < rows:
        raise InvalidGraph(f"padding_idx {padding_idx} is none of {rows} rows")
    return padding_idx % rows


def _within_norm(rows: Node, max_norm: float, norm_type: float) -> Node:
    """Rows cut down to a norm. As in PyTorch, which rewrites the weight, the gradient does not see the factor."""
    norm = ops.detach(ops.vector_norm(rows, ord=norm_type, axis=-1, keepdims=True))
    factor = ops.where(norm > max_norm, max_norm / (norm + 1e-7), 1.0)
    return rows + ops.detach(rows * factor - rows)


def _frequencies(at: Node, rows: int) -> Node:
    """How often the row of each index is asked for."""
    ones = ops.ones_like(at, dtype="int64")
    return ops.take(ops.untake(ones, at, size=rows), at, axis=0)


def _slowed(rows: Node, factor: Node) -> Node:
    """`rows`, whose gradient is multiplied by a factor for each."""
    fixed = ops.detach(rows)
    return fixed + (rows - fixed) * ops.expand_dims(factor, axis=-1)


embedding = composite(
    "embedding",
    "The rows of a weight that indices name. An index out of range is an error.",
    _embedding,
    operands=(Operand("indices", "iu", promotes=False), Operand("weight", "biufc")),
    attrs={
        "padding_idx": kinds.integer("The row whose gradient is 0.", None),
        "max_norm": kinds.real("Rows of a larger norm are cut down to it.", None),
        "norm_type": kinds.real("Order of that norm.", 2.0),
        "scale_grad_by_freq": kinds.boolean("Whether gradients are over the number of times a row is named.", False),
    },
    family="neural",
    samples=(
        Sample(([0, 2, 2], (3, 2))),
        Sample(([[0, 1], [-1, 1]], (3, 2))),
        Sample((1, (3, 2)), {"padding_idx": 0}),
        Sample(((0,), (3, 2))),
    ),
    refusals=(
        Refusal(((2,), (3, 2)), {}, "dtype_mismatch"),
        Refusal(([0], (3,)), {}, "shape_mismatch"),
        Refusal(([3], (3, 2)), {}, "invalid_tensor"),
        Refusal(([0], (3, 2)), {"padding_idx": 3}, "invalid_graph"),
    ),
    example="embedding([0, 2], weight)",
)


# Dropout


def _dropout(x: Node, mask: Node, *, p: float) -> Node:
    if not 0 <= p <= 1:
        raise InvalidGraph(f"p of dropout is a probability, got {p}")
    kept = cast(mask, x.dtype)
    return x * (kept if p in (0, 1) else kept * (1.0 / (1.0 - p)))


dropout = composite(
    "dropout",
    "x·mask / (1 - p): what is left when elements with probability p are thrown away, by a mask that is given.",
    _dropout,
    operands=(*X, Operand("mask", "biuf", promotes=False)),
    attrs={"p": kinds.real("How probable it was for an element to be thrown away; at 1 nothing is divided.", 0.5)},
    inexact=True,
    family="neural",
    torch="mul",
    samples=(
        Sample(((3,), [True, False, True])),
        Sample(((2, 3), [[1], [0]]), {"p": 0.25}),
        Sample(((3,), [0.0, 1.0, 1.0]), {"p": 1}),
        Sample(((0, 3), [True, True, True]), {"p": 0}),
    ),
    refusals=(
        Refusal(((3,), (2,)), {}, "shape_mismatch"),
        Refusal(((3,), (3,)), {"p": 1.5}, "invalid_graph"),
        Refusal(((3,), (3,)), {"p": "NaN"}, "invalid_graph"),
    ),
    example="dropout(x, mask, p=0.5)",
)


# Attention


def _attention(
    query: Node,
    key: Node,
    value: Node,
    attn_mask: Node,
    dropout_mask: Node,
    *,
    dropout_p: float,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> Node:
    _check_attention(query, key, value)
    if enable_gqa:
        key, value = (_shared(x, query) for x in (key, value))
    factor = 1.0 / math.sqrt(max(1, query.shape[-1])) if scale is None else scale
    scores = ops.matmul(query * factor, ops.matrix_transpose(key))
    if is_causal:
        rows, columns = scores.shape[-2:]
        past = ops.tril(ops.ones.on(query.graph, shape=[rows, columns], dtype="bool"))
        scores = ops.where(past, scores, -math.inf)
    weights = _weights(scores, attn_mask)
    if not is_number(dropout_mask, 1) or dropout_p:
        weights = ops.dropout(weights, dropout_mask, p=dropout_p)
    return ops.matmul(weights, value)


def _check_attention(query: Node, key: Node, value: Node) -> None:
    if (
        min(query.rank, key.rank, value.rank) < 2
        or query.shape[-1] != key.shape[-1]
        or key.shape[-2] != value.shape[-2]
    ):
        raise ShapeMismatch(
            "attention takes queries (…, m, features), keys (…, n, features) and values (…, n, any); "
            f"got {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )


def _shared(x: Node, query: Node) -> Node:
    """Keys or values of which each head serves several heads of the query, which the axis -3 counts."""
    heads = x.shape[-3] if x.rank > 2 else 0
    if query.rank < 3 or not heads or query.shape[-3] % heads:
        raise ShapeMismatch(f"{heads} heads of keys and values do not go evenly into those of {list(query.shape)}")
    return ops.repeat(x, repeats=query.shape[-3] // heads, axis=-3)


def _weights(scores: Node, mask: Node) -> Node:
    """softmax of scores under a mask; a row of which nothing is left has weights of 0."""
    if is_number(mask, 0):
        return ops.softmax(scores, axis=-1)
    scores = ops.where(mask, scores, -math.inf) if mask.dtype.kind == "b" else scores + cast(mask, scores.dtype)
    nothing = ops.all(ops.equal(scores, -math.inf), axis=-1, keepdims=True)
    return ops.where(nothing, 0.0, ops.softmax(ops.where(nothing, 0.0, scores), axis=-1))


attention = composite(
    "attention",
    "softmax(query·keyᵀ·scale + mask)·value (Vaswani et al. 2017), over the last two axes; others broadcast.",
    _attention,
    operands=(
        Operand("query"),
        Operand("key"),
        Operand("value"),
        Operand("attn_mask", "bf", promotes=False, default=0.0),
        Operand("dropout_mask", "biuf", promotes=False, default=1.0),
    ),
    attrs={
        "dropout_p": kinds.real("The probability by which the dropout mask was drawn; see dropout.", 0.0),
        "is_causal": kinds.boolean("Whether query i sees keys up to the i-th only.", False),
        "scale": kinds.real("Factor of the scores; one over the root of the features when absent.", None),
        "enable_gqa": kinds.boolean("Whether a head of keys and values serves several heads of queries.", False),
    },
    inexact=True,
    aliases=("scaled_dot_product_attention",),
    family="neural",
    torch="scaled_dot_product_attention_math",
    samples=(
        Sample(((2, 3), (4, 3), (4, 2))),
        Sample(((2, 3, 4), (2, 3, 4), (2, 3, 2)), {"is_causal": True}),
        Sample(((2, 3), (3, 3), (3, 2), [[True, False, True], [False, False, False]]), {"scale": 0.5}),
        Sample(((2, 4, 2, 3), (2, 2, 3, 3), (2, 2, 3, 2), (2, 3)), {"enable_gqa": True}),
        Sample(((2, 3), (2, 3), (2, 2), [[0.5, 0.0], [1.0, -1.0]], [[True, False], [True, True]]), {"dropout_p": 0.5}),
        Sample(((0, 3), (2, 3), (2, 2))),
    ),
    refusals=(
        Refusal(((2, 3), (4, 2), (4, 2)), {}, "shape_mismatch"),
        Refusal(((2, 3), (4, 3), (3, 2)), {}, "shape_mismatch"),
        Refusal(((3,), (4, 3), (4, 2)), {}, "shape_mismatch"),
        Refusal(((2, 3), (4, 3), (4, 2), (3, 3)), {}, "shape_mismatch"),
        Refusal(((3, 2, 3), (2, 4, 3), (2, 4, 2)), {"enable_gqa": True}, "shape_mismatch"),
    ),
    example="attention(query, key, value)",
)
