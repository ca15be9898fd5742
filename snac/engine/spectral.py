"""The spectral form: its layers as stages, built from the arrays of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from snac import spectrum
from snac.config import LONG_BANDS, SHORT_BANDS, SpectralConfig
from snac.engine import spectral_kernels as kernels
from snac.engine.chain import Stage
from snac.engine.cpu import Arena, Layer, Weights
from snac.jit import Kernel

KERNELS: tuple[Kernel, ...] = (kernels.embed, kernels.block, kernels.normed)
"""What a model of this form needs compiled."""

_TAPS = spectrum.TAPS
_ROWS = 256  # frames that a kernel puts into one product


class Features(Stage):
    """Samples (T, 1) to log magnitudes (T / hop, features), see ``snac.spectrum``."""

    def __init__(
        self, config: SpectralConfig, windows: Sequence[np.ndarray], banks: Sequence[np.ndarray]
    ) -> None:
        """``windows`` and the mel ``banks`` (bands, bins) are those of the long and of the short spectra."""
        self._linear_bins, self._hop = config.linear_bins, config.hop_length
        self._windows, self._banks = windows, [bank.T.copy() for bank in banks]
        self.channels = config.features
        self.window, self.step = config.window_length, self._hop
        self.history = self.tail = (self.window - self._hop) // 2
        self.values = max(1, 3 * self.window // self._hop)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        hop, linear = self._hop, self.channels - self._linear_bins
        signal = np.concatenate((held, x))[: (steps - 1) * hop + self.window, 0]
        short = self.history - hop // 4  # first of the short windows' samples
        parts = signal, signal[short : short + steps * hop + hop // 2]
        magnitudes = []
        for part, window, distance in zip(parts, self._windows, (hop, hop // 2), strict=True):
            frames = np.lib.stride_tricks.sliding_window_view(part, len(window))[::distance] * window
            spectra = np.fft.rfft(frames)
            squares = np.square(spectra.real) + np.square(spectra.imag)
            magnitudes.append(np.asarray(np.sqrt(squares), dtype=np.float32))
        bands = self._banks[0].shape[1]
        out[:, :bands] = magnitudes[0] @ self._banks[0]
        out[:, bands:linear] = (magnitudes[1] @ self._banks[1]).reshape(steps, -1)
        out[:, linear:] = magnitudes[0][:, : self._linear_bins]
        np.log(np.maximum(out, np.float32(spectrum.FLOOR), out=out), out=out)
        out += np.float32(spectrum.SHIFT)
        out /= np.float32(spectrum.SCALE)
        return np.asarray(out)


class Frames(Stage):
    """Log magnitudes and phases (n, 2 bins) to windowed frames of samples (n, window + 1).

    The last value is 1: where there is no frame, before the signal and after it, the next stage reads 0.
    """

    def __init__(self, config: SpectralConfig) -> None:
        self._window = spectrum.hann(config.window_length)
        self._phases = spectrum.running_phases(config)
        self.channels = config.window_length + 1
        self.values = 3 * config.window_length

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        magnitude, phase = np.split(x, 2, axis=1)
        phase = phase + self._phases[np.arange(position, position + steps) % len(self._phases)]
        magnitude = np.exp(np.minimum(magnitude, np.float32(spectrum.LARGEST_LOG_MAGNITUDE)))
        spectra = np.empty(magnitude.shape, dtype=np.complex64)
        np.multiply(magnitude, np.cos(phase), out=spectra.real)
        np.multiply(magnitude, np.sin(phase), out=spectra.imag)
        frames = np.fft.irfft(spectra, n=len(self._window))
        np.multiply(frames, self._window, out=out[:, :-1], casting="same_kind")
        out[:, -1] = 1
        return np.asarray(out)


class Overlap(Stage):
    """Windowed frames to samples: their sum over that of the squared windows (Griffin and Lim 1984)."""

    def __init__(self, config: SpectralConfig) -> None:
        self._hop, self.channels = config.hop_length, 1
        parts = config.window_length // config.hop_length
        self._squares = np.square(spectrum.hann(config.window_length)).reshape(parts, -1)
        self._whole = self._squares.sum(axis=0)
        self.window, self.up = parts, self._hop
        self.history = self.tail = parts - 1
        self.skip = (config.window_length - config.hop_length) // 2
        self.values = config.window_length

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        hop, signal, samples = self._hop, np.concatenate((held, x)), out.reshape(steps, -1)
        samples.fill(0)
        for age in range(self.window):
            # The part of the frame that began so many hops ago.
            start = self.window - 1 - age
            samples += signal[start : start + steps, age * hop : (age + 1) * hop]
        present = np.lib.stride_tricks.sliding_window_view(signal[:, -1], self.window)[:steps, ::-1]
        if present.all():
            samples /= self._whole
        else:
            # Before the signal there is no frame at all; what is computed there is left out.
            samples /= np.maximum(present @ self._squares, np.float32(1e-6))
        return np.asarray(out)


def encoder_stages(config: SpectralConfig, weights: Weights, arena: Arena) -> list[Stage]:
    """From samples (T, 1) to latents (T / hop, C)."""
    rate, lengths = config.sampling_rate, (config.window_length, config.hop_length)
    windows = [spectrum.hann(length) for length in lengths]
    banks = [
        spectrum.mel_bank(rate, length, spectrum.mel_edges(rate, bands))
        for length, bands in zip(lengths, (LONG_BANDS, SHORT_BANDS), strict=True)
    ]
    return [
        Features(config, windows, banks),
        *_stack(config.encoder.blocks, "encoder", "project", weights, arena),
    ]


def decoder_stages(config: SpectralConfig, weights: Weights, arena: Arena) -> list[Stage]:
    """From latents (T, C) to samples (T hop, 1)."""
    stack = _stack(config.decoder.blocks, "decoder", "head", weights, arena)
    return [*stack, Frames(config), Overlap(config)]


def _stack(blocks: int, at: str, last: str, weights: Weights, arena: Arena) -> list[Stage]:
    """A convolution with a norm, ConvNeXt blocks, and a norm with the last linear layer.

    A norm's factors and shifts are put into the linear layer after it, where there is one.
    """
    local = {"window": _TAPS, "history": _TAPS // 2, "tail": _TAPS // 2}
    taps = np.ascontiguousarray(weights[f"{at}.embed.weight"].transpose(2, 1, 0))
    norm = weights[f"{at}.norm.weight"], weights[f"{at}.norm.bias"]
    inner, channels = taps.shape[1:]
    stages: list[Stage] = [
        Layer(
            arena, kernels.embed, (taps, weights[f"{at}.embed.bias"], *norm), ((_ROWS + _TAPS - 1, inner),),
            channels=channels, values=max(inner, channels), **local,
        )
    ]  # fmt: skip
    for number in range(blocks):
        block = f"{at}.blocks.{number}"
        scale, expand = weights[f"{block}.scale"], weights[f"{block}.expand.weight"]
        hidden = len(expand)
        arrays = (
            np.ascontiguousarray(weights[f"{block}.depthwise.weight"][:, 0].T),
            weights[f"{block}.depthwise.bias"],
            np.ascontiguousarray((expand * weights[f"{block}.norm.weight"]).T),
            weights[f"{block}.expand.bias"] + expand @ weights[f"{block}.norm.bias"],
            np.ascontiguousarray(weights[f"{block}.contract.weight"].T * scale),
            weights[f"{block}.contract.bias"] * scale,
        )
        scratch = (_ROWS, channels), (_ROWS, hidden)
        stages.append(Layer(arena, kernels.block, arrays, scratch, channels=channels, values=hidden, **local))
    linear = weights[f"{at}.{last}.weight"]
    final = (
        np.ascontiguousarray((linear * weights[f"{at}.final_norm.weight"]).T),
        weights[f"{at}.{last}.bias"] + linear @ weights[f"{at}.final_norm.bias"],
    )
    stages.append(Layer(arena, kernels.normed, final, (), channels=len(linear), values=max(linear.shape)))
    return stages
