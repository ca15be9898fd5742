"""What ``snac stream`` does: tokens to sound, and sound to tokens, each as soon as it is final."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from snaccli.audio import as_16_bits, downmix, resample, wav_header
from snaccli.errors import AudioError
from snaccli.io.files import OutputFile
from snaccli.tokens import Form, flatten
from snaccli.tokens.stream import Frames, IdReader

if TYPE_CHECKING:
    from snaccli.codec import Codec

__all__ = ["Sound", "Tokens", "chunks", "listen", "speak"]

_READ = 1 << 16
_FRAMES = 32  # decoded at once at most: audio flows even from a file


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yields what is there, as soon as it is there."""
    while data := file.read1(_READ):  # type: ignore[attr-defined]
        yield data


class _Clock:
    """How a stream keeps time: from its first input on."""

    def __init__(self) -> None:
        self._computing = self._gap = self._began = self._first = self._last = 0.0

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """The time of this block is that of the model."""
        started = time.perf_counter()
        self._began = self._began or started
        yield
        self._computing += time.perf_counter() - started

    def out(self) -> None:
        """Some output has gone out."""
        now = time.perf_counter()
        if self._first:
            self._gap = max(self._gap, now - self._last)
        self._first = self._first or now
        self._last = now

    def facts(self, seconds: float, latency: float) -> dict[str, float]:
        """What is told of a stream of so many seconds of audio."""
        return {
            "duration_s": seconds,
            "latency_s": latency,
            "first_output_s": self._first - self._began if self._first else 0.0,
            "longest_gap_s": self._gap,
            "x_realtime": seconds / self._computing if self._computing else 0.0,
        }


def speak(
    parts: Iterable[bytes],
    reader: IdReader,
    frames: Frames,
    codec: Codec,
    sound: Sound,
    note: Callable[[str], None],
) -> dict[str, float]:
    """Decodes and writes what is final, part by part; at an error, first all that came before it.

    Args:
        parts: the bytes of the tokens, as they come.
        reader: finds the ids in them.
        frames: puts ids together.
        codec: decodes.
        sound: where samples go.
        note: is told what was left out at the end.

    Returns what is told of the stream.
    """
    decoder, clock = codec.engine.decoder_stream(), _Clock()
    # With attention the decoder takes whole windows, of so many frames, and ends with one.
    window = codec.config.frame_alignment // codec.strides[0]
    held: list[list[int]] = []

    def push(whole: list[list[int]] | None) -> None:
        with clock.computing():
            levels = None if whole is None else frames.levels(whole)
            block = decoder.push(levels, ended=levels is None)[0]
        if len(block):
            sound.write(block)
            clock.out()

    def decode(whole: list[list[int]]) -> None:
        held.extend(whole)
        count = len(held) // window * window
        if count:
            push(held[:count])
            del held[:count]

    try:
        for ids in itertools.chain(map(reader.push, parts), [reader.push(b"", ended=True)]):
            _in_parts(frames.push(ids), decode)
    finally:
        push(None)
        sound.finish()
        if held:
            note(f"the last attention window has {len(held)} of {window} frames and is left out")
    if frames.pending:
        note(f"the last frame has {frames.pending} of {frames.length} tokens and is left out")
    seconds = sound.samples / codec.rate
    facts = clock.facts(seconds, decoder.latency / codec.rate)
    return {"samples": sound.samples, "errors": frames.errors, **facts}


def _in_parts(frames: Iterable[list[int]], decode: Callable[[list[list[int]]], None]) -> None:
    """Decodes frames as they are made, many at once but not all; those before an error too."""
    whole: list[list[int]] = []
    try:
        for frame in frames:
            whole.append(frame)
            if len(whole) == _FRAMES:
                decode(whole)
                whole = []
    finally:
        if whole:
            decode(whole)


