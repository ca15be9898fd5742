"""What cheaper tokens cost and save, as Markdown.

    python -m tests.benchmarks.rate_distortion [-m MODEL] [LAMBDA...] [--recordings RECORDING...]

Codes recordings, mixed down and brought to the model's rate, with several prices of a bit, and compares what
comes out: the bytes of the whole file, mel distance, and with snaccli[metrics] STOI and PESQ, which says
nothing about music. Recordings whose names begin with "speech" are averaged; the others have rows of
their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from snaccli.audio import downmix, open_audio, resample
from snaccli.bench import find_recordings
from snaccli.bench.perceptual import Perceptual
from snaccli.codec import Codec, dumps
from snaccli.measures import mel_distance

SPEECH = "speech"
PRICES = (0.05, 0.1, 0.15, 0.2)
COLUMNS = ("bits a token", "kbit/s", "bytes", "mel dB", "STOI", "PESQ")


def samples_of(path: Path, rate: int) -> np.ndarray:
    """A recording, mono, float32 (n, 1)."""
    with open_audio(path) as original:
        blocks = list(resample(downmix(original.blocks()), original.rate, rate, 1))
    return np.concatenate([np.zeros((0, 1), np.float32), *blocks])


def figures(codec: Codec, samples: np.ndarray, price: float) -> list[float]:
    """What ``COLUMNS`` tells of one recording; NaN where it cannot be had."""
    recording = codec.encode([samples], codec.rate, 1, rate_distortion=price)
    size = len(dumps(recording, codec.codebooks, prior=codec.prior))
    decoded = np.concatenate(list(codec.decode(recording)))
    perceptual = Perceptual(codec.rate)
    perceptual.update(samples, decoded)
    heard = perceptual.result()
    mel = mel_distance(samples[:, 0], decoded[:, 0], codec.rate)
    values = [8 * size / recording.codes.tokens, 8 * size / recording.duration_s / 1000, size, mel]
    return [float("nan") if each is None else each for each in [*values, heard["stoi"], heard["pesq"]]]


def row(name: str, price: float, found: Sequence[float], base: Sequence[float]) -> str:
    """One line of the table."""
    bits, rate, size, mel, stoi, pesq = found
    less = f"{100 * (size / base[2] - 1):+.1f} %" if price else ""
    heard = f"{pesq:.2f}" if name == SPEECH else ""
    shown = [f"{bits:.2f}", f"{rate:.2f}", less, f"{mel:.2f}", f"{stoi:.3f}", heard]
    return f"| {name} | {price or 'off'} | {' | '.join(shown)} |"


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("prices", nargs="*", type=float, default=PRICES, metavar="LAMBDA")
    parser.add_argument("-m", "--model", default="mini")
    parser.add_argument("--recordings", nargs="*", default=[], help="by default those of examples/audio")
    arguments = parser.parse_args()
    codec = Codec.load(arguments.model)
    groups: dict[str, list[np.ndarray]] = {}
    for path in find_recordings(arguments.recordings):
        name = SPEECH if path.stem.startswith(SPEECH) else path.stem
        groups.setdefault(name, []).append(samples_of(path, codec.rate))
    print(f"| recordings | lambda | {' | '.join(COLUMNS)} |")
    print("|---|---:" + "|---:" * len(COLUMNS) + "|")
    for name, recordings in sorted(groups.items(), reverse=True):
        base: list[float] = []
        for price in (0.0, *arguments.prices):
            found = np.mean([figures(codec, samples, price) for samples in recordings], axis=0).tolist()
            base = base or found
            print(row(name, price, found, base), flush=True)


if __name__ == "__main__":
    main()
