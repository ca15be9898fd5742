"""How late a decoded signal is, by comparing it with what was encoded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_DELAY_S", "delay"]

Samples = npt.NDArray[np.float32]

MOST_DELAY_S = 0.15
"""Delays beyond this, to either side, are not looked for."""

_FAITHFUL = 0.4  # correlation from which the waveform itself tells the delay
_STEP_S = 0.001  # of the envelope
_SMOOTH_S = 0.02


def delay(reference: Samples, decoded: Samples, rate: int) -> int:
    """Samples by which `decoded` lags behind `reference`; negative if it leads.

    Where the waveform was kept, the lag of the greatest cross-correlation. Vocoders keep no waveform: there
    the lag, to a millisecond, at which the envelopes of loudness fit best.

    Args:
        reference, decoded: (samples,) each; lengths may differ. A few seconds with some sound will do.
        rate: of both, Hz.

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
    """(lag, correlation) where the normalised cross-correlation is greatest, |lag| <= most."""
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
