"""The walk of every command that makes one file of each input: plan, work, bars, summary.

A command says what it does to one file, and how it words that (:class:`FileWork`); a :class:`Batch` does it
to all files of a plan, tells of each, and sums up. On a cluster :func:`run_on_cluster` does so.
"""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from snaccli import workers
from snaccli.cli import process
from snaccli.cli.plan import Plan
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import FileBars, waiting
from snaccli.errors import STDIO, ExitStatus, OutputError, OutputExistsError, UsageError, shown
from snaccli.io.elsewhere import Part, is_url
from snaccli.io.files import check_output, make_folder
from snaccli.progress import Progress
from snaccli.workers import Job, Outcome, run_jobs

if TYPE_CHECKING:
    from snaccli.codec import ModelPool
    from snaccli.codec.cluster import Place, UnitWork

__all__ = ["Batch", "Choices", "FileWork", "anywhere", "model_anywhere", "run_on_cluster"]

R = TypeVar("R")


@dataclass(frozen=True)
class FileWork(Generic[R]):
    """What a command does to each of its files, and how it words that.

    `R` is a dataclass with the fields `source` and `output`; ``--json`` prints its fields.

    Attributes:
        verb: what is done to a file: ``encoded``.
        convert: makes one file: ``convert(source, output, progress=...)``, from several threads at once.
        facts: words what became of a file, in parts that follow its names; empty ones are left out.
        total: words the sum of several results and the seconds that all of them took together.
        prepare: loads what every file needs, so that an error in it is told once; called before several
            files. A lone file is worked on at once: what is wrong with it is found before a model is loaded.
            None where only the files tell what they need.
        settle: ends what the files of a run share; returns, by source, why results that were told already
            are lost after all.
    """

    verb: str
    convert: Callable[..., R]
    facts: Callable[[R], Sequence[str]]
    total: Callable[[Sequence[R], float], str]
    prepare: Callable[[], object] | None = None
    settle: Callable[[], Mapping[str, Exception]] = dict


@dataclass(frozen=True)
class Choices:
    """What the user chose for the files of a run, by the options of these names.

    Raises:
        UsageError: two of them exclude each other.
    """

    force: bool
    skip_existing: bool
    jobs: int | None
    threads: int | None

    def __post_init__(self) -> None:
        if self.force and self.skip_existing:
            raise UsageError("-f and --skip-existing exclude each other: one overwrites what the other keeps")


