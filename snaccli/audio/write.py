"""Writing audio block by block, whole or not at all; and the formats that audio files have."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np
import soundfile

from snaccli.audio.read import MAX_CHANNELS, MAX_RATE
from snaccli.errors import OutputError, Remedy
from snaccli.io.files import cause, is_stdio, open_output, shown

__all__ = [
    "AudioFormat",
    "AudioWriter",
    "as_16_bits",
    "is_audio_name",
    "output_format",
    "wav_header",
    "writable_formats",
]

# Formats

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
_4_GIB = (1 << 32) - (1 << 16)  # bytes of samples in formats that count them in 32 bits; room for the header

_LIBSNDFILE = "wav wave flac ogg oga opus mp3 aif aiff aifc caf au snd w64 rf64 voc sph"
_FFMPEG = "m4a m4b aac mp4 m4v mka mkv mov webm wma wmv avi amr 3gp ac3 eac3 dts wv ape mp2 spx gsm"
_EXTENSIONS = frozenset(f".{extension}" for extension in f"{_LIBSNDFILE} {_FFMPEG}".split())


def is_audio_name(name: str) -> bool:
    """Returns whether a file of this name is worth opening as a recording: by its extension, in any case."""
    return os.path.splitext(name)[1].lower() in _EXTENSIONS


@dataclass(frozen=True)
class AudioFormat:
    """One kind of audio file; names are libsndfile's."""

    extension: str
    container: str
    encoding: str
    channels: int = MAX_CHANNELS  # most
    rates: tuple[int, ...] = ()  # the only ones in Hz; empty: any up to `highest`
    highest: int = MAX_RATE
    most_bytes: int | None = None  # of samples
    may_be_empty: bool = True  # whether libsndfile writes a file of no samples that can be read again


