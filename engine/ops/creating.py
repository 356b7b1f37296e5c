"""Creating: tensors out of nothing but attributes, or out of one number.

zeros, ones and full are a scalar, stretched: they take no memory. What fills full and linspace is an operand,
and they are differentiable in it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine import attrs as kinds
from engine.core import Attrs, Node, Operand, Refusal, Sample, cast, define, ops
from engine.derivative import Flat, filled
from engine.errors import DtypeMismatch, InvalidGraph
from engine.families import ANY, composite, free, named_dtype
from engine.types import DTYPES, Shape, Spec, axis_of, broadcast, to_real

FLOAT = kinds.dtype(default="float64")
LIKE = kinds.dtype("Dtype of the result; that of x when absent.", None)
FILL = Operand("fill_value", "biufc", promotes=False)

# One value, stretched


def _full(fill_value: Node, *, shape: Shape, dtype: str | None) -> Node:
    value = fill_value if dtype is None else cast(fill_value, DTYPES[dtype])
    # Filled with a bare number, the result is a tensor none the less: it has a dtype of its own.
    return ops.broadcast_to(ops.astype(value, dtype=value.dtype.name), shape=shape)


zeros = composite(
    "zeros",
    "Zeros.",
    lambda graph, *, shape, dtype: filled(graph, 0, Spec(shape, DTYPES[dtype])),
    operands=(),
    attrs={"shape": kinds.shape(), "dtype": FLOAT},
    family="creating",
    samples=(
        Sample((), {"shape": [2, 3]}),
        Sample((), {"shape": 0, "dtype": "int8"}),
        Sample((), {"shape": []}),
    ),
    refusals=(
        Refusal((), {"shape": [-1]}, "invalid_graph"),
        Refusal((), {"shape": [100_000, 100_000]}, "limit_exceeded"),
    ),
    example="zeros([2, 3])",
)

ones = composite(
    "ones",
    "Ones.",
    lambda graph, *, shape, dtype: filled(graph, 1, Spec(shape, DTYPES[dtype])),
    operands=(),
    attrs={"shape": kinds.shape(), "dtype": FLOAT},
    family="creating",
    samples=(
        Sample((), {"shape": [2, 3]}),
        Sample((), {"shape": 0, "dtype": "bool"}),
        Sample((), {"shape": []}),
    ),
    refusals=(
        Refusal((), {"shape": [-1]}, "invalid_graph"),
        Refusal((), {"shape": [100_000, 100_000]}, "limit_exceeded"),
    ),
    example="ones([2, 3])",
)

full = composite(
    "full",
    "One value everywhere, or values that broadcast to the shape.",
    _full,
    operands=(FILL,),
    attrs={
        "shape": kinds.shape(),
        "dtype": kinds.dtype("Dtype of the result; the value's own when absent.", None),
    },
    order=("shape", "fill_value"),
    family="creating",
    samples=(
        Sample(((),), {"shape": [2, 3]}),
        Sample(((3,),), {"shape": [2, 3]}),
        Sample((3,), {"shape": 2, "dtype": "float32"}),
        Sample((3,), {"shape": [0, 2]}),
        Sample((True,), {"shape": []}),
    ),
    refusals=(
        Refusal(((3,),), {"shape": [2]}, "shape_mismatch"),
        Refusal((300,), {"shape": [2], "dtype": "int8"}, "dtype_mismatch"),
    ),
    example="full([2, 3], x)",
)

zeros_like = composite(
    "zeros_like",
    "Zeros in the shape of x, and in its dtype unless another is given.",
    lambda x, *, dtype: filled(x.graph, 0, Spec(x.shape, x.dtype if dtype is None else DTYPES[dtype])),
    operands=ANY,
    attrs={"dtype": LIKE},
    family="creating",
    samples=(Sample(((2, 3),)), Sample(((0,),), {"dtype": "int64"})),
)

ones_like = composite(
    "ones_like",
    "Ones in the shape of x, and in its dtype unless another is given.",
    lambda x, *, dtype: filled(x.graph, 1, Spec(x.shape, x.dtype if dtype is None else DTYPES[dtype])),
    operands=ANY,
    attrs={"dtype": LIKE},
    family="creating",
    samples=(Sample(((2, 3),)), Sample(((0,),), {"dtype": "int64"})),
)

full_like = composite(
    "full_like",
    "One value, or values that broadcast, in the shape of x, and in its dtype unless another is given.",
    lambda x, fill_value, *, dtype: _full(fill_value, shape=x.shape, dtype=dtype or x.dtype.name),
    operands=(*ANY, FILL),
    attrs={"dtype": LIKE},
    family="creating",
    samples=(Sample(((2, 3), ())), Sample(((2, 3), (3,))), Sample(((2,), 3), {"dtype": "int64"})),
    refusals=(Refusal(((2,), (3,)), {}, "shape_mismatch"),),
)

# Ranges


def _read_number(value: Any) -> int | float:
    """A finite number; a whole one stays whole, since it decides the dtype."""
    number = kinds.read_integer(value) if isinstance(value, int) else kinds.read_real(value)
    if not math.isfinite(number):
        raise InvalidGraph(f"expected a finite number, got {number}")
    return number


def _number(doc: str, default: Any = kinds.REQUIRED) -> kinds.Attr:
    return kinds.optional(kinds.Attr(_read_number, {"type": "number"}, doc, default))


def _settled_range(attrs: Attrs) -> Attrs:
    """arange(n) as arange(0, n), with its dtype; whole numbers as int, so that equal ranges are one node."""
    start, stop, step = attrs["start"], attrs["stop"], attrs["step"]
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise InvalidGraph("step should be other than 0")
    numbers = start, stop, step
    dtype = attrs["dtype"] or ("int64" if all(isinstance(each, int) for each in numbers) else "float64")
    start, stop, step = (
        int(each) if float(each).is_integer() and -(2**63) <= each < 2**63 else each for each in numbers
    )
    return {"start": start, "stop": stop, "step": step, "dtype": dtype}


def _range_count(start: float, stop: float, step: float) -> int:
    """⌈(stop - start) / step⌉: exact for whole numbers, else rounded as NumPy does; from 0 to 2⁶³ - 1."""
    if all(isinstance(each, int) for each in (start, stop, step)):
        count = -((start - stop) // step)
    else:
        quotient = (stop - start) / step
        count = math.ceil(min(max(quotient, 0.0), 2.0**63))
    return int(min(max(count, 0), 2**63 - 1))


def _range_shape(*, start: float, stop: float, step: float, dtype: str) -> Shape:
    count = _range_count(start, stop, step)
    kind, last = DTYPES[dtype].kind, start + (count - 1) * step
    if kind == "b":
        raise DtypeMismatch("arange counts in numbers, not in booleans")
    if kind in "iu" and count:
        bounds = np.iinfo(dtype)
        if not (isinstance(start, int) and isinstance(step, int)):
            raise DtypeMismatch(f"start {start} and step {step} should be whole numbers for {dtype}")
        if min(start, last) < bounds.min or max(start, last) > bounds.max:
            raise DtypeMismatch(f"a range from {start} to {last} does not fit {dtype}")
    return (count,)


def _range(*, start: float, stop: float, step: float, dtype: str) -> Any:
    count = _range_count(start, stop, step)
    if DTYPES[dtype].kind in "iu":
        # Modulo 2⁶⁴, so that no intermediate product overflows; what is left fits the dtype.
        turns = np.arange(count, dtype=np.uint64) * np.uint64(step % 2**64) + np.uint64(start % 2**64)
        return turns.astype(dtype)
    return (start + np.arange(count, dtype=np.float64) * step).astype(dtype)


arange = define(
    "arange",
    "Numbers from start, step by step, up to stop but without it; arange(n) counts from 0.",
    attrs={
        "start": _number("The first number; where no stop is given, the stop."),
        "stop": _number("Where the range ends, itself left out.", None),
        "step": _number("The distance of neighbours, which may be negative.", 1),
        "dtype": kinds.dtype("Dtype of the result; when absent, int64 if all numbers are whole, else float64.", None),
    },
    shape=_range_shape,
    returns=named_dtype,
    kernel=_range,
    derivative=Flat(),
    canonical=_settled_range,
    family="creating",
    samples=(
        Sample((), {"start": 5}),
        Sample((), {"start": 1, "stop": 5}),
        Sample((), {"start": 0, "stop": 1, "step": 0.25}),
        Sample((), {"start": 5, "stop": 0, "step": -2, "dtype": "float32"}),
        Sample((), {"start": 3, "stop": 0}),
    ),
    refusals=(
        Refusal((), {"start": 0, "stop": 1, "step": 0}, "invalid_graph"),
        Refusal((), {"start": "Infinity"}, "invalid_graph"),
        Refusal((), {"start": 300, "dtype": "int8"}, "dtype_mismatch"),
        Refusal((), {"start": 0, "stop": 1, "step": 0.5, "dtype": "int64"}, "dtype_mismatch"),
        Refusal((), {"start": 0, "stop": 1e300, "step": 1e-300}, "limit_exceeded"),
    ),
    example="arange(0, 1, 0.25)",
)


def _linspace(start: Node, stop: Node, *, num: int, endpoint: bool, axis: int, dtype: str | None) -> Node:
    if num < 0:
        raise InvalidGraph(f"num should be 0 or more, got {num}")
    if dtype is not None and DTYPES[dtype].kind not in "fc":
        raise DtypeMismatch(f"linspace gives floating numbers, not {dtype}; use astype or arange")
    lead = broadcast(start.shape, stop.shape)
    place = axis_of(axis, len(lead) + 1)
    start, stop = (ops.reshape(ops.broadcast_to(x, shape=lead), shape=(*lead, 1)) for x in (start, stop))
    places = ops.arange.on(start.graph, start=num, dtype=to_real(start.dtype).name)
    out = start + places * ((stop - start) / max(num - endpoint, 1))
    if endpoint and num > 1:
        out = ops.where(ops.equal(places, num - 1), stop, out)  # exactly, whatever the steps were rounded to
    out = ops.moveaxis(out, source=-1, destination=place)
    return out if dtype is None else ops.astype(out, dtype=dtype)


linspace = composite(
    "linspace",
    "Evenly spaced numbers from start to stop, along a new axis.",
    _linspace,
    operands=(Operand("start", "biufc"), Operand("stop", "biufc")),
    inexact=True,
    attrs={
        "num": kinds.integer("How many."),
        "endpoint": kinds.boolean("Whether stop is the last of them.", True),
        "axis": kinds.axis("Where the new axis stands in the result.", 0),
        "dtype": kinds.dtype("Floating dtype of the result; that of the operands when absent.", None),
    },
    family="creating",
    samples=(
        Sample(((), ()), {"num": 5}),
        Sample(((), 2.0), {"num": 4, "endpoint": False}),
        Sample(((2,), ()), {"num": 3, "axis": -1}),
        Sample(((), ()), {"num": 1}),
        Sample(((), ()), {"num": 0}),
    ),
    refusals=(
        Refusal((0, 1), {"num": -1}, "invalid_graph"),
        Refusal((0, 1), {"num": 3, "dtype": "int64"}, "dtype_mismatch"),
        Refusal((0, 1), {"num": 10**12}, "limit_exceeded"),
        Refusal(((2,), (3,)), {"num": 2}, "shape_mismatch"),
    ),
    example="linspace(0, x, num=5)",
)

# Matrices


def _settled_eye(attrs: Attrs) -> Attrs:
    """As many columns as rows unless given; `k` no further out than makes a difference."""
    rows = attrs["n_rows"]
    columns = rows if attrs["n_cols"] is None else attrs["n_cols"]
    if rows < 0 or columns < 0:
        raise InvalidGraph(f"eye should have 0 rows and columns or more, got {rows} by {columns}")
    return attrs | {"n_cols": columns, "k": max(-rows, min(attrs["k"], columns))}


eye = define(
    "eye",
    "The identity matrix, or ones on another diagonal of zeros.",
    attrs={
        "n_rows": kinds.integer("How many rows."),
        "n_cols": kinds.integer("How many columns; as many as rows when absent.", None),
        "k": kinds.integer("Which diagonal: 0 the main one, above it positive.", 0),
        "dtype": FLOAT,
    },
    shape=lambda *, n_rows, n_cols, **attrs: (n_rows, n_cols),
    returns=named_dtype,
    kernel=lambda *, n_rows, n_cols, k, dtype: np.eye(n_rows, n_cols, k, dtype),
    derivative=Flat(),
    canonical=_settled_eye,
    flops=free,
    family="creating",
    samples=(
        Sample((), {"n_rows": 3}),
        Sample((), {"n_rows": 2, "n_cols": 3, "k": 1}),
        Sample((), {"n_rows": 3, "n_cols": 2, "k": -9, "dtype": "float32"}),
        Sample((), {"n_rows": 0}),
    ),
    refusals=(
        Refusal((), {"n_rows": -1}, "invalid_graph"),
        Refusal((), {"n_rows": 10**9}, "limit_exceeded"),
    ),
    example="eye(3)",
)


def _vander(x: Node, *, N: int | None, increasing: bool) -> Node:
    x = ops.reshape(x, shape=x.shape or (1,))
    count = x.shape[-1] if N is None else N
    if not 0 <= count < 2**31:
        raise InvalidGraph(f"N, the number of columns, should be from 0 to 2147483647, got {N}")
    factors = ops.broadcast_to(ops.expand_dims(x, axis=-1), shape=(*x.shape, max(count - 1, 0)))
    powers = ops.cumulative_prod(factors, axis=-1, dtype=x.dtype.name, include_initial=True)
    powers = ops.slice(powers, index=("...", (0, count, 1)))
    return powers if increasing else ops.flip(powers, axis=-1)


vander = composite(
    "vander",
    "Powers of each element in a row, from N - 1 down to 0, or from 0 up: the Vandermonde matrix.",
    _vander,
    operands=(Operand("x", "iufc"),),
    attrs={
        "N": kinds.integer("How many columns; as many as x has elements when absent.", None),
        "increasing": kinds.boolean("Whether powers go up from 0, as those of torch.linalg.vander do.", False),
    },
    torch="linalg_vander",
    family="creating",
    samples=(
        Sample(((3,),)),
        Sample(((2, 3),), {"N": 4, "increasing": True}),
        Sample(((3,),), {"N": 0}),
        Sample(((),), {"N": 2}),
        Sample(([0.0, 2.0, -1.0],), {"increasing": True}),
        Sample(([1, 2, 3],), {"N": 2}),
        Sample(((0,),)),
    ),
    refusals=(Refusal(((2,),), {"N": -1}, "invalid_graph"),),
    example="vander(x, N=3)",
)
