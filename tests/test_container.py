"""The ``.snac`` file: what is written is read, and each way a file can be wrong has its name."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaccli import container
from snaccli.codes import MAX_COUNT, CodedStream, packed_size, token_bits
from snaccli.container import MODELS, RATES, Header
from snaccli.errors import (
    ContainerError,
    HeaderDamagedError,
    NotSnacFileError,
    StreamDamagedError,
    TrailingDataError,
    TruncatedError,
    UnsupportedVersionError,
)

HEADER = Header(
    model="mini",
    fingerprint=bytes(range(1, 9)),
    sample_rate=44100,
    model_rate=24000,
    channels=2,
    samples=30_000,
    frames=32,
    codebook_size=4096,
    strides=(8, 4, 2, 1),
)
FIELDS = (
    "736e6163"  # "snac"
    "10"  # version 1, no flags
    "31"  # four levels, two channels
    "04"  # mini
    "0102030405060708"  # fingerprint
    "8421"  # strides
    "8020"  # codebook of 4096
    "08"  # 44.1 kHz
    "06"  # 24 kHz
    "b0ea01"  # 30,000 samples
    "20"  # 32 frames
)


def raw_size(header: Header, level: int) -> int:
    return packed_size(header.tokens(level), token_bits(header.codebook_size))


def raw_streams(header: Header, seed: int = 3) -> list[CodedStream]:
    rng = np.random.default_rng(seed)
    sizes = [raw_size(header, level) for level in range(header.levels) for _ in range(header.channels)]
    return [CodedStream(0, rng.bytes(size)) for size in sizes]


def sealed(*parts: bytes | str) -> bytes:
    """A header of these parts, with the checksum that it should have."""
    head = b"".join(bytes.fromhex(part) if isinstance(part, str) else part for part in parts)
    return head + zlib.crc32(head).to_bytes(4, "little")


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value % 128 + 128]), value // 128
    return out + bytes([value])


def table(streams: list[CodedStream]) -> bytes:
    return b"".join(
        varint(4 * len(payload) + coder) + zlib.crc32(payload).to_bytes(4, "little")
        for coder, payload in streams
    )


STREAMS = raw_streams(HEADER)
FILE = container.pack(HEADER, STREAMS)
HEAD = container.read_header(FILE).header_size
ROWS = 8 * 5  # bytes of the table of streams


class Trickle(io.RawIOBase):
    """A file that gives few bytes at a time, as a pipe does, and counts them."""

    def __init__(self, data: bytes, most: int = 3) -> None:
        self.data, self.most, self.position = data, most, 0

    def read(self, size: int = -1) -> bytes:
        size = self.most if size < 0 else min(size, self.most)
        part = self.data[self.position : self.position + size]
        self.position += len(part)
        return part


# What is written


def test_bytes_of_a_file():
    assert sealed(FIELDS, table(STREAMS)) + b"".join(s.payload for s in STREAMS) == FILE


def test_round_trip():
    layout, streams, damage = container.unpack(FILE)
    assert layout.header == HEADER
    assert streams == STREAMS
    assert damage is None
    assert layout.size == len(FILE) == layout.header_size + sum(len(s.payload) for s in STREAMS)
    assert container.verify(FILE) == layout


names = st.one_of(
    st.sampled_from(MODELS),
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=32),
)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    strides = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 15, 16, 30, 300]), min_size=1, max_size=16)))
    frames = int(np.lcm.reduce(strides)) * draw(st.integers(0, 2))
    rates = st.one_of(st.sampled_from(RATES), st.integers(1, 768_000))
    return Header(
        model=draw(names),
        fingerprint=draw(st.binary(min_size=8, max_size=8)),
        sample_rate=draw(rates),
        model_rate=draw(rates),
        channels=draw(st.integers(1, 16)),
        samples=draw(st.integers(1, MAX_COUNT)) if frames else 0,
        frames=frames,
        codebook_size=draw(st.integers(2, 65536)),
        strides=strides,
        prior=draw(st.none() | st.binary(min_size=8, max_size=8)),
    )


@given(headers())
def test_round_trip_of_any_header(header: Header):
    streams = raw_streams(header)
    data = container.pack(header, streams)
    for source in (data, io.BytesIO(data), Trickle(data, 4096)):
        layout, read, damage = container.unpack(source)
        assert (layout.header, read, damage) == (header, streams, None)


def test_empty_recording():
    header = replace(HEADER, samples=0, frames=0, channels=1)
    data = container.pack(header, [CodedStream(0, b"")] * 4)
    layout, streams, _ = container.unpack(data)
    assert layout.header == header
    assert [s.payload for s in streams] == [b""] * 4
    assert container.describe(layout)["bitrate_bps"] == 0.0


@pytest.mark.parametrize(
    ("model", "rate", "hop", "strides"),
    [
        ("mini", 24000, 320, (8, 4, 2, 1)),
        ("24khz", 24000, 512, (4, 2, 1)),
        ("32khz", 32000, 384, (8, 4, 2, 1)),
        ("44khz", 44100, 384, (8, 4, 2, 1)),
    ],
)
@pytest.mark.parametrize("seconds", [0.1, 30, 3600])
@pytest.mark.parametrize("sample_rate", [8000, 44100, 192000, 47999])
def test_overhead_is_at_most_64_bytes(model, rate, hop, strides, seconds, sample_rate):
    frames = int(seconds * rate / hop / 8 + 1) * 8
    header = replace(
        HEADER,
        model=model,
        model_rate=rate,
        sample_rate=sample_rate,
        samples=int(seconds * sample_rate),
        channels=1,
        frames=frames,
        strides=strides,
    )
    data = container.pack(header, [CodedStream(0, bytes(raw_size(header, i))) for i in range(len(strides))])
    assert container.describe(container.read_header(data))["overhead_bytes"] <= 64


def test_describe_needs_the_header_alone():
    described = container.describe(container.read_header(FILE[:HEAD]))
    rows = described.pop("levels")
    assert described == {
        "format_version": 1,
        "model": "mini",
        "fingerprint": "0102030405060708",
        "prior": None,
        "codebook_size": HEADER.codebook_size,
        "sample_rate": 44100,
        "model_rate": 24000,
        "channels": 2,
        "samples": 30_000,
        "frames": HEADER.frames,
        "duration_s": pytest.approx(30_000 / 44100),
        "bytes": len(FILE),
        "bitrate_bps": pytest.approx(8 * len(FILE) * 44100 / 30_000),
        "overhead_bytes": HEAD,
    }
    assert len(rows) == 8
    assert rows[0] == {"stride": 8, "tokens": 4, "bytes": 6, "bits_per_token": 12.0, "coder": "raw"}
    assert json.dumps(rows)


def test_reading_the_header_leaves_the_payloads_alone():
    file = Trickle(FILE, most=1000)
    layout = container.read_header(file)
    assert file.position == HEAD == layout.header_size


# What may not be written


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "name"),
        ({"model": "m" * 129}, "name"),
        ({"model": "é" * 65}, "name"),
        ({"model": "a\nb"}, "print"),
        ({"model": "a\x1b[2Jb"}, "print"),
        ({"model": "\ud800"}, "name"),
        ({"fingerprint": b"1234567"}, "fingerprint"),
        ({"prior": b"123456789"}, "prior"),
        ({"sample_rate": 0}, "rate"),
        ({"sample_rate": 768_001}, "rate"),
        ({"model_rate": 0}, "rate"),
        ({"channels": 0}, "channels"),
        ({"channels": 17}, "channels"),
        ({"samples": 0}, "empty together"),
        ({"frames": 0}, "empty together"),
        ({"samples": -1}, "samples"),
        ({"frames": 1 << 60}, "frames"),
        ({"codebook_size": 1}, "codebook"),
        ({"codebook_size": 65537}, "codebook"),
        ({"strides": ()}, "levels"),
        ({"strides": (1,) * 17}, "levels"),
        ({"strides": (0,)}, "stride"),
        ({"strides": (65536,)}, "stride"),
        ({"strides": (5,)}, "divide"),
    ],
)
def test_header_refused(change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(HEADER, **change)


@pytest.mark.parametrize(
    ("number", "stream", "message"),
    [
        (0, CodedStream(0, bytes(5)), "raw tokens"),
        (0, CodedStream(1, bytes(7)), "more than"),
        (0, CodedStream(2, bytes(5)), "prior"),
        (0, CodedStream(3, bytes(5)), "no coder"),
    ],
)
def test_streams_refused(number: int, stream: CodedStream, message: str):
    streams = list(STREAMS)
    streams[number] = stream
    with pytest.raises(ValueError, match=message):
        container.pack(HEADER, streams)
    with pytest.raises(ValueError, match="7 streams"):
        container.pack(HEADER, STREAMS[1:])


# What is damaged


@pytest.mark.parametrize("data", [b"", b"R", b"RIFF" + bytes(100), b"snaC" + FILE[4:], b"sn\0"])
def test_not_a_snac_file(data: bytes):
    with pytest.raises(NotSnacFileError):
        container.unpack(data, salvage=True)


@pytest.mark.parametrize("byte", [0x00, 0x20, 0xF0, 0x12, 0x14, 0x18])
def test_other_version_or_unknown_flag(byte: int):
    data = sealed(b"snac", bytes([byte]), FIELDS[10:], table(STREAMS)) + FILE[HEAD:]
    with pytest.raises(UnsupportedVersionError):
        container.unpack(data, salvage=True)


def test_unknown_model_number():
    data = sealed(FIELDS.replace("3104", "3105"), table(STREAMS)) + FILE[HEAD:]
    with pytest.raises(UnsupportedVersionError, match="model number 5"):
        container.unpack(data)


def test_unknown_coder():
    rows = table([CodedStream(3, STREAMS[0].payload), *STREAMS[1:]])
    with pytest.raises(UnsupportedVersionError, match="coder 3"):
        container.unpack(sealed(FIELDS, rows) + FILE[HEAD:])


@pytest.mark.parametrize("cut", range(1, 93))
def test_header_cut_off(cut: int):
    assert HEAD == 71
    if cut < HEAD:
        with pytest.raises(TruncatedError, match="header"):
            container.unpack(FILE[:cut], salvage=True)
    else:
        assert container.read_header(FILE[:cut]).header == HEADER


@pytest.mark.parametrize("position", range(7, 71))
@pytest.mark.parametrize("bit", [0, 6])
def test_flipped_bit_in_the_header(position: int, bit: int):
    data = bytearray(FILE)
    data[position] ^= 1 << bit
    with pytest.raises((HeaderDamagedError, TruncatedError)):
        container.unpack(bytes(data), salvage=True)


NAMELESS = FIELDS[:12] + "00{}" + FIELDS[14:]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (FIELDS.replace("8421", "8461"), "divide"),  # stride 6
        (FIELDS.replace("8421", "84200f"), "least"),  # 15 spelled out
        (FIELDS.replace("8020", "01"), "codebook"),
        (FIELDS.replace("8020", "818004"), "codebook"),  # 65537
        (FIELDS.replace("8020", "80a000"), "canonical"),
        (FIELDS.replace("b0ea01", "8080808080808001"), "canonical"),
        (FIELDS.replace("b0ea01", "00"), "empty together"),
        (FIELDS.replace("b0ea01", "ffffffffffff7f"), "samples"),
        (FIELDS.replace("0806", "0006"), "most"),  # 6 Hz, then a rate beyond the table
        (FIELDS.replace("0806", "1106"), "most"),  # no 17th rate
        (FIELDS.replace("0806", "00c4d80206"), "table"),  # 44100 spelled out
        (FIELDS.replace("0806", "0081f02e06"), "rate"),  # 768001
        (NAMELESS.format("00"), "name"),
        (NAMELESS.format("8101" + "61" * 129), "most"),
        (NAMELESS.format("02610a"), "print"),
        (NAMELESS.format("01ff"), "utf-8"),
        (NAMELESS.format("046d696e69"), "number"),  # mini spelled out
    ],
)
def test_impossible_header(fields: str, message: str):
    data = sealed(fields, table(STREAMS)) + FILE[HEAD:]
    with pytest.raises(HeaderDamagedError, match=message):
        container.unpack(data, salvage=True)


def test_filling_of_strides():
    fields = FIELDS.replace("1031", "1020").replace("8421", "8421")  # three levels of one channel
    with pytest.raises(HeaderDamagedError, match="padding"):
        container.unpack(sealed(fields, bytes(60)))


@pytest.mark.parametrize(
    ("coder", "size", "message"),
    [(0, 5, "raw"), (0, 7, "raw"), (1, 7, "more than"), (2, 5, "prior"), (1, (1 << 45), "more than")],
)
def test_impossible_stream(coder: int, size: int, message: str):
    rows = varint(4 * size + coder) + bytes(4) + table(STREAMS[1:])
    with pytest.raises(HeaderDamagedError, match=message):
        container.unpack(sealed(FIELDS, rows) + FILE[HEAD:])


def test_too_few_bytes_for_the_tokens():
    tokens = 85 * 8
    fields = FIELDS[:10] + "00" + FIELDS[12:30] + "10" + FIELDS[34:-2]  # one level of stride 1
    for size, fits in ((8, True), (7, False)):
        data = sealed(fields, varint(tokens), table([CodedStream(1, bytes(size))])) + bytes(size)
        if fits:
            assert container.verify(data).header.tokens(0) == tokens
        else:
            with pytest.raises(HeaderDamagedError, match="too few"):
                container.verify(data)


def test_hostile_counts_cost_nothing():
    """A small file that claims 2^40 frames, or a stream of 2^40 bytes, is refused in little memory."""
    one = FIELDS[:10] + "00" + FIELDS[12:30] + "10" + FIELDS[34:-2]
    frames = 1 << 40
    claims = [
        sealed(one, varint(frames), table([CodedStream(1, bytes(100))])) + bytes(100),
        sealed(one, varint(frames), varint(4 * (frames * 12 // 8)) + bytes(4)) + bytes(100),
    ]
    tracemalloc.start()
    for data, error in zip(claims, (HeaderDamagedError, TruncatedError), strict=True):
        for source in (data, io.BytesIO(data)):
            with pytest.raises(error):
                container.unpack(source, salvage=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_verify_in_constant_memory():
    header = replace(HEADER, channels=1, strides=(1,), frames=8 << 20)
    data = container.pack(header, [CodedStream(0, bytes(12 << 20))])
    tracemalloc.start()
    container.verify(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20  # io.BytesIO shares the bytes; the chunks are of one MiB


# What can be salvaged


def ends() -> list[int]:
    """Where each stream ends in FILE."""
    return (HEAD + np.cumsum([len(s.payload) for s in STREAMS])).tolist()


@pytest.mark.parametrize("cut", range(HEAD, len(FILE)))
def test_cut_off(cut: int):
    with pytest.raises(TruncatedError, match="salvage=True"):
        container.unpack(FILE[:cut])
    with pytest.raises(TruncatedError):
        container.verify(io.BytesIO(FILE[:cut]))
    intact = sum(end <= cut for end in ends()) // 2
    if not intact:
        with pytest.raises(TruncatedError):
            container.unpack(FILE[:cut], salvage=True)
        return
    _, streams, damage = container.unpack(Trickle(FILE[:cut]), salvage=True)
    assert streams == STREAMS[: 2 * intact]
    assert damage is not None
    assert (damage.intact, damage.levels) == (intact, 4)
    assert isinstance(damage.cause, TruncatedError)
    assert f"{intact} of 4 levels" in str(damage)


@pytest.mark.parametrize("number", range(8))
def test_damaged_stream(number: int):
    data = bytearray(FILE)
    data[ends()[number] - 1] ^= 0x10
    with pytest.raises(StreamDamagedError, match=f"level {number // 2 + 1} of 4, channel") as caught:
        container.unpack(bytes(data))
    assert (caught.value.level, caught.value.channel) == divmod(number, 2)
    with pytest.raises(StreamDamagedError):
        container.verify(bytes(data))
    if number < 2:
        with pytest.raises(StreamDamagedError):
            container.unpack(bytes(data), salvage=True)
    else:
        _, streams, damage = container.unpack(bytes(data), salvage=True)
        assert streams == STREAMS[: number // 2 * 2]
        assert damage is not None
        assert damage.intact == number // 2


def test_trailing_data():
    for tail in (b"\0", FILE):
        with pytest.raises(TrailingDataError):
            container.unpack(FILE + tail)
        with pytest.raises(TrailingDataError):
            container.verify(FILE + tail)
        _, streams, damage = container.unpack(FILE + tail, salvage=True)
        assert streams == STREAMS
        assert damage is not None
        assert damage.intact == 4


def test_fuzz():
    """Whatever happens to the bytes: a named error or the very same streams."""
    rng, messages = random.Random(11), set()
    for _ in range(3000):
        data = bytearray(FILE)
        for _ in range(rng.randint(1, 3)):
            kind, place = rng.randrange(4), rng.randrange(len(data))
            if kind == 0:
                data[place] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del data[place:]
            elif kind == 2:
                data[place:place] = rng.randbytes(rng.randint(1, 9))
            else:
                del data[place : place + rng.randint(1, 9)]
            if not data:
                break
        for salvage in (False, True):
            try:
                layout, streams, damage = container.unpack(bytes(data), salvage=salvage)
            except ContainerError as error:
                messages.add(str(error))
            else:
                assert layout.header == HEADER
                assert streams == STREAMS[: len(streams)]
                assert (damage is None) == (bytes(data) == FILE)
    assert len(messages) > 20
    assert not any("\n" in message for message in messages)
