"""The dashboard, as a table of panels; `make docs` makes Grafana's JSON of it, and a test knows every metric in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

WIDTH, HEIGHT, COLUMNS = 8, 8, 3
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WINDOW = "$__rate_interval"
"""The time over which Grafana takes rates: four scrapes, or more when zoomed out."""


class Panel(NamedTuple):
    """A chart: what it shows, in which of Grafana's units, and its lines by their legend."""

    title: str
    unit: str
    lines: dict[str, str]


def rate(metric: str, by: str = "") -> str:
    """A counter's rate, added up over the service's replicas."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[{WINDOW}]))"


def quantile(share: float, histogram: str, by: str) -> str:
    """The time within which a share of requests was done."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', f'le, {by}')})"


PANELS = (
    Panel("Requests", "reqps", {"{{route}}": rate("gradwire_requests_total", "route")}),
    Panel("Answers by status", "reqps", {"{{status}}": rate("gradwire_requests_total", "status")}),
    Panel("Problems by code", "reqps", {"{{code}}": rate("gradwire_problems_total", "code")}),
    Panel("Latency, median", "s", {"{{route}}": quantile(0.5, "gradwire_request_seconds", "route")}),
    Panel("Latency, 99 %", "s", {"{{route}}": quantile(0.99, "gradwire_request_seconds", "route")}),
    Panel("Requests in progress", "short", {"all": "sum (gradwire_requests_in_progress)"}),
    Panel("Stages, median", "s", {"{{stage}}": quantile(0.5, "gradwire_stage_seconds", "stage")}),
    Panel("Stages, 99 %", "s", {"{{stage}}": quantile(0.99, "gradwire_stage_seconds", "stage")}),
    Panel("Where the time goes", "s", {"{{stage}}": rate("gradwire_stage_seconds_sum", "stage")}),
    Panel(
        "Found in caches",
        "percentunit",
        {
            "{{cache}}": f"{rate('gradwire_cache_hits_total', 'cache')} / "
            f"({rate('gradwire_cache_hits_total', 'cache')} + {rate('gradwire_cache_misses_total', 'cache')})"
        },
    ),
    Panel("Room that caches take", "bytes", {"{{cache}}": "sum by (cache) (gradwire_cache_bytes)"}),
    Panel("In caches", "short", {"{{cache}}": "sum by (cache) (gradwire_cache_entries)"}),
    Panel("Queue", "short", {"waiting": "sum (gradwire_queue_length)"}),
    Panel("Computing", "short", {"{{road}}": "sum by (road) (gradwire_running)"}),
    Panel("Computed", "reqps", {"{{road}}": rate("gradwire_computed_total", "road")}),
    Panel(
        "Workers",
        "short",
        {
            "alive": "sum (gradwire_workers)",
            "started": f"sum (increase(gradwire_workers_started_total[{WINDOW}]))",
            "lost": f"sum (increase(gradwire_workers_lost_total[{WINDOW}]))",
        },
    ),
    Panel("Limits hit", "reqps", {"{{limit}}": rate("gradwire_limits_hit_total", "limit")}),
    Panel("Ops, the ten most run", "ops", {"{{op}}": f"topk(10, {rate('gradwire_ops_total', 'op')})"}),
    Panel(
        "Memory",
        "bytes",
        {
            "{{instance}}": "process_resident_memory_bytes",
            "{{instance}} workers": "gradwire_workers_resident_bytes",
            "{{instance}} planned": "gradwire_flight_bytes",
            "{{instance}} may be planned": "gradwire_flight_most_bytes",
        },
    ),
    Panel("Processor", "short", {"{{instance}}": f"rate(process_cpu_seconds_total[{WINDOW}])"}),
    Panel(
        "Bodies",
        "Bps",
        {"received": rate("gradwire_received_bytes_total"), "sent": rate("gradwire_sent_bytes_total")},
    ),
    Panel("Open files and connections", "short", {"{{instance}}": "process_open_fds"}),
    Panel("Lines of the log dropped", "short", {"all": rate("gradwire_log_lines_dropped_total")}),
    Panel("Versions", "short", {"{{version}}, Python {{python}}, NumPy {{numpy}}": "gradwire_build_info"}),
)


def dashboard() -> str:
    """Grafana's JSON."""
    whole: dict[str, Any] = {
        "uid": "gradwire",
        "title": "Gradwire",
        "tags": ["gradwire"],
        "timezone": "browser",
        "schemaVersion": 41,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": list(_panels()),
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _panels() -> Iterator[dict[str, Any]]:
    for number, panel in enumerate(PANELS):
        row, column = divmod(number, COLUMNS)
        yield {
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": SOURCE,
            "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
            "targets": [
                {"refId": chr(ord("A") + at), "datasource": SOURCE, "expr": line, "legendFormat": legend}
                for at, (legend, line) in enumerate(panel.lines.items())
            ],
        }
