"""The whole way: recordings to ``.snac`` files and back, with a tiny model of random weights."""

from __future__ import annotations

import builtins
import dataclasses
import io
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import snaccli
import snaccli.tokens
from snac import SNAC
from snaccli import container
from snaccli.codec import Codec, ModelPool, Recording, decode_file, dumps, encode_file, loads
from snaccli.codec.codec import Device
from snaccli.codes import Codes
from snaccli.errors import (
    AudioError,
    ContainerError,
    ModelError,
    ModelMismatchError,
    OutputError,
    SnacError,
    UnknownModelError,
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
    recording = codec.encode([samples[:1000], samples[1000:]], codec.rate, 2)
    codes, count = recording.codes, recording.samples
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
    other.save_pretrained(tmp_path / "other")
    changed = Codec.load(tmp_path / "other")
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
    codes = codec.encode([np.zeros((16000, 1), np.float32)], 16000, 1).codes
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
    recording = Recording(codes, codec.name, codec.fingerprint, codec.rate, codec.rate, 100)
    with pytest.raises(ModelMismatchError, match="strides"):
        next(codec.decode(recording))


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
    assert half.engine._backend._dtype == torch.bfloat16
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

    recording = codec.encode(blocks(), codec.rate, 1)
    assert recording.samples == 100 * 65536
    # The engine gathers some seconds before it computes, and keeps no block longer.
    samples_at_once = 4 * codec.rate
    assert most <= 3 + 2 * -(-samples_at_once // 65536) < 50


def test_decoding_computes_little_ahead(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long recording little more is computed than was taken, and nothing after the end."""
    made = 0
    decode = type(codec.engine).decode

    def counted(*arguments: Any, **options: Any) -> Iterator[np.ndarray]:
        nonlocal made
        for block in decode(*arguments, **options):
            made += block.shape[1]
            yield block

    monkeypatch.setattr(type(codec.engine), "decode", counted)
    frames = 256_000
    levels = tuple(np.zeros((1, frames // stride), np.uint16) for stride in codec.strides)
    codes = Codes(levels, codec.strides, codec.codebook_size)
    length = frames * codec.hop_length
    blocks = codec.decode(Recording(codes, codec.name, codec.fingerprint, codec.rate, codec.rate, length))
    taken = sum(len(next(blocks)) for _ in range(3))
    blocks.close()
    assert taken <= made < taken + 50 * 5 * codec.rate
    assert made < length / 2
    computed = made
    time.sleep(0.05)
    assert made == computed


def test_torch_has_its_threads_back(codec: Codec) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        list(codec.decode(codec.encode([np.zeros((16000, 1), np.float32)], 16000, 1)))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_threads_do_not_change_the_result(tiny_model_folder: Path) -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal((200_000, 2))).astype(np.float32)
    one, three = (Codec.load(str(tiny_model_folder), device="cpu", threads=threads) for threads in (1, 3))
    recording, again = (codec.encode([samples], codec.rate, 2) for codec in (one, three))
    for level, other in zip(recording.codes.levels, again.codes.levels, strict=True):
        assert (level == other).mean() > 0.999
    audio, other_audio = (np.concatenate(list(codec.decode(recording))) for codec in (one, three))
    np.testing.assert_allclose(audio, other_audio, atol=1e-4)


# Pipes


@pytest.fixture
def through_fifo(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Gives a named pipe from which the bytes of a file can be read, once."""
    writers: list[threading.Thread] = []

    def pipe_of(source: Path) -> Path:
        pipe = tmp_path / f"pipe-{len(writers)}"
        os.mkfifo(pipe)

        def write() -> None:
            with open(pipe, "wb") as file:
                file.write(source.read_bytes())

        writers.append(threading.Thread(target=write, daemon=True))
        writers[-1].start()
        return pipe

    yield pipe_of
    for writer in writers:
        writer.join(300)
        assert not writer.is_alive(), "the pipe was not read to its end"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_recordings_and_files_may_come_through_pipes(
    tmp_path: Path, codec: Codec, through_fifo: Callable[[Path], Path]
) -> None:
    save(tmp_path / "in.wav", 0.7, 22050, channels=2)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    result = encode_file(through_fifo(tmp_path / "in.wav"), tmp_path / "y.snac", model=codec)
    assert (tmp_path / "y.snac").read_bytes() == (tmp_path / "x.snac").read_bytes()
    assert (result.samples, result.note) == (15435, "stereo downmixed to mono")
    decode_file(tmp_path / "x.snac", tmp_path / "x.wav", model=codec)
    decode_file(through_fifo(tmp_path / "x.snac"), tmp_path / "y.wav", model=codec)
    assert (tmp_path / "y.wav").read_bytes() == (tmp_path / "x.wav").read_bytes()
    samples, rate = snaccli.read(through_fifo(tmp_path / "x.snac"), model=codec)
    assert rate == 22050
    np.testing.assert_array_equal(samples, snaccli.read(tmp_path / "x.snac", model=codec)[0])


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="no /dev/fd")
def test_a_descriptor_of_a_shell_is_read_once(tmp_path: Path, codec: Codec) -> None:
    """As ``<(...)`` gives one: a pipe under /dev/fd, which cannot be opened anew for its first bytes."""
    save(tmp_path / "in.wav", 0.5, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    for source, work in (
        ("in.wav", lambda path: encode_file(path, tmp_path / "y.snac", model=codec)),
        ("x.snac", lambda path: decode_file(path, tmp_path / "y.wav", model=codec)),
    ):
        with subprocess.Popen(["cat", tmp_path / source], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            work(f"/dev/fd/{process.stdout.fileno()}")
    assert (tmp_path / "y.snac").read_bytes() == (tmp_path / "x.snac").read_bytes()


def test_an_input_is_opened_once(tmp_path: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "in.wav", 0.5, 16000)
    opened: list[str] = []
    real = builtins.open

    def counted(file: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(str(file))
        return real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", counted)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    decode_file(tmp_path / "x.snac", tmp_path / "x.wav", model=codec)
    snaccli.read(tmp_path / "x.snac", model=codec)
    assert opened.count(str(tmp_path / "in.wav")) == 1
    assert opened.count(str(tmp_path / "x.snac")) == 2


def test_a_header_is_parsed_once_and_in_order(tmp_path: Path, codec: Codec) -> None:
    """From a stream that cannot seek, each byte is taken once."""
    save(tmp_path / "in.wav", 0.5, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    data = (tmp_path / "x.snac").read_bytes()

    class Stream(io.RawIOBase):
        taken = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            assert size >= 0, "a file's length is not for it to choose"
            part = data[self.taken : self.taken + min(size, 7)]
            self.taken += len(part)
            return part

    coded = loads(Stream(), path="a pipe")  # type: ignore[arg-type]
    assert (coded.header.samples, coded.damage, coded.path) == (8000, None, "a pipe")
    again = coded.decode(codec)
    assert dumps(again, codec.codebooks) == data


# Models


def test_any_weights_takes_no_model_of_another_shape(
    tmp_path: Path, codec: Codec, tiny_model_folder: Path
) -> None:
    """Neither fewer levels nor other codebooks are a defect of the program: one line says what differs."""
    save(tmp_path / "in.wav", 0.5, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec)
    for name, changes in (
        ("levels", {"vq_strides": (8, 4, 2)}),
        ("strides", {"vq_strides": (8, 4, 4, 1)}),
        ("codewords", {"codebook_size": 64}),
        ("more codewords", {"codebook_size": 512}),
    ):
        config = dataclasses.replace(codec.config, **changes)
        SNAC.from_model_config(config).save_pretrained(tmp_path / name)
        with pytest.raises(ModelMismatchError, match=r"codewords a level, the model") as error:
            decode_file(tmp_path / "x.snac", tmp_path / "y.wav", model=tmp_path / name, any_weights=True)
        assert str(error.value).startswith(str(tmp_path / "x.snac"))
    assert not (tmp_path / "y.wav").exists()


def test_a_pool_loads_each_model_once_and_keeps_errors(
    tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    real = Codec.load

    def counted(model: str, **options: Any) -> Codec:
        loaded.append(model)
        return real(model, **options)

    monkeypatch.setattr(Codec, "load", counted)
    pool = ModelPool(device="cpu", threads=1)
    with ThreadPoolExecutor(4) as threads:
        codecs = list(threads.map(pool.get, [tiny_model_folder] * 8))
    assert all(codec is codecs[0] for codec in codecs)
    assert pool.get(codecs[0]) is codecs[0]
    for _ in range(2):
        with pytest.raises(ModelError):
            pool.get("no-such-model-here")
    assert loaded == [str(tiny_model_folder), "no-such-model-here"]
    assert pool.loaded == [codecs[0]]


def test_only_a_user_names_what_is_loaded(
    tiny_model_folder: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file's word counts for the known models, and for weights that are loaded already."""
    monkeypatch.setattr(Codec, "load", lambda name, **options: (name, codec)[1])
    pool = ModelPool()
    for name in (str(tiny_model_folder), "somebody/model", "mini ", "Mini", None):
        with pytest.raises(UnknownModelError) as error:
            pool.for_file(name, codec.fingerprint)
        assert error.value.model == name
        assert "-m" not in str(error.value)
    assert pool.for_file("mini") is codec
    assert pool.for_file("somebody/model", codec.fingerprint) is codec
    with pytest.raises(UnknownModelError):
        pool.for_file("somebody/model", "0" * 16)
    assert ModelPool(codec).for_file("somebody/model") is codec
    assert ModelPool().for_file("somebody/model", given=codec) is codec


def test_pools_and_codecs_are_taken_everywhere(tmp_path: Path, codec: Codec) -> None:
    samples = save(tmp_path / "in.wav", 0.3, 16000)
    pool = ModelPool(codec)
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=pool)
    decode_file(tmp_path / "x.snac", tmp_path / "x.wav", model=pool)
    assert snaccli.write(tmp_path / "y.snac", samples, 16000, model=pool) > 0
    assert (tmp_path / "y.snac").read_bytes() == (tmp_path / "x.snac").read_bytes()
    assert snaccli.read(tmp_path / "y.snac", model=pool)[0].shape == (4800,)


# What a caller gets wrong


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros((2, 48000), np.float32), 16000, "48000 channels, not 1 to 16.*transpose"),
        (np.zeros((100, 0), np.float32), 16000, "0 channels"),
        (np.zeros((), np.float32), 16000, "give floats"),
        (np.zeros(100, np.int16), 16000, "int16"),
        (np.zeros(100, bool), 16000, "bool"),
        (np.zeros(100, np.complex64), 16000, "complex64"),
        ([[0.0, 1.0], [0.5]], 16000, "several lengths"),
        (["a"], 16000, "give floats"),
        (None, 16000, "give floats"),
        (np.zeros(100), 0, "whole number"),
        (np.zeros(100), 44100.5, "whole number"),
        (np.zeros(100), "16000", "whole number"),
        (np.zeros(100), 10**6, "whole number"),
        (np.full(100, np.nan), 16000, "NaN"),
        (np.full(100, 1e20), 16000, r"reach 1e\+20, far beyond full scale"),
        (np.full(100, -1e40), 16000, "infinite"),
        (torch.zeros(9, requires_grad=True), 16000, "no array"),
        (torch.zeros(9, dtype=torch.bfloat16), 16000, "no array"),
    ],
)
def test_wrong_samples_are_refused_in_one_line(
    tmp_path: Path, codec: Codec, samples: Any, rate: Any, words: str
) -> None:
    with pytest.raises(AudioError, match=words) as error:
        snaccli.write(tmp_path / "x.snac", samples, rate, model=codec)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "x.snac").exists()


@pytest.mark.parametrize("block", [np.zeros(10), np.zeros((10, 2)), np.zeros((10, 1), np.int16)])
def test_wrong_blocks_are_refused_in_one_line(codec: Codec, block: np.ndarray) -> None:
    with pytest.raises(AudioError, match=r"give floats \(n, 1\)"):
        codec.encode([block], 16000, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"blocks": [torch.zeros(10, 1)]}, "is a Tensor"),
        ({"blocks": [np.full((10, 1), np.inf)]}, "infinite"),
        ({"rate": 0}, "rate of 0 Hz"),
        ({"rate": 24000.5}, "rate of 24000.5 Hz"),
        ({"rate": True}, "rate of True Hz"),
        ({"channels": 0}, "channels=0: give a whole number from 1 to 16"),
        ({"rate_distortion": "1"}, "rate_distortion='1': give 0 or more"),
        ({"rate_distortion": math.nan}, "rate_distortion=nan: give 0 or more"),
    ],
)
def test_what_cannot_be_encoded_is_told_in_one_line(codec: Codec, values: Any, words: str) -> None:
    with pytest.raises(SnacError, match=words):
        codec.encode(**{"blocks": [np.zeros((10, 1))], "rate": 16000, "channels": 1} | values)


