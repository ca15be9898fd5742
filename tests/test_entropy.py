"""Coding of tokens: exact, never larger than raw, and nothing but tokens or a named error comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaccli import entropy
from snaccli.codes import CodedStream, Codes, packed_size, token_bits
from snaccli.entropy import adaptive, arithmetic, kernel, payloads
from snaccli.entropy.adaptive import Context, Parent, StreamCoder
from snaccli.entropy.arithmetic import LIMIT, SPREAD, integer_sqrt, points_of
from snaccli.entropy.payloads import TOTAL, Encoder, shortest_bytes
from snaccli.errors import ModelMismatchError, StreamInvalidError
from tests import entropy_oracle as oracle
from tests.entropy_oracle import Decoder, OracleCoder, RowEncoder
from tests.format_reference import InvalidError, ReferenceRange
from tests.test_format import GOLDEN, golden_grid
from tests.token_grids import (
    always_adaptive,
    assert_equal,
    by_oracle,
    codebook,
    decoded,
    decoded_alone,
    decoded_by_oracle,
    intervals_of,
    rows_of,
    walk,
)

# Raw


@given(st.integers(2, 65536), st.integers(0, 70), st.integers(0, 9))
def test_raw_round_trip(size: int, count: int, seed: int):
    tokens = np.random.default_rng(seed).integers(0, size, count).astype(np.uint16)
    payload = payloads.pack(tokens, size)
    assert len(payload) == packed_size(count, token_bits(size)) == -(-count * (size - 1).bit_length() // 8)
    np.testing.assert_array_equal(payloads.unpack(payload, count, size), tokens)


def test_raw_in_blocks(monkeypatch: pytest.MonkeyPatch):
    tokens = np.random.default_rng(1).integers(0, 4096, 1001).astype(np.uint16)
    whole = payloads.pack(tokens, 4096)
    monkeypatch.setattr(payloads, "BLOCK", 16)
    assert payloads.pack(tokens, 4096) == whole
    np.testing.assert_array_equal(payloads.unpack(whole, 1001, 4096), tokens)


def test_raw_bytes():
    assert payloads.pack(np.array([0x123, 0xABC, 0xFFF], np.uint16), 4096).hex() == "123abcfff0"
    assert payloads.pack(np.array([1, 0, 2], np.uint16), 3).hex() == "48"


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
        payloads.unpack(bytes.fromhex(payload), count, size)


# Range coder


@given(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([2, 3, 64, 300]), st.integers(0, 6))
@settings(max_examples=60)
def test_range_coder(seed: int, count: int, size: int, sharp: int):
    """Round trip, one byte of loss at the most, and constriction agrees with the document."""
    rows = rows_of(seed, count, size, sharp)
    symbols = np.random.default_rng(seed).integers(0, size, count).astype(np.int32)
    encoder = RowEncoder()
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


@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from([2, 3, 64, 300]), st.integers(0, 1))
@settings(max_examples=40)
def test_intervals_are_coded_as_whole_rows_are(seed: int, count: int, size: int, sharp: int):
    rows = rows_of(seed, count, size, sharp)
    symbols = np.random.default_rng(seed).integers(0, size, count).astype(np.int32)
    symbols[0], symbols[-1] = 0, size - 1
    by_rows, by_intervals = RowEncoder(), Encoder()
    by_rows.encode(symbols, rows)
    ends = np.cumsum(rows + 1, axis=1)[np.arange(count), symbols]
    own = rows[np.arange(count), symbols] + 1
    by_intervals.encode_intervals(np.stack([ends - own, own], axis=1).astype(np.int64))
    assert by_intervals.payload() == by_rows.payload()


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
    np.testing.assert_array_equal(points_of(scaled), points_of(book))


def test_points_fill_the_grid():
    grid = points_of(codebook(500, 8, 3, 1.0))
    assert abs(np.sqrt((grid**2).sum(axis=1).mean()) - SPREAD) < 2
    assert np.abs(grid.mean(axis=0)).max() < 1


@pytest.mark.parametrize(
    "book", [np.zeros((0, 8)), np.zeros(8), np.array([[np.nan, 1]]), np.array([[np.inf]])]
)
def test_points_refused(book: np.ndarray):
    with pytest.raises(ValueError, match="finite"):
        points_of(book)


@given(st.integers(0, 1 << 52))
def test_integer_sqrt(square: int):
    assert int(integer_sqrt(np.array(square))) == isqrt(square)


# The model


@pytest.mark.parametrize("size", [2, 5, 300, 4096])
def test_rows_are_frequencies(size: int):
    """Whole numbers that sum to 2^24, none above 15/16: at the start, and when all is said."""
    grid = points_of(codebook(size, 8, 4))
    coder = StreamCoder(Context(grid, 1, None))
    for turn in range(120):
        intervals_of(coder, np.array([1 if turn < 100 else turn % size], np.uint16))
        row = coder.state.row.astype(np.int64) + coder.state.sums[4]
        assert row.min() >= 1
        assert row.sum() == TOTAL
        assert row.max() <= TOTAL / 16 * 15
        assert turn != 99 or row.argmax() == 1


def test_kernels_need_not_be_kept(monkeypatch: pytest.MonkeyPatch):
    codes, books = walk(64, (2, 1), 64)
    streams = always_adaptive(codes, books)
    for kept in (0, 64 * 7):
        monkeypatch.setattr(adaptive, "KERNELS", kept)
        assert always_adaptive(codes, books) == streams
        assert_equal(decoded(codes, streams, books), codes)


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
        assert len(payload) <= packed_size(tokens, token_bits(codes.codebook_size))
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


def test_progress(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(StreamCoder, "block", 64)
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


def test_no_stream_at_all():
    with pytest.raises(ValueError, match="0 levels"):
        entropy.decode([], strides=(2, 1), channels=1, frames=8, codebook_size=16)


@given(grids(), st.sampled_from([1, 7, 64]))
@settings(max_examples=30, deadline=None)
def test_two_threads_code_alike(grid: tuple[Codes, list[np.ndarray]], block: int):
    """Rows in step, in blocks of any length: the same bytes, and tokens, as one row after the other."""
    codes, books = grid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamCoder, "block", block)
        adaptive_streams = always_adaptive(codes, books)
        streams = [entropy.encode(codes, books, threads=threads) for threads in (1, 2)]
        assert streams[0] == streams[1]
        for chosen, threads in ((adaptive_streams, 1), (adaptive_streams, 2), (streams[1], 2)):
            assert_equal(decoded(codes, chosen, books, threads), codes)


def test_a_coarser_stream_that_does_not_decode_ends_both_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(StreamCoder, "block", 16)
    codes, books = walk(256, (2, 1), 64)
    streams = always_adaptive(codes, books)
    before = threading.active_count()
    with pytest.raises(StreamInvalidError, match="does not decode"):
        decoded(codes, [CodedStream(1, b"\xff" * 12), streams[1]], books, threads=2)
    assert threading.active_count() == before


def test_stopping_stops_both_threads(monkeypatch: pytest.MonkeyPatch):
    """What the progress raises comes out, and nobody goes on coding."""
    monkeypatch.setattr(StreamCoder, "block", 16)
    codes, books = walk(2048, (2, 1), 64)
    streams, before = always_adaptive(codes, books), threading.active_count()

    def stop(fraction: float) -> None:
        raise KeyboardInterrupt

    for work in (
        lambda: entropy.encode(codes, books, threads=2, progress=stop),
        lambda: decoded(codes, streams, books, 2, stop),
    ):
        with pytest.raises(KeyboardInterrupt):
            work()
        assert threading.active_count() == before


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
        with pytest.raises(ModelMismatchError, match="codebooks"):
            decoded(codes, streams, wrong)
        with pytest.raises(ModelMismatchError, match="codebooks"):
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


# The kernel against its oracle


@given(grids())
@settings(max_examples=60, deadline=None)
def test_the_oracle_gives_the_same_bytes(grid: tuple[Codes, list[np.ndarray]]):
    codes, books = grid
    streams = always_adaptive(codes, books)
    assert by_oracle(codes, books) == streams
    assert_equal(decoded(codes, streams, books), codes)
    assert_equal(decoded_by_oracle(codes, streams, books), codes)


@pytest.mark.parametrize("name", ["small", "full"])
def test_golden_payloads_by_the_oracle(name: str):
    codes, books = golden_grid(name)
    streams = by_oracle(codes, books)
    assert [stream.payload.hex() for stream in streams] == GOLDEN[name]["payloads"]
    assert_equal(decoded_by_oracle(codes, streams, books), codes)


def test_the_oracle_agrees_when_counts_are_halved():
    codes, books = walk(2 * kernel.HALVE, (1,), 30, dim=9, seed=3)
    streams = always_adaptive(codes, books)
    assert by_oracle(codes, books) == streams
    assert_equal(decoded(codes, streams, books), codes)


@pytest.mark.parametrize("dim", [1, 8, 16, 40])
@pytest.mark.parametrize("bits", [20, 40, 62])
def test_the_oracle_agrees_on_extreme_maps(dim: int, bits: int):
    """Tilts at their limits, sums that wrap around, points at the edge of the grid."""
    rng = np.random.default_rng(dim)
    grid = points_of(codebook(700, dim, 4))
    grid[0], grid[1] = LIMIT, -LIMIT
    above = Parent(rng.integers(0, 700, 40).astype(np.uint16), grid, 4)
    tokens = np.concatenate([rng.integers(0, 700, 20), [0, 1] * 10, [0] * 40]).astype(np.uint16)
    plain, fast = OracleCoder(Context(grid, 2, above)), StreamCoder(Context(grid, 2, above))
    maps = rng.integers(-(1 << bits), 1 << bits, plain._model.maps.shape)
    plain._model.maps[:] = fast.state.maps[:] = maps
    np.testing.assert_array_equal(intervals_of(fast, tokens), plain.intervals(tokens))
    np.testing.assert_array_equal(fast.state.maps, plain._model.maps)


def test_points_of_many_dimensions():
    """Squared distances beyond 32 bits: far is far."""
    grid = np.full((40, 3000), LIMIT, np.int64)
    grid[::2] = -LIMIT
    tokens = np.arange(40, dtype=np.uint16)
    context = Context(grid, 1, None)
    np.testing.assert_array_equal(
        intervals_of(StreamCoder(context), tokens), OracleCoder(context).intervals(tokens)
    )


def test_the_oracle_agrees_on_constant_and_skewed_tokens():
    rng = np.random.default_rng(0)
    for tokens in (np.full(1500, 1), rng.integers(0, 2, 300), rng.geometric(0.2, 1500) % 5):
        context = Context(points_of(codebook(5, 2, 1)), 1, None)
        some = tokens.astype(np.uint16)
        np.testing.assert_array_equal(
            intervals_of(StreamCoder(context), some), OracleCoder(context).intervals(some)
        )


def test_blocks_of_any_length_go_on_where_the_last_one_ended():
    codes, books = walk(64, (2, 1), 300)
    space = [points_of(book) for book in books]
    context = Context(space[1], 1, Parent(codes.levels[0][0], space[0], 2))
    tokens = codes.levels[1][0]
    whole = OracleCoder(context).intervals(tokens)
    learner = StreamCoder(context)
    parts = [intervals_of(learner, tokens[a:b]) for a, b in ((0, 1), (1, 1), (1, 3), (3, 50), (50, 64))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def outcome(coder: StreamCoder | OracleCoder, tokens: int) -> list[int] | str:
    try:
        found = coder.tokens(tokens) if isinstance(coder, OracleCoder) else decoded_alone(coder, tokens)
        return found.tolist()
    except StreamInvalidError as error:
        return str(error)


@given(st.binary(max_size=30), st.sampled_from([2, 16, 300]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_bytes_of_noise_are_taken_alike(noise: bytes, size: int, high: bool):
    """The same tokens or the same error, whatever the bytes: constriction is the yardstick."""
    context = Context(points_of(codebook(size, 3, 2)), 1, None)
    payload = b"\xff" * 9 + noise if high else noise
    assert outcome(StreamCoder(context, payload), 60) == outcome(OracleCoder(context, payload), 60)


def test_the_kernel_refuses_bytes_no_encoder_wrote():
    context = Context(points_of(codebook(16, 3, 2)), 1, None)
    assert "does not decode" in outcome(StreamCoder(context, b"\xff" * 12), 5)


def test_threads_do_not_disturb_each_other():
    codes, books = walk(512, (2, 1), 300)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: always_adaptive(codes, books), range(8)))
    assert all(streams == found[0] for streams in found)
    assert found[0] == by_oracle(codes, books)


def test_the_polynomial_is_the_table():
    """Far enough from the next integer that float32 cannot round across, in whatever order it adds."""
    coefficients = [Fraction(float(getattr(arithmetic, f"P{n}"))) for n in range(5)]
    for i, mantissa in enumerate(oracle.MANTISSAS):
        exact = sum(c * i**n for n, c in enumerate(coefficients))
        # Eight operations round, each by half a unit in the last place of a number below 2^16 at the most.
        assert mantissa + 8 * 2**-9 < exact < mantissa + 1 - 8 * 2**-9
    for step in [*range(600), 2**20, 2**31 - 1]:
        assert arithmetic.power(np.uint32(step)) == oracle.POWERS[min(step, 512)]


@pytest.mark.parametrize("dim", [8, 20])
def test_interpreted_the_kernel_does_the_same(dim: int, monkeypatch: pytest.MonkeyPatch):
    """As Python, where numba cannot be had: without a warning, the same intervals, tokens and refusals."""
    codes, books = walk(32, (2, 1), 20, dim)
    streams = always_adaptive(codes, books)
    for name in ("code_narrow", "code_wide"):
        monkeypatch.setattr(kernel, name, getattr(kernel, name).python)
    assert always_adaptive(codes, books) == streams
    assert_equal(decoded(codes, streams, books), codes)
    context = Context(points_of(codebook(16, 3, 2)), 1, None)
    assert "does not decode" in outcome(StreamCoder(context, b"\xff" * 12), 5)


def run_python(script: str, **environment: str) -> str:
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=variables | environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split("\n")[-2]


@pytest.mark.parametrize(
    ("before", "environment"),
    [
        ("sys.modules['numba'] = sys.modules['llvmlite'] = sys.modules['llvmlite.binding'] = None", {}),
        ("", {"NUMBA_DISABLE_JIT": "1"}),
    ],
)
def test_without_numba_the_bytes_are_the_same(before: str, environment: dict[str, str]):
    script = f"""
