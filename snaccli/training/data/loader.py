"""Segments of recordings, augmented and in batches, read ahead. Knows no torch.

Segments come from packed recordings, or from a folder with train/ and val/. A packed set is a flat int16 .npy
file, memory-mapped, with a JSON list beside it (same name, ending .json): a row a recording with ``name``,
``start`` and ``length`` in samples, and ``bandwidth_hz``.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soundfile
import soxr

from snaccli.errors import AudioError, Remedy
from snaccli.io.files import cause, shown
from snaccli.training.config import AugmentationConfig
from snaccli.training.data import MANIFEST, read_rows
from snaccli.training.data.manifest import DatasetError, parse_row
from snaccli.training.data.prepare import walk
from snaccli.training.schedule import Schedule


@dataclass(frozen=True)
class Segment:
    """A stretch of audio.

    Attributes:
        samples: float32 (n,) in -1 to 1.
        names: the recordings it was made of.
        bandwidth_hz: these hold nothing above it.
    """

    samples: np.ndarray
    names: tuple[str, ...]
    bandwidth_hz: float


class Source(Protocol):
    """Recordings that segments are drawn from.

    Attributes:
        samples: of all recordings together, at the rate of the model.
    """

    samples: int

    def segment(self, rng: np.random.Generator, length: int) -> Segment:
        """A random stretch of ``length`` samples, with zeros behind a short recording."""

    def spread(self, count: int, length: int) -> Iterable[Segment]:
        """``count`` stretches, the same at every call, from all over the recordings."""


def open_source(path: str, split: str, rate: int) -> Source:
    """The source of that name: a packed set by its ending .npy, else a folder's ``train`` or ``val``.

    Raises:
        AudioError, DatasetError: it cannot be read, or holds nothing.
    """
    return PackedAudio(path, rate) if path.endswith(".npy") else FolderAudio(path, split, rate)


class _Shares:
    """Draws indices in proportion to their shares, in logarithmic time."""

    def __init__(self, shares: np.ndarray) -> None:
        self._upto = np.cumsum(shares, dtype=np.float64)

    def __call__(self, rng: np.random.Generator) -> int:
        wanted = rng.random() * float(self._upto[-1])
        return min(int(np.searchsorted(self._upto, wanted, side="right")), len(self._upto) - 1)


def _band_shares(lengths: np.ndarray, bandwidth: np.ndarray, rate: int) -> np.ndarray:
    # A band-limited recording would teach the model that the bands above are always silent.
    return np.asarray(lengths * np.minimum(bandwidth / (rate / 2), 1.0) ** 2)


class PackedAudio:
    """One packed set.

    Raises:
        AudioError: a file is missing, or the rows do not fit the samples.
    """

    def __init__(self, path: str | Path, rate: int) -> None:
        path = Path(path)
        self._rate = rate
        try:
            self._audio = np.load(path, mmap_mode="r", allow_pickle=False)
            rows = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise AudioError(f"{path}: cannot be read as packed audio: {error}") from error
        self._names = [str(row.get("name", number)) for number, row in enumerate(rows)]
        self.starts = np.array([row["start"] for row in rows], dtype=np.int64)
        self.lengths = np.array([row["length"] for row in rows], dtype=np.int64)
        if self._audio.dtype != np.int16 or self._audio.ndim != 1 or not len(rows):
            raise AudioError(f"{path}: is not a flat int16 array with rows beside it")
        if (self.starts < 0).any() or (self.starts + self.lengths > len(self._audio)).any():
            raise AudioError(f"{path}: rows reach beyond the samples; pack it again")
        self._bandwidth = np.array([row.get("bandwidth_hz") or rate / 2 for row in rows], dtype=np.float64)
        self._draw = _Shares(_band_shares(self.lengths, self._bandwidth, rate))
        self.samples = int(self.lengths.sum())

    def segment(self, rng: np.random.Generator, length: int) -> Segment:
        """See :class:`Source`."""
        row = self._draw(rng)
        first, room = int(self.starts[row]), int(self.lengths[row]) - length
        start = first + (int(rng.integers(room + 1)) if room > 0 else 0)
        samples = self.stretch(start, min(length, int(self.lengths[row])), length)
        return Segment(samples, (self._names[row],), float(self._bandwidth[row]))

    def stretch(self, start: int, count: int, length: int) -> np.ndarray:
        """``count`` samples from ``start`` on, float32 in -1 to 1, followed by zeros up to ``length``."""
        out = np.zeros(length, dtype=np.float32)
        samples = self._audio[start : start + count]
        out[: len(samples)] = samples / np.float32(32768)
        return out

    def spread(self, count: int, length: int) -> Iterable[Segment]:
        """See :class:`Source`."""
        for start in np.linspace(0, max(0, len(self._audio) - length), count).astype(np.int64):
            within = np.flatnonzero((self.starts < start + length) & (self.starts + self.lengths > start))
            names = tuple(self._names[row] for row in within)
            bandwidth = float(self._bandwidth[within].min(initial=self._rate / 2))
            yield Segment(self.stretch(int(start), length, length), names, bandwidth)


class FolderAudio:
    """The recordings of one side of a folder, read where they are needed.

    With a manifest (``snac prepare``) some bytes a recording are held; without one its path, too.

    Args:
        folder: with train/ and val/.
        split: ``train`` or ``val``.
        rate: Hz that segments are given at.

    Raises:
        DatasetError: there is no such folder, or no recording in it.
    """

    def __init__(self, folder: str | Path, split: str, rate: int) -> None:
        self.folder, self.split, self.rate = Path(folder), split, rate
        self._paths: list[str] | None = None
        self._places, frames, self._bandwidth = self._indexed()
        if not len(frames):
            raise DatasetError(f"{shown(self.folder / split)} holds no recording", remedy=Remedy.PREPARE)
        self._draw = _Shares(_band_shares(frames, self._bandwidth, rate))
        self.samples = int(frames.sum())

    def _indexed(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Place of each recording in the manifest (or its number), length at the model's rate, bandwidth."""
        places, frames, bandwidth = array("q"), array("d"), array("d")
        manifest = self.folder / MANIFEST
        if manifest.is_file():
            for offset, row in read_rows(manifest):
                if row.split == self.split and row.file is not None:
                    places.append(offset)
                    frames.append(row.duration_s * self.rate)
                    bandwidth.append(row.bandwidth_hz or self.rate / 2)
        else:
            self._paths = []
            for found in walk([str(self.folder / self.split)], ""):
                try:
                    info = soundfile.info(found.path)
                except (RuntimeError, OSError):
                    continue  # what libsndfile cannot seek in is for snac prepare
                places.append(len(self._paths))
                self._paths.append(found.path)
                frames.append(info.frames / info.samplerate * self.rate)
                bandwidth.append(info.samplerate / 2)
        return np.array(places, np.int64), np.array(frames), np.array(bandwidth)

    def _path(self, index: int) -> str:
        place = int(self._places[index])
        if self._paths is not None:
            return self._paths[place]
        try:
            with open(self.folder / MANIFEST, "rb") as file:
                file.seek(place)
                return str(self.folder / str(parse_row(file.readline()).file))
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{shown(self.folder / MANIFEST)} has changed meanwhile: start again"
            ) from error

    def segment(self, rng: np.random.Generator, length: int) -> Segment:
        """See :class:`Source`.

        Raises:
            AudioError: the recording cannot be read.
        """
        return self._read(self._draw(rng), float(rng.random()), length)

    def spread(self, count: int, length: int) -> Iterable[Segment]:
        """See :class:`Source`."""
        for number in range(count):
            yield self._read(number * len(self._places) // count, (number * 0.618) % 1.0, length)

    def _read(self, index: int, where: float, length: int) -> Segment:
        path = self._path(index)
        samples = read_stretch(path, where, length, self.rate)
        return Segment(samples, (path,), float(self._bandwidth[index]))


def read_stretch(path: str, where: float, length: int, rate: int) -> np.ndarray:
    """``length`` samples at ``rate`` Hz of a recording, mono float32, with zeros behind a short one.

    Args:
        path: of a file that libsndfile reads.
        where: 0 for its beginning, 1 for its end.
        length: samples.
        rate: Hz.

    Raises:
        AudioError: it cannot be read.
    """
    try:
        with soundfile.SoundFile(path) as file:
            wanted = math.ceil(length * file.samplerate / rate)
            if wanted < file.frames:
                file.seek(int(where * (file.frames - wanted)))
            read = file.read(min(wanted, file.frames), dtype="float32", always_2d=True)
            own_rate = file.samplerate
    except OSError as error:
        raise AudioError(f"{shown(path)} cannot be read: {cause(error)}") from error
    except RuntimeError as error:
        raise AudioError(f"{shown(path)} cannot be read: {error}") from error
    wave = np.nan_to_num(read.mean(axis=1), nan=0.0, posinf=0.0, neginf=0.0)
    if own_rate != rate:
        wave = soxr.resample(wave, own_rate, rate, quality="HQ")
    out = np.zeros(length, dtype=np.float32)
    out[: min(len(wave), length)] = wave[:length]
    return out


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


def validation_segments(sources: Sequence[Source], length: int, count: int) -> Iterator[Segment]:
    """``count`` unaugmented segments of each source, from all over it."""
    for source in sources:
        yield from source.spread(count, length)
