"""A whole ``.snac`` file: written, read, checked in constant memory, described."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from snaccli.codes import CodedStream, Coder
from snaccli.container.header import Header, Layout, StreamEntry, pack_header, read_layout
from snaccli.errors import ContainerError, Remedy, StreamDamagedError, TrailingDataError, TruncatedError

__all__ = ["Damage", "describe", "pack", "read_header", "unpack", "verify"]

CHUNK = 1 << 20  # payload bytes read at once


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file that could be read in part.

    Attributes:
        intact: levels, from the coarsest, of which every channel is whole.
        levels: levels the file should have.
        cause: the error that reading without ``salvage`` raises.
    """

    intact: int
    levels: int
    cause: ContainerError

    def __str__(self) -> str:
        return f"{self.intact} of {self.levels} levels are intact: {self.cause.problem}"


def pack(header: Header, streams: Sequence[CodedStream]) -> bytes:
    """Returns the whole file.

    Args:
        header: what the file says about its recording.
        streams: coarse to fine, within a level channel by channel.

    Raises:
        ValueError: the streams do not fit the header.
    """
    return b"".join([pack_header(header, streams), *(stream.payload for stream in streams)])


def read_header(source: BinaryIO | bytes) -> Layout:
    """Reads what stands before the payloads, and no byte more.

    Args:
        source: a binary file at its beginning, or the bytes.

    Raises:
        NotSnacFileError, UnsupportedVersionError, TruncatedError, HeaderDamagedError: see the classes.
    """
    return read_layout(_open(source))


def unpack(
    source: BinaryIO | bytes, *, salvage: bool = False
) -> tuple[Layout, list[CodedStream], Damage | None]:
    """Reads a whole file.

    Args:
        source: a binary file at its beginning, or the bytes.
        salvage: return the intact levels, from the coarsest, of a file that is cut off or damaged.

    Returns:
        The layout, the streams of the intact levels, and what is damaged (None without damage).

    Raises:
        ContainerError: a named subclass for each kind of damage. With ``salvage`` only if the header is
            not whole or not even the coarsest level is.
    """
    file = _open(source)
    layout = read_layout(file)
    header = layout.header
    streams: list[CodedStream] = []
    damage = None
    try:
        for entry in layout.entries:
            payload = b"".join(_payload(file, entry, header))
            streams.append(CodedStream(entry.coder, payload))
        _expect_end(file)
    except ContainerError as cause:
        intact = len(streams) // header.channels
        if not salvage or not intact:
            raise
        damage = Damage(intact, header.levels, cause)
        del streams[intact * header.channels :]
    return layout, streams, damage


def verify(source: BinaryIO | bytes) -> Layout:
    """Checks a whole file in constant memory: every checksum, and that nothing is missing or left over.

    Raises:
        ContainerError: a named subclass for each kind of damage.
    """
    file = _open(source)
    layout = read_layout(file)
    for entry in layout.entries:
        for _ in _payload(file, entry, layout.header):
            pass
    _expect_end(file)
    return layout


def describe(layout: Layout) -> dict[str, Any]:
    """Returns what ``snac info --json`` prints of a file, but for its path."""
    header = layout.header
    seconds = header.samples / header.sample_rate
    levels = []
    for entry in layout.entries:
        tokens = header.tokens(entry.level)
        levels.append(
            {
                "stride": header.strides[entry.level],
                "tokens": tokens,
                "bytes": entry.size,
                "bits_per_token": 8 * entry.size / tokens if tokens else 0.0,
                "coder": Coder(entry.coder).name.lower(),
            }
        )
    return {
        "format_version": layout.version,
        "model": header.model,
        "fingerprint": header.fingerprint.hex(),
        "sample_rate": header.sample_rate,
        "model_rate": header.model_rate,
        "channels": header.channels,
        "samples": header.samples,
        "duration_s": seconds,
        "bytes": layout.size,
        "bitrate_bps": 8 * layout.size / seconds if seconds else 0.0,
        "overhead_bytes": layout.header_size,
        "levels": levels,
    }


def _open(source: BinaryIO | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes | bytearray | memoryview) else source


def _payload(file: BinaryIO, entry: StreamEntry, header: Header) -> Iterator[bytes]:
    """Yields a payload in chunks, and checks it at its end."""
    place = f"level {entry.level + 1} of {header.levels}"
    if header.channels > 1:
        place += f", channel {entry.channel + 1} of {header.channels}"
    checksum, left = 0, entry.size
    while left:
        data = file.read(min(left, CHUNK))
        if not data:
            raise TruncatedError(f"the file ends within {place}", remedy=Remedy.SALVAGE)
        checksum, left = zlib.crc32(data, checksum), left - len(data)
        yield data
    if checksum != entry.checksum:
        raise StreamDamagedError(
            f"{place} does not match its checksum", entry.level, entry.channel, remedy=Remedy.SALVAGE
        )


def _expect_end(file: BinaryIO) -> None:
    if file.read(1):
        raise TrailingDataError("there are bytes after the last stream", remedy=Remedy.SALVAGE)
