"""What the pages of an Ogg file tell before it is decoded: whether it is whole, and one recording.

libsndfile ends at the first of several recordings joined in one file, and takes a file that was cut between
two pages for a whole one.

Source of the layout: RFC 3533 section 6.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["OggScan", "scan_ogg"]

_HEADER = 27  # bytes before the segment table
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
        head = file.read(_HEADER + 255)
        if head[:4] != b"OggS"[: len(head)] or not head:
            break
        if len(head) < _HEADER or len(head) < _HEADER + head[26]:
            cut = True
            break
        previous, flags = flags, head[5]
        joined = joined or (page > 0 and bool(flags & _FIRST) and not previous & _FIRST)
        position += _HEADER + head[26] + sum(head[_HEADER : _HEADER + head[26]])
        cut = position > size
    return OggScan(joined, cut, bool(flags & _LAST))
