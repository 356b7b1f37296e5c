"""Twice what it can do, for ten minutes: what is small stays quick, what is accepted is answered, memory stays."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from tests.soak.load import Load, Tally
from tests.support.service import Service

CLIENTS, CALIBRATION_SECONDS, WARM_UP_SECONDS = 16, 10.0, 10.0
SMALL_P99_SECONDS = 5.0
"""A wait in the queue, and some for a machine that is busy with the client, too."""
EXPECTED = {200, 201, 429, 503, 504}
GROWTH_BYTES = 96 << 20
"""How far memory may be from where it was, by the line through the second half of the time."""
SAMPLES = 200


def growth(samples: list[tuple[float, float]]) -> float:
    """The slope of the line through samples of time and bytes, times the time they span."""
    times, sizes = zip(*samples, strict=True)
    return statistics.linear_regression(times, sizes).slope * (times[-1] - times[0])


async def measured(service: Service, seconds: float) -> tuple[float, Tally, list[tuple[float, float]]]:
    await Load(service, seed=0).at_once(CLIENTS, WARM_UP_SECONDS)
    capacity = await Load(service, seed=1).at_once(CLIENTS, CALIBRATION_SECONDS)
    samples: list[tuple[float, float]] = []

    async def watch() -> None:
        while True:
            samples.append((time.monotonic(), service.rss()))
            await asyncio.sleep(seconds / SAMPLES)

    watching = asyncio.create_task(watch())
    tally = await Load(service, seed=2).at_rate(2 * capacity, seconds)
    watching.cancel()
    return capacity, tally, samples


@pytest.mark.parametrize("workers", [1, 2])
def test_twice_the_capacity(
    tmp_path: Path, soak_seconds: float, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Service(tmp_path, workers=workers, log_level="warning") as service:
        at_start = service.rss()
        capacity, tally, samples = asyncio.run(measured(service, soak_seconds))
        healthy = service.answers("/readyz")
        code = service.stop()
    late = samples[len(samples) // 2 :]
    with capsys.disabled():
        sizes = [size / (1 << 20) for _, size in samples]
        minutes = (late[-1][0] - late[0][0]) / 60
        print(
            f"\n{workers} serving, {soak_seconds:g} s at {2 * capacity:.0f} requests/s, twice the {capacity:.0f} that "
            f"it answers to {CLIENTS} clients\n{tally.table()}\n"
            f"memory MiB: {at_start / (1 << 20):.0f} at start; under load {sizes[0]:.0f} first, "
            f"{max(sizes):.0f} most, {sizes[-1]:.0f} last; slope over the second half "
            f"{growth(late) / (1 << 20) / minutes:+.2f} MiB/min"
        )
    assert tally.all_statuses().keys() <= EXPECTED
    assert not tally.broken
    assert tally.answered == tally.sent
    assert tally.statuses["small"][200] > 0
    assert tally.quantile("small", 0.99) < SMALL_P99_SECONDS
    assert growth(late) < GROWTH_BYTES
    assert healthy and code == 0
    assert "Traceback" not in service.log
