"""What is measured: a model, or a codec beside it. Each codes a recording to a file, and that to audio."""

from __future__ import annotations

import math
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from snaccli import audio, container
from snaccli.bench.align import delay
from snaccli.bench.peers import Peer
from snaccli.progress import SILENT, Progress

if TYPE_CHECKING:
    from snaccli.codec import Codec

__all__ = ["Content", "Encoded", "ModelSubject", "PeerSubject", "Subject", "span"]

Block = npt.NDArray[np.float32]

_WARM_UP_SECONDS = 2
_ALIGNED_BY_SECONDS = 20  # from the first sound on: enough to find a delay
_FULL_SCALE = 32768.0


@dataclass(frozen=True)
class Encoded:
    """What encoding took and said: seconds of audio, seconds on the clock, a remark."""

    duration_s: float
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Content:
    """What of a coded file is used: bytes, rows of its levels, tokens, bits a token without coding."""

    bytes: int
    levels: tuple[dict[str, Any], ...] = ()
    tokens: int | None = None
    raw_bits: float = 0.0


class Subject(Protocol):
    """A codec under measurement.

    Attributes:
        name, kind, fingerprint, device, threads, tool: see ``BenchResult``.
        ending: of its files.
        depths: numbers of coarsest levels to decode each file from; None, all of them, comes first.
    """

    name: str
    kind: Literal["model", "peer"]
    fingerprint: str
    device: str
    threads: int
    tool: str
    ending: str
    depths: tuple[int | None, ...]

    def warm_up(self, folder: Path) -> None:
        """Do once what only first calls do."""

    def encode(self, path: Path, coded: Path, tell: Progress) -> Encoded:
        """Code a recording, downmixed to mono."""

    def decode(self, path: Path, coded: Path, decoded: Path, depth: int | None, tell: Progress) -> float:
        """Decode to a WAV file of the recording's rate, length and time; returns the seconds it took."""

    def content(self, coded: Path, depth: int | None) -> Content:
        """What decoding to `depth` uses of a file."""

    def excerpt(self, path: Path, coded: Path, decoded: Path, start: int, frames: int, rate: int) -> Block:
        """A part of the decoded audio, (n,), at the recording's `rate`; `decoded` may be written."""


class ModelSubject:
    """A SNAC model; each recording becomes a ``.snac`` file."""

    kind: Literal["model", "peer"] = "model"
    tool = ""
    ending = ".snac"

    def __init__(self, codec: Codec, *, by_levels: bool) -> None:
        self._codec = codec
        self.name = codec.name
        self.fingerprint = codec.fingerprint
        self.device = str(codec.device)
        self.threads = codec.threads
        self.depths: tuple[int | None, ...] = (None, *range(1, len(codec.strides))) if by_levels else (None,)

    def warm_up(self, folder: Path) -> None:
        """Code two seconds of quiet noise once: first calls allocate, compile and fill caches."""
        from snaccli.codec import decode_file, encode_file

        noise = np.random.default_rng(0).normal(0.0, 1000.0, self._codec.rate * _WARM_UP_SECONDS)
        names = "warm-up.wav", "warm-up.snac", "warm-up-decoded.wav"
        source, coded, decoded = (folder / name for name in names)
        with wave.open(str(source), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self._codec.rate)
            file.writeframes(noise.astype("<i2").tobytes())
        encode_file(source, coded, model=self._codec, overwrite=True)
        decode_file(coded, decoded, model=self._codec, overwrite=True)

    def encode(self, path: Path, coded: Path, tell: Progress) -> Encoded:
        """As `Subject`."""
        from snaccli.codec import encode_file

        began = time.perf_counter()
        encoding = encode_file(path, coded, model=self._codec, channels="mono", overwrite=True, progress=tell)
        return Encoded(encoding.duration_s, time.perf_counter() - began, encoding.note)

    def decode(self, path: Path, coded: Path, decoded: Path, depth: int | None, tell: Progress) -> float:
        """As `Subject`."""
        from snaccli.codec import decode_file

        began = time.perf_counter()
        decode_file(coded, decoded, model=self._codec, levels=depth, overwrite=True, progress=tell)
        return time.perf_counter() - began

    def content(self, coded: Path, depth: int | None) -> Content:
        """As `Subject`."""
        with coded.open("rb") as file:
            layout = container.read_header(file)
        every = container.describe(layout)["levels"]
        used = tuple(every[:depth])
        size = coded.stat().st_size - sum(level["bytes"] for level in every[len(used) :])
        bits = math.log2(layout.header.codebook_size)
        return Content(size, used, sum(level["tokens"] for level in used), bits)

    def excerpt(self, path: Path, coded: Path, decoded: Path, start: int, frames: int, rate: int) -> Block:
        """As `Subject`; decodes no more than is wanted."""
        from snaccli.codec import decode_file

        decode_file(
            coded, decoded, model=self._codec, overwrite=True, start=start / rate, duration=frames / rate
        )
        return span(decoded, 0, frames)


