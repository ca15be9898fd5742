"""The header of a ``.snac`` file and its table of streams, to bytes and back.

docs/format.md is the normative text. Every count is checked here against the bytes that would have to be
there, so that whoever allocates by it is safe.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
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
)
from snaccli.errors import HeaderDamagedError, NotSnacFileError, TruncatedError, UnsupportedVersionError

MAGIC = b"snac"
VERSION = 1
FLAG_PRIOR = 1
MAX_MODEL_BYTES = 128
MAX_VARINT_BYTES = 7

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

    def raw_size(self, level: int) -> int:
        """Returns the bytes of one packed raw stream of a level."""
        return packed_size(self.tokens(level), self.codebook_size)


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


# Writing


def _varint(value: int) -> bytes:
    """Returns seven bits a byte, least significant first; the top bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack_header(header: Header, streams: Sequence[CodedStream]) -> bytes:
    """Returns all that stands before the payloads of ``streams``.

    Raises:
        ValueError: the streams do not fit the header.
    """
    if len(streams) != header.streams:
        raise ValueError(f"{len(streams)} streams for {header.levels} levels of {header.channels} channels")
    head = _pack_fields(header)
    for number, (coder, payload) in enumerate(streams):
        problem = _stream_problem(header, number // header.channels, coder, len(payload))
        if coder not in tuple(Coder):
            problem = f"there is no coder {coder}"
        if problem:
            raise ValueError(problem)
        head += _varint(len(payload) << 2 | coder) + zlib.crc32(payload).to_bytes(4, "little")
    return head + zlib.crc32(head).to_bytes(4, "little")


def _pack_fields(header: Header) -> bytes:
    """Returns the header up to the table of streams."""
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
    return head + _varint(header.samples) + _varint(header.frames)


def _stream_problem(header: Header, level: int, coder: int, size: int) -> str:
    """Returns why a stream of this coder and size cannot hold the level's tokens, or nothing."""
    tokens, raw_size = header.tokens(level), header.raw_size(level)
    if coder == Coder.PRIOR and header.prior is None:
        return f"level {level} needs a learned prior that the header does not name"
    if coder == Coder.RAW and size != raw_size:
        return f"level {level} has {size} bytes for {tokens} raw tokens, which take {raw_size}"
    if size > raw_size:
        return f"level {level} has {size} bytes, more than its {tokens} tokens take raw"
    if coder != Coder.RAW and size < tokens // TOKENS_PER_BYTE:
        return f"level {level} has {size} bytes, too few for its {tokens} tokens"
    return ""


# Reading


def _read(file: BinaryIO, count: int) -> bytes:
    """Reads ``count`` bytes, fewer only at the end of the file: a pipe gives what it has."""
    parts = []
    while count > 0 and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


class _Reader:
    """Reads the header field by field and keeps its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self.checksum = 0

    def take(self, count: int) -> bytes:
        data = _read(self.file, count)
        if len(data) < count:
            raise TruncatedError("the file ends within its header; get it again from where it came")
        self.size += count
        self.checksum = zlib.crc32(data, self.checksum)
        return data

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for position in range(MAX_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << (7 * position)
            if byte < 0x80:
                if byte == 0 and position:
                    break
                return value
        raise HeaderDamagedError("the header has a number that is not canonical; the file is damaged")


def read_layout(file: BinaryIO) -> Layout:
    """Reads what stands before the payloads, and no byte more, from a file at its beginning.

    Raises:
        NotSnacFileError, UnsupportedVersionError, TruncatedError, HeaderDamagedError: see the classes.
    """
    reader = _Reader(file)
    magic = _read(reader.file, len(MAGIC))
    if magic != MAGIC[: len(magic)] or not magic:
        raise NotSnacFileError("not a .snac file: it does not begin with 'snac'")
    if len(magic) < len(MAGIC):
        raise TruncatedError("the file ends within its header; get it again from where it came")
    reader.size, reader.checksum = len(MAGIC), zlib.crc32(MAGIC)
    version_flags = reader.byte()
    if version_flags >> 4 != VERSION:
        raise UnsupportedVersionError(
            f"the file is of version {version_flags >> 4}, not {VERSION}; update snaccli to read it"
        )
    flags = version_flags & 0xF
    if flags & ~FLAG_PRIOR:
        raise UnsupportedVersionError(
            "the file uses a feature that this program does not know; update snaccli"
        )
    fields = _read_fields(reader, flags)
    rows = _read_rows(reader, len(fields["strides"]) * fields["channels"])
    expected = reader.checksum
    if int.from_bytes(reader.take(4), "little") != expected:
        raise HeaderDamagedError("the header does not match its checksum; get the file again")
    try:
        fields["model"] = _model_name(fields["model"])
        header = Header(**fields)
        entries = _entries(header, rows)
    except ValueError as problem:
        raise HeaderDamagedError(f"the header contradicts itself: {problem}; get the file again") from problem
    return Layout(header, entries, reader.size)


def _read_fields(reader: _Reader, flags: int) -> dict[str, Any]:
    """Reads the arguments of :class:`Header`, the model's name still as bytes or a registry number."""
    shape = reader.byte()
    levels, channels = (shape >> 4) + 1, (shape & 0xF) + 1
    model: int | bytes = reader.byte()
    if model == 0:
        model = reader.take(_at_most(reader.varint(), MAX_MODEL_BYTES))
    fingerprint = reader.take(FINGERPRINT_BYTES)
    prior = reader.take(FINGERPRINT_BYTES) if flags & FLAG_PRIOR else None
    packed = reader.take((levels + 1) // 2)
    nibbles = [nibble for byte in packed for nibble in (byte >> 4, byte & 0xF)]
    if any(nibbles[levels:]):
        raise HeaderDamagedError("the header has padding that is not zero; get the file again")
    strides = tuple(nibble or _at_least(reader.varint(), 16) for nibble in nibbles[:levels])
    return {
        "model": model,
        "fingerprint": fingerprint,
        "prior": prior,
        "strides": strides,
        "codebook_size": reader.varint(),
        "sample_rate": _read_rate(reader),
        "model_rate": _read_rate(reader),
        "channels": channels,
        "samples": reader.varint(),
        "frames": reader.varint(),
    }


def _read_rate(reader: _Reader) -> int:
    number = _at_most(reader.byte(), len(RATES))
    if number:
        return RATES[number - 1]
    rate = reader.varint()
    if rate in RATES:
        raise HeaderDamagedError("the header spells out a rate of the table; get the file again")
    return rate


def _read_rows(reader: _Reader, streams: int) -> list[tuple[int, int]]:
    return [(reader.varint(), int.from_bytes(reader.take(4), "little")) for _ in range(streams)]


def _at_most(value: int, limit: int) -> int:
    if value > limit:
        raise HeaderDamagedError(f"the header has {value} where {limit} is the most; get the file again")
    return value


def _at_least(value: int, limit: int) -> int:
    if value < limit:
        raise HeaderDamagedError(f"the header has {value} where {limit} is the least; get the file again")
    return value


def _model_name(model: int | bytes) -> str:
    if isinstance(model, bytes):
        name = model.decode("utf-8")
        if name in MODELS:
            raise ValueError(f"the model {name} has a number")
        return name
    if model > len(MODELS):
        raise UnsupportedVersionError(f"the file is of model number {model}, unknown here; update snaccli")
    return MODELS[model - 1]


def _entries(header: Header, rows: list[tuple[int, int]]) -> tuple[StreamEntry, ...]:
    """Checks the table of streams against the counts: after this, bytes bound tokens."""
    entries = []
    for number, (row, checksum) in enumerate(rows):
        level, channel = divmod(number, header.channels)
        if row & 3 not in tuple(Coder):
            raise UnsupportedVersionError(f"the file uses coder {row & 3}, unknown here; update snaccli")
        problem = _stream_problem(header, level, row & 3, row >> 2)
        if problem:
            raise ValueError(problem)
        entries.append(StreamEntry(level, channel, row & 3, row >> 2, checksum))
    return tuple(entries)
