"""Token grids for tests of the coders and of the format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snaccli import entropy
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import adaptive, directions
from snaccli.entropy.compiled import TokenCoder
from snaccli.entropy.plain import PlainCoder
from snaccli.entropy.rangecoder import TOTAL


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


def decoded(codes: Codes, streams: Sequence[CodedStream], books: Sequence[np.ndarray] | None) -> Codes:
    return entropy.decode(
        streams,
        strides=codes.strides,
        channels=codes.channels,
        frames=codes.frames,
        codebook_size=codes.codebook_size,
        codebooks=books,
    )


def assert_equal(first: Codes, second: Codes) -> None:
    assert (first.strides, first.codebook_size) == (second.strides, second.codebook_size)
    for one, other in zip(first.levels, second.levels, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == np.uint16


def always_adaptive(
    codes: Codes, books: Sequence[np.ndarray], coder: type[TokenCoder] = PlainCoder
) -> list[CodedStream]:
    """Every stream adaptive, even where raw is smaller."""
    space = [directions.points(book) for book in books]
    streams = []
    for level, tokens in enumerate(codes.levels):
        for channel in range(codes.channels):
            above = codes.levels[level - 1][channel] if level else None
            parent = None
            if above is not None:
                parent = adaptive.Parent(above, space[level - 1], codes.strides[level - 1])
            stride = codes.strides[level]
            payload = adaptive.encode(
                tokens[channel], space[level], stride, parent, lambda count: None, coder
            )
            streams.append(CodedStream(1, payload))
    return streams


def rows_of(seed: int, count: int, size: int, sharp: int) -> np.ndarray:
    weights = np.random.default_rng(seed).integers(1, 100, (count, size)).astype(float) ** sharp
    rows = np.floor(weights / weights.sum(axis=1, keepdims=True) * (TOTAL - size))
    if count:
        rows[np.arange(count), rows.argmax(axis=1)] += TOTAL - size - rows.sum(axis=1)
    return rows  # less one: they sum to 2^24 - size
