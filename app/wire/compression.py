"""Compressed bodies: gzip (RFC 1952) and zstd (RFC 8878), one member of either, expanded no further than a limit.

An answer is compressed where that pays: where it is long, and a piece of it shrinks to a third at least. The digits of
arbitrary floats do not, and compressing them takes longer than sending them over most networks.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import zstandard

from app.wire.forms import Malformed

LEAST_BYTES = 1 << 14
SAMPLE_BYTES = 1 << 13
LEAST_GAIN = 3.0
PIECE_BYTES = 256
"""What is expanded at a time, to 8 MiB at the most: four bytes of zstd may stand for a block of 128 KiB."""
COUNTED_BYTES = 1 << 23
"""The same, where what is expanded is only counted."""
GZIP = 16 + zlib.MAX_WBITS
"""zlib's number for a gzip header of the largest window."""


BEST_RATIO = 1032
"""Deflate shrinks nothing further; a size that claims more is no size."""
WINDOW = 1 << 27
"""Bytes that a zstd frame may refer back to; what reads it has to keep them."""


class TooLarge(Exception):
    """An expanded body over its limit."""


class Coding(NamedTuple):
    """How one coding shrinks and expands. `expander()` is an object with `decompress(bytes, most)`."""

    shrink: Callable[[bytes], bytes]
    expand: Callable[[bytes, int], bytes]


def _expand_gzip(body: bytes, most: int) -> bytes:
    declared = int.from_bytes(body[-4:], "little")  # where a whole member has its size
    if declared > len(body) * BEST_RATIO:
        declared = 0
    if declared > most:
        raise TooLarge
    expander = zlib.decompressobj(GZIP)
    try:
        expanded = expander.decompress(body, declared + 1)
        if len(expanded) > declared:
            _count_gzip(expander, most - len(expanded))
    except zlib.error as error:
        raise Malformed(f"the body is not gzip: {str(error)[:100]}") from None
    return _one_member(expanded, declared, expander.eof, expander.unused_data, "gzip")


def _count_gzip(expander: Any, most: int) -> None:
    """Expand what is left without keeping it. Raises TooLarge above `most` bytes."""
    while expander.unconsumed_tail and not expander.eof:
        most -= len(expander.decompress(expander.unconsumed_tail, COUNTED_BYTES))
        if most < 0:
            raise TooLarge


def _expand_zstd(body: bytes, most: int) -> bytes:
    expander = _zstd()
    try:
        declared = zstandard.frame_content_size(body)
        if declared > most:
            raise TooLarge
        if declared < 0:  # a streamed frame has no size at its head: nothing is kept until it is known
            declared = sum(map(len, _pieces(body, most, _zstd())))
        expanded = b"".join(_pieces(body, declared, expander))
    except zstandard.ZstdError as error:
        raise Malformed(f"the body is not zstd: {str(error)[:100]}") from None
    return _one_member(expanded, declared, expander.eof, expander.unused_data, "zstd")


def _zstd() -> Any:
    return zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()


def _pieces(body: bytes, most: int, expander: Any) -> Iterator[bytes]:
    """The body, expanded piece by piece. Raises TooLarge above `most` bytes, Malformed for what follows the frame."""
    for start in range(0, len(body), PIECE_BYTES):
        if expander.eof:
            raise Malformed("more follows after the zstd body; expected one member")
        piece = expander.decompress(body[start : start + PIECE_BYTES])
        most -= len(piece)
        if most < 0:
            raise TooLarge
        yield piece


def _one_member(expanded: bytes, declared: int, is_whole: bool, rest: bytes, name: str) -> bytes:
    if not is_whole:
        raise Malformed(f"the {name} body ends too early")
    if rest:
        raise Malformed(f"more follows after the {name} body; expected one member")
    if len(expanded) > declared:
        raise Malformed(f"the {name} body is longer than it says")
    return expanded


def _shrink_gzip(body: bytes) -> bytes:
    return zlib.compress(body, 1, GZIP)


def _shrink_zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


ZSTD, GZIPPED = Coding(_shrink_zstd, _expand_zstd), Coding(_shrink_gzip, _expand_gzip)
CODINGS: Mapping[str, Coding] = {"zstd": ZSTD, "gzip": GZIPPED, "x-gzip": GZIPPED}
"""By name (RFC 9110, section 8.4.1), the better ones first."""


def expand(body: bytes, coding: str, most: int) -> bytes:
    """The body before it was compressed. Raises Malformed; TooLarge above `most` bytes; KeyError for other codings."""
    return CODINGS[coding].expand(body, most)


def shrink(body: bytes, accepted: Mapping[str, float]) -> tuple[bytes, str | None]:
    """The body, compressed where a coding is accepted and it pays; and the coding's name."""
    name = next((name for name in CODINGS if accepted.get(name, 0) > 0), None)
    if name is None or len(body) < LEAST_BYTES:
        return body, None
    middle = len(body) // 2
    sample = body[middle : middle + SAMPLE_BYTES]
    if len(sample) < LEAST_GAIN * len(CODINGS[name].shrink(sample)):
        return body, None
    return CODINGS[name].shrink(body), name


def weights(header: str) -> dict[str, float]:
    """The names in an Accept or Accept-Encoding header, with their weights (RFC 9110, section 12.4.2)."""
    found: dict[str, float] = {}
    for part in header.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        if name:
            found[name] = _weight(weight)
    return found


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0
