"""The walk of every command that makes one file of each input: plan, work, bars, summary.

A command says what it does to one file (:class:`FileWork`); a :class:`Batch` does it to all of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from snaccli import processors
from snaccli.cli import process
from snaccli.cli.plan import Plan
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import FileBars, waiting
from snaccli.cli.ui.summary import Summary, Wording
from snaccli.cli.ui.text import count
from snaccli.errors import ExitStatus, OutputError, OutputExistsError, UsageError
from snaccli.io.files import check_output, make_folder
from snaccli.io.names import STDIO
from snaccli.io.remote import is_url
from snaccli.progress import Progress
from snaccli.workers import Job, Outcome, run_jobs

if TYPE_CHECKING:
    from snaccli.codec import ModelPool

__all__ = ["Batch", "Choices", "FileWork"]

R = TypeVar("R")


class FileWork(Wording[R], Protocol[R]):
    """What a command does to each of its files. `R` is a dataclass; ``--json`` prints its fields."""

    def prepare(self) -> None:
        """Loads what every file needs, so that an error in it is told once; called before several files.

        A lone file is worked on at once: whatever is wrong with it is found before a model is loaded.
        """

    def __call__(self, job: Job, progress: Progress) -> R:
        """Does one job. Called from several threads at once."""


@dataclass(frozen=True)
class Choices:
    """What the user chose for the files of a run, by the options of these names."""

    force: bool
    skip_existing: bool
    jobs: int | None
    threads: int | None


class Batch:
    """The files of one run: those to work on, and those of which there is something to say already.

    Raises:
        UsageError: the output of a job cannot go to the standard output of this run.

    Attributes:
        waiting: the jobs to do: inputs that are there, outputs that may be written.
        threads: for each file, as the processors are shared out among the files at once.
    """

    def __init__(self, console: Console, plan: Plan, choices: Choices) -> None:
        _check_standard_output(console, plan.jobs)
        self._console = console
        self._plan = plan
        self._told = [Outcome[object](Job(name, ""), error=problem) for name, problem in plan.problems]
        self.waiting: list[Job] = []
        for job in plan.jobs:
            if choices.force or (taken := _taken(job)) is None:
                self.waiting.append(job)
            else:
                self._told.append(Outcome(job, error=None if choices.skip_existing else taken))
        share = processors.share(max(1, len(self.waiting)), choices.jobs, choices.threads)
        self._workers, self.threads = share
        self._models: ModelPool | None = None
        if self.waiting:
            process.tune(console)

    @property
    def told(self) -> list[Outcome[object]]:
        """What there is to say already: inputs that led to no file, outputs that are there."""
        return self._told

    def models(self, choice: str | None, device: str, prior: str | bool = True) -> ModelPool:
        """Returns the models of this run, none of them loaded yet: see :class:`snaccli.codec.ModelPool`."""
        from snaccli.codec import ModelPool

        self._models = ModelPool(choice, device=device, threads=self.threads, prior=prior)
        return self._models

    def run(self, work: FileWork[R]) -> ExitStatus:
        """Does `work` to every file that waits, tells of each, and sums up."""
        console = self._console
        for remark in self._plan.remarks:
            console.note(remark)
        expected = len(self._told) + len(self.waiting)
        summary = Summary(console, work, batch=self._plan.batch, expected=expected)
        for outcome in self._told:
            summary.add(outcome)
        if self.waiting:
            console.detail(
                f"{count(self._workers, 'file')} at once, {count(self.threads, 'thread')} each, "
                f"on {count(processors.available(), 'processor')}"
            )
            if len(self.waiting) > 1:
                with waiting(console, "loading the model"):
                    work.prepare()
            summary.start()
            self._work(work, summary)
            for codec in self._models.loaded if self._models else ():
                console.detail(f"model {codec.name}, fingerprint {codec.fingerprint}, on {codec.device}")
        return summary.finish()

    def _work(self, work: FileWork[R], summary: Summary[R]) -> None:
        untold: dict[Job, R] = {}  # done, perhaps while the run is being stopped
        try:
            with _Folders() as folders, FileBars(self._console, self.waiting) as bars:

                def make(job: Job, progress: Progress) -> R:
                    folders.make(os.path.dirname(job.output))
                    untold[job] = work(job, progress)
                    return untold[job]

                outcomes = run_jobs(self.waiting, make, workers=self._workers, watch=bars.begin)
                with closing(outcomes):
                    for outcome in outcomes:
                        bars.end(outcome.job, failed=outcome.error is not None)
                        if outcome.job.output == STDIO and _reader_has_gone(outcome.error):
                            raise BrokenPipeError
                        summary.add(outcome)
                        untold.pop(outcome.job, None)
        except KeyboardInterrupt:
            for job, result in untold.items():
                summary.add(Outcome(job, result))
            summary.finish()
            raise


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
        """Makes `folder` and those above it; at a URL there is nothing to make."""
        if is_url(folder):
            return
        with self._lock:
            missing = []
            path = folder
            while path and not os.path.lexists(path):
                missing.append(path)
                path = os.path.dirname(path)
            if missing:
                make_folder(folder)
            self._made += reversed(missing)


def _check_standard_output(console: Console, jobs: Sequence[Job]) -> None:
    if any(job.output == STDIO for job in jobs):
        if console.json:
            raise UsageError("--json and the output would both go to standard output; give -o a file")
        if console.stdout.isatty():
            raise UsageError("standard output is a terminal; give -o a file, or send the output into a pipe")


def _taken(job: Job) -> OutputExistsError | None:
    """Returns what is wrong if the output is there already; other faults are told when it is written."""
    try:
        check_output(job.output)
    except OutputExistsError as error:
        return error
    except OutputError:  # a folder that is made later, or cannot be
        pass
    return None


def _reader_has_gone(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__cause__ or error.__context__
    return False
