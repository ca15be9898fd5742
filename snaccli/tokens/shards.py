"""Shards: numbered files of so many recordings each, every one whole, so that a run can be resumed.

The recordings of a run are cut into units of the size of a shard, in their order. A unit becomes one shard,
whose number is known beforehand: which recordings it holds does not depend on how many work on them, or
where. A shard appears under its name when all of its unit are done, or when the run ends or is interrupted.
Knows no torch.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from snaccli.errors import OutputError, Remedy
from snaccli.io import remote
from snaccli.io.files import cause, open_output, shown
from snaccli.tokens.formats import FORMATS, Companions, Facts, RowWriter, ShardFormat, format_of
from snaccli.tokens.interleave import TokenFileError
from snaccli.tokens.recording import Draft

__all__ = ["ShardWriter", "existing", "next_number", "paths_done", "remove", "shard_path"]

_NAME = re.compile(rf"tokens-(\d{{5,9}})\.(?:{'|'.join(FORMATS)})", re.ASCII)


def existing(folder: str) -> list[str]:
    """The shards in a folder or below a URL, of any format, by number."""
    try:
        names = remote.names(folder) if remote.is_url(folder) else os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = sorted((int(match[1]), match[0]) for match in map(_NAME.fullmatch, names) if match)
    return [_below(folder, name) for _, name in found]


def next_number(folder: str) -> int:
    """The number of the next shard in a folder."""
    shards = existing(folder)
    match = _NAME.fullmatch(_base(shards[-1])) if shards else None
    return int(match[1]) + 1 if match else 0


def shard_path(folder: str, number: int, extension: str) -> str:
    """The path or URL of a shard."""
    return _below(folder, f"tokens-{number:05d}.{extension}")


def remove(shards: Sequence[str]) -> None:
    """Removes shards.

    Raises:
        OutputError: one cannot be removed.
    """
    for shard in shards:
        if remote.is_url(shard):
            remote.remove(shard)
            continue
        try:
            os.unlink(shard)
        except OSError as error:
            raise OutputError(f"cannot be removed: {cause(error)}", shard) from error


def _below(folder: str, name: str) -> str:
    return remote.join(folder, name) if remote.is_url(folder) else os.path.join(folder, name)


def _base(shard: str) -> str:
    return re.split(r"[/\\]", shard)[-1]


def paths_done(folder: str, extension: str, expected: Callable[[str], Sequence[Facts]]) -> set[str]:
    """The paths of all recordings in a folder's shards.

    Args:
        folder: where the shards are.
        extension: of the format that they must have.
        expected: gives what the record of a path may say, as one or several sets of facts: the record must
            agree with every fact of one of them.

    Raises:
        TokenFileError: a shard is none, or a record is of another kind: of other weights, levels, channels
            or ids than this run would write.
    """
    done: set[str] = set()
    for shard in existing(folder):
        kind = format_of(shard)
        if kind is None or kind.extension != extension:
            raise TokenFileError(
                f"{shown(shard)} is there, and shards of another format beside it would be a mixture",
                remedy=Remedy.SAME_FORMAT,
            )
        for found in kind.heads(shard):
            path = found.get("path", "")
            _check_kind(shard, found, expected(path))
            done.add(path)
    return done


def _check_kind(shard: str, found: Facts, allowed: Sequence[Facts]) -> None:
    wrong = [_differing(found, wanted) for wanted in allowed]
    if wrong and all(wrong):
        name = min(wrong, key=len)[0]
        wanted = allowed[wrong.index(min(wrong, key=len))]
        raise TokenFileError(
            f"{shown(shard)} holds tokens of {name} {found.get(name)!r}, not {wanted[name]!r}; choose "
            "another folder, or the same options"
        )


def _differing(found: Facts, wanted: Facts) -> list[str]:
    return [name for name, value in wanted.items() if found.get(name) != value]


@dataclass
class _Unit:
    """A shard that is being made: recordings ``first`` to ``end`` of the run, of which ``next`` is due."""

    path: str
    next: int
    end: int
    held: dict[int, tuple[Draft, Companions] | None] = field(default_factory=dict)
    rows: RowWriter | None = None
    stack: ExitStack = field(default_factory=ExitStack)


class ShardWriter:
    """Writes the recordings of a run to shards; a context manager, safe to share between threads.

    Args:
        folder: or a URL; a folder must exist when the first recording is written.
        kind: the format.
        most: recordings in a shard.
        count: recordings of the run.
        fresh: remove the shards that are there, when the first recording is written.
    """

    def __init__(self, folder: str, kind: ShardFormat, most: int, count: int, *, fresh: bool = False) -> None:
        self._folder, self._kind, self._most, self._count = folder, kind, most, count
        self._fresh = fresh
        self._base: int | None = None
        self._units: dict[int, _Unit] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever ends the run, an interrupt too: the recordings so far are whole and worth keeping.
        with self._lock:
            for unit in list(self._units.values()):
                for index in sorted(unit.held):
                    self._write(unit, unit.held[index])
                self._close(unit)

    def put(self, index: int, draft: Draft | None, beside: Companions = ()) -> str:
        """Writes one recording, in its turn, and returns the path of its shard.

        Args:
            index: of the recording among those of the run; each is put once.
            draft: None if the recording failed.
            beside: files that stand beside it.

        Raises:
            OutputError: the system refuses to write; what the shard held is lost then.
        """
        with self._lock:
            number = index // self._most
            if number not in self._units:
                self._units[number] = self._opened(number)
            unit = self._units[number]
            unit.held[index] = None if draft is None else (draft, beside)
            try:
                while unit.next in unit.held:
                    unit.next += 1
                    self._write(unit, unit.held.pop(unit.next - 1))
            finally:
                if unit.next == unit.end:
                    self._close(self._units.pop(number))
            return unit.path

    def _opened(self, number: int) -> _Unit:
        if self._base is None:
            if self._fresh:
                remove(existing(self._folder))
            self._base = next_number(self._folder)
        path = shard_path(self._folder, self._base + number, self._kind.extension)
        first = number * self._most
        return _Unit(path, first, min(first + self._most, self._count))

    def _write(self, unit: _Unit, entry: tuple[Draft, Companions] | None) -> None:
        if entry is None:
            return
        try:
            if unit.rows is None:
                unit.rows = self._kind.writer(unit.stack.enter_context(open_output(unit.path)))
            unit.rows.write(*entry)
        except BaseException as error:
            unit.rows, stack = None, unit.stack.pop_all()
            stack.__exit__(type(error), error, error.__traceback__)  # removes the half shard
            raise

    def _close(self, unit: _Unit) -> None:
        rows, unit.rows = unit.rows, None
        stack = unit.stack.pop_all()
        with stack:
            if rows is not None:
                rows.close()
