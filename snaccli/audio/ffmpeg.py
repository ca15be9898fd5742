"""Reading through an ``ffmpeg`` program on the PATH, for what libsndfile does not know."""

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
from typing import IO

import numpy as np

from snaccli.audio.sndfile import REMEDY
from snaccli.errors import AudioError
from snaccli.io.files import shown

__all__ = ["FfmpegDecoder", "find_program"]

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

    Raises:
        AudioError: ffmpeg finds no audio in the file.
    """

    format = "ffmpeg"
    encoding = "float"
    frames: int | None = None

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
