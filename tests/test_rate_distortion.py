"""Tokens chosen by their bits, too: which they are, what they save, and that any reader takes them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snac.engine import Quantiser
from snaccli import encode_file, read
from snaccli.audio import resample
from snaccli.cli.app import run
from snaccli.cli.ui.console import Console
from snaccli.codec import Codec
from snaccli.codec.rate_distortion import SMALLER
from snaccli.codec.recording import dumps, loads
from snaccli.entropy import context_of, kernel, payloads, space_of
from snaccli.entropy.adaptive import StreamCoder
from snaccli.errors import UsageError
from tests.entropy_oracle import OracleCoder
from tests.token_grids import walk

SPEECH = Path(__file__).parent.parent / "examples" / "audio" / "speech-en.flac"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec.load("mini", device="cpu", prior=False)


@pytest.fixture(scope="module")
def speech(codec: Codec) -> np.ndarray:
    """Two channels of speech, of 3 s each."""
    samples, rate = soundfile.read(SPEECH, frames=6 * 48_000, dtype="float32", always_2d=True)
    mono = np.concatenate(list(resample([samples[:, :1]], rate, codec.rate, 1)))[:, 0]
    return np.stack([mono[: 3 * codec.rate], mono[-3 * codec.rate :]], axis=1)


def latents_of(codec: Codec, samples: np.ndarray) -> np.ndarray:
    blocks = codec.engine.encode([samples.T.copy()], samples.shape[1], latents=True)
    return np.concatenate([block for (block,) in blocks], axis=1)


def nearest(latents: np.ndarray, quantiser: Quantiser) -> list[np.ndarray]:
    """The nearest codewords in each codebook's space, level by level, by the residuals of the latents."""
    residual, found = latents.copy(), []
    for part in quantiser.parts:
        points = part.project(residual)
        tokens = np.square(points[:, None] - part.codebook).sum(axis=2).argmin(axis=1)
        residual -= part.latents(tokens, 0, len(residual))
        found.append(tokens)
    return found


def test_latents_are_what_the_quantiser_takes(codec: Codec, speech: np.ndarray) -> None:
    whole = latents_of(codec, speech)
    codes = codec.encode([speech], codec.rate, 2).codes
    assert whole.shape[:2] == (2, codes.frames)
    for channel, own in enumerate(whole):
        residual = own.copy()
        for level, part in zip(codes.levels, codec.engine.quantiser.parts, strict=True):
            np.testing.assert_array_equal(part.indices(part.project(residual)), level[channel])
            residual -= part.latents(level[channel], 0, len(residual))


def test_bits_that_cost_next_to_nothing_leave_the_nearest_codewords(codec: Codec, speech: np.ndarray) -> None:
    """The residuals that follow are those of the latents themselves."""
    codes = codec.encode([speech], codec.rate, 2, rate_distortion=1e-6).codes
    for channel, latents in enumerate(latents_of(codec, speech)):
        wanted = nearest(latents, codec.engine.quantiser)
        for level, tokens in zip(codes.levels, wanted, strict=True):
            assert (level[channel] != tokens).mean() < 0.01


