"""The API document is kept: schemathesis makes requests that it allows and that it does not, and checks every answer."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, settings

from app.main import create_app
from app.settings import Settings
from engine.limits import Limits

APP = create_app(Settings(store="memory", seconds=5, limits=Limits(taylor_order=8, nested_order=5, elements=100_000)))
CONFIG = schemathesis.Config.from_dict({"checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 404, 422]}}})
"""What a document cannot say of a graph is refused with 422."""
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP, config=CONFIG)


@SCHEMA.parametrize()
@settings(max_examples=5, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_route_keeps_to_the_document(case: schemathesis.Case) -> None:
    case.call_and_validate()
