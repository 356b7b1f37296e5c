"""Discrete Fourier transforms: numpy.fft's, along one axis or several.

Four primitives along one axis: fft and ifft between complex numbers, rfft and irfft between real numbers and the half
of their spectrum that says it all. They are linear, and their adjoints are one another's, unnormalised: the matrix of
fft is symmetric, that of ifft its conjugate. Half a spectrum stands for a whole one, in which all but its ends come
twice, so that rfft and irfft are adjoint to each other only with weights 1, 2, …, 2 (and 1, where n is even). The ends
are real: irfft does not look at their imaginary parts.

Everything else is made of these. SciPy's kernels stay in single precision and go through many rows at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import fft as kernels

from engine import attrs as kinds
from engine.core import Attrs, Graph, Node, Op, Operand, Refusal, Sample, define, ops
from engine.derivative import Linear, filled
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import ANY, X, batch_shifted, composite, part_dtype, rearranged, resized, span
from engine.types import DTYPES, Dtype, Shape, Spec, axes_of, axis_of, to_complex, to_real

NORM = kinds.choice(
    "Where the sum is divided by n: not in fft (backward), by its root in both (ortho), or in fft (forward).",
    ("backward", "ortho", "forward"),
    "backward",
)
OTHER_WAY = {"backward": "forward", "ortho": "ortho", "forward": "backward"}
"""The norm with which the inverse transform is the adjoint."""

LENGTH = "Length of the axis that is transformed, cropped or filled up with zeros; its own when absent."
ALONG = {"n": kinds.integer(LENGTH, None), "axis": kinds.axis(default=-1), "norm": NORM}
LINES = (
    Sample(((4,),)),
    Sample(((5,),), {"norm": "ortho"}),
    Sample(((2, 3),), {"n": 5, "norm": "forward"}),
    Sample(((2, 6, 2),), {"n": 4, "axis": 1}),
    Sample(((1, 2),)),
    Sample(((0, 3),)),
)
NO_LINES = (
    Refusal(((),), {}, "shape_mismatch"),
    Refusal(((3,),), {"axis": 1}, "shape_mismatch"),
    Refusal(((3,),), {"n": 0}, "invalid_graph"),
    Refusal(((3, 0),), {}, "invalid_graph"),
    Refusal(((3,),), {"norm": "unitary"}, "invalid_graph"),
    Refusal(((3,),), {"n": 2**40}, "limit_exceeded"),
)


def _settled(attrs: Attrs, shape: Shape) -> Attrs:
    """The axis from the front, and n as a number, of one or more."""
    axis = axis_of(attrs["axis"], len(shape))
    return attrs | {"axis": axis, "n": _length(shape[axis] if attrs["n"] is None else attrs["n"])}


def _settled_half(attrs: Attrs, shape: Shape) -> Attrs:
    """The same from half a spectrum, which is that of an even number unless one is given."""
    axis = axis_of(attrs["axis"], len(shape))
    return attrs | {"axis": axis, "n": _length(2 * (shape[axis] - 1) if attrs["n"] is None else attrs["n"])}


def _length(n: int) -> int:
    if n < 1:
        raise InvalidGraph(f"a Fourier transform takes 1 point or more, got {n}")
    return n


def _whole(x: Shape, *, n: int, axis: int, norm: str) -> Shape:
    return resized(x, axis, n)


def _half(x: Shape, *, n: int, axis: int, norm: str) -> Shape:
    return resized(x, axis, n // 2 + 1)


def _complex(x: Dtype, **attrs: Any) -> Dtype:
    return to_complex(x)


def _flops(out: Shape, x: Shape, *, n: int, axis: int, norm: str) -> int:
    """For each line 5 n log₂ n, the usual count, where n is a power of 2; more by its prime factors."""
    return math.ceil(math.prod(x[:axis] + x[axis + 1 :]) * 2.5 * min(_steps(n), _bluestein_steps(n)))


@lru_cache(maxsize=1024)
def _steps(n: int) -> float:
    """What pocketfft takes a line of n points for: n times its prime factors, where 4 is one."""
    found, rest, factor = 0.0, n, 2
    while rest % 4 == 0:
        found, rest = found + 4, rest // 4
    while factor * factor <= rest:
        while rest % factor == 0:
            found, rest = found + (factor if factor <= 5 else 1.1 * factor), rest // factor
        factor += 1
    return n * (found + (rest if rest <= 5 else 1.1 * rest))


def _bluestein_steps(n: int) -> float:
    """The same of a convolution of lines of more than twice the length, by which it goes around large factors."""
    return math.inf if n < 50 else 3.0 * _steps(_padded_length(n))


def _padded_length(n: int) -> int:
    length: int = kernels.next_fast_len(2 * n - 1)
    return length


def _is_rough(n: int) -> bool:
    return _bluestein_steps(n) < _steps(n)


def _line_bytes(node: Node) -> int:
    """The line that is transformed, and its roots of unity; for a length with a large prime factor, the longer lines
    of Bluestein's convolution."""
    n, width = node.attrs["n"], 2 * np.dtype(to_real(node.dtype)).itemsize
    many = 3.5 if node.dtype.kind == node.inputs[0].dtype.kind == "c" else 2.75
    return math.ceil(width * (many * _padded_length(n) if _is_rough(n) else 0.75 * n))


