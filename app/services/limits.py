"""The list of all limits, out of the settings that hold them; and what the machine decides where a setting does not."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from app.services.machine import cores, memory
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
    "memory_bytes",
    "queue",
    "queue_seconds",
    "client_requests",
    "client_rate",
    "connections",
    "keep_alive_seconds",
)
"""Settings of the service that are limits of a request, of a client, or of all that is asked at a time."""
MEMORY_SHARE = 0.6
"""What part of the machine's memory running requests may hold."""


def settled(settings: Settings) -> Settings:
    """The settings with figures for those limits that the machine decides, as it is now."""
    share = MEMORY_SHARE / (settings.workers or cores())
    return settings.model_copy(update={"memory_bytes": settings.memory_bytes or int(memory() * share)})


def all_limits(settings: Settings) -> list[dict[str, Any]]:
    """Name, maximum and meaning of every limit."""
    rows = [(name, getattr(settings, name), Settings.model_fields[name].description or "") for name in OWN]
    rows += [(each.name, getattr(settings.limits, each.name), each.metadata["doc"]) for each in fields(Limits)]
    return [{"name": name, "max": most, "doc": doc} for name, most, doc in rows]
