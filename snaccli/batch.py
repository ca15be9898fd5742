"""The former place of `snaccli.workers.run_jobs`, for what still imports it from here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from snaccli.workers import Cancelled, Job, Outcome, R, Work, run_jobs

__all__ = ["Cancelled", "Job", "Outcome", "Work", "run"]


class _Events:
    def __init__(self, job: Job, report: Callable[[Job, float], None]) -> None:
        self._job, self._report = job, report

    def started(self, seconds: float | None) -> None: ...

    def __call__(self, fraction: float) -> None:
        self._report(self._job, fraction)


def run(
    jobs: Sequence[Job],
    work: Work[R],
    *,
    workers: int = 1,
    on_start: Callable[[Job], None] = lambda job: None,
    on_progress: Callable[[Job, float], None] = lambda job, fraction: None,
) -> Generator[Outcome[R], None, None]:
    """As `run_jobs`, with the two events as functions."""

    def watch(job: Job) -> _Events:
        on_start(job)
        return _Events(job, on_progress)

    return run_jobs(jobs, work, workers=workers, watch=watch)
