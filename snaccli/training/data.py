"""Random segments from packed recordings. Knows no torch.

A packed set is a flat int16 .npy file, memory-mapped, with a JSON list beside it (same name, ending .json):
a row a recording with ``name``, ``start`` and ``length`` in samples, and ``bandwidth_hz``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soxr

from ..errors import AudioError

_SILENCE_RMS = 1e-3
_SPEEDS = (0.8, 1.25)


class PackedAudio:
    """One packed set.

    Raises:
        AudioError: a file is missing, or the rows do not fit the samples.
    """

    def __init__(self, path: str | Path, rate: int) -> None:
        path = Path(path)
        try:
            self.samples = np.load(path, mmap_mode="r", allow_pickle=False)
            rows = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AudioError(f"{path}: cannot be read as packed audio: {error}") from error
        self.starts = np.array([row["start"] for row in rows], dtype=np.int64)
        self.lengths = np.array([row["length"] for row in rows], dtype=np.int64)
        if self.samples.dtype != np.int16 or self.samples.ndim != 1 or not len(rows):
            raise AudioError(f"{path}: is not a flat int16 array with rows beside it")
        if (self.starts < 0).any() or (self.starts + self.lengths > len(self.samples)).any():
            raise AudioError(f"{path}: rows reach beyond the samples; pack it again")
        # A band-limited recording would teach the model that the bands above are always silent.
        bandwidth = np.array([row.get("bandwidth_hz") or rate / 2 for row in rows], dtype=np.float64)
        shares = self.lengths * np.minimum(bandwidth / (rate / 2), 1.0) ** 2
        self.shares = shares / shares.sum()

    def segment(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """A random stretch of ``length`` samples, float32 in -1 to 1; short rows get zeros behind."""
        row = int(rng.choice(len(self.shares), p=self.shares))
        first, room = int(self.starts[row]), int(self.lengths[row]) - length
        start = first + (int(rng.integers(room + 1)) if room > 0 else 0)
        return self.stretch(start, min(length, int(self.lengths[row])), length)

    def stretch(self, start: int, count: int, length: int) -> np.ndarray:
        """``count`` samples from ``start`` on, float32 in -1 to 1, followed by zeros up to ``length``."""
        out = np.zeros(length, dtype=np.float32)
        samples = self.samples[start : start + count]
        out[: len(samples)] = samples / np.float32(32768)
        return out


class SegmentSampler:
    """Batches of augmented segments; batch ``n`` of a seed is always the same, so a run can be resumed.

    Args:
        shares: packed sets, each with the share of segments drawn from it.
        rate: Hz.
        segment: samples.
        batch: segments.
        seed: of the choices.
    """

    def __init__(self, shares: Mapping[str, float], rate: int, segment: int, batch: int, seed: int) -> None:
        self.sets = [PackedAudio(path, rate) for path in shares]
        weights = np.array(list(shares.values()), dtype=np.float64)
        self.shares = weights / weights.sum()
        self.segment = segment
        self.batch = batch
        self.seed = seed

    def __call__(self, step: int) -> np.ndarray:
        """Batch number ``step``: float32 (batch, 1, segment)."""
        rng = np.random.default_rng((self.seed, step))
        return np.stack([self._augmented(rng) for _ in range(self.batch)])[:, None, :]

    def _augmented(self, rng: np.random.Generator) -> np.ndarray:
        """A segment with another speed (pitch and formants move along), level and at times a second voice."""
        wave = self._audible(rng)
        if rng.random() < 0.15:
            other = self._audible(rng)
            wave = wave + other * np.float32(10 ** (rng.uniform(-20, 0) / 20))
        peak = float(np.abs(wave).max()) + 1e-6
        level = 10 ** (rng.uniform(-20, -0.5) / 20)
        sign = 1.0 if rng.random() < 0.5 else -1.0
        # Between the recording's own level and a drawn one, so that most keep natural loudness.
        gain = sign * (level / peak) ** 0.5 * min(1.0, 1 / peak) ** 0.5
        return np.asarray(np.clip(wave * np.float32(min(gain, 0.98 / peak)), -1, 1), dtype=np.float32)

    def _audible(self, rng: np.random.Generator) -> np.ndarray:
        source = self.sets[int(rng.choice(len(self.sets), p=self.shares))]
        speed = rng.uniform(*_SPEEDS) if rng.random() < 0.4 else 1.0
        wave = np.zeros(self.segment, dtype=np.float32)
        for _ in range(4):
            wave = source.segment(rng, int(np.ceil(self.segment * speed)))
            if np.sqrt(np.mean(wave**2)) > _SILENCE_RMS:
                break
        if speed != 1.0:
            wave = soxr.resample(wave, speed, 1.0, quality="HQ")
        out = np.zeros(self.segment, dtype=np.float32)
        out[: min(len(wave), self.segment)] = wave[: self.segment]
        return out


def validation_segments(
    paths: Sequence[str], rate: int, segment: int, count: int = 24
) -> Iterator[np.ndarray]:
    """Evenly spread, unaugmented segments of each packed set, each float32 (1, 1, segment)."""
    for path in paths:
        packed = PackedAudio(path, rate)
        for start in np.linspace(0, max(0, len(packed.samples) - segment), count).astype(np.int64):
            yield packed.stretch(int(start), segment, segment)[None, None]
