"""Measures between a recording and its decoded copy: SNR, SI-SDR, mel distance, log-spectral distance.

All compare two signals of the same rate and length, aligned sample by sample; full scale is 1.0. Each
measure is an accumulator fed with aligned blocks (``update``), so memory does not grow with the length and
the cut into blocks does not change the result; a function of the same name takes whole arrays. Several
channels count as one longer signal for SNR, and are averaged for the others. Knows no torch.

Spectra: Hann window (periodic), hop of a quarter window, first frame at sample 0; a tail that no whole
frame covers, and a signal shorter than a window, is filled up with zeros to one last frame. Powers are
scaled so that a sine at full scale reads 0 dB at its bin, and raised to a floor of -115 dB before the
logarithm. The floor lies just above the rounding noise of 16-bit samples (-126 dB a bin at window 2048,
-120 at 512), so that writing the decoded copy to an ordinary WAV file does not tint the figures; everything
above it, an empty high band for instance, counts in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from snaccli.errors import AudioError

__all__ = [
    "CEILING_DB",
    "FLOOR_DB",
    "LSD_WINDOW",
    "MEL_BANDS",
    "MEL_WINDOWS",
    "Comparison",
    "Figures",
    "compare",
    "lsd_db",
    "mel_distance",
    "mel_filters",
    "si_sdr_db",
    "snr_db",
]

Array = NDArray[Any]
Samples = NDArray[np.float64]

CEILING_DB = 120.0
"""SNR and SI-SDR are kept within plus and minus this and so stay finite: identical signals read 120."""
FLOOR_DB = -115.0
"""Spectral powers below this (dB, 0 = sine at full scale) are raised to it before the logarithm."""
MEL_WINDOWS = (512, 1024, 2048)
"""Window lengths in samples of the mel distance."""
MEL_BANDS = 80
"""Number of mel bands between 0 Hz and half the rate."""
LSD_WINDOW = 2048
"""Window length in samples of the log-spectral distance."""

_HOPS = 4  # hops per window
_FRAME_VALUES = 1 << 15  # samples of frames in work at once: what a cache holds
_BLOCK = 1 << 16  # samples per channel taken from a long array at a time


@dataclass(frozen=True)
class Figures:
    """The four measures of one recording; None where a measure is undefined (see each function)."""

    snr_db: float | None
    si_sdr_db: float | None
    mel_distance: float | None
    lsd_db: float | None


class _Accumulator(Protocol):
    """What every measure offers: aligned blocks in, one figure out."""

    def update(self, reference: Samples, decoded: Samples) -> None: ...

    def result(self) -> float | None: ...


def _as_columns(samples: Array) -> Samples:
    """(samples,) or (samples, channels) of any real dtype -> float64 (samples, channels)."""
    columns = np.asarray(samples, dtype=np.float64)
    if columns.ndim == 1:
        columns = columns[:, None]
    if columns.ndim != 2 or columns.shape[1] == 0:
        raise ValueError(f"samples must be (samples,) or (samples, channels), not {np.shape(samples)}")
    return columns


def _aligned_blocks(reference: Array, decoded: Array) -> Iterator[tuple[Samples, Samples]]:
    """Cut two arrays into float64 blocks (n, channels); refuse unequal shapes, NaN and infinity."""
    if np.shape(reference) != np.shape(decoded):
        shapes = f"{np.shape(reference)} and {np.shape(decoded)}"
        raise ValueError(f"reference and decoded differ in shape, {shapes}: align them first")
    for start in range(0, len(reference), _BLOCK):
        pair = _as_columns(reference[start : start + _BLOCK]), _as_columns(decoded[start : start + _BLOCK])
        for name, block in zip(("reference", "decoded"), pair, strict=True):
            if not np.isfinite(block).all():
                raise AudioError(f"the {name} audio holds NaN or infinite samples: it cannot be measured")
        yield pair


def _ratio_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise), kept within plus and minus CEILING_DB; 0/0 counts as the worst."""
    if signal <= 0.0:
        return -CEILING_DB
    if noise <= 0.0:
        return CEILING_DB
    return float(np.clip(10.0 * (np.log10(signal) - np.log10(noise)), -CEILING_DB, CEILING_DB))


