"""How much audio an MPEG audio file (MP3) holds, counted from its frame headers.

libsndfile believes the length in the first frame, or guesses one from the first frame's bit rate, and stops
there; a variable bit rate without that header, or two files joined, would lose their ends in silence.

Source of the layout: ISO/IEC 11172-3 section 2.4.1.3 and 13818-3 section 2.4.2.3.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO

__all__ = ["MpegScan", "scan_mpeg"]

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