class PeerSubject:
    """Another codec; its decoded audio is brought to the recording's rate, length and time."""

    kind: Literal["model", "peer"] = "peer"
    fingerprint = ""
    device = "cpu"
    threads = 1
    depths: tuple[int | None, ...] = (None,)

    def __init__(self, peer: Peer, folder: Path) -> None:
        self._peer = peer
        self.name = peer.name
        self.tool = peer.version()
        self.ending = peer.kind.ending
        self._fed, self._back = folder / "fed.pcm", folder / "back.pcm"
        self._feed: tuple[Path, _Feed] | None = None

    def warm_up(self, folder: Path) -> None:
        """Nothing: every call starts the program anew."""

    def encode(self, path: Path, coded: Path, tell: Progress) -> Encoded:
        """As `Subject`; only the encoder itself is timed, not what brings the recording to its rate."""
        feed = self._feed_of(path)
        tell(0.3)
        began = time.perf_counter()
        self._peer.encode(feed.rate, self._fed, coded)
        seconds = time.perf_counter() - began
        tell(1.0)
        return Encoded(feed.frames / feed.source_rate, seconds, feed.note)

    def decode(self, path: Path, coded: Path, decoded: Path, depth: int | None, tell: Progress) -> float:
        """As `Subject`; only the decoder itself is timed."""
        feed = self._feed_of(path)
        began = time.perf_counter()
        self._peer.decode(feed.rate, coded, self._back)
        seconds = time.perf_counter() - began
        tell(0.6)
        late = _delay(self._fed, self._back, feed.rate)
        blocks = audio.resample(_pcm_blocks(self._back, late), feed.rate, feed.source_rate, 1)
        with audio.AudioWriter(decoded, feed.source_rate, 1, frames=feed.frames, overwrite=True) as writer:
            for block in audio.fit(blocks, feed.frames, 1):
                writer.write(block)
        tell(1.0)
        return seconds

    def content(self, coded: Path, depth: int | None) -> Content:
        """As `Subject`: of a foreign file only its size is known."""
        return Content(coded.stat().st_size)

    def excerpt(self, path: Path, coded: Path, decoded: Path, start: int, frames: int, rate: int) -> Block:
        """As `Subject`; decodes everything and cuts."""
        self.decode(path, coded, decoded, None, SILENT)
        return span(decoded, start, frames)

    def _feed_of(self, path: Path) -> _Feed:
        """The recording as mono PCM in a file, made anew only when it is another than before."""
        if self._feed is None or self._feed[0] != path:
            self._feed = None
            self._feed = path, self._make_feed(path)
        return self._feed[1]

    def _make_feed(self, path: Path) -> _Feed:
        frames = 0

        def counted(blocks: Iterator[Block]) -> Iterator[Block]:
            nonlocal frames
            for block in blocks:
                frames += len(block)
                yield block

        with audio.open_audio(path) as original, self._fed.open("wb") as file:
            rate = self._peer.kind.feed_rate(self._peer.setting, original.rate)
            mono = counted(audio.downmix(original.blocks()))
            for block in audio.resample(mono, original.rate, rate, 1):
                file.write(np.clip(np.rint(block * _FULL_SCALE), -32768, 32767).astype("<i2").tobytes())
            note = "" if original.channels == 1 else f"{original.channels} channels mixed down to mono"
            return _Feed(rate, original.rate, frames, note)


@dataclass(frozen=True)
class _Feed:
    rate: int
    source_rate: int
    frames: int  # at source_rate
    note: str


def span(path: Path, start: int, frames: int) -> Block:
    """Samples `start` to `start + frames` of a recording, downmixed: (n,), fewer where it ends before."""
    pieces, position = [], 0
    with audio.open_audio(path) as recording:
        for block in audio.downmix(recording.blocks()):
            first, last = start - position, start + frames - position
            pieces.append(block[max(0, first) : max(0, last), 0].copy())
            position += len(block)
            if position >= start + frames:
                break
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _delay(fed: Path, back: Path, rate: int) -> int:
    """By how many samples `back` is late, told from the first seconds that hold sound."""
    count = _ALIGNED_BY_SECONDS * rate
    start = 0
    for block in _pcm_blocks(fed, 0):
        if float(np.abs(block).max()) > 0.01:  # -40 dB: beyond noise and dither
            break
        start += len(block)
    return delay(_pcm(fed, start, count), _pcm(back, start, count), rate)


def _pcm(path: Path, start: int, count: int) -> Block:
    samples: Block = np.fromfile(path, "<i2", count, offset=2 * start).astype(np.float32)
    samples /= _FULL_SCALE
    return samples


def _pcm_blocks(path: Path, skip: int) -> Iterator[Block]:
    """All samples from `skip` on in blocks (n, 1); a negative `skip` puts zeros before them."""
    if skip < 0:
        yield np.zeros((-skip, 1), np.float32)
        skip = 0
    while len(block := _pcm(path, skip, audio.BLOCK_FRAMES)):
        yield block[:, None]
        skip += len(block)
