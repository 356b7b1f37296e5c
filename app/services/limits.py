"""The list of all limits, out of the settings that hold them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from app.settings import Settings
from engine.limits import Limits

OWN = (
    "seconds",
    "body_bytes",
    "msgpack_bytes",
    "url_bytes",
    "header_bytes",
    "headers",
    "header_seconds",
    "body_seconds",
    "framing_bytes",
    "answer_bytes",
    "json_nesting",
    "body_values",
    "graphs",
    "graphs_bytes",
    "svg_parts",
)
"""Settings of the service that are limits of a request."""


def all_limits(settings: Settings) -> list[dict[str, Any]]:
    """Name, maximum and meaning of every limit."""
    rows = [(name, getattr(settings, name), Settings.model_fields[name].description or "") for name in OWN]
    rows += [(each.name, getattr(settings.limits, each.name), each.metadata["doc"]) for each in fields(Limits)]
    return [{"name": name, "max": most, "doc": doc} for name, most, doc in rows]
