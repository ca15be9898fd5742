"""How far a mean over recordings can be trusted, and which recordings fared worst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from snaccli.bench.results import FileResult

__all__ = ["RESAMPLES", "WORST_BY", "Interval", "interval", "ranking"]

Interval = tuple[float, float]

RESAMPLES = 2000
"""Bootstrap samples an interval rests on."""

WORST_BY = "mel_distance"
"""The figure that ranks recordings: always there, and of the four the nearest to what one hears."""

_BATCH_VALUES = 1 << 20  # indices drawn at once


def interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval | None:
    """95 % percentile bootstrap interval of sum(numerators) / sum(denominators) over recordings.

    Recordings are drawn with replacement, `RESAMPLES` times; ones as denominators make it that of a plain
    mean. The draw is seeded, so that the same figures give the same interval. Source: Efron and Tibshirani,
    An Introduction to the Bootstrap, 1993, section 13.3.

    Args:
        numerators: one a recording.
        denominators: as many, none negative.

    Returns:
        (low, high), or None for fewer than two recordings or denominators that may sum to 0: one recording
        says nothing of others.
    """
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)
    count = len(above)
    if count < 2 or not (below > 0).all():
        return None
    generator = np.random.default_rng(0)
    batch = max(1, _BATCH_VALUES // count)
    quotients = []
    for first in range(0, RESAMPLES, batch):
        drawn = generator.integers(0, count, (min(batch, RESAMPLES - first), count))
        quotients.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(quotients), (2.5, 97.5))
    return float(low), float(high)


def ranking(files: Sequence[FileResult]) -> list[int]:
    """Numbers of the recordings, the one of the greatest mel distance first; failed ones are left out."""
    distances = {number: file.mel_distance for number, file in enumerate(files)}
    known = {number: distance for number, distance in distances.items() if distance is not None}
    return sorted(known, key=lambda number: -known[number])