class _Snr:
    def __init__(self) -> None:
        self._signal = 0.0
        self._noise = 0.0

    def update(self, reference: Samples, decoded: Samples) -> None:
        self._signal += float(np.sum(reference**2))
        self._noise += float(np.sum((reference - decoded) ** 2))

    def result(self) -> float | None:
        return _ratio_db(self._signal, self._noise) if self._signal > 0.0 else None


class _SiSdr:
    """Keeps the three inner products per channel; the error's energy follows from them by Pythagoras.

    The subtraction costs digits only near 150 dB, beyond CEILING_DB.
    """

    def __init__(self) -> None:
        self._products: Samples | None = None  # (3, channels): <s,s>, <d,d>, <s,d>

    def update(self, reference: Samples, decoded: Samples) -> None:
        products = np.stack([np.sum(reference**2, 0), np.sum(decoded**2, 0), np.sum(reference * decoded, 0)])
        self._products = products if self._products is None else self._products + products

    def result(self) -> float | None:
        if self._products is None:
            return None
        values = []
        for ss, dd, sd in self._products.T:
            if ss > 0.0:
                target = sd**2 / ss
                values.append(_ratio_db(float(target), float(dd - target)))
        return float(np.mean(values)) if values else None


class _Spectra:
    """Cuts aligned blocks into overlapping frames and gives their power spectra in bounded batches."""

    def __init__(self, window: int) -> None:
        self.window = window
        self._hop = window // _HOPS
        # Periodic Hann, scaled so that a full-scale sine has power 1 at its bin.
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        self._taper = hann * (2.0 / hann.sum())
        self._pending: Samples | None = None  # (2, channels, samples) not yet covered by a frame's start
        self._seen = 0
        self._frames = 0

    def push(self, reference: Samples, decoded: Samples) -> Iterator[Samples]:
        """Blocks (n, channels) -> powers (2 signals, channels, frames, bins) of the frames they complete."""
        block = np.stack([reference.T, decoded.T])  # (2, channels, n)
        pending = block if self._pending is None else np.concatenate([self._pending, block], axis=2)
        self._seen += block.shape[2]
        frames = max(0, (pending.shape[2] - self.window) // self._hop + 1)
        yield from self._powers(pending, frames)
        self._frames += frames
        self._pending = pending[:, :, frames * self._hop :].copy()

    def flush(self) -> Iterator[Samples]:
        """Powers of the last frame, filled up with zeros, where samples are left that no frame covered."""
        covered = (self._frames - 1) * self._hop + self.window if self._frames else 0
        if self._pending is not None and self._seen > covered:
            missing = self.window - self._pending.shape[2]
            yield from self._powers(np.pad(self._pending, ((0, 0), (0, 0), (0, missing))), 1)

    def _powers(self, pending: Samples, frames: int) -> Iterator[Samples]:
        signals, channels, _ = pending.shape
        batch = max(1, _FRAME_VALUES // (signals * channels * self.window))
        for first in range(0, frames, batch):
            last = min(frames, first + batch)
            stretch = pending[:, :, first * self._hop : (last - 1) * self._hop + self.window]
            cut = np.lib.stride_tricks.sliding_window_view(stretch, self.window, axis=2)[:, :, :: self._hop]
            spectrum = np.fft.rfft(cut * self._taper, axis=3)
            power: Samples = spectrum.real**2 + spectrum.imag**2
            yield power


def _decibels(power: Samples) -> Samples:
    """10 log10 of a power, not below FLOOR_DB."""
    decibels: Samples = 10.0 * np.log10(np.maximum(power, 10.0 ** (FLOOR_DB / 10.0)))
    return decibels


class _Mean:
    """Running mean of many values."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0

    def add(self, values: Samples) -> None:
        self._sum += float(values.sum())
        self._count += values.size

    def result(self) -> float | None:
        return self._sum / self._count if self._count else None


class _SpectralDistances:
    """Mel distance and log-spectral distance together: at window 2048 they share their spectra."""

    def __init__(self, rate: int, windows: tuple[int, ...], lsd_window: int | None) -> None:
        every = dict.fromkeys(windows + ((lsd_window,) if lsd_window else ()))
        self._spectra = [_Spectra(window) for window in every]
        self._bands = {window: _used_bands(rate, window) for window in windows}
        self._mel = {window: _Mean() for window in windows}
        self._lsd_window = lsd_window
        self._lsd = _Mean()

    def update(self, reference: Samples, decoded: Samples) -> None:
        for spectra in self._spectra:
            for power in spectra.push(reference, decoded):
                self._add(spectra.window, power)

    def result(self) -> tuple[float | None, float | None]:
        """Mel distance and LSD in dB. Ends the signals: no update may follow."""
        for spectra in self._spectra:
            for power in spectra.flush():
                self._add(spectra.window, power)
        means = [value for mean in self._mel.values() if (value := mean.result()) is not None]
        return (float(np.mean(means)) if means else None), self._lsd.result()

    def _add(self, window: int, power: Samples) -> None:
        if window in self._bands:
            reference, decoded = _decibels(power @ self._bands[window].T)
            self._mel[window].add(np.abs(reference - decoded))
        if window == self._lsd_window:
            reference, decoded = _decibels(power)
            self._lsd.add(np.sqrt(np.mean((reference - decoded) ** 2, axis=2)))


def _hz_to_mel(frequency: Samples) -> Samples:
    """Slaney's mel scale: 3 mel per 200 Hz up to 1 kHz (15 mel), then 27 mel per factor 6.4."""
    logarithmic = 15.0 + 27.0 * np.log(np.maximum(frequency, 1000.0) / 1000.0) / np.log(6.4)
    return np.where(frequency < 1000.0, frequency * 3.0 / 200.0, logarithmic)


def _mel_to_hz(mel: Samples) -> Samples:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * 6.4 ** ((np.maximum(mel, 15.0) - 15.0) / 27.0))


@lru_cache(maxsize=16)
def mel_filters(rate: int, window: int, bands: int = MEL_BANDS) -> Samples:
    """Triangular mel filters over the bins of a real FFT, from 0 Hz to half the rate.

    Scale and normalisation are those of M. Slaney's Auditory Toolbox (Interval Research, TR 1998-010) as in
    ``librosa.filters.mel(htk=False, norm="slaney")``: corners equidistant in mel, each triangle of area 1
    in Hz, that is of height 2 / (upper corner - lower corner).

    Args:
        rate: sampling rate in Hz, above 0.
        window: FFT length in samples.
        bands: number of filters.

    Returns:
        float64 (bands, window // 2 + 1), read-only. A band narrower than the spacing of the bins may hold
        no bin and is then all zero.
    """
    half = np.asarray(rate / 2.0)
    corners = _mel_to_hz(np.linspace(0.0, float(_hz_to_mel(half)), bands + 2))
    bins = np.linspace(0.0, float(half), window // 2 + 1)
    low, centre, high = (corners[i : i + bands, None] for i in range(3))
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    filters: Samples = np.maximum(0.0, triangles) * (2.0 / (high - low))
    filters.flags.writeable = False
    return filters


def _used_bands(rate: int, window: int) -> Samples:
    """The mel filters that hold any bin, scaled to weights of sum 1: the floor is then one of power per bin.

    The scale cancels in the difference of two logarithms; it only fixes what the floor means.
    """
    filters = mel_filters(rate, window)
    sums = filters.sum(axis=1, keepdims=True)
    used = sums[:, 0] > 0.0
    weights: Samples = filters[used] / sums[used]
    return weights


class Comparison:
    """All four measures of one recording, fed block by block in constant memory.

    Args:
        rate: sampling rate of both signals in Hz.
    """

    def __init__(self, rate: int) -> None:
        self._snr = _Snr()
        self._si_sdr = _SiSdr()
        self._spectral = _SpectralDistances(rate, MEL_WINDOWS, LSD_WINDOW)

    def update(self, reference: Array, decoded: Array) -> None:
        """Adds the next aligned blocks, both (n,) or both (n, channels), full scale 1.0.

        Raises:
            ValueError: the blocks differ in shape.
            AudioError: a sample is NaN or infinite.
        """
        for pair in _aligned_blocks(reference, decoded):
            self._snr.update(*pair)
            self._si_sdr.update(*pair)
            self._spectral.update(*pair)

    def result(self) -> Figures:
        """The measures over all blocks. Ends the comparison: no update may follow."""
        mel, lsd = self._spectral.result()
        return Figures(self._snr.result(), self._si_sdr.result(), mel, lsd)


def compare(reference: Array, decoded: Array, rate: int) -> Figures:
    """All four measures of two whole signals, (samples,) or (samples, channels), at `rate` Hz."""
    comparison = Comparison(rate)
    comparison.update(reference, decoded)
    return comparison.result()


def _whole(measure: _Accumulator, reference: Array, decoded: Array) -> float | None:
    for pair in _aligned_blocks(reference, decoded):
        measure.update(*pair)
    return measure.result()


def snr_db(reference: Array, decoded: Array) -> float | None:
    """Signal-to-noise ratio, 10 log10( sum s^2 / sum (s - d)^2 ), over all samples and channels.

    Unit dB, higher is better; within -120..120 (CEILING_DB), 120 for identical signals, 0 for a silent
    decoded signal. None where the reference is silent or empty. Source: the textbook definition, for
    instance Jayant and Noll, Digital Coding of Waveforms, 1984, section 1.2.

    Args:
        reference: s, (samples,) or (samples, channels), full scale 1.0.
        decoded: d, of the same shape.

    Raises:
        ValueError: the shapes differ.
        AudioError: a sample is NaN or infinite.
    """
    return _whole(_Snr(), reference, decoded)


def si_sdr_db(reference: Array, decoded: Array) -> float | None:
    """Scale-invariant signal-to-distortion ratio, 10 log10( |a s|^2 / |a s - d|^2 ), a = <d, s> / |s|^2.

    The gain `a` that fits the reference best to the decoded signal is free, so a change of volume costs
    nothing; no mean is subtracted. Per channel, then averaged over the channels whose reference is not
    silent. Unit dB, higher is better; within -120..120 (CEILING_DB): 120 for identical signals but for
    gain, -120 for a decoded signal that is silent or holds nothing of the reference. None where the
    reference is silent or empty. Source: Le Roux, Wisdom, Erdogan and Hershey, SDR - half-baked or well
    done?, ICASSP 2019, eq. 3.

    Args and errors: as :func:`snr_db`.
    """
    return _whole(_SiSdr(), reference, decoded)


def mel_distance(reference: Array, decoded: Array, rate: int) -> float | None:
    """Mean absolute difference of the log-mel spectra, over windows of 512, 1024 and 2048 samples.

    mean over windows, channels, frames and bands of | M(s) - M(d) |, with M = 10 log10 max(W P, floor), P the
    power spectrum (framing, scale and floor: see the module) and W the 80 mel bands from 0 Hz to half the
    rate (:func:`mel_filters`), each taken as a weighted mean of its bins. Bands narrower than the spacing
    of the bins, which hold none, are left out. Each window counts the same.

    Unit dB, lower is better; from 0 (identical, or both below the floor) to about 115; a gain of g dB
    reads |g|. None where there are no samples. Source: the multi-scale mel reconstruction loss of Kumar et
    al., High-fidelity audio compression with improved RVQGAN, NeurIPS 2023, section 3.4, in decibels and
    on these three windows.

    Args:
        reference: (samples,) or (samples, channels), full scale 1.0.
        decoded: d, an array of the same shape.
        rate: sampling rate of both in Hz.

    Raises:
        ValueError: the shapes differ.
        AudioError: a sample is NaN or infinite.
    """
    distances = _SpectralDistances(rate, MEL_WINDOWS, None)
    for pair in _aligned_blocks(reference, decoded):
        distances.update(*pair)
    return distances.result()[0]


def lsd_db(reference: Array, decoded: Array) -> float | None:
    """Log-spectral distance: root mean square over the bins of the difference in dB, averaged over frames.

    mean over channels and frames of sqrt( mean over bins of (L(s) - L(d))^2 ), L = 10 log10 max(P, floor),
    P the power spectrum of windows of 2048 samples, hop 512 (framing, scale and floor: see the module). All
    bins to half the rate count alike, so missing high bands weigh heavily.

    Unit dB, lower is better; from 0 (identical, or both below the floor) to about 115; a gain of g dB
    reads |g|. None where there are no samples. Source: Gray and Markel, Distance measures for
    speech processing, IEEE Trans. ASSP 24(5), 1976, with p = 2.

    Args and errors: as :func:`snr_db`.
    """
    distances = _SpectralDistances(1, (), LSD_WINDOW)
    for pair in _aligned_blocks(reference, decoded):
        distances.update(*pair)
    return distances.result()[1]
