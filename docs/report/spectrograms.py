"""Draws spectrograms of speech and of what codecs make of it, one above the other, as one PNG.

    python docs/report/spectrograms.py [-m MODEL] [--against CODEC:RATE,...] RECORDING START SECONDS PNG

From 0 to TOP_HZ on a linear scale, by windows long enough to show harmonics apart; all with the same colours,
70 dB from dark to bright. The original is the topmost, the models and codecs follow in the order named.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from snaccli.bench import parse_peers
from snaccli.bench.gallery import Decibels, spectrogram_png
from snaccli.bench.peers import Samples
from snaccli.bench.subjects import ModelSubject, PeerSubject, Subject, open_original
from snaccli.codec import Codec
from snaccli.measures import FLOOR_DB
from snaccli.progress import SILENT

TOP_HZ = 5000.0
WINDOW_S = 0.04
HOP_S = 0.0025
HEIGHT = 180  # rows of one spectrogram
GAP = 6


def spectrogram(samples: Samples, rate: int) -> Decibels:
    """(HEIGHT, frames) in dB, 0 for a sine at full scale."""
    window = round(WINDOW_S * rate)
    padded = np.pad(np.asarray(samples, np.float64), window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: round(HOP_S * rate)]
    taper = np.hanning(window + 1)[:-1]
    size = 4 * window
    power = np.abs(np.fft.rfft(frames * (taper * 2 / taper.sum()), size)) ** 2
    rows = np.linspace(0, TOP_HZ * size / rate, HEIGHT).round().astype(int)
    decibels: Decibels = 10 * np.log10(np.maximum(power[:, rows].T, 10 ** (FLOOR_DB / 10)))
    return decibels


def versions(
    recording: Path, start_s: float, seconds: float, models: list[str], against: list[str]
) -> tuple[list[Samples], int]:
    """The stretch of the recording, and of what each codec makes of the recording."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = open_original(recording, folder / "original")
        start, count = round(start_s * original.rate), round(seconds * original.rate)
        subjects: list[Subject] = [ModelSubject(Codec.load(model), by_levels=False) for model in models]
        subjects += [PeerSubject(peer, folder) for peer in parse_peers(against)]
        found = [original.read(start, count)]
        for subject in subjects:
            subject.encode(original, folder / "coded", SILENT)
            track, _ = subject.decode(folder / "coded", original, folder / "decoded", None, SILENT)
            found.append(track.read(start, count))
        return found, original.rate


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("start", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("png", type=Path)
    parser.add_argument("-m", "--model", action="append", help="by default mini")
    parser.add_argument("--against", action="append", help="by default opus:6 and codec2:3200")
    chosen = parser.parse_args()
    sounds, rate = versions(
        chosen.recording,
        chosen.start,
        chosen.seconds,
        chosen.model or ["mini"],
        chosen.against or ["opus:6", "codec2:3200"],
    )
    pictures = [spectrogram(samples, rate) for samples in sounds]
    top = max(float(picture.max()) for picture in pictures)
    gap = np.full((GAP, pictures[0].shape[1]), top)
    stacked = [part for picture in reversed(pictures) for part in (picture, gap)][:-1]
    chosen.png.write_bytes(spectrogram_png(np.concatenate(stacked), top))


if __name__ == "__main__":
    main()
