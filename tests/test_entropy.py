"""Coding of tokens: exact, never larger than raw, and nothing but tokens or a named error comes back."""

from __future__ import annotations

from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaccli import entropy
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import directions, model, raw
from snaccli.entropy.rangecoder import TOTAL, Decoder, Encoder, shortest_bytes
from snaccli.errors import StreamInvalidError
from tests.format_reference import InvalidError, ReferenceRange
from tests.token_grids import always_adaptive, assert_equal, codebook, decoded, rows_of, walk

# Raw


@given(st.integers(2, 65536), st.integers(0, 70), st.integers(0, 9))
def test_raw_round_trip(size: int, count: int, seed: int):
    tokens = np.random.default_rng(seed).integers(0, size, count).astype(np.uint16)
    payload = raw.pack(tokens, size)
    assert len(payload) == raw.packed_size(count, size) == -(-count * (size - 1).bit_length() // 8)
    np.testing.assert_array_equal(raw.unpack(payload, count, size), tokens)


def test_raw_in_blocks(monkeypatch: pytest.MonkeyPatch):
    tokens = np.random.default_rng(1).integers(0, 4096, 1001).astype(np.uint16)
    whole = raw.pack(tokens, 4096)
    monkeypatch.setattr(raw, "BLOCK", 16)
    assert raw.pack(tokens, 4096) == whole
    np.testing.assert_array_equal(raw.unpack(whole, 1001, 4096), tokens)


def test_raw_bytes():
    assert raw.pack(np.array([0x123, 0xABC, 0xFFF], np.uint16), 4096).hex() == "123abcfff0"
    assert raw.pack(np.array([1, 0, 2], np.uint16), 3).hex() == "48"


@pytest.mark.parametrize(
    ("payload", "count", "size", "message"),
    [
        ("123abcfff0", 2, 4096, "bytes"),
        ("123abcff", 3, 4096, "bytes"),
        ("123abcfff1", 3, 4096, "not zero"),
        ("ffff", 1, 65535, "beyond"),
    ],
)
def test_raw_damaged(payload: str, count: int, size: int, message: str):
    with pytest.raises(StreamInvalidError, match=message):
        raw.unpack(bytes.fromhex(payload), count, size)


# Range coder


@given(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([2, 3, 64, 300]), st.integers(0, 6))
@settings(max_examples=60)
def test_range_coder(seed: int, count: int, size: int, sharp: int):
    """Round trip, one byte of loss at the most, and constriction agrees with the document."""
    rows = rows_of(seed, count, size, sharp)
    symbols = np.random.default_rng(seed).integers(0, size, count).astype(np.int32)
    encoder = Encoder()
    if count:
        encoder.encode(symbols, rows)
    payload = encoder.payload()
    bits = -np.log2((rows[np.arange(count), symbols] + 1) / TOTAL).sum() if count else 0.0
    assert len(payload) <= bits / 8 + 1.01
    assert not payload or payload[-1]
    decoder, reference = Decoder(payload), ReferenceRange(payload)
    for symbol, row in zip(symbols.tolist(), rows, strict=True):
        assert decoder.decode(row) == symbol
        assert reference.decode((row + 1).astype(int).tolist()) == symbol


@given(st.integers(0, 1 << 80), st.integers(1, 1 << 70))
def test_shortest_bytes(low: int, size: int):
    high = min(low + size, 1 << 88)
    found = shortest_bytes(low, high, 11)
    assert low <= int.from_bytes(found.ljust(11, b"\0"), "big") < high
    for length in range(len(found)):
        unit = 256 ** (11 - length)
        assert -(-low // unit) * unit >= high


def test_bytes_no_encoder_wrote():
    with pytest.raises(StreamInvalidError, match="does not decode"):
        Decoder(b"\xff" * 12).decode(np.array([0.0, TOTAL - 2.0]))
    with pytest.raises(InvalidError):
        ReferenceRange(b"\xff" * 12).decode([1, TOTAL - 1])


# Points


@given(st.integers(0, 10**6), st.integers(-60, 60))
@settings(max_examples=30)
def test_points_do_not_change_with_scale(seed: int, exponent: int):
    book = codebook(20, 8, seed, 0.3)
    scaled = np.ldexp(book, exponent).astype(np.float32)
    np.testing.assert_array_equal(directions.points(scaled), directions.points(book))


def test_points_fill_the_grid():
    points = directions.points(codebook(500, 8, 3, 1.0))
    assert abs(np.sqrt((points**2).sum(axis=1).mean()) - directions.SPREAD) < 2
    assert np.abs(points.mean(axis=0)).max() < 1


@pytest.mark.parametrize(
    "book", [np.zeros((0, 8)), np.zeros(8), np.array([[np.nan, 1]]), np.array([[np.inf]])]
)
def test_points_refused(book: np.ndarray):
    with pytest.raises(ValueError, match="finite"):
        directions.points(book)


@given(st.integers(0, 1 << 52))
def test_integer_sqrt(square: int):
    assert int(directions.integer_sqrt(np.array(square))) == isqrt(square)


# The model


@pytest.mark.parametrize("size", [2, 5, 300, 4096])
def test_rows_are_frequencies(size: int):
    """Whole numbers that sum to 2^24 with the ones, none above 15/16: at the start, and when all is said."""
    points = directions.points(codebook(size, 8, 4))
    learner = model.Model(points, 2, 17, 16)
    context = np.zeros(17, np.int64)
    context[-1] = model.BIAS
    for turn in range(120):
        row = learner.row(turn % 2, context)
        assert row.min() >= 0
        assert row.sum() == TOTAL - size
        assert np.array_equal(row, np.floor(row))
        assert row.max() + 1 <= TOTAL / 16 * 15
        learner.update(1 if turn < 100 else turn % size)
        context[:8] = points[1]
    assert row.argmax() == 1


def test_kernels_need_not_be_kept(monkeypatch: pytest.MonkeyPatch):
    codes, books = walk(64, (2, 1), 64)
    streams = always_adaptive(codes, books)
    monkeypatch.setattr(model, "KERNELS", 0)
    assert always_adaptive(codes, books) == streams


# Whole grids


@st.composite
def grids(draw: st.DrawFn):
    strides = tuple(draw(st.sampled_from([(1,), (2, 1), (8, 4, 2, 1), (4, 2, 1), (3, 2), (5, 5), (1, 4)])))
    frames = int(np.lcm.reduce(strides)) * draw(st.integers(0, 5))
    size = draw(st.sampled_from([2, 3, 17, 256]))
    return walk(
        frames, strides, size, draw(st.integers(1, 9)), draw(st.integers(0, 99)), draw(st.integers(1, 3))
    )


@given(grids(), st.booleans())
@settings(max_examples=50, deadline=None)
def test_round_trip(grid: tuple[Codes, list[np.ndarray]], with_codebooks: bool):
    codes, books = grid
    streams = entropy.encode(codes, books if with_codebooks else None)
    for number, (coder, payload) in enumerate(streams):
        tokens = codes.levels[number // codes.channels].shape[1]
        assert len(payload) <= raw.packed_size(tokens, codes.codebook_size)
        assert len(payload) >= tokens // 85
        assert coder == 0 or with_codebooks
    assert_equal(decoded(codes, streams, books if with_codebooks else None), codes)


def test_levels_from_the_coarsest():
    codes, books = walk(64, (4, 2, 1), 64, channels=2)
    streams = entropy.encode(codes, books)
    for levels in (1, 2, 3):
        assert_equal(decoded(codes, streams[: 2 * levels], books[:levels]), codes.coarsest(levels))


def test_smooth_tokens_cost_less():
    codes, books = walk(1024, (4, 2, 1), 256)
    streams = entropy.encode(codes, books)
    assert {stream.coder for stream in streams} == {1}
    assert 8 * sum(len(stream.payload) for stream in streams) / codes.tokens < 6.6  # raw takes 8


def test_random_tokens_are_packed_raw():
    rng = np.random.default_rng(0)
    codes = Codes((rng.integers(0, 4096, (1, 300)).astype(np.uint16),), (1,), 4096)
    (stream,) = entropy.encode(codes, [codebook(4096, 8, 1)])
    assert stream.coder == 0
    assert len(stream.payload) == 450


@pytest.mark.parametrize("token", [0, 9])
def test_constant_tokens_keep_the_lower_bound(token: int):
    """A thousand equal tokens take a few bytes, and not fewer than a reader accepts."""
    codes = Codes((np.full((1, 1000), token, np.uint16),), (1,), 16)
    books = [codebook(16, 8, 1)]
    (stream,) = entropy.encode(codes, books)
    assert 1000 // 85 <= len(stream.payload) < 40
    assert_equal(decoded(codes, [stream], books), codes)


def test_channels_are_coded_by_themselves():
    codes, books = walk(64, (2, 1), 64, channels=2)
    both = entropy.encode(codes, books)
    for channel in (0, 1):
        one = Codes(tuple(level[channel : channel + 1] for level in codes.levels), codes.strides, 64)
        assert entropy.encode(one, books) == both[channel::2]


def test_progress():
    codes, books = walk(256, (2, 1), 64)
    for codebooks in (books, None):
        seen: list[float] = []
        streams = entropy.encode(codes, codebooks, progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert len(seen) > 3 or codebooks is None
    seen = []
    entropy.decode(streams, strides=(2, 1), channels=1, frames=256, codebook_size=64, progress=seen.append)
    assert seen == [1.0]


@pytest.mark.parametrize("coder", [2, 3])
def test_other_coders(coder: int):
    codes, books = walk(8, (1,), 16)
    with pytest.raises(StreamInvalidError, match="prior"):
        decoded(codes, [CodedStream(coder, bytes(3))], books)


def test_codebooks_that_do_not_fit():
    codes, books = walk(64, (2, 1), 16)
    streams = always_adaptive(codes, books)
    with pytest.raises(StreamInvalidError, match="codebooks"):
        decoded(codes, streams, None)
    for wrong in (books[:1], [codebook(17, 8, 1)] * 2):
        with pytest.raises(ValueError, match="codebooks"):
            decoded(codes, streams, wrong)
        with pytest.raises(ValueError, match="codebooks"):
            entropy.encode(codes, wrong)


def test_any_bytes_decode_or_are_refused():
    """Adaptive payloads of noise: a grid of tokens or the named error, nothing else."""
    codes, books = walk(40, (2, 1), 16)
    rng = np.random.default_rng(8)
    refused = 0
    for turn in range(60):
        streams = [CodedStream(1, rng.bytes(int(rng.integers(0, 12)))) for _ in range(2)]
        if turn % 3 == 0:
            streams[1] = CodedStream(1, b"\xff" * 20)
        try:
            result = decoded(codes, streams, books)
        except StreamInvalidError:
            refused += 1
        else:
            assert result.tokens == codes.tokens
    assert refused < 60
