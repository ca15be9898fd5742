"""What a data set amounts to, counted from its manifest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from snaccli.io.files import open_output
from snaccli.training.data.manifest import Row

__all__ = ["SUMMARY", "Summary"]

SUMMARY = "summary.json"
_NAMED = 20  # refused recordings named in the summary; the manifest has them all


@dataclass
class Summary:
    """Counts of a data set.

    Attributes:
        recordings: by split.
        seconds: by split.
        refused: by the kind of problem.
        examples: the first refused recordings, each with its problem.
        rates: recordings by their own sample rate, of those that were taken.
        narrow: recordings whose rate is below the data set's: they have nothing in the highest band.
        clipped: recordings taken although a part of their samples is clipped.
    """

    recordings: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "val": 0.0})
    refused: dict[str, int] = field(default_factory=dict)
    examples: list[tuple[str, str]] = field(default_factory=list)
    rates: dict[str, int] = field(default_factory=dict)
    narrow: int = 0
    clipped: int = 0

    @classmethod
    def of(cls, rows: Iterable[Row], rate: int) -> Summary:
        """Counts `rows` of a data set at `rate` Hz, one pass."""
        summary = cls()
        for row in rows:
            summary.add(row, rate)
        summary.seconds = {split: round(value, 3) for split, value in summary.seconds.items()}
        return summary

    def add(self, row: Row, rate: int) -> None:
        """Counts one row."""
        if row.split is None or row.problem is not None:
            problem = row.problem or "unknown"
            kind = problem.partition(":")[0]
            self.refused[kind] = self.refused.get(kind, 0) + 1
            if len(self.examples) < _NAMED:
                self.examples.append((row.source, problem))
            return
        self.recordings[row.split] += 1
        self.seconds[row.split] += row.duration_s
        self.rates[str(row.rate)] = self.rates.get(str(row.rate), 0) + 1
        self.narrow += row.bandwidth_hz < rate / 2
        self.clipped += row.clipped > 0

    def write(self, folder: Path) -> None:
        """Writes summary.json."""
        with open_output(folder / SUMMARY, overwrite=True) as out:
            out.write((json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode())
