"""Coding of tokens: exact, never larger than raw, and nothing but tokens or a named error comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import isqrt
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snaccli import entropy
from snaccli.codes import CodedStream, Codes
from snaccli.entropy import adaptive, compiled, directions, kernel, model, raw
from snaccli.entropy.compiled import CompiledCoder, TokenCoder
from snaccli.entropy.context import Context, Parent
from snaccli.entropy.plain import PlainCoder
from snaccli.entropy.rangecoder import TOTAL, Decoder, Encoder, shortest_bytes
from snaccli.errors import StreamInvalidError
from tests.format_reference import InvalidError, ReferenceRange
from tests.test_format import GOLDEN, golden_grid
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


@given(st.integers(0, 10**6), st.integers(1, 30), st.sampled_from([2, 3, 64, 300]), st.integers(0, 1))
@settings(max_examples=40)
def test_intervals_are_coded_as_whole_rows_are(seed: int, count: int, size: int, sharp: int):
    rows = rows_of(seed, count, size, sharp)
    symbols = np.random.default_rng(seed).integers(0, size, count).astype(np.int32)
    symbols[0], symbols[-1] = 0, size - 1
    by_rows, by_intervals = Encoder(), Encoder()
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


@pytest.mark.parametrize("coder", [PlainCoder, CompiledCoder])
def test_progress(coder: type[TokenCoder], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coder, "block", 64)
    monkeypatch.setattr(entropy, "choose", lambda tokens, space: coder)
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


# The compiled coder against the plain one


def decoded_by(
    coder: type[TokenCoder], codes: Codes, streams: Sequence[CodedStream], books: Sequence[np.ndarray]
) -> Codes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "choose", lambda tokens, space: coder)
        return decoded(codes, streams, books)


@given(grids())
@settings(max_examples=60, deadline=None)
def test_both_coders_give_the_same_bytes(grid: tuple[Codes, list[np.ndarray]]):
    codes, books = grid
    streams = always_adaptive(codes, books, PlainCoder)
    assert always_adaptive(codes, books, CompiledCoder) == streams
    for coder in (PlainCoder, CompiledCoder):
        assert_equal(decoded_by(coder, codes, streams, books), codes)


@pytest.mark.parametrize("name", ["small", "full"])
def test_golden_payloads_compiled(name: str):
    codes, books = golden_grid(name)
    streams = always_adaptive(codes, books, CompiledCoder)
    assert [stream.payload.hex() for stream in streams] == GOLDEN[name]["payloads"]
    assert_equal(decoded_by(CompiledCoder, codes, streams, books), codes)


@pytest.mark.parametrize(
    ("name", "value"),
    [("HALVE", 50), ("KERNELS", 0), ("KERNELS", 300 * 7), ("TILT_LIMIT", 90), ("CAP", 9000)],
)
def test_both_coders_follow_the_constants(name: str, value: int, monkeypatch: pytest.MonkeyPatch):
    """Those of the running program, whatever the compiler's cache holds; and halved counts, a full store."""
    codes, books = walk(256, (2, 1), 300, dim=9, seed=3)
    before = always_adaptive(codes, books, CompiledCoder)
    monkeypatch.setattr(model, name, value)
    streams = always_adaptive(codes, books, PlainCoder)
    assert always_adaptive(codes, books, CompiledCoder) == streams
    assert (before == streams) == (name == "KERNELS")
    assert_equal(decoded_by(CompiledCoder, codes, streams, books), codes)


@pytest.mark.parametrize("dim", [1, 8, 16, 40])
@pytest.mark.parametrize("bits", [20, 40, 62])
def test_both_coders_agree_on_extreme_maps(dim: int, bits: int):
    """Tilts at their limits, sums that wrap around, points at the edge of the grid."""
    rng = np.random.default_rng(dim)
    points = directions.points(codebook(700, dim, 4))
    points[0], points[1] = directions.LIMIT, -directions.LIMIT
    above = Parent(rng.integers(0, 700, 40).astype(np.uint16), points, 4)
    tokens = np.concatenate([rng.integers(0, 700, 20), [0, 1] * 10, [0] * 40]).astype(np.uint16)
    plain, fast = PlainCoder(Context(points, 2, above)), CompiledCoder(Context(points, 2, above))
    maps = rng.integers(-(1 << bits), 1 << bits, plain._model.maps.shape)
    plain._model.maps[:] = fast._state.maps[:] = maps
    np.testing.assert_array_equal(fast.intervals(tokens), plain.intervals(tokens))
    np.testing.assert_array_equal(fast._state.maps, plain._model.maps)


def test_both_coders_agree_on_constant_and_skewed_tokens():
    rng = np.random.default_rng(0)
    for tokens in (np.full(1500, 1), rng.integers(0, 2, 300), rng.geometric(0.2, 1500) % 5):
        points = directions.points(codebook(5, 2, 1))
        plain, fast = PlainCoder(Context(points, 1, None)), CompiledCoder(Context(points, 1, None))
        some = tokens.astype(np.uint16)
        np.testing.assert_array_equal(fast.intervals(some), plain.intervals(some))


def test_blocks_of_any_length_go_on_where_the_last_one_ended():
    codes, books = walk(64, (2, 1), 300)
    points = [directions.points(book) for book in books]
    context = Context(points[1], 1, Parent(codes.levels[0][0], points[0], 2))
    tokens = codes.levels[1][0]
    for coder in (PlainCoder, CompiledCoder):
        whole = coder(context).intervals(tokens)
        learner = coder(context)
        parts = [learner.intervals(tokens[a:b]) for a, b in ((0, 1), (1, 1), (1, 3), (3, 50), (50, 64))]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def outcome(coder: type[TokenCoder], payload: bytes, tokens: int, context: Context) -> list[int] | str:
    try:
        parts = (context.points, context.stride, context.parent)
        return adaptive.decode(payload, tokens, *parts, lambda count: None, coder).tolist()
    except StreamInvalidError as error:
        return str(error)


