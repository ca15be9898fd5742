"""Excerpts of some recordings, original and decoded, to look at and to listen to in a report.

Pictures are outlines of waveforms, and log-mel spectrograms as small PNG images.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from snaccli.bench.peers import Samples
from snaccli.bench.results import WORST, BenchResult, ranking
from snaccli.bench.subjects import Subject, Track, open_original
from snaccli.errors import SnacError
from snaccli.io.files import shown
from snaccli.measures import FLOOR_DB, mel_filters

__all__ = [
    "DIFFERENCE_DB",
    "MOST_BYTES",
    "RANGE_DB",
    "Copy",
    "Exhibit",
    "Gallery",
    "Take",
    "choose",
    "log_mel",
    "spectrogram_png",
]

Shelf = tuple[Subject, Callable[[int], Path]]
"""A codec, and where its coded file of a recording lies."""

MOST_BYTES = 30_000_000
"""Of pictures and sound in a gallery: a page with them stays below 50 MB."""

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
                try:
                    exhibit = self._exhibit(number, paths[number], usable, folder)
                except (SnacError, OSError) as error:  # the recording has gone: the figures have not
                    self.failures.append(f"no excerpts of {shown(paths[number])}: {error}")
                    continue
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
        mel = log_mel(original, rate)
        top = float(mel.max())
        copies = []
        for subject, coded in shelves:
            try:
                samples = subject.excerpt(coded(number), track, folder / "excerpt", start, frames)
            except (SnacError, OSError) as error:  # an excerpt less must not cost the figures
                self.failures.append(f"no excerpt of {shown(path)} by {subject.name}: {error}")
                continue
            copies.append(_copy(subject.name, samples, original, mel, rate, top))
        take = Take(outline(original), spectrogram_png(mel, top), _flac(original, rate))
        return Exhibit(number, start / rate, frames / rate, rate, take, tuple(copies))


def choose(result: BenchResult, count: int) -> list[int]:
    """Returns which recordings to show: the worst three by mel distance, then evenly from the best down.

    They are numbers of recordings. The order is that in which to leave out from the end if room is short.
    """
    order = ranking(result.files)
    first, rest = order[: min(WORST, count)], order[WORST:][::-1]
    wanted = min(count - len(first), len(rest))
    if wanted <= 0:
        return first
    picks = np.linspace(0, len(rest) - 1, wanted).round().astype(int) if wanted > 1 else [0]
    return first + [rest[pick] for pick in picks]


def _copy(name: str, samples: Samples, original: Samples, mel: Decibels, rate: int, top: float) -> Copy:
    of_copy = log_mel(samples, rate)
    return Copy(
        name,
        Take(outline(samples), spectrogram_png(of_copy, top), _flac(samples, rate)),
        Take(outline(samples - original), difference_png(of_copy, mel, top)),
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


# Pictures

Decibels = npt.NDArray[np.float64]

RANGE_DB = 70.0
"""From the darkest to the brightest colour of a spectrogram."""
DIFFERENCE_DB = 30.0
"""A difference of so much, to either side, has the strongest colour."""

_BANDS = 80
_FRAMES = 360  # columns of a picture at most
_COLUMNS = 420  # of a waveform
_SHADES = 48  # colours of an image: fewer make it smaller, and nobody sees the steps
_WINDOW_S = 0.045

# Corners of the colours, evenly spaced: dark to bright, its brightness rising all the way; and blue over
# nothing to orange, which colour-blind people tell apart.
_BRIGHTENING = ("#05040e", "#2b115e", "#6a1c80", "#b2337a", "#ee605e", "#fdaf78", "#fcfbc4")
_DIVERGING = ("#1b6fd0", "#7fb2ea", "#808080", "#f0a35e", "#d9600a")


@dataclass(frozen=True)
class _Palette:
    colours: bytes  # (shades, 3)
    alphas: bytes  # (shades,), or empty for opaque


def log_mel(samples: Samples, rate: int) -> Decibels:
    """Returns log-mel spectrogram, (bands, frames) in dB, 0 for a full-scale sine, not below FLOOR_DB.

    Args:
        samples: (n,), n >= 0.
        rate: Hz.
    """
    window = 1 << max(6, round(np.log2(_WINDOW_S * rate)))
    padded = np.pad(np.asarray(samples, np.float64), window // 2)
    hop = max(window // 8, -(-len(samples) // _FRAMES))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    taper = np.hanning(window + 1)[:-1]
    # Twice the window's length: at low rates the lowest bands would else hold no bin.
    power = np.abs(np.fft.rfft(frames * (taper * 2 / taper.sum()), 2 * window)) ** 2
    filters = mel_filters(rate, 2 * window, _BANDS)
    weights = filters / np.maximum(filters.sum(axis=1, keepdims=True), 1e-12)
    decibels: Decibels = 10 * np.log10(np.maximum(power @ weights.T, 10 ** (FLOOR_DB / 10))).T
    return decibels


def spectrogram_png(decibels: Decibels, top: float) -> bytes:
    """Returns a spectrogram as PNG, low bands at the bottom, from `top` - RANGE_DB to `top`."""
    return _png((decibels - top) / RANGE_DB + 1.0, _OPAQUE)


def difference_png(decoded: Decibels, reference: Decibels, top: float) -> bytes:
    """Returns how much louder (orange) or softer (blue) `decoded` is; equal is transparent.

    What lies below the range of the spectrograms counts as at its lower end.
    """
    floor = top - RANGE_DB
    excess = np.maximum(decoded, floor) - np.maximum(reference, floor)
    return _png((excess / DIFFERENCE_DB + 1.0) / 2.0, _CLEAR)


def outline(samples: Samples) -> npt.NDArray[np.float32]:
    """Returns lowest and highest sample in each of up to 420 columns: (2, columns)."""
    columns = min(_COLUMNS, max(1, len(samples)))
    if not len(samples):
        return np.zeros((2, 1), np.float32)
    edges = np.linspace(0, len(samples), columns, endpoint=False).astype(int)
    return np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)])


def _palette(corners: tuple[str, ...], *, clear_middle: bool) -> _Palette:
    values = np.array([[int(corner[i : i + 2], 16) for i in (1, 3, 5)] for corner in corners], float)
    places = np.linspace(0, len(corners) - 1, _SHADES)
    colours = np.stack([np.interp(places, np.arange(len(corners)), channel) for channel in values.T], axis=1)
    alphas = np.abs(np.linspace(-1, 1, _SHADES)) ** 0.8 * 255 if clear_middle else np.zeros(0)
    return _Palette(np.rint(colours).astype(np.uint8).tobytes(), np.rint(alphas).astype(np.uint8).tobytes())


_OPAQUE = _palette(_BRIGHTENING, clear_middle=False)
_CLEAR = _palette(_DIVERGING, clear_middle=True)


def _png(values: Decibels, palette: _Palette) -> bytes:
    """Returns an indexed image (ISO/IEC 15948) of values 0 to 1, (rows from the bottom, columns)."""
    shades = np.clip(np.rint(values * (_SHADES - 1)), 0, _SHADES - 1).astype(np.uint8)[::-1]
    height, width = shades.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each led by its filter: 0, none
    lines[:, 1:] = shades
    chunks = [
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", palette.colours),
        _chunk(b"tRNS", palette.alphas) if palette.alphas else b"",
        _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
