"""How far a run of many equal steps is."""

from __future__ import annotations

from collections.abc import Callable

from snaccli.progress import Progress, part

__all__ = ["Steps", "Tell"]

Tell = Callable[[float, str], None]
"""Called with the fraction done (0 to 1, never falling) and what is under way, as ``mini: speech.wav``."""


class Steps:
    """Turns the progress of each step, itself the receiver of it, into that of the whole run."""

    def __init__(self, report: Tell, count: int) -> None:
        self._report = report
        self._count = max(1, count)
        self._done = 0
        self._what = ""

    def begin(self, what: str) -> None:
        """Say what is under way now."""
        self._what = what
        self._report(self._done / self._count, what)

    def started(self, seconds: float | None) -> None:
        """A recording's length makes no difference here."""

    def __call__(self, fraction: float) -> None:
        """So much of the step under way is done."""
        self._report((self._done + fraction) / self._count, self._what)

    def stage(self, start: float, end: float) -> Progress:
        """The progress of a stage that spans from `start` to `end` of the step."""
        return part(self, start, end)

    def end(self) -> None:
        """The step is done."""
        self._done += 1
