"""Tensors in their JSON form: strict on the way in, exact on the way out.

In: a number, a boolean, a nested list of them, {"data", "dtype", "shape", "requires_grad"} or {"b64", "dtype", "shape",
"requires_grad"}; in a form that has bytes, `data` may be these. Out: {"dtype", "shape", "data"} or {"dtype", "shape",
"b64"}. Non-finite numbers are the strings "NaN", "Infinity" and "-Infinity" at any depth; a complex number is [re, im]
in a last axis of length 2; base64 carries C-order little-endian bytes. A value that does not fit its dtype is refused,
never wrapped.

Lists are read level by level, flattening as they go: ragged lists, and types that have no business in a tensor, show
themselves before NumPy could be lenient about them. Nothing recurses.
"""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from engine.attrs import NON_FINITE, read_boolean, read_sizes, shown
from engine.errors import EngineError, InvalidTensor, pointer_to
from engine.types import BOOL, DTYPES, FLOAT64, Array, Dtype, Shape, Spec

FIELDS = ("data", "b64", "dtype", "shape", "requires_grad")
MOST_AXES = 64
"""What NumPy can hold."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""NumPy's own `dtype.name` takes a microsecond."""
LEAF_TYPES = frozenset((int, float, bool, str))


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor as it was given. `typed` tells whether its dtype was."""

    array: Array
    typed: bool
    requires_grad: bool | None = None

    @property
    def spec(self) -> Spec:
        return Spec(self.array.shape, self.array.dtype)

    def __eq__(self, other: object) -> bool:
        """Equal bits, dtype, shape and flags."""
        return isinstance(other, Tensor) and self._content == other._content

    def __hash__(self) -> int:
        return hash(self._content)

    @property
    def _content(self) -> tuple[Any, ...]:
        return (self.array.tobytes(), self.array.shape, self.array.dtype.str, self.typed, self.requires_grad)


def read_tensor(value: Any) -> Tensor:
    """A read-only tensor from its JSON form. Raises InvalidTensor, with a pointer into an object."""
    if type(value) is float:  # the commonest, and the shortest way
        return _frozen(np.array(value), typed=False)
    if not isinstance(value, dict):
        return _frozen(_read_data(value, None, None), typed=False)
    for name in value:
        if name not in FIELDS:
            raise InvalidTensor(
                f"a tensor has no field {name[:64]!r}; it has: {', '.join(FIELDS)}", pointer=pointer_to(name)
            )
    if ("data" in value) == ("b64" in value):
        raise InvalidTensor('a tensor has either "data" or "b64"')
    dtype = _field(value, "dtype", _read_dtype)
    shape = _field(value, "shape", _read_shape)
    requires_grad = _field(value, "requires_grad", read_boolean)
    if "data" in value:
        array = _field(value, "data", lambda data: _read_data(data, dtype, shape))
    else:
        array = _field(value, "b64", lambda data: _read_base64(data, dtype, shape))
    return _frozen(array, dtype is not None, requires_grad)


def read_spec(value: Any) -> Spec:
    """Shape and dtype alone, as {"dtype", "shape"}; or those of a tensor that is given in full."""
    if isinstance(value, dict) and "data" not in value and "b64" not in value:
        unknown = next((name for name in value if name not in ("dtype", "shape", "requires_grad")), None)
        if unknown is not None:
            raise InvalidTensor(f"a tensor has no field {unknown[:64]!r}", pointer=pointer_to(unknown))
        return Spec(_field(value, "shape", _read_shape) or (), _field(value, "dtype", _read_dtype) or FLOAT64)
    return read_tensor(value).spec


def _field(value: dict[str, Any], name: str, read: Any) -> Any:
    if value.get(name) is None and name not in ("data", "b64"):
        return None
    try:
        return read(value[name])
    except EngineError as error:
        raise InvalidTensor(f"{name}: {error.detail}", pointer=pointer_to(name)) from error


def _read_dtype(value: Any) -> Dtype:
    if not isinstance(value, str) or value not in DTYPES:
        raise InvalidTensor(f"expected one of {', '.join(DTYPES)}, got {shown(value)}")
    return DTYPES[value]


def _read_shape(value: Any) -> Shape:
    shape = read_sizes(value)
    if len(shape) > MOST_AXES or math.prod(filter(None, shape)) >= 2**59:
        raise InvalidTensor("no memory could address a tensor of this shape")
    return shape


def _frozen(array: Array, typed: bool, requires_grad: bool | None = None) -> Tensor:
    array.flags.writeable = False
    return Tensor(array, typed, requires_grad)


def _read_data(data: Any, dtype: Dtype | None, shape: Shape | None) -> Array:
    if isinstance(data, bytes):
        if dtype is None or shape is None:
            raise InvalidTensor('bytes need "dtype" and "shape" beside them')
        return from_bytes(data, dtype, shape)
    if isinstance(data, np.ndarray):
        return _narrowed(data, dtype or FLOAT64).reshape(_agreed(data.shape, shape))
    flat, nested = _flattened(data)
    if dtype is not None and dtype.kind == "c":
        array, nested = _paired(flat, nested, dtype)
    else:
        array = _converted(flat, dtype)
    return array.reshape(_agreed(nested, shape))


def _flattened(data: Any) -> tuple[list[Any], Shape]:
    """The numbers of a nested list in C order, and its shape. Raises InvalidTensor where lists are ragged."""
    shape: list[int] = []
    level = [data]
    while True:
        types = set(map(type, level))
        if list not in types:
            break
        lengths = set(map(len, level)) if len(types) == 1 else set()
        if len(lengths) != 1:
            raise InvalidTensor(f"the list is ragged: rows of axis {len(shape)} differ in length or depth")
        shape.append(lengths.pop())
        if len(shape) > MOST_AXES:
            raise InvalidTensor(f"the list is nested more than {MOST_AXES} deep")
        level = list(chain.from_iterable(level))
    if not types <= LEAF_TYPES:
        wrong = next(each for each in level if type(each) not in LEAF_TYPES)
        raise InvalidTensor(f"expected a number or a boolean, got {shown(wrong)}")
    return level, tuple(shape)


def _converted(flat: list[Any], dtype: Dtype | None) -> Array:
    types = set(map(type, flat))
    if str in types:
        flat = [_number(each) if isinstance(each, str) else each for each in flat]
        types = set(map(type, flat))
    if dtype is None:
        dtype = BOOL if types == {bool} else FLOAT64
    if ((bool in types) != (dtype.kind == "b") and types) or (dtype.kind == "b" and types - {bool}):
        raise InvalidTensor(f"expected {'booleans' if dtype.kind == 'b' else 'numbers'} for dtype {dtype.name}")
    if dtype.kind in "iu" and float in types:
        flat = [_whole(each, dtype) for each in flat]
    try:
        with np.errstate(over="ignore"):
            array = np.array(flat, dtype)
    except OverflowError:
        raise InvalidTensor(f"a value does not fit {dtype.name}{_range(dtype)}") from None
    if dtype == np.float32 and not np.array_equal(np.isinf(array), np.isinf(np.array(flat, FLOAT64))):
        raise InvalidTensor("a value does not fit float32")
    return array


def _narrowed(array: Array, dtype: Dtype) -> Array:
    """Numbers that were read as float64 in the real dtype that they are to have."""
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype, copy=False)
    if not np.isfinite(narrow).all():
        raise InvalidTensor(f"a value does not fit {dtype.name}")
    return narrow


def _number(text: str) -> float:
    if text not in NON_FINITE:
        raise InvalidTensor(f"expected a number, or one of the strings {', '.join(NON_FINITE)}, got {text[:60]!r}")
    return NON_FINITE[text]


def _whole(value: int | float, dtype: Dtype) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise InvalidTensor(f"{value} does not fit {dtype.name}{_range(dtype)}")
    return int(value)


def _range(dtype: Dtype) -> str:
    if dtype.kind not in "iu":
        return ""
    return f" (whole numbers from {np.iinfo(dtype).min} to {np.iinfo(dtype).max})"


def _paired(flat: list[Any], nested: Shape, dtype: Dtype) -> tuple[Array, Shape]:
    """Complex numbers from [re, im] pairs in the last axis."""
    if math.prod(nested) == 0 and nested[-1] != 2:
        return np.empty(0, dtype), nested  # lists of nothing show no pairs
    if not nested or nested[-1] != 2:
        raise InvalidTensor(f"a {dtype.name} is [re, im] in a last axis of length 2, got shape {list(nested)}")
    parts = _converted(flat, DTYPES["float32"] if dtype == np.complex64 else FLOAT64)
    return parts.view(dtype), nested[:-1]


def _agreed(nested: Shape, shape: Shape | None) -> Shape:
    """The shape that was given, if the data can have it: nested like it, or flat."""
    if shape is None or nested == shape:
        return nested
    empty_like = math.prod(nested) == 0 and nested == shape[: len(nested)]  # rows of nothing say no more axes
    if math.prod(nested) == math.prod(shape) and (len(nested) <= 1 or empty_like):
        return shape
    raise InvalidTensor(f"data of shape {list(nested)} does not fill shape {list(shape)}")


def _read_base64(data: Any, dtype: Dtype | None, shape: Shape | None) -> Array:
    if dtype is None or shape is None:
        raise InvalidTensor('base64 needs "dtype" and "shape" beside it')
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise InvalidTensor("expected base64 of C-order little-endian bytes") from None
    return from_bytes(raw, dtype, shape)


def from_bytes(raw: bytes, dtype: Dtype, shape: Shape) -> Array:
    """A tensor from its C-order little-endian bytes. Raises InvalidTensor where their number is wrong."""
    expected = math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise InvalidTensor(f"{dtype.name}{list(shape)} takes {expected} bytes, got {len(raw)}")
    array = np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape).astype(dtype, copy=False)
    if dtype.kind == "b" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
        raise InvalidTensor("a boolean is a byte 0 or 1")
    return array


def write_tensor(array: Array | float, encoding: str = "json") -> dict[str, Any]:
    """The JSON form of a tensor, or of a float64. `data` may be a C-contiguous array of finite numbers, which a JSON
    codec that knows NumPy writes as nested lists; anything else is lists, numbers and strings already."""
    if isinstance(array, float):
        if encoding == "json" and math.isfinite(array):  # the commonest, and the shortest way
            return {"dtype": "float64", "shape": [], "data": array}
        array = np.array(array)
    head = {"dtype": NAMES[array.dtype], "shape": list(array.shape)}
    if encoding == "bytes":
        return head | {"data": to_bytes(array)}
    if encoding == "base64":
        return head | {"b64": base64.b64encode(to_bytes(array)).decode("ascii")}
    return head | {"data": _written(array)}


def to_bytes(array: Array) -> memoryview:
    """C-order little-endian bytes; those of the array itself, where it has them so."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data


def _written(array: Array) -> Any:
    if array.dtype.kind == "c":
        parts = DTYPES["float32"] if array.dtype == np.complex64 else FLOAT64
        array = np.ascontiguousarray(array).reshape(*array.shape, 1).view(parts)
    if not array.ndim and array.dtype == FLOAT64 and math.isfinite(array):
        return float(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return _with_strings(array)
    # float32 scalars go through an array, too: as Python floats they would be written with float64's digits.
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _with_strings(array: Array) -> Any:
    flat = array.ravel()
    written = np.empty(flat.size, object)
    written[:] = [each.item() if each.dtype == FLOAT64 else float(str(each)) for each in flat]
    for name, mask in (("NaN", np.isnan(flat)), ("Infinity", flat == np.inf), ("-Infinity", flat == -np.inf)):
        written[mask] = name
    return written.reshape(array.shape).tolist()
