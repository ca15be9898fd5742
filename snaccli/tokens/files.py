"""Files of tokens, JSON and ``.npz``: read, whoever wrote them, bounded in memory and depth; and written.

Knows no torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from snaccli.errors import Remedy
from snaccli.io.files import open_input
from snaccli.tokens.interleave import TokenFileError, TokenRangeError
from snaccli.tokens.recording import (
    FACTS,
    MAX_CHANNELS,
    MAX_LEVELS,
    MAX_TOKENS,
    Draft,
    Form,
    Ids,
    NamedRecording,
    checked_facts,
)

__all__ = [
    "HEAD_BYTES",
    "MAX_ARRAY_BYTES",
    "MAX_JSON_BYTES",
    "MAX_LINES",
    "Line",
    "array_of",
    "draft",
    "facts",
    "lines",
    "parse",
    "read",
    "read_line",
    "safe_path",
    "table_of",
    "to_json",
    "to_npz",
]

MAX_JSON_BYTES = 32 << 20  # reading takes up to fifteen times as much memory
MAX_LINES = 100_000  # of a JSONL file: each becomes a job
MAX_ARRAY_BYTES = 8 * MAX_TOKENS
_MAX_MARKS = 10_000  # brackets, braces and quotation marks: they bound what is made besides numbers
_MAX_DIGITS = re.compile(rb"[0-9]{400}")  # reading longer numbers takes time that grows with their square
_ZIP = b"PK\x03\x04"


def read(source: str | Path) -> Draft:
    """Reads a file of one recording, ``.npz`` or JSON by its content.

    Args:
        source: path, ``-`` for standard input.

    Raises:
        TokenFileError: it cannot be read, is none, or says something impossible.
        TokenRangeError: a token is no whole number.
    """
    with open_input(source, error=TokenFileError) as file:
        start = file.read(len(_ZIP))
        file.seek(0)
        if start == _ZIP:
            return _from_npz(file)
        return parse(file.read(MAX_JSON_BYTES + 1))


@dataclass(frozen=True)
class Line:
    """Where a recording stands in a JSONL file: line number from 1, first byte, bytes; its ``path`` or ''."""

    number: int
    offset: int
    size: int
    path: str


_PATH_FIRST = re.compile(rb'\s*\{\s*"path"\s*:\s*')


def lines(source: str | Path) -> Iterator[Line]:
    """Yields the recordings of a JSONL file, one a line; empty lines are passed over.

    Only their beginnings are read into memory.

    Raises:
        TokenFileError: the file cannot be read, has too many lines, or a line's path is not a text.
    """
    with open_input(source, error=TokenFileError) as file:
        number = offset = 0
        while start := file.readline(HEAD_BYTES):
            number, size, piece = number + 1, len(start), start
            while piece and not piece.endswith(b"\n"):
                piece = file.readline(1 << 20)
                size += len(piece)
            if number > MAX_LINES:
                raise TokenFileError(f"more than {MAX_LINES:,} lines; divide it into several files")
            if start.strip():
                yield Line(number, offset, size, _path(start, number))
            offset += size


HEAD_BYTES = 32 << 10  # more than a path of 4,096 characters takes


def _path(start: bytes, number: int) -> str:
    """Returns the path that a line begins with, as ours do; '' of others."""
    head = _PATH_FIRST.match(start)
    if head is None:
        return ""
    try:
        path, _ = json.JSONDecoder().raw_decode(start[head.end() :].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        path = None
    if not isinstance(path, str):
        raise TokenFileError(f"line {number}: its path is not a text", remedy=Remedy.TOKEN_FILE)
    return path


def read_line(source: str | Path, line: Line) -> Draft:
    """Reads the recording of one line.

    Raises: as ``read``.
    """
    if line.size > MAX_JSON_BYTES:
        raise TokenFileError(f"more than {MAX_JSON_BYTES >> 20} MiB of JSON; take .npz for such recordings")
    with open_input(source, error=TokenFileError) as file:
        file.seek(line.offset)
        return parse(file.read(line.size))


def parse(text: bytes, *, ids: bool = False) -> Draft:
    """Reads a recording from JSON: an object with ``codes``, or the codes alone.

    Args:
        text: of the file or the line.
        ids: take an object with ``ids``, too, of which nothing else is looked at.

    Raises: as ``read``.
    """
    if len(text) > MAX_JSON_BYTES:
        raise TokenFileError(f"more than {MAX_JSON_BYTES >> 20} MiB of JSON; take .npz for such recordings")
    if sum(text.count(mark) for mark in (b"[", b"{", b'"')) > _MAX_MARKS or _MAX_DIGITS.search(text):
        raise TokenFileError(
            "is not a recording's tokens: too many lists or too long numbers", remedy=Remedy.TOKEN_FILE
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TokenFileError("is not JSON", remedy=Remedy.TOKEN_FILE) from error
    if ids and isinstance(value, dict) and "ids" in value and "codes" not in value:
        value = {"codes": value["ids"]}
    if isinstance(value, list):
        value = {"codes": value}
    if not isinstance(value, dict) or not isinstance(value.get("codes"), list):
        raise TokenFileError("has no list of 'codes'", remedy=Remedy.TOKEN_FILE)
    facts = checked_facts(value)
    codes = value["codes"]
    channels = value.get("channels", 1)
    if not isinstance(channels, int) or isinstance(channels, bool) or not 1 <= channels <= MAX_CHANNELS:
        raise TokenFileError(f"'channels' is not a whole number from 1 to {MAX_CHANNELS}")
    if channels == 1:
        codes = [codes]
    if len(codes) != channels or not all(isinstance(channel, list) for channel in codes):
        raise TokenFileError(f"'codes' is not a list for each of {channels} channels")
    interleaved = not any(isinstance(channel[0], list) for channel in codes if channel)
    if interleaved:
        return Draft([_stack([_array(channel, "") for channel in codes], "")], True, facts)
    levels = {len(channel) for channel in codes}
    if len(levels) != 1 or not 1 <= (count := levels.pop()) <= MAX_LEVELS:
        raise TokenFileError(f"'codes' has not one list for each of 1 to {MAX_LEVELS} levels")
    sequences = []
    for level in range(count):
        where = f"level {level}, "
        sequences.append(_stack([_array(channel[level], where) for channel in codes], where))
    return Draft(sequences, False, facts)


def _array(values: Any, where: str) -> Ids:
    """Returns a list of whole numbers as an array; a bad one is named with its position."""
    if not isinstance(values, list):
        raise TokenFileError(f"{where}is not a list of whole numbers", remedy=Remedy.TOKEN_FILE)
    if set(map(type, values)) <= {int}:
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError as error:
            position = next(n for n, value in enumerate(values) if not -(1 << 63) <= value < 1 << 63)
            raise TokenRangeError(
                f"{where}position {position}: a number beyond 64 bits is no token", position, -1, 0
            ) from error
    position = next(n for n, value in enumerate(values) if type(value) is not int)
    raise TokenFileError(f"{where}position {position}: {_shown(values[position])} is not a whole number")


def _shown(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, (list, dict)) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."


def _stack(rows: list[Ids], where: str) -> Ids:
    if len({len(row) for row in rows}) > 1:
        raise TokenFileError(
            f"{where}the channels have {[len(row) for row in rows]} tokens; they must be equal"
        )
    return np.stack(rows)


def _from_npz(file: BinaryIO) -> Draft:
    """Reads a recording from an ``.npz``: ``ids``, or ``level_0``, ``level_1``, ..., and 0- and 1-d facts."""
    try:
        with zipfile.ZipFile(file) as archive:
            wanted = {name: info for name, info in archive.NameToInfo.items() if _WANTED.fullmatch(name)}
            if sum(info.file_size for info in wanted.values()) > MAX_ARRAY_BYTES:
                raise ValueError(f"more than {MAX_ARRAY_BYTES >> 20} MiB of arrays")
            arrays = {name.removesuffix(".npy"): _member(archive, info) for name, info in wanted.items()}
    except _ARCHIVE_ERRORS as bad:
        raise TokenFileError(
            f"is not an .npz of tokens: {' '.join(str(bad).split())}", remedy=Remedy.TOKEN_FILE
        ) from bad
    except RuntimeError as error:  # encrypted
        raise TokenFileError("is an encrypted archive", remedy=Remedy.TOKEN_FILE) from error
    told = {
        name: array.tolist() for name, array in arrays.items() if name in FACTS and array.size <= MAX_LEVELS
    }
    facts = checked_facts(told)
    count = sum(array.size for name, array in arrays.items() if name not in FACTS)
    if count > MAX_TOKENS:  # a byte each, perhaps, and eight of them when they are tokens
        raise TokenFileError(
            f"{count} tokens are over the {MAX_TOKENS} of a file; cut the recording in parts"
        )
    tables = {name: table_of(array, name) for name, array in arrays.items() if name not in FACTS}
    return Draft.of_arrays(tables, facts)


_ARCHIVE_ERRORS: tuple[type[Exception], ...] = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError),
    *(EOFError, OSError, ValueError, struct.error, zlib.error),
)
with contextlib.suppress(ImportError):  # Python may be built without
    from lzma import LZMAError

    _ARCHIVE_ERRORS += (LZMAError,)

_WANTED = re.compile(rf"(?:ids|level_\d{{1,2}}|{'|'.join(FACTS)})\.npy")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    with archive.open(info) as member:
        return array_of(member, info.filename, info.file_size)


def array_of(member: IO[bytes], name: str, size: int) -> Any:
    """Reads one array in NumPy's format, and no more of it than its header asks for and there is.

    Args:
        member: the file, at its beginning.
        name: what messages call it.
        size: of the file in bytes.

    Raises:
        ValueError: it is of another kind than integers and text, or not whole.
    """
    shape, fortran, dtype = _array_header(member, name)
    if dtype.kind not in "iubU" or len(shape) > 2 or not all(0 <= length <= size for length in shape):
        raise ValueError(f"{name} is not a whole array of integers")
    if math.prod(shape) * dtype.itemsize != size - member.tell():
        raise ValueError(f"{name} is not a whole array of integers")
    data = member.read()
    if len(shape) == 2 and (dtype.kind not in "iu" or not 1 <= shape[0] <= MAX_CHANNELS):
        raise ValueError(f"{name} is not of integers (channels, tokens)")
    array = np.frombuffer(data, dtype) if data else np.zeros(0, dtype)
    if dtype.kind == "U" and data and int(np.frombuffer(data, f"{dtype.byteorder}u4").max()) > sys.maxunicode:
        raise ValueError(f"{name} holds what is no text")
    return array.reshape(shape, order="F" if fortran else "C")


def _array_header(member: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type: the header is a literal of Python."""
    try:
        version = np.lib.format.read_magic(member)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(member)
    except OSError:
        raise
    except Exception as error:  # Python's own parser fails with whatever the text leads to
        raise ValueError(f"{name} does not begin as an array does") from error
    return header


