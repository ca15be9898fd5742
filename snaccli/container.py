"""The ``.snac`` file, version 1: header, table of streams, payloads. docs/format.md is the normative text.

The container knows bytes and the coders' numbers, not what the coders do; it knows no torch. Whatever a
file claims is checked against the bytes that would have to be there before anything is allocated, so that
whoever allocates by a header is safe.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from snaccli.codes import (
    FINGERPRINT_BYTES,
    MAX_CHANNELS,
    MAX_CODEBOOK_SIZE,
    MAX_COUNT,
    MAX_LEVELS,
    MAX_RATE,
    MAX_STRIDE,
    MIN_CODEBOOK_SIZE,
    TOKENS_PER_BYTE,
    CodedStream,
    Coder,
    packed_size,
    token_bits,
)
from snaccli.errors import (
    ContainerError,
    HeaderDamagedError,
    NotSnacFileError,
    Remedy,
    StreamDamagedError,
    TrailingDataError,
    TruncatedError,
    UnsupportedVersionError,
)

__all__ = [
    "MODELS",
    "RATES",
    "Damage",
    "Header",
    "Layout",
    "StreamEntry",
    "describe",
    "pack",
    "read_header",
    "unpack",
    "verify",
]

MAGIC = b"snac"
VERSION = 1
FLAG_PRIOR = 1
MAX_MODEL_BYTES = 128
MAX_VARINT_BYTES = 7
CHUNK = 1 << 20  # payload bytes read at once

MODELS = ("24khz", "32khz", "44khz", "mini")  # registry numbers from 1
RATES = (
    8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100,
    48_000, 64_000, 88_200, 96_000, 176_400, 192_000, 352_800, 384_000,
)  # table numbers from 1  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file says about its recording.

    Attributes:
        model: short name of the model, or ``owner/name``, or a folder's name; 1 to 128 bytes of UTF-8
            without control characters.
        fingerprint: 8 bytes, of the model's weights.
        sample_rate: of the recording, Hz, 1 to 768000.
        model_rate: of the model, Hz, 1 to 768000.
        channels: 1 to 16.
        samples: per channel, at the recording's rate; 0 if and only if there are no frames.
        frames: latent frames per channel, divisible by every stride.
        codebook_size: codewords per codebook, 2 to 65536.
        strides: latent frames per token of each level, coarse to fine; 1 to 16 of them, 1 to 65535 each.
        prior: 8 bytes, of the learned prior that streams may need, or None.

    Raises:
        ValueError: a value is outside its range.
    """

    model: str
    fingerprint: bytes
    sample_rate: int
    model_rate: int
    channels: int
    samples: int
    frames: int
    codebook_size: int
    strides: tuple[int, ...]
    prior: bytes | None = None

    def __post_init__(self) -> None:
        name = self.model.encode("utf-8", "surrogatepass")
        checks = (
            (1 <= len(name) <= MAX_MODEL_BYTES, "the model's name is not of 1 to 128 bytes"),
            (self.model.isprintable(), "the model's name has characters that do not print"),
            (len(self.fingerprint) == FINGERPRINT_BYTES, "the fingerprint is not of 8 bytes"),
            (self.prior is None or len(self.prior) == FINGERPRINT_BYTES, "the prior is not of 8 bytes"),
            (1 <= self.sample_rate <= MAX_RATE, f"a rate of {self.sample_rate} Hz is not in 1..{MAX_RATE}"),
            (1 <= self.model_rate <= MAX_RATE, f"a rate of {self.model_rate} Hz is not in 1..768000"),
            (1 <= self.channels <= MAX_CHANNELS, f"{self.channels} channels are not 1 to 16"),
            (0 <= self.samples <= MAX_COUNT, f"{self.samples} samples are out of range"),
            (0 <= self.frames <= MAX_COUNT, f"{self.frames} frames are out of range"),
            ((self.samples == 0) == (self.frames == 0), "samples and frames must be empty together"),
            (
                MIN_CODEBOOK_SIZE <= self.codebook_size <= MAX_CODEBOOK_SIZE,
                f"a codebook size of {self.codebook_size} is not in 2..65536",
            ),
            (1 <= len(self.strides) <= MAX_LEVELS, f"{len(self.strides)} levels are not 1 to 16"),
            (all(1 <= s <= MAX_STRIDE for s in self.strides), "a stride is not in 1..65535"),
        )
        for holds, message in checks:
            if not holds:
                raise ValueError(message)
        for stride in self.strides:
            if self.frames % stride:
                raise ValueError(f"a stride of {stride} does not divide {self.frames} frames")

    @property
    def levels(self) -> int:
        """Levels of tokens."""
        return len(self.strides)

    @property
    def streams(self) -> int:
        """Streams of the file: one a level and channel."""
        return self.levels * self.channels

    def tokens(self, level: int) -> int:
        """Returns the tokens per channel of a level."""
        return self.frames // self.strides[level]

    def check_stream(self, level: int, coder: int, size: int) -> None:
        """Checks that a stream can hold the tokens of its level; after this, bytes bound tokens.

        Args:
            level: counted from 0, the coarsest.
            coder: number of the coder.
            size: bytes.

        Raises:
            ValueError: it cannot.
        """
        tokens = self.tokens(level)
        raw_size = packed_size(tokens, token_bits(self.codebook_size))
        of_level = f"level {level} has {size} bytes"
        impossible = (
            (coder not in tuple(Coder), f"there is no coder {coder}"),
            (
                coder == Coder.PRIOR and self.prior is None,
                f"level {level} needs a learned prior that the header does not name",
            ),
            (
                coder == Coder.RAW and size != raw_size,
                f"{of_level} for {tokens} raw tokens, which take {raw_size}",
            ),
            (size > raw_size, f"{of_level}, more than its {tokens} tokens take raw"),
            (
                coder != Coder.RAW and size < tokens // TOKENS_PER_BYTE,
                f"{of_level}, too few for its {tokens} tokens",
            ),
        )
        for holds, message in impossible:
            if holds:
                raise ValueError(message)


