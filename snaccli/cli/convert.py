"""What ``encode`` and ``decode`` have in common: from a plan to files, bars and a report."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TypeVar

from snaccli import batch, heap, processors
from snaccli.batch import Job, Outcome
from snaccli.cli.plan import STREAM, Plan
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import Bars, Length
from snaccli.cli.ui.report import Coded, Report
from snaccli.cli.ui.text import count, display
from snaccli.errors import ExitStatus, OutputError, SnacError, UsageError
from snaccli.progress import Progress

__all__ = ["Choices", "check_streams", "convert"]

R = TypeVar("R", bound=Coded)

Prepare = Callable[[Sequence[Job], int], batch.Work[R]]


@dataclass(frozen=True)
class Choices:
    """What the user chose for the files of a run, by the options of these names."""

    force: bool
    skip_existing: bool
    jobs: int | None
    threads: int | None


def check_streams(console: Console, plan: Plan) -> None:
    """Refuse what cannot go over the standard streams.

    Raises:
        UsageError: bytes would be written to a terminal, or mixed with JSON.
    """
    if any(job.output == STREAM for job in plan.jobs):
        if console.json:
            raise UsageError("--json and the output would both go to standard output; give -o a file")
        if console.stdout.isatty():
            raise UsageError("standard output is a terminal; give -o a file, or send the output into a pipe")


def convert(
    console: Console,
    plan: Plan,
    report: Report[R],
    prepare: Prepare[R],
    length: Length,
    choices: Choices,
) -> ExitStatus:
    """Run the jobs of `plan` and report on them.

    What can be told without a model is told first: inputs that are not there, outputs that are there
    already, a lone file that cannot be read. `prepare(jobs, threads)` then loads the model, to compute with
    so many threads a file, and returns the work; an error in it ends the run. `length(job)` gives the
    seconds of audio for the bars, or None. `choices.jobs` and `choices.threads` are as in `processors.share`.
    """
    for remark in plan.remarks:
        console.note(remark)
    for name, problem in plan.problems:
        report.add(Outcome(Job(name, ""), error=problem))
    waiting: list[Job] = []
    for job in plan.jobs:
        if choices.force or not _exists(job):
            waiting.append(job)
        else:
            report.add(Outcome(job, error=None if choices.skip_existing else _taken(job)))
    if len(waiting) == 1:
        try:
            length(waiting[0])
        except (SnacError, OSError) as error:
            report.add(Outcome(waiting.pop(), error=error))
    expected = len(plan.problems) + len(plan.jobs)
    if waiting:
        share = processors.share(len(waiting), choices.jobs, choices.threads)
        heap.keep_one()
        work = prepare(waiting, share.threads)
        console.detail(
            f"{count(share.jobs, 'file')} at once, {count(share.threads, 'thread')} each, "
            f"on {count(processors.available(), 'processor')}"
        )
        report.start()
        try:
            _run(console, waiting, work, report, length, share.jobs)
        except KeyboardInterrupt:
            report.finish(expected)
            raise
    return report.finish(expected)


def _run(
    console: Console,
    jobs: Sequence[Job],
    work: batch.Work[R],
    report: Report[R],
    length: Length,
    workers: int,
) -> None:
    with _Folders() as folders, Bars(console, jobs, length) as bars:

        def make(job: Job, progress: Progress) -> R:
            folders.make(os.path.dirname(job.output))
            return work(job, progress)

        outcomes = batch.run(jobs, make, workers=workers, on_start=bars.begin, on_progress=bars.advance)
        with closing(outcomes):
            for outcome in outcomes:
                bars.end(outcome.job, failed=outcome.error is not None)
                if outcome.job.output == STREAM and _reader_has_gone(outcome.error):
                    raise BrokenPipeError
                report.add(outcome)


class _Folders:
    """Makes folders for outputs, and at the end takes away those that got none."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._lock = threading.Lock()

    def __enter__(self) -> _Folders:
        return self

    def __exit__(self, *_: object) -> None:
        for path in reversed(self._made):
            with suppress(OSError):  # it holds something
                os.rmdir(path)

    def make(self, folder: str) -> None:
        """Make `folder` and those above it."""
        with self._lock:
            missing = []
            path = folder
            while path and not os.path.lexists(path):
                missing.append(path)
                path = os.path.dirname(path)
            if missing:
                from snaccli.io.files import make_folder

                make_folder(folder)
            self._made += reversed(missing)


def _exists(job: Job) -> bool:
    return job.output != STREAM and os.path.isfile(job.output)  # a device or a pipe may be written to


def _taken(job: Job) -> SnacError:
    return OutputError(f"{display(job.output)} exists already: give -f to overwrite it, or --skip-existing")


def _reader_has_gone(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__cause__ or error.__context__
    return False
