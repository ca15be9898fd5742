"""The spectral form: its layers as stages, built from the arrays of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snac import spectrum
from snac.config import SpectralConfig
from snac.engine import spectral_kernels as kernels
from snac.engine.arena import Arena
from snac.engine.chain import Stage
from snac.engine.products import library
from snac.engine.weights import Weights
from snac.jit import Kernel

KERNELS: tuple[Kernel, ...] = (kernels.embed, kernels.block, kernels.normed)
"""What a model of this form needs compiled."""

_TAPS = spectrum.TAPS


class Features(Stage):
    """Samples (T, 1) to log magnitudes (T / hop, features), see ``snac.spectrum``."""

    def __init__(self, config: SpectralConfig, arena: Arena) -> None:
        self._arena, self._linear_bins = arena, config.linear_bins
        self._hop = config.hop_length
        self._windows = spectrum.hann(config.window_length), spectrum.hann(self._hop)
        self._banks = spectrum.long_bank(config).T.copy(), spectrum.short_bank(config).T.copy()
        self._channels = config.features
        self.window, self.step = config.window_length, self._hop
        self.history = self.tail = (self.window - self._hop) // 2
        self.values = max(1, 3 * self.window // self._hop)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        hop = self._hop
        signal = self._arena.joined((held, x))[: (steps - 1) * hop + self.window, 0]
        long = _magnitudes(signal, self._windows[0], hop)
        first = self.history - hop // 4  # of the short windows' samples
        short = _magnitudes(signal[first : first + steps * hop + hop // 2], self._windows[1], hop // 2)
        out = self._arena.take(steps, self._channels)
        bands = self._banks[0].shape[1]
        out[:, :bands] = long @ self._banks[0]
        out[:, bands : self._channels - self._linear_bins] = (short @ self._banks[1]).reshape(steps, -1)
        out[:, self._channels - self._linear_bins :] = long[:, : self._linear_bins]
        np.log(np.maximum(out, np.float32(spectrum.FLOOR), out=out), out=out)
        out += np.float32(spectrum.SHIFT)
        out /= np.float32(spectrum.SCALE)
        return out


def _magnitudes(signal: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    """Magnitude spectra (frames, bins) of all windows within a signal (T,)."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, len(window))[::hop] * window
    spectra = np.fft.rfft(frames)
    squares = np.square(spectra.real) + np.square(spectra.imag)
    return np.asarray(np.sqrt(squares), dtype=np.float32)


class Embedding(Stage):
    """A convolution of seven taps of all channels to all, and a layer norm."""

    def __init__(self, weights: Weights, arena: Arena) -> None:
        self._arena = arena
        self._taps = np.ascontiguousarray(weights.within("embed").weight().transpose(2, 1, 0))
        self._bias = weights.within("embed")["bias"]
        self._norm = weights.within("norm")["weight"], weights.within("norm")["bias"]
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.values = max(self._taps.shape[1:])

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        out = self._arena.take(steps, len(self._bias))
        signal = self._arena.joined((held, x))
        kernels.embed(signal, self._taps, self._bias, *self._norm, library().routine, out)
        return out


class Block(Stage):
    """A ConvNeXt block."""

    def __init__(self, weights: Weights, arena: Arena) -> None:
        self._arena = arena
        filtered, contract, scale = weights.within("depthwise"), weights.within("contract"), weights["scale"]
        self._weight, self._bias = np.ascontiguousarray(filtered.weight()[:, 0].T), filtered["bias"]
        self._expand = _after_norm(weights.within("norm"), weights.within("expand"))
        self._contract = np.ascontiguousarray(contract["weight"].T * scale), contract["bias"] * scale
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.values = len(self._expand[1])

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        take, channels = self._arena.take, len(self._bias)
        out = take(steps, channels)
        kernels.block(
            self._arena.joined((held, x)), self._weight, self._bias, *self._expand, *self._contract,
            library().routine, take(steps, channels), take(steps, self.values), out,
        )  # fmt: skip
        return out


