"""What is counted, and what it means: the table of METRICS, and the counts of one process.

A count is a number in a dictionary, made by the event loop's thread alone: no locks, a fraction of a microsecond. What
others count for themselves (caches, queues, workers) is read when somebody asks. Where several processes serve, each
puts its figures into a file of a directory that they share, once in a while, and whoever is asked adds them up; a
process that starts goes on from the counts of one that ended, so that no counter ever runs backwards.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from prometheus_client import ProcessCollector

from app import __version__
from app.seen import Ops
from app.services.cache import Cache

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

Labels = tuple[str, ...]
Number = float | list[float]
"""A count, or those of a histogram's buckets with the sum of what was observed at the end."""
BOUNDS = (*(digit * 10.0**power for power in range(-5, 1) for digit in (1, 2.5, 5)), 10.0, 30.0, 60.0)
"""Upper ends of the buckets of a histogram, in seconds."""


class Metric(NamedTuple):
    """A row of the table. Over several processes its values are added up, or `merged` in another way."""

    name: str
    kind: str
    doc: str
    labels: Labels = ()
    merged: Callable[[Iterable[float]], float] = sum


METRICS = (
    Metric("gradwire_requests_total", COUNTER, "Requests that were answered", ("route", "method", "status")),
    Metric("gradwire_requests_in_progress", GAUGE, "Requests that are being answered"),
    Metric("gradwire_request_seconds", HISTOGRAM, "Time from a request's head to the end of its answer", ("route",)),
    Metric("gradwire_stage_seconds", HISTOGRAM, "Time that requests spent in a stage of their way", ("stage",)),
    Metric("gradwire_received_bytes_total", COUNTER, "Bytes of bodies that were received"),
    Metric("gradwire_sent_bytes_total", COUNTER, "Bytes of bodies that were sent"),
    Metric("gradwire_problems_total", COUNTER, "Requests that ended in a problem, by its code", ("code",)),
    Metric("gradwire_limits_hit_total", COUNTER, "Requests that were over a limit, by its name", ("limit",)),
    Metric("gradwire_ops_total", COUNTER, "Steps of plans that were run, by their op", ("op",)),
    Metric("gradwire_cache_hits_total", COUNTER, "What was asked of a cache and found in it", ("cache",)),
    Metric("gradwire_cache_misses_total", COUNTER, "What was asked of a cache and not in it", ("cache",)),
    Metric("gradwire_cache_entries", GAUGE, "What is in a cache", ("cache",)),
    Metric("gradwire_cache_bytes", GAUGE, "Bytes of what is in a cache, by its own account", ("cache",)),
    Metric("gradwire_queue_length", GAUGE, 'Requests that wait for their turn; `stage="queue"` has how long they did'),
    Metric("gradwire_flight_bytes", GAUGE, "Bytes that running requests hold, as they were planned"),
    Metric("gradwire_flight_most_bytes", GAUGE, "Bytes that running requests may hold together"),
    Metric("gradwire_running", GAUGE, "Requests that have a place on a road", ("road",)),
    Metric("gradwire_computed_total", COUNTER, "Requests that were computed, by the road that did it", ("road",)),
    Metric("gradwire_workers", GAUGE, "Worker processes that are alive"),
    Metric("gradwire_workers_started_total", COUNTER, "Worker processes that were started"),
    Metric(
        "gradwire_workers_lost_total",
        COUNTER,
        "Worker processes that ended, or were killed, before the service did",
    ),
    Metric("gradwire_workers_resident_bytes", GAUGE, "Memory of the worker processes"),
    Metric("gradwire_log_lines_dropped_total", COUNTER, "Lines of the log that nobody took in time"),
    Metric("gradwire_processes", GAUGE, "Processes that serve"),
    Metric("gradwire_build_info", GAUGE, "1, for its labels", ("version", "python", "numpy"), max),
    Metric("process_cpu_seconds_total", COUNTER, "Processor time of the serving processes"),
    Metric("process_resident_memory_bytes", GAUGE, "Memory of the serving processes"),
    Metric("process_virtual_memory_bytes", GAUGE, "Address space of the serving processes"),
    Metric("process_open_fds", GAUGE, "Files and connections that the serving processes have open"),
    Metric("process_max_fds", GAUGE, "Files and connections that a serving process may have open", (), min),
    Metric("process_start_time_seconds", GAUGE, "When the first serving process started, in Unix time", (), min),
)
BY_NAME = {metric.name: metric for metric in METRICS}
MOST_PLANS = 1000
"""Different plans whose runs are counted before they are counted by op."""

