"""What is measured: a model, or a codec beside it. Each codes samples to a file, and that back to samples.

The samples lie in scratch files: written once, read in parts, as long as they like at no cost in memory.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from snaccli import audio, container
from snaccli.bench.peers import Peer, Samples, delay
from snaccli.progress import SILENT, Progress, part

if TYPE_CHECKING:
    from snaccli.codec import Codec, Recording

__all__ = ["Content", "ModelSubject", "PeerSubject", "Subject", "Track", "open_original"]

_WARM_UP_SECONDS = 2
_ALIGNED_BY_SECONDS = 20  # from the first sound on: enough to find a delay
_CODING_SHARE = 0.1  # of the work: entropy coding


# Samples in scratch files

_FULL_SCALE = 32768.0  # of 16 bits


@dataclass(frozen=True)
class Track:
    """Samples of one channel in a file of nothing else.

    Attributes:
        path: the file.
        rate: Hz.
        frames: number of samples.
        kind: how a sample is stored, as NumPy calls it: float32, or 16 bits as an ordinary WAV file has them.
        note: what was done to the samples, such as a downmix.
    """

    path: Path
    rate: int
    frames: int
    kind: Literal["<f4", "<i2"] = "<f4"
    note: str = ""

    @property
    def duration_s(self) -> float:
        """The length in seconds."""
        return self.frames / self.rate

    @classmethod
    def write(
        cls,
        path: Path,
        blocks: Iterable[Samples],
        rate: int,
        kind: Literal["<f4", "<i2"] = "<f4",
    ) -> Track:
        """Stores blocks (n, 1), full scale 1.0, in a file that may exist already; returns its track."""
        frames = 0
        with path.open("wb") as file:
            for block in blocks:
                frames += len(block)
                values = audio.as_16_bits(block) if kind == "<i2" else block
                file.write(values.astype(kind).tobytes())
        return cls(path, rate, frames, kind)

    def read(self, start: int, count: int) -> Samples:
        """Returns the samples from `start` on, (n,), n at most `count`: fewer at the end."""
        width = np.dtype(self.kind).itemsize
        left = max(0, min(count, self.frames - start))
        samples: Samples = np.fromfile(self.path, self.kind, left, offset=start * width).astype(np.float32)
        if self.kind == "<i2":
            samples /= _FULL_SCALE
        return samples

    def blocks(self, skip: int = 0) -> Iterator[Samples]:
        """Yields all samples from `skip` on in blocks (n, 1); a negative `skip` puts zeros before them."""
        if skip < 0:
            yield np.zeros((-skip, 1), np.float32)
            skip = 0
        while len(block := self.read(skip, audio.BLOCK_FRAMES)):
            yield block[:, None]
            skip += len(block)


def open_original(source: Path, scratch: Path) -> Track:
    """Reads a recording once, from its beginning to its end, mixed down to mono at its own rate.

    Args:
        source: the recording.
        scratch: file for its samples.

    Raises:
        AudioError: the recording cannot be read.
    """
    with audio.open_audio(source) as reader:
        blocks, _ = reader.mixed("mono")
        samples = Track.write(scratch, blocks, reader.rate)
        return replace(samples, note="; ".join(reader.notes))


# Codecs


@dataclass(frozen=True)
class Content:
    """What of a coded file is used.

    Attributes:
        bytes: number of bytes.
        levels: the coded streams as ``snac info --json`` lists them.
        tokens: number of tokens; None where a codec has none.
        raw_bits: bits a token without coding.
    """

    bytes: int
    levels: tuple[dict[str, Any], ...] = ()
    tokens: int | None = None
    raw_bits: float = 0.0


class Subject(Protocol):
    """A codec under measurement.

    Attributes:
        name, kind, fingerprint, device, threads, tool: see ``BenchResult``.
        depths: numbers of coarsest levels to decode each file from; None, for all of them, comes first.
    """

    name: str
    kind: Literal["model", "peer"]
    fingerprint: str
    device: str
    threads: int
    tool: str
    depths: tuple[int | None, ...]

    def warm_up(self, folder: Path) -> None:
        """Does once what only first calls do; `folder` is for scratch files."""

    def encode(self, original: Track, coded: Path, progress: Progress) -> float:
        """Codes a recording to a file, and returns the seconds that it took."""

    def decode(
        self, coded: Path, original: Track, decoded: Path, depth: int | None, progress: Progress
    ) -> tuple[Track, float]:
        """Decodes to a scratch file; returns samples of the original's rate, length and time, and seconds."""

    def content(self, coded: Path, depth: int | None) -> Content:
        """Returns what decoding to `depth` uses of a file."""

    def excerpt(self, coded: Path, original: Track, decoded: Path, start: int, frames: int) -> Samples:
        """Returns a part of the decoded audio, (n,), at the original's rate; `decoded` may be written."""


