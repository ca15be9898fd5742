"""Segments of recordings, augmented and in batches, read ahead. Knows no torch."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from snaccli.errors import AudioError
from snaccli.training.config import AugmentationConfig
from snaccli.training.data.sources import Segment, Source, open_source
from snaccli.training.schedule import Schedule

SPEEDS = (0.8, 1.25)
_MIX_DB = (-20.0, 0.0)
_LEVEL_DB = (-20.0, -0.5)
_BAND_HZ = (3500.0, 11000.0)
_SILENCE_RMS = 1e-3
_TRIES = 4


@dataclass(frozen=True)
class Batch:
    """The segments of a step, or a part of them.

    Attributes:
        audio: float32 (items, 1, length) in -1 to 1.
        bandwidth_hz: of each, float32 (items,); the recordings hold nothing above it.
    """

    audio: np.ndarray
    bandwidth_hz: np.ndarray

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Batch:
        """Puts segments of one length together."""
        audio = np.stack([segment.samples for segment in segments])[:, None, :]
        return cls(audio, np.array([segment.bandwidth_hz for segment in segments], dtype=np.float32))


def draw_speed(rng: np.random.Generator, config: AugmentationConfig) -> float:
    """How much faster a segment is played, 0.8 to 1.25; pitch and formants move along."""
    return float(rng.uniform(*SPEEDS)) if rng.random() < config.speed else 1.0


def draw_mix(rng: np.random.Generator, config: AugmentationConfig) -> float | None:
    """The gain at which a second segment is added, or None."""
    return float(10 ** (rng.uniform(*_MIX_DB) / 20)) if rng.random() < config.mix else None


def at_speed(wave: np.ndarray, speed: float) -> np.ndarray:
    """``wave`` (n,) played ``speed`` times as fast, float32."""
    return wave if speed == 1.0 else np.asarray(soxr.resample(wave, speed, 1.0, quality="HQ"), np.float32)


def band_limited(
    wave: np.ndarray, rate: int, rng: np.random.Generator, config: AugmentationConfig
) -> np.ndarray:
    """At times without what lies above 3.5 to 11 kHz, as telephones and old recordings are."""
    if rng.random() >= config.band_limit:
        return wave
    limit = min(2 * float(rng.uniform(*_BAND_HZ)), float(rate))
    out = np.zeros_like(wave)
    narrow = soxr.resample(soxr.resample(wave, rate, limit, quality="HQ"), limit, rate, quality="HQ")
    out[: min(len(narrow), len(wave))] = narrow[: len(wave)]
    return out


def levelled(wave: np.ndarray, rng: np.random.Generator, config: AugmentationConfig) -> np.ndarray:
    """With another level and at times the other sign, float32 in -1 to 1."""
    peak = float(np.abs(wave).max(initial=0)) + 1e-6
    gain = 1.0
    if rng.random() < config.level:
        level = 10 ** (rng.uniform(*_LEVEL_DB) / 20)
        sign = 1.0 if rng.random() < 0.5 else -1.0
        # Between the recording's own level and a drawn one, so that most keep natural loudness.
        gain = sign * (level / peak) ** 0.5 * min(1.0, 1 / peak) ** 0.5
    return np.asarray(np.clip(wave * np.float32(min(gain, 0.98 / peak)), -1, 1), dtype=np.float32)


class SegmentSampler:
    """Augmented segments; item ``i`` of step ``n`` is always the same, whoever asks for it.

    So a run can be resumed, and divided among processes.

    Args:
        shares: sources, each with the share of segments drawn from it.
        rate: Hz.
        augmentation: what is done to them.
        seed: of the choices.
    """

    def __init__(
        self, shares: Mapping[str, float], rate: int, augmentation: AugmentationConfig, seed: int
    ) -> None:
        self.arguments = dict(shares), rate, augmentation, seed
        """What another process makes the same sampler of."""
        self.sources: list[Source] = [open_source(path, "train", rate) for path in shares]
        self.rate = rate
        self.augmentation = augmentation
        self.seed = seed
        weights = np.array(list(shares.values()), dtype=np.float64)
        self._shares = weights / weights.sum()

    @property
    def samples(self) -> int:
        """Of all sources together."""
        return sum(source.samples for source in self.sources)

    def item(self, step: int, item: int, length: int) -> Segment:
        """Segment ``item`` of batch number ``step``, augmented.

        Raises:
            AudioError: several recordings in a row cannot be read.
        """
        rng = np.random.default_rng((self.seed, step, item))
        first = self._audible(rng, length)
        wave, names, bandwidth = first.samples, first.names, first.bandwidth_hz
        gain = draw_mix(rng, self.augmentation)
        if gain is not None:
            other = self._audible(rng, length)
            wave = wave + other.samples * np.float32(gain)
            names, bandwidth = names + other.names, min(bandwidth, other.bandwidth_hz)
        wave = band_limited(wave, self.rate, rng, self.augmentation)
        return Segment(levelled(wave, rng, self.augmentation), names, bandwidth)

    def items(self, step: int, items: Sequence[tuple[int, int]]) -> list[Segment]:
        """Segments of batch number ``step``, by their numbers and lengths."""
        return [self.item(step, item, length) for item, length in items]

    def batch(self, step: int, length: int, count: int) -> Batch:
        """The first ``count`` segments of batch number ``step``."""
        return Batch.of([self.item(step, item, length) for item in range(count)])

    def _audible(self, rng: np.random.Generator, length: int) -> Segment:
        source = self.sources[int(rng.choice(len(self.sources), p=self._shares))]
        speed = draw_speed(rng, self.augmentation)
        found, failure = None, None
        for _ in range(_TRIES):
            try:
                found = source.segment(rng, int(np.ceil(length * speed)))
            except AudioError as error:  # a file that has gone is no reason to end a long run
                failure = error
                continue
            if np.sqrt(np.mean(found.samples**2)) > _SILENCE_RMS:
                break
        if found is None:
            assert failure is not None
            raise failure
        wave = at_speed(found.samples, speed)
        out = np.zeros(length, dtype=np.float32)
        out[: min(len(wave), length)] = wave[:length]
        return Segment(out, found.names, min(found.bandwidth_hz * speed, self.rate / 2))


class Loader:
    """The batches of a run, the next ones made by others while a step is under way.

    Args:
        sampler: where they come from.
        schedule: how long and how many the segments of a step are.
        workers: that make them; 0 makes each batch when it is asked for.
        index: of this process, from 0; it gets that part of each batch.
        count: of processes, each with an equal part.
        processes: whether the workers are processes: threads are handier, but take turns with the training
            itself, too seldom for a GPU.
    """

    def __init__(
        self,
        sampler: SegmentSampler,
        schedule: Schedule,
        workers: int,
        index: int,
        count: int,
        *,
        processes: bool = False,
    ) -> None:
        self.sampler = sampler
        self.schedule = schedule
        self._index, self._count = index, count
        self._pool: Executor | None = None
        self._make, self._at_once = sampler.items, 1
        if workers and processes:
            # Started anew, not forked: a fork of a process with threads may do little.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, context, _begin_worker, sampler.arguments)
            self._make, self._at_once = _items_of_worker, -(-schedule.at(0).batch // (count * workers))
        elif workers:
            self._pool = ThreadPoolExecutor(workers, "data")
        self._coming: dict[int, list[Future[list[Segment]]]] = {}

    def __call__(self, step: int) -> Batch:
        """This process's part of batch number ``step``."""
        if self._pool is None:
            return Batch.of(self.sampler.items(step, self._items(step)))
        coming = self._coming.pop(step, None) or self._begin(step)
        self._coming = {step + 1: self._coming.get(step + 1) or self._begin(step + 1)}
        return Batch.of([segment for future in coming for segment in future.result()])

    def names(self, step: int) -> list[str]:
        """The recordings in this process's part of batch number ``step``; they are read again for it."""
        return [name for segment in self.sampler.items(step, self._items(step)) for name in segment.names]

    def _items(self, step: int) -> list[tuple[int, int]]:
        """Numbers and lengths of the segments of this process's part."""
        part = self.schedule.at(step)
        share = part.batch // self._count
        return [(item, part.segment) for item in range(self._index * share, (self._index + 1) * share)]

    def _begin(self, step: int) -> list[Future[list[Segment]]]:
        assert self._pool is not None
        items = self._items(step)
        return [
            self._pool.submit(self._make, step, items[first : first + self._at_once])
            for first in range(0, len(items), self._at_once)
        ]

    def close(self) -> None:
        """Ends the workers."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


_samplers: list[SegmentSampler] = []
"""Of a process that makes segments for another: its own."""


def _begin_worker(*arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that trains
    _samplers.append(SegmentSampler(*arguments))


def _items_of_worker(step: int, items: Sequence[tuple[int, int]]) -> list[Segment]:
    return _samplers[0].items(step, items)
