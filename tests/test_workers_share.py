"""How files and threads share the processors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snac import processors
from snaccli.workers import available, share


@pytest.mark.parametrize(
    ("cores", "files", "jobs", "threads", "shared"),
    [
        (1, 1, None, None, (1, 1)),
        (2, 1, None, None, (1, 2)),
        (2, 50, None, None, (2, 1)),
        (4, 2, None, None, (2, 2)),
        (4, 3, None, None, (3, 1)),
        (64, 1000, None, None, (8, 8)),
        (64, 1, None, None, (1, 8)),
        (64, 1, None, 64, (1, 64)),
        (64, 99, 2, None, (2, 8)),
        (4, 50, None, 2, (2, 2)),
        (4, 50, None, 9, (1, 9)),
        (4, 50, 1, None, (1, 4)),
        (4, 2, 3, None, (2, 2)),
        (2, 50, 6, None, (6, 1)),
        (2, 50, 3, 5, (3, 5)),
    ],
)
def test_sharing(cores, files, jobs, threads, shared) -> None:
    assert share(cores, files, jobs, threads) == shared


@pytest.fixture
def bare(monkeypatch, tmp_path: Path) -> Path:
    """Sixteen processors, no quota, no wish; the path of the quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(processors, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path / "cpu.max"


def test_all_processors_of_the_affinity(bare: Path) -> None:
    assert available() == 16


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000\n", 16), ("250000 100000\n", 3), ("10000 100000\n", 1), ("odd", 16)]
)
def test_a_quota_counts(bare: Path, text: str, count: int) -> None:
    bare.write_text(text)
    assert available() == count


@pytest.mark.parametrize(("wish", "count"), [("3", 3), ("0", 1), ("99", 16), ("4,2", 16), ("", 16)])
def test_what_openmp_is_told_counts(bare: Path, monkeypatch, wish: str, count: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wish)
    assert available() == count
