"""The learned prior: coder 2 against docs/format.md, its file, its training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from snaccli import entropy
from snaccli.codes import CodedStream, Coder, Codes
from snaccli.entropy import adaptive, kernel
from snaccli.entropy import prior as priors
from snaccli.entropy.prior import Layer, Prior, PriorStream, inputs_of
from snaccli.errors import ModelMismatchError, PriorError, StreamInvalidError
from tests.format_reference import Reference, ReferencePrior
from tests.token_grids import assert_equal, contexts, encoded, intervals_of, walk


def noise(shape: Sequence[int], seed: int, limit: int) -> np.ndarray:
    """Numbers from -limit to limit that no random generator of a library has a part in."""
    state, out = seed, []
    for _ in range(int(np.prod(shape))):
        state = (state * 1103515245 + 12345) % (1 << 31)
        out.append((state >> 16) % (2 * limit + 1) - limit)
    return np.array(out, dtype=np.int64).reshape(shape)


def some_prior(
    strides: Sequence[int],
    size: int,
    width: int = 3,
    hidden: int = 5,
    outs: int = 9,
    windows: tuple[int, ...] = (),
) -> Prior:
    layers = []
    for level, inputs in enumerate(inputs_of(strides, len(windows))):
        rows = (inputs.tokens + inputs.means) * width
        layers.append(
            Layer(
                first=noise((rows, hidden), level + 1, 90).astype(np.int8),
                first_bias=noise((inputs.phases, hidden), level + 2, 9000).astype(np.int32),
                second=noise((outs, hidden), level + 3, 100).astype(np.int8),
                second_bias=noise((outs,), level + 4, 900).astype(np.int32),
                table=noise((size, outs), level + 5, 60).astype(np.int16),
                table_bias=noise((size,), level + 6, 9000).astype(np.int32),
                shifts=np.array([7, 4 + level % 2], np.int32),
            )
        )
    embedding = noise((len(strides), size, width), 11, 100).astype(np.int8)
    fingerprint, summary = "0011223344556677", {"steps": 0}
    return Prior(embedding, tuple(layers), tuple(strides), "tiny", fingerprint, summary, windows)


def coded(codes: Codes, books: Sequence[np.ndarray], prior: Prior) -> list[CodedStream]:
    """Every stream by coder 2, even where another is smaller."""
    streams = []
    order = [(level, channel) for level in range(len(codes.levels)) for channel in range(codes.channels)]
    for (level, channel), context in zip(order, contexts(codes, books), strict=True):
        coarser = [each[channel] for each in codes.levels[:level]]
        coder = adaptive.StreamCoder(context, prior=PriorStream(prior, level, coarser))
        streams.append(CodedStream(Coder.PRIOR, encoded(coder, codes.levels[level][channel], 2)))
    return streams


def decoded(
    codes: Codes,
    streams: Sequence[CodedStream],
    books: Sequence[np.ndarray],
    prior: Prior | None,
    threads: int = 1,
) -> Codes:
    return entropy.decode(
        streams,
        strides=codes.strides,
        channels=codes.channels,
        frames=codes.frames,
        codebook_size=codes.codebook_size,
        codebooks=books,
        prior=prior,
        threads=threads,
    )


def for_reference(prior: Prior) -> tuple[list, list, tuple[int, ...]]:
    layers = [{name: array.tolist() for name, array in vars(layer).items()} for layer in prior.layers]
    return prior.embedding.tolist(), layers, prior.windows


GRIDS = [
    ((8, 4, 2, 1), 64, 8, 64),
    ((4, 2, 1), 16, 2, 64),
    ((3, 2), 7, 3, 60),
    ((1, 2), 30, 5, 40),
    ((16, 8, 4, 2, 1), 20, 2, 48),
]


@pytest.mark.parametrize("windows", [(), (1,), (7, 24), (4, 16, 64, 1 << 16)])
@pytest.mark.parametrize(("strides", "size", "dim", "frames"), GRIDS)
def test_the_reference_decoder_agrees(
    strides: tuple[int, ...], size: int, dim: int, frames: int, windows: tuple[int, ...]
):
    """The program's streams, decoded by what was written from the document alone."""
    codes, books = walk(frames, strides, size, dim, seed=size)
    prior = some_prior(strides, size, windows=windows)
    streams = coded(codes, books, prior)
    tokens = [level[0].tolist() for level in codes.levels]
    reference = Reference([book.tolist() for book in books], strides, for_reference(prior))
    assert reference.decode([stream.payload for stream in streams], tokens) == tokens
    assert_equal(decoded(codes, streams, books, prior), codes)