@given(st.binary(max_size=30), st.sampled_from([2, 16, 300]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_both_coders_take_bytes_of_noise_alike(noise: bytes, size: int, high: bool):
    """The same tokens or the same error, whatever the bytes: constriction is the yardstick."""
    context = Context(directions.points(codebook(size, 3, 2)), 1, None)
    payload = b"\xff" * 9 + noise if high else noise
    found = outcome(CompiledCoder, payload, 60, context)
    assert found == outcome(PlainCoder, payload, 60, context)


def test_the_compiled_coder_refuses_bytes_no_encoder_wrote():
    context = Context(directions.points(codebook(16, 3, 2)), 1, None)
    assert "does not decode" in outcome(CompiledCoder, b"\xff" * 12, 5, context)


def test_threads_do_not_disturb_each_other():
    codes, books = walk(512, (2, 1), 300)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: always_adaptive(codes, books, CompiledCoder), range(8)))
    assert all(streams == found[0] for streams in found)
    assert found[0] == always_adaptive(codes, books, PlainCoder)


def test_the_polynomial_is_the_table():
    """Far enough from the next integer that float32 cannot round across, in whatever order it adds."""
    coefficients = [Fraction(float(c)) for c in (kernel.P0, kernel.P1, kernel.P2, kernel.P3, kernel.P4)]
    for i, mantissa in enumerate(model.MANTISSAS):
        exact = sum(c * i**n for n, c in enumerate(coefficients))
        # Eight operations round, each by half a unit in the last place of a number below 2^16 at the most.
        assert mantissa + 8 * 2**-9 < exact < mantissa + 1 - 8 * 2**-9
    for step in [*range(600), 2**20, 2**31 - 1]:
        assert kernel._power(np.uint32(step)) == model.POWERS[min(step, 512)]


# Which of the two is used


class Wrong:
    """A compiled function that does nothing."""

    stats = SimpleNamespace(cache_path="nowhere")

    def __call__(self, *arguments: object) -> int:
        return 0


class Damaged(Wrong):
    """A compiled function whose cache must go before it works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stats = SimpleNamespace(cache_path=str(folder))

    def __call__(self, *arguments: object) -> int:
        if any(self.folder.iterdir()):
            raise EOFError("Ran out of input")
        return WORKING(*arguments)


WORKING = compiled._working()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As at the start of a process, with caches that last as long as the test."""
    monkeypatch.setattr(compiled, "_seen", 0)
    monkeypatch.setattr(compiled, "_working", compiled._working.__wrapped__)
    monkeypatch.setattr(compiled, "_module", compiled._module.__wrapped__)
    return monkeypatch


def with_kernel(monkeypatch: pytest.MonkeyPatch, build: object) -> None:
    monkeypatch.setattr(compiled, "_module", lambda: SimpleNamespace(build=build))


def test_a_damaged_cache_is_made_anew(fresh: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "kernel._code-1.py311.nbi").write_bytes(b"no pickle")
    with_kernel(fresh, lambda cached: Damaged(tmp_path))
    assert compiled._working() is not None
    assert not list(tmp_path.iterdir())


def test_without_a_folder_for_the_cache_it_is_done_without(fresh: pytest.MonkeyPatch):
    def build(cached: bool) -> object:
        if cached:
            raise RuntimeError("cannot cache function: no locator available")
        return WORKING

    with_kernel(fresh, build)
    assert compiled._working() is WORKING
    assert not compiled._on_disk()


def test_a_compiled_coder_that_errs_is_not_used(fresh: pytest.MonkeyPatch):
    with_kernel(fresh, lambda cached: Wrong())
    assert compiled._working() is None
    assert compiled.choose(10**6, []) is PlainCoder
    with pytest.raises(RuntimeError, match="numba"):
        CompiledCoder(Context(directions.points(codebook(4, 2, 1)), 1, None))


def test_choice_by_the_tokens_of_the_process(fresh: pytest.MonkeyPatch):
    points = directions.points(codebook(4, 2, 1))
    for on_disk, first in ((True, compiled.IMPORTING), (False, compiled.COMPILING)):
        fresh.setattr(compiled, "_seen", 0)
        fresh.setattr(compiled, "_on_disk", lambda on_disk=on_disk: on_disk)
        fresh.setattr(compiled, "_working", lambda: WORKING)
        assert compiled.choose(first - 1, [points]) is PlainCoder
        assert compiled.choose(1, [points]) is CompiledCoder
    assert compiled.choose(1, [points, np.zeros((2, 5000), np.int64)]) is PlainCoder


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
    [("sys.modules['numba'] = None", {}), ("", {"NUMBA_DISABLE_JIT": "1"})],
)
def test_without_numba_the_bytes_are_the_same(before: str, environment: dict[str, str]):
    script = f"""
import sys
{before}
from snaccli import entropy
from snaccli.entropy import compiled
from tests.token_grids import walk
codes, books = walk(64, (2, 1), 64)
compiled.IMPORTING = compiled.COMPILING = 0
print([stream.payload.hex() for stream in entropy.encode(codes, books)], compiled._working() is None)
"""
    expected = [stream.payload.hex() for stream in entropy.encode(*walk(64, (2, 1), 64))]
    assert run_python(script, **environment) == f"{expected} True"


def test_a_short_recording_does_not_import_numba():
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
