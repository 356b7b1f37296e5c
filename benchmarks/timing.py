"""A row is one piece of work and the contenders that do it; here is how they are declared, compared and measured.

Contenders take turns, a sample each, so that a machine that slows down for a while slows all of them. A sample is one
run, or as many as make a few milliseconds; a row ends when its budget is spent, but not before a few samples of each.
The median of the samples is the figure. The garbage collector stays on, as it is in the service.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

OURS = "gradwire"
BY_HAND = "by hand"
EXPONENT = "exponent"

SAMPLE_SECONDS = 0.002
SLOW_SECONDS = 0.1
TRIALS = 4
WARM_UPS = 3
"""Runs before the first sample: with its second and third the engine writes a plan out as source."""
LEAST_SAMPLES = 3
MOST_SAMPLES = 201
ROUGH_SECONDS = 1.0
"""A budget below this takes a single sample of what is slow."""

Bounds = float | tuple[float, float]
"""The most that a ratio may be; or the least, and the most."""


def numbers_of(result: Any) -> list[np.ndarray]:
    """The arrays and numbers of a result, in order: dicts and sequences are walked, tensors of other systems read."""
    if isinstance(result, Mapping):
        return numbers_of(list(result.values()))
    if isinstance(result, list | tuple):
        return [each for part in result for each in numbers_of(part)]
    return [np.asarray(result.detach() if hasattr(result, "detach") else result)]


def nothing(result: Any) -> None:
    """What a floor has to show: it does other work by design, so there are no numbers to compare."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a row: `run` is timed; `read` makes comparable numbers of what it returned.

    `read` gives None where the work is another one by design (a floor), which no numbers can be compared with.
    """

    run: Callable[[], Any]
    read: Callable[[Any], list[np.ndarray] | None] = numbers_of
    calls: int = 1
    """How many times one run does the work."""


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
    gauge: str | None = None
    """The unit of what `run` returns, where that is the figure, and not the time that it took: "s" or "B"."""
    marks: Mapping[str, Bounds] = field(default_factory=dict)
    """What is to be reached: our figure over that of a contender, by its name. Under OURS stands a bound for our figure
    itself, under EXPONENT one for the exponent of a growing row."""
    tolerance: float = 1e-9
    """Largest difference between contenders, relative to the largest magnitude in each array."""

    @property
    def unit(self) -> str:
        return self.gauge or "s"


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
    first, *others = comparable or [""]
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
class Figure:
    """What a contender needs for doing the work once: the median of the samples, and their quartiles."""

    median: float
    lower: float
    upper: float
    samples: int
    calls: int
    """How many runs one sample is the mean of."""


def measure(row: Row, seconds: float) -> dict[str, Figure]:
    """Set a row up, see that its contenders agree, and measure them for about `seconds`. Raises Disagreement."""
    with ExitStack() as stack:
        contenders = row.contenders(stack)
        if row.gauge is not None:
            return in_turns({name: _gauged(each) for name, each in contenders.items()}, seconds)
        if row.parameter is None:
            check_agreement(row, contenders)
        for each in contenders.values():
            _seconds(each.run, WARM_UPS if row.parameter else WARM_UPS - 1)
        with _settled_heap():
            return in_turns({name: _timed(each) for name, each in contenders.items()}, seconds)


@contextmanager
def _settled_heap() -> Iterator[None]:
    """What the set-up made is no part of the work: the collector shall not walk it again and again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class Sampler:
    """Where samples come from: `take(calls)` is one of as many calls, and `calls` how many make one."""

    calls: int
    take: Callable[[int], float]


def _gauged(contender: Contender) -> Sampler:
    return Sampler(1, lambda calls: float(contender.run()))


def _timed(contender: Contender) -> Sampler:
    """A sampler of as many calls as make a sample long enough for the clock."""

    def take(calls: int) -> float:
        return _seconds(contender.run, calls) / calls / contender.calls

    calls, spent = 1, _least_seconds(contender.run, 1)
    while spent < SAMPLE_SECONDS:
        calls = max(2 * calls, min(10 * calls, int(calls * SAMPLE_SECONDS / spent)))
        spent = _least_seconds(contender.run, calls)
    return Sampler(calls, take)


def _least_seconds(run: Callable[[], Any], calls: int) -> float:
    """The least of a few: a single call that had to wait for something would make all samples too short."""
    spent = _seconds(run, calls)
    return spent if spent > SLOW_SECONDS else min(spent, *(_seconds(run, calls) for _ in range(TRIALS)))


def _seconds(run: Callable[[], Any], calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        run()
    return time.perf_counter() - begun


def in_turns(samplers: Mapping[str, Sampler], seconds: float) -> dict[str, Figure]:
    """Sample these in turns for about `seconds` altogether."""
    end = time.perf_counter() + seconds
    least = LEAST_SAMPLES if seconds >= ROUGH_SECONDS else 1
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    order = list(samplers)
    for count in range(MOST_SAMPLES):
        if count >= least and time.perf_counter() >= end:
            break
        for name in order:
            samples[name].append(samplers[name].take(samplers[name].calls))
        order.append(order.pop(0))
    return {name: _summary(samples[name], each.calls) for name, each in samplers.items()}


def _summary(samples: Sequence[float], calls: int) -> Figure:
    lower, median, upper = map(float, np.quantile(samples, (0.25, 0.5, 0.75)))
    return Figure(median, lower, upper, len(samples), calls)


def exponent(figures: Mapping[str, Figure]) -> float:
    """p of figure ∝ size^p, fitted by least squares of the logarithms; the contenders are called by their size."""
    sizes = np.log([float(name) for name in figures])
    return float(np.polyfit(sizes, np.log([each.median for each in figures.values()]), 1)[0])


@dataclass(frozen=True)
class Held:
    """A mark, and what was found. `held` is None where the contender was not there."""

    beside: str
    least: float
    most: float
    found: float | None

    @property
    def held(self) -> bool | None:
        return None if self.found is None else self.least <= self.found <= self.most


def held(row: Row, figures: Mapping[str, Figure]) -> list[Held]:
    """The marks of a row, held against its figures."""
    return [_held(beside, bounds, row, figures) for beside, bounds in row.marks.items()]


def _held(beside: str, bounds: Bounds, row: Row, figures: Mapping[str, Figure]) -> Held:
    least, most = bounds if isinstance(bounds, tuple) else (0.0, bounds)
    if beside == EXPONENT:
        return Held(beside, least, most, exponent(figures))
    if beside not in figures:
        return Held(beside, least, most, None)
    ours = figures[OURS].median
    return Held(beside, least, most, ours if beside == OURS else ours / figures[beside].median)


def traced(run: Callable[[], Any]) -> int:
    """What a run has allocated at its peak, as NumPy and Python report it."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
