"""Recordings that segments are drawn from. Knows no torch.

Segments come from packed recordings, or from a folder with train/ and val/. A packed set is a flat int16 .npy
file, memory-mapped, with a JSON list beside it (same name, ending .json): a row a recording with ``name``,
``start`` and ``length`` in samples, and ``bandwidth_hz``.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile
import soxr

from snaccli.errors import AudioError, Remedy
from snaccli.io.files import cause, shown
from snaccli.training.data import MANIFEST, read_rows
from snaccli.training.data.manifest import DatasetError, parse_row
from snaccli.training.data.prepare import walk


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
        except (OSError, ValueError, RecursionError) as error:
            raise AudioError(f"{path}: cannot be read as packed audio: {error}") from error
        try:
            self._names = [str(row.get("name", number)) for number, row in enumerate(rows)]
            self.starts = np.array([row["start"] for row in rows], dtype=np.int64)
            self.lengths = np.array([row["length"] for row in rows], dtype=np.int64)
            self._bandwidth = np.array(
                [row.get("bandwidth_hz") or rate / 2 for row in rows], dtype=np.float64
            )
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise AudioError(
                f"{path.with_suffix('.json')}: is no list of recordings with 'start' and 'length' each; "
                "pack it again"
            ) from error
        if self._audio.dtype != np.int16 or self._audio.ndim != 1 or not len(rows):
            raise AudioError(f"{path}: is not a flat int16 array with rows beside it")
        beyond = self.lengths > len(self._audio) - self.starts
        if beyond.any() or min(self.starts.min(), self.lengths.min()) < 0 or not (self._bandwidth > 0).all():
            raise AudioError(f"{path}: rows reach beyond the samples; pack it again")
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


def validation_segments(sources: Sequence[Source], length: int, count: int) -> Iterator[Segment]:
    """``count`` unaugmented segments of each source, from all over it."""
    for source in sources:
        yield from source.spread(count, length)