@dataclass(frozen=True)
class StreamEntry:
    """One row of the table of streams: level and channel from 0, coder, payload bytes, their CRC-32."""

    level: int
    channel: int
    coder: int
    size: int
    checksum: int


@dataclass(frozen=True)
class Layout:
    """All that stands before the payloads, read without them.

    Attributes:
        header: what the file says about its recording.
        entries: the streams, coarse to fine, channel by channel.
        header_size: bytes before the first payload.
        version: of the format.
    """

    header: Header
    entries: tuple[StreamEntry, ...]
    header_size: int
    version: int = VERSION

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.header_size + sum(entry.size for entry in self.entries)


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


# Writing


def pack(header: Header, streams: Sequence[CodedStream]) -> bytes:
    """Returns the whole file.

    Args:
        header: what the file says about its recording.
        streams: coarse to fine, within a level channel by channel.

    Raises:
        ValueError: the streams do not fit the header.
    """
    if len(streams) != header.streams:
        raise ValueError(f"{len(streams)} streams for {header.levels} levels of {header.channels} channels")
    flags = FLAG_PRIOR if header.prior is not None else 0
    head = MAGIC + bytes([VERSION << 4 | flags, header.levels - 1 << 4 | header.channels - 1])
    if header.model in MODELS:
        head += bytes([MODELS.index(header.model) + 1])
    else:
        name = header.model.encode()
        head += bytes([0]) + _varint(len(name)) + name
    head += header.fingerprint + (header.prior or b"")
    nibbles = [stride if stride < 16 else 0 for stride in header.strides]
    nibbles += [0] * (len(nibbles) % 2)
    head += bytes(high << 4 | low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))
    head += b"".join(_varint(stride) for stride in header.strides if stride >= 16)
    head += _varint(header.codebook_size)
    for rate in (header.sample_rate, header.model_rate):
        head += bytes([RATES.index(rate) + 1]) if rate in RATES else b"\0" + _varint(rate)
    head += _varint(header.samples) + _varint(header.frames)
    for number, (coder, payload) in enumerate(streams):
        header.check_stream(number // header.channels, coder, len(payload))
        head += _varint(len(payload) << 2 | coder) + zlib.crc32(payload).to_bytes(4, "little")
    head += zlib.crc32(head).to_bytes(4, "little")
    return b"".join([head, *(stream.payload for stream in streams)])


def _varint(value: int) -> bytes:
    """Returns seven bits a byte, least significant first; the top bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# Reading


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
    layout = read_header(file)
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
    layout = read_header(file)
    for entry in layout.entries:
        for _ in _payload(file, entry, layout.header):
            pass
    _expect_end(file)
    return layout


def read_header(source: BinaryIO | bytes) -> Layout:
    """Reads what stands before the payloads, and no byte more.

    Args:
        source: a binary file at its beginning, or the bytes.

    Raises:
        NotSnacFileError, UnsupportedVersionError, TruncatedError, HeaderDamagedError: see the classes.
    """
    reader = _HeaderReader(_open(source))
    fields = reader.fields()
    streams = len(fields["strides"]) * fields["channels"]
    rows = [(reader.varint(), int.from_bytes(reader.take(4), "little")) for _ in range(streams)]
    expected = zlib.crc32(reader.head)
    if int.from_bytes(reader.take(4), "little") != expected:
        raise HeaderDamagedError("the header does not match its checksum; get the file again")
    model, entries = fields["model"], []
    if isinstance(model, int) and model > len(MODELS):
        raise UnsupportedVersionError(f"the file is of model number {model}, unknown here; update snaccli")
    try:
        fields["model"] = MODELS[model - 1] if isinstance(model, int) else model.decode("utf-8")
        if isinstance(model, bytes) and fields["model"] in MODELS:
            raise ValueError(f"the model {fields['model']} has a number")
        header = Header(**fields)
        for number, (row, checksum) in enumerate(rows):
            (level, channel), coder, size = divmod(number, header.channels), row & 3, row >> 2
            if coder not in tuple(Coder):
                raise UnsupportedVersionError(f"the file uses coder {coder}, unknown here; update snaccli")
            header.check_stream(level, coder, size)
            entries.append(StreamEntry(level, channel, coder, size, checksum))
    except ValueError as problem:
        raise HeaderDamagedError(f"the header contradicts itself: {problem}; get the file again") from problem
    return Layout(header, tuple(entries), len(reader.head))


class _HeaderReader:
    """Reads a header field by field.

    Attributes:
        head: the bytes read so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.head = bytearray()

    def take(self, count: int) -> bytes:
        """Returns so many bytes; a pipe gives them in parts."""
        start = len(self.head)
        while (left := start + count - len(self.head)) and (part := self._file.read(left)):
            self.head += part
        if not self.head or not MAGIC.startswith(self.head[: len(MAGIC)]):
            raise NotSnacFileError("not a .snac file: it does not begin with 'snac'")
        if left:
            raise TruncatedError("the file ends within its header; get it again from where it came")
        return bytes(self.head[start:])

    def varint(self) -> int:
        """Returns a number as `_varint` writes it."""
        value = 0
        for position in range(MAX_VARINT_BYTES):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                if byte == 0 and position:
                    break
                return value
        raise HeaderDamagedError("the header has a number that is not canonical; the file is damaged")

    def fields(self) -> dict[str, Any]:
        """Returns the arguments of `Header`; the model still as its number or the bytes of its name."""
        self.take(len(MAGIC))
        version, flags = divmod(self.take(1)[0], 16)
        if version != VERSION:
            raise UnsupportedVersionError(
                f"the file is of version {version}, not {VERSION}; update snaccli to read it, or get it "
                "again if it may be damaged"
            )
        if flags & ~FLAG_PRIOR:
            raise UnsupportedVersionError(
                "the file uses a feature that this program does not know; update snaccli"
            )
        levels, channels = (half + 1 for half in divmod(self.take(1)[0], 16))
        model: int | bytes = self.take(1)[0]
        if model == 0:
            model = self.take(_within(self.varint(), most=MAX_MODEL_BYTES))
        fingerprint = self.take(FINGERPRINT_BYTES)
        prior = self.take(FINGERPRINT_BYTES) if flags & FLAG_PRIOR else None
        nibbles = [half for byte in self.take((levels + 1) // 2) for half in divmod(byte, 16)]
        if any(nibbles[levels:]):
            raise HeaderDamagedError("the header has padding that is not zero; get the file again")
        strides = tuple(nibble or _within(self.varint(), least=16) for nibble in nibbles[:levels])
        codebook_size = self.varint()
        rates = []
        for _ in ("sample_rate", "model_rate"):
            number = _within(self.take(1)[0], most=len(RATES))
            rates.append(RATES[number - 1] if number else self.varint())
            if not number and rates[-1] in RATES:
                raise HeaderDamagedError("the header spells out a rate of the table; get the file again")
        return {
            "model": model,
            "fingerprint": fingerprint,
            "prior": prior,
            "strides": strides,
            "codebook_size": codebook_size,
            "sample_rate": rates[0],
            "model_rate": rates[1],
            "channels": channels,
            "samples": self.varint(),
            "frames": self.varint(),
        }


def _within(value: int, *, least: int = 0, most: int = MAX_COUNT) -> int:
    """Returns a number of the header that stands between these limits."""
    if value > most:
        raise HeaderDamagedError(
            f"the header is damaged: it has {value} where {most} is the most; get the file again"
        )
    if value < least:
        raise HeaderDamagedError(f"the header has {value} where {least} is the least; get the file again")
    return value


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


# Describing


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
        "prior": None if header.prior is None else header.prior.hex(),
        "codebook_size": header.codebook_size,
        "sample_rate": header.sample_rate,
        "model_rate": header.model_rate,
        "channels": header.channels,
        "samples": header.samples,
        "frames": header.frames,
        "duration_s": seconds,
        "bytes": layout.size,
        "bitrate_bps": 8 * layout.size / seconds if seconds else 0.0,
        "overhead_bytes": layout.header_size,
        "levels": levels,
    }
