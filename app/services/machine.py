"""What this machine, or the container on it, gives us: cores and memory (cgroups v2, then v1, then the hardware)."""

from __future__ import annotations

import gc
import math
import os
import sys
import threading
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
NICENESS = 5
"""Where cores are short, the event loop comes first: its small requests take microseconds."""
LIMITLESS = 1 << 60
"""Above this, cgroups v1 mean that there is no limit."""


def step_back(niceness: int) -> None:
    """Let the calling thread, and those that it begins, come after others where cores are short (Linux: each thread has
    a priority of its own; elsewhere nothing is done)."""
    if sys.platform == "linux" and os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) < niceness:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def spare_collector() -> None:
    """Give this process's garbage collector less to do.

    Compiling makes many small objects that live a moment: with Python's own figures a third of the time of a large
    graph went into looking for garbage among them.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def cores() -> int:
    """Cores that may be used at once: those of the affinity mask, or fewer by quota; at least 1."""
    mask = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(mask, _quota())))


def memory() -> int:
    """Bytes of memory."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = [_number(CGROUP / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return int(min(installed, *(each for each in allowed if each < LIMITLESS), installed))


def _quota() -> float:
    quota, _, period = _text(CGROUP / "cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal():
        return int(quota) / int(period)
    quota_v1, period_v1 = _number(CGROUP / "cpu/cpu.cfs_quota_us"), _number(CGROUP / "cpu/cpu.cfs_period_us")
    return quota_v1 / period_v1 if 0 < quota_v1 < math.inf and period_v1 < math.inf else math.inf


def _number(path: Path) -> float:
    text = _text(path)
    return int(text) if text.isdecimal() else math.inf


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
