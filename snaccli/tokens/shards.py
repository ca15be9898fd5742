"""JSONL in shards: numbered files of so many recordings each, every one whole, so that a run can be resumed.

A shard appears under its name when it is full, or when the run ends or is interrupted; never with half a
line. Knows no torch.
"""

from __future__ import annotations

import json
import os
import re
import threading
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from snaccli.errors import OutputError
from snaccli.io.files import OutputFile, open_output, shown
from snaccli.tokens.errors import TokenFileError
from snaccli.tokens.reading import MAX_JSON_BYTES, lines

__all__ = ["ShardWriter", "existing", "paths_done"]

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


def paths_done(folder: str, facts: dict[str, Any]) -> set[str]:
    """The paths of all recordings in a folder's shards.

    Args:
        folder: where the shards are.
        facts: what each shard's first recording must say too, for a run to go on with them.

    Raises:
        TokenFileError: a shard is none, or holds tokens of another kind.
    """
    done: set[str] = set()
    for shard in existing(folder):
        for number, line in enumerate(lines(shard)):
            if number == 0:
                _check_kind(shard, line.size, facts)
            done.add(line.path)
    return done


def _check_kind(shard: str, size: int, facts: dict[str, Any]) -> None:
    try:
        if size > MAX_JSON_BYTES:
            raise ValueError
        with open(shard, "rb") as file:
            value = json.loads(file.readline(size))
        found = {name: value.get(name) for name in facts}
    except (OSError, ValueError, RecursionError, AttributeError):
        raise TokenFileError(f"{shown(shard)} holds no recordings' tokens; choose another folder") from None
    for name, wanted in facts.items():
        if found[name] != wanted:
            raise TokenFileError(
                f"{shown(shard)} holds tokens of {name} {found[name]!r}, not {wanted!r}; choose another "
                "folder, or the same options"
            )


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
