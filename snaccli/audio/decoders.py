"""What decodes an audio file: libsndfile, or an ``ffmpeg`` program on the PATH for what that does not know.

Both give rate, channels, length and names of the format, and blocks of samples until the file ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import threading
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import soundfile

from snaccli.audio.structure import MpegScan, Patches, completed, scan_mpeg, scan_ogg
from snaccli.errors import AudioError
from snaccli.io.files import cause, shown

__all__ = ["FfmpegDecoder", "NotForLibsndfileError", "SndfileDecoder", "find_program"]

REMEDY = "; `ffmpeg -i FILE NEW.wav` may save what is there"
"""What to do about a damaged recording, as the end of a message."""

# libsndfile

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
        close: lets go of libsndfile's state; the file itself belongs to the caller.

    Raises:
        NotForLibsndfileError: not a format of libsndfile.
        AudioError: the file is damaged or cut off.
    """

    def __init__(self, file: BinaryIO, path: str | Path) -> None:
        self._path = path
        self._source = _Source(file)
        self.notes: tuple[str, ...] = ()
        file.seek(0)
        head = file.read(4)
        if head == b"OggS":
            self._scan_pages(file)
        elif head == b"caff":  # libsndfile refuses a chunk of samples that is open to the end
            self._source.patches = completed(file, "CAF", open_end=True)
        for again in (False, True):
            file.seek(0)
            try:
                self._sound = _InOrder(self._source)
            except soundfile.LibsndfileError as error:
                self._check_system()
                if error.code == _MALFORMED:
                    raise AudioError(f"is damaged or cut off{REMEDY}", path) from error
                raise NotForLibsndfileError(_words(error)) from error
            if again or self._sound.frames or not (patches := completed(file, str(self._sound.format))):
                break
            self._source.patches = patches
            self._sound.close()
            self.notes = ("the header says that it is empty, so it was read to its end",)
        self.close = self._sound.close
        try:
            self._describe(file)
        except BaseException:
            self.close()
            raise

    def _scan_pages(self, file: BinaryIO) -> None:
        scan = scan_ogg(file)
        if scan.cut:
            raise AudioError(f"is cut off{REMEDY}", self._path)
        if scan.joined:
            raise NotForLibsndfileError("several recordings joined in one Ogg file")
        if not scan.ended:
            self.notes = ("the file has no end mark, it may be cut off",)

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


def _words(error: Exception) -> str:
    """Returns libsndfile's own words, on one line."""
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(str(text).removeprefix("Error :").split()).rstrip(".")


# ffmpeg

_KEPT_MESSAGES = 8192  # bytes of ffmpeg's messages that are kept
_PREFIX = re.compile(r"^\[[^\]]*\]\s*")
_CUT_OFF = re.compile(r"partial file|ended prematurely|moov atom not found|: End of file", re.IGNORECASE)
_NO_AUDIO = re.compile(r"matches no streams|does not contain any stream", re.IGNORECASE)
# No network, whatever a playlist inside the file asks for, and no question on a terminal.
_GUARDS = ["-protocol_whitelist", "file,pipe"]
_PROBE_SECONDS = 30
_MOST_HEADER = 1 << 20


def find_program(name: str) -> str | None:
    """Finds a program on the PATH; on Windows never one that merely lies in the current folder."""
    found = shutil.which(name)
    if found is not None and os.name == "nt" and Path(found).resolve().parent == Path.cwd().resolve():
        return None
    return found


