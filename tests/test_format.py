"""docs/format.md against the program: a decoder written from it, its constants, its worked example."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from snaccli import container, entropy
from snaccli.codes import TOKENS_PER_BYTE, Coder, Codes
from snaccli.entropy import arithmetic, kernel, mixing, payloads
from snaccli.entropy import prior as prior_module
from snaccli.entropy.adaptive import Context, StreamCoder
from tests.entropy_oracle import POWERS, RowEncoder
from tests.format_reference import (
    CONSTANTS,
    DOCUMENT,
    PRIOR_CONSTANTS,
    Reference,
    ReferenceModel,
    power,
    reference_points,
)
from tests.token_grids import always_adaptive, assert_equal, codebook, decoded, intervals_of, rows_of, walk

GOLDEN = json.loads((Path(__file__).parent / "golden" / "entropy.json").read_text("utf-8"))


def test_golden_words():
    """constriction's coded words, in case another version of it changes them."""
    rows = rows_of(5, 12, 64, 2)
    assert rows.astype(np.int64).sum() == GOLDEN["words"]["rows_sum"]
    encoder = RowEncoder()
    encoder.encode(np.array(GOLDEN["words"]["symbols"], np.int32), rows)
    assert encoder.payload().hex() == GOLDEN["words"]["payload"]


def test_points_of_the_document():
    for book in (codebook(50, 8, 1), codebook(9, 3, 2, 5.0), np.zeros((4, 2), np.float32), np.eye(3)):
        assert arithmetic.points_of(book).tolist() == reference_points(book.astype(np.float32).tolist())


def test_constants_are_those_of_the_document():
    for name, values in CONSTANTS.items():
        homes = [each for each in (kernel, payloads, arithmetic) if hasattr(each, name)]
        here = getattr(homes[0], name)
        assert (list(here) if isinstance(here, tuple) else [here]) == values, name
    for name, values in PRIOR_CONSTANTS.items():
        here = getattr(mixing, name, None) or getattr(prior_module, name)
        assert [here] == values, name
    assert POWERS.tolist() == [power(i) for i in range(513)]
    assert TOKENS_PER_BYTE == 85
    assert {coder.name: int(coder) for coder in Coder} == {"RAW": 0, "ADAPTIVE": 1, "PRIOR": 2}


def test_extreme_maps_stay_exact():
    """With the tilt at its limits in every coordinate the sums are still those of integers."""
    grid = arithmetic.points_of(codebook(64, 16, 4))
    grid[0], grid[1] = arithmetic.LIMIT, -arithmetic.LIMIT
    coder = StreamCoder(Context(grid, 1, None))
    twin = ReferenceModel(grid.tolist(), 1, 33)
    coder.state.maps[:] = np.array([(-1) ** d << 40 for d in range(16)])
    twin.maps = coder.state.maps.tolist()
    row = twin.frequencies(0, coder.state.features.tolist())
    ((below, own),) = intervals_of(coder, np.array([5], np.uint16)).tolist()
    assert (below, own) == (sum(row[:5]), row[5])
    every = [*coder.state.row.tolist()]
    extra = int(coder.state.sums[4])
    assert [x + extra for x in every] == row


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


def test_halving():
    """Counts are halved in time, and the reference decoder still agrees."""
    codes, books = walk(kernel.HALVE + 40, (1,), 3, 2)
    streams = always_adaptive(codes, books)
    tokens = [codes.levels[0][0].tolist()]
    assert Reference([books[0].tolist()], (1,)).decode([streams[0].payload], tokens) == tokens
    assert_equal(decoded(codes, streams, books), codes)


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
    grid = arithmetic.points_of(books[0]).tolist()
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
        "POINTS": wrapped([f"({x}, {y})" for x, y in grid], 8),
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


@pytest.mark.parametrize("channels", ["", "mono", "sixteen"])
@pytest.mark.parametrize(
    ("name", "coders"),
    [("raw", {0}), ("adaptive", {1}), ("prior", {2}), ("mixed", {0, 1, 2}), ("means", {2})],
)
def test_files_of_version_1_decode_for_ever(name: str, coders: set[int], channels: str):
    """Files that an earlier state of the program wrote, by the program and by the reference decoder."""
    folder = Path(__file__).parent / "golden"
    record = json.loads((folder / "version1.json").read_text("utf-8"))
    if channels:
        order = json.loads((folder / "version1-layouts.json").read_text("utf-8"))[channels]
        record["levels"] = [[level[channel] for channel in order] for level in record["levels"]]
    books = [np.array(book, np.float32) for book in record["codebooks"]]
    path = folder / f"version1-{'-'.join(filter(None, (name, channels)))}.snac"
    layout, streams, damage = container.unpack(path.read_bytes())
    header = layout.header
    assert damage is None
    assert {stream.coder for stream in streams} == coders
    assert header.channels == len(record["levels"][0])
    prior = None
    if header.prior is not None:
        kind = "means" if name == "means" else "prior"
        prior = prior_module.load(folder / f"version1-{kind}.safetensors")
        assert header.prior.hex() == prior.fingerprint
    codes = entropy.decode(
        streams,
        strides=header.strides,
        channels=header.channels,
        frames=header.frames,
        codebook_size=header.codebook_size,
        codebooks=books,
        prior=prior,
    )
    assert [level.tolist() for level in codes.levels] == record["levels"]
    numbers = None
    if prior is not None:
        layers = [{name: array.tolist() for name, array in vars(layer).items()} for layer in prior.layers]
        numbers = (prior.embedding.tolist(), layers, prior.windows)
    for channel in range(min(2, header.channels)):
        tokens = [level[channel] for level in record["levels"]]
        for coder, needed in ((1, None), (2, numbers)):
            payloads = [
                stream.payload if stream.coder == coder else None
                for stream in streams[channel :: header.channels]
            ]
            reference = Reference(record["codebooks"], header.strides, needed)
            assert reference.decode(payloads, tokens) == tokens
