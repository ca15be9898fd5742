"""A model beside Opus at its lowest rates, on the same recordings, by the same measures.

    python -m tests.benchmarks.peers [-m MODEL] [RECORDING...]

Needs opusenc and opusdec (Debian: opus-tools). All are compared as 24 kHz mono, rates counted from the bytes
of the files. STOI is printed where pystoi is installed, for recordings named speech*.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import soxr

from snaccli import measures
from snaccli.bench import find_recordings
from snaccli.codec import Codec, decode_file, encode_file

RATE = 24_000
OPUS_KBITS = (6, 12)

Coder = Callable[[Path, Path], Path]
"""Takes a WAV file and where to decode it to; returns the coded file."""


def opus(kbits: int) -> Coder:
    """Opus at a constant bit rate."""

    def code(source: Path, decoded: Path) -> Path:
        coded = decoded.with_suffix(".opus")
        quiet = {"check": True, "capture_output": True}
        subprocess.run(["opusenc", "--hard-cbr", "--bitrate", str(kbits), source, coded], **quiet)  # type: ignore[call-overload]
        subprocess.run(["opusdec", "--rate", str(RATE), coded, decoded], **quiet)  # type: ignore[call-overload]
        return coded

    return code


def ours(codec: Codec) -> Coder:
    """A SNAC model in a ``.snac`` file."""

    def code(source: Path, decoded: Path) -> Path:
        coded = decoded.with_suffix(".snac")
        encode_file(source, coded, model=codec)
        decode_file(coded, decoded, model=codec)
        return coded

    return code


def reference(path: Path) -> np.ndarray:
    """The recording as everybody gets it: mono, 24 kHz, 16 bits."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = soxr.resample(samples.mean(axis=1), rate, RATE, quality="VHQ")
    return np.round(np.clip(mono, -1, 1) * 32767).astype(np.int16)


def stoi(wanted: np.ndarray, got: np.ndarray) -> float:
    """Short-time objective intelligibility (Taal et al. 2011), by pystoi."""
    from pystoi import stoi as by_pystoi  # type: ignore[import-not-found]

    return float(by_pystoi(wanted, got, RATE))


def row(path: Path, name: str, coder: Coder, folder: Path) -> str:
    """One line of the table."""
    samples = reference(path)
    source, decoded = folder / "in.wav", folder / f"{name}.wav"
    soundfile.write(source, samples, RATE)
    coded = coder(source, decoded)
    got, rate = soundfile.read(decoded, dtype="float32")
    assert rate == RATE
    wanted = samples.astype(np.float32) / 32768
    got = np.pad(got, (0, max(0, len(wanted) - len(got))))[: len(wanted)]
    figures = measures.compare(wanted, got, RATE)
    kbits = 8 * coded.stat().st_size / (len(wanted) / RATE) / 1000
    intelligible = "-"
    if find_spec("pystoi") and path.name.startswith("speech"):
        intelligible = f"{stoi(wanted, got):.2f}"
    return (
        f"| {path.stem} | {name} | {kbits:.2f} | {figures.mel_distance:.1f} | {figures.lsd_db:.1f} | "
        f"{figures.si_sdr_db:.1f} | {intelligible} |"
    )


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recordings", nargs="*", help="by default those of examples/audio")
    parser.add_argument("-m", "--model", default="mini")
    arguments = parser.parse_args()
    codec = Codec.load(arguments.model)
    coders = {codec.name: ours(codec), **{f"Opus {kbits}": opus(kbits) for kbits in OPUS_KBITS}}
    print("| recording | codec | kbit/s | mel dB | LSD dB | SI-SDR dB | STOI |")
    print("|---|---|---|---|---|---|---|")
    for path in find_recordings(arguments.recordings):
        for name, coder in coders.items():
            with tempfile.TemporaryDirectory() as folder:
                print(row(path, name, coder, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
