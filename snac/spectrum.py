"""Windows, mel bands and features of the spectral form, and how its decoder writes spectra. Knows no torch.

The features of a latent frame are taken from magnitude spectra m of windows that are centred on the frame: of
the long window its mel bands, of each of the two short windows theirs, and the long window's first bins. Each
value x is put in as ``(log(max(x, FLOOR)) + SHIFT) / SCALE``. The first ``phase_bins`` bins X of the long
window follow once more, as the real and then the imaginary parts of ``X (E + QUIET)^POWER``, E being the sum
of their ``|X|^2``: the waveform of the low frequencies, in which loud frames do not outweigh all others.

The decoder gives the log magnitudes of a frame's bins, and then their phases p less the running ones r. For
the first ``phase_bins`` bins it gives two more values each, all a and then all b, and their phases are those
of ``exp(i (p + r)) + a + i b``: unlike an angle, a + i b is linear in the waveform and may turn without end.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from snac.config import SpectralConfig

FLOOR: Final = 1e-4
"""The least magnitude that features tell from silence."""

SHIFT: Final = 3.0
SCALE: Final = 3.0

QUIET: Final = 1e-4
POWER: Final = -0.35

LEAST_SQUARE: Final = 1e-4
"""What is added to the square of a direction's length before it is divided by it."""

LARGEST_LOG_MAGNITUDE: Final = 6.0
"""The decoder's log magnitudes are cut at this, so that no output overflows."""

NORM_EPSILON: Final = 1e-6
"""What the layer norms of the spectral form add to the variance."""

TAPS: Final = 7
"""Frames that a convolution of the spectral form spans."""


def hann(length: int) -> np.ndarray:
    """The periodic Hann window, sin^2(pi t / length), float32 of shape (length,)."""
    window: np.ndarray = np.sin(np.pi * np.arange(length) / length) ** 2
    return window.astype(np.float32)


def mel_edges(rate: int, bands: int) -> np.ndarray:
    """Where mel bands begin, peak and end, in Hz: band i has its peak at edge i + 1; float64 (bands + 2,).

    The edges are equally spaced from 0 Hz to half the rate on the scale 2595 log10(1 + f / 700)
    (O'Shaughnessy 1987).
    """
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges: np.ndarray = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    return edges


def mel_bank(rate: int, window: int, edges: np.ndarray) -> np.ndarray:
    """Triangular mel bands over the bins of a spectrum; each band is a weighted mean of magnitudes.

    A band so narrow that no bin lies in it is all zero.

    Args:
        rate: sampling rate in Hz.
        window: samples of the window.
        edges: of the bands in Hz, see :func:`mel_edges`.

    Returns:
        float32 of shape (bands, window // 2 + 1).
    """
    frequencies = np.linspace(0, rate / 2, window // 2 + 1)
    low, centre, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    bank: np.ndarray = np.maximum(np.minimum(rising, falling), 0)
    bank /= bank.sum(1, keepdims=True) + 1e-8
    return bank.astype(np.float32)


def running_phases(config: SpectralConfig) -> np.ndarray:
    """Phases that those of the model count from, in radians, float32 of shape (period, bins).

    Row n is for the frames n, n + period, n + 2 period, ... of a recording. With ``running_phases`` these
    are the phases of tones at the bins' frequencies, so that a steady tone needs nearly steady phases of the
    decoder, whose layers know no position; else all are 0, and the period is 1.
    """
    if not config.running_phases:
        return np.zeros((1, config.bins), dtype=np.float32)
    period = config.window_length // config.hop_length
    turns = np.outer(np.arange(period), np.arange(config.bins)) % period
    return (turns * (2 * math.pi / period)).astype(np.float32)
