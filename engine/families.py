"""Families of ops: what many ops share is said here once, and a member states only what is its own.

    unary, costly     one operand, element by element, computed in floating point
    nth               the same with the order of a derivative as an attribute: its slope is the next order
    binary            two operands that broadcast and promote
    comparison        the same with a boolean result
    rounding          one operand, derivative zero
    reduction         one operand, some axes folded away
    structural        one operand rearranged: linear, often a view
    composite         an op that is other ops
    rearranged        a composite that only rearranges one operand

A batch rule acts under one more leading axis: `rule(node, args, batched)` emits the op of `node` again on `args`, of
which those flagged in `batched` have the new axis in front.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from engine import attrs as kinds
from engine.core import Attrs, Derivative, Node, Op, Operand, Refusal, Sample, define, ops
from engine.derivative import Flat, Linear, Partials, Slope
from engine.errors import InvalidGraph
from engine.types import BOOL, DTYPES, INT64, Dtype, Shape, axes_of, broadcast, drop_axes, to_real

# By the dtypes they take: X and X1X2 all that are not complex, REAL and REALS no booleans either; ANY and ANYS all,
# NUMERIC and NUMERICS all but booleans.
X = (Operand("x"),)
X1X2 = (Operand("x1"), Operand("x2"))
REAL = (Operand("x", "iuf"),)
REALS = (Operand("x1", "iuf"), Operand("x2", "iuf"))
ANY = (Operand("x", "biufc"),)
ANYS = (Operand("x1", "biufc"), Operand("x2", "biufc"))
NUMERIC = (Operand("x", "iufc"),)
NUMERICS = (Operand("x1", "iufc"), Operand("x2", "iufc"))
POINTWISE = (Sample(((),)), Sample(((3,),)), Sample(((2, 3),)), Sample(((0,),)))
PAIRWISE = (
    Sample(((), ())),
    Sample(((3,), (3,))),
    Sample(((2, 3), (3,))),
    Sample(((2, 1), (1, 3))),
    Sample(((0, 3), (3,))),
)
MISMATCH = (Refusal(((2,), (3,)), {}, "shape_mismatch"),)

BatchRule = Callable[[Node, Sequence[Node], Sequence[bool]], Node]


def same_shape(shape: Shape, *others: Shape, **attrs: Any) -> Shape:
    return shape


def broadcast_shape(*shapes: Shape, **attrs: Any) -> Shape:
    return broadcast(*shapes)


def boolean(*dtypes: Dtype, **attrs: Any) -> Dtype:
    return BOOL


def int64(*dtypes: Dtype, **attrs: Any) -> Dtype:
    return INT64


def part_dtype(x: Dtype, *others: Dtype, **attrs: Any) -> Dtype:
    """The real dtype of a magnitude, an angle, or a part of a complex number."""
    return to_real(x)


def named_dtype(*dtypes: Dtype, dtype: str, **attrs: Any) -> Dtype:
    """The dtype that the attribute `dtype` names."""
    return DTYPES[dtype]


def free(out: Shape, *shapes: Shape, **attrs: Any) -> int:
    """The cost of what computes nothing."""
    return 0


def elements(out: Shape, x: Shape, *others: Shape, **attrs: Any) -> int:
    """As many operations as the first operand has elements."""
    return math.prod(x)


# Workspace


def like_result(count: int) -> Callable[[Node], int]:
    """Workspace of so many arrays like the result."""
    return lambda node: count * node.nbytes


def like_operand(count: int) -> Callable[[Node], int]:
    """Workspace of so many arrays like the first operand."""
    return lambda node: count * node.inputs[0].nbytes


def like_mask(node: Node) -> int:
    """Workspace of one truth value for each element of the first operand."""
    return node.inputs[0].size


def _per_element(flops: int) -> Callable[..., int]:
    return lambda out, *shapes, **attrs: flops * math.prod(out)


# Under one more axis


def batch_same(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Any:
    """For one operand of which only the last axes matter, whatever stands before."""
    found = node.op.several(args[0], **node.attrs)
    return found if node.op.has_several else found[0]


def batch_stacked(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """For operands whose leading axes broadcast: ones go in between the new axis and a short operand's own."""
    return node.op(*aligned(args, batched, max(x.rank for x in node.inputs)), **node.attrs)


