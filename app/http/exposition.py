"""Figures in Prometheus's text format, or in OpenMetrics where the client asks for that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from app.services.figures import BOUNDS, BY_NAME, COUNTER, GAUGE, Labels, Number

ENDS = (*map(str, BOUNDS), "+Inf")
FAMILIES = {COUNTER: CounterMetricFamily, GAUGE: GaugeMetricFamily}

Found = Mapping[str, Mapping[Labels, Number]]


def exposition(found: Found, accept: str) -> tuple[bytes, str]:
    """The text, and its media type."""
    registry = CollectorRegistry()
    registry.register(_Found(found))
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


class _Found(Collector):
    """Figures as prometheus-client wants them."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        for name, by_labels in self._found.items():
            yield _family(name, by_labels)


def _family(name: str, by_labels: Mapping[Labels, Number]) -> Metric:
    metric = BY_NAME[name]
    if metric.kind in FAMILIES:
        family: CounterMetricFamily | GaugeMetricFamily = FAMILIES[metric.kind](name, metric.doc, labels=metric.labels)
        for labels, number in by_labels.items():
            assert not isinstance(number, list)
            family.add_metric(labels, number)
        return family
    histogram = HistogramMetricFamily(name, metric.doc, labels=metric.labels)
    for labels, number in by_labels.items():
        assert isinstance(number, list)
        histogram.add_metric(labels, list(zip(ENDS, accumulate(number[:-1]), strict=True)), number[-1])
    return histogram