@pytest.mark.parametrize(
    ("signal", "rate", "words"),
    [
        (np.zeros((9, 1)), -5, "rate of -5 Hz"),
        (np.full((9, 1), np.nan), 16000, "NaN"),
        (np.zeros(24000), 16000, r"float64 \(24000,\); give floats \(n, 1\)"),
        (np.zeros((9, 17)), 16000, "signal 1 has 17 channels"),
        ([0.0], 16000, "a list"),
    ],
)
def test_signals_that_cannot_be_encoded_together(codec: Codec, signal: Any, rate: Any, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        codec.encode_many([(np.zeros((9, 1)), 16000), (signal, rate)])


@pytest.mark.parametrize(
    ("call", "values", "words"),
    [
        (encode_file, {"channels": "stereo"}, "channels='stereo': choose 'mono' or 'keep'"),
        (encode_file, {"channels": 2}, "channels=2: choose"),
        (encode_file, {"rate_distortion": None}, "rate_distortion=None"),
        (encode_file, {"source": None}, "source=a NoneType: give a path"),
        (encode_file, {"output": io.BytesIO()}, "output=a BytesIO: give a path"),
        (decode_file, {"rate": 16000}, "rate=16000: choose 'original' or 'model'"),
        (decode_file, {"seed": 1.5}, "seed=1.5: give a whole number"),
        (decode_file, {"start": 10**400}, "start=1"),
        (decode_file, {"start": True}, "start=True: give 0 or more seconds"),
        (decode_file, {"start": "0"}, "start='0': give 0 or more seconds"),
        (decode_file, {"duration": "1"}, "duration='1': give 0 or more seconds"),
        (decode_file, {"levels": 1.5}, "levels=1.5: the file has . levels; choose 1 to ."),
        (decode_file, {"levels": "2"}, "levels='2': the file has . levels"),
        (decode_file, {"audio_format": 5}, "audio_format=5: give an extension"),
        (decode_file, {"model": "x", "threads": "2"}, "threads='2': give a whole number"),
        (decode_file, {"model": "x", "threads": -1}, "threads=-1"),
        (decode_file, {"model": "x", "device": None}, "device 'None' is not available"),
        (decode_file, {"model": "x", "prior": 5}, "prior=a int: give a path"),
    ],
)
def test_arguments_that_cannot_be_are_told_in_one_line(
    tmp_path: Path, codec: Codec, call: Any, values: dict[str, Any], words: str
) -> None:
    save(tmp_path / "in.wav", 0.1, 16000)
    encode_file(tmp_path / "in.wav", tmp_path / "in.snac", model=codec)
    source = tmp_path / ("in.wav" if call is encode_file else "in.snac")
    given = {"source": source, "output": tmp_path / "out.wav", "model": codec} | values
    with pytest.raises(SnacError, match=words) as error:
        call(**given)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.wav").exists()


def test_whoever_reads_audio_refuses_unknown_channels(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 0.1, 16000, channels=2)
    with pytest.raises(UsageError, match="channels='stereo': choose 'mono' or 'keep'"):
        snaccli.tokens.export_file(tmp_path / "in.wav", model=codec, channels="stereo")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["in.wav"]


def test_a_rate_that_is_none_is_not_decoded_to(codec: Codec) -> None:
    recording = codec.encode([np.zeros((10, 1))], 16000, 1)
    for rate in (0, -1, "a"):
        with pytest.raises(UsageError, match="rate="):
            codec.decode(recording, rate=rate)  # type: ignore[arg-type]


def test_paths_may_be_bytes(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 0.1, 16000)
    source, output = (os.fsencode(tmp_path / name) for name in ("in.wav", "in.snac"))
    encode_file(source, output, model=codec)  # type: ignore[arg-type]
    assert len(snaccli.read(output, model=codec)[0]) == 1600  # type: ignore[arg-type]


def test_recordings_are_compared_by_what_they_hold(codec: Codec) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, (4000, 1))
    one, same, other = (codec.encode([each], 16000, 1) for each in (samples, samples, -samples))
    assert one == same
    assert one != other
    assert len({one, same, other}) == 2
    with pytest.raises(ValueError, match="read-only"):
        one.codes.levels[0][:] = 0


