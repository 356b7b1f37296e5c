"""Images rearranged: windows laid out as columns and back, channels traded for pixels, or shuffled.

Every one is a composition of reshape, permute_dims and gathers along an axis, so all of it is linear.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from engine import attrs as kinds
from engine.core import Attrs, Node, Refusal, Sample, ops
from engine.errors import InvalidGraph, ShapeMismatch
from engine.families import rearranged
from engine.ops.convolving import DILATION, Pairs, images_of, like_images, pairs_of, per_axis, places_of
from engine.types import Shape

# Windows as columns


class _Windows(NamedTuple):
    """Windows over the two axes of a padded image."""

    kernel: Shape
    places: Shape
    stride: Shape
    dilation: Shape
    padding: Pairs

    def positions(self, x: Node, axis: int) -> Node:
        """Where every tap of every window stands along one axis: an array (taps, places)."""
        taps, places = (ops.arange.on(x.graph, start=sizes[axis]) for sizes in (self.kernel, self.places))
        return ops.expand_dims(taps * self.dilation[axis], axis=1) + places * self.stride[axis]


def _windows(size: Shape, *, kernel_size: Any, dilation: Any, padding: Any, stride: Any) -> _Windows:
    kernel, gap, step = (
        per_axis(value, 2, name)
        for value, name in ((kernel_size, "kernel_size"), (dilation, "dilation"), (stride, "stride"))
    )
    pairs = pairs_of(padding, 2)
    return _Windows(kernel, places_of(size, kernel, step, pairs, gap), step, gap, pairs)


def _unfold(x: Node, **attrs: Any) -> Node:
    images = images_of(x, 2, "unfold")
    count, channels, *size = images.shape
    windows = _windows(tuple(size), **attrs)
    out = ops.pad(images, pad_width=((0, 0), (0, 0), *windows.padding))
    out = ops.take(out, windows.positions(x, 0), axis=2)
    out = ops.take(out, windows.positions(x, 1), axis=4)
    columns = channels * math.prod(windows.kernel), math.prod(windows.places)
    out = ops.reshape(ops.permute_dims(out, axes=(0, 1, 2, 4, 3, 5)), shape=(count, *columns))
    return like_images(out, x, 2)


COLUMNS: Attrs = {
    "kernel_size": kinds.shape("Sizes of a window: one number, or one for each axis."),
    "dilation": DILATION,
    "padding": kinds.shape("Zeros around the image: one number, or one for each axis.", (0,)),
    "stride": kinds.shape("Steps between windows: one number, or one for each axis.", (1,)),
}

SPREAD: Attrs = {"dilation": [2, 1], "padding": [0, 1], "stride": [1, 2]}

unfold = rearranged(
    "unfold",
    "Every window of images (images, channels, two axes) as a column: (images, channels · taps, windows).",
    _unfold,
    attrs=COLUMNS,
    torch="im2col",
    family="neural",
    samples=(
        Sample(((2, 3, 4, 3),), {"kernel_size": 2}),
        Sample(((2, 4, 5),), {"kernel_size": [2, 3], **SPREAD}),
        Sample(((0, 1, 3, 3),), {"kernel_size": 2}),
    ),
    refusals=(
        Refusal(((4, 3),), {"kernel_size": 2}, "shape_mismatch"),
        Refusal(((1, 4, 3),), {"kernel_size": 4}, "shape_mismatch"),
        Refusal(((1, 4, 3),), {"kernel_size": [2, 2, 2]}, "invalid_graph"),
    ),
    example="unfold(x, kernel_size=2)",
)


def _fold(x: Node, *, output_size: Any, **attrs: Any) -> Node:
    size = per_axis(output_size, 2, "output_size")
    windows = _windows(size, **attrs)
    taps, count = math.prod(windows.kernel), math.prod(windows.places)
    if x.rank not in (2, 3) or x.shape[-2] % taps or x.shape[-1] != count:
        raise ShapeMismatch(f"fold takes columns (…, channels · {taps}, {count}), got {list(x.shape)}")
    lead = (*x.shape[:-2], x.shape[-2] // taps)
    (tall, wide), (high, long) = windows.kernel, windows.places
    rank = len(lead)
    out = ops.reshape(x, shape=(*lead, tall, wide, high, long))
    out = ops.permute_dims(out, axes=(*range(rank), rank, rank + 2, rank + 1, rank + 3))
    for axis in (1, 0):
        room = size[axis] + sum(windows.padding[axis])
        out = ops.untake(out, windows.positions(x, axis), size=room, axis=rank + 2 * axis)
    inner = [(before, before + n, None) for n, (before, _) in zip(size, windows.padding, strict=True)]
    return ops.slice(out, index=("...", *inner))


fold = rearranged(
    "fold",
    "Columns added up where windows of an image stand: the adjoint of unfold.",
    _fold,
    attrs={"output_size": kinds.shape("Sizes of the two axes of the image."), **COLUMNS},
    torch="col2im",
    family="neural",
    samples=(
        Sample(((2, 8, 6),), {"output_size": [4, 3], "kernel_size": 2}),
        Sample(((6, 6),), {"output_size": [4, 5], "kernel_size": [2, 3], **SPREAD}),
        Sample(((0, 4, 4),), {"output_size": 3, "kernel_size": 2}),
    ),
    refusals=(
        Refusal(((2, 8, 5),), {"output_size": [4, 3], "kernel_size": 2}, "shape_mismatch"),
        Refusal(((2, 7, 6),), {"output_size": [4, 3], "kernel_size": 2}, "shape_mismatch"),
    ),
    example="fold(x, output_size=[4, 4], kernel_size=2)",
)


# Channels


def _check_factor(x: Node, factor: int, name: str) -> None:
    if factor < 1:
        raise InvalidGraph(f"{name} should be 1 or more, got {factor}")
    if x.rank < 3:
        raise ShapeMismatch(f"channels and pixels take x with 3 axes or more, got {list(x.shape)}")


def _pixel_shuffle(x: Node, *, upscale_factor: int) -> Node:
    r = upscale_factor
    _check_factor(x, r, "upscale_factor")
    *lead, channels, high, wide = x.shape
    if channels % r**2:
        raise ShapeMismatch(f"{channels} channels do not make squares of {r} by {r} pixels")
    rank, own = len(lead), channels // r**2
    parts = ops.reshape(x, shape=(*lead, own, r, r, high, wide))
    order = (*range(rank), *(rank + at for at in (0, 3, 1, 4, 2)))
    return ops.reshape(ops.permute_dims(parts, axes=order), shape=(*lead, own, high * r, wide * r))


pixel_shuffle = rearranged(
    "pixel_shuffle",
    "Of (…, channels · r², high, wide) an image (…, channels, high · r, wide · r) (Shi et al. 2016).",
    _pixel_shuffle,
    attrs={"upscale_factor": kinds.integer("The r by which both axes grow.")},
    family="neural",
    samples=(Sample(((2, 8, 2, 3),), {"upscale_factor": 2}), Sample(((0, 4, 2, 2),), {"upscale_factor": 2})),
    refusals=(
        Refusal(((3, 2, 2),), {"upscale_factor": 2}, "shape_mismatch"),
        Refusal(((4, 2),), {"upscale_factor": 2}, "shape_mismatch"),
        Refusal(((4, 2, 2),), {"upscale_factor": 0}, "invalid_graph"),
    ),
    example="pixel_shuffle(x, 2)",
)


def _pixel_unshuffle(x: Node, *, downscale_factor: int) -> Node:
    r = downscale_factor
    _check_factor(x, r, "downscale_factor")
    *lead, channels, high, wide = x.shape
    if high % r or wide % r:
        raise ShapeMismatch(f"{high} by {wide} pixels do not fall into squares of {r} by {r}")
    rank = len(lead)
    parts = ops.reshape(x, shape=(*lead, channels, high // r, r, wide // r, r))
    order = (*range(rank), *(rank + at for at in (0, 2, 4, 1, 3)))
    return ops.reshape(ops.permute_dims(parts, axes=order), shape=(*lead, channels * r**2, high // r, wide // r))


pixel_unshuffle = rearranged(
    "pixel_unshuffle",
    "The reverse of pixel_shuffle: squares of r × r pixels become channels.",
    _pixel_unshuffle,
    attrs={"downscale_factor": kinds.integer("The r by which both axes shrink.")},
    family="neural",
    samples=(Sample(((2, 2, 4, 6),), {"downscale_factor": 2}), Sample(((0, 1, 2, 2),), {"downscale_factor": 2})),
    refusals=(
        Refusal(((1, 3, 2),), {"downscale_factor": 2}, "shape_mismatch"),
        Refusal(((4, 2),), {"downscale_factor": 2}, "shape_mismatch"),
        Refusal(((4, 2, 2),), {"downscale_factor": 0}, "invalid_graph"),
    ),
    example="pixel_unshuffle(x, 2)",
)


def _channel_shuffle(x: Node, *, groups: int) -> Node:
    _check_factor(x, groups, "groups")
    images, channels, *size = x.shape
    if channels % groups:
        raise ShapeMismatch(f"{channels} channels do not fall into {groups} equal groups")
    parts = ops.reshape(x, shape=(images, groups, channels // groups, math.prod(size)))
    return ops.reshape(ops.permute_dims(parts, axes=(0, 2, 1, 3)), shape=x.shape)


channel_shuffle = rearranged(
    "channel_shuffle",
    "The first channel of every group, then the second of every group, and so on; axis 1 counts channels.",
    _channel_shuffle,
    attrs={"groups": kinds.integer("Into how many groups channels fall.")},
    family="neural",
    torch="native_channel_shuffle",
    samples=(Sample(((2, 6, 2),), {"groups": 2}), Sample(((0, 4, 2, 2),), {"groups": 2})),
    refusals=(
        Refusal(((1, 3, 2),), {"groups": 2}, "shape_mismatch"),
        Refusal(((2, 4),), {"groups": 2}, "shape_mismatch"),
        Refusal(((1, 4, 2),), {"groups": 0}, "invalid_graph"),
    ),
    example="channel_shuffle(x, 2)",
)
