"""How many processors there are for this process, and how files and threads share them. Knows no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Share", "available", "share"]

MOST = 8
"""Files at once, and threads for each, that nobody asked for: each thread takes some 70 MB."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of all processors together, in so many; or "max"


class Share(NamedTuple):
    """Files at once, and threads for each of them."""

    jobs: int
    threads: int


def available() -> int:
    """Processors that this process may use: its affinity, the quota of its container, OMP_NUM_THREADS."""
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal():
        counts.append(int(wanted))
    try:
        quota, period = _QUOTA.read_text().split()
        counts.append(-(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # another system, or no quota
    return max(1, min(counts))


def share(files: int, jobs: int | None = None, threads: int | None = None) -> Share:
    """Shares the processors out among files.

    Args:
        files: to be worked on, 1 or more.
        jobs: files at once; by default as many as the threads leave processors for, at most ``MOST``.
        threads: for each file; by default what the files at once leave to each, at most ``MOST``.
    """
    processors = available()
    if jobs is None:
        jobs = min(processors // (threads or 1), MOST)
    jobs = max(1, min(jobs, files))
    return Share(jobs, threads or max(1, min(processors // jobs, MOST)))
