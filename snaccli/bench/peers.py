"""Other codecs to measure beside the models, through the programs installed: Opus, Codec 2, MP3.

Each gets the recording as mono PCM of 16 bits, and gives PCM back, late by a delay of its own; its bit rate
is counted from the bytes of its file. Containers and headers are part of that, as in a ``.snac`` file.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from snaccli.audio.decoders import find_program
from snaccli.errors import ParameterError, SnacError
from snaccli.io.files import shown

__all__ = ["KINDS", "MOST_DELAY_S", "Peer", "PeerError", "Samples", "delay", "parse_peers"]

Command = list[str]
Samples = npt.NDArray[np.float32]

MOST_DELAY_S = 0.15
"""Delays beyond this, to either side, are not looked for."""

_FAITHFUL = 0.4  # correlation from which the waveform itself tells the delay
_STEP_S = 0.001  # of the envelope
_SMOOTH_S = 0.02


class PeerError(SnacError):
    """A codec beside the models is not installed, or failed."""


@dataclass(frozen=True)
class Kind:
    """A codec that can be measured beside the models.

    Attributes:
        programs: the programs that it needs, the one that tells its version first.
        package: the Debian package that has them.
        settings: what may stand behind the colon, in words.
        valid: whether a setting is one of these.
        feed_rate: from a setting and the recording's rate to the rate in Hz that the encoder gets.
        encode: from a setting, a rate, a PCM file and a coded file to a command.
        decode: from a setting, a rate, a coded file and a PCM file to a command.
        version: arguments that make the first program tell its version, if any do.
    """

    programs: tuple[str, ...]
    package: str
    settings: str
    valid: Callable[[str], bool]
    feed_rate: Callable[[str, int], int]
    encode: Callable[[str, int, Path, Path], Command]
    decode: Callable[[str, int, Path, Path], Command]
    version: tuple[str, ...] = ()


def _between(low: float, high: float) -> Callable[[str], bool]:
    def valid(setting: str) -> bool:
        return re.fullmatch(r"[0-9]+(\.[0-9]+)?", setting) is not None and low <= float(setting) <= high

    return valid


def _opus_encode(setting: str, rate: int, source: Path, coded: Path) -> Command:
    raw = ["--raw", "--raw-bits", "16", "--raw-chan", "1", "--raw-rate", str(rate)]
    return ["opusenc", "--quiet", "--hard-cbr", "--bitrate", setting, *raw, str(source), str(coded)]


def _opus_decode(setting: str, rate: int, coded: Path, decoded: Path) -> Command:
    return ["opusdec", "--quiet", "--no-dither", "--rate", str(rate), str(coded), str(decoded)]


def _codec2_encode(setting: str, rate: int, source: Path, coded: Path) -> Command:
    return ["c2enc", setting, str(source), str(coded)]


def _codec2_decode(setting: str, rate: int, coded: Path, decoded: Path) -> Command:
    return ["c2dec", setting, str(coded), str(decoded)]


_FFMPEG = ["ffmpeg", "-nostdin", "-hide_banner", "-loglevel", "error", "-y"]


def _mp3_encode(setting: str, rate: int, source: Path, coded: Path) -> Command:
    pcm = ["-f", "s16le", "-ar", str(rate), "-ac", "1", "-i", f"file:{source}"]
    rate_asked = f"{float(setting):g}k"
    return [*_FFMPEG, *pcm, "-c:a", "libmp3lame", "-b:a", rate_asked, "-f", "mp3", f"file:{coded}"]


def _mp3_decode(setting: str, rate: int, coded: Path, decoded: Path) -> Command:
    pcm = ["-f", "s16le", "-ar", str(rate), "-ac", "1", f"file:{decoded}"]
    return [*_FFMPEG, "-f", "mp3", "-i", f"file:{coded}", *pcm]


def _full_band(setting: str, rate: int) -> int:
    return min(max(rate, 8_000), 48_000)


def _mp3_rate(setting: str, rate: int) -> int:
    """MPEG-2's 24 kHz where the bits would not do for more, as LAME itself would choose."""
    return min(_full_band(setting, rate), 48_000 if float(setting) > 32 else 24_000)


_CODEC2 = ("3200", "2400", "1600", "1400", "1300", "1200", "700C", "450")

KINDS = {
    "opus": Kind(
        ("opusenc", "opusdec"), "opus-tools", "kbit/s, 6 to 256", _between(6, 256),
        _full_band, _opus_encode, _opus_decode, ("--version",),
    ),
    "codec2": Kind(
        ("c2enc", "c2dec"), "codec2", "bit/s, one of " + " ".join(_CODEC2), _CODEC2.__contains__,
        lambda setting, rate: 8_000, _codec2_encode, _codec2_decode,
    ),
    "mp3": Kind(
        ("ffmpeg",), "ffmpeg", "kbit/s, 8 to 160", _between(8, 160),
        _mp3_rate, _mp3_encode, _mp3_decode, ("-version",),
    ),
}  # fmt: skip
"""By the name that stands before the colon."""


