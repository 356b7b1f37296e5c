"""`python -m benchmarks.bare`: the least that a service could do, under the service's own server settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

import app.__main__ as service

app = FastAPI()


@app.post("/echo")
async def echo(request: Request) -> Response:
    """The body parsed, and written again."""
    return _json(orjson.loads(await request.body()))


@app.post("/echo/model")
async def echo_through_fastapi(body: dict[str, Any]) -> dict[str, Any]:
    """The same, left to FastAPI."""
    return body


@app.post("/sum-of-squares")
async def sum_of_squares(request: Request) -> Response:
    """The answer to one question, with nothing around it but a codec."""
    return _json(sum_of_squares_of(orjson.loads(await request.body())))


def sum_of_squares_of(body: Any) -> dict[str, Any]:
    """Value and gradient of sum(x * x), in the form of the service's answer."""
    x = np.array(body["inputs"]["x"], float)
    return {"values": {"out": written(x @ x)}, "gradients": {"x": written(2.0 * x)}}


def written(array: Any) -> dict[str, Any]:
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": array}


def encoded(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _json(value: Any) -> Response:
    return Response(encoded(value), media_type="application/json")


if __name__ == "__main__":
    # Its main reads the settings and starts the server; only the application is another one.
    service.create_app = lambda settings=None, registered=None: app
    service.main()
