"""How many processors there are for this process. Knows neither torch nor NumPy."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # microseconds of all processors together, in so many; or "max"


def available() -> int:
    """Returns how many processors this process may use: affinity, quota of a container, OMP_NUM_THREADS."""
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
