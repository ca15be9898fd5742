"""What a run ran on, for its report."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from snac import __version__
from snaccli.io.files import shown

__all__ = ["machine_rows"]


def machine_rows() -> list[tuple[str, str]]:
    """Pairs of what and which: processor, system, versions."""
    rows = [
        ("processor", f"{_processor()}, {_cores()} cores to use"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", platform.python_version()),
        ("snac", __version__),
    ]
    for package in ("torch", "numpy", "pystoi", "pesq"):
        with contextlib.suppress(PackageNotFoundError):
            rows.append((package, version(package)))
    return [(name, shown(value)) for name, value in rows]


def _processor() -> str:
    """The maker's name of it, which Python tells on some systems only."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