def test_no_samples_at_all(tmp_path: Path, codec: Codec) -> None:
    for shape in ((0,), (0, 2)):
        snaccli.write(tmp_path / "x.snac", np.zeros(shape, np.float32), 8000, model=codec)
        samples, rate = snaccli.read(tmp_path / "x.snac", model=codec)
        assert (samples.shape, rate) == (shape, 8000)


def test_the_length_is_told_once_it_is_known(tmp_path: Path, codec: Codec) -> None:
    save(tmp_path / "in.wav", 1.5, 16000)

    class Told:
        def __init__(self) -> None:
            self.seconds: list[float | None] = []
            self.fractions: list[float] = []

        def started(self, seconds: float | None) -> None:
            assert not self.fractions
            self.seconds.append(seconds)

        def __call__(self, fraction: float) -> None:
            self.fractions.append(fraction)

    encoding, decoding = Told(), Told()
    encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec, progress=encoding)
    decode_file(
        tmp_path / "x.snac", tmp_path / "x.wav", model=codec, start=0.5, duration=0.75, progress=decoding
    )
    assert (encoding.seconds, decoding.seconds) == ([1.5], [0.75])
    for told in (encoding, decoding):
        assert told.fractions == sorted(told.fractions)
        assert told.fractions[-1] == 1.0