def table_of(array: Any, name: str) -> Ids:
    """Returns integers as int64 (channels, tokens).

    Raises:
        TokenFileError: they are no such array.
    """
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
        raise TokenFileError(f"{name!r} is not of integers (channels, tokens)", remedy=Remedy.TOKEN_FILE)
    if array.dtype == np.uint64 and array.size and int(array.max()) >= 1 << 63:
        raise TokenFileError(f"{name!r} has numbers beyond 63 bits, which are no tokens")
    table: Ids = (array if array.ndim == 2 else array[None]).astype(np.int64)
    return table


def safe_path(path: str) -> str:
    """Returns a recording's path as a file's name below some folder of this system; '' stays ''.

    Raises:
        TokenFileError: it leads out of the folder, or is no name.
    """
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise TokenFileError(f"its path {path[:80]!r} cannot be written here; correct it") from error
    parts = path.replace("\\", "/").split("/")
    if path and (any(part in ("", ".", "..") for part in parts) or "\0" in path or ":" in parts[0]):
        raise TokenFileError(f"its path {path[:80]!r} is not one below a folder; correct it")
    return os.path.join(*parts) if path else ""


def facts(recording: NamedRecording, form: Form) -> dict[str, Any]:
    """Returns what a file says besides the tokens, the path first, as JSON values."""
    codes = recording.codes
    values: dict[str, Any] = {
        "path": recording.path,
        "model": recording.model,
        "fingerprint": recording.fingerprint,
        "rate": recording.rate,
        "samples": recording.samples,
        "channels": codes.channels,
    }
    if recording.mixed_from is not None:
        values["mixed_from"] = recording.mixed_from
    values |= {
        "model_rate": recording.model_rate,
        "codebook_size": codes.codebook_size,
        "strides": list(codes.strides),
        "layout": "interleaved" if form.interleaved else "nested",
    }
    if form.interleaved:
        values |= {"offsets": form.offsets, "start_id": form.start_id}
    return values