@pytest.mark.parametrize(("learned", "smaller", "dear"), [(True, 0.96, 0.85), (False, 0.99, 0.6)])
def test_dearer_bits_make_smaller_files(
    speech: np.ndarray, learned: bool, smaller: float, dear: float
) -> None:
    """In three seconds the adaptive coder alone learns little that ``SMALLER`` could draw on."""
    codec = Codec.load("mini", device="cpu", prior=learned)
    prior = codec.prior if learned else None
    sizes = [
        len(dumps(codec.encode([speech], codec.rate, 2, rate_distortion=value), codec.codebooks, prior=prior))
        for value in (0.01, SMALLER, 0.5, 1e30)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < smaller * sizes[0]
    assert sizes[2] < dear * sizes[0]


@pytest.mark.parametrize("value", [1e-40, 1e30])
def test_prices_without_measure(codec: Codec, speech: np.ndarray, value: float) -> None:
    recording = codec.encode([speech[:9000]], codec.rate, 2, rate_distortion=value)
    assert recording.codes.frames == codec.config.frames_for(9000)


def test_blocks_do_not_matter_and_channels_are_their_own(codec: Codec, speech: np.ndarray) -> None:
    whole = codec.encode([speech], codec.rate, 2, rate_distortion=0.1).codes
    for cut in (9999, 30_000):
        parts = [speech[low : low + cut] for low in range(0, len(speech), cut)]
        codes = codec.encode(parts, codec.rate, 2, rate_distortion=0.1).codes
        same = [np.mean(one == other) for one, other in zip(codes.levels, whole.levels, strict=True)]
        assert min(same) > 0.99
    alone = codec.encode([speech[:, 1:].copy()], codec.rate, 1, rate_distortion=0.1).codes
    for one, other in zip(alone.levels, whole.levels, strict=True):
        np.testing.assert_array_equal(one[0], other[1])


@pytest.mark.parametrize("samples", [0, 1])
def test_hardly_anything(codec: Codec, samples: int) -> None:
    recording = codec.encode([np.zeros((samples, 1), np.float32)], codec.rate, 1, rate_distortion=0.1)
    assert recording.samples == samples
    assert recording.codes.frames == codec.config.frames_for(samples)


def test_progress_rises_to_the_end(codec: Codec, speech: np.ndarray) -> None:
    told: list[float] = []

    class Told:
        def started(self, seconds: float | None) -> None: ...

        def __call__(self, fraction: float) -> None:
            told.append(fraction)

    codec.encode([speech], codec.rate, 2, expected=len(speech), rate_distortion=0.1, progress=Told())
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_any_reader_takes_the_file(codec: Codec, speech: np.ndarray) -> None:
    recording = codec.encode([speech], codec.rate, 2, rate_distortion=0.2)
    again = loads(io.BytesIO(dumps(recording, codec.codebooks))).decode(codec)
    for one, other in zip(again.codes.levels, recording.codes.levels, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_prices_refused(codec: Codec, tmp_path: Path, value: float) -> None:
    with pytest.raises(UsageError, match="0 or more"):
        codec.encode([], codec.rate, 1, rate_distortion=value)
    with pytest.raises(UsageError, match="0 or more"):
        encode_file(tmp_path / "a.wav", model=codec, rate_distortion=value)


def test_at_the_shell(speech: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech[:, 0], 24_000)

    def coded(*options: str) -> tuple[int, bytes]:
        console = Console(io.StringIO(), io.StringIO(), {})
        output = tmp_path / "a.snac"
        arguments = ["encode", str(tmp_path / "a.wav"), "-f", "-o", str(output)]
        return run([*arguments, *options], console), output.read_bytes() if output.exists() else b""

    plain, smaller, same, much = (
        coded(*options)
        for options in ((), ("--smaller",), ("--rate-distortion", "0.15"), ("--rate-distortion", "0.5"))
    )
    assert [status for status, _ in (plain, smaller, same, much)] == [0] * 4
    assert smaller == same
    assert len(plain[1]) > len(smaller[1]) > len(much[1])
    samples, rate = read(tmp_path / "a.snac")
    assert (len(samples), rate) == (len(speech), 24_000)
    for wrong in (
        ("--smaller", "--rate-distortion", "0.2"),
        ("--rate-distortion", "-1"),
        ("--rate-distortion", "nan"),
    ):
        assert coded(*wrong)[0] == 2


@pytest.mark.parametrize("compiled", [True, False])
def test_the_coder_chooses_by_its_own_bits(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    """Never a tenth of a bit more than the cheapest codeword takes, by the rows of the oracle."""
    if not compiled:
        for name in ("code_narrow", "code_wide"):
            monkeypatch.setattr(kernel, name, getattr(kernel, name).python)
    codes, books = walk(64, (2, 1), 40)
    space = space_of(books, 40, 2)
    context = context_of(space, codes.strides, [codes.levels[0][0]])
    costs = np.random.default_rng(1).uniform(0, 6, (64, 40)).astype(np.float32)
    chosen = StreamCoder(context).choose(costs.copy())
    oracle = OracleCoder(context)
    for token, own in zip(chosen, costs, strict=True):
        ((_, frequency),) = oracle.intervals(np.array([token], np.uint16)).tolist()
        row = oracle._model.frequencies + 1
        assert row[token] == frequency
        whole = own - np.log2(row / payloads.TOTAL)
        assert whole[token] <= whole.min() + 0.1
