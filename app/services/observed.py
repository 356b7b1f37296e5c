"""What the parts of the service count for themselves, by the metric that it is read as."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from app.problems import CODES
from app.services.answers import Answers
from app.services.figures import Figures
from app.services.limits import all_limits
from app.services.tasks import Road


def figures_of(answers: Answers) -> Figures:
    """Figures of a service, which are read from its parts when somebody asks."""
    figures = Figures()
    figures.expect("gradwire_problems_total", CODES)
    figures.expect("gradwire_limits_hit_total", (each["name"] for each in all_limits(answers.settings)))
    figures.expect("gradwire_computed_total", (road.label for road in Road))
    computer = answers.computer
    figures.observe_caches(plans=computer.plans, programs=computer.programs, graphs=answers.graphs.cache)
    _observe_admission(figures, answers)
    _observe_workers(figures, answers)
    return figures


def _observe_admission(figures: Figures, answers: Answers) -> None:
    admission = answers.admission
    figures.observe(
        {
            "gradwire_queue_length": lambda: admission.queue,
            "gradwire_flight_bytes": lambda: admission.memory.held,
            "gradwire_flight_most_bytes": lambda: admission.memory.most,
        }
    )
    for road in admission.places:
        figures.observe({"gradwire_running": partial(admission.running.__getitem__, road)}, road.label)


def _observe_workers(figures: Figures, answers: Answers) -> None:
    workers = answers.workers
    figures.observe(
        {
            "gradwire_workers": lambda: workers.alive,
            "gradwire_workers_started_total": lambda: workers.started,
            "gradwire_workers_lost_total": lambda: workers.lost,
            "gradwire_workers_resident_bytes": lambda: _resident(workers.pids),
        }
    )


def _resident(pids: Iterable[int]) -> int:
    """Bytes of memory that processes have, as far as they are still there."""
    found = 0
    for pid in pids:
        with suppress(OSError):
            found += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return found
