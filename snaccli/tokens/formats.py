"""What a shard of many recordings' tokens is: lines of JSON, a table in Parquet, or a tar as of WebDataset.

Each format writes recordings one after another, tells what they say of themselves without reading their
tokens, and reads one by its place. docs/tokens.md and docs/corpora.md describe them. Knows no torch.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import numpy as np

from snaccli.io.elsewhere import key, tar_files
from snaccli.io.files import OutputFile, open_input
from snaccli.tokens.files import (
    HEAD_BYTES,
    MAX_ARRAY_BYTES,
    MAX_JSON_BYTES,
    Line,
    array_of,
    lines,
    read_line,
    table_of,
    to_json,
)
from snaccli.tokens.footer import values_of_groups
from snaccli.tokens.interleave import TokenFileError
from snaccli.tokens.recording import MAX_TOKENS, Draft, checked_facts

__all__ = ["FORMATS", "Companions", "Facts", "RowWriter", "ShardFormat", "format_of"]

# A row group is read as a whole, and a few hundred bytes may unpack to all that it may hold, of up to eight
# bytes a value. What is written stays below: a group that is nearly full, and the longest recording.
_MAX_GROUP = 2 * MAX_TOKENS  # values
_LARGEST_GROUP = 1 << 28  # of others' shards; such groups are gone through row by row, again for each row
_FULL_GROUP = 1 << 22
_LONGEST_ID = 16  # bytes of an id in JSON, with what parts it from the next, and its share of the facts
Facts = dict[str, Any]
Companions = tuple[tuple[str, bytes], ...]


class RowWriter(Protocol):
    """Writes recordings into a shard that is open."""

    def write(self, draft: Draft, beside: Companions = ()) -> None:
        """Writes one recording; ``beside`` are files that stand beside it, for formats that can hold them."""

    def close(self) -> None:
        """Writes what is still to be written; the file itself is closed by its owner."""


class ShardFormat(Protocol):
    """A format of shards."""

    extension: ClassVar[str]

    def check(self, draft: Draft, like: Draft | None) -> None:
        """Checks that a recording can be written to a shard; what passes, a writer takes.

        Args:
            draft: the recording.
            like: another one of the shard; None for the first.

        Raises:
            TokenFileError: it is too large for the format, or of other levels than the other one.
        """

    def writer(self, out: OutputFile) -> RowWriter:
        """Begins a shard."""

    def heads(self, source: str) -> Iterator[Facts]:
        """Yields what each recording of a shard says of itself, its tokens left out.

        Raises:
            TokenFileError: the shard cannot be read, or is not of this format.
        """

    def places(self, source: str | Path) -> Iterator[Line]:
        """Yields where the recordings of a shard stand. Raises: as ``heads``."""

    def read(self, source: str | Path, place: Line) -> Draft:
        """Reads one recording. Raises: as ``snaccli.tokens.files.read``."""


class JsonLines:
    """A recording a line."""

    extension: ClassVar[str] = "jsonl"

    def check(self, draft: Draft, like: Draft | None) -> None:
        """See :class:`ShardFormat`."""
        if draft.tokens > MAX_JSON_BYTES // _LONGEST_ID:
            to_json(draft)

    def writer(self, out: OutputFile) -> RowWriter:
        """Begins a shard."""
        return _LineWriter(out)

    def heads(self, source: str) -> Iterator[Facts]:
        """See :class:`ShardFormat`: what stands before the codes, as our lines have it."""
        with open_input(source, error=TokenFileError) as file:
            for line in lines(source):
                file.seek(line.offset)
                head, codes, _ = file.read(min(line.size, HEAD_BYTES)).partition(b',"codes":')
                try:
                    value = json.loads(head + b"}") if codes else None
                except (ValueError, RecursionError):
                    value = None
                if not isinstance(value, dict):
                    raise _no_tokens(source, f"line {line.number}")
                yield value

    def places(self, source: str | Path) -> Iterator[Line]:
        """See :class:`ShardFormat`."""
        return lines(source)

    def read(self, source: str | Path, place: Line) -> Draft:
        """See :class:`ShardFormat`."""
        return read_line(source, place)


class _LineWriter:
    def __init__(self, out: OutputFile) -> None:
        self._out = out

    def write(self, draft: Draft, beside: Companions = ()) -> None:
        self._out.write(to_json(draft))

    def close(self) -> None:
        pass


class Parquet:
    """A row a recording; what ``datasets.load_dataset("parquet", ...)`` reads."""

    extension: ClassVar[str] = "parquet"
    group: ClassVar[int] = 64  # rows that are read together

    def check(self, draft: Draft, like: Draft | None) -> None:
        """See :class:`ShardFormat`: a table has the columns of its first recording."""
        mine, theirs = draft.columns, (like or draft).columns
        if mine != theirs:
            raise TokenFileError(
                f"{mine} do not fit the columns {theirs} of the shard: export recordings of other levels to "
                "a folder of their own"
            )

    def writer(self, out: OutputFile) -> RowWriter:
        """Begins a shard."""
        _pyarrow()
        return _TableWriter(out, self.group)

    def heads(self, source: str) -> Iterator[Facts]:
        """See :class:`ShardFormat`: the columns without those of tokens."""
        with open_input(source, error=TokenFileError) as file, _read_by_arrow(source):
            table = _opened_table(file)
            names = [name for name in table.schema_arrow.names if not _is_tokens(name)]
            for batch in table.iter_batches(columns=names):
                for row in batch.to_pylist():
                    yield {name: value for name, value in row.items() if value is not None}

    def places(self, source: str | Path) -> Iterator[Line]:
        """See :class:`ShardFormat`; a place's offset is its row group, its size the row in the group."""
        # A file of the same name may be another now.
        _row_group.cache_clear()
        _values_of_groups.cache_clear()
        with open_input(source, error=TokenFileError) as file, _read_by_arrow(source):
            table = _opened_table(file)
            named = "path" in table.schema_arrow.names
            number = 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                paths = table.read_row_group(group, columns=["path"]).to_pylist() if named else [{}] * rows
                for row, found in enumerate(paths):
                    number += 1
                    path = found.get("path") or ""
                    yield Line(number, group, row, path if isinstance(path, str) else "")

    def read(self, source: str | Path, place: Line) -> Draft:
        """See :class:`ShardFormat`."""
        with _read_by_arrow(source):
            table, row = _row_of(str(source), place)
            if table is None or row >= table.num_rows:
                raise TokenFileError("is no Parquet file: it has fewer rows than it says", source)
            return _draft_of_row(table, row)