_FORMATS = {
    kind.extension: kind
    for kind in (
        AudioFormat("wav", "WAV", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("flac", "FLAC", "PCM_16", channels=8, highest=655_350, may_be_empty=False),
        AudioFormat("ogg", "OGG", "VORBIS", highest=200_000),  # beyond, libsndfile 1.2.2 crashes
        AudioFormat("oga", "OGG", "VORBIS", highest=200_000),
        AudioFormat("opus", "OGG", "OPUS", rates=_OPUS_RATES, may_be_empty=False),
        AudioFormat("mp3", "MP3", "MPEG_LAYER_III", channels=2, rates=_MP3_RATES, may_be_empty=False),
        AudioFormat("aiff", "AIFF", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("aif", "AIFF", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("caf", "CAF", "PCM_16"),
        AudioFormat("au", "AU", "PCM_16", most_bytes=_4_GIB),
        AudioFormat("w64", "W64", "PCM_16"),
        AudioFormat("rf64", "RF64", "PCM_16"),
    )
}


def writable_formats() -> tuple[str, ...]:
    """Returns the extensions of what can be written here (no MP3 with libsndfile before 1.1), dotless."""
    there = soundfile.available_formats()
    return tuple(
        extension
        for extension, kind in _FORMATS.items()
        if kind.container in there and kind.encoding in soundfile.available_subtypes(kind.container)
    )


def output_format(
    output: str | Path, rate: int | None = None, channels: int = 1, audio_format: str | None = None
) -> AudioFormat:
    """Returns the format to write `output` in: by `audio_format`, else by the output's extension, else WAV.

    Args:
        output: path, or ``-``.
        rate: in Hz; None where it is not known yet.
        channels: 1 or more.
        audio_format: an extension such as ``flac``, or None.

    Raises:
        OutputError: no such format can be written here, or it cannot hold this rate or number of channels.
    """
    wanted = audio_format or ("" if is_stdio(output) else Path(output).suffix)
    extension = wanted.lower().removeprefix(".") or "wav"
    names = writable_formats()
    if extension not in names:
        raise OutputError(f"cannot write audio as {shown(extension)}: choose one of {', '.join(names)}")
    kind = _FORMATS[extension]
    if channels > kind.channels:
        raise OutputError(
            f"{extension} holds at most {kind.channels} channels, not {channels}: choose another such as wav"
        )
    if rate is None:
        return kind
    if kind.rates and rate not in kind.rates:
        raise OutputError(
            f"{extension} cannot hold {rate} Hz, only {', '.join(map(str, kind.rates))}",
            remedy=Remedy.OTHER_FORMAT_OR_RATE,
        )
    # FLAC's frame header counts rates above 65535 Hz in tens.
    if rate > kind.highest or (kind.container == "FLAC" and rate > 65_535 and rate % 10):
        raise OutputError(f"{extension} cannot hold {rate} Hz", remedy=Remedy.OTHER_FORMAT_OR_RATE)
    return kind


# Writing

_PIECE = 16_384  # frames handed to libsndfile at a time: its Vorbis encoder keeps all of a call on the stack
_WIDTH = 2  # bytes of a sample of those formats that are not lossy
_UNKNOWN = 0xFFFF_FFFF  # as size in the header of a WAV stream of unknown length


class AudioWriter:
    """Writes one audio file; a context manager.

    The file appears complete when the ``with`` block ends without an exception, and not at all otherwise;
    ``-`` gets WAV bytes as they come (other formats at the end, since their headers are written last).
    Integer formats round to nearest without dither, and clip at full scale; a 16-bit file that is read and
    written again keeps its samples.

    Args:
        output: path, or ``-`` for standard output.
        rate: in Hz.
        channels: 1 to 16.
        frames: number of frames that will be written, where known. A WAV stream then states its length,
            and a file beyond 4 GiB becomes RF64, which WAV readers of today know.
        audio_format: an extension such as ``flac`` that overrides the output's own; WAV without either.
        source: path that is read meanwhile, which the output must not be.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: by the constructor where the format cannot be written or cannot hold `rate` and
            `channels`; on entering as `snaccli.io.files.open_output`; in between and at the end where the
            system refuses to write.
    """

    def __init__(
        self,
        output: str | Path,
        rate: int,
        channels: int,
        *,
        frames: int | None = None,
        audio_format: str | None = None,
        source: str | Path | None = None,
        overwrite: bool = False,
    ) -> None:
        self.rate = rate
        self.channels = channels
        self.frames = frames
        self.written = 0
        self._output, self._source, self._overwrite = output, source, overwrite
        self._kind = output_format(output, rate, channels, audio_format)
        self.encoding = self._kind.encoding
        self._limit = self._kind.most_bytes
        self._frame_bytes = channels * (_WIDTH if self.encoding == "PCM_16" else 0)
        self._announced: int | None = None  # frames that a header says already
        self._spool: BinaryIO | None = None
        self._sound: soundfile.SoundFile | None = None

    def __enter__(self) -> AudioWriter:
        container = self._kind.container
        with contextlib.ExitStack() as stack:
            self._out = out = stack.enter_context(
                open_output(self._output, source=self._source, overwrite=self._overwrite)
            )
            self._bridge = _Bridge(out.file, out.path, seekable=out.seekable)
            if container == "WAV" and not out.seekable:  # the header by ourselves, and samples alone after it
                container, self._limit, self._announced = "RAW", None, self.frames
                out.write(wav_header(self.rate, self.channels, self.frames))
            elif not out.seekable:
                spool = stack.enter_context(tempfile.TemporaryFile(prefix="snac-"))
                self._spool = cast(BinaryIO, spool)
                self._bridge = _Bridge(self._spool, f"a temporary file in {tempfile.gettempdir()}")
            elif container == "WAV" and self._beyond(self.frames or 0):
                container, self._limit = "RF64", None
            with self._bridge.checked():
                endian = "LITTLE" if container == "RAW" else "FILE"
                self._sound = soundfile.SoundFile(
                    self._bridge, "w", self.rate, self.channels, self.encoding, endian, container
                )
            self._stack = stack.pop_all()
        return self

    def _beyond(self, frames: int) -> bool:
        """Returns whether so many frames are more than the format can count."""
        return self._limit is not None and frames * self._frame_bytes > self._limit

    def write(self, block: np.ndarray) -> None:
        """Appends a block.

        Args:
            block: float32 (n, channels), nominally -1 to 1; (n,) will do for one channel.

        Raises:
            OutputError: the system refuses to write; a sample is NaN or infinite; more than 4 GiB in a
                format that cannot count so far.
        """
        if self._sound is None:
            raise ValueError("AudioWriter is used in a with statement")
        block = np.asarray(block, dtype=np.float32).reshape(-1, self.channels)
        if not np.isfinite(block).all():
            raise OutputError("cannot be written: a sample is not a finite number", self._output)
        self.written += len(block)
        if self._beyond(self.written):
            raise OutputError(
                f"cannot be written: {self._kind.extension} ends at 4 GiB, choose w64, caf or flac",
                self._output,
            )
        for start in range(0, len(block), _PIECE):
            with self._bridge.checked():
                self._sound.write(_quantised(block[start : start + _PIECE], self.encoding))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sound, self._sound = self._sound, None
        if sound is None:
            return
        if error is not None:
            with contextlib.suppress(OutputError), self._bridge.checked():
                sound.close()
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            with self._bridge.checked():
                sound.close()
            if self._announced not in (None, self.written):
                raise ValueError(f"{self.written} frames written, {self._announced} announced in the header")
            if self.written == 0 and not self._kind.may_be_empty:
                extension = self._kind.extension
                raise OutputError(
                    f"cannot be written: no samples, which {extension} cannot hold, choose wav", self._output
                )
            if self._spool is not None:
                self._spool.seek(0)
                shutil.copyfileobj(self._spool, self._out)


def _quantised(block: np.ndarray, encoding: str) -> np.ndarray:
    """Returns samples as they are stored: int16, or float32 within full scale for lossy codings."""
    if encoding == "PCM_16":
        return as_16_bits(block)
    clipped: np.ndarray = np.clip(block, -1.0, 1.0)
    return clipped


def as_16_bits(block: np.ndarray) -> np.ndarray:
    """Returns float samples as int16, rounded and within full scale."""
    short: np.ndarray = np.clip(np.rint(block * np.float32(1 << 15)), -(1 << 15), (1 << 15) - 1)
    return short.astype(np.int16)


def wav_header(rate: int, channels: int, frames: int | None) -> bytes:
    """Returns what stands before the samples of a WAV stream of 16 bits, for outputs that cannot seek back.

    Args:
        rate: in Hz.
        channels: 1 or more.
        frames: that will follow; None where that is not known, as it is where there are too many for the
            header: then it says so, and readers go on to the end.
    """
    frame = _WIDTH * channels
    size = _UNKNOWN if frames is None else frames * frame
    riff = size + 36
    if riff >= _UNKNOWN:
        riff = size = _UNKNOWN
    layout = (1, channels, rate, rate * frame, frame, 8 * _WIDTH)
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, *layout, b"data", size)


class _Bridge:
    """An output as soundfile wants it; keeps errors of the system, which libsndfile cannot pass on.

    Args:
        file: takes the bytes.
        path: of it, for messages.
        seekable: whether it can go back; libsndfile writes bytes in order to what cannot.
    """

    def __init__(self, file: BinaryIO, path: str | Path, *, seekable: bool = True) -> None:
        self._file, self._path, self._seekable = file, path, seekable
        self._count = 0
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._error is not None:
            return 0
        try:
            self._file.write(data)
        except OSError as error:
            self._error = error
            return 0
        self._count += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._error is not None:
            return -1
        if not self._seekable:
            return self._count
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            self._error = error
            return -1

    def tell(self) -> int:
        if self._error is not None:
            return -1
        return self._file.tell() if self._seekable else self._count

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """Turns what soundfile raises into what the system said, where it said something."""
        problem = None
        try:
            yield
        except (soundfile.LibsndfileError, RuntimeError, AssertionError) as error:
            problem = error
        if self._error is not None:
            raise OutputError(f"cannot be written: {cause(self._error)}", self._path) from self._error
        if problem is not None:
            raise OutputError(f"cannot be written: libsndfile gave up ({problem})", self._path) from problem