class ModelSubject:
    """A SNAC model; each recording becomes a ``.snac`` file.

    Args:
        codec: the model, loaded.
        by_levels: whether to decode from the coarsest 1, 2, … levels, too.
    """

    kind: Literal["model", "peer"] = "model"
    tool = ""

    def __init__(self, codec: Codec, *, by_levels: bool) -> None:
        self._codec = codec
        self.name = codec.name
        self.fingerprint = codec.fingerprint
        self.device = str(codec.device)
        self.threads = codec.threads
        levels = len(codec.strides)
        self.depths: tuple[int | None, ...] = (None, *range(1, levels)) if by_levels else (None,)

    def warm_up(self, folder: Path) -> None:
        """Codes two seconds of quiet noise once: first calls allocate, compile and fill caches."""
        rate = self._codec.rate
        noise = np.random.default_rng(0).normal(0.0, 0.03, (rate * _WARM_UP_SECONDS, 1))
        original = Track.write(folder / "original", [noise.astype(np.float32)], rate)
        self.encode(original, folder / "coded", SILENT)
        self.decode(folder / "coded", original, folder / "decoded", None, SILENT)

    def encode(self, original: Track, coded: Path, progress: Progress) -> float:
        """As `Subject`: from samples to the bytes of the file."""
        from snaccli.codec import dumps

        began = time.perf_counter()
        model_part, coding_part = (
            part(progress, 0.0, 1 - _CODING_SHARE),
            part(progress, 1 - _CODING_SHARE, 1.0),
        )
        recording = self._codec.encode(
            original.blocks(), original.rate, 1, expected=original.frames, progress=model_part
        )
        codec = self._codec
        coded.write_bytes(
            dumps(recording, codec.codebooks, prior=codec.prior, threads=codec.threads, progress=coding_part)
        )
        return time.perf_counter() - began

    def decode(
        self, coded: Path, original: Track, decoded: Path, depth: int | None, progress: Progress
    ) -> tuple[Track, float]:
        """As `Subject`: from the bytes of the file to samples of 16 bits."""
        began = time.perf_counter()
        recording = self._recording(coded, depth)
        track = Track.write(decoded, self._codec.decode(recording, progress=progress), original.rate, "<i2")
        return track, time.perf_counter() - began

    def content(self, coded: Path, depth: int | None) -> Content:
        """As `Subject`."""
        with coded.open("rb") as file:
            layout = container.read_header(file)
        every = container.describe(layout)["levels"]
        used = tuple(every[:depth])
        size = coded.stat().st_size - sum(level["bytes"] for level in every[len(used) :])
        bits = math.log2(layout.header.codebook_size)
        return Content(size, used, sum(level["tokens"] for level in used), bits)

    def excerpt(self, coded: Path, original: Track, decoded: Path, start: int, frames: int) -> Samples:
        """As `Subject`; decodes no more than is wanted."""
        from snaccli.codec import Span

        span = Span(start / original.rate, frames / original.rate)
        blocks = self._codec.decode(self._recording(coded, None), span=span)
        return np.concatenate([block[:, 0] for block in blocks])

    def _recording(self, coded: Path, depth: int | None) -> Recording:
        from snaccli.codec import loads

        with coded.open("rb") as file:
            return loads(file, path=coded).decode(self._codec, depth)


class PeerSubject:
    """Another codec; its decoded audio is brought to the recording's rate, length and time.

    Only the programs themselves are timed, not what brings the samples to their rate and back.

    Args:
        peer: the codec at its setting.
        folder: a place for scratch files.
    """

    kind: Literal["model", "peer"] = "peer"
    fingerprint = ""
    device = "cpu"
    threads = 1
    depths: tuple[int | None, ...] = (None,)

    def __init__(self, peer: Peer, folder: Path) -> None:
        self._peer = peer
        self._folder = folder
        self.name = peer.name
        self.tool = peer.version()

    def warm_up(self, folder: Path) -> None:
        """Does nothing: every call starts the program anew."""

    def encode(self, original: Track, coded: Path, progress: Progress) -> float:
        """As `Subject`."""
        fed = self._feed(original)
        progress(0.3)
        began = time.perf_counter()
        self._peer.encode(fed.rate, fed.path, coded)
        seconds = time.perf_counter() - began
        progress(1.0)
        return seconds

    def decode(
        self, coded: Path, original: Track, decoded: Path, depth: int | None, progress: Progress
    ) -> tuple[Track, float]:
        """As `Subject`."""
        fed = self._feed(original)
        path = self._folder / "back.pcm"
        began = time.perf_counter()
        self._peer.decode(fed.rate, coded, path)
        seconds = time.perf_counter() - began
        progress(0.6)
        back = Track(path, fed.rate, path.stat().st_size // 2, "<i2")
        blocks = audio.resample(back.blocks(_delay(fed, back)), fed.rate, original.rate, 1)
        track = Track.write(decoded, audio.fit(blocks, original.frames, 1), original.rate, "<i2")
        progress(1.0)
        return track, seconds

    def content(self, coded: Path, depth: int | None) -> Content:
        """As `Subject`: of a foreign file only its size is known."""
        return Content(coded.stat().st_size)

    def excerpt(self, coded: Path, original: Track, decoded: Path, start: int, frames: int) -> Samples:
        """As `Subject`; decodes everything and cuts."""
        track, _ = self.decode(coded, original, decoded, None, SILENT)
        return track.read(start, frames)

    def _feed(self, original: Track) -> Track:
        """Returns the recording as the program takes it: PCM of 16 bits at a rate that suits the codec."""
        rate = self._peer.kind.feed_rate(self._peer.setting, original.rate)
        blocks = audio.resample(original.blocks(), original.rate, rate, 1)
        return Track.write(self._folder / "fed.pcm", blocks, rate, "<i2")


def _delay(fed: Track, back: Track) -> int:
    """Returns by how many samples `back` is late, told from the first seconds that hold sound."""
    start = 0
    for block in fed.blocks():
        if float(np.abs(block).max()) > 0.01:  # -40 dB: beyond noise and dither
            break
        start += len(block)
    count = _ALIGNED_BY_SECONDS * fed.rate
    return delay(fed.read(start, count), back.read(start, count), fed.rate)
