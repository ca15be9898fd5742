"""Token grids for tests of the coders and of the format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from snaccli import entropy
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import adaptive
from snaccli.entropy.adaptive import Context, Parent, Row, StreamCoder, in_step
from snaccli.entropy.arithmetic import points_of
from snaccli.entropy.payloads import TOTAL, Encoder
from tests.entropy_oracle import OracleCoder


def codebook(size: int, dim: int, seed: int, offset: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(size, dim)) + offset * np.arange(1, dim + 1)).astype(np.float32)


def walk(frames: int, strides: Sequence[int], size: int, dim: int = 8, seed: int = 0, channels: int = 1):
    """Tokens of a smooth path, quantised level by level at several strides, as a residual quantiser does."""
    rng = np.random.default_rng(seed)
    books = [codebook(size, dim, seed + 1 + i, 0.2) for i in range(len(strides))]
    left = np.cumsum(rng.normal(size=(channels, frames, dim)), axis=1)
    left = (left - left.mean(axis=1, keepdims=True)) / (left.std() + 1e-9) if frames else left
    levels = []
    for book, stride in zip(books, strides, strict=True):
        pooled = left.reshape(channels, -1, stride, dim).mean(axis=2)
        unit = book / np.linalg.norm(book, axis=1, keepdims=True)
        tokens = (pooled @ unit.T).argmax(axis=-1)
        along = (pooled * unit[tokens]).sum(axis=-1, keepdims=True)
        left = left - np.repeat(unit[tokens] * along, stride, axis=1)
        levels.append(tokens.astype(np.uint16))
    return Codes(tuple(levels), tuple(strides), size), books


def decoded(
    codes: Codes,
    streams: Sequence[CodedStream],
    books: Sequence[np.ndarray] | None,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Codes:
    return entropy.decode(
        streams,
        strides=codes.strides,
        channels=codes.channels,
        frames=codes.frames,
        codebook_size=codes.codebook_size,
        codebooks=books,
        threads=threads,
        progress=progress,
    )


def assert_equal(first: Codes, second: Codes) -> None:
    assert (first.strides, first.codebook_size) == (second.strides, second.codebook_size)
    for one, other in zip(first.levels, second.levels, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.uint16


def contexts(codes: Codes, books: Sequence[np.ndarray]) -> list[Context]:
    """The context of every stream, in the file's order."""
    space = [points_of(book) for book in books]
    found = []
    for level, stride in enumerate(codes.strides):
        for channel in range(codes.channels):
            parent = None
            if level:
                above = codes.levels[level - 1][channel]
                parent = Parent(above, space[level - 1], codes.strides[level - 1])
            found.append(Context(space[level], stride, parent))
    return found


def streams_of(codes: Codes) -> list[np.ndarray]:
    """The tokens of every stream, in the file's order."""
    return [tokens for level in codes.levels for tokens in level]


def intervals_of(coder: StreamCoder, tokens: np.ndarray, width: int = 2) -> np.ndarray:
    """What lies below each of a stream's next tokens and its frequency (n, 2), with a prior (n, 4)."""
    found = np.zeros((tokens.size, width), dtype=np.int64)
    assert coder.code(tokens, found) == tokens.size
    return found


def encoded(coder: StreamCoder, tokens: np.ndarray, number: int = 1) -> bytes:
    """The bytes of a whole stream by coder 1 or, with a prior, by coder 2."""
    row = Row(tokens, 1, coder, [Encoder() for _ in range(number)])
    for _ in in_step([row]):
        pass
    return row.encoders[-1].payload().ljust(adaptive.smallest_size(tokens.size), b"\0")


def decoded_alone(coder: StreamCoder, count: int) -> np.ndarray:
    """The tokens of a whole stream that is decoded."""
    row = Row(np.zeros(count, np.uint16), 1, coder)
    for _ in in_step([row]):
        pass
    return row.tokens


def always_adaptive(codes: Codes, books: Sequence[np.ndarray]) -> list[CodedStream]:
    """Every stream adaptive, even where raw is smaller."""
    return [
        CodedStream(1, encoded(StreamCoder(context), tokens))
        for tokens, context in zip(streams_of(codes), contexts(codes, books), strict=True)
    ]


def by_oracle(codes: Codes, books: Sequence[np.ndarray]) -> list[CodedStream]:
    """As ``always_adaptive``, by the coder that the kernel is held against."""
    streams = []
    for tokens, context in zip(streams_of(codes), contexts(codes, books), strict=True):
        encoder = Encoder()
        encoder.encode_intervals(OracleCoder(context).intervals(tokens))
        payload = encoder.payload().ljust(adaptive.smallest_size(tokens.size), b"\0")
        streams.append(CodedStream(1, payload))
    return streams


def decoded_by_oracle(codes: Codes, streams: Sequence[CodedStream], books: Sequence[np.ndarray]) -> Codes:
    """What the oracle decodes, given the lengths and the coarser levels of ``codes``."""
    rows = [
        OracleCoder(context, stream.payload).tokens(tokens.size)
        for tokens, context, stream in zip(streams_of(codes), contexts(codes, books), streams, strict=True)
    ]
    levels = [np.stack(rows[i : i + codes.channels]) for i in range(0, len(rows), codes.channels)]
    return Codes(tuple(levels), codes.strides, codes.codebook_size)


def rows_of(seed: int, count: int, size: int, sharp: int) -> np.ndarray:
    weights = np.random.default_rng(seed).integers(1, 100, (count, size)).astype(float) ** sharp
    rows = np.floor(weights / weights.sum(axis=1, keepdims=True) * (TOTAL - size))
    if count:
        rows[np.arange(count), rows.argmax(axis=1)] += TOTAL - size - rows.sum(axis=1)
    return rows  # less one: they sum to 2^24 - size
