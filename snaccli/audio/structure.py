"""What the structure of a recording's file tells before it is decoded, where libsndfile looks less closely.

- MPEG audio (MP3): how much it holds, counted from its frame headers. libsndfile believes the length in the
  first frame, or guesses one from the first frame's bit rate, and stops there; a variable bit rate without
  that header, or two files joined, would lose their ends in silence.
- Ogg: whether the file is whole, and one recording. libsndfile ends at the first of several recordings joined
  in one file, and takes a file that was cut between two pages for a whole one.
- Headers that say that there are no samples although some follow: their sizes were never filled in.
  Interrupted recorders, and some programs that write to a pipe, leave a 0 where the number of bytes of the
  samples belongs. What follows is then taken to the end of the file, unless it is chunks of the format, which
  a file may have behind samples that it really has none of.

Sources of the layouts: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3 section 2.4.2.3 (MPEG); RFC 3533 section 6
(Ogg); Microsoft, Multimedia Programming Interface (RIFF); EBU Tech 3306 (RF64); Apple, AIFF 1.3 and Core
Audio Format; the AU file of SunOS.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["MpegScan", "OggScan", "Patches", "completed", "scan_mpeg", "scan_ogg"]

# MPEG audio

_V1_L1 = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_V1_L2 = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_V1_L3 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_V2_L1 = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_V2_L23 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # kbit/s
_RATES = {
    3: (44100, 48000, 32000),
    2: (22050, 24000, 16000),
    0: (11025, 12000, 8000),
}  # 3: MPEG 1, 2: 2, 0: 2.5

_WINDOW = 1 << 16
_MOST_JUNK = 1 << 20  # bytes without a frame after which the rest counts as no audio


@dataclass(frozen=True)
class MpegScan:
    """What the frame headers of an MPEG audio file add up to."""

    frames: int  # sample frames (one sample of every channel)
    frame_length: int  # sample frames in one MPEG frame, 384 to 1152
    tagged: bool  # whether the first frame states the length (Xing, Info or VBRI)


def _frame(head: bytes) -> tuple[int, int, bytes] | None:
    """Returns (bytes, samples, what stays the same in a stream) of the frame with this 4-byte header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or rate == 3 or bitrate in (0, 15):  # reserved values, and free format
        return None
    first = version == 3
    table = (_V1_L1, _V1_L2, _V1_L3)[layer - 1] if first else (_V2_L1, _V2_L23, _V2_L23)[layer - 1]
    bits, hertz = table[bitrate - 1] * 1000, _RATES[version][rate]
    constant = bytes((head[1] & 0xFE, head[2] & 0x0C))
    if layer == 1:
        return (12 * bits // hertz + padding) * 4, 384, constant
    samples = 576 if layer == 3 and not first else 1152
    return samples // 8 * bits // hertz + padding, samples, constant


def scan_mpeg(file: BinaryIO) -> MpegScan | None:
    """Counts the sample frames of an MPEG audio file; None where it has none that can be followed.

    Reads the file once, in pieces of 64 KiB, and leaves it positioned anywhere.
    """
    position = _skip_id3(file)
    window, start = b"", position
    constant: bytes | None = None
    frames = length = junk = 0
    tagged = False
    while junk < _MOST_JUNK:
        if position + 4 > start + len(window):
            file.seek(position)
            window, start = file.read(_WINDOW), position
            if len(window) < 4:
                break
        at = position - start
        found = _frame(window[at : at + 4])
        if found is None or (constant is not None and found[2] != constant):
            sync = window.find(b"\xff", at + 1)
            step = (sync if sync > 0 else len(window)) - at
            position, junk = position + step, junk + step
            continue
        if constant is None:
            constant, length = found[2], found[1]
            file.seek(position)
            tag = file.read(min(found[0], 192))
            tagged = b"Xing" in tag or b"Info" in tag or b"VBRI" in tag
            frames -= length if tagged else 0  # that frame carries no audio
        junk = 0
        position += found[0]
        frames += found[1]
    return MpegScan(frames, length, tagged) if frames > 0 else None


def _skip_id3(file: BinaryIO) -> int:
    """Returns the position after the ID3v2 tags at the start of the file."""
    position = 0
    size = file.seek(0, os.SEEK_END)
    while position < size:
        file.seek(position)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        position += 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
    return position


# Ogg

_PAGE_HEADER = 27  # bytes before the segment table
_FIRST, _LAST = 2, 4  # header type flags: first and last page of a logical stream
_MOST_PAGES = 2_000_000


@dataclass(frozen=True)
class OggScan:
    """What the page headers of an Ogg file say."""

    joined: bool  # another recording begins after the first
    cut: bool  # the file ends inside a page
    ended: bool  # the last page is marked as the last of its stream


def scan_ogg(file: BinaryIO) -> OggScan:
    """Walks over the page headers of an Ogg file; leaves `file` positioned anywhere.

    Stops where no page follows, without a claim on what lies there.
    """
    size = file.seek(0, os.SEEK_END)
    position, flags = 0, _LAST
    joined = cut = False
    for page in range(_MOST_PAGES):
        file.seek(position)
        head = file.read(_PAGE_HEADER + 255)
        if head[:4] != b"OggS"[: len(head)] or not head:
            break
        if len(head) < _PAGE_HEADER or len(head) < _PAGE_HEADER + head[26]:
            cut = True
            break
        previous, flags = flags, head[5]
        joined = joined or (page > 0 and bool(flags & _FIRST) and not previous & _FIRST)
        position += _PAGE_HEADER + head[26] + sum(head[_PAGE_HEADER : _PAGE_HEADER + head[26]])
        cut = position > size
    return OggScan(joined, cut, bool(flags & _LAST))


# Headers that were never filled in

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