def _kernel(transform: Callable[..., Any], shape: Callable[..., Shape], dtype: Callable[..., Dtype]) -> Any:
    def kernel(x: Any, *, n: int, axis: int, norm: str) -> Any:
        out = shape(x.shape, n=n, axis=axis, norm=norm)
        if 0 in x.shape:  # SciPy takes no line without points
            return np.zeros(out, dtype(x.dtype))
        return transform(x, n=n, axis=axis, norm=norm)

    return kernel


def _transform(name: str, doc: str, transform: Callable[..., Any], adjoint: Callable[..., Node], **record: Any) -> Op:
    """A transform along one axis: a linear primitive."""
    fields: dict[str, Any] = {
        "operands": ANY,
        "shape": _whole,
        "returns": _complex,
        "canonical": _settled,
        "samples": LINES,
        "refusals": NO_LINES,
    } | record
    return define(
        name,
        doc,
        attrs=ALONG,
        kernel=_kernel(transform, fields["shape"], fields["returns"]),
        derivative=Linear(adjoint),
        batch=batch_shifted("axis"),
        inexact=True,
        flops=_flops,
        pace=9.0,
        scratch=_line_bytes,
        family="fourier",
        example=f"{name}(x)",
        **fields,
    )


def _fitted(x: Node, axis: int, size: int) -> Node:
    """`x` cropped along an axis, or filled up with zeros."""
    have = x.shape[axis]
    if have >= size:
        return span(x, axis, 0, size)
    return ops.concat(x, filled(x.graph, 0, Spec(resized(x.shape, axis, size - have), x.dtype)), axis=axis)


def _fft_adjoint(g: Node, x: Node, *, n: int, axis: int, norm: str) -> Node:
    return _fitted(ops.ifft(g, axis=axis, norm=OTHER_WAY[norm]), axis, x.shape[axis])


def _ifft_adjoint(g: Node, x: Node, *, n: int, axis: int, norm: str) -> Node:
    return _fitted(ops.fft(g, axis=axis, norm=OTHER_WAY[norm]), axis, x.shape[axis])


def _rfft_adjoint(g: Node, x: Node, *, n: int, axis: int, norm: str) -> Node:
    halved = g * _weights(g, n, axis, 0.5)
    return _fitted(ops.irfft(halved, n=n, axis=axis, norm=OTHER_WAY[norm]), axis, x.shape[axis])


def _irfft_adjoint(g: Node, x: Node, *, n: int, axis: int, norm: str) -> Node:
    spectrum = ops.rfft(g, axis=axis, norm=OTHER_WAY[norm])
    return _fitted(spectrum * _weights(spectrum, n, axis, 2.0), axis, x.shape[axis])


