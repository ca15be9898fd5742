"""Batches of augmented segments, read ahead. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from snaccli.errors import AudioError
from snaccli.training.augmentation import at_speed, band_limited, draw_mix, draw_speed, levelled
from snaccli.training.config import AugmentationConfig
from snaccli.training.data.sources import Source, open_source
from snaccli.training.schedule import Schedule

_SILENCE_RMS = 1e-3
_TRIES = 4

Item = tuple[np.ndarray, list[str]]


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

    def item(self, step: int, item: int, length: int) -> Item:
        """Segment ``item`` of batch number ``step``: float32 (length,), and the names it was made of.

        Raises:
            AudioError: several recordings in a row cannot be read.
        """
        rng = np.random.default_rng((self.seed, step, item))
        wave, name = self._audible(rng, length)
        names = [name]
        gain = draw_mix(rng, self.augmentation)
        if gain is not None:
            other, name = self._audible(rng, length)
            wave = wave + other * np.float32(gain)
            names.append(name)
        wave = band_limited(wave, self.rate, rng, self.augmentation)
        return levelled(wave, rng, self.augmentation), names

    def batch(self, step: int, length: int, count: int) -> np.ndarray:
        """The first ``count`` segments of batch number ``step``: float32 (count, 1, length)."""
        return np.stack([self.item(step, item, length)[0] for item in range(count)])[:, None, :]

    def _audible(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, str]:
        source = self.sources[int(rng.choice(len(self.sources), p=self._shares))]
        speed = draw_speed(rng, self.augmentation)
        wave, name, failure = np.zeros(length, dtype=np.float32), "", None
        for _ in range(_TRIES):
            try:
                wave, name = source.segment(rng, int(np.ceil(length * speed)))
            except AudioError as error:  # a file that has gone is no reason to end a long run
                failure = error
                continue
            if np.sqrt(np.mean(wave**2)) > _SILENCE_RMS:
                break
        if not name and failure is not None:
            raise failure
        wave = at_speed(wave, speed)
        out = np.zeros(length, dtype=np.float32)
        out[: min(len(wave), length)] = wave[:length]
        return out, name


class Loader:
    """The batches of a run, the next ones made by threads while a step is under way.

    Args:
        sampler: where they come from.
        schedule: how long and how many the segments of a step are.
        workers: threads; 0 makes each batch when it is asked for.
        index: of this process, from 0; it gets that part of each batch.
        count: of processes, each with an equal part.
    """

    def __init__(
        self, sampler: SegmentSampler, schedule: Schedule, workers: int, index: int, count: int
    ) -> None:
        self.sampler = sampler
        self.schedule = schedule
        self._index, self._count = index, count
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="data") if workers else None
        self._coming: dict[int, list[Future[Item]]] = {}

    def __call__(self, step: int) -> np.ndarray:
        """This process's part of batch number ``step``: float32 (items, 1, segment)."""
        if self._pool is None:
            items = [self.sampler.item(step, item, length) for item, length in self._items(step)]
        else:
            coming = self._coming.pop(step, None) or self._begin(step)
            self._coming = {step + 1: self._coming.get(step + 1) or self._begin(step + 1)}
            items = [future.result() for future in coming]
        return np.stack([wave for wave, _ in items])[:, None, :]

    def names(self, step: int) -> list[str]:
        """The recordings in this process's part of batch number ``step``; they are read again for it."""
        return [
            name for item, length in self._items(step) for name in self.sampler.item(step, item, length)[1]
        ]

    def _items(self, step: int) -> list[tuple[int, int]]:
        part = self.schedule.at(step)
        share = part.batch // self._count
        return [(item, part.segment) for item in range(self._index * share, (self._index + 1) * share)]

    def _begin(self, step: int) -> list[Future[Item]]:
        assert self._pool is not None
        return [
            self._pool.submit(self.sampler.item, step, item, length) for item, length in self._items(step)
        ]

    def close(self) -> None:
        """Ends the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def validation_segments(sources: Sequence[Source], length: int, count: int) -> Iterator[np.ndarray]:
    """``count`` unaugmented segments of each source, from all over it, each float32 (length,)."""
    for source in sources:
        yield from source.spread(count, length)
