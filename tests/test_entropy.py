"""Coding of tokens: exact, never larger than raw, and as docs/format.md says.

``Reference`` below is a decoder written from the document alone: plain Python integers, no numpy, no
constriction. What it decodes must be what the program encoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from math import isqrt, ldexp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaccli import container, entropy
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import adaptive, directions, model, raw
from snaccli.entropy.rangecoder import TOTAL, Decoder, Encoder, shortest_bytes
from snaccli.errors import StreamInvalidError

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = (ROOT / "docs" / "format.md").read_text("utf-8")
GOLDEN = json.loads((ROOT / "tests" / "golden" / "entropy.json").read_text("utf-8"))


# A decoder from the document


class InvalidError(Exception):
    """The stream is invalid, says the document."""


def constants() -> dict[str, list[int]]:
    """The table of section 6.1."""
    table = DOCUMENT.split("<!-- constants", 1)[1].split("\n\n", 1)[0]
    rows = re.findall(r"^\| ([A-Z_]+) \| ([0-9, ]+) \|", table, re.MULTILINE)
    return {name: [int(value) for value in values.split(",")] for name, values in rows}


CONSTANTS = constants()
C = {name: values[0] for name, values in CONSTANTS.items()}
MANTISSAS = [int(word) for word in DOCUMENT.split("    M = ", 1)[1].split("\n\n", 1)[0].split()]


def power(i: int) -> int:
    return MANTISSAS[i % 32] >> (i // 32) if i < 512 else 0


def near(a: int, b: int) -> int:
    return (2 * a + b) // (2 * b)


def reference_points(codebook: Sequence[Sequence[float]]) -> list[list[int]]:
    """Section 6.2; ``codebook`` holds float32 numbers."""
    rows = []
    for word in codebook:
        exponent = 0
        largest = max(abs(x) for x in word)
        while largest and largest >= ldexp(1.0, exponent):
            exponent += 1
        while largest and largest < ldexp(1.0, exponent - 1):
            exponent -= 1
        fixed = [round(ldexp(x, C["FIXED_BITS"] - exponent)) for x in word]
        length = max(1, isqrt(sum(x * x for x in fixed)))
        rows.append([near(C["UNIT"] * x, length) for x in fixed])
    mean = [near(sum(column), len(rows)) for column in zip(*rows, strict=True)]
    centred = [[x - m for x, m in zip(row, mean, strict=True)] for row in rows]
    spread = max(1, isqrt(sum(x * x for row in centred for x in row) // len(rows)))
    limit = C["LIMIT"]
    return [[min(max(near(C["SPREAD"] * x, spread), -limit), limit) for x in row] for row in centred]


class ReferenceRange:
    """Section 5."""

    def __init__(self, payload: bytes) -> None:
        self.rest = iter(payload)
        self.range, self.offset = (1 << 64) - 1, self.bytes(8)

    def bytes(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 8 | next(self.rest, 0)
        return value

    def decode(self, frequencies: Sequence[int]) -> int:
        scale = self.range >> 24
        quantile = self.offset // scale
        if quantile >= 1 << 24:
            raise InvalidError
        token, below = 0, 0
        while below + frequencies[token] <= quantile:
            below += frequencies[token]
            token += 1
        self.offset -= scale * below
        self.range = scale * frequencies[token]
        if self.range < 1 << 32:
            self.range <<= 32
            self.offset = self.offset << 32 | self.bytes(4)
        return token


class ReferenceModel:
    """Sections 6.4 to 6.6."""

    def __init__(self, points: list[list[int]], phases: int, features: int) -> None:
        self.points, self.size, self.dim = points, len(points), len(points[0])
        start = (C["START"] << C["MASS_BITS"]) // self.size
        self.counts = [[start] * self.size for _ in range(2)]
        self.seen = 0
        self.maps = [[[0] * self.dim for _ in range(features)] for _ in range(phases)]
        self.steps = [0] * phases
        self.wide, self.plain = [C["WEIGHT"] // 2] * phases, [C["WEIGHT"] // 4] * phases

    def frequencies(self, phase: int, features: Sequence[int]) -> list[int]:
        size, bits, limit = self.size, C["MIX_BITS"], C["TILT_LIMIT"]
        maps = self.maps[phase]
        tilt = [sum(x * m[d] for x, m in zip(features, maps, strict=True)) for d in range(self.dim)]
        tilt = [min(max(x >> C["TILT_SHIFT"], -limit), limit) for x in tilt]
        scores = [sum(x * y for x, y in zip(point, tilt, strict=True)) for point in self.points]
        top = max(scores)
        self.gain = [power((top - score) >> C["SCORE_SHIFT"]) for score in scores]
        first, second = self.counts
        f0 = (self.wide[phase] << C["BASE_BITS"]) // sum(first)
        f1 = ((C["WEIGHT"] - self.wide[phase]) << C["BASE_BITS"]) // sum(second)
        self.base = [1 + ((a * f0 + b * f1) >> 16) for a, b in zip(first, second, strict=True)]
        self.tilted = [a * b for a, b in zip(self.base, self.gain, strict=True)]
        free = (1 << 24) - size - C["UNIFORM"]
        p = (free * self.plain[phase]) >> 16
        a = ((free - p) << bits) // sum(self.tilted)
        b = (p << bits) // sum(self.base)
        c = (C["UNIFORM"] << bits) // size
        row = [(t * a + x * b + c) >> bits for t, x in zip(self.tilted, self.base, strict=True)]
        best = row.index(max(row))
        row[best] += (1 << 24) - size - sum(row)
        if row[best] > C["CAP"]:
            spare = (row[best] - C["CAP"]) // (size - 1) + 1
            row = [x + spare for x in row]
            row[best] -= spare * size
        return [x + 1 for x in row]

    def learn(self, s: int, phase: int, features: Sequence[int]) -> None:
        first, second = self.counts
        everything, base = sum(self.tilted), sum(self.base)
        gained = [sum(g * n for g, n in zip(self.gain, heap, strict=True)) for heap in self.counts]
        self.wide[phase] = self.share(
            self.wide[phase], first[s] * gained[1], second[s] * gained[0], C["HEAP_SHARE"]
        )
        self.plain[phase] = self.share(
            self.plain[phase], self.base[s] * everything, self.tilted[s] * base, C["TILT_SHARE"]
        )
        error = []
        for d in range(self.dim):
            moment = sum(t * point[d] for t, point in zip(self.tilted, self.points, strict=True))
            error.append((self.points[s][d] << C["ERROR_BITS"]) - (moment << C["ERROR_BITS"]) // everything)
        rate = C["STEP"] // isqrt((min(self.steps[phase], C["STEP_CAP"]) + C["STEP_START"]) << 12)
        for f, feature in enumerate(features):
            for d in range(self.dim):
                g = feature * error[d]
                if f < 2 * self.dim and f % self.dim == d:
                    g += sum(features[f - d + i] * error[i] for i in range(self.dim))
                g = (g * rate) >> C["GRADIENT_SHIFT"]
                for every in self.maps:
                    every[f][d] += g
                self.maps[phase][f][d] += g
        self.steps[phase] += 1
        self.count(s)

    def count(self, s: int) -> None:
        squares = [sum((x - y) ** 2 for x, y in zip(p, self.points[s], strict=True)) for p in self.points]
        for h, counts in enumerate(self.counts):
            spread = [power(square >> CONSTANTS["KERNEL_SHIFTS"][h]) for square in squares]
            m = (1 << 31) // sum(spread)
            counts[:] = [n + ((x * m) >> 15) for n, x in zip(counts, spread, strict=True)]
            counts[s] += CONSTANTS["SPIKES"][h]
        self.seen += 1
        if self.seen == C["HALVE"]:
            self.seen = C["HALVE"] // 2
            self.counts = [[(n + 1) // 2 for n in counts] for counts in self.counts]

    @staticmethod
    def share(w: int, first: int, second: int, share: int) -> int:
        first, second = w * first, (C["WEIGHT"] - w) * second
        return share + (C["WEIGHT"] - 2 * share) * first // (first + second)


class Reference:
    """Sections 2 and 6: one channel's streams to tokens, each level decoded under the one above."""

    def __init__(self, codebooks: Sequence[Sequence[Sequence[float]]], strides: Sequence[int]) -> None:
        self.points = [reference_points(codebook) for codebook in codebooks]
        self.strides = strides

    def context(self, level: int, t: int, done: list[int], above: list[int]) -> tuple[int, list[int]]:
        """Section 6.3."""
        own = self.points[level]
        zero = [0] * len(own[0])
        features = [*(own[done[t - 1]] if t else zero), *(own[done[t - 2]] if t > 1 else zero)]
        if not level:
            return 0, [*features, C["BIAS"]]
        stride, coarser = self.strides[level], self.strides[level - 1]
        p = t * stride // coarser
        here = self.points[level - 1]
        none = [0] * len(here[0])
        a = here[above[p - 1]] if p else none
        b = here[above[p + 1]] if p + 1 < len(above) else none
        slope = [((y - x) * 181) >> 8 for x, y in zip(a, b, strict=True)]
        return t % self.phases(level), [*features, *here[above[p]], *slope, C["BIAS"]]

    def phases(self, level: int) -> int:
        if not level:
            return 1
        ratio, rest = divmod(self.strides[level - 1], self.strides[level])
        return ratio if not rest and 1 <= ratio <= 16 else 1

    def decode(self, payloads: Sequence[bytes | None], tokens: Sequence[list[int]]) -> list[list[int]]:
        """Decode the levels that have a payload; take those that are None from ``tokens``."""
        levels: list[list[int]] = []
        for level, payload in enumerate(payloads):
            if payload is None:
                levels.append(tokens[level])
                continue
            above = levels[-1] if level else []
            count, done = len(tokens[level]), []
            coder = ReferenceRange(payload)
            size = len(self.context(level, 0, [], above)[1]) if count else 1
            learned = ReferenceModel(self.points[level], self.phases(level), size)
            for t in range(count):
                phase, features = self.context(level, t, done, above)
                done.append(coder.decode(learned.frequencies(phase, features)))
                learned.learn(done[-1], phase, features)
            levels.append(done)
        return levels