@pytest.mark.parametrize("windows", [(), (8, 32)])
def test_golden_payloads(windows: tuple[int, ...]):
    tokens = [noise((1, 48 // stride), 70 + stride, 9) + 9 for stride in (4, 2, 1)]
    codes = Codes(tuple(level.astype(np.uint16) for level in tokens), (4, 2, 1), 20)
    books = [(noise((20, 3), 40 + i, 1000) / 512).astype(np.float32) for i in range(3)]
    prior = some_prior(codes.strides, 20, windows=windows)
    payloads = [stream.payload.hex() for stream in coded(codes, books, prior)]
    assert (prior.fingerprint, *payloads) == GOLDEN[windows]


def test_channels_and_whole_grids():
    codes, books = walk(64, (4, 2, 1), 32, channels=2)
    prior = some_prior(codes.strides, 32, windows=(9,))
    streams = entropy.encode(codes, books, prior=prior)
    without = entropy.encode(codes, books)
    for one, other in zip(streams, without, strict=True):
        assert len(one.payload) <= len(other.payload)
        assert one.coder == Coder.PRIOR or one == other
    assert_equal(decoded(codes, streams, books, prior), codes)
    forced = coded(codes, books, prior)
    assert_equal(decoded(codes, forced, books, prior), codes)
    assert_equal(decoded(codes, forced[:4], books, prior), codes.coarsest(2))
    assert entropy.encode(codes, books, prior=prior, threads=2) == streams
    assert_equal(decoded(codes, forced, books, prior, threads=2), codes)


def test_orders_of_summation(monkeypatch: pytest.MonkeyPatch):
    """The same bytes, whichever way the products are summed up: backwards, and as Python."""
    codes, books = walk(48, (8, 4, 2, 1), 40)
    prior = some_prior(codes.strides, 40, windows=(6, 40))
    streams = coded(codes, books, prior)

    def backwards(found: priors._Numbers) -> priors._Numbers:
        # Hidden units and outputs in another order: every sum over them runs the other way.
        start = found.start
        return found._replace(
            bias=np.ascontiguousarray(found.bias[:, ::-1]),
            above={k: np.ascontiguousarray(rows[:, ::-1]) for k, rows in found.above.items()},
            start=start._replace(
                first=np.ascontiguousarray(start.first[:, ::-1]),
                second=np.ascontiguousarray(start.second[::-1, ::-1]),
                second_bias=np.ascontiguousarray(start.second_bias[::-1]),
                table=np.ascontiguousarray(start.table[::-1]),
            ),
        )

    turned = some_prior(codes.strides, 40, windows=(6, 40))
    vars(turned)["numbers"] = tuple(map(backwards, turned.numbers))
    assert coded(codes, books, turned) == streams
    monkeypatch.setattr(kernel, "code_narrow", kernel.code_narrow.python)
    assert coded(codes, books, prior) == streams
    assert_equal(decoded(codes, streams, books, prior), codes)


def test_blocks_of_any_length():
    codes, books = walk(64, (2, 1), 40)
    prior = some_prior(codes.strides, 40, windows=(6, 40))
    context = contexts(codes, books)[1]
    tokens, coarser = codes.levels[1][0], [codes.levels[0][0]]
    whole = intervals_of(adaptive.StreamCoder(context, prior=PriorStream(prior, 1, coarser)), tokens, 4)
    coder = adaptive.StreamCoder(context, prior=PriorStream(prior, 1, coarser))
    parts = [intervals_of(coder, tokens[a:b], 4) for a, b in ((0, 1), (1, 1), (1, 3), (3, 50), (50, 64))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(whole[:, :2], intervals_of(adaptive.StreamCoder(context), tokens))


def test_any_bytes_decode_or_are_refused():
    codes, books = walk(40, (2, 1), 16)
    prior = some_prior(codes.strides, 16)
    rng = np.random.default_rng(8)
    for turn in range(40):
        streams = [CodedStream(2, rng.bytes(int(rng.integers(0, 12)))) for _ in range(2)]
        if turn % 3 == 0:
            streams[1] = CodedStream(2, b"\xff" * 20)
        try:
            result = decoded(codes, streams, books, prior)
        except StreamInvalidError:
            continue
        assert result.tokens == codes.tokens


def test_without_the_prior_or_with_one_of_another_kind():
    codes, books = walk(16, (2, 1), 16)
    streams = coded(codes, books, some_prior((2, 1), 16))
    with pytest.raises(StreamInvalidError, match="prior"):
        decoded(codes, streams, books, None)
    for other in (some_prior((4, 1), 16), some_prior((2, 1), 17)):
        with pytest.raises(ModelMismatchError, match="prior"):
            decoded(codes, streams, books, other)
        with pytest.raises(ModelMismatchError, match="prior"):
            entropy.encode(codes, books, prior=other)


def test_arrays_in_any_order_of_memory():
    codes, books = walk(16, (2, 1), 16)
    prior = some_prior(codes.strides, 16)
    turned = [
        Layer(**{name: np.asfortranarray(array) for name, array in vars(layer).items()})
        for layer in prior.layers
    ]
    other = Prior(
        np.asfortranarray(prior.embedding), tuple(turned), prior.strides, "x", prior.model_fingerprint
    )
    assert other.fingerprint == prior.fingerprint
    assert coded(codes, books, other) == coded(codes, books, prior)


def test_a_prior_is_learned_from_what_the_coder_sees():
    """Tokens and means of a corpus of several recordings against the document's decoder."""
    from snaccli.training.corpus import Corpus, Means

    strides, size, windows = (8, 4, 2, 1), 30, (3, 20, 500)
    grids = [walk(frames, strides, size, seed=frames, channels=2)[0] for frames in (64, 24, 136)]
    table = noise((4, size + 1, 3), 5, 120).astype(np.int8)
    table[:, size] = 0
    corpus = Corpus(grids)
    means = Means(corpus, table, 1.0, windows)
    rows = [[level[channel].tolist() for level in grid.levels] for grid in grids for channel in range(2)]
    embeddings = table[:, :size].tolist()
    for level in range(4):
        wanted = []
        for row in rows:
            reference = ReferencePrior(embeddings, {}, windows, strides, level)
            wanted += [reference.inputs(t, row[:level], row[level][:t]) for t in range(len(row[level]))]
        places = corpus.places[level]
        inputs = inputs_of(strides, len(windows))[level]
        seen, coarser = corpus.context(level, places), range(max(0, level - 3), level)
        tables = [level] * 4 + [k for k in coarser for _ in range(3)]
        found = [table[k][seen[:, i]] for i, k in enumerate(tables)]
        tokens = inputs.tokens * 3
        np.testing.assert_array_equal(np.concatenate(found, axis=1), np.array(wanted)[:, :tokens])
        rounded = np.floor(means.at(level, places) + np.float32(0.5 + 1e-4))
        np.testing.assert_array_equal(rounded, np.array(wanted)[:, tokens:])


# The file


@pytest.mark.parametrize("windows", [(), (12, 300)])
def test_a_file_comes_back(windows: tuple[int, ...], tmp_path: Path):
    prior = some_prior((4, 2, 1), 20, windows=windows)
    priors.save(prior, tmp_path / "a.safetensors")
    again = priors.load(tmp_path / "a.safetensors")
    assert again.fingerprint == prior.fingerprint
    assert (again.model, again.model_fingerprint, again.strides) == ("tiny", "0011223344556677", (4, 2, 1))
    assert (dict(again.summary), again.windows) == ({"steps": 0}, windows)
    for name, array in prior.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array)


@pytest.mark.parametrize(("windows", "text"), [((), ""), ((64,), " (64,)"), ((64, 512), " (64, 512)")])
def test_the_fingerprint_is_that_of_the_document(windows: tuple[int, ...], text: str):
    prior = some_prior((2, 1), 5, windows=windows)
    data = b"0011223344556677 (2, 1)" + text.encode()
    for name in sorted(prior.arrays()):
        array = prior.arrays()[name]
        kind = {1: "|i1", 2: "<i2", 4: "<i4"}[array.itemsize]
        data += f"{name} {kind} {array.shape}\n".encode() + array.tobytes()
    assert prior.fingerprint == hashlib.sha256(data).hexdigest()[:16]


def changed(tmp_path: Path, name: str, value: np.ndarray | None, **metadata: str) -> Path:
    """A prior's file with one tensor or word of metadata replaced, or left out."""
    path = tmp_path / "changed.safetensors"
    priors.save(some_prior((2, 1), 5), path)
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        words = file.metadata() | metadata
    arrays = load_file(path)
    if value is None:
        arrays.pop(name, None)
    else:
        arrays[name] = value
    save_file(arrays, path, words)
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embedding", None),
        ("embedding", np.zeros((2, 5, 3), np.int16)),
        ("embedding", np.zeros((2, 5), np.int8)),
        ("embedding", np.zeros((2, 6, 3), np.int8)),
        ("embedding", np.zeros((2, 5, 65), np.int8)),
        ("levels.0.first", None),
        ("levels.0.first", np.zeros((12, 0), np.int8)),
        ("levels.1.first", np.zeros((3, 5), np.int8)),
        ("levels.1.table", np.full((5, 9), 32767, np.int16)),
        ("levels.1.table_bias", np.full(5, 1 << 24, np.int32)),
        ("levels.1.first_bias", np.full((2, 5), -(1 << 31), np.int32)),
        ("levels.0.second_bias", np.full(9, 1 << 24, np.int32)),
        ("levels.0.shifts", np.array([24, 1], np.int32)),
        ("levels.0.shifts", np.array([-1, 1], np.int32)),
        ("levels.0.shifts", np.zeros(0, np.int32)),
        ("other", np.zeros(1, np.int8)),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, name: str, value: np.ndarray | None):
    path = changed(tmp_path, name, value)
    with pytest.raises(PriorError, match="changed"):
        priors.load(path)


@pytest.mark.parametrize(
    "metadata",
    [
        *({"format": "other"}, {"strides": "[2"}, {"strides": "[0, 1]"}, {"strides": "7"}, {"summary": "3"}),
        *({"windows": "[8]"}, {"windows": "[0]"}, {"windows": "[[8]]"}, {"windows": "[8.5, NaN]"}),
    ],
)
def test_hostile_metadata_is_refused(tmp_path: Path, metadata: dict[str, str]):
    path = changed(tmp_path, "other", None, **metadata)
    with pytest.raises(PriorError, match="changed"):
        priors.load(path)


def test_what_is_no_file_of_the_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(b"no safetensors")
    for name in ("a", "missing"):
        with pytest.raises(PriorError, match=name):
            priors.load(tmp_path / name)
    priors.save(some_prior((2, 1), 5), tmp_path / "b")
    monkeypatch.setattr(priors, "MAX_BYTES", 100)
    with pytest.raises(PriorError, match="larger"):
        priors.load(tmp_path / "b")


GOLDEN = {
    (): (
        "604904a525a120fa",
        "b6785730b269a27982",
        "8d2d90e545718beb61fc438224928e4dcdc88b",
        "af375d43432c2eebc0df1aa4f981fea1a316b626f0d37d722da394bd784a9eef",
    ),
    (8, 32): (
        "3c5740b75b25d4a9",
        "b6478543d531b25da0",
        "86076dc365b5b0b9e866bb15d93caf8d414b87",
        "3a9b7c58c86bc652113539423a45bcec3322347b46b4a4bc9f70eaaa0282772b",
    ),
}
