"""`python -m benchmarks.bare`: the least that a service could do, under the service's own server settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from app.services.machine import spare_collector
from app.serving import config_of
from app.settings import Settings

JSON, MSGPACK = "application/json", "application/msgpack"

app = FastAPI()


@app.post("/echo")
async def echo(request: Request) -> Response:
    """The body parsed, and written again."""
    return Response(orjson.dumps(orjson.loads(await request.body())), media_type=JSON)


@app.post("/echo/model")
async def echo_through_fastapi(body: dict[str, Any]) -> dict[str, Any]:
    """The same, left to FastAPI."""
    return body


@app.post("/copy")
async def copy(request: Request) -> Response:
    """The body's bytes, in and out."""
    return Response(await request.body(), media_type=MSGPACK)


@app.post("/sum-of-squares")
async def sum_of_squares(request: Request) -> Response:
    """The answer to one question, with nothing around it but a codec."""
    media_type = request.headers["content-type"]
    return Response(BY_HAND[media_type](await request.body()), media_type=media_type)


def _in_json(body: bytes) -> bytes:
    return encoded(_answer(np.array(orjson.loads(body)["inputs"]["x"], float), written))


def _in_msgpack(body: bytes) -> bytes:
    tensor = msgspec.msgpack.decode(body)["inputs"]["x"]
    return msgspec.msgpack.encode(_answer(np.frombuffer(tensor["data"], tensor["dtype"]), packed))


BY_HAND: dict[str, Callable[[bytes], bytes]] = {JSON: _in_json, MSGPACK: _in_msgpack}


def _answer(x: Any, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Value and gradient of sum(x * x), in the form of the service's answer."""
    return {"values": {"out": write(x @ x)}, "gradients": {"x": write(2.0 * x)}}


def written(array: Any) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": array}


def packed(array: Any) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": array.tobytes()}


def encoded(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


if __name__ == "__main__":
    settings = Settings()
    config = config_of(settings, app)
    config.http = "httptools"  # which the service's own protocol is made of
    spare_collector()
    uvicorn.Server(config).run()
