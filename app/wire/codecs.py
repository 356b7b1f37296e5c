"""The forms in which bodies come and go, by media type: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from app.wire import json, msgpack
from app.wire.forms import Most
from engine.calls import TENSOR_FIELDS


@dataclass(frozen=True)
class Codec:
    """One form. `decode` raises Malformed and TooMuch; `tensors` is how tensors are written, where it is settled."""

    name: str
    media_types: tuple[str, ...]
    decode: Callable[[bytes, Most], Any]
    encode: Callable[[Any], bytes]
    embed: Callable[[bytes], Any]
    """Makes of what is encoded already a value that `encode` takes as it is."""
    limit: str
    """The setting that bounds a body of this form."""
    op: bytes
    """How the field `op` of a node begins."""
    growth: int
    """How often its bytes a body takes while it is read, at the worst: as they came, as they are parsed, as values."""
    tensors: str | None = None

    @property
    def media_type(self) -> str:
        return self.media_types[0]


def _decode_json(body: bytes, most: Most) -> Any:
    return json.decode(body, TENSOR_FIELDS, most)


JSON = Codec("JSON", (json.MEDIA_TYPE,), _decode_json, json.encode, orjson.Fragment, "body_bytes", b'"op"', 14)
MSGPACK = Codec(
    "MessagePack",
    (msgpack.MEDIA_TYPE, "application/vnd.msgpack", "application/x-msgpack"),
    msgpack.decode,
    msgpack.encode,
    msgspec.Raw,
    "msgpack_bytes",
    b"\xa2op",
    3,
    tensors="bytes",
)
CODECS = (JSON, MSGPACK)
BY_MEDIA_TYPE = {media_type: codec for codec in CODECS for media_type in codec.media_types}
