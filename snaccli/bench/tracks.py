"""Mono samples in a scratch file: written once, read in parts, as long as they like at no cost in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from snaccli import audio

__all__ = ["Samples", "Track", "open_original"]

Samples = npt.NDArray[np.float32]

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
        note: str = "",
    ) -> Track:
        """Stores blocks (n, 1), full scale 1.0, in a file that may exist already; returns its track."""
        frames = 0
        with path.open("wb") as file:
            for block in blocks:
                frames += len(block)
                if kind == "<i2":
                    block = np.clip(np.rint(block * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1)
                file.write(block.astype(kind).tobytes())
        return cls(path, rate, frames, kind, note)

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
        samples = Track.write(scratch, audio.downmix(reader.blocks()), reader.rate)
        channels = "stereo" if reader.channels == 2 else f"{reader.channels} channels"
        notes = [] if reader.channels == 1 else [f"{channels} downmixed to mono"]
        return Track(scratch, samples.rate, samples.frames, note="; ".join([*notes, *reader.notes]))
