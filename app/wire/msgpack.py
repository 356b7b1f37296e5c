"""MessagePack in and out: the fields of JSON, with the bytes of a tensor as they lie in memory.

msgspec reads. It takes the last of equal keys, makes dates of one extension type, and gives a list all the room that
its header asks for; so the headers are looked at first. Regular expressions run over what is short: over numbers,
strings and lists at once, and over maps, too, where these are to be counted. What is large, strings and bytes, is
stepped over. So the scan costs little beside the reading, whatever the body is made of.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from app.wire.forms import UNBOUNDED, Malformed, Most, measured

MEDIA_TYPE = "application/msgpack"

_SHORT = 32
"""Bytes from which a string is stepped over."""
_LONE = b"|".join(
    [
        rb"[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]",  # small integers, nil, booleans
        rb"[\xcb\xcf\xd3].{8}",
        rb"[\xca\xce\xd2].{4}",
        rb"[\xcd\xd1].{2}",
        rb"[\xcc\xd0].",
        rb"(?:[\x90-\x9f]|\xdc\x00[\x00-\x0f]|\xdd\x00{3}[\x00-\x0f])",  # of a short list, its header is all here
        rb"\x80",
        rb"(?:[\xc4\xd9]|[\xc5\xda]\x00|[\xc6\xdb]\x00{3})(?:%s)"
        % b"|".join(b"%s.{%d}" % (re.escape(bytes([size])), size) for size in range(_SHORT)),
        rb"(?=[\xa0-\xbf])(?:%s)"
        % b"|".join(b"%s.{%d}" % (re.escape(bytes([0xA0 + size])), size) for size in range(_SHORT)),
    ]
)
_MAP = rb"[\x81-\x8f]"
_ONE = re.compile(_LONE, re.DOTALL)
_RUN = re.compile(b"(?:%s){0,4096}+" % _LONE, re.DOTALL)
_EACH = re.compile(b"(%s)|(?:%s)" % (_MAP, _LONE), re.DOTALL)
_RUN_WITH_MAPS = re.compile(b"(?:%s|%s){0,4096}+" % (_MAP, _LONE), re.DOTALL)


class _Header(NamedTuple):
    """The first byte of something long: how many bytes tell its size, and what that counts."""

    width: int
    """Bytes that the size has."""
    is_plain: bool = False
    """Whether the size is that of bytes which follow as they are."""
    is_map: bool = False


_HEADERS = {
    **dict.fromkeys((0xC4, 0xD9), _Header(1, is_plain=True)),
    **dict.fromkeys((0xC5, 0xDA), _Header(2, is_plain=True)),
    **dict.fromkeys((0xC6, 0xDB), _Header(4, is_plain=True)),
    0xDC: _Header(2),
    0xDD: _Header(4),
    0xDE: _Header(2, is_map=True),
    0xDF: _Header(4, is_map=True),
}
_NUMBERS = frozenset(range(0xA0, 0xC0)) | frozenset(range(0xCA, 0xD4))
"""First bytes of what a run takes in, unless the body ends within."""


def decode(body: bytes, most: Most = UNBOUNDED) -> Any:
    """Python objects from MessagePack. Raises Malformed, also for maps with a key twice or one that is no string;
    TooMuch where it holds more than `most`."""
    keys = _keys(body, most)
    try:
        value = msgspec.msgpack.decode(body)
    except RecursionError:
        raise Malformed("arrays and maps are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"a string is not UTF-8: {error.reason}") from None
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError, TypeError) as error:
        raise Malformed(str(error)) from None
    found = measured(value, most.json_nesting)
    most.check("json_nesting", found.depth)
    if found.names != keys:
        raise Malformed("a map has the same key twice")
    return value


def _keys(body: bytes, most: Most) -> int:
    """How many keys all maps declare together.

    Raises Malformed for what no JSON could say, and for sizes that the body has no room for.
    """
    at = keys = parts = values = 0
    is_long = len(body) > most.body_values
    while at < len(body):
        start, at = at, _RUN.match(body, at).end()  # type: ignore[union-attr]
        if is_long:
            values += _ONE.subn(b"", body[start:at])[1]
            most.check("body_values", values)
        first = body[at] if at < len(body) else None
        if first is None or _ONE.match(body, at):
            continue
        if 0x80 < first <= 0x8F:
            start, at = at, _RUN_WITH_MAPS.match(body, at).end()  # type: ignore[union-attr]
            found = _EACH.findall(body, start, at)
            maps = b"".join(found)
            size, is_map, values = sum(maps) - 0x80 * len(maps), True, values + len(found)
        else:
            width, is_plain, is_map = _header(first)
            at, values = at + 1 + width, values + 1
            size = int.from_bytes(body[at - width : at])
            if is_plain:
                at, size = at + size, 0
        parts += size * (1 + is_map)
        keys += size * is_map
        if at > len(body) or parts > len(body):
            raise Malformed("it ends too early, or a size in it is wrong")
        if is_long:
            most.check("body_values", max(parts, values))
    return keys


def _header(first: int) -> _Header:
    if first in _HEADERS:
        return _HEADERS[first]
    if first in _NUMBERS:
        raise Malformed("it ends too early")
    raise Malformed("extension types are not read here" if first != 0xC1 else "no value begins with the byte c1")


def encode(value: Any) -> bytes:
    """MessagePack from Python objects. NaN and infinities outside of tensors must be strings already."""
    return msgspec.msgpack.encode(value)