class FfmpegDecoder:
    """First audio stream of a file, decoded by an ``ffmpeg`` process as it is read.

    The samples come as an AU file through a pipe, whose header tells rate and channels.

    Attributes:
        rate: in Hz.
        channels: 1 or more.
        frames: None, known only at the end.
        expected_frames: estimate from the file's stated duration, or None.
        format, encoding: what decodes it.
        notes: none.

    Raises:
        AudioError: ffmpeg finds no audio in the file.
    """

    format = "ffmpeg"
    encoding = "float"
    frames: int | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, program: str, path: str | Path, source: str | Path) -> None:
        self._source = source
        self._count = 0
        command = [program, "-nostdin", "-hide_banner", "-loglevel", "error", "-xerror", *_GUARDS]
        command += ["-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise AudioError(f"needs ffmpeg, which does not start: {error.strerror}", source) from error
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pipe: IO[bytes] = self._process.stdout
        self._messages = bytearray()
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()
        try:
            self.rate, self.channels = self._header()
            duration = _duration(path)
        except BaseException:
            self.close()
            raise
        self.expected_frames = None if duration is None else round(duration * self.rate)

    def _listen(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := stream.read1(4096):  # type: ignore[attr-defined]
                self._messages += piece[: max(0, _KEPT_MESSAGES - len(self._messages))]

    def _header(self) -> tuple[int, int]:
        """Reads rate and channels from the AU header: magic, data offset, size, encoding, rate, channels."""
        head = self._pipe.read(24)
        if len(head) < 24 or head[:4] != b".snd":
            self._wait()
            raise AudioError(
                f"is not audio that ffmpeg can read{self._said()}: name a recording, or convert it to WAV or "
                "FLAC with the program that made it",
                self._source,
            )
        offset, _size, encoding, rate, channels = struct.unpack(">5I", head[4:])
        if encoding != 6 or not 24 <= offset <= _MOST_HEADER:
            problem = "cannot be read: the ffmpeg on the PATH answers in an unknown way; update it"
            raise AudioError(problem, self._source)
        self._pipe.read(offset - 24)
        return rate, channels

    def read(self, frames: int) -> np.ndarray:
        """Returns the next `frames` frames, float32 (n, channels); fewer only at the end.

        Raises:
            AudioError: the file is damaged or cut off.
        """
        data = self._pipe.read(frames * self.channels * 4)
        whole = len(data) // (self.channels * 4)
        if whole < frames:
            self._wait()
            if self._process.returncode != 0:
                raise AudioError(f"is damaged{self._said()}{REMEDY}", self._source)
        self._count += whole
        if self._count == 0:
            raise AudioError(f"holds no audio that ffmpeg can decode{self._said()}", self._source)
        samples = np.frombuffer(data, ">f4", whole * self.channels)
        return samples.reshape(whole, self.channels).astype(np.float32)

    def _wait(self) -> None:
        """Lets the process end by itself, and raises what it says of the file as a whole."""
        self._process.wait()
        self._listener.join()
        text = self._messages.decode("utf-8", "replace")
        if _NO_AUDIO.search(text):
            raise AudioError("holds no audio: name a recording", self._source)
        if _CUT_OFF.search(text):
            raise AudioError(f"is cut off{self._said()}{REMEDY}", self._source)

    def _said(self) -> str:
        """Returns the last line of ffmpeg's messages, without what names its own parts or the file."""
        lines = self._messages.decode("utf-8", "replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "")
        text = _PREFIX.sub("", last).strip()
        if text.startswith("file:"):
            text = text.rpartition(": ")[2]
        return f" (ffmpeg: {shown(text)})" if text else ""

    def close(self) -> None:
        """Ends the process, also in the middle of the file."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._listener.join()
        self._pipe.close()
        if self._process.stderr is not None:
            self._process.stderr.close()


def _duration(path: str | Path) -> float | None:
    """Returns the stated seconds, by ``ffprobe`` where there is one: an estimate, for progress alone."""
    program = find_program("ffprobe")
    if program is None:
        return None
    command = [program, "-v", "quiet", *_GUARDS, "-show_entries", "format=duration", "-of", "json"]
    try:
        done = subprocess.run(
            [*command, f"file:{path}"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS
        )
        seconds = float(json.loads(done.stdout)["format"]["duration"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
    return seconds if 0 <= seconds < 1e9 else None
