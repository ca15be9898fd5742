"""One recording into the data set: read once, measured, and linked or converted on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snaccli.audio import AudioReader, AudioWriter, downmix, open_audio, resample
from snaccli.errors import AudioError, OutputError
from snaccli.io.files import cause, make_folder, shown
from snaccli.training.data.manifest import Row
from snaccli.workers import Cancelled

__all__ = ["Converter", "Examiner"]

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


_SEEKABLE = {
    "WAV",
    "WAVEX",
    "FLAC",
    "AIFF",
    "W64",
    "RF64",
    "CAF",
    "AU",
}  # in which training finds any sample at once
_STEM = 40  # characters of a recording's own name that its name in the data set keeps

Decide = Callable[[str], "tuple[str, str]"]


class Converter:
    """Puts recordings into a data set; may be called from several threads at once.

    Args:
        folder: the data set.
        work: folder on the same disk for what is not finished.
        rate: Hz.
        link: link whatever libsndfile reads; else only what training can read as it is: mono, at `rate`,
            in a format in which any sample is found at once.
        stop: ends the calls under way by `Cancelled`.
    """

    def __init__(self, folder: Path, work: Path, rate: int, link: bool, stop: threading.Event) -> None:
        self.folder, self.work, self.rate, self.link, self.stop = folder, work, rate, link, stop

    def __call__(self, row: Row, decide: Decide, *, min_seconds: float, max_clipping: float) -> Row:
        """Returns the row with what was found; with a problem, where the recording cannot be used.

        Args:
            row: source, size and time.
            decide: key and split of a recording by the hash of its samples.
            min_seconds: shorter ones are refused.
            max_clipping: those with a greater share of clipped samples are refused.

        Raises:
            OutputError: the disk refuses to write.
        """
        name = f"{row.identity:016x}"
        made = self.work / f"{name}.flac"
        try:
            with open_audio(row.source) as reader:
                linked = self._may_link(reader)
                examiner = Examiner(reader.rate)
                blocks = self._until_stopped(examiner.watch(reader.blocks()))
                frames = self._read(blocks) if linked else self._convert(blocks, reader, made)
                channels = reader.channels
            row = _found(row, examiner, channels, self.rate)
            problem = _problem(examiner, min_seconds, max_clipping)
            if problem is not None:
                return dataclasses.replace(row, problem=problem)
            key, split = decide(examiner.digest)
            ending = Path(row.source).suffix.lower() if linked else ".flac"
            file = f"{split}/{name[:2]}/{_stem(row.source)}-{name}{ending}"
            self._place(row.source if linked else made, file, linked)
            return dataclasses.replace(row, key=key, split=split, file=file, frames=frames)
        except AudioError as error:
            return dataclasses.replace(row, problem=f"unreadable: {error}")
        finally:
            with contextlib.suppress(OSError):
                made.unlink()

    def _may_link(self, reader: AudioReader) -> bool:
        if self.link:
            return reader.info.format != "ffmpeg" and reader.frames is not None
        return reader.channels == 1 and reader.rate == self.rate and reader.info.format in _SEEKABLE

    def _until_stopped(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for block in blocks:
            if self.stop.is_set():
                raise Cancelled
            yield block

    def _read(self, blocks: Iterator[np.ndarray]) -> int:
        return sum(len(block) for block in blocks)

    def _convert(self, blocks: Iterator[np.ndarray], reader: AudioReader, made: Path) -> int:
        first = next(blocks, None)
        if first is None:
            return 0  # FLAC holds no empty recording
        make_folder(made.parent)
        frames = 0
        with AudioWriter(made, self.rate, 1, overwrite=True) as writer:
            for block in resample(downmix(_before(first, blocks)), reader.rate, self.rate, 1):
                writer.write(block)
                frames += len(block)
        return frames

    def _place(self, made: str | Path, file: str, linked: bool) -> None:
        target = self.folder / file
        make_folder(target.parent)
        try:
            if linked:
                _link(str(made), target)
            else:
                os.replace(made, target)
        except OSError as error:
            raise OutputError(f"cannot write {shown(target)}: {cause(error)}") from error


def _before(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _link(source: str, target: Path) -> None:
    """A symbolic link; a hard link or a copy where the system allows none, as Windows may."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(source, target)
            return
        except OSError as error:
            failure = error
    raise failure


def _found(row: Row, examiner: Examiner, channels: int, rate: int) -> Row:
    return dataclasses.replace(
        row,
        rate=examiner.rate,
        channels=channels,
        duration_s=round(examiner.duration_s, 6),
        bandwidth_hz=min(examiner.rate, rate) / 2,
        peak_db=round(examiner.peak_db, 2),
        rms_db=round(examiner.rms_db, 2),
        silence=round(examiner.silence, 4),
        clipped=round(examiner.clipped, 6),
    )


def _problem(examiner: Examiner, min_seconds: float, max_clipping: float) -> str | None:
    if not examiner.duration_s or examiner.duration_s < min_seconds:
        return f"short: {examiner.duration_s:.2f} s"
    if examiner.silence >= 1:
        return f"silent: at most {examiner.peak_db:.0f} dB of full scale"
    if examiner.clipped > max_clipping:
        return f"clipped: {100 * examiner.clipped:.1f} % of its samples"
    return None


def _stem(source: str) -> str:
    """The recording's own name as far as every file system takes it."""
    stem = Path(source).stem[:_STEM]
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in stem) or "_"