# Material


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


def always_adaptive(codes: Codes, books: Sequence[np.ndarray]) -> list[CodedStream]:
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
            payload = adaptive.encode(tokens[channel], space[level], stride, parent, lambda count: None)
            streams.append(CodedStream(1, payload))
    return streams


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


def rows_of(seed: int, count: int, size: int, sharp: int) -> np.ndarray:
    weights = np.random.default_rng(seed).integers(1, 100, (count, size)).astype(float) ** sharp
    rows = np.floor(weights / weights.sum(axis=1, keepdims=True) * (TOTAL - size))
    if count:
        rows[np.arange(count), rows.argmax(axis=1)] += TOTAL - size - rows.sum(axis=1)
    return rows  # less one: they sum to 2^24 - size


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


def test_golden_words():
    """constriction's coded words, in case another version of it changes them."""
    rows = rows_of(5, 12, 64, 2)
    assert rows.astype(np.int64).sum() == GOLDEN["words"]["rows_sum"]
    encoder = Encoder()
    encoder.encode(np.array(GOLDEN["words"]["symbols"], np.int32), rows)
    assert encoder.payload().hex() == GOLDEN["words"]["payload"]


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


def test_points_of_the_document():
    for book in (codebook(50, 8, 1), codebook(9, 3, 2, 5.0), np.zeros((4, 2), np.float32), np.eye(3)):
        assert directions.points(book).tolist() == reference_points(book.astype(np.float32).tolist())


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


