"""How far a piece of work is: one protocol, and what makes the progress of a whole from that of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SILENT", "Listener", "Progress", "part", "rising"]


class Progress(Protocol):
    """What a piece of work tells of itself, from whichever thread it runs in."""

    def started(self, seconds: float | None) -> None:
        """Is told that the recording is open and lasts so many seconds; None where only its end tells."""

    def __call__(self, fraction: float) -> None:
        """Is told the fraction done, 0 to 1, never falling; what it raises ends the work."""


Listener = Progress | Callable[[float], None] | None
"""What public functions take: a `Progress`, a function of the fraction done alone, or nothing."""


class _Silent:
    def started(self, seconds: float | None) -> None: ...

    def __call__(self, fraction: float) -> None: ...


SILENT: Progress = _Silent()
"""Tells nobody."""


@dataclass
class _Rising:
    """Passes on what is more than was told before."""

    tell: Progress | Callable[[float], None]
    last: float = 0.0

    def started(self, seconds: float | None) -> None:
        started = getattr(self.tell, "started", None)
        if started is not None:
            started(seconds)

    def __call__(self, fraction: float) -> None:
        fraction = min(fraction, 1.0)
        if fraction > self.last:
            self.last = fraction
            self.tell(fraction)


@dataclass
class _Part:
    """The progress of a part as that of the whole; the length of the recording is the whole's to tell."""

    whole: Progress
    low: float
    high: float

    def started(self, seconds: float | None) -> None: ...

    def __call__(self, fraction: float) -> None:
        self.whole(self.low + (self.high - self.low) * min(1.0, max(0.0, fraction)))


def rising(listener: Listener) -> Progress:
    """Returns a `Progress` that tells `listener`, and never tells it less than before."""
    return SILENT if listener is None or listener is SILENT else _Rising(listener)


def part(whole: Progress, low: float, high: float) -> Progress:
    """Returns a progress whose 0 to 1 is `low` to `high` of the whole."""
    return SILENT if whole is SILENT else _Part(whole, low, high)