def draft(recording: NamedRecording, form: Form) -> Draft:
    """Returns a recording as a file says it: its tokens in this form, and the facts.

    Raises:
        UsageError: the ids would be too large.
    """
    return Draft(form.sequences(recording.codes), form.interleaved, facts(recording, form))


def to_json(told: Draft) -> bytes:
    """Returns a recording as JSON on one line, with the line end.

    ``codes`` is a list of ids, or a list of lists, one a level; of several channels a list of these.

    Raises:
        TokenFileError: it would be larger than a file that can be read again.
    """
    channels: list[Any] = []
    for channel in range(len(told.sequences[0])):
        rows = [sequence[channel].tolist() for sequence in told.sequences]
        channels.append(rows[0] if told.interleaved else rows)
    values = told.facts | {"codes": channels if len(channels) > 1 else channels[0]}
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    if len(text) > MAX_JSON_BYTES:
        raise TokenFileError(
            f"{told.tokens} tokens are too many for JSON, of which "
            f"{MAX_JSON_BYTES >> 20} MiB can be read again; take .npz"
        )
    return text


def to_npz(told: Draft) -> bytes:
    """Returns the recording as a compressed ``.npz``.

    Arrays ``ids`` (int32, (channels, tokens)), or ``level_0``, ``level_1``, ... (uint16, (channels, tokens));
    the facts as arrays of no or one dimension. No pickles.

    Raises:
        TokenFileError: it would be larger than a file that can be read again.
    """
    if told.tokens > MAX_TOKENS:
        raise TokenFileError(
            f"{told.tokens} tokens are over the {MAX_TOKENS} of a file; cut the recording in parts"
        )
    arrays: dict[str, Any] = {name: np.array(value) for name, value in told.facts.items()}
    arrays |= told.arrays()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
