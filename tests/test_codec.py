"""The whole way: recordings to ``.snac`` files and back, with a tiny model of random weights."""

from __future__ import annotations

import io
import math
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import snaccli
from snac import SNAC
from snac.engine.tiles import decode_tiles, tile_frames
from snaccli import container
from snaccli.codec import Codec, decode_file, encode_file
from snaccli.codes import Codes
from snaccli.errors import (
    AudioError,
    ContainerError,
    ModelError,
    ModelMismatchError,
    OutputError,
    UsageError,
)


@pytest.fixture(scope="module")
def codec(tiny_model_folder: Path) -> Codec:
    return Codec.load(str(tiny_model_folder))


def save(path: Path, seconds: float, rate: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A chord with noise, written as 16-bit WAV; its samples."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate))[:, None] / rate
    tones = sum(0.2 * np.sin(2 * np.pi * f * t * (1 + 0.1 * np.arange(channels))) for f in (110, 330))
    samples = (tones + 0.05 * rng.standard_normal((len(t), channels))).astype(np.float32)
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 1), (8000, 2), (48000, 3), (11025, 1)])
@pytest.mark.parametrize("count", [1, 31, 257, 4001])
def test_rate_and_length_come_back(
    tmp_path: Path, codec: Codec, rate: int, channels: int, count: int
) -> None:
    save(tmp_path / "in.wav", count / rate, rate, channels)
    encoded = encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec, channels="keep")
    decoded = decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=codec)
    samples, found = soundfile.read(tmp_path / "out.wav", always_2d=True)
    assert (found, samples.shape) == (rate, (count, channels))
    assert (encoded.samples, encoded.channels, encoded.bytes) == (
        count,
        channels,
        (tmp_path / "x.snac").stat().st_size,
    )
    assert (decoded.samples, decoded.sample_rate, decoded.levels) == (count, rate, 4)


def test_audio_is_that_of_the_model(tmp_path: Path, codec: Codec, tiny_model_folder: Path) -> None:
    """At the model's rate the file gives what the model alone gives."""
    samples = save(tmp_path / "in.wav", 2.3, codec.rate)
    encode_file(tmp_path / "in.wav", model=codec)
    back, rate = snaccli.read(tmp_path / "in.snac", model=codec)
    assert rate == codec.rate
    model = SNAC.from_pretrained(tiny_model_folder)
    with torch.no_grad():
        codes = model.encode(torch.from_numpy(samples.T)[None])
        audio = model.decode(codes)[0, 0, : len(samples)]
    np.testing.assert_allclose(back, audio.numpy(), atol=1e-5)


def test_codes_survive_the_file(tmp_path: Path, codec: Codec) -> None:
    samples = save(tmp_path / "in.wav", 1.7, codec.rate, channels=2)
    codes, count = codec.encode([samples[:1000], samples[1000:]], codec.rate, 2)
    encode_file(tmp_path / "in.wav", model=codec, channels="keep")
    layout, streams, damage = container.unpack((tmp_path / "in.snac").read_bytes())
    assert (layout.header.samples, layout.header.frames, damage) == (count, codes.frames, None)
    from snaccli import entropy

    header = layout.header
    again = entropy.decode(
        streams,
        strides=header.strides,
        channels=2,
        frames=header.frames,
        codebook_size=header.codebook_size,
        codebooks=codec.codebooks,
    )
    for level, same in zip(codes.levels, again.levels, strict=True):
        np.testing.assert_array_equal(level, same)


@pytest.mark.parametrize("rate", [16000, 44100, 22050])
def test_a_part_equals_the_same_part_of_the_whole(tmp_path: Path, codec: Codec, rate: int) -> None:
    save(tmp_path / "in.wav", 5, rate)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    whole = decode_samples(tmp_path, codec)
    for start, duration in ((0.0, 0.5), (1.234, 1.0), (3.9, None), (4.99, 1.0), (5.0, None)):
        part = decode_samples(tmp_path, codec, start=start, duration=duration)
        first = round(start * rate)
        count = len(whole) - first if duration is None else min(round(duration * rate), len(whole) - first)
        assert len(part) == count
        np.testing.assert_allclose(part, whole[first : first + count], atol=1e-4)


def decode_samples(folder: Path, codec: Codec, **options: object) -> np.ndarray:
    decode_file(folder / "x.snac", folder / "part.wav", model=codec, overwrite=True, **options)  # type: ignore[arg-type]
    return soundfile.read(folder / "part.wav", dtype="float32")[0]


