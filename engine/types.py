"""Shapes and dtypes: what is known of a tensor before it has values.

Dtypes are the thirteen of the Array API standard (2024.12). Promotion is NumPy 2's: arrays promote by dtype, and a
bare number is *weak*, as a Python scalar is there: it takes the dtype of the arrays it meets, unless its kind (whole,
real, complex) is above theirs. Numbers that meet only numbers are float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.errors import DtypeMismatch, ShapeMismatch

Shape = tuple[int, ...]
Array = np.ndarray[Any, np.dtype[Any]]
Dtype = np.dtype[Any]
Tick = Callable[[], None]
"""What long work calls now and then; it may raise, to stop what takes too long."""

DTYPES: dict[str, Dtype] = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float32", "float64", "complex64", "complex128"),
    )
}
BOOL, INT64, FLOAT64 = DTYPES["bool"], DTYPES["int64"], DTYPES["float64"]

KINDS = {"b": "boolean", "i": "integer", "u": "integer", "f": "real floating", "c": "complex"}
INEXACT = "fc"


class Spec(NamedTuple):
    """The shape and dtype of one tensor."""

    shape: Shape
    dtype: Dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


def is_inexact(dtype: Dtype) -> bool:
    """Whether tensors of this dtype carry derivatives."""
    return dtype.kind in INEXACT


def promote(strong: Sequence[Dtype], weak: Sequence[Dtype]) -> Dtype:
    """The common dtype of arrays and of weak numbers, by NumPy 2's rules.

    Raises DtypeMismatch where NumPy has no common dtype.
    """
    if not strong:
        return BOOL if weak and all(dtype.kind == "b" for dtype in weak) else _weak_alone(weak)
    scalars = [_SAMPLE_OF_KIND[dtype.kind] for dtype in weak]
    try:
        return np.result_type(*strong, *scalars)
    except TypeError as error:
        names = ", ".join(sorted({dtype.name for dtype in strong}))
        raise DtypeMismatch(f"dtypes {names} have no common dtype") from error


def _weak_alone(weak: Sequence[Dtype]) -> Dtype:
    return DTYPES["complex128"] if any(dtype.kind == "c" for dtype in weak) else FLOAT64


# A Python scalar of each kind: np.result_type treats these, and only these, as weak.
_SAMPLE_OF_KIND: dict[str, bool | int | float | complex] = {"b": False, "i": 0, "u": 0, "f": 0.0, "c": 0j}


def to_inexact(dtype: Dtype) -> Dtype:
    """The dtype in which a function such as sin is computed: integers and booleans become float64."""
    return dtype if is_inexact(dtype) else FLOAT64


def to_real(dtype: Dtype) -> Dtype:
    """The dtype of the parts of a complex number; any other dtype as it is."""
    return _PARTS.get(dtype, dtype)


def to_complex(dtype: Dtype) -> Dtype:
    """The complex dtype that holds numbers of this one in full: complex64 for float32, else complex128."""
    return DTYPES["complex64"] if to_real(dtype) == DTYPES["float32"] else DTYPES["complex128"]


_PARTS = {DTYPES["complex64"]: DTYPES["float32"], DTYPES["complex128"]: FLOAT64}


def broadcast(*shapes: Shape) -> Shape:
    """The common shape of operands, by the Array API's broadcasting. Raises ShapeMismatch."""
    if len(set(shapes)) == 1:
        return shapes[0]
    rank = max((len(shape) for shape in shapes), default=0)
    out = [1] * rank
    for shape in shapes:
        for at, size in enumerate(shape, rank - len(shape)):
            if out[at] == 1:
                out[at] = size
            elif size not in (1, out[at]):
                listed = " and ".join(str(list(each)) for each in shapes)
                raise ShapeMismatch(f"shapes {listed} do not broadcast together")
    return tuple(out)


def axis_of(axis: int, rank: int, *, what: str = "axis") -> int:
    """A non-negative axis. Raises ShapeMismatch when `axis` is none of `rank` axes."""
    if not -rank <= axis < rank:
        raise ShapeMismatch(f"{what} {axis} is out of range for a tensor with {rank} axes")
    return axis % rank


def axes_of(axis: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Non-negative, sorted, distinct axes; None means all of them. Raises ShapeMismatch."""
    if axis is None:
        return tuple(range(rank))
    axes = [axis_of(each, rank) for each in ([axis] if isinstance(axis, int) else axis)]
    if len(set(axes)) < len(axes):
        raise ShapeMismatch(f"axis {axis!s:.80} names an axis twice")
    return tuple(sorted(axes))


def plane_of(axes: Sequence[int], rank: int, what: str) -> tuple[int, int]:
    """Two distinct non-negative axes, in the order given. Raises ShapeMismatch, which says `what` has them."""
    if len(axes) != 2:
        raise ShapeMismatch(f"{what}, got {len(axes)}")
    first, second = (axis_of(axis, rank) for axis in axes)
    if first == second:
        raise ShapeMismatch(f"{what}, got axis {first} twice")
    return first, second


def drop_axes(shape: Shape, axes: Sequence[int], *, keepdims: bool = False) -> Shape:
    """The shape that is left when `axes` (non-negative) are reduced."""
    gone = set(axes)
    return tuple(1 if at in gone else size for at, size in enumerate(shape) if keepdims or at not in gone)
