"""A body as a model: decoded strictly, bounded in depth, and never walked by pydantic further than its structure."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.problems import Problem, over_limit
from app.settings import Settings
from app.wire.codecs import Codec
from app.wire.forms import Malformed, Most, TooMuch
from engine.errors import pointer_to

M = TypeVar("M", bound=BaseModel)
MOST_ERRORS = 10
PLAIN = {
    "model_type": "expected an object",
    "dict_type": "expected an object",
    "list_type": "expected a list",
    "too_short": "expected at least one item",
}
"""What pydantic says of Python's types, in JSON's words."""
TOO_MUCH = {
    "json_nesting": ("lists and objects within one another", 400),
    "body_values": ("values in the body beside long lists of floats, or more", 413),
}
"""What a body may have too many of, and the status for that."""


def decoded(body: bytes, codec: Codec, settings: Settings) -> Any:
    """The plain values of a body. Raises invalid_json, and limit_exceeded where it is too deep or has too many."""
    try:
        return codec.decode(body, Most(settings.json_nesting, settings.body_values))
    except Malformed as error:
        detail = f"the body is not {codec.name}: {str(error)[:200]}"
        raise Problem("invalid_json", detail, pointer=error.pointer) from error
    except TooMuch as error:
        what, status = TOO_MUCH[error.name]
        raise over_limit(error.name, error.most, error.actual, what, status) from None


def validated(model: type[M], value: Any) -> M:
    """The model of a decoded body. Raises invalid_request, with a pointer to the first fault."""
    if isinstance(value, dict) and not value.keys() <= _fields(model):
        _refuse_unknown(value, model)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = [
            _fault(each, value)
            for each in error.errors(include_url=False, include_input=False, include_context=False)[:MOST_ERRORS]
        ]
        where = faults[0]["pointer"] or "the body"
        raise Problem(
            "invalid_request", f"{where[:100]}: {faults[0]['detail']}", pointer=faults[0]["pointer"], errors=faults
        ) from None


@cache
def _fields(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(model.model_fields)


def _refuse_unknown(body: dict[str, Any], model: type[BaseModel]) -> None:
    """Stop at the first field that the model lacks; pydantic would go on to list a million of them."""
    unknown = next(name for name in body if name not in model.model_fields)
    detail = f"this call has no field {unknown[:64]!r}; it has: {', '.join(model.model_fields)}"
    pointer = pointer_to(unknown)
    raise Problem("invalid_request", detail, pointer=pointer, errors=[{"pointer": pointer, "detail": detail}])


def _fault(error: Any, body: Any) -> dict[str, str]:
    """One of pydantic's errors, with a pointer made of those steps of its location that the body has.

    The others are tags of unions, but for the name of a field that is missing.
    """
    steps: list[str | int] = []
    for step in error["loc"]:
        if isinstance(body, dict | list) and _has(body, step):
            steps.append(step)
            body = body[step]
    if error["type"] == "missing":
        steps.append(error["loc"][-1])
    return {"pointer": pointer_to(*steps), "detail": PLAIN.get(error["type"], error["msg"][:200])}


def _has(body: dict[str, Any] | list[Any], step: str | int) -> bool:
    return step in body if isinstance(body, dict) else isinstance(step, int) and step < len(body)
