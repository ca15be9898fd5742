"""Run the same work over many files: one bad file does not stop the rest.

Knows neither the codec nor the command line: a job is a source and an output, the work is a function.
Workers are threads, so that they share one loaded model.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Cancelled", "Job", "Outcome", "run"]

R = TypeVar("R")
Progress = Callable[[float], None]
Work = Callable[["Job", Progress], R]


@dataclass(frozen=True)
class Job:
    """One file to make: paths as the user named them, ``"-"`` for standard input or output."""

    source: str
    output: str


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of a job: its result, or the error that ended it, or neither when it was skipped."""

    job: Job
    result: R | None = None
    error: Exception | None = None

    @property
    def skipped(self) -> bool:
        """Whether the job was left out because its output was there already."""
        return self.result is None and self.error is None


class Cancelled(BaseException):
    """Raised inside a job's progress call when the run is being stopped.

    Derives from BaseException so that no handler of a job's own errors takes it for one of them.
    """


def run(
    jobs: Sequence[Job],
    work: Work[R],
    *,
    workers: int = 1,
    on_start: Callable[[Job], None] | None = None,
    on_progress: Callable[[Job, float], None] | None = None,
) -> Generator[Outcome[R], None, None]:
    """Yield the outcome of every job as it ends; with one worker in the order of `jobs`.

    `work(job, progress)` returns the result; it calls `progress` with the fraction done, 0 to 1, often
    enough that the run can be stopped there. `on_start` and `on_progress` are called from the worker that
    has the job: with several workers, from several threads at once.

    With one worker the work runs in the calling thread, so that an interrupt stops it where it is.
    Closing the generator, or an interrupt in it, stops all workers at their next progress call and waits
    for them, so that they can remove what they had half written.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    start = on_start or (lambda job: None)
    report = on_progress or (lambda job, fraction: None)
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield _attempt(job, work, start, report)
    else:
        yield from _run_threads(jobs, work, min(workers, len(jobs)), start, report)


def _attempt(
    job: Job, work: Work[R], start: Callable[[Job], None], report: Callable[[Job, float], None]
) -> Outcome[R]:
    try:
        start(job)
        return Outcome(job, result=work(job, lambda fraction: report(job, fraction)))
    except Exception as error:
        return Outcome(job, error=error)


def _run_threads(
    jobs: Sequence[Job],
    work: Work[R],
    workers: int,
    start: Callable[[Job], None],
    report: Callable[[Job, float], None],
) -> Generator[Outcome[R], None, None]:
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Outcome[R] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    for job in jobs:
        waiting.put(job)

    def checked_report(job: Job, fraction: float) -> None:
        if stop.is_set():
            raise Cancelled
        report(job, fraction)

    def worker() -> None:
        try:
            while not stop.is_set():
                ended.put(_attempt(waiting.get_nowait(), work, start, checked_report))
        except (queue.Empty, Cancelled):
            pass
        except BaseException as error:
            ended.put(error)

    threads = [threading.Thread(target=worker, name=f"job-{n}", daemon=True) for n in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for _ in jobs:
            outcome = _take(ended)
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def _take(ended: queue.SimpleQueue[Outcome[R] | BaseException]) -> Outcome[R] | BaseException:
    # A wait without a time limit cannot be interrupted from the keyboard on Windows.
    while True:
        try:
            return ended.get(timeout=0.2)
        except queue.Empty:
            continue
