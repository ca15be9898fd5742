"""Runs over many recordings on a cluster: the options, what is told meanwhile, and the sum."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ExitStatus, shown
from snaccli.io.elsewhere import Part, is_url
from snaccli.workers import Outcome

if TYPE_CHECKING:
    from snaccli.codec.cluster import Place, UnitWork

__all__ = ["Cluster", "CpusPerWorker", "GpusPerWorker", "anywhere", "model_anywhere", "run"]

Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="WHERE",
        help="Share the work out among the workers of a Ray cluster: auto for the one that this machine "
        "belongs to, local for one on this machine alone, or an address. docs/corpora.md has the whole way.",
    ),
]
CpusPerWorker = Annotated[
    int,
    typer.Option("--cpus-per-worker", min=1, metavar="N", help="On a cluster: processors for each worker."),
]
GpusPerWorker = Annotated[
    float,
    typer.Option(
        "--gpus-per-worker",
        min=0.0,
        metavar="N",
        help="On a cluster: accelerators for each worker; 0.5 lets two workers share one.",
    ),
]

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


def run(
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
