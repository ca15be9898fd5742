"""The manifest of a data set, and what it amounts to.

One JSON object a line and a recording, appended as the work goes. It is read line by line and never held as a
whole. A line cut off by a crash is the last one, and counts as not written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from snaccli.errors import OutputError, RemediedError
from snaccli.io.files import cause, open_output, shown

__all__ = [
    "MANIFEST",
    "SPLITS",
    "SUMMARY",
    "DatasetError",
    "Manifest",
    "Row",
    "Summary",
    "identity",
    "parse_row",
    "read_rows",
]

MANIFEST = "manifest.jsonl"
SPLITS = ("train", "val")

_LONGEST_LINE = 1 << 16  # bytes; two paths and a dozen numbers stay far below


class DatasetError(RemediedError):
    """A data set is damaged, empty, or not one."""


@dataclass(frozen=True)
class Row:
    """What became of one recording.

    Attributes:
        source: absolute path of the recording.
        size: its bytes.
        modified_ns: its time of modification; with path and size it tells whether the file has changed.
        key: 16 hex digits that the split goes by: of the samples, or of the folder.
        split: ``train`` or ``val``; None where it was refused.
        file: what training reads, relative to the data set, with ``/``; None where it was refused.
        rate: Hz of the recording.
        channels: of the recording.
        duration_s: of the recording in seconds.
        frames: of `file`, at its own rate.
        bandwidth_hz: above this there is nothing, because of the recording's rate or the data set's.
        peak_db: highest sample, dB of full scale.
        rms_db: root mean square, dB of full scale.
        silence: share of the time below -60 dB.
        clipped: share of the samples that stand at full scale beside others that do.
        problem: why it was refused, led by a word for the kind; None for a row of the data set.
    """

    source: str
    size: int
    modified_ns: int
    key: str = ""
    split: str | None = None
    file: str | None = None
    rate: int = 0
    channels: int = 0
    duration_s: float = 0.0
    frames: int = 0
    bandwidth_hz: float = 0.0
    peak_db: float = 0.0
    rms_db: float = 0.0
    silence: float = 0.0
    clipped: float = 0.0
    problem: str | None = None

    @property
    def identity(self) -> int:
        """64 bits that stand for the recording as it was when it was read."""
        return identity(self.source, self.size, self.modified_ns)


def identity(source: str, size: int, modified_ns: int) -> int:
    """64 bits of a file's path, size and time: equal where it need not be read again."""
    text = f"{size}\0{modified_ns}\0{source}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


_KINDS = {field.name: field.type for field in dataclasses.fields(Row)}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, type(None)),
}


def parse_row(line: bytes) -> Row:
    """One line of a manifest.

    Raises:
        ValueError: it is not one; or its file would lie outside the data set.
    """
    values: Any = json.loads(line)
    if (
        not isinstance(values, dict)
        or not {"source", "size", "modified_ns"} <= values.keys() <= _KINDS.keys()
    ):
        raise ValueError("not a row")
    for name, value in values.items():
        if not isinstance(value, _TYPES[str(_KINDS[name])]) or isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}")
    row = Row(**values)
    if row.split not in (*SPLITS, None) or row.frames < 0 or row.rate < 0:
        raise ValueError("not a row")
    if row.file is not None:
        parts = PurePosixPath(row.file).parts
        if not parts or parts[0] not in SPLITS or ".." in parts or "\\" in row.file or "\0" in row.file:
            raise ValueError(f"{row.file!r} is not in the data set")
    return row


def read_rows(path: str | Path) -> Iterator[tuple[int, Row]]:
    """The rows of a manifest with the byte each begins at, in the order of the file.

    Raises:
        DatasetError: it cannot be read, or a line of it is damaged.
    """
    try:
        with open(path, "rb") as file:
            offset = 0
            while line := file.readline(_LONGEST_LINE):
                if not line.endswith(b"\n"):
                    return  # cut off as it was written
                yield offset, parse_row(line)
                offset += len(line)
    except OSError as error:
        raise DatasetError(f"cannot read {shown(path)}: {cause(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"{shown(path)} is damaged at byte {offset} ({error}): remove it and prepare the data again"
        ) from error


class Manifest:
    """A manifest that rows are added to.

    Raises:
        DatasetError: what is there already is damaged.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        try:
            path.touch()
            self._cut_torn_line()
        except OSError as error:
            raise OutputError(f"cannot write {shown(path)}: {cause(error)}") from error

    def _cut_torn_line(self) -> None:
        end = 0
        with open(self.path, "rb+") as file:
            for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
                end += len(line) if line.endswith(b"\n") else 0
            file.truncate(end)

    def append(self, row: Row) -> None:
        """Adds a row; it is in the system's hands when this returns."""
        try:
            if self._file is None:
                self._file = open(self.path, "ab")  # noqa: SIM115 (closed by close)
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise OutputError(f"cannot write {shown(self.path)}: {cause(error)}") from error

    def rewrite(self, rows: Iterator[Row]) -> None:
        """Replaces the whole, at once or not at all."""
        self.close()
        with open_output(self.path, overwrite=True) as out:
            for row in rows:
                out.write(_line(row))

    def close(self) -> None:
        """Closes the file; a later `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(row: Row) -> bytes:
    values = dataclasses.asdict(row)
    return (json.dumps(values) + "\n").encode("ascii")


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