class Batch:
    """The files of one run: those to work on, and those of which there is something to say already.

    Raises:
        UsageError: the output of a job cannot go to the standard output of this run.

    Attributes:
        remarks: what was left out on purpose, worth a line.
        told: what there is to say already: inputs that led to no file, outputs that are there.
        waiting: the jobs to do: inputs that are there, outputs that may be written.
        threads: for each file, as the processors are shared out among the files at once.
    """

    def __init__(self, console: Console, plan: Plan, choices: Choices) -> None:
        _check_standard_output(console, plan.jobs)
        self._console = console
        self._in_list = plan.batch
        self.remarks = plan.remarks
        self.told = [Outcome[Any](Job(name, ""), error=problem) for name, problem in plan.problems]
        self.waiting: list[Job] = []
        for job in plan.jobs:
            try:
                if not choices.force:
                    check_output(job.output)
            except OutputExistsError as error:
                self.told.append(Outcome(job, error=None if choices.skip_existing else error))
                continue
            except OutputError:  # a folder that is made later, or cannot be: told when it is written
                pass
            self.waiting.append(job)
        self._expected = len(self.told) + len(self.waiting)
        self._processors = workers.available()
        share = workers.share(self._processors, max(1, len(self.waiting)), choices.jobs, choices.threads)
        self._workers, self.threads = share
        self._outcomes: list[Outcome[Any]] = []
        self._began = time.monotonic()
        if self.waiting:
            process.tune(console)

    def run(self, work: FileWork[R], models: ModelPool | None = None) -> ExitStatus:
        """Does `work` to every file that waits, tells of each, and sums up.

        Args:
            work: what to do.
            models: those that it uses; which of them it loaded is told in the end.
        """
        console = self._console
        for remark in self.remarks:
            console.note(remark)
        for outcome in self.told:
            self._tell(outcome, work)
        if not self.waiting:
            return self._finish(work)
        console.detail(
            f"{text.count(self._workers, 'file')} at once, {text.count(self.threads, 'thread')} each, "
            f"on {text.count(self._processors, 'processor')}"
        )
        if len(self.waiting) > 1 and work.prepare is not None:
            with waiting(console, "loading the model"):
                work.prepare()
        self._began = time.monotonic()  # after a model that all files share was loaded
        folders, untold = _Folders(), dict[Job, R]()  # done, perhaps while the run is being stopped

        def make(job: Job, progress: Progress) -> R:
            folders.make(os.path.dirname(job.output))
            untold[job] = work.convert(job.source, job.output, progress=progress)
            return untold[job]

        try:
            with (
                FileBars(console, self.waiting) as bars,
                closing(run_jobs(self.waiting, make, self._workers, bars.begin)) as outcomes,
            ):
                for outcome in outcomes:
                    bars.end(outcome.job, failed=outcome.error is not None)
                    if outcome.job.output == STDIO and _reader_has_gone(outcome.error):
                        raise BrokenPipeError
                    self._tell(outcome, work)
                    untold.pop(outcome.job, None)
            self._take_back(work.settle())
        except KeyboardInterrupt:
            for job, result in untold.items():
                self._tell(Outcome(job, result), work)
            self._take_back(work.settle())
            self._finish(work)
            raise
        finally:
            folders.remove_empty()
        for codec in models.loaded if models else ():
            console.detail(f"model {codec.name}, fingerprint {codec.fingerprint}, on {codec.device}")
        return self._finish(work)

    def _tell(self, outcome: Outcome[Any], work: FileWork[Any]) -> None:
        """Tells of one file."""
        self._outcomes.append(outcome)
        job, result = outcome.job, outcome.result
        if outcome.error is not None:
            self._console.error(outcome.error, job.source)
        elif result is None:
            self._console.detail(f"{shown(job.source)}: skipped, {shown(job.output)} exists")
        else:
            names = f"{shown(result.source)} -> {shown(result.output, stdio='standard output')}"
            line = text.joined(names, *work.facts(result))
            if self._in_list and self._console.interactive:  # the bars tell enough
                self._console.detail(line)
            else:
                self._console.note(line)

    def _take_back(self, lost: Mapping[str, Exception]) -> None:
        """Tells that what had been told as done is lost after all."""
        for number, outcome in enumerate(self._outcomes):
            error = lost.get(outcome.job.source)
            if error is not None and outcome.result is not None:
                self._outcomes[number] = Outcome(outcome.job, error=error)
                self._console.error(error, outcome.job.source)

    def _finish(self, work: FileWork[Any]) -> ExitStatus:
        """Tells of all files and returns the exit status."""
        failed = [outcome for outcome in self._outcomes if outcome.error is not None]
        if self._expected > 1:
            self._sum_up(work, failed)
        values = [self._as_json(outcome) for outcome in self._outcomes] if self._console.json else []
        self._console.emit(values if self._in_list else next(iter(values), None))
        if not failed:
            return ExitStatus.OK
        wrong = all(isinstance(outcome.error, UsageError) for outcome in failed)
        return ExitStatus.USAGE if wrong else ExitStatus.FAILED

    def _sum_up(self, work: FileWork[Any], failed: Sequence[Outcome[Any]]) -> None:
        console, outcomes, expected = self._console, self._outcomes, self._expected
        done = [outcome.result for outcome in outcomes if outcome.result is not None]
        skipped = sum(outcome.skipped for outcome in outcomes)
        parts = [f"{len(done)} of {text.count(expected, 'file')} {work.verb}"]
        if skipped:
            parts.append(f"{skipped} skipped (output exists)")
        if failed:
            parts.append(f"{len(failed)} failed")
        if len(outcomes) < expected:
            parts.append(f"{expected - len(outcomes)} not done")
        console.note(", ".join(parts))
        if done:
            console.note(f"  {work.total(done, time.monotonic() - self._began)}")
        if failed:
            console.note("failed:")
        for outcome in failed:
            assert outcome.error is not None
            console.note(f"  {console.explain(outcome.error, outcome.job.source)}")

    def _as_json(self, outcome: Outcome[Any]) -> dict[str, Any]:
        paths = {"source": outcome.job.source, "output": outcome.job.output or None}
        if outcome.error is not None:
            return {**paths, "error": self._console.explain(outcome.error)}
        if outcome.result is None:
            return {**paths, "skipped": True}
        return {**dataclasses.asdict(outcome.result), **paths}


