"""Shards: numbered files of so many recordings each, every one whole, so that a run can be resumed.

The recordings of a run are cut into units of the size of a shard, in their order. A unit becomes one shard,
whose number is known beforehand: which recordings it holds does not depend on how many work on them, or
where: threads of one process (`ShardWriter`), or the workers of a cluster (`ShardWork`). A shard appears
under its name when all of its unit are done, or when the run ends or is interrupted. Knows no torch.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Literal, cast

from snaccli.codec import ModelPool
from snaccli.codec.cluster import Done, UnitResult
from snaccli.codec.codec import Device
from snaccli.errors import OutputError, Remedy, SnacError
from snaccli.io import elsewhere
from snaccli.io.files import OutputFile, cause, open_output, shown
from snaccli.tokens.files import draft
from snaccli.tokens.formats import FORMATS, Companions, Facts, RowWriter, ShardFormat, format_of
from snaccli.tokens.interleave import TokenFileError
from snaccli.tokens.recording import Draft, Form, NamedRecording
from snaccli.tokens.transfer import Exporter, companions

__all__ = [
    "ShardUnit",
    "ShardWork",
    "ShardWriter",
    "existing",
    "next_number",
    "paths_done",
    "remove",
    "shard_path",
    "shard_units",
]

# What lies in a folder

_NAME = re.compile(rf"tokens-(\d{{5,9}})\.(?:{'|'.join(FORMATS)})", re.ASCII)


def existing(folder: str) -> list[str]:
    """Returns the shards in a folder or below a URL, of any format, by number."""
    try:
        names = elsewhere.names(folder) if elsewhere.is_url(folder) else os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = sorted((int(match[1]), match[0]) for match in map(_NAME.fullmatch, names) if match)
    return [_below(folder, name) for _, name in found]


def next_number(folder: str) -> int:
    """Returns the number of the next shard in a folder."""
    shards = existing(folder)
    match = _NAME.fullmatch(_base(shards[-1])) if shards else None
    return int(match[1]) + 1 if match else 0


def shard_path(folder: str, number: int, extension: str) -> str:
    """Returns the path or URL of a shard."""
    return _below(folder, f"tokens-{number:05d}.{extension}")


def remove(shards: Sequence[str]) -> None:
    """Removes shards.

    Raises:
        OutputError: one cannot be removed.
    """
    for shard in shards:
        if elsewhere.is_url(shard):
            elsewhere.remove(shard)
            continue
        try:
            os.unlink(shard)
        except OSError as error:
            raise OutputError(f"cannot be removed: {cause(error)}", shard) from error


def _below(folder: str, name: str) -> str:
    return elsewhere.join(folder, name) if elsewhere.is_url(folder) else os.path.join(folder, name)


def _base(shard: str) -> str:
    return re.split(r"[/\\]", shard)[-1]


def paths_done(folder: str, extension: str, expected: Callable[[str], Sequence[Facts]]) -> set[str]:
    """Returns the paths of all recordings in a folder's shards.

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


# Written by threads of one process


@dataclass
class _Unit:
    """A shard that is being made: recordings up to ``end`` of the run, of which ``next`` is due.

    ``like`` is the first that came, which tells what the others must be like; ``held`` came before their
    turn, ``written`` are in the file.
    """

    path: str
    next: int
    end: int
    like: Draft | None = None
    held: dict[int, tuple[Draft, Companions] | None] = field(default_factory=dict)
    written: list[int] = field(default_factory=list)
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
        self._lost: dict[int, OutputError] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def put(self, index: int, draft: Draft | None, beside: Companions = ()) -> str:
        """Writes one recording, in its turn, and returns the path of its shard.

        Args:
            index: of the recording among those of the run; each is put once.
            draft: None if the recording failed.
            beside: files that stand beside it.

        Raises:
            TokenFileError: the shard cannot hold it; the others are not touched by that.
            OutputError: the system refuses to write; `finish` tells what else is lost by that.
        """
        with self._lock:
            number = index // self._most
            if number not in self._units:
                self._units[number] = self._opened(number)
            unit = self._units[number]
            unit.held[index] = None
            try:
                # Now, not in its turn: that may come when another recording is put.
                if draft is not None:
                    self._kind.check(draft, unit.like)
                    unit.like = unit.like or draft
                    unit.held[index] = draft, beside
            finally:
                self._advance(number)
            if index in self._lost:
                raise self._lost.pop(index)
            return unit.path

    def finish(self) -> dict[int, OutputError]:
        """Ends all shards, with the recordings that were put so far; what ends a run, an interrupt too.

        Returns:
            why recordings that had been put, by their index, are in no shard after all.
        """
        with self._lock:
            for unit in self._units.values():
                for index in sorted(unit.held):
                    self._write(unit, index)
                self._close(unit)
            self._units.clear()
            return self._lost

    def _advance(self, number: int) -> None:
        """Writes what is due of a unit, and ends its shard behind the last."""
        unit = self._units[number]
        while unit.next in unit.held:
            unit.next += 1
            self._write(unit, unit.next - 1)
        if unit.next == unit.end:
            self._close(self._units.pop(number))

    def _opened(self, number: int) -> _Unit:
        if self._base is None:
            if self._fresh:
                remove(existing(self._folder))
            self._base = next_number(self._folder)
        path = shard_path(self._folder, self._base + number, self._kind.extension)
        first = number * self._most
        return _Unit(path, first, min(first + self._most, self._count))

    def _write(self, unit: _Unit, index: int) -> None:
        entry = unit.held.pop(index)
        if entry is None:
            return
        with self._noting_losses(unit):
            unit.written.append(index)
            if unit.rows is None:
                unit.rows = self._kind.writer(unit.stack.enter_context(open_output(unit.path)))
            unit.rows.write(*entry)

    def _close(self, unit: _Unit) -> None:
        rows, unit.rows = unit.rows, None
        with self._noting_losses(unit), unit.stack.pop_all():
            if rows is not None:
                rows.close()

    @contextmanager
    def _noting_losses(self, unit: _Unit) -> Iterator[None]:
        """Where the system refuses to write, the half shard goes, and all that it held is noted as lost."""
        try:
            yield
        except BaseException as error:
            written, unit.written, unit.rows = unit.written, [], None
            unit.stack.pop_all().__exit__(type(error), error, error.__traceback__)  # removes the half shard
            why = error if isinstance(error, OutputError) else OutputError("was not finished", unit.path)
            self._lost |= dict.fromkeys(written, why)
            if why is not error:
                raise


