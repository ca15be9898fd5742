"""Excerpts of some recordings, original and decoded, to look at and to listen to in a report."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from snaccli import audio
from snaccli.bench import pictures
from snaccli.bench.results import BenchResult
from snaccli.bench.statistics import ranking
from snaccli.bench.steps import Steps
from snaccli.bench.subjects import Subject, span
from snaccli.errors import AudioError

__all__ = ["MOST_BYTES", "Copy", "Exhibit", "Gallery", "Take", "choose"]

Samples = npt.NDArray[np.float32]
Shelf = tuple[Subject, Callable[[int], Path]]
"""A codec, and where its coded file of a recording lies."""

MOST_BYTES = 30_000_000
"""Of pictures and sound in a gallery: a page with them stays below 50 MB."""

_LOG = logging.getLogger(__name__)
_WORST = 3  # always among the exhibits
_STEP_S = 0.1  # to which the loudest stretch is found
_PLAYED_RATES = 8_000, 48_000  # which every browser plays


@dataclass(frozen=True)
class Take:
    """One version of an excerpt: its outline (2, columns), spectrogram (PNG), sound (FLAC, or empty)."""

    outline: npt.NDArray[np.float32]
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
        number: of the recording, from 0.
        start_s, duration_s: where it lies, seconds.
        rate: of the recording, Hz.
        original: as recorded, downmixed.
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
        count: recordings wanted.
        clip_s: longest excerpt, seconds.
        exhibits: what was collected, in the order of the recordings.
        dropped: recordings wanted but left out, because the page would have become too large.
    """

    count: int = 12
    clip_s: float = 5.0
    exhibits: list[Exhibit] = field(default_factory=list)
    dropped: int = 0

    def fill(
        self,
        paths: Sequence[Path],
        results: Sequence[BenchResult],
        shelves: Sequence[Shelf],
        folder: Path,
        steps: Steps,
    ) -> None:
        """Take excerpts of the recordings that :func:`choose` names by the first result.

        Args:
            paths: all recordings.
            results: one a shelf.
            shelves: the codecs with their coded files.
            folder: for temporary files.
            steps: gets one step an exhibit.
        """
        room, self.dropped = MOST_BYTES, 0
        found: list[Exhibit] = []
        for number in choose(results[0], self.count):
            steps.begin(f"drawing {paths[number].name}")
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
            steps.end()
        self.exhibits = sorted(found, key=lambda exhibit: exhibit.number)

    def _exhibit(self, number: int, path: Path, shelves: Sequence[Shelf], folder: Path) -> Exhibit:
        start, frames, rate = _loudest(path, self.clip_s)
        original = span(path, start, frames)
        decoded: dict[str, Samples] = {}
        for subject, coded in shelves:
            try:
                samples = subject.excerpt(path, coded(number), folder / "excerpt.wav", start, frames, rate)
                if len(samples) != len(original):
                    raise AudioError(f"{path}: the excerpt differs in length from the original")
                decoded[subject.name] = samples
            except Exception:  # a picture less must not cost the figures of a whole night
                _LOG.debug("no excerpt of %s by %s", path, subject.name, exc_info=True)
        mel = pictures.log_mel(original, rate)
        top = float(mel.max())
        copies = tuple(_copy(name, samples, original, mel, rate, top) for name, samples in decoded.items())
        take = Take(pictures.outline(original), pictures.spectrogram_png(mel, top), _flac(original, rate))
        return Exhibit(number, start / rate, frames / rate, rate, take, copies)


def choose(result: BenchResult, count: int) -> list[int]:
    """Numbers of the recordings to show: the worst three by mel distance, then evenly from the best down.

    The order is that in which to leave out from the end if room is short.
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


def _loudest(path: Path, clip_s: float) -> tuple[int, int, int]:
    """(first sample, samples, rate) of the stretch of at most `clip_s` that holds most energy."""
    with audio.open_audio(path) as recording:
        rate = recording.rate
        step = max(1, round(_STEP_S * rate))
        energies: list[float] = []
        total = 0
        for block in audio.downmix(recording.blocks(step * max(1, audio.BLOCK_FRAMES // step))):
            total += len(block)
            squares = np.square(block[:, 0], dtype=np.float64)
            energies.extend(np.add.reduceat(squares, np.arange(0, len(squares), step)).tolist())
    frames = min(total, round(clip_s * rate))
    width = max(1, frames // step)
    sums = np.concatenate([[0.0], np.cumsum(energies)])
    start = int(np.argmax(sums[width:] - sums[:-width])) * step if len(sums) > width else 0
    return min(start, total - frames), frames, rate


def _flac(samples: Samples, rate: int) -> bytes:
    """What a browser plays without loss: mono, 16 bits, 8 to 48 kHz."""
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