def test_constants_are_those_of_the_document():
    for name, values in CONSTANTS.items():
        here = getattr(model, name, None) or getattr(directions, name)
        assert (list(here) if isinstance(here, tuple) else [here]) == values, name
    assert model.POWERS.tolist() == [power(i) for i in range(513)]
    assert adaptive.MAX_TOKENS_PER_BYTE == container.header.TOKENS_PER_BYTE == 85
    assert entropy.Coder._member_map_.keys() == {"RAW", "ADAPTIVE", "PRIOR"}
    assert list(container.header.CODER_NAMES) == list(entropy.Coder)


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


def test_extreme_maps_stay_exact():
    """With the tilt at its limits in every coordinate the sums are still those of integers."""
    points = directions.points(codebook(64, 16, 4))
    points[0], points[1] = directions.LIMIT, -directions.LIMIT
    learner = model.Model(points, 1, 17, 16)
    learner.maps[:] = np.array([(-1) ** d << 40 for d in range(16)])
    context = np.full(17, 100, np.int64)
    row = learner.row(0, context)
    twin = ReferenceModel(points.tolist(), 1, 17)
    twin.maps = learner.maps.tolist()
    assert (row + 1).astype(int).tolist() == twin.frequencies(0, context.tolist())


@pytest.mark.parametrize(
    ("strides", "size", "dim", "frames"),
    [
        ((8, 4, 2, 1), 64, 8, 64),
        ((4, 2, 1), 16, 2, 64),
        ((3, 2), 7, 3, 120),
        ((1, 2), 30, 5, 90),
        ((32, 1), 2, 1, 96),
    ],
)
def test_reference_decoder_agrees(strides: tuple[int, ...], size: int, dim: int, frames: int):
    codes, books = walk(frames, strides, size, dim, seed=size)
    streams = always_adaptive(codes, books)
    tokens = [level[0].tolist() for level in codes.levels]
    reference = Reference([book.tolist() for book in books], strides)
    assert reference.decode([stream.payload for stream in streams], tokens) == tokens
    assert_equal(decoded(codes, streams, books), codes)


