"""Traces: a span for a request and one for each stage, in the caller's trace, without what was asked; and sent on."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace

from app.http import tracing
from tests.app.support import ask, refused
from tests.conftest import AppClient, serving

sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

BODY: dict[str, Any] = {"expression": "secretive = x * sin(x)", "inputs": {"x": 0.5}}
STAGES = {"gradwire.parse", "gradwire.compile", "gradwire.run", "gradwire.encode"}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Where the spans of applications that are made meanwhile go, when they have ended."""
    provider = sdk.TracerProvider()
    kept = memory.InMemorySpanExporter()
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    return kept.get_finished_spans


def named(spans: Any) -> dict[str, Any]:
    return {span.name: span for span in spans()}


ROADS: dict[str, dict[str, Any]] = {"line": {}, "worker": {"inline_bytes": 0, "thread_bytes": 0, "processes": 1}}


@pytest.mark.parametrize(("road", "settings"), ROADS.items(), ids=ROADS)
def test_a_request_and_its_stages_are_spans(
    app_client: AppClient, spans: Any, road: str, settings: dict[str, Any]
) -> None:
    ask(app_client(**settings), "/grad", BODY)
    found = named(spans)
    whole = found.pop("POST /grad")
    assert whole.attributes["gradwire.road"] == road
    assert found.keys() == STAGES | ({"gradwire.queue"} if road == "worker" else set())
    for stage in found.values():
        assert stage.parent.span_id == whole.context.span_id
        assert stage.context.trace_id == whole.context.trace_id
        assert whole.start_time - 1_000_000 <= stage.start_time <= stage.end_time


def test_a_request_is_part_of_its_callers_trace(app_client: AppClient, spans: Any) -> None:
    app_client().get("/healthz", headers=PARENT | {"X-Request-ID": "mine"})
    span = named(spans)["GET /healthz"]
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    assert span.attributes["gradwire.request_id"] == "mine"


def test_spans_say_what_came_of_it_and_nothing_of_what_was_asked(app_client: AppClient, spans: Any) -> None:
    client = app_client()
    client.get("/grad", params={"expr": "secretive**2", "secretive": "271828"})
    refused(client, "/grad", BODY | {"expression": "secretive ="}, "syntax_error")
    ask(client, "/grad", BODY)
    codes = [span.attributes.get("gradwire.code") for span in spans() if span.name == "POST /grad"]
    assert codes == ["syntax_error", None]
    told = " ".join(f"{span.name} {dict(span.attributes)} {span.events} {span.status.description}" for span in spans())
    assert "secretive" not in told
    assert "271828" not in told


def test_nothing_is_made_where_nobody_collects(app_client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing.trace, "get_current_span", pytest.fail)
    monkeypatch.setattr(tracing.trace, "get_tracer", pytest.fail)
    ask(app_client(), "/grad", BODY)


class Collector(HTTPServer):
    """Takes what is sent to it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.taken: list[tuple[str, bytes]] = []


class Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as it:
        thread = threading.Thread(target=it.serve_forever)
        thread.start()
        yield it
        it.shutdown()
        thread.join()


def test_spans_are_sent_where_the_environment_says(tmp_path: Path, collector: Collector) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    message = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_SERVICE_NAME": "ours",
        "GRADWIRE_LOG_FORMAT": "text",
    }
    with serving(tmp_path / "log", **environment) as (url, _):
        assert httpx.post(f"{url}/grad", json=BODY, headers=PARENT).status_code == 200
    assert {path for path, _ in collector.taken} == {"/v1/traces"}
    sent = [message.ExportTraceServiceRequest.FromString(body) for _, body in collector.taken]
    spans = [
        span for each in sent for part in each.resource_spans for scope in part.scope_spans for span in scope.spans
    ]
    ours = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    assert ours.keys() == {"POST /grad"} | STAGES
    resource = {each.key: each.value.string_value for each in sent[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "ours"
    log = (tmp_path / "log").read_text()
    assert re.search(f"trace_id={TRACE} span_id={ours['POST /grad'].span_id.hex()}", log), "the log names the span"
    assert b"secretive" not in b"".join(body for _, body in collector.taken)