def _weights(spectrum: Node, n: int, axis: int, middle: float) -> Node:
    """Along the axis of half a spectrum: 1 at its ends, which come once in the whole one, else `middle`."""
    dtype = part_dtype(spectrum.dtype)
    counts = ((1.0, 1), (middle, (n - 1) // 2), (1.0, 1 - n % 2))
    parts = [filled(spectrum.graph, value, Spec((count,), dtype)) for value, count in counts if count]
    return ops.reshape(ops.concat(*parts), shape=(-1, *(1,) * (spectrum.rank - axis - 1)))


fft = _transform("fft", "Discrete Fourier transform along an axis.", kernels.fft, _fft_adjoint, torch="fft_c2C")

ifft = _transform(
    "ifft", "Inverse discrete Fourier transform along an axis.", kernels.ifft, _ifft_adjoint, torch="fft_c2C"
)

rfft = _transform(
    "rfft",
    "Discrete Fourier transform of real numbers along an axis: the n // 2 + 1 frequencies from 0 on.",
    kernels.rfft,
    _rfft_adjoint,
    operands=X,
    shape=_half,
    torch="fft_r2C",
)

irfft = _transform(
    "irfft",
    "Inverse of rfft: real numbers, n of them, by default as many as make an even number. "
    "Imaginary parts at the ends of the spectrum count for nothing.",
    kernels.irfft,
    _irfft_adjoint,
    returns=part_dtype,
    canonical=_settled_half,
    torch="fft_c2R",
    refusals=(*NO_LINES, Refusal(((1,),), {}, "invalid_graph")),
    samples=(*LINES[:-1], Sample(((4,),), {"n": 7}), Sample(((3,),), {"n": 1}), Sample(((0, 3),))),
)


def _hermitian(name: str, doc: str, expand: Callable[..., Node], **record: Any) -> Op:
    """A transform that is another one, conjugated, with the norm of the other way."""
    return composite(name, doc, expand, **{"inexact": True, "family": "fourier", "example": f"{name}(x)"} | record)


hfft = _hermitian(
    "hfft",
    "Transform of half a Hermitian signal: its real spectrum, of n points.",
    lambda x, *, n, axis, norm: ops.irfft(ops.conj(x), n=n, axis=axis, norm=OTHER_WAY[norm]),
    operands=ANY,
    attrs=ALONG,
    samples=LINES,
    refusals=NO_LINES,
)

ihfft = _hermitian(
    "ihfft",
    "Inverse of hfft: half the Hermitian signal of a real spectrum.",
    lambda x, *, n, axis, norm: ops.conj(ops.rfft(x, n=n, axis=axis, norm=OTHER_WAY[norm])),
    operands=X,
    attrs=ALONG,
    samples=LINES,
    refusals=NO_LINES,
)

# Along several axes

SIZES = kinds.integers("Length of each of the axes, -1 for its own; their own when absent.", None)
PLANE = {"s": SIZES, "axes": kinds.axes("The axes.", (-2, -1)), "norm": NORM}
SPACE = {
    "s": SIZES,
    "axes": kinds.axes("The axes; when absent, all of them, or as many of the last as s has sizes."),
    "norm": NORM,
}
PLANES = (
    Sample(((3, 4),)),
    Sample(((2, 3, 4),), {"norm": "ortho"}),
    Sample(((3, 4),), {"s": [2, 6]}),
    Sample(((4, 3, 2),), {"axes": [1, 0], "s": [5, -1], "norm": "forward"}),
    Sample(((0, 2, 3),)),
)
SPACES = (
    Sample(((2, 3, 4),)),
    Sample(((3, 4),), {"s": 6}),
    Sample(((2, 3, 2),), {"axes": [2, 0], "s": [3, 4], "norm": "ortho"}),
    Sample(((4,),), {"norm": "forward"}),
    Sample(((0, 2, 3),), {"axes": [1, 2]}),
)
NO_PLANES = (
    Refusal(((3,),), {}, "shape_mismatch"),
    Refusal(((3, 3),), {"axes": [0, 0]}, "shape_mismatch"),
    Refusal(((3, 3),), {"s": [2]}, "invalid_graph"),
    Refusal(((3, 3),), {"s": [2, 0]}, "invalid_graph"),
)
NO_SPACES = (
    Refusal(((3, 3),), {"axes": [0, 2]}, "shape_mismatch"),
    Refusal(((3, 3),), {"s": [2, 2, 2]}, "shape_mismatch"),
    Refusal(((3, 3),), {"s": [2], "axes": [0, 1]}, "invalid_graph"),
)

Along = tuple[int, "int | None"]
"""An axis, and its length where that is not its own."""


def _lines(x: Node, s: Sequence[int] | None, axes: int | Sequence[int] | None) -> list[Along]:
    """The axes to transform, in the order in which they are given."""
    chosen = range(-len(s), 0) if axes is None and s is not None else range(x.rank) if axes is None else axes
    listed = [chosen] if isinstance(chosen, int) else list(chosen)
    axes_of(listed, x.rank)
    if s is not None and len(s) != len(listed):
        raise InvalidGraph(f"s has {len(s)} sizes for {len(listed)} axes")
    sizes = [None] * len(listed) if s is None else [None if size == -1 else _length(size) for size in s]
    return [(axis % x.rank, size) for axis, size in zip(listed, sizes, strict=True)]


def _last(lines: list[Along], name: str) -> Along:
    if not lines:
        raise ShapeMismatch(f"{name} needs an axis whose half it takes, and there is none")
    return lines[-1]


def _through(name: str) -> Callable[..., Node]:
    """The transform along each axis."""

    def expand(x: Node, *, s: Any, axes: Any, norm: str) -> Node:
        lines = _lines(x, s, axes)
        for axis, n in reversed(lines):
            x = getattr(ops, name)(x, n=n, axis=axis, norm=norm)
        return x if lines else ops.astype(x, dtype=to_complex(x.dtype).name)

    return expand


def _rfftn(x: Node, *, s: Any, axes: Any, norm: str) -> Node:
    lines = _lines(x, s, axes)
    axis, n = _last(lines, "rfftn")
    x = ops.rfft(x, n=n, axis=axis, norm=norm)
    for axis, n in reversed(lines[:-1]):
        x = ops.fft(x, n=n, axis=axis, norm=norm)
    return x


def _irfftn(x: Node, *, s: Any, axes: Any, norm: str) -> Node:
    lines = _lines(x, s, axes)
    last, length = _last(lines, "irfftn")
    for axis, n in lines[:-1]:
        x = ops.ifft(x, n=n, axis=axis, norm=norm)
    return ops.irfft(x, n=length, axis=last, norm=norm)


def _hfftn(x: Node, *, s: Any, axes: Any, norm: str) -> Node:
    return _irfftn(ops.conj(x), s=s, axes=axes, norm=OTHER_WAY[norm])


def _ihfftn(x: Node, *, s: Any, axes: Any, norm: str) -> Node:
    return ops.conj(_rfftn(x, s=s, axes=axes, norm=OTHER_WAY[norm]))


def _both(stem: str, doc: str, expand: Callable[..., Node], operands: tuple[Operand, ...]) -> tuple[Op, Op]:
    """The same over two axes, by default the last ones, and over any number, by default all."""
    of_planes = _hermitian(
        f"{stem}2",
        f"{doc} over two axes.",
        expand,
        operands=operands,
        attrs=PLANE,
        samples=PLANES,
        refusals=NO_PLANES,
    )
    of_spaces = _hermitian(
        f"{stem}n",
        f"{doc} over several axes.",
        expand,
        operands=operands,
        attrs=SPACE,
        samples=SPACES,
        refusals=NO_SPACES,
    )
    return of_planes, of_spaces


fft2, fftn = _both("fft", "Discrete Fourier transform", _through("fft"), ANY)
ifft2, ifftn = _both("ifft", "Inverse discrete Fourier transform", _through("ifft"), ANY)
rfft2, rfftn = _both(
    "rfft", "Discrete Fourier transform of real numbers, half of it along the last axis named,", _rfftn, X
)
irfft2, irfftn = _both("irfft", "Inverse of the transform of real numbers", _irfftn, ANY)
hfft2, hfftn = _both("hfft", "Transform of a Hermitian signal, of which the last axis named has half,", _hfftn, ANY)
ihfft2, ihfftn = _both("ihfft", "Inverse transform of a real spectrum, half of it along the last axis,", _ihfftn, X)

# The order of frequencies

SHIFTED = {"axes": kinds.axes()}


def _shifted(x: Node, axes: int | Sequence[int] | None, way: int) -> Node:
    chosen = axes_of(axes, x.rank)
    return ops.roll(x, shift=[way * (x.shape[at] // 2) for at in chosen], axis=chosen) if chosen else x


SHIFTS = (Sample(((5,),)), Sample(((4, 3),)), Sample(((4, 3),), {"axes": 1}), Sample(((0, 2),)), Sample(((),)))
NO_SHIFTS = (Refusal(((3,),), {"axes": 1}, "shape_mismatch"),)

fftshift = rearranged(
    "fftshift",
    "Frequency 0 moved to the middle.",
    lambda x, *, axes: _shifted(x, axes, 1),
    attrs=SHIFTED,
    samples=SHIFTS,
    refusals=NO_SHIFTS,
    torch="roll",
)

ifftshift = rearranged(
    "ifftshift",
    "Frequency 0 moved back from the middle to the front: the inverse of fftshift.",
    lambda x, *, axes: _shifted(x, axes, -1),
    attrs=SHIFTED,
    samples=SHIFTS,
    refusals=NO_SHIFTS,
    torch="roll",
)

FREQUENCIES: Attrs = {
    "operands": (),
    "attrs": {
        "n": kinds.integer("How many points are transformed."),
        "d": kinds.real("The distance of neighbouring points.", 1.0),
        "dtype": kinds.dtype(default="float64"),
    },
    "family": "creating",
    "samples": (
        Sample((), {"n": 5}),
        Sample((), {"n": 4, "d": 0.5}),
        Sample((), {"n": 1, "dtype": "float32"}),
    ),
    "refusals": (
        Refusal((), {"n": 0}, "invalid_graph"),
        Refusal((), {"n": 3, "d": 0}, "invalid_graph"),
        Refusal((), {"n": 3, "dtype": "int64"}, "invalid_graph"),
        Refusal((), {"n": 2**40}, "limit_exceeded"),
    ),
}


def _in_hertz(counts: Node, n: int, d: float, dtype: str) -> Node:
    """Turns per transform as turns per unit of d."""
    if d == 0 or not math.isfinite(d):
        raise InvalidGraph(f"the distance d of points should be finite and not 0, got {d}", pointer="/attrs/d")
    if DTYPES[dtype].kind not in "fc":
        raise InvalidGraph(f"frequencies are floating numbers, not {dtype}", pointer="/attrs/dtype")
    return ops.astype(ops.astype(counts, dtype="float64") * (1.0 / (n * d)), dtype=dtype)


def _fftfreq(graph: Graph, *, n: int, d: float, dtype: str) -> Node:
    ahead = ops.arange.on(graph, start=(_length(n) + 1) // 2)
    behind = ops.arange.on(graph, start=-(n // 2), stop=0)
    return _in_hertz(ops.concat(ahead, behind), n, d, dtype)


def _rfftfreq(graph: Graph, *, n: int, d: float, dtype: str) -> Node:
    return _in_hertz(ops.arange.on(graph, start=_length(n) // 2 + 1), n, d, dtype)


fftfreq = composite(
    "fftfreq",
    "The frequencies of fft's results, in cycles per unit of d: 0 and up, then from the lowest up.",
    _fftfreq,
    **FREQUENCIES,
    example="fftfreq(8, d=0.1)",
)

rfftfreq = composite(
    "rfftfreq",
    "The frequencies of rfft's results, in cycles per unit of d.",
    _rfftfreq,
    **FREQUENCIES,
    example="rfftfreq(8, d=0.1)",
)