Sample = tuple[str, Labels, Number]


class Figures:
    """The counts of one process. For the event loop's thread alone."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[Labels, float]] = defaultdict(dict)
        self._times: dict[str, dict[str, list[float]]] = defaultdict(dict)
        self._reads: list[tuple[str, Labels, Callable[[], float]]] = []
        self._runs: dict[Ops, int] = {}
        build = (__version__, sys.version.split()[0], np.__version__)
        self.observe({"gradwire_build_info": lambda: 1.0}, *build)
        self.observe({"gradwire_processes": lambda: 1.0})

    def add(self, name: str, labels: Labels = (), amount: float = 1) -> None:
        """Count something, or `amount` of it."""
        kept = self._counts[name]
        kept[labels] = kept.get(labels, 0) + amount

    def expect(self, name: str, values: Iterable[str]) -> None:
        """Begin at 0 with each value of the one label: what first appears as 1 is no increase to Prometheus."""
        for value in values:
            self.add(name, (value,), 0)

    def time(self, name: str, times: Mapping[str, float]) -> None:
        """Put times into a histogram, each under its value of the one label."""
        kept = self._times[name]
        for value, seconds in times.items():
            found = kept.get(value)
            if found is None:
                found = kept[value] = [0.0] * (len(BOUNDS) + 2)
            found[bisect_left(BOUNDS, seconds)] += 1
            found[-1] += seconds

    def ran(self, ops: Ops) -> None:
        """Count a run of a plan that has these ops."""
        self._runs[ops] = self._runs.get(ops, 0) + 1
        if len(self._runs) > MOST_PLANS:
            self._count_ops()

    def observe(self, reads: Mapping[str, Callable[[], float]], *labels: str) -> None:
        """Read metrics from these callables whenever somebody asks, each under the same labels.

        Raises KeyError for what is not in the table, and ValueError for labels that it does not have.
        """
        for name, read in reads.items():
            if len(BY_NAME[name].labels) != len(labels):
                raise ValueError(f"{name} has the labels {BY_NAME[name].labels}, not {labels}")
            self._reads.append((name, labels, read))

    def observe_caches(self, **caches: Cache[Any]) -> None:
        """Read the counts of caches, each under its name."""
        for name, cache in caches.items():
            reads: dict[str, Callable[[], float]] = {
                "gradwire_cache_hits_total": partial(getattr, cache, "hits"),
                "gradwire_cache_misses_total": partial(getattr, cache, "misses"),
                "gradwire_cache_entries": cache.__len__,
                "gradwire_cache_bytes": partial(getattr, cache, "bytes"),
            }
            self.observe(reads, name)

    def samples(self) -> Iterator[Sample]:
        """All there is to say now."""
        self._count_ops()
        for name, counts in self._counts.items():
            yield from ((name, labels, number) for labels, number in counts.items())
        for name, times in self._times.items():
            yield from ((name, (value,), number) for value, number in times.items())
        for name, labels, read in self._reads:
            yield name, labels, float(read())
        yield from _of_process()

    def _count_ops(self) -> None:
        runs, self._runs = self._runs, {}
        total: Counter[str] = Counter()
        for ops, times in runs.items():
            total.update({op: times * many for op, many in ops})
        for op, many in total.items():
            self.add("gradwire_ops_total", (op,), many)


def _of_process() -> Iterator[Sample]:
    for family in ProcessCollector(registry=None).collect():
        for sample in family.samples:
            yield sample.name, (), sample.value


def merged(parts: Iterable[Iterable[Sample]]) -> dict[str, dict[Labels, Number]]:
    """The samples of several processes as one, by metric, in the table's order."""
    found: dict[str, dict[Labels, list[Number]]] = {metric.name: defaultdict(list) for metric in METRICS}
    for part in parts:
        for name, labels, number in part:
            found[name][tuple(labels)].append(number)
    return {
        name: {labels: _merged(numbers, BY_NAME[name].merged) for labels, numbers in by_labels.items()}
        for name, by_labels in found.items()
    }


def _merged(numbers: list[Number], merge: Callable[[Iterable[float]], float]) -> Number:
    buckets = [number for number in numbers if isinstance(number, list)]
    if buckets:
        return [sum(bucket) for bucket in zip(*buckets, strict=True)]
    return merge(number for number in numbers if not isinstance(number, list))