class _Folders:
    """Makes folders for outputs."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._lock = threading.Lock()

    def remove_empty(self) -> None:
        """Takes away those that got no output."""
        for path in reversed(self._made):
            with suppress(OSError):  # it holds something
                os.rmdir(path)

    def make(self, folder: str) -> None:
        """Makes `folder` and those above it; at a URL there is nothing to make."""
        with self._lock:
            missing = []
            path = folder
            while path and not os.path.lexists(path) and not is_url(folder):
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


def _reader_has_gone(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__cause__ or error.__context__
    return False


_EVERY = 10.0  # seconds between two lines


def anywhere(path: str) -> str:
    """A path that means the same in any current folder."""
    if is_url(path):
        return path
    if isinstance(path, Part):
        return path.within(anywhere(path.archive))
    return os.path.abspath(path)


def model_anywhere(model: str | None) -> str | None:
    """The same of a model, which is a folder or a name."""
    return anywhere(model) if model is not None and os.path.isdir(model) else model


def run_on_cluster(
    console: Console,
    told: Sequence[Outcome[Any]],
    work: UnitWork[Any, Any],
    units: Sequence[Any],
    count: int,
    place: Place,
    *,
    verb: str,
) -> ExitStatus:
    """Does all units, tells of failures as they come and of the rest now and then, and sums up.

    Args:
        console: where to.
        told: what there is to say already: inputs that led to no recording, outputs that are there.
        work: what the workers do.
        units: with ``recordings``, pairs whose first is the source.
        count: recordings of all units.
        place: where.
        verb: what is done to a recording: ``exported``.
    """
    from snaccli.codec.cluster import run_units

    failures = [outcome for outcome in told if outcome.error is not None]
    if skipped := len(told) - len(failures):
        console.note(f"{text.count(skipped, 'file')} skipped (output exists)")
    sums = _Sums(console, verb, count + len(failures), len(units))
    for outcome in failures:
        assert outcome.error is not None
        sums.failed(outcome.job.source, console.explain(outcome.error, outcome.job.source))
    if units:
        try:
            with closing(run_units(work, units, place)) as ended:
                for unit, result in ended:
                    sums.add(unit, result)
        except KeyboardInterrupt:
            sums.finish()
            raise
    return sums.finish()


class _Sums:
    """What is told of a run: memory for the failures alone, however many recordings there are."""

    def __init__(self, console: Console, verb: str, count: int, units: int) -> None:
        self._console, self._verb, self._count, self._units = console, verb, count, units
        self._began = self._last = time.monotonic()
        self._done, self._seconds, self._ended = 0, 0.0, 0
        self._failures: list[tuple[str, str]] = []

    def add(self, unit: Any, result: Any) -> None:
        """Takes the result of a unit."""
        from snaccli.codec.cluster import Failure

        self._ended += 1
        if isinstance(result, Failure):
            for source, _ in unit.recordings:
                self.failed(source, result.message)
            return
        for done in result.recordings:
            if done.error is not None:
                self.failed(done.source, done.error)
            else:
                self._done += 1
                self._seconds += done.seconds
        now = time.monotonic()
        if self._console.verbose or now - self._last > _EVERY:
            self._last = now
            self._console.note(self._line())

    def failed(self, source: str, message: str) -> None:
        """Takes a recording that failed."""
        message = message if source in message else f"{shown(source)}: {message}"
        self._failures.append((source, message))
        self._console.complain(message)

    def finish(self) -> ExitStatus:
        """Tells the sum and returns the exit status."""
        self._console.note(self._line())
        left = self._count - self._done - len(self._failures)
        if self._failures or left:
            self._console.note(f"{len(self._failures)} failed, {left} not done")
        self._console.emit(
            {
                self._verb: self._done,
                "failed": [{"source": source, "error": error} for source, error in self._failures],
                "units": self._ended,
                "duration_s": self._seconds,
                "seconds": time.monotonic() - self._began,
            }
        )
        return ExitStatus.FAILED if self._failures or left else ExitStatus.OK

    def _line(self) -> str:
        return text.joined(
            f"{self._done} of {text.count(self._count, 'recording')} {self._verb}",
            f"{self._ended} of {text.count(self._units, 'unit')}",
            f"{text.clock(self._seconds)} of audio",
            text.speed(self._seconds, time.monotonic() - self._began),
        )
