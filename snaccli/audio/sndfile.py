"""Reading through libsndfile."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from snaccli.audio.mpeg import MpegScan, scan_mpeg
from snaccli.audio.unfinished import Patches, completed
from snaccli.errors import AudioError
from snaccli.io.files import cause

__all__ = ["REMEDY", "NotForLibsndfileError", "SndfileDecoder"]

REMEDY = "; `ffmpeg -i FILE NEW.wav` may save what is there"
"""What to do about a damaged recording, as the end of a message."""

_MALFORMED = 3  # SF_ERR_MALFORMED_FILE: the format is known, the file is not in order
_UNKNOWN_FRAMES = 1 << 60  # libsndfile gives the largest integer where a stream tells no length
_STREAMED = 0x7FFFF000  # data sizes from here on are what a program writes that does not know the length
_SLACK_BYTES = 64  # some writers count the header, or a pad byte, as data
_MPEG_PADDING = 4  # MPEG frames that encoder delay and padding take at most; the stated length is without
# libsndfile's log of the header, where a chunk claims more bytes than follow.
_SHORT = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


class NotForLibsndfileError(Exception):
    """libsndfile does not know this kind of file, or would not give all of it."""


class _Source:
    """A binary file as soundfile wants it; keeps read errors, which libsndfile cannot pass on."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None
        self.patches: Patches = {}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):  # before the start: a hostile header
            return -1

    def tell(self) -> int:
        return self.file.tell()

    def read(self, count: int) -> bytes:
        try:
            start = self.file.tell()
            data = self.file.read(count)
        except OSError as error:
            self.error = error
            return b""
        for offset, patch in self.patches.items():
            data = _overlaid(data, offset - start, patch)
        return data


def _overlaid(data: bytes, offset: int, patch: bytes) -> bytes:
    """Returns the data with a patch at an offset, as far as they overlap."""
    first, last = max(offset, 0), min(offset + len(patch), len(data))
    return data if first >= last else data[:first] + patch[first - offset : last - offset] + data[last:]


class _InOrder(soundfile.SoundFile):  # type: ignore[misc]
    """A file read from start to end. soundfile seeks after each read of a file that can, which a FLAC stream
    of unknown length refuses.
    """

    def seekable(self) -> bool:
        return False


class SndfileDecoder:
    """One audio file, decoded by libsndfile as it is read.

    Attributes:
        rate: in Hz.
        channels: 1 or more.
        frames: what the header says, or None.
        exact: whether the file must hold `frames` frames, or `frames` is an estimate.
        expected_frames: `frames`, or an estimate, or None.
        format, encoding: names that libsndfile uses, such as ``WAV`` and ``PCM_16``.
        notes: what a user should know of the file.

    Raises:
        NotForLibsndfileError: not a format of libsndfile.
        AudioError: the file is damaged or cut off.
    """

    def __init__(self, file: BinaryIO, path: str | Path) -> None:
        self._path = path
        self._source = _Source(file)
        self.notes: tuple[str, ...] = ()
        self._sound = self._opened(file)
        try:
            self._describe(file)
        except BaseException:
            self.close()
            raise

    def _opened(self, file: BinaryIO) -> _InOrder:
        """Opens the file in libsndfile, to its end where its header never got to say how long it is."""
        file.seek(0)
        if file.read(4) == b"caff":  # libsndfile refuses a chunk of samples that is open to the end
            self._source.patches = completed(file, "CAF", open_end=True)
        sound = self._open()
        if sound.frames == 0:
            self._source.patches = completed(file, str(sound.format))
            if self._source.patches:
                sound.close()
                sound = self._open()
                self.notes = ("the header says that it is empty, so it was read to its end",)
        return sound

    def _open(self) -> _InOrder:
        self._source.file.seek(0)
        try:
            return _InOrder(self._source)
        except soundfile.LibsndfileError as error:
            self._check_system()
            if error.code == _MALFORMED:
                raise AudioError(f"is damaged or cut off{REMEDY}", self._path) from error
            raise NotForLibsndfileError(_words(error)) from error

    def _describe(self, file: BinaryIO) -> None:
        sound = self._sound
        self.rate, self.channels = int(sound.samplerate), int(sound.channels)
        self.format, self.encoding = str(sound.format), str(sound.subtype)
        self.frames: int | None = sound.frames if 0 <= sound.frames < _UNKNOWN_FRAMES else None
        self.exact = self.frames is not None
        self.expected_frames = self.frames
        self._slack = self._count = 0
        self._mpeg = self.encoding.startswith("MPEG")
        if self._mpeg:
            self._describe_mpeg(file)
        for stated, found in _SHORT.findall(sound.extra_info):
            known = int(stated) < _STREAMED or 1 << 32 <= int(stated) < 1 << 62
            if known and int(found) + _SLACK_BYTES < int(stated):
                raise AudioError(f"is cut off: {stated} bytes announced, {found} there{REMEDY}", self._path)

    def _describe_mpeg(self, file: BinaryIO) -> None:
        if self.format != "MP3":
            raise NotForLibsndfileError("MPEG audio in another container, whose length libsndfile guesses")
        position = file.tell()
        scan: MpegScan | None = scan_mpeg(file)
        file.seek(position)
        self.exact = scan is not None and scan.tagged
        if scan is None or self.frames is None:
            self.frames = None
            return
        self._slack = scan.frame_length  # some encoders count the frame that states the length
        if self.frames < scan.frames - _MPEG_PADDING * scan.frame_length:
            raise NotForLibsndfileError("its stated length is shorter than what it holds")
        if not self.exact:
            self.frames, self.expected_frames = None, scan.frames
        elif scan.frames < self.frames - self._slack:
            raise self._cut_off(scan.frames, self.frames)

    def read(self, frames: int) -> np.ndarray:
        """Returns the next `frames` frames, float32 (n, channels); fewer only at the end.

        Raises:
            AudioError: the file is damaged or cut off, or the disk fails.
        """
        try:
            data: np.ndarray = self._sound.read(frames, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError) as error:
            self._check_system()
            raise AudioError(f"is damaged ({_words(error)}){REMEDY}", self._path) from error
        self._check_system()
        self._count += len(data)
        if len(data) < frames:
            self._check_end()
        return data

    def _check_end(self) -> None:
        if self.exact and self.frames is not None and self._count < self.frames - self._slack:
            raise self._cut_off(self._count, self.frames)

    def _cut_off(self, count: int, stated: int) -> AudioError:
        there, whole = count / self.rate, stated / self.rate
        return AudioError(f"is cut off after {there:.2f} s of {whole:.2f} s{REMEDY}", self._path)

    def _check_system(self) -> None:
        error = self._source.error
        if error is not None:
            raise AudioError(f"cannot be read: {cause(error)}", self._path) from error

    def close(self) -> None:
        """Lets go of libsndfile's state; the file itself belongs to the caller."""
        self._sound.close()


def _words(error: Exception) -> str:
    """Returns libsndfile's own words, on one line."""
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(str(text).removeprefix("Error :").split()).rstrip(".")