def test_reference_decoder_agrees_at_full_size():
    codes, books = walk(8, (8, 4, 2, 1), 4096)
    streams = always_adaptive(codes, books)
    tokens = [level[0].tolist() for level in codes.levels]
    reference = Reference([book.tolist() for book in books], codes.strides)
    assert reference.decode([stream.payload for stream in streams], tokens) == tokens


def test_reference_decoder_agrees_on_silence():
    """Equal tokens drive the frequencies to the cap."""
    books = [codebook(5, 3, 1)] * 2
    codes = Codes((np.full((1, 60), 3, np.uint16), np.full((1, 120), 1, np.uint16)), (2, 1), 5)
    streams = always_adaptive(codes, books)
    tokens = [level[0].tolist() for level in codes.levels]
    reference = Reference([book.tolist() for book in books], (2, 1))
    assert reference.decode([stream.payload for stream in streams], tokens) == tokens


def test_halving(monkeypatch: pytest.MonkeyPatch):
    """Counts are halved in time, and the reference decoder still agrees."""
    monkeypatch.setattr(model, "HALVE", 50)
    monkeypatch.setitem(C, "HALVE", 50)
    codes, books = walk(240, (1,), 12)
    streams = always_adaptive(codes, books)
    tokens = [codes.levels[0][0].tolist()]
    assert Reference([books[0].tolist()], (1,)).decode([streams[0].payload], tokens) == tokens
    assert_equal(decoded(codes, streams, books), codes)


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


# Golden bytes and the worked example


