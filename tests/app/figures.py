"""Reading /metrics as Prometheus does."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families


class Scraped(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Samples by name and labels: `found.of("gradwire_requests_total", route="/grad")` adds up all that fit."""

    def of(self, name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(value for (each, has), value in self.items() if each == name and has >= wanted)

    def labels(self, name: str, label: str) -> set[str]:
        """All values that a label has."""
        return {dict(has)[label] for each, has in self if each == name}


def scraped(client: httpx.Client) -> Scraped:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(response.text)
    samples = [sample for family in families for sample in family.samples]
    found = Scraped({(each.name, frozenset(each.labels.items())): each.value for each in samples})
    assert len(found) == len(samples), "no series stands twice"
    return found