@dataclass(frozen=True)
class Peer:
    """A codec at one setting, such as Opus at 6 kbit/s.

    Attributes:
        codec: key of `KINDS`.
        setting: as given after the colon.
    """

    codec: str
    setting: str

    @property
    def name(self) -> str:
        """As the command line takes it: ``opus:6``."""
        return f"{self.codec}:{self.setting}"

    @property
    def kind(self) -> Kind:
        """Its programs and how to call them."""
        return KINDS[self.codec]

    def check(self) -> None:
        """Makes sure that its programs are there.

        Raises:
            PeerError: one is not.
        """
        for program in self.kind.programs:
            if find_program(program) is None:
                raise PeerError(
                    f"{self.name} is left out: there is no {program} on the PATH; install {self.kind.package}"
                )

    def version(self) -> str:
        """Returns what its encoder says of itself, on one line; its name where it says nothing."""
        program, arguments = self.kind.programs[0], self.kind.version
        if not arguments:
            return program
        done = subprocess.run(
            [find_program(program) or program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        return shown(lines[0].split(" Copyright")[0])[:100] if lines else program

    def encode(self, rate: int, source: Path, coded: Path) -> None:
        """Codes mono PCM (16 bits, little-endian) of `rate` Hz.

        Raises:
            PeerError: the program fails.
        """
        _call(self, self.kind.encode(self.setting, rate, source, coded))

    def decode(self, rate: int, coded: Path, decoded: Path) -> None:
        """Decodes to the PCM that `encode` takes.

        Raises:
            PeerError: the program fails.
        """
        _call(self, self.kind.decode(self.setting, rate, coded, decoded))


def parse_peers(given: Sequence[str]) -> list[Peer]:
    """Returns the codecs beside which models are measured; repeats are dropped.

    Args:
        given: names and settings: ``opus:6,12``, ``codec2:3200``, ``mp3:32``.

    Raises:
        ParameterError: an unknown codec, or a setting that it does not have.
    """
    found: dict[Peer, None] = {}
    for text in given:
        codec, _, settings = text.partition(":")
        kind = KINDS.get(codec)
        if kind is None:
            known = ", ".join(f"{name}:RATE" for name in KINDS)
            raise ParameterError("against", shown(text), f"there are {known}")
        for setting in settings.split(","):
            if not kind.valid(setting):
                problem = f"{shown(setting) or 'nothing'} is no setting of {codec}; give {kind.settings}"
                raise ParameterError("against", shown(text), problem)
            found[Peer(codec, setting)] = None
    return list(found)


def _call(peer: Peer, command: Command) -> None:
    program = find_program(command[0]) or command[0]
    try:
        done = subprocess.run(
            [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise PeerError(f"{peer.name}: {command[0]} does not start: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise PeerError(
            f"{peer.name}: {command[0]} failed with status {done.returncode}"
            + (f": {shown(said[-1].strip())}" if said else "")
        )


def delay(reference: Samples, decoded: Samples, rate: int) -> int:
    """Samples by which `decoded` lags behind `reference`; negative if it leads.

    Where the waveform was kept, the lag of the greatest cross-correlation. Vocoders keep no waveform: there
    the lag, to a millisecond, at which the envelopes of loudness fit best.

    Args:
        reference, decoded: (samples,) each; lengths may differ. A few seconds with some sound will do.
        rate: rate of both signals, Hz.

    Returns:
        within `MOST_DELAY_S` to either side; 0 where either signal is silent.
    """
    lag, fit = _best(reference, decoded, round(MOST_DELAY_S * rate))
    if fit >= _FAITHFUL:
        return lag
    step = max(1, round(_STEP_S * rate))
    lag, _ = _best(
        _envelope(reference, rate, step), _envelope(decoded, rate, step), round(MOST_DELAY_S * rate / step)
    )
    return lag * step


def _best(reference: Samples, decoded: Samples, most: int) -> tuple[int, float]:
    """Returns (lag, correlation) where the normalised cross-correlation is greatest, |lag| <= most."""
    energy = float(np.sqrt(np.sum(reference**2, dtype=np.float64) * np.sum(decoded**2, dtype=np.float64)))
    if energy == 0.0:
        return 0, 0.0
    size = 1 << (max(len(reference), len(decoded)) + most).bit_length()
    spectrum = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(reference, size))
    products = np.fft.irfft(spectrum, size)
    lags = np.arange(-most, most + 1)
    around = products[lags]  # negative lags wrap around
    best = int(np.argmax(around))
    return int(lags[best]), float(around[best]) / energy


def _envelope(samples: Samples, rate: int, step: int) -> Samples:
    """Loudness every `step` samples, smoothed and freed from its mean."""
    whole = len(samples) // step * step
    power = np.square(samples[:whole], dtype=np.float64).reshape(-1, step).mean(axis=1)
    width = max(1, round(_SMOOTH_S * rate / step))
    smooth = np.convolve(power, np.hanning(width + 2)[1:-1], mode="same") if len(power) > width else power
    loudness = np.log10(np.maximum(smooth, 1e-8))
    centred: Samples = (loudness - loudness.mean()).astype(np.float32) if len(loudness) else loudness
    return centred
