"""The API document is kept: schemathesis asks what it allows and what it does not, and checks every answer."""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings

from app.main import create_app
from app.settings import Settings
from engine.limits import Limits

APP = create_app(Settings(store="memory", seconds=5, limits=Limits(taylor_order=8, nested_order=5, elements=100_000)))
CONFIG = schemathesis.Config.from_dict(
    {
        "checks": {
            "positive_data_acceptance": {"expected-statuses": ["2xx", 404, 422, 504]},
            "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 504]},
        }
    }
)
"""What a document cannot say of a graph is refused with 422; and who asks for a `timeout` of 1e-113 s gets a 504."""
QUIET: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP, config=CONFIG)


@SCHEMA.parametrize()
@settings(max_examples=5, derandomize=True, **QUIET)
def test_every_route_keeps_to_the_document(case: schemathesis.Case) -> None:
    case.call_and_validate()
