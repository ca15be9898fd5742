"""What is told of each file of a run, and of the whole at its end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ExitStatus, UsageError
from snaccli.workers import Outcome

__all__ = ["Coded", "Report"]


class Coded(Protocol):
    """What a result must hold to be summed up; all of it a dataclass."""

    @property
    def duration_s(self) -> float:
        """Seconds of audio."""
        ...


R = TypeVar("R", bound=Coded)


class Report(Generic[R]):
    """Collects the outcomes of a run, tells of each as it comes and of all at the end.

    Args:
        console: where to.
        batch: whether the user asked for several files: then there is a summary, and JSON is a list.
        verb: what was done to the files, such as ``encoded``.
        line: words the result of one file.
        total: words the sum of several results, given the wall-clock seconds of the run.
    """

    def __init__(
        self,
        console: Console,
        *,
        batch: bool,
        verb: str,
        line: Callable[[R], str],
        total: Callable[[Sequence[R], float], str],
    ) -> None:
        self._console = console
        self._batch = batch
        self._verb = verb
        self._line = line
        self._total = total
        self._outcomes: list[Outcome[R]] = []
        self._began = time.monotonic()

    def start(self) -> None:
        """Begin to count the seconds of the work: after the model was loaded."""
        self._began = time.monotonic()

    def add(self, outcome: Outcome[R]) -> None:
        """Tell of one file."""
        self._outcomes.append(outcome)
        source = outcome.job.source
        if outcome.error is not None:
            self._console.error(outcome.error, source)
        elif outcome.result is None:
            self._console.detail(
                f"{text.display(source)}: skipped, {text.display(outcome.job.output)} exists"
            )
        elif self._batch and self._console.interactive:
            self._console.detail(self._line(outcome.result))  # the bars tell enough
        else:
            self._console.note(self._line(outcome.result))

    def finish(self, expected: int) -> ExitStatus:
        """Tell of all files, of which `expected` were to be done, and return the exit status."""
        failed = [outcome for outcome in self._outcomes if outcome.error is not None]
        if expected > 1:
            self._summarise(failed, expected)
        values = [_as_json(outcome) for outcome in self._outcomes]
        self._console.emit(values if self._batch else next(iter(values), None))
        if not failed:
            return ExitStatus.OK
        wrong = all(isinstance(outcome.error, UsageError) for outcome in failed)
        return ExitStatus.USAGE if wrong else ExitStatus.FAILED

    def _summarise(self, failed: Sequence[Outcome[R]], expected: int) -> None:
        done = [outcome.result for outcome in self._outcomes if outcome.result is not None]
        skipped = sum(outcome.skipped for outcome in self._outcomes)
        parts = [f"{len(done)} of {text.count(expected, 'file')} {self._verb}"]
        if skipped:
            parts.append(f"{skipped} skipped (output exists)")
        if failed:
            parts.append(f"{len(failed)} failed")
        if len(self._outcomes) < expected:
            parts.append(f"{expected - len(self._outcomes)} not done")
        self._console.note(", ".join(parts))
        if done:
            self._console.note(f"  {self._total(done, time.monotonic() - self._began)}")
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
