"""JSONL in shards: numbered files of so many recordings each, every one whole, so that a run can be resumed.

A shard appears under its name when it is full, or when the run ends or is interrupted; never with half a
line. Knows no torch.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from snaccli.errors import OutputError
from snaccli.io.files import OutputFile, open_input, open_output, shown
from snaccli.tokens.errors import TokenFileError
from snaccli.tokens.reading import HEAD_BYTES, lines

__all__ = ["Facts", "ShardWriter", "existing", "heads", "paths_done"]

_NAME = re.compile(r"tokens-(\d{5,9})\.jsonl", re.ASCII)


def existing(folder: str) -> list[str]:
    """The shards in a folder, by number."""
    try:
        names = sorted(
            (int(match[1]), match[0]) for match in map(_NAME.fullmatch, os.listdir(folder)) if match
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [os.path.join(folder, name) for _, name in names]


Facts = dict[str, Any]


def paths_done(folder: str, expected: Callable[[str], Sequence[Facts]]) -> set[str]:
    """The paths of all recordings in a folder's shards.

    Args:
        folder: where the shards are.
        expected: gives what the record of a path may say, as one or several sets of facts: the record must
            agree with every fact of one of them.

    Raises:
        TokenFileError: a shard is none, or a record is of another kind: of other weights, levels, channels
            or ids than this run would write.
    """
    done: set[str] = set()
    for shard in existing(folder):
        for found in heads(shard):
            path = found.get("path", "")
            _check_kind(shard, found, expected(path))
            done.add(path)
    return done


def heads(shard: str) -> Iterator[Facts]:
    """What each line of a shard says before its codes, as our lines do.

    Raises:
        TokenFileError: the shard cannot be read, or a line is not of this form.
    """
    with open_input(shard, error=TokenFileError) as file:
        for line in lines(shard):
            file.seek(line.offset)
            head, codes, _ = file.read(min(line.size, HEAD_BYTES)).partition(b',"codes":')
            try:
                value = json.loads(head + b"}") if codes else None
            except (ValueError, RecursionError):
                value = None
            if not isinstance(value, dict):
                raise TokenFileError(
                    f"{shown(shard)} holds no recordings' tokens in line {line.number}; choose another folder"
                )
            yield value


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


class ShardWriter:
    """Writes lines to numbered shards in a folder; a context manager, safe to share between threads.

    Args:
        folder: must exist when the first line is written.
        most: lines a shard.
        fresh: remove the shards that are there, when the first line is written.
    """

    def __init__(self, folder: str, most: int, *, fresh: bool = False) -> None:
        self._folder, self._most, self._fresh = folder, most, fresh
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._file: OutputFile | None = None
        self._lines = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Whatever ends the run, an interrupt too: the lines so far are whole and worth keeping.
        with self._lock:
            self._close()

    def write(self, line: bytes) -> str:
        """Write one line, with its end, and return the path of its shard.

        Raises:
            OutputError: the system refuses to write; what the shard held is lost then.
        """
        with self._lock:
            if self._file is None:
                self._open()
            assert self._file is not None
            try:
                self._file.write(line)
            except BaseException as error:
                self._file, stack = None, self._stack.pop_all()
                stack.__exit__(type(error), error, error.__traceback__)  # removes the half shard
                raise
            self._lines += 1
            path = self._path
            if self._lines == self._most:
                self._close()
            return path

    def _open(self) -> None:
        shards = existing(self._folder)
        if self._fresh:
            for shard in shards:
                try:
                    os.unlink(shard)
                except OSError as error:
                    raise OutputError(f"cannot remove {shown(shard)}: {error.strerror}") from None
            shards, self._fresh = [], False
        last = _NAME.fullmatch(os.path.basename(shards[-1])) if shards else None
        number = int(last[1]) + 1 if last else 0
        self._path = os.path.join(self._folder, f"tokens-{number:05d}.jsonl")
        self._file = self._stack.enter_context(open_output(self._path))
        self._lines = 0

    def _close(self) -> None:
        self._file = None
        self._stack.pop_all().close()
