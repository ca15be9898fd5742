"""What is told of each file of a run, and of the whole at its end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ExitStatus, UsageError
from snaccli.io.names import shown
from snaccli.workers import Outcome

__all__ = ["Summary", "Wording"]

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class Wording(Protocol[R_contra]):
    """How a command words its results.

    Attributes:
        verb: what was done to a file: ``encoded``.
    """

    verb: str

    def line(self, result: R_contra) -> str:
        """Words what became of one file."""

    def total(self, results: Sequence[R_contra], wall_seconds: float) -> str:
        """Words the sum of several results; `wall_seconds` is how long all of them took together."""


class Summary(Generic[R]):
    """Collects the outcomes of a run, tells of each as it comes and of all at the end.

    Args:
        console: where to.
        wording: of the command.
        batch: whether the user asked for several files: then JSON is a list.
        expected: files that were to be done; with more than one there is a summary.
    """

    def __init__(self, console: Console, wording: Wording[R], *, batch: bool, expected: int) -> None:
        self._console = console
        self._wording = wording
        self._batch = batch
        self._expected = expected
        self._outcomes: list[Outcome[Any]] = []
        self._began = time.monotonic()

    def start(self) -> None:
        """Begins to count the seconds of the work: after a model that all files share was loaded."""
        self._began = time.monotonic()

    def add(self, outcome: Outcome[Any]) -> None:
        """Tells of one file."""
        self._outcomes.append(outcome)
        source = outcome.job.source
        if outcome.error is not None:
            self._console.error(outcome.error, source)
        elif outcome.result is None:
            output = shown(outcome.job.output)
            self._console.detail(f"{shown(source)}: skipped, {output} exists")
        elif self._batch and self._console.interactive:
            self._console.detail(self._wording.line(outcome.result))  # the bars tell enough
        else:
            self._console.note(self._wording.line(outcome.result))

    def finish(self) -> ExitStatus:
        """Tells of all files and returns the exit status."""
        failed = [outcome for outcome in self._outcomes if outcome.error is not None]
        if self._expected > 1:
            self._sum_up(failed)
        values = [_as_json(outcome) for outcome in self._outcomes]
        self._console.emit(values if self._batch else next(iter(values), None))
        if not failed:
            return ExitStatus.OK
        wrong = all(isinstance(outcome.error, UsageError) for outcome in failed)
        return ExitStatus.USAGE if wrong else ExitStatus.FAILED

    def _sum_up(self, failed: Sequence[Outcome[Any]]) -> None:
        done = [outcome.result for outcome in self._outcomes if outcome.result is not None]
        skipped = sum(outcome.skipped for outcome in self._outcomes)
        parts = [f"{len(done)} of {text.count(self._expected, 'file')} {self._wording.verb}"]
        if skipped:
            parts.append(f"{skipped} skipped (output exists)")
        if failed:
            parts.append(f"{len(failed)} failed")
        if len(self._outcomes) < self._expected:
            parts.append(f"{self._expected - len(self._outcomes)} not done")
        self._console.note(", ".join(parts))
        if done:
            self._console.note(f"  {self._wording.total(done, time.monotonic() - self._began)}")
        if failed:
            self._console.note("failed:")
        for outcome in failed:
            assert outcome.error is not None
            self._console.note(f"  {text.explain(outcome.error, outcome.job.source)}")


def _as_json(outcome: Outcome[Any]) -> dict[str, Any]:
    paths = {"source": outcome.job.source, "output": outcome.job.output or None}
    if outcome.error is not None:
        return {**paths, "error": text.explain(outcome.error)}
    if outcome.result is None:
        return {**paths, "skipped": True}
    return {**dataclasses.asdict(outcome.result), **paths}
