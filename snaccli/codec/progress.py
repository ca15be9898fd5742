"""Progress of a whole from that of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

Progress = Callable[[float], None]

CODING_SHARE = 0.1
"""Of the progress: entropy coding, next to the model's work."""


class Report:
    """Fractions of the whole from progress of its parts; never goes back."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._last = 0.0

    def __call__(self, fraction: float) -> None:
        """Reports a fraction of the whole, unless more was reported before."""
        if self._progress is not None and fraction > self._last:
            self._last = min(fraction, 1.0)
            self._progress(self._last)

    def part(self, low: float, high: float) -> Progress:
        """A callback whose 0 to 1 is ``low`` to ``high`` of the whole."""
        return lambda fraction: self(low + (high - low) * fraction)

    def blocks(
        self, blocks: Iterable[np.ndarray], expected: int | None, low: float, high: float
    ) -> Iterator[np.ndarray]:
        """Passes blocks on, reporting how many of ``expected`` samples have gone by."""
        advance, done = self.part(low, high), 0
        for block in blocks:
            yield block
            done += len(block)
            if expected:
                advance(min(done / expected, 1.0))
