"""Work in threads beside the one that asks for it: many jobs, results in order, reading ahead, how many.

Every wait for a result has a limit and is begun again, since a wait without one cannot be interrupted from
the keyboard on Windows; threads are waited for only once they have been told to stop. When a generator of
this module ends, also early, its threads have ended.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from snac.processors import available
from snaccli.progress import SILENT, Progress

__all__ = [
    "Cancelled",
    "Job",
    "Outcome",
    "Share",
    "Work",
    "available",
    "interruption",
    "ordered_map",
    "read_ahead",
    "run_jobs",
    "share",
]

T = TypeVar("T")
R = TypeVar("R")

MOST = 8
"""Files at once, and threads for each, that nobody asked for: each thread takes some 70 MB."""

_WAIT_SECONDS = 0.2
_MOST_CAUSES = 20  # that are followed


class Cancelled(BaseException):
    """The run is being stopped: raised inside work under way, where it tells of its progress.

    Derives from BaseException so that no handler of the work's own errors takes it for one of them.
    """


def interruption(error: BaseException) -> KeyboardInterrupt | None:
    """Returns the interrupt that led to an error, None where there was none.

    Ctrl-C while a compiled module is being imported becomes an ``ImportError`` or ``SystemError``: whoever
    goes on after an error asks for it here. What else went wrong while an interrupt was dealt with is news of
    its own.
    """
    found: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if isinstance(found, KeyboardInterrupt) or not isinstance(found, (ImportError, SystemError)):
            break
        found = found.__cause__ or found.__context__
    return found if isinstance(found, KeyboardInterrupt) else None


# Processors


class Share(NamedTuple):
    """Files at once, and threads for each of them."""

    jobs: int
    threads: int


def share(processors: int, files: int, jobs: int | None = None, threads: int | None = None) -> Share:
    """Shares processors out among files.

    Args:
        processors: how many there are, 1 or more: see `available`.
        files: to be worked on, 1 or more.
        jobs: files at once; by default as many as the threads leave processors for, at most ``MOST``.
        threads: for each file; by default what the files at once leave to each, at most ``MOST``.
    """
    if jobs is None:
        jobs = min(processors // (threads or 1), MOST)
    jobs = max(1, min(jobs, files))
    return Share(jobs, threads or max(1, min(processors // jobs, MOST)))


# Many jobs


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


Work = Callable[[Job, Progress], R]
"""Does a job and returns its result; tells of its progress often enough that it can be stopped there."""

Watch = Callable[[Job], Progress]
"""Called when a job is begun, in the thread that has it; returns what is told of its progress."""


def run_jobs(
    jobs: Sequence[Job], work: Work[R], workers: int = 1, watch: Watch = lambda job: SILENT
) -> Generator[Outcome[R], None, None]:
    """Yields the outcome of every job as it ends; one bad job does not stop the rest.

    With one worker the work runs in the calling thread, in the order of `jobs`, so that an interrupt stops it
    where it is. Closing the generator, or an interrupt in it, stops all workers by `Cancelled` at their next
    word of progress and waits for them, so that they can remove what they had half written.

    Args:
        jobs: what to do.
        work: does one; an `Exception` from it is that job's outcome.
        workers: threads, 1 or more.
        watch: see `Watch`; with several workers called from several threads at once.
    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            try:
                outcome = Outcome(job, result=work(job, watch(job)))
            except Exception as error:
                if (interrupt := interruption(error)) is not None:
                    raise interrupt from error
                outcome = Outcome(job, error=error)
            yield outcome
    else:
        yield from _run_threads(jobs, work, min(workers, len(jobs)), watch)


class _Stoppable:
    """A job's progress, at which the job ends when the run is being stopped."""

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self._progress, self._stop = progress, stop

    def started(self, seconds: float | None) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._progress.started(seconds)

    def __call__(self, fraction: float) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._progress(fraction)


def _run_threads(
    jobs: Sequence[Job], work: Work[R], workers: int, watch: Watch
) -> Generator[Outcome[R], None, None]:
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Outcome[R] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()
    for job in jobs:
        waiting.put(job)

    def worker() -> None:
        try:
            while not stop.is_set():
                job = waiting.get_nowait()
                try:
                    ended.put(Outcome(job, result=work(job, _Stoppable(watch(job), stop))))
                except Exception as error:
                    ended.put(Outcome(job, error=error))
        except (queue.Empty, Cancelled):
            pass
        except BaseException as error:
            ended.put(error)

    threads = [threading.Thread(target=worker, name=f"job-{n}", daemon=True) for n in range(workers)]
    try:
        for thread in threads:
            thread.start()
        left = len(jobs)
        while left:
            try:
                outcome = ended.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
            if isinstance(outcome, BaseException):
                raise outcome
            left -= 1
            yield outcome
    finally:
        stop.set()
        for thread in threads:
            while thread in threading.enumerate():
                with contextlib.suppress(RuntimeError):  # as in `read_ahead`
                    thread.join(_WAIT_SECONDS)


# Results in order


def ordered_map(
    work: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    *,
    ahead: int = 8,
    stop: threading.Event | None = None,
) -> Generator[R, None, None]:
    """Yields ``work(item)`` for each item, in their order, computed by threads side by side.

    Args:
        work: an error from it is raised where its result would have come.
        items: taken as they are needed, in the calling thread.
        workers: threads, 1 or more.
        ahead: results a worker that may wait for their turn.
        stop: set at the end, also an early one, so that work under way can end by `Cancelled`.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="snac-map")
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead * workers:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        if stop is not None:
            stop.set()
        with contextlib.suppress(Cancelled):
            pool.shutdown(wait=True, cancel_futures=True)


def _result(future: Future[R]) -> R:
    while True:
        try:
            return future.result(timeout=_WAIT_SECONDS)
        except NotYet:
            if future.done():
                return future.result()


# Reading ahead


@dataclass(frozen=True)
class _End:
    """What came after the last item: nothing, or an error."""

    error: BaseException | None = None


def read_ahead(items: Iterable[T], count: int = 2) -> Generator[T, None, None]:
    """Yields the items of an iterable, which a thread takes from it up to `count` ahead.

    An error of the iterable is raised where its item would have come. At the end, also an early one, the
    thread has ended; if the iterable is a generator, it was closed.
    """
    ready: queue.Queue[T | _End] = queue.Queue(count)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, ready, stop), name="snac-ahead", daemon=True)
    try:
        thread.start()
        while True:
            try:
                item = ready.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, _End):
                break
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stop.set()
        while thread in threading.enumerate():
            with contextlib.suppress(RuntimeError):  # an interrupt came before ``start`` knew that it runs
                thread.join(_WAIT_SECONDS)


def _fill(items: Iterable[T], ready: queue.Queue[T | _End], stop: threading.Event) -> None:
    def offer(item: T | _End) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=_WAIT_SECONDS)
            except queue.Full:
                continue

    end = _End()
    try:
        for item in items:
            offer(item)
            if stop.is_set():
                break
    except BaseException as error:
        end = _End(error)
    close = getattr(items, "close", None)
    if close is not None:
        close()
    offer(end)