def batch_aligned(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """The same for operands of which all axes broadcast: this rule says of its op that it `acts_in_place`."""
    return batch_stacked(node, args, batched)


def aligned(args: Sequence[Node], batched: Sequence[bool], rank: int) -> list[Node]:
    """Operands of which the batched have `rank` axes behind their first; the others broadcast as they are."""
    return [with_rank(arg, rank) if has else arg for arg, has in zip(args, batched, strict=True)]


def with_rank(arg: Node, rank: int) -> Node:
    """`arg`, whose first axis is the batch, with ones after it until its other axes are `rank`."""
    size, *own = arg.shape
    return ops.reshape(arg, shape=(size, *(1,) * (rank - len(own)), *own))


def acts_in_place(node: Node) -> bool:
    """Whether an element of `node` depends on those in its own place only, operands being broadcast."""
    return node.op.batch is batch_aligned


def batch_shifted(*names: str) -> BatchRule:
    """For one operand and attributes that count axes from the front: every count goes up by one."""

    def rule(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
        return node.op(args[0], **node.attrs | {name: _shift(node.attrs[name]) for name in names})

    return rule


def _shift(axes: Any) -> Any:
    return None if axes is None else axes + 1 if isinstance(axes, int) else tuple(axis + 1 for axis in axes)


def batch_sized(node: Node, args: Sequence[Node], batched: Sequence[bool]) -> Node:
    """For one operand and an attribute `shape`: the new axis goes in front of it."""
    return node.op(args[0], **node.attrs | {"shape": (args[0].shape[0], *node.attrs["shape"])})


def example_rows(x: Node) -> Node:
    """Every example of a batch flattened."""
    return ops.reshape(x, shape=(x.shape[0], math.prod(x.shape[1:])))


# Element by element


def unary(
    name: str,
    doc: str,
    kernel: Callable[..., Any],
    slope: Callable[..., Slope],
    at: tuple[float, float] = (-2.0, 2.0),
    flops: int | Callable[..., int] = 1,
    **record: Any,
) -> Op:
    """One operand, element by element. `at` is where it is smooth, for samples; `flops` the cost of an element, or of
    all of them."""
    defaults: dict[str, Any] = {
        "operands": X,
        "inexact": True,
        "family": "elementwise",
        "samples": POINTWISE,
        "batch": batch_aligned,
        "shape": same_shape,
        "pointwise": True,
    }
    return define(
        name,
        doc,
        kernel=kernel,
        derivative=Partials((slope,)),
        domain=(at,),
        flops=flops if callable(flops) else _per_element(flops),
        **defaults | record,
    )


def costly(
    name: str,
    doc: str,
    kernel: Callable[..., Any],
    slope: Callable[..., Slope],
    at: tuple[float, float] = (-2.0, 2.0),
    flops: int = 20,
    **record: Any,
) -> Op:
    """A unary op whose kernel is a transcendental function: some twenty operations an element."""
    return unary(name, doc, kernel, slope, at, flops, **record)


LARGEST_ORDER = 170
"""The order up to which the factorial in a derivative of that order is a float64."""

ORDERS = (Refusal(((3,),), {"n": -1}, "invalid_graph"), Refusal(((3,),), {"n": 171}, "invalid_graph"))


def order_shape(shape: Shape, *, n: int) -> Shape:
    if not 0 <= n <= LARGEST_ORDER:
        raise InvalidGraph(f"the order n should be from 0 to {LARGEST_ORDER}, got {n}")
    return shape


def _of_order(out: Shape, x: Shape, *, n: int) -> int:
    return (7_000 if n else 100) * math.prod(out)


def nth(name: str, doc: str, kernel: Callable[..., Any], at: tuple[float, float] = (-2.0, 2.0), **record: Any) -> Op:
    """A unary op that is a function or its n-th derivative, for kernels that know a better way than rules would find.

    From order 1 on such a kernel makes some hundreds of passes.
    """
    defaults: dict[str, Any] = {
        "shape": order_shape,
        "attrs": {"n": kinds.integer(f"Which derivative, from 0 to {LARGEST_ORDER}.", 0)},
        "samples": (*POINTWISE, Sample(((3,),), {"n": 2})),
        "refusals": ORDERS,
        "scratch": lambda node: 10 * node.nbytes if node.attrs["n"] else 0,
        "example": f"{name}(x)",
    }
    return unary(name, doc, kernel, lambda out, x, *, n: ops.find(name)(x, n=n + 1), at, _of_order, **defaults | record)


def binary(
    name: str,
    doc: str,
    kernel: Callable[..., Any],
    slopes: tuple[Callable[..., Slope] | None, Callable[..., Slope] | None] | None = None,
    at: tuple[tuple[float, float], ...] = ((-2.0, 2.0),),
    flops: int = 1,
    **record: Any,
) -> Op:
    """Two operands that broadcast and promote; with `slopes`, or with a derivative of another kind."""
    defaults: dict[str, Any] = {
        "operands": X1X2,
        "family": "elementwise",
        "samples": PAIRWISE,
        "batch": batch_aligned,
        "shape": broadcast_shape,
        "pointwise": True,
    }
    if slopes is not None:
        defaults["derivative"] = Partials(slopes)
    return define(name, doc, kernel=kernel, domain=at, flops=_per_element(flops), **defaults | record)


def comparison(name: str, doc: str, kernel: Callable[..., Any], **record: Any) -> Op:
    """Two operands, a boolean result, no derivative."""
    defaults: dict[str, Any] = {"derivative": Flat(), "returns": boolean}
    return binary(name, doc, kernel, **defaults | record)


def predicate(name: str, doc: str, kernel: Callable[..., Any], **record: Any) -> Op:
    """One operand, a boolean result, no derivative."""
    defaults: dict[str, Any] = {"returns": boolean}
    return rounding(name, doc, kernel, **defaults | record)


def rounding(
    name: str, doc: str, kernel: Callable[..., Any], at: tuple[float, float] = (-2.0, 2.0), **record: Any
) -> Op:
    """One operand, element by element, constant between its jumps."""
    defaults: dict[str, Any] = {
        "operands": X,
        "family": "rounding",
        "samples": POINTWISE,
        "shape": same_shape,
        "pointwise": True,
    }
    return define(
        name,
        doc,
        kernel=kernel,
        derivative=Flat(),
        batch=batch_aligned,
        domain=(at,),
        **defaults | record,
    )


def over(x: Node, length: Node) -> Node:
    """x / length, and 0 where the length is 0: the subgradient of least norm."""
    nothing = ops.equal(length, 0.0)
    return ops.where(nothing, 0.0, x * ops.reciprocal(ops.where(nothing, 1.0, length)))


# Over axes

AXIS = kinds.axes()
COMPUTED_IN = kinds.optional(
    kinds.choice(
        "The floating or complex dtype to compute in, to which x is cast first.",
        ("float32", "float64", "complex64", "complex128"),
        None,
    )
)
KEEPDIMS = kinds.boolean("Whether reduced axes stay, with size one.", False)
FOLDED = (
    Sample(((3,),)),
    Sample(((2, 3),), {"axis": 1}),
    Sample(((2, 3),), {"axis": 0, "keepdims": True}),
    Sample(((2, 3, 2),), {"axis": [0, -1]}),
    Sample(((),), {"axis": -1}),
)
EMPTY = (Sample(((0, 3),), {"axis": 0}), Sample(((3, 0),), {"axis": 0}), Sample(((),)))
WRONG_AXIS = (
    Refusal(((2, 3),), {"axis": 2}, "shape_mismatch"),
    Refusal(((2, 3),), {"axis": [0, -2]}, "shape_mismatch"),
    Refusal(((),), {"axis": 1}, "shape_mismatch"),
)


def settle_axes(attrs: Attrs, shape: Shape, *others: Shape) -> Attrs:
    """`axis` as a sorted tuple of non-negative axes, None meaning all; a scalar has one to name, as in PyTorch."""
    axes = axes_of(attrs["axis"], len(shape) or 1)
    return attrs | {"axis": axes if shape else ()}


def reduced_shape(shape: Shape, *, axis: tuple[int, ...], keepdims: bool = False, **attrs: Any) -> Shape:
    return drop_axes(shape, axis, keepdims=keepdims)


def reduction(
    name: str, doc: str, kernel: Callable[..., Any] | None, derivative: Derivative | None, **record: Any
) -> Op:
    """One operand and the attributes `axis` and `keepdims`, with those of `record["attrs"]` between them, and those of
    `record["last"]` after them."""
    between, last = record.pop("attrs", {}), record.pop("last", {})
    defaults: dict[str, Any] = {
        "operands": X,
        "family": "reduction",
        "samples": FOLDED,
        "shape": reduced_shape,
        "batch": batch_shifted("axis"),
        "flops": elements,
    }
    return define(
        name,
        doc,
        attrs={"axis": AXIS, **between, "keepdims": KEEPDIMS, **last},
        kernel=kernel,
        derivative=derivative,
        canonical=settle_axes,
        **defaults | record,
    )


def reduced_axes(node: Node) -> tuple[int, ...]:
    axes: tuple[int, ...] = node.attrs["axis"]
    return axes


def unfold(value: Node, x: Node, axis: Sequence[int]) -> Node:
    """A value of the reduction's shape with its axes kept, as ones, so that it broadcasts against `x`."""
    return ops.reshape(value, shape=drop_axes(x.shape, axis, keepdims=True))


def count_along(shape: Shape, axis: Sequence[int]) -> int:
    """How many elements are folded into one."""
    return math.prod(shape[at] for at in axis)


# In another arrangement


def structural(
    name: str,
    doc: str,
    kernel: Callable[..., Any],
    shape: Callable[..., Shape],
    adjoint: Callable[..., Any],
    **record: Any,
) -> Op:
    """One operand, rearranged. `adjoint(g, x, **attrs)`."""
    defaults: dict[str, Any] = {
        "operands": ANY,
        "family": "shape",
        "view": True,
        "flops": free,
    }
    return define(name, doc, kernel=kernel, shape=shape, derivative=Linear(adjoint), **defaults | record)


def composite(name: str, doc: str, expand: Callable[..., Any], **record: Any) -> Op:
    """An op that is written in other ops: `expand(*nodes, **attrs)` emits them, and no rule is needed."""
    defaults: dict[str, Any] = {"operands": X, "family": "composite"}
    return define(name, doc, expand=expand, **defaults | record)


def is_number(x: Node, number: float) -> bool:
    """Whether an operand is a bare number, and this one: as where it was left out, and the number stands for it."""
    return x.weak and x.value is not None and bool(x.value == number)


rearranged = partial(composite, operands=ANY, family="shape")


def in_own_dtype(x: Node) -> Node:
    """A bare number as a tensor of the dtype that it has: with other numbers alone it would become float64."""
    return x.graph.constant(x.value) if x.weak and x.value is not None else x


def resized(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def span(x: Node, axis: int, start: int | None, stop: int | None) -> Node:
    """Elements `start` to `stop` of `x` along one axis."""
    return ops.slice(x, index=(*((None, None, None),) * axis, (start, stop, None)))


def listed(sizes: Sequence[int]) -> str:
    """A shape for a message, cut where it is absurdly long."""
    return str(list(sizes[:20])) if len(sizes) <= 20 else str(list(sizes[:20]))[:-1] + ", …]"
