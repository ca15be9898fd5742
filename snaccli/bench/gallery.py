"""Excerpts of some recordings, original and decoded, to look at and to listen to in a report."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from snaccli.bench import pictures
from snaccli.bench.results import BenchResult, ranking
from snaccli.bench.subjects import Subject
from snaccli.bench.tracks import Samples, Track, open_original
from snaccli.errors import SnacError
from snaccli.io.files import shown

__all__ = ["MOST_BYTES", "Copy", "Exhibit", "Gallery", "Take", "choose"]

Shelf = tuple[Subject, Callable[[int], Path]]
"""A codec, and where its coded file of a recording lies."""

MOST_BYTES = 30_000_000
"""Of pictures and sound in a gallery: a page with them stays below 50 MB."""

_WORST = 3  # always among the exhibits
_STEP_S = 0.1  # to which the loudest stretch is found
_STEPS_AT_ONCE = 100
_PLAYED_RATES = 8_000, 48_000  # which every browser plays


@dataclass(frozen=True)
class Take:
    """One version of an excerpt: its outline (2, columns), spectrogram (PNG), sound (FLAC, or empty)."""

    outline: Samples
    spectrogram: bytes
    sound: bytes = b""


@dataclass(frozen=True)
class Copy:
    """An excerpt as a codec gives it back, and how that differs from the original."""

    name: str
    decoded: Take
    difference: Take


@dataclass(frozen=True)
class Exhibit:
    """An excerpt of one recording.

    Attributes:
        number: number of the recording, from 0.
        start_s: where the excerpt begins, seconds.
        duration_s: its length, seconds.
        rate: sampling rate of the recording, Hz.
        original: the excerpt as recorded, downmixed.
        copies: one a codec that did not fail.
    """

    number: int
    start_s: float
    duration_s: float
    rate: int
    original: Take
    copies: tuple[Copy, ...]


@dataclass
class Gallery:
    """Collects exhibits while a run has its coded files.

    Attributes:
        count: number of recordings wanted.
        clip_s: length of an excerpt at most, seconds.
        exhibits: what was collected, in the order of the recordings.
        dropped: number of recordings wanted but left out, because the page would have become too large.
        failures: a line for each excerpt that could not be made.
    """

    count: int = 12
    clip_s: float = 5.0
    exhibits: list[Exhibit] = field(default_factory=list)
    dropped: int = 0
    failures: list[str] = field(default_factory=list)

    def fill(
        self,
        paths: Sequence[Path],
        results: Sequence[BenchResult],
        shelves: Sequence[Shelf],
        folder: Path,
        begin: Callable[[str], None],
    ) -> None:
        """Takes excerpts of the recordings that :func:`choose` names by the first result.

        Args:
            paths: all recordings.
            results: one result a shelf.
            shelves: the codecs with their coded files.
            folder: a place for scratch files.
            begin: told before each exhibit what is under way.
        """
        room, self.dropped, self.failures = MOST_BYTES, 0, []
        found: list[Exhibit] = []
        for number in choose(results[0], self.count):
            begin(f"drawing {paths[number].name}")
            usable = [
                shelf
                for shelf, result in zip(shelves, results, strict=True)
                if not result.files[number].error
            ]
            if room > 0:
                exhibit = self._exhibit(number, paths[number], usable, folder)
                room -= _size(exhibit)
            if room > 0:
                found.append(exhibit)
            else:
                self.dropped += 1
        self.exhibits = sorted(found, key=lambda exhibit: exhibit.number)

    def _exhibit(self, number: int, path: Path, shelves: Sequence[Shelf], folder: Path) -> Exhibit:
        track = open_original(path, folder / "original")
        start, frames = _loudest(track, self.clip_s)
        original, rate = track.read(start, frames), track.rate
        mel = pictures.log_mel(original, rate)
        top = float(mel.max())
        copies = []
        for subject, coded in shelves:
            try:
                samples = subject.excerpt(coded(number), track, folder / "excerpt", start, frames)
            except (SnacError, OSError) as error:  # an excerpt less must not cost the figures
                self.failures.append(f"no excerpt of {shown(path)} by {subject.name}: {error}")
                continue
            copies.append(_copy(subject.name, samples, original, mel, rate, top))
        take = Take(pictures.outline(original), pictures.spectrogram_png(mel, top), _flac(original, rate))
        return Exhibit(number, start / rate, frames / rate, rate, take, tuple(copies))


def choose(result: BenchResult, count: int) -> list[int]:
    """Returns which recordings to show: the worst three by mel distance, then evenly from the best down.

    They are numbers of recordings. The order is that in which to leave out from the end if room is short.
    """
    order = ranking(result.files)
    first, rest = order[: min(_WORST, count)], order[_WORST:][::-1]
    wanted = min(count - len(first), len(rest))
    if wanted <= 0:
        return first
    picks = np.linspace(0, len(rest) - 1, wanted).round().astype(int) if wanted > 1 else [0]
    return first + [rest[pick] for pick in picks]


def _copy(
    name: str, samples: Samples, original: Samples, mel: pictures.Decibels, rate: int, top: float
) -> Copy:
    of_copy = pictures.log_mel(samples, rate)
    return Copy(
        name,
        Take(pictures.outline(samples), pictures.spectrogram_png(of_copy, top), _flac(samples, rate)),
        Take(pictures.outline(samples - original), pictures.difference_png(of_copy, mel, top)),
    )


def _loudest(track: Track, clip_s: float) -> tuple[int, int]:
    """Returns the first sample and the number of samples of the loudest stretch of at most `clip_s`."""
    step = max(1, round(_STEP_S * track.rate))
    energies: list[float] = []
    for start in range(0, track.frames, step * _STEPS_AT_ONCE):
        squares = np.square(track.read(start, step * _STEPS_AT_ONCE), dtype=np.float64)
        energies.extend(np.add.reduceat(squares, np.arange(0, len(squares), step)).tolist())
    frames = min(track.frames, round(clip_s * track.rate))
    width = max(1, frames // step)
    sums = np.concatenate([[0.0], np.cumsum(energies)])
    start = int(np.argmax(sums[width:] - sums[:-width])) * step if len(sums) > width else 0
    return min(start, track.frames - frames), frames


def _flac(samples: Samples, rate: int) -> bytes:
    """Returns what a browser plays without loss: mono, 16 bits, 8 to 48 kHz."""
    played = min(max(rate, _PLAYED_RATES[0]), _PLAYED_RATES[1])
    if played != rate:
        samples = soxr.resample(samples, rate, played)
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1.0, 1.0), played, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _size(exhibit: Exhibit) -> int:
    takes = [exhibit.original]
    for copy in exhibit.copies:
        takes += [copy.decoded, copy.difference]
    # An outline becomes about 14 characters a column.
    return sum(len(take.sound) + len(take.spectrogram) + 10 * take.outline.shape[1] for take in takes)