def test_a_cpu_is_chosen_without_asking_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaccli.codec.codec._CUDA_FILES", ())
    monkeypatch.setattr("snaccli.codec.codec._MAY_HAVE_MPS", False)
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    assert Device.parse("auto") == Device("cpu")
    assert str(Device.parse("cpu-half")) == "cpu-half"
    with pytest.raises(UsageError, match="'cuda' is not available"):
        Device.parse("cuda")


def test_what_a_user_should_know_of_a_recording_is_noted(tmp_path: Path, codec: Codec) -> None:
    samples = np.full((8000, 2), 0.1, np.float32)
    samples[100] = 300
    soundfile.write(tmp_path / "loud.wav", samples, 16000, subtype="FLOAT")
    result = encode_file(tmp_path / "loud.wav", tmp_path / "x.snac", model=codec)
    assert result.note.startswith("stereo downmixed to mono; its peak is 300 times full scale")
    data = bytearray((tmp_path / "loud.wav").read_bytes())
    place = data.index(b"data")
    data[4:8] = data[place + 4 : place + 8] = bytes(4)
    (tmp_path / "unfinished.wav").write_bytes(data)
    result = encode_file(tmp_path / "unfinished.wav", tmp_path / "y.snac", model=codec)
    assert "the header says that it is empty" in result.note
    assert (tmp_path / "y.snac").read_bytes() == (tmp_path / "x.snac").read_bytes()