def test_decoding_is_repeatable_and_the_seed_counts(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 1, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    first = decode_samples(tmp_path, codec)
    np.testing.assert_array_equal(first, decode_samples(tmp_path, codec))
    assert not np.array_equal(first, decode_samples(tmp_path, codec, seed=1))
    assert not np.array_equal(first, decode_samples(tmp_path, codec, noise=False))


def test_fewer_levels_and_the_models_rate(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 1, 44100)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    coarse = decode_file(tmp_path / "x.snac", tmp_path / "c.wav", model=codec, levels=1, rate="model")
    assert (coarse.levels, coarse.sample_rate, coarse.samples) == (1, 16000, 16000)
    with pytest.raises(UsageError, match="4 levels"):
        decode_file(tmp_path / "x.snac", tmp_path / "d.wav", model=codec, levels=5)


def test_an_empty_recording(tmp_path: Path, codec: Codec) -> None:
    soundfile.write(tmp_path / "in.wav", np.zeros((0, 1)), 44100)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=codec)
    samples, rate = soundfile.read(tmp_path / "out.wav")
    assert (len(samples), rate) == (0, 44100)


def test_an_output_that_cannot_be_is_refused_before_a_model_is_asked_for(
    tmp_path: Path, codec: Codec
) -> None:
    save(tmp_path / "in.wav", 0.2, 16000, channels=3)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec, channels="keep")
    for name, words in (("out.docx", "docx"), ("out.mp3", "at most 2 channels")):
        with pytest.raises(OutputError, match=words):
            decode_file(tmp_path / "x.snac", tmp_path / name, model="no-such-model")


def test_damage_is_refused_and_salvaged(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 3, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    data = (tmp_path / "x.snac").read_bytes()
    (tmp_path / "x.snac").write_bytes(data[:-3])
    with pytest.raises(ContainerError, match="level 4 of 4"):
        decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=codec)
    assert not (tmp_path / "out.wav").exists()
    result = decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=codec, salvage=True)
    assert result.levels == 3
    assert "3 of 4 levels" in result.note
    assert soundfile.info(tmp_path / "out.wav").frames == 48000


def test_other_weights_are_refused_unless_forced(
    tmp_path: Path, codec: Codec, tiny_model_folder: Path
) -> None:
    save(tmp_path / "in.wav", 0.5, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    other = SNAC.from_pretrained(tiny_model_folder)
    with torch.no_grad():
        other.decoder.model[0].bias += 0.1
    changed = Codec(other, "other")
    with pytest.raises(ModelMismatchError, match=r"fingerprint .* any_weights=True"):
        decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=changed)
    result = decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=changed, any_weights=True)
    assert "other weights" in result.note


def test_a_file_does_not_choose_what_is_loaded(tmp_path: Path, codec: Codec) -> None:
    """The tiny model's folder exists under the name in the file, and still is not taken unasked."""
    save(tmp_path / "in.wav", 0.2, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    with pytest.raises(ModelError, match="give model=, its name or its folder"):
        decode_file(tmp_path / "x.snac", tmp_path / "out.wav")


@pytest.mark.parametrize("samples", [1, 10**9, 2**47])
def test_a_claimed_length_must_fit_the_codes(tmp_path: Path, codec: Codec, samples: int) -> None:
    codes, _ = codec.encode([np.zeros((16000, 1), np.float32)], 16000, 1)
    from snaccli import entropy

    header = container.Header(
        codec.name,
        bytes.fromhex(codec.fingerprint),
        16000,
        16000,
        1,
        samples,
        codes.frames,
        codes.codebook_size,
        codes.strides,
    )
    data = container.pack(header, entropy.encode(codes, codec.codebooks))
    (tmp_path / "x.snac").write_bytes(data)
    with pytest.raises(ContainerError, match="do not belong together"):
        decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=codec)
    assert not (tmp_path / "out.wav").exists()


def test_codes_of_another_kind_of_model_are_refused(codec: Codec) -> None:
    codes = Codes((np.zeros((1, 2), np.uint16), np.zeros((1, 4), np.uint16)), (2, 1), 256)
    with pytest.raises(ModelMismatchError, match="strides"):
        next(codec.decode(codes))


def test_nothing_is_overwritten_or_left_half_written(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 0.2, 16000)
    (tmp_path / "in.snac").write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists"):
        encode_file(tmp_path / "in.wav", model=codec)
    assert (tmp_path / "in.snac").read_bytes() == b"precious"
    samples = np.zeros((1000, 1), np.float32)
    samples[500] = math.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        encode_file(tmp_path / "nan.wav", model=codec)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.snac", "in.wav", "nan.wav"]


def test_progress_goes_up_to_one(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 6, 16000)
    for work in (
        lambda report: encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec, progress=report),
        lambda report: decode_file(tmp_path / "x.snac", tmp_path / "out.wav", model=codec, progress=report),
    ):
        seen: list[float] = []
        work(seen.append)
        assert len(seen) > 3
        assert seen == sorted(seen)
        assert seen[-1] == 1.0