def _is_tokens(name: str) -> bool:
    return name == "ids" or name.startswith("level_")


@lru_cache(maxsize=1)
def _values_of_groups(source: str) -> list[int]:
    with open_input(source, error=TokenFileError) as file:
        return values_of_groups(file)


def _row_of(source: str, place: Line) -> tuple[Any, int]:
    """A table that holds a recording, None where there is none, and the number of its row."""
    values = _values_of_groups(source)[place.offset]
    if not 0 <= values <= _LARGEST_GROUP:
        raise TokenFileError(f"has more than {_LARGEST_GROUP:,} values in a row group; write smaller ones")
    if values <= _MAX_GROUP:
        return _row_group(source, place.offset), place.size
    with open_input(source, error=TokenFileError) as file:
        rows = _opened_table(file).iter_batches(batch_size=1, row_groups=[place.offset])
        return next(itertools.islice(rows, place.size, None), None), 0


@lru_cache(maxsize=1)
def _row_group(source: str, group: int) -> Any:
    with open_input(source, error=TokenFileError) as file:
        return _opened_table(file).read_row_group(group)


def _draft_of_row(table: Any, row: int) -> Draft:
    names = {name: table.column(name)[row] for name in table.schema.names}
    facts = checked_facts({name: cell.as_py() for name, cell in names.items() if not _is_tokens(name)})
    tokens = {name: cell for name, cell in names.items() if _is_tokens(name) and cell.is_valid}
    return Draft.of_arrays({name: _rows(cell, name) for name, cell in tokens.items()}, facts)


