"""Writing audio block by block, whole or not at all."""

from __future__ import annotations

import contextlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, cast

import numpy as np
import soundfile

from snaccli.audio.formats import output_format
from snaccli.errors import OutputError
from snaccli.io.files import OutputFile, open_output

__all__ = ["AudioWriter"]

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
        self._stack = contextlib.ExitStack()
        self._sink: _Sink | None = None

    def __enter__(self) -> AudioWriter:
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(
                open_output(self._output, source=self._source, overwrite=self._overwrite)
            )
            self._sink = self._open_sink(out, stack)
            self._stack = stack.pop_all()
        return self

    def _open_sink(self, out: OutputFile, stack: contextlib.ExitStack) -> _Sink:
        kind, expected = self._kind, None if self.frames is None else self._size(self.frames)
        if not out.seekable and kind.container == "WAV":
            self._limit = None
            return _WavStream(out, self, expected)
        container = kind.container
        if container == "WAV" and expected is not None and self._limit is not None and expected > self._limit:
            container, self._limit = "RF64", None
        if out.seekable:
            return _SndfileSink(out, self, container)
        spool = cast(BinaryIO, tempfile.TemporaryFile(prefix="snac-"))  # noqa: SIM115 (on the stack)
        stack.callback(spool.close)
        return _SpooledSink(out, spool, self, container)

    def _size(self, frames: int) -> int:
        return frames * self.channels * (_WIDTH if self.encoding == "PCM_16" else 0)

    def write(self, block: np.ndarray) -> None:
        """Appends a block.

        Args:
            block: float32 (n, channels), nominally -1 to 1; (n,) will do for one channel.

        Raises:
            OutputError: the system refuses to write; a sample is NaN or infinite; more than 4 GiB in a
                format that cannot count so far.
        """
        if self._sink is None:
            raise ValueError("AudioWriter is used in a with statement")
        block = np.asarray(block, dtype=np.float32).reshape(-1, self.channels)
        if not np.isfinite(block).all():
            raise OutputError("cannot be written: a sample is not a finite number", self._output)
        self.written += len(block)
        if self._limit is not None and self._size(self.written) > self._limit:
            raise OutputError(
                f"cannot be written: {self._kind.extension} ends at 4 GiB, choose w64, caf or flac",
                self._output,
            )
        for start in range(0, len(block), _PIECE):
            self._sink.write(_quantised(block[start : start + _PIECE], self.encoding))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sink, self._sink = self._sink, None
        if sink is not None and error is None:
            with self._stack:
                sink.finish()
                if self.written == 0 and not self._kind.may_be_empty:
                    extension = self._kind.extension
                    raise OutputError(
                        f"cannot be written: no samples, which {extension} cannot hold, choose wav",
                        self._output,
                    )
        elif sink is not None:
            sink.abandon()
            self._stack.__exit__(kind, error, trace)


def _quantised(block: np.ndarray, encoding: str) -> np.ndarray:
    """Returns samples as they are stored: int16, or float32 within full scale for lossy codings."""
    if encoding == "PCM_16":
        short: np.ndarray = np.clip(np.rint(block * np.float32(1 << 15)), -(1 << 15), (1 << 15) - 1)
        return short.astype(np.int16)
    clipped: np.ndarray = np.clip(block, -1.0, 1.0)
    return clipped


class _Sink(Protocol):
    """Where quantised samples go."""

    def write(self, samples: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def abandon(self) -> None: ...


class _WavStream:
    """A WAV file written in order, for outputs that cannot seek back to complete a header."""

    def __init__(self, out: OutputFile, writer: AudioWriter, size: int | None) -> None:
        self._out = out
        self._expected = size
        self._count = 0
        known = size is not None and size + size % 2 + 36 < _UNKNOWN
        riff, data = (36 + size + size % 2, size) if known and size is not None else (_UNKNOWN, _UNKNOWN)
        frame = _WIDTH * writer.channels
        layout = (1, writer.channels, writer.rate, writer.rate * frame, frame, 8 * _WIDTH)
        if layout[3] > _UNKNOWN:
            raise OutputError(f"cannot be written: too many channels at {writer.rate} Hz for WAV", out.path)
        out.write(
            struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", riff, b"WAVE", b"fmt ", 16, *layout, b"data", data)
        )

    def write(self, samples: np.ndarray) -> None:
        data = samples.astype("<i2", copy=False).tobytes()
        self._count += len(data)
        self._out.write(data)

    def finish(self) -> None:
        if self._expected is not None and self._count != self._expected:
            raise ValueError(
                f"{self._count} bytes of samples written, {self._expected} announced in the header"
            )
        if self._count % 2:
            self._out.write(b"\0")

    def abandon(self) -> None:
        """Has nothing to let go of."""


class _Bridge:
    """An output as soundfile wants it; keeps write errors, which libsndfile cannot pass on."""

    def __init__(self, out: OutputFile) -> None:
        self._out = out
        self.error: OutputError | None = None

    def write(self, data: bytes) -> int:
        return self._tried(lambda: self._out.write(data), 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._tried(lambda: self._out.seek(offset, whence), -1)

    def tell(self) -> int:
        return self._tried(self._out.tell, -1)

    def _tried(self, action: Callable[[], int], otherwise: int) -> int:
        if self.error is None:
            try:
                return action()
            except OutputError as error:
                self.error = error
        return otherwise


class _SndfileSink:
    """Writes through libsndfile, to an output that can seek."""

    def __init__(self, out: OutputFile, writer: AudioWriter, container: str) -> None:
        self._path = out.path
        self._bridge = _Bridge(out)
        with self._checked():
            self._sound = soundfile.SoundFile(
                self._bridge, "w", writer.rate, writer.channels, writer.encoding, format=container
            )

    def write(self, samples: np.ndarray) -> None:
        with self._checked():
            self._sound.write(samples)

    def finish(self) -> None:
        with self._checked():
            self._sound.close()

    def abandon(self) -> None:
        with contextlib.suppress(OutputError):
            self.finish()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        """Turns what soundfile raises into what the system said, where it said something."""
        try:
            yield
        except (soundfile.LibsndfileError, RuntimeError, AssertionError) as error:
            reason = self._bridge.error or OutputError(
                f"cannot be written: libsndfile gave up ({error})", self._path
            )
            raise reason from error
        if self._bridge.error is not None:
            raise self._bridge.error


class _SpooledSink(_SndfileSink):
    """As `_SndfileSink`, through a temporary file, for outputs that cannot seek."""

    def __init__(self, out: OutputFile, spool: BinaryIO, writer: AudioWriter, container: str) -> None:
        folder = tempfile.gettempdir()
        super().__init__(OutputFile(spool, f"a temporary file in {folder}", seekable=True), writer, container)
        self._final, self._spool = out, spool

    def finish(self) -> None:
        super().finish()
        self._spool.seek(0)
        shutil.copyfileobj(self._spool, self._final)
