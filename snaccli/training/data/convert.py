"""One recording into the data set: read once, measured, and linked or converted on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from snaccli.audio import AudioReader, AudioWriter, downmix, open_audio, resample
from snaccli.errors import AudioError, OutputError
from snaccli.io.files import cause, make_folder, shown
from snaccli.training.data.examine import Examiner
from snaccli.training.data.manifest import Row
from snaccli.workers import Cancelled

__all__ = ["Converter"]

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
    if examiner.duration_s < min_seconds:
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
