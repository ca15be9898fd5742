"""Opening audio of any kind and reading it block by block."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Protocol

import numpy as np

from snaccli.audio.decoders import FfmpegDecoder, NotForLibsndfileError, SndfileDecoder, find_program
from snaccli.audio.resampling import downmix
from snaccli.errors import AudioError, ParameterError, Remedy
from snaccli.io.files import cause, is_stdio, open_input

__all__ = [
    "BLOCK_FRAMES",
    "FULL_SCALE_LIMIT",
    "MAX_CHANNELS",
    "MAX_RATE",
    "AudioInfo",
    "AudioReader",
    "open_audio",
    "probe",
]

MAX_CHANNELS = 16
"""Most channels a recording may have."""

MAX_RATE = 768_000
"""Highest sample rate in Hz a recording may have; the lowest is 1."""

BLOCK_FRAMES = 65_536
"""Frames `AudioReader.blocks` yields at a time by default."""

_LOUD = 2.0  # 6 dB above full scale: more than the overshoot of a lossy coding
FULL_SCALE_LIMIT = 1000.0
"""Largest sample that is taken for sound, 60 dB above full scale: beyond are integers stored as floats."""

_PLAYLISTS = (b"#EXTM3U", b"ffconcat")  # ffmpeg would read the files they name


class _Decoder(Protocol):
    rate: int
    channels: int
    frames: int | None
    expected_frames: int | None
    format: str
    encoding: str
    notes: tuple[str, ...]

    def read(self, frames: int) -> np.ndarray: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class AudioInfo:
    """What is known of an audio file without decoding it."""

    path: str
    format: str
    """Container as libsndfile names it (``WAV``, ``FLAC``, ``OGG``, ``MP3`` …), or ``ffmpeg``."""
    encoding: str
    """Coding of the samples as libsndfile names it (``PCM_16``, ``VORBIS`` …)."""
    rate: int
    """Sample rate in Hz."""
    channels: int
    frames: int | None
    """Samples of each channel; None where only decoding tells."""
    duration_s: float | None
    """Duration in seconds, an estimate where `frames` is None; None where unknown."""


class AudioReader:
    """An open recording; see `open_audio`. A context manager.

    Attributes:
        info: format, rate, channels, length.
        rate: sample rate in Hz, 1 to 768,000.
        channels: 1 to 16.
        frames: samples of each channel, or None where only decoding tells.
        expected_frames: `frames`, or an estimate of it for a progress bar, or None.
        peak: largest magnitude of the samples read so far; 1 is full scale.
    """

    def __init__(self, decoder: _Decoder, path: str, stack: contextlib.ExitStack) -> None:
        self._decoder = decoder
        self._stack = stack
        self._path = path
        self._position = 0
        self.rate = decoder.rate
        self.channels = decoder.channels
        self.frames = decoder.frames
        self.expected_frames = decoder.expected_frames
        self.peak = 0.0
        self._mixed: tuple[str, ...] = ()
        duration = None if self.expected_frames is None else self.expected_frames / self.rate
        self.info = AudioInfo(
            path, decoder.format, decoder.encoding, self.rate, self.channels, self.frames, duration
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """Short remarks on what was read so far that a user should see, usually none."""
        notes = (*self._mixed, *self._decoder.notes)
        if self.peak <= _LOUD:
            return notes
        return (*notes, f"its peak is {self.peak:.3g} times full scale, so it should be scaled down")

    def mixed(self, channels: Literal["mono", "keep"]) -> tuple[Iterator[np.ndarray], int]:
        """Returns `blocks`, mixed down if asked for (`notes` tell then), and how many channels they have.

        Args:
            channels: ``mono`` mixes several channels down to one, ``keep`` leaves them.

        Raises:
            ParameterError: it is neither.
        """
        if channels not in ("mono", "keep"):
            raise ParameterError("channels", repr(channels), "choose 'mono' or 'keep'")
        if channels == "keep" or self.channels == 1:
            return self.blocks(), self.channels
        words = "stereo" if self.channels == 2 else f"{self.channels} channels"
        self._mixed = (f"{words} downmixed to mono",)
        return downmix(self.blocks()), 1

    def blocks(self, frames: int = BLOCK_FRAMES) -> Iterator[np.ndarray]:
        """Reads on from where the last call stopped, to the end.

        Args:
            frames: frames in a block, 1 or more.

        Yields:
            float32 arrays (n, channels), 1 <= n <= `frames`, every sample finite; only the last is shorter
            than `frames`.

        Raises:
            AudioError: damaged or cut off; or a sample is NaN, infinite or beyond 1000 times full scale.
        """
        while len(block := self._decoder.read(frames)):
            self._check_samples(block)
            self._position += len(block)
            yield block

    def _check_samples(self, block: np.ndarray) -> None:
        # One pass in the good case: a comparison with NaN is False.
        peak = max(float(block.max()), -float(block.min()))
        if peak <= FULL_SCALE_LIMIT:
            self.peak = max(self.peak, peak)
            return
        odd = ~(np.abs(block) <= FULL_SCALE_LIMIT)
        frame = int(np.argmax(odd.any(axis=1)))
        value = float(block[frame][odd[frame]][0])
        place = f"at {(self._position + frame) / self.rate:.6g} s"
        if math.isnan(value):
            raise AudioError(f"holds a sample that is not a number (NaN) {place}: mend or cut it", self._path)
        if math.isinf(value):
            raise AudioError(f"holds an infinite sample {place}: mend or cut it", self._path)
        raise AudioError(
            f"holds the sample {value:.6g} {place}, far beyond full scale (1): scale it down", self._path
        )

    def close(self) -> None:
        """Closes the file, and ends what decodes it."""
        self._stack.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def open_audio(source: str | Path, *, file: BinaryIO | None = None) -> AudioReader:
    """Opens an audio file for reading block by block; use it in a ``with`` statement.

    Read by libsndfile (WAV, FLAC, Ogg Vorbis and Opus, MP3, AIFF, CAF, AU, W64, …) or else by an ``ffmpeg``
    program on the PATH. A recording of no samples is a recording.

    Args:
        source: path, or ``-`` for standard input, which is read to its end first.
        file: that, where the caller has opened it already; it stays the caller's to close.

    Raises:
        AudioError: no such file, a folder, unreadable, empty, not audio, cut off, damaged, more than 16
            channels, a rate outside 1 to 768,000 Hz.
    """
    with contextlib.ExitStack() as stack:
        if file is None:
            file = stack.enter_context(open_input(source, error=AudioError))
        file.seek(0)
        head = file.read(16)
        if not head:
            raise AudioError("is empty (0 bytes): not a recording", source)
        if not is_stdio(source) and Path(source).suffix.lower() == ".snac":
            raise AudioError("is a .snac file already", source, remedy=Remedy.ALREADY_CODED)
        decoder: _Decoder
        try:
            decoder = SndfileDecoder(file, source)
        except NotForLibsndfileError as reason:
            if head.startswith(_PLAYLISTS):
                raise AudioError(
                    "is a playlist, not a recording: name the recordings themselves", source
                ) from reason
            program = find_program("ffmpeg")
            if program is None:
                raise AudioError(
                    f"cannot be read as audio here ({reason}): install ffmpeg, which reads more, "
                    "or convert it to WAV or FLAC",
                    source,
                ) from reason
            decoder = FfmpegDecoder(program, _on_disk(source, file, stack), source)
        stack.callback(decoder.close)
        for value, most, said in (
            (decoder.channels, MAX_CHANNELS, "has {} channels, at most {} can be read: split it first"),
            (decoder.rate, MAX_RATE, "has a sample rate of {} Hz, not 1 to {}: resample it first"),
        ):
            if not 1 <= value <= most:
                raise AudioError(said.format(value, most), source)
        return AudioReader(decoder, str(source), stack.pop_all())
    raise AssertionError("not reached: an ExitStack without callbacks suppresses nothing")


def _on_disk(source: str | Path, file: BinaryIO, stack: contextlib.ExitStack) -> str:
    """Returns a path under which another program finds what `file` holds."""
    if not is_stdio(source) and os.path.isfile(source):
        return os.fspath(source)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="snac-", ignore_cleanup_errors=True))
    path = os.path.join(folder, "input")
    try:
        file.seek(0)
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy)
    except OSError as error:
        raise AudioError(f"cannot be kept in {folder} meanwhile: {cause(error)}", source) from error
    return path


def probe(source: str | Path) -> AudioInfo:
    """Returns format, rate, channels and length of an audio file, without decoding it.

    Raises:
        AudioError: as `open_audio`.
    """
    with open_audio(source) as reader:
        return reader.info
