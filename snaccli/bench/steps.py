"""How far a run is."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "Steps"]

Progress = Callable[[float, str], None]
"""Called with the fraction done (0 to 1, never falling) and what is under way, as ``mini: speech.wav``."""


class Steps:
    """Turns the progress of one step's stages, each from 0 to 1, into that of the whole run."""

    def __init__(self, report: Progress, count: int) -> None:
        self._report = report
        self._count = max(1, count)
        self._done = 0
        self._what = ""

    def begin(self, what: str) -> None:
        """Say what is under way now."""
        self._what = what
        self._report(self._done / self._count, what)

    def stage(self, start: float, end: float) -> Callable[[float], None]:
        """What takes the progress of a stage that spans from `start` to `end` of the step."""

        def tell(fraction: float) -> None:
            within = start + (end - start) * min(1.0, max(0.0, fraction))
            self._report((self._done + within) / self._count, self._what)

        return tell

    def end(self) -> None:
        """The step is done."""
        self._done += 1