# Made by the workers of a cluster, a shard a unit

_TOGETHER = 64  # recordings read before they are coded, on a GPU
_MEMORY = 32 << 20  # bytes of a shard held in memory; what exceeds them goes to the disk


@dataclass(frozen=True)
class ShardUnit:
    """One shard to be made.

    Attributes:
        shard: its path or URL.
        recordings: source, and path within the shard, of each.
    """

    shard: str
    recordings: tuple[tuple[str, str], ...]


def shard_units(
    recordings: Sequence[tuple[str, str]], folder: str, extension: str, most: int, first: int
) -> list[ShardUnit]:
    """Cuts recordings into shards, as `ShardWriter` does.

    Args:
        recordings: source and path of each.
        folder: of the shards.
        extension: of their format.
        most: recordings in a shard.
        first: number of the first shard.
    """
    return [
        ShardUnit(shard_path(folder, first + n, extension), tuple(recordings[n * most : (n + 1) * most]))
        for n in range(-(-len(recordings) // most))
    ]


@dataclass
class ShardWork:
    """Makes shards; see ``snaccli.codec.cluster.UnitWork``.

    Attributes:
        model: for all recordings, or None.
        device: see ``Codec.load``.
        threads: likewise.
        form: of the tokens.
        levels: so many of the coarsest only; None for all.
        channels: ``mono`` mixes audio down, ``keep`` codes each channel by itself.
        extension: of the shards' format.
        audio: whether recordings are audio, so that the model is wanted before the first is read.
    """

    model: str | None
    device: str
    threads: int
    form: Form
    levels: int | None
    channels: Literal["mono", "keep"]
    extension: str
    audio: bool = True

    def start(self) -> None:
        """Loads the model.

        Raises:
            ModelError: it cannot be had.
        """
        models = ModelPool(self.model, device=self.device, threads=self.threads)
        self._exporter = Exporter(models, self.form, self.levels, self.channels)
        if self.audio or self.model is not None:
            self._exporter.for_audio()

    def __call__(self, unit: ShardUnit) -> UnitResult:
        """Makes a shard of those of its recordings that can be read; none if there are none.

        The shard appears under its name when it is whole, and takes the place of one that is there.
        """
        done: list[Done] = []
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY, prefix="snac-") as spool:
            kind, rows, like = FORMATS[self.extension], None, None
            out = OutputFile(cast(BinaryIO, spool), unit.shard, seekable=True)
            for source, found in self._recordings(unit):
                try:
                    if not isinstance(found, NamedRecording):
                        raise found
                    told = draft(found, self.form)
                    kind.check(told, like)
                    like, rows = like or told, rows or kind.writer(out)
                    rows.write(told, companions(source) if self.extension == "tar" else ())
                    done.append(Done(source, found.duration_s))
                except (SnacError, OSError) as error:
                    done.append(Done(source, error=str(error)))
            if rows is not None:
                rows.close()
                spool.seek(0)
                with open_output(unit.shard, overwrite=True) as file:
                    shutil.copyfileobj(spool, cast(BinaryIO, file), 1 << 20)
        return UnitResult(unit.shard, tuple(done))

    def _recordings(self, unit: ShardUnit) -> Iterator[tuple[str, NamedRecording | SnacError | OSError]]:
        """Yields each source with its tokens, or why it has none; on a GPU many are coded together."""
        size = 1 if Device.parse(self.device).kind == "cpu" else _TOGETHER
        for low in range(0, len(unit.recordings), size):
            part = unit.recordings[low : low + size]
            for (source, _), found in zip(part, self._exporter.together(part), strict=True):
                yield source, found
