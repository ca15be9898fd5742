"""Recordings whose header says that they are empty although samples follow: its sizes were never filled in.

Interrupted recorders, and some programs that write to a pipe, leave a 0 where the number of bytes of the
samples belongs. What follows is then taken to the end of the file, unless it is chunks of the format, which
a file may have behind samples that it really has none of.

Source of the layouts: Microsoft, Multimedia Programming Interface (RIFF); EBU Tech 3306 (RF64); Apple, AIFF
1.3 and Core Audio Format; the AU file of SunOS.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["Patches", "completed"]

Patches = dict[int, bytes]
"""Bytes that take the place of those in the file, by their offset."""

_UNKNOWN = 0xFFFF_FFFF
_MOST_CHUNKS = 1000


def completed(file: BinaryIO, kind: str, *, open_end: bool = False) -> Patches:
    """Returns what to read in place of the header's sizes; nothing where the file is as empty as it says.

    Args:
        file: a recording in which libsndfile finds no samples; left positioned anywhere.
        kind: libsndfile's name of its container.
        open_end: of CAF, take only a length that the format keeps for samples to the end of the file, -1, or
            one that cannot be, 0.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        if kind in ("WAV", "WAVEX", "RF64"):
            return _riff(file, size)
        if kind == "AIFF":
            return _aiff(file, size)
        if kind == "CAF":
            return _caf(file, size, open_end)
        return _au(file, size) if kind == "AU" else {}
    except struct.error:  # the file ends within a chunk's head
        return {}


def _riff(file: BinaryIO, size: int) -> Patches:
    chunks = dict(_chunks(file, 12, size, "<I", stop=b"data"))
    if b"data" not in chunks:
        return {}
    start, _ = chunks[b"data"]
    rest = size - start
    if not rest or _is_chunks(file, start, size, "<I"):
        return {}
    if b"ds64" in chunks:
        at, _ = chunks[b"ds64"]
        return {at: struct.pack("<QQ", size - 8, rest), start - 4: struct.pack("<I", _UNKNOWN)}
    return {start - 4: struct.pack("<I", min(rest, _UNKNOWN))}


def _aiff(file: BinaryIO, size: int) -> Patches:
    chunks = dict(_chunks(file, 12, size, ">I", stop=b"SSND"))
    if b"SSND" not in chunks or b"COMM" not in chunks:
        return {}
    common, start = chunks[b"COMM"][0], chunks[b"SSND"][0] + 8
    file.seek(common)
    channels, _, bits = struct.unpack(">HIH", file.read(8))
    frame = channels * -(-bits // 8)
    if start + frame > size or not frame or _is_chunks(file, start, size, ">I"):
        return {}
    frames = min((size - start) // frame, _UNKNOWN)
    stated = min(size - start + 8, _UNKNOWN)
    return {common + 2: struct.pack(">I", frames), start - 12: struct.pack(">I", stated)}


def _caf(file: BinaryIO, size: int, open_end: bool) -> Patches:
    chunks = dict(_chunks(file, 8, size, ">q", stop=b"data", pad=1))
    if b"data" not in chunks:
        return {}
    start, stated = chunks[b"data"][0] + 4, chunks[b"data"][1]  # behind the number of edits
    if start >= size or (open_end and stated > 0) or _is_chunks(file, start, size, ">q", pad=1):
        return {}
    return {start - 12: struct.pack(">q", size - start + 4)}


def _au(file: BinaryIO, size: int) -> Patches:
    file.seek(4)
    (start,) = struct.unpack(">I", file.read(4))
    return {8: struct.pack(">I", _UNKNOWN)} if 24 <= start < size else {}


def _chunks(
    file: BinaryIO, position: int, end: int, layout: str, *, stop: bytes = b"", pad: int = 2
) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yields chunks from a position on: name, where the content begins, and how long it says it is."""
    width = struct.calcsize(layout)
    for _ in range(_MOST_CHUNKS):
        if position > end:
            return
        file.seek(position)
        head = file.read(4 + width)
        if len(head) < 4 + width:
            return
        (length,) = struct.unpack(layout, head[4:])
        position += 4 + width
        yield head[:4], (position, length)
        if head[:4] == stop or length < 0:
            return
        position += -(-length // pad) * pad


def _is_chunks(file: BinaryIO, start: int, end: int, layout: str, *, pad: int = 2) -> bool:
    """Returns whether nothing but chunks lies there, whose names are text and whose lengths add up."""
    position = start
    for name, (begin, length) in _chunks(file, start, end, layout, pad=pad):
        if not (name.isascii() and name.decode().isprintable()) or not 0 <= length <= end - begin:
            return False
        position = begin + -(-length // pad) * pad
    return end - 1 <= position <= end + 1
