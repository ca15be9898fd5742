"""How much of a spectral model's distance from the recording is in its phases, as Markdown.

    python -m tests.benchmarks.phases [-m MODEL] [--seconds 12] [RECORDING...]

Decodes with the model's magnitudes, and with the recording's own phases in place of the predicted ones below
some frequency: 0 is the model as it is, 12000 (of a model of 24 kHz) leaves nothing predicted. The last
columns are how far the predicted phases below 700 Hz are off: the mean of 1 - cos of the difference, weighted
by the square root of the magnitudes; 0 for the recording's own, 1 for noise. Needs snaccli[metrics] for PESQ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snac.config import SpectralConfig
from snac.nn.model import SNAC
from snac.nn.spectral import SpectralDecoder
from snaccli.audio import downmix, open_audio, resample
from snaccli.bench import find_recordings
from snaccli.bench.perceptual import pesq
from snaccli.measures import mel_distance

LIMITS = (0, 600, 1200, 12_000)
"""Hz below which phases are those of the recording."""

COUNTED = 700.0
"""Hz below which phases are compared."""


def loaded(path: Path, rate: int, seconds: float) -> Tensor:
    """A recording, downmixed, at a rate: (1, 1, T)."""
    with open_audio(path) as original:
        blocks = list(resample(downmix(original.blocks()), original.rate, rate, 1))
    samples = np.concatenate(blocks)[: int(rate * seconds), 0].astype(np.float32)
    return torch.from_numpy(samples)[None, None]


def spectra_of(audio: Tensor, decoder: SpectralDecoder) -> Tensor:
    """Complex spectra (1, frames, bins) of the decoder's windows over audio (1, 1, T)."""
    window = decoder.window.float()
    margin = (len(window) - decoder.hop) // 2
    frames = F.pad(audio[:, 0], (margin, margin)).unfold(-1, len(window), decoder.hop)
    return torch.fft.rfft(frames * window)


def with_phases(values: Tensor, decoder: SpectralDecoder, phases: Tensor, bins: int) -> Tensor:
    """The decoder's values of frames, with ``phases`` (1, frames, bins) in the first bins."""
    places = torch.arange(values.shape[1]) % decoder.turns.shape[0]
    relative = (phases - decoder.turns[places])[..., :bins]
    values = values.clone()
    values[..., decoder.bins : decoder.bins + bins] = relative
    for part in range(2):  # what would turn these phases further
        first = 2 * decoder.bins + part * decoder.phase_bins
        values[..., first : first + min(bins, decoder.phase_bins)] = 0
    return values


def distance(wanted: Tensor, got: Tensor) -> float:
    """Mean of 1 - cos of the differences of phases, weighted by the square root of the wanted magnitudes."""
    weight = wanted.abs().sqrt()
    return float((weight * (1 - torch.cos(wanted.angle() - got.angle()))).sum() / weight.sum())


@torch.inference_mode()
def row(path: Path, model: SNAC, seconds: float) -> str:
    """One line of the table."""
    decoder, rate = model.decoder, model.sampling_rate
    assert isinstance(decoder, SpectralDecoder)
    audio = loaded(path, rate, seconds)
    padded = model.preprocess(audio)
    values = decoder.head(decoder._stacked(model.quantizer(model.encoder(padded))[0]))
    wanted, original = spectra_of(padded, decoder), audio[0, 0].double().numpy()
    cells = []
    for limit in LIMITS:
        bins = min(decoder.bins, round(limit * decoder.window.shape[0] / rate) + 1) if limit else 0
        samples = decoder.samples(with_phases(values, decoder, wanted.angle(), bins))[0]
        decoded = samples[: len(original)].double().numpy()
        mel = mel_distance(original[:, None], decoded[:, None], rate)
        to_16 = (
            np.concatenate(list(resample([x[:, None]], rate, 16_000, 1)))[:, 0] for x in (original, decoded)
        )
        score = pesq(*to_16)
        cells.append(f"{mel:.2f} dB" + ("" if score is None else f", {score:.2f}"))
        if not limit:
            low = slice(1, round(COUNTED * decoder.window.shape[0] / rate) + 1)
            got = spectra_of(F.pad(samples, (0, padded.shape[-1] - len(samples)))[None, None], decoder)
            off = distance(wanted[..., low], got[..., low])
    return f"| {path.stem} | {' | '.join(cells)} | {off:.2f} |"


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recordings", nargs="*", help="by default those of examples/audio")
    parser.add_argument("-m", "--model", default="mini")
    parser.add_argument("--seconds", type=float, default=12.0, help="of each recording")
    arguments = parser.parse_args()
    model = SNAC.from_pretrained(arguments.model).eval()
    if not isinstance(model.config, SpectralConfig):
        parser.error(f"{arguments.model} is not of the spectral form")
    print(f"| mel, PESQ | {' | '.join(f'own phases above {limit} Hz' for limit in LIMITS)} | off |")
    print("|---" * (len(LIMITS) + 2) + "|")
    for path in find_recordings(arguments.recordings):
        print(row(path, model, arguments.seconds))


if __name__ == "__main__":
    main()