class Projection(Stage):
    """The last norm and a linear layer."""

    def __init__(self, norm: Weights, linear: Weights, arena: Arena) -> None:
        self._arena = arena
        self._weight, self._bias = _after_norm(norm, linear)
        self.values = max(self._weight.shape)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``; changes ``x``."""
        out = self._arena.take(steps, len(self._bias))
        kernels.normed(x, self._weight, self._bias, library().routine, out)
        return out


def _after_norm(norm: Weights, linear: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, C') and bias of a linear layer with the factors and shifts of the norm before it in them."""
    weight = linear["weight"]
    return np.ascontiguousarray((weight * norm["weight"]).T), linear["bias"] + weight @ norm["bias"]


class Frames(Stage):
    """Log magnitudes and phases (n, 2 bins) to windowed frames of samples (n, window + 1).

    The last value is 1: where there is no frame, before the signal and after it, the next stage reads 0.
    """

    def __init__(self, config: SpectralConfig, arena: Arena) -> None:
        self._arena, self._window = arena, spectrum.hann(config.window_length)
        self._phases = spectrum.running_phases(config)
        self.values = 3 * config.window_length

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        magnitude, phase = np.split(x, 2, axis=1)
        phase = phase + self._phases[np.arange(position, position + steps) % len(self._phases)]
        magnitude = np.exp(np.minimum(magnitude, np.float32(spectrum.LARGEST_LOG_MAGNITUDE)))
        spectra = np.empty(magnitude.shape, dtype=np.complex64)
        np.multiply(magnitude, np.cos(phase), out=spectra.real)
        np.multiply(magnitude, np.sin(phase), out=spectra.imag)
        out = self._arena.take(steps, len(self._window) + 1)
        frames = np.fft.irfft(spectra, n=len(self._window))
        np.multiply(frames, self._window, out=out[:, :-1], casting="same_kind")
        out[:, -1] = 1
        return out


class Overlap(Stage):
    """Windowed frames to samples: their sum over that of the squared windows (Griffin and Lim 1984)."""

    def __init__(self, config: SpectralConfig, arena: Arena) -> None:
        self._arena, self._hop = arena, config.hop_length
        parts = config.window_length // config.hop_length
        self._squares = np.square(spectrum.hann(config.window_length)).reshape(parts, -1)
        self._whole = self._squares.sum(axis=0)
        self.window, self.up = parts, self._hop
        self.history = self.tail = parts - 1
        self.skip = (config.window_length - config.hop_length) // 2
        self.values = config.window_length

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        hop, signal = self._hop, self._arena.joined((held, x))
        out = self._arena.take(steps, hop)
        out.fill(0)
        for age in range(self.window):
            # The part of the frame that began so many hops ago.
            start = self.window - 1 - age
            out += signal[start : start + steps, age * hop : (age + 1) * hop]
        present = np.lib.stride_tricks.sliding_window_view(signal[:, -1], self.window)[:steps, ::-1]
        if present.all():
            out /= self._whole
        else:
            # Before the signal there is no frame at all; what is computed there is left out.
            out /= np.maximum(present @ self._squares, np.float32(1e-6))
        return out.reshape(-1, 1)


def encoder_stages(config: SpectralConfig, weights: Weights, arena: Arena) -> Iterator[Stage]:
    """From samples (T, 1) to latents (T / hop, C)."""
    layers = weights.within("encoder")
    yield Features(config, arena)
    yield from _stack(config.encoder.blocks, layers, arena)
    yield Projection(layers.within("final_norm"), layers.within("project"), arena)


def decoder_stages(config: SpectralConfig, weights: Weights, arena: Arena) -> Iterator[Stage]:
    """From latents (T, C) to samples (T hop, 1)."""
    layers = weights.within("decoder")
    yield from _stack(config.decoder.blocks, layers, arena)
    yield Projection(layers.within("final_norm"), layers.within("head"), arena)
    yield Frames(config, arena)
    yield Overlap(config, arena)


def _stack(blocks: int, layers: Weights, arena: Arena) -> Iterator[Stage]:
    yield Embedding(layers, arena)
    for number in range(blocks):
        yield Block(layers.within("blocks", number), arena)
