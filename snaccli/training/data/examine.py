"""What a recording is worth for training: level, silence, clipping, and a hash of its samples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Examiner"]

_PIECE_SECONDS = 0.05
_SILENT_POWER = 1e-6  # -60 dB of full scale
_FULL_SCALE = 0.999
_FLOOR_DB = -120.0


@dataclass
class Examiner:
    """Measures a stream of blocks on their way through.

    Attributes:
        rate: Hz.
        frames: seen so far.
        peak: highest magnitude so far.
    """

    rate: int
    frames: int = 0
    peak: float = 0.0

    def __post_init__(self) -> None:
        self._squares = 0.0
        self._silent = 0
        self._flat = 0.0
        self._hash = hashlib.blake2b(digest_size=8)

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the blocks (n, channels), float32, as they are, and takes them into account."""
        for block in blocks:
            self._take(block)
            yield block

    def _take(self, block: np.ndarray) -> None:
        self.frames += len(block)
        magnitude = np.abs(block)
        self.peak = max(self.peak, float(magnitude.max()))
        mono = block.mean(axis=1, dtype=np.float32)
        power = np.square(mono, dtype=np.float64)
        self._squares += float(power.sum())
        piece = max(1, round(self.rate * _PIECE_SECONDS))
        for part in np.split(power, [len(power) // piece * piece]):
            pieces = part.reshape(-1, piece) if len(part) >= piece else part[None]
            if part.size:
                self._silent += int((pieces.mean(axis=1) < _SILENT_POWER).sum()) * pieces.shape[1]
        # A lone sample at full scale is a peak; three in a row are a flat top.
        full = magnitude >= _FULL_SCALE
        if full.any():
            self._flat += float((full[2:] & full[1:-1] & full[:-2]).mean(axis=1).sum())
        # In 16 bits, so that a recording and its lossless copies in other formats agree.
        self._hash.update(np.rint(np.clip(mono, -1, 1) * 32767).astype("<i2").tobytes())

    @property
    def digest(self) -> str:
        """16 hex digits of the mono samples."""
        return self._hash.hexdigest()

    @property
    def duration_s(self) -> float:
        """Seconds seen so far."""
        return self.frames / self.rate

    @property
    def peak_db(self) -> float:
        """Highest sample in dB of full scale, -120 at the least."""
        return _decibels(self.peak**2)

    @property
    def rms_db(self) -> float:
        """Root mean square of the mono mix in dB of full scale, -120 at the least."""
        return _decibels(self._squares / max(self.frames, 1))

    @property
    def silence(self) -> float:
        """Share of the time, in pieces of 50 ms, whose level is below -60 dB."""
        return self._silent / max(self.frames, 1)

    @property
    def clipped(self) -> float:
        """Share of the samples that have a neighbour to either side at full scale, like themselves."""
        return self._flat / max(self.frames, 1)


def _decibels(power: float) -> float:
    return max(10 * math.log10(power), _FLOOR_DB) if power > 0 else _FLOOR_DB
