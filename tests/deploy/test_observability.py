"""What watches the service: dashboard, alerts and their compose profile ask for what it really tells."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from app.problems import CODES
from app.services.figures import BY_NAME, COUNTER, HISTOGRAM
from docs.dashboard import PANELS
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
PROVISIONED = DEPLOY / "grafana" / "provisioning"
WATCHERS = {name: each for name, each in COMPOSE["services"].items() if each.get("profiles") == ["observability"]}

METRIC = re.compile(r"\b(?:gradwire|process)_\w+")
SERIES = re.compile(r"((?:gradwire|process)_\w+)(?:\{([^}]*)\})?(\[)?")
GIVEN = {"instance", "job", "le"}
"""Labels that Prometheus adds, or a histogram."""
ENDINGS = re.compile("_(bucket|sum|count)$")

QUERIES = {f"{panel.title}: {legend}": line for panel in PANELS for legend, line in panel.lines.items()}
QUERIES |= {rule["alert"]: rule["expr"] for rule in ALERTS}


def faults(query: str) -> list[str]:
    """What is wrong with a query: metrics and labels that the service lacks, and rates of what does not only rise."""
    found: list[str] = []
    known = GIVEN.copy()
    for name, selectors, window in SERIES.findall(query):
        metric = BY_NAME.get(name) or BY_NAME.get(ENDINGS.sub("", name))
        if metric is None or (metric.kind == HISTOGRAM) != bool(ENDINGS.search(name)):
            found.append(f"no metric {name}")
            continue
        if bool(window) != (metric.kind in (COUNTER, HISTOGRAM)):
            found.append(f"{name} is a {metric.kind}")
        known |= set(metric.labels)
        found += [f"{name} has no {label}" for label in _labels(selectors) if label not in {*metric.labels, *GIVEN}]
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(",")}
    return found + [f"no label {label}" for label in grouped - known]


def _labels(selectors: str) -> list[str]:
    return re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selectors)


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_asks_for_what_there_is(query: str) -> None:
    assert METRIC.search(query) or "up{" in query
    assert not faults(query)


WRONG = {
    "sum (rate(gradwire_request_total[5m]))": "no metric gradwire_request_total",
    "sum by (path) (rate(gradwire_requests_total[5m]))": "no label path",
    'rate(gradwire_requests_total{path="/"}[5m])': "gradwire_requests_total has no path",
    "rate(gradwire_queue_length[5m])": "gradwire_queue_length is a gauge",
    "gradwire_requests_total": "gradwire_requests_total is a counter",
    "rate(gradwire_stage_seconds[5m])": "no metric gradwire_stage_seconds",
}


@pytest.mark.parametrize(("query", "fault"), WRONG.items())
def test_a_wrong_query_is_found(query: str, fault: str) -> None:
    assert faults(query) == [fault]


def test_legends_name_labels_of_their_lines() -> None:
    for panel in PANELS:
        for legend, line in panel.lines.items():
            labels = {label for name in METRIC.findall(line) for label in BY_NAME[ENDINGS.sub("", name)].labels}
            assert set(re.findall(r"{{(\w+)}}", legend)) <= labels | GIVEN, panel.title


def test_alerts_name_codes_that_there_are() -> None:
    codes = {code for rule in ALERTS for code in re.findall(r'code="(\w+)"', rule["expr"])}
    assert codes
    assert codes <= set(CODES)


def test_everything_that_counts_a_fault_or_a_wait_is_shown() -> None:
    shown = {ENDINGS.sub("", name) for query in QUERIES.values() for name in METRIC.findall(query)}
    ours = {name for name in BY_NAME if name.startswith("gradwire_")}
    assert ours - shown == {"gradwire_processes"}


def test_panels_lie_side_by_side() -> None:
    whole = json.loads((DEPLOY / "grafana" / "dashboards" / "gradwire.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in whole["panels"]]
    assert len(set(places)) == len(places) == len(PANELS)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in whole["panels"])


def test_prometheus_asks_the_service_where_it_listens() -> None:
    (job,) = PROMETHEUS["scrape_configs"]
    name, port = job["static_configs"][0]["targets"][0].split(":")
    assert job["metrics_path"] == "/metrics"
    assert COMPOSE["services"][name]["ports"][0].endswith(f":{port}")
    assert all((DEPLOY / "prometheus" / each).is_file() for each in PROMETHEUS["rule_files"])


def test_grafana_finds_its_source_and_dashboard() -> None:
    (source,) = yaml.safe_load((PROVISIONED / "datasources" / "prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((PROVISIONED / "dashboards" / "gradwire.yml").read_text())["providers"]
    whole = json.loads((DEPLOY / "grafana" / "dashboards" / "gradwire.json").read_text())
    assert {panel["datasource"]["uid"] for panel in whole["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    mounted = {target: ROOT / path for path, target, *_ in map(_mount, WATCHERS["grafana"]["volumes"])}
    assert (mounted[provider["options"]["path"]] / "gradwire.json").is_file()
    assert (mounted["/etc/grafana/provisioning"] / "dashboards").is_dir()


def _mount(volume: str) -> list[str]:
    return volume.split(":")


@pytest.mark.parametrize("name", ["prometheus", "grafana"])
def test_a_watcher_is_pinned_private_and_cannot_do_much(name: str) -> None:
    service: dict[str, Any] = WATCHERS[name]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    for source, _, *mode in map(_mount, service["volumes"]):
        assert source in COMPOSE["volumes"] or ((ROOT / source).exists() and mode == ["ro"])


def test_nothing_watches_unless_it_is_asked_for() -> None:
    assert WATCHERS.keys() == {"prometheus", "grafana"}
    assert "profiles" not in COMPOSE["services"]["api"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus is not installed here")
def test_prometheus_takes_its_configuration() -> None:
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=DEPLOY / "prometheus", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