def listen(
    file: BinaryIO, pcm: str, channels: int, rate: int, codec: Codec, written: Tokens
) -> dict[str, float]:
    """Encodes and writes what is final, block by block.

    Args:
        file: samples without a header.
        pcm: their kind, ``s16le`` or ``f32le``.
        channels: of the samples, mixed down to one.
        rate: of the samples, Hz.
        codec: encodes.
        written: where tokens go.

    Returns what is told of the stream.
    """
    encoder, clock, samples = codec.engine.encoder_stream(), _Clock(), 0

    def encode(block: np.ndarray | None) -> None:
        with clock.computing():
            codes = encoder.push(block, ended=block is None)
        if codes[0].size:
            written.write(codes)
            clock.out()

    for block in resample(downmix(_samples(file, pcm, channels)), rate, codec.rate, 1):
        samples += len(block)
        encode(np.ascontiguousarray(block.T))
    if samples:
        encode(None)
    facts = clock.facts(samples / codec.rate, encoder.latency / codec.rate)
    return {"tokens": written.tokens, "samples": samples, **facts}


def _samples(file: BinaryIO, pcm: str, channels: int) -> Iterator[np.ndarray]:
    """Blocks of float32 (n, channels) as they come; a last frame that is not whole is left out."""
    kind = np.dtype("<f4" if pcm == "f32le" else "<i2")
    size, rest = kind.itemsize * channels, b""
    for chunk in chunks(file):
        data = rest + chunk
        whole = len(data) // size * size
        rest = data[whole:]
        block = np.frombuffer(data[:whole], kind).reshape(-1, channels).astype(np.float32)
        if not np.isfinite(block).all():
            raise AudioError("the input holds a sample that is not a finite number; check --pcm")
        if len(block):
            yield block if pcm == "f32le" else block / np.float32(32768)


class Tokens:
    """Codes on their way out: a frame a line of ids, or JSON lines, or text.

    Args:
        out: where they go.
        codec: whose they are.
        form: how frames become ids.
        syntax: ``text``, ``json``, or anything else for numbers.
        nested: JSON lines with a list for each level instead.

    Attributes:
        tokens: written so far.
    """

    def __init__(self, out: OutputFile, codec: Codec, form: Form, syntax: str, nested: bool) -> None:
        self._order = form.order(codec.strides, codec.codebook_size)
        self._out, self._syntax, self._nested = out, syntax, nested
        self.tokens = 0

    def write(self, codes: Sequence[np.ndarray]) -> None:
        """Writes codes (1, n) a level, of whole frames."""
        self.tokens += sum(level.size for level in codes)
        if self._nested:
            line = json.dumps({"codes": [level[0].tolist() for level in codes]})
        else:
            ids = flatten([level[0].astype(np.int64) for level in codes], self._order).tolist()
            line = " ".join(map(str, ids))
            if self._syntax == "json":
                line = json.dumps({"ids": ids})
            elif self._syntax == "text":
                line = "".join(f"<custom_token_{value}>" for value in ids)
        self._out.write(line.encode() + (b"" if self._syntax == "text" else b"\n"))
        self._out.flush()


class Sound:
    """Samples on their way out: none is kept back.

    Args:
        out: where they go.
        rate: in Hz.
        pcm: their kind without a header, ``s16le`` or ``f32le``; None for WAV of 16 bits.

    Attributes:
        samples: written so far.
    """

    def __init__(self, out: OutputFile, rate: int, pcm: str | None) -> None:
        self._out, self._rate, self._pcm = out, rate, pcm
        self.samples = 0
        if pcm is None:
            out.write(wav_header(rate, 1, None))
            out.flush()

    def write(self, block: np.ndarray) -> None:
        """Writes float samples (n,)."""
        if self._pcm == "f32le":
            data = block.astype("<f4").tobytes()
        else:
            data = as_16_bits(block).astype("<i2").tobytes()
        self._out.write(data)
        self._out.flush()
        self.samples += len(block)

    def finish(self) -> None:
        """Puts the length into the header, where that can still be reached."""
        if self._pcm is None and self._out.seekable:
            self._out.seek(0)
            self._out.write(wav_header(self._rate, 1, self.samples))
            self._out.seek(0, 2)