def _rows(cell: Any, name: str) -> Any:
    """Returns the numbers of a cell, a list or a list a channel, int64 (channels, tokens)."""
    try:
        values = cell.values
        rows = [row.values for row in values] if _is_list(values.type) else [values]
        if sum(map(len, rows)) > MAX_TOKENS:
            raise TokenFileError(f"{name!r} has more than {MAX_TOKENS:,} tokens; cut the recording in parts")
        arrays = [row.to_numpy(zero_copy_only=False) for row in rows] or [np.zeros(0, np.int64)]
        return table_of(np.stack(arrays), name)
    except (ValueError, TypeError, AttributeError) as error:
        raise TokenFileError(f"{name!r} is not of whole numbers, a list a channel") from error


def _is_list(kind: Any) -> bool:
    types = _pyarrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind))


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise TokenFileError("Parquet needs the package pyarrow: pip install 'snaccli[parquet]'") from error
    return pyarrow


def _opened_table(file: BinaryIO) -> Any:
    return _pyarrow().parquet.ParquetFile(file)


@contextlib.contextmanager
def _read_by_arrow(source: str | Path) -> Iterator[None]:
    """Turns what pyarrow says of a damaged table, when it opens it or later, into an error with its path."""
    arrow = _pyarrow()
    try:
        yield
    except (arrow.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        raise TokenFileError(f"is no Parquet file: {' '.join(str(error).split())[:200]}", source) from error


class _TableWriter:
    def __init__(self, out: OutputFile, group: int) -> None:
        self._out, self._group = _ArrowFile(out), group
        self._drafts: list[Draft] = []
        self._writer: Any = None
        self._columns: list[str] = []

    def write(self, draft: Draft, beside: Companions = ()) -> None:
        if self._writer is None:
            self._begin(draft)
        self._drafts.append(draft)
        if len(self._drafts) == self._group or sum(each.tokens for each in self._drafts) >= _FULL_GROUP:
            self._flush()

    def close(self) -> None:
        if self._writer is not None:
            self._flush()
            self._writer.close()

    def _begin(self, draft: Draft) -> None:
        arrow = _pyarrow()
        self._columns = draft.columns
        tokens = arrow.int32() if draft.interleaved else arrow.uint16()
        whole = {name: arrow.int64() for name in ("rate", "samples", "model_rate", "start_id")}
        small = {name: arrow.int32() for name in ("channels", "mixed_from", "codebook_size")}
        kinds = whole | small | {"strides": arrow.list_(arrow.int32()), "offsets": arrow.bool_()}
        names = [*("path", "model", "fingerprint", "rate", "samples", "channels", "mixed_from")]
        names += ["model_rate", "codebook_size", "strides", "layout"]
        names += ["offsets", "start_id"] if draft.interleaved else []
        fields = [(name, kinds.get(name, arrow.string())) for name in names]
        fields += [(name, arrow.list_(arrow.list_(tokens))) for name in self._columns]
        self._schema = arrow.schema(fields)
        self._writer = arrow.parquet.ParquetWriter(self._out, self._schema, compression="zstd")

    def _flush(self) -> None:
        rows = []
        for draft in self._drafts:
            tokens = {name: array.tolist() for name, array in draft.arrays().items()}
            rows.append(draft.facts | {"strides": list(draft.facts["strides"])} | tokens)
        if rows:
            self._writer.write_table(_pyarrow().Table.from_pylist(rows, self._schema))
        self._drafts = []


class _ArrowFile:
    """An output as pyarrow wants a file; it must not close it."""

    closed = False
    mode = "wb"

    def __init__(self, out: OutputFile) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        return self._out.write(memoryview(data).cast("B"))

    def tell(self) -> int:
        return self._out.tell()

    def flush(self) -> None:
        self._out.flush()

    def close(self) -> None:
        pass

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


class WebDataset:
    """A tar: of each recording ``KEY.tokens.json`` with what it says, and ``.npy`` arrays of its tokens."""

    extension: ClassVar[str] = "tar"

    def check(self, draft: Draft, like: Draft | None) -> None:
        """See :class:`ShardFormat`: each has members of its own."""

    def writer(self, out: OutputFile) -> RowWriter:
        """Begins a shard."""
        return _TarWriter(out)

    def heads(self, source: str) -> Iterator[Facts]:
        """See :class:`ShardFormat`: the members ``KEY.tokens.json``."""
        with open_input(source, error=TokenFileError) as file:
            for sample in _samples(source, file):
                if (told := _told(file, sample)) is None:
                    raise _no_tokens(source, sample[0].name)
                yield told

    def places(self, source: str | Path) -> Iterator[Line]:
        """See :class:`ShardFormat`."""
        with open_input(source, error=TokenFileError) as file:
            for number, sample in enumerate(_samples(source, file), 1):
                told = _told(file, sample) or {}
                path = told.get("path", "")
                end = max(member.offset_data + member.size for member in sample)
                yield Line(
                    number, sample[0].offset, end - sample[0].offset, path if isinstance(path, str) else ""
                )

    def read(self, source: str | Path, place: Line) -> Draft:
        """See :class:`ShardFormat`."""
        with open_input(source, error=TokenFileError) as file:
            file.seek(place.offset)
            sample = next(_samples(source, file), [])
            facts = checked_facts(_told(file, sample) or {})
            arrays = {}
            for member in sample:
                name = member.name[len(key(member.name)) + 1 :].removesuffix(".npy")
                if _is_tokens(name) and member.name.endswith(".npy"):
                    if member.size > MAX_ARRAY_BYTES:
                        raise TokenFileError(f"{member.name!r} has more than {MAX_ARRAY_BYTES >> 20} MiB")
                    file.seek(member.offset_data)
                    arrays[name] = table_of(_array(file.read(member.size), member), name)
        return Draft.of_arrays(arrays, facts)


def _array(data: bytes, member: tarfile.TarInfo) -> Any:
    try:
        return array_of(io.BytesIO(data), member.name, member.size)
    except (ValueError, EOFError) as error:
        raise TokenFileError(str(error)) from error


def _samples(source: str | Path, file: BinaryIO) -> Iterator[list[tarfile.TarInfo]]:
    sample: list[tarfile.TarInfo] = []
    for member in tar_files(str(source), file, TokenFileError):
        if sample and key(member.name) != key(sample[0].name):
            yield sample
            sample = []
        sample.append(member)
    if sample:
        yield sample


def _told(file: BinaryIO, sample: list[tarfile.TarInfo]) -> Facts | None:
    """Returns what a sample's ``KEY.tokens.json`` says; None where there is none."""
    for member in sample:
        if member.name == f"{key(member.name)}.tokens.json" and member.size <= HEAD_BYTES:
            after = file.tell()
            file.seek(member.offset_data)
            data = file.read(member.size)
            file.seek(after)
            try:
                value = json.loads(data)
            except (ValueError, RecursionError):
                return None
            return value if isinstance(value, dict) else None
    return None


class _TarWriter:
    def __init__(self, out: OutputFile) -> None:
        self._tar = tarfile.open(  # noqa: SIM115 (closed by `close`)
            fileobj=out,  # type: ignore[call-overload]
            mode="w|",
            format=tarfile.PAX_FORMAT,
        )
        self._keys: set[str] = set()

    def write(self, draft: Draft, beside: Companions = ()) -> None:
        name = self._key(str(draft.facts.get("path") or "recording"))
        facts = draft.facts | {"strides": list(draft.facts["strides"])}
        self._add(f"{name}.tokens.json", json.dumps(facts, separators=(",", ":")).encode())
        for column, array in draft.arrays().items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            self._add(f"{name}.{column}.npy", buffer.getvalue())
        for extension, data in beside:
            self._add(f"{name}.{extension}", data)

    def close(self) -> None:
        self._tar.close()

    def _key(self, path: str) -> str:
        """Returns a name of its own, with no dot in its last component: WebDataset cuts there."""
        folder, slash, last = path.rpartition("/")
        stem = folder + slash + last.rpartition(".")[0].replace(".", "_") if "." in last else path
        name, number = stem, 1
        while name in self._keys:
            number += 1
            name = f"{stem}-{number}"
        self._keys.add(name)
        return name

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))


def _no_tokens(source: str, where: str) -> TokenFileError:
    return TokenFileError(f"holds no recordings' tokens in {where}; choose another folder", source)


FORMATS: dict[str, ShardFormat] = {kind.extension: kind for kind in (JsonLines(), Parquet(), WebDataset())}


def format_of(name: str) -> ShardFormat | None:
    """Returns the format of a shard by the extension of its name; None for other files."""
    return FORMATS.get(name.rpartition(".")[2].lower())