def golden_grid(name: str) -> tuple[Codes, list[np.ndarray]]:
    """A grid that no random generator of a library has a part in."""
    size, dim, frames, strides = GOLDEN[name]["shape"]

    def noise(count: int, seed: int) -> list[int]:
        state, out = seed, []
        for _ in range(count):
            state = (state * 1103515245 + 12345) % (1 << 31)
            out.append(state >> 16)
        return out

    books = [
        (np.array(noise(size * dim, 7 + i)).reshape(size, dim) / 16384 - 0.9).astype(np.float32)
        for i in range(len(strides))
    ]
    levels = []
    for i, stride in enumerate(strides):
        steps = np.cumsum(np.array(noise(frames // stride, 90 + i)) % 5 - 2)
        levels.append((steps * 3 % size).astype(np.uint16)[None])
    return Codes(tuple(levels), tuple(strides), size), books


@pytest.mark.parametrize("name", ["small", "full"])
def test_golden_payloads(name: str):
    codes, books = golden_grid(name)
    streams = always_adaptive(codes, books)
    assert [stream.payload.hex() for stream in streams] == GOLDEN[name]["payloads"]
    assert_equal(decoded(codes, streams, books), codes)


def example() -> tuple[container.Header, Codes, list[np.ndarray]]:
    """The recording of section 7."""
    book = np.array([(c % 4 - 1.5, c // 4 - 1.5) for c in range(16)], np.float32)
    coarse = np.array([[0, 0, 5, 5, 10, 10, 15, 15]], np.uint16)
    fine = np.array([[1, 2, 6, 5] * 8], np.uint16)
    header = container.Header(
        model="tiny",
        fingerprint=bytes.fromhex("0011223344556677"),
        sample_rate=8000,
        model_rate=16000,
        channels=1,
        samples=1000,
        frames=32,
        codebook_size=16,
        strides=(4, 1),
    )
    return header, Codes((coarse, fine), (4, 1), 16), [book, book]


def example_frequencies() -> tuple[list[int], list[int]]:
    """Of the first and the fifth token of level 1, by the reference decoder."""
    _, codes, books = example()
    reference = Reference([book.tolist() for book in books], (4, 1))
    learned = ReferenceModel(reference.points[1], 4, 9)
    coarse, fine = (level[0].tolist() for level in codes.levels)
    rows = []
    for t, token in enumerate(fine[:5]):
        phase, features = reference.context(1, t, fine[:t], coarse)
        rows.append(learned.frequencies(phase, features))
        learned.learn(token, phase, features)
    return rows[0], rows[4]


def example_lines() -> dict[str, str]:
    """What section 7 shows, made anew."""
    header, codes, books = example()
    data = container.pack(header, entropy.encode(codes, books))
    layout = container.read_header(data)
    points = directions.points(books[0]).tolist()
    first, fifth = example_frequencies()
    hexed = data.hex(" ")
    ends = [0, 4, 5, 6, 12, 20, 21, 22, 23, 24, 26, 27, 32, 37, 41, 41 + layout.entries[0].size, len(data)]
    words = (
        "magic", "version 1, no flags", "two levels, one channel", "model: a name of 4 bytes, `tiny`",
        "fingerprint", "strides 4 and 1", "codebook size 16", "sample rate: number 1, 8000 Hz",
        "model rate: number 4, 16000 Hz", "1000 samples", "32 frames",
        f"level 0: {layout.entries[0].size} bytes, coder 0; CRC-32",
        f"level 1: {layout.entries[1].size} bytes, coder 1; CRC-32",
        "header checksum", "payload of level 0, raw", "payload of level 1, adaptive",
    )  # fmt: skip
    fields = [
        f"| `{data[a:b].hex(' ')}` | {word} |" for a, b, word in zip(ends, ends[1:], words, strict=False)
    ]
    return {
        "POINTS": wrapped([f"({x}, {y})" for x, y in points], 8),
        "FIRST": wrapped([str(x) for x in first], 8),
        "FIFTH": wrapped([str(x) for x in fifth], 8),
        "HEX": wrapped(hexed.split(), 16),
        "FIELDS": "\n".join(fields),
    }


def wrapped(words: Sequence[str], count: int) -> str:
    return "\n".join("    " + " ".join(words[i : i + count]) for i in range(0, len(words), count))


@pytest.mark.parametrize("part", ["POINTS", "FIRST", "FIFTH", "HEX", "FIELDS"])
def test_worked_example_is_current(part: str):
    assert example_lines()[part] in DOCUMENT


def test_worked_example_decodes():
    """The bytes as the document prints them, by the program and by the reference decoder."""
    header, codes, books = example()
    printed = DOCUMENT.split("This is the whole file:", 1)[1].split("|", 1)[0]
    layout, streams, damage = container.unpack(bytes.fromhex(printed))
    assert (layout.header, damage) == (header, None)
    assert [stream.coder for stream in streams] == [0, 1]
    assert_equal(decoded(codes, streams, books), codes)
    tokens = [level[0].tolist() for level in codes.levels]
    reference = Reference([book.tolist() for book in books], (4, 1))
    assert reference.decode([None, streams[1].payload], tokens) == tokens
