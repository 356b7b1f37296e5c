"""MessagePack in and out: the fields of JSON, with the bytes of a tensor as they lie in memory."""

from __future__ import annotations

from typing import Any

import msgspec

from app.wire.forms import Malformed

MEDIA_TYPE = "application/msgpack"


def decode(body: bytes) -> Any:
    """Python objects from MessagePack. Raises Malformed, also for maps whose keys are not strings."""
    try:
        value = msgspec.msgpack.decode(body)
    except RecursionError:
        raise Malformed("arrays and maps are nested too deeply") from None
    except UnicodeDecodeError as error:
        raise Malformed(f"a string is not UTF-8: {error.reason}") from None
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise Malformed(str(error)) from None
    _check_keys(value)
    return value


def _check_keys(value: Any) -> None:
    level = [value]
    while level:
        maps = [each for each in level if isinstance(each, dict)]
        if any(not isinstance(key, str) for each in maps for key in each):
            raise Malformed("the keys of a map are strings")
        lists = [each for each in level if isinstance(each, list)]
        level = [inner for each in maps for inner in each.values() if isinstance(inner, dict | list)]
        level += [inner for each in lists for inner in each if isinstance(inner, dict | list)]


def encode(value: Any) -> bytes:
    """MessagePack from Python objects. NaN and infinities outside of tensors must be strings already."""
    return msgspec.msgpack.encode(value)