def test_read_and_write_like_soundfile(tmp_path: Path, codec: Codec) -> None:
    rng = np.random.default_rng(0)
    stereo = (0.1 * rng.standard_normal((5000, 2))).astype(np.float64)
    size = snaccli.write(tmp_path / "x.snac", stereo, 22050, model=codec)
    assert size == (tmp_path / "x.snac").stat().st_size
    samples, rate = snaccli.read(tmp_path / "x.snac", model=codec)
    assert (rate, samples.shape, samples.dtype) == (22050, (5000, 2), np.float32)
    snaccli.write(tmp_path / "x.snac", stereo[:, 0], 22050, model=codec)
    assert snaccli.read(tmp_path / "x.snac", model=codec)[0].shape == (5000,)
    for bad, words in (
        (np.zeros(10, np.int16), "floats"),
        (np.zeros((2, 3, 4)), "floats"),
        (np.full(10, np.inf), "NaN or infinite"),
        (np.zeros((10, 17)), "17 channels"),
    ):
        with pytest.raises(AudioError, match=words):
            snaccli.write(tmp_path / "y.snac", bad, 22050, model=codec)
    assert not (tmp_path / "y.snac").exists()


def test_a_device_that_is_not_there(tiny_model_folder: Path) -> None:
    for name in ("abacus", "abacus-half", "cpu-quarter"):
        with pytest.raises(UsageError, match=f"'{name}' is not available"):
            Codec.load(str(tiny_model_folder), device=name)


def test_half_precision_is_near_and_keeps_the_fingerprint(tmp_path: Path, tiny_model_folder: Path) -> None:
    save(tmp_path / "in.wav", 0.5, 16000)
    whole, half = (Codec.load(str(tiny_model_folder), device=device) for device in ("cpu", "cpu-half"))
    assert half.fingerprint == whole.fingerprint
    assert next(half.model.decoder.parameters()).dtype == torch.bfloat16
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=whole)
    (expected, _), (samples, _) = (snaccli.read(tmp_path / "x.snac", model=codec) for codec in (whole, half))
    assert 0 < np.linalg.norm(samples - expected) < 0.05 * np.linalg.norm(expected)
    encode_file(tmp_path / "in.wav", tmp_path / "y.snac", model=half)
    assert snaccli.read(tmp_path / "y.snac", model=whole)[0].shape == expected.shape


def test_standard_streams(tmp_path: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in.wav", 0.3, 16000)

    class Stream:
        def __init__(self, data: bytes = b"") -> None:
            self.buffer = io.BytesIO(data)

        def flush(self) -> None: ...

    monkeypatch.setattr("sys.stdin", Stream((tmp_path / "in.wav").read_bytes()))
    monkeypatch.setattr("sys.stdout", out := Stream())
    encode_file("-", model=codec)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    assert out.buffer.getvalue() == (tmp_path / "x.snac").read_bytes()


def test_encoding_holds_a_few_tiles_of_samples(codec: Codec) -> None:
    """A hundred blocks go in; those that are still held are counted at each."""
    alive = 0
    most = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def blocks() -> Iterator[np.ndarray]:
        nonlocal alive, most
        for _ in range(100):
            block = np.zeros((65536, 1), np.float32)
            weakref.finalize(block, gone)
            alive += 1
            most = max(most, alive)
            yield block
            del block

    _, count = codec.encode(blocks(), codec.rate, 1)
    assert count == 100 * 65536
    samples_at_once = tile_frames(codec.model) * codec.hop_length * codec.threads
    assert most <= 2 + 2 * -(-samples_at_once // 65536) < 50


def test_decoding_computes_a_few_tiles_ahead(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a hundred tiles, few more are computed than were taken, and none after the end."""
    made = 0

    def counted(*arguments: Any, **options: Any) -> Iterator[torch.Tensor]:
        nonlocal made
        for tile in decode_tiles(*arguments, frames=64, **options):
            made += 1
            yield tile

    monkeypatch.setattr("snaccli.codec.model.decode_tiles", counted)
    frames = 6400
    levels = tuple(np.zeros((1, frames // stride), np.uint16) for stride in codec.strides)
    blocks = codec.decode(Codes(levels, codec.strides, codec.codebook_size))
    taken = [next(blocks) for _ in range(3)]
    blocks.close()  # type: ignore[attr-defined]
    computed = made
    assert 3 <= computed < 50
    assert sum(map(len, taken)) < frames * codec.hop_length / 2


def test_torch_has_its_threads_back(codec: Codec) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        codes, _ = codec.encode([np.zeros((16000, 1), np.float32)], 16000, 1)
        list(codec.decode(codes))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_do_not_change_the_result(tiny_model_folder: Path) -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal((200_000, 2))).astype(np.float32)
    one, three = (Codec.load(str(tiny_model_folder), device="cpu", threads=threads) for threads in (1, 3))
    codes, other_codes = (codec.encode([samples], codec.rate, 2)[0] for codec in (one, three))
    for level, other in zip(codes.levels, other_codes.levels, strict=True):
        assert (level == other).mean() > 0.999
    audio, other_audio = (np.concatenate(list(codec.decode(codes))) for codec in (one, three))
    np.testing.assert_allclose(audio, other_audio, atol=1e-4)
