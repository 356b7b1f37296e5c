"""A row is one piece of work and the contenders that do it; here is how they are declared, compared and timed.

Contenders take turns, a sample each, so that a machine that slows down for a while slows all of them. A sample is one
call, or as many as make a few milliseconds; a row ends when its budget is spent, but not before a few samples of each.
The median of the samples is the figure. The garbage collector stays on, as it is in the service.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

OURS = "gradwire"
BY_HAND = "by hand"

SAMPLE_SECONDS = 0.002
LEAST_SAMPLES = 3
MOST_SAMPLES = 201
ROUGH_SECONDS = 1.0
"""A budget below this takes a single sample of what is slow."""


def numbers_of(result: Any) -> list[np.ndarray]:
    """The arrays and numbers of a result, in order: dicts and sequences are walked, tensors of other systems read."""
    if isinstance(result, Mapping):
        return numbers_of(list(result.values()))
    if isinstance(result, list | tuple):
        return [each for part in result for each in numbers_of(part)]
    return [np.asarray(result.detach() if hasattr(result, "detach") else result)]


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a row: `run` is timed; `read` makes comparable numbers of what it returned.

    `read` gives None where the work is another one by design (a floor), which no numbers can be compared with.
    """

    run: Callable[[], Any]
    read: Callable[[Any], list[np.ndarray] | None] = numbers_of


@dataclass(frozen=True)
class Row:
    """One piece of work. `contenders` sets it up; what must be closed afterwards goes on the stack.

    In a row with `parameter` the contenders are ours alone, at growing sizes, and are called by their size.
    """

    name: str
    title: str
    group: str
    contenders: Callable[[ExitStack], dict[str, Contender]]
    parameter: str | None = None
    tolerance: float = 1e-9
    """Largest difference between contenders, relative to the largest magnitude in each array."""


ROWS: dict[str, Row] = {}


def enter(row: Row) -> Row:
    """Add a row to the benchmarks."""
    if row.name in ROWS:
        raise ValueError(f"two rows are called {row.name!r}")
    ROWS[row.name] = row
    return row


class Disagreement(Exception):
    """Two contenders of a row gave different numbers: they do not do the same work."""


def check_agreement(row: Row, contenders: Mapping[str, Contender]) -> int:
    """Run every contender once, and hold its numbers against the first one's; how many were held.

    Raises Disagreement.
    """
    read = {name: each.read(each.run()) for name, each in contenders.items()}
    comparable = {name: found for name, found in read.items() if found is not None}
    first, *others = comparable
    for name in others:
        gap = _gap(comparable[first], comparable[name])
        if not gap <= row.tolerance:
            raise Disagreement(f"{row.name}: {name} is {gap:.1e} away from {first}; {row.tolerance:.0e} is allowed")
    return len(others)


def _gap(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The largest relative difference; infinite where the numbers are not even of one shape."""
    if [each.shape for each in expected] != [each.shape for each in actual]:
        return np.inf
    gaps = [
        np.abs(b - a).max(initial=0.0) / (np.abs(a).max(initial=0.0) or 1.0)
        for a, b in zip(expected, actual, strict=True)
    ]
    return float(np.max(gaps))


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median of the samples, and their quartiles."""

    median: float
    lower: float
    upper: float
    samples: int
    calls: int
    """How many calls one sample is the mean of."""


def time_row(row: Row, seconds: float) -> dict[str, Timing]:
    """Set a row up, see that its contenders agree, and time them for about `seconds`. Raises Disagreement."""
    with ExitStack() as stack:
        contenders = row.contenders(stack)
        if row.parameter is None:
            check_agreement(row, contenders)
        with _settled_heap():
            return time_contenders({name: each.run for name, each in contenders.items()}, seconds)


@contextmanager
def _settled_heap() -> Iterator[None]:
    """What the set-up made is no part of the work: the collector shall not walk it again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def time_contenders(runs: Mapping[str, Callable[[], Any]], seconds: float) -> dict[str, Timing]:
    """Time these in turns for about `seconds` altogether."""
    end = time.perf_counter() + seconds
    least = LEAST_SAMPLES if seconds >= ROUGH_SECONDS else 1
    first = {name: _first_sample(run) for name, run in runs.items()}
    samples = {name: [spent] for name, (_, spent) in first.items()}
    order = list(runs)
    for count in range(1, MOST_SAMPLES):
        if count >= least and time.perf_counter() >= end:
            break
        for name in order:
            samples[name].append(_sample(runs[name], first[name][0]))
        order.append(order.pop(0))
    return {name: _summary(samples[name], first[name][0]) for name in runs}


def _first_sample(run: Callable[[], Any]) -> tuple[int, float]:
    """How many calls make a sample, and what a call took in the first one."""
    calls, spent = 1, _sample(run, 1)
    while calls * spent < SAMPLE_SECONDS:
        calls = max(2 * calls, min(10 * calls, int(SAMPLE_SECONDS / spent)))
        spent = _sample(run, calls)
    return calls, spent


def _sample(run: Callable[[], Any], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begun) / calls


def _summary(samples: Sequence[float], calls: int) -> Timing:
    lower, median, upper = map(float, np.quantile(samples, (0.25, 0.5, 0.75)))
    return Timing(median, lower, upper, len(samples), calls)


def exponent(timings: Mapping[str, Timing]) -> float:
    """p of time ∝ size^p, fitted by least squares of the logarithms; the contenders are called by their size."""
    sizes = np.log([float(name) for name in timings])
    return float(np.polyfit(sizes, np.log([each.median for each in timings.values()]), 1)[0])