import sys
{before}
from snac import jit
from snaccli import entropy
from snaccli.entropy import kernel
from tests.token_grids import walk
codes, books = walk(64, (2, 1), 64)
print([stream.payload.hex() for stream in entropy.encode(codes, books)], jit.available(kernel.code_narrow))
"""
    expected = [stream.payload.hex() for stream in entropy.encode(*walk(64, (2, 1), 64))]
    assert run_python(script, **environment) == f"{expected} False"


def test_with_a_warm_cache_coding_does_not_import_numba():
    """Nor does what ran before in the process change which code runs."""
    entropy.encode(*walk(64, (2, 1), 64))
    script = """
import sys
from snaccli import entropy
from tests.token_grids import decoded, walk
codes, books = walk(64, (2, 1), 64)
decoded(codes, entropy.encode(codes, books), books)
print("numba" in sys.modules)
"""
    assert run_python(script) == "False"


@pytest.mark.parametrize("arguments", [["--help"], ["info"], ["verify"]])
def test_commands_without_a_model_do_not_import_numba(arguments: list[str], tmp_path: Path):
    from snaccli import container
    from tests.test_format import example

    header, codes, books = example()
    (tmp_path / "tiny.snac").write_bytes(container.pack(header, entropy.encode(codes, books)))
    given_arguments = arguments if arguments == ["--help"] else [*arguments, str(tmp_path / "tiny.snac")]
    script = f"""
import sys
sys.argv = ["snac", *{given_arguments!r}]
from snaccli.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code
print("numba" in sys.modules or "torch" in sys.modules)
"""
    assert run_python(script) == "False"
