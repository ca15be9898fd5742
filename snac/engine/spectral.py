"""The spectral form: its layers compiled, and as stages that are built from the arrays of a checkpoint.

See ``snac.engine.kernels`` for what all kernels have in common. Layer norms are over the channels at each
time; their factors and shifts are part of the linear layer that follows, where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from snac import spectrum
from snac.config import LONG_BANDS, SHORT_BANDS, SpectralConfig
from snac.engine.chain import Stage
from snac.engine.cpu import Arena, Layer, Weights
from snac.engine.kernels import fill_rows, multiply
from snac.jit import Kernel, compiled, inlined, part

# Sums over channels may be taken in any order, several at once.
_FAST = frozenset({"contract", "nsz", "reassoc"})

_EPSILON = np.float32(spectrum.NORM_EPSILON)
_TWICE_ROOT = np.float32(2 * 0.7978845608)  # 2 sqrt(2 / pi)
_CUBE = np.float32(0.044715)
_LOG2_E = np.float32(1.4426950409)
# 2^f for f in -1/2 to 1/2: the series of exp(f ln 2), within 2e-7.
_E1, _E2, _E3 = np.float32(0.69314718056), np.float32(0.24022650696), np.float32(0.05550410866)
_E4, _E5, _E6 = np.float32(0.00961812911), np.float32(0.00133335581), np.float32(0.00015403530)
_ONE, _HALF, _MOST = np.float32(1), np.float32(0.5), np.float32(126)


@inlined
def _power(t: Any) -> Any:
    """2^t, for t cut at -126 and 126."""
    t = min(max(t, -_MOST), _MOST)
    whole = np.floor(t + _HALF)
    f = t - whole
    fraction = _ONE + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * _E6)))))
    return fraction * np.int32((np.int32(whole) + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
def _gelu(x: Any) -> Any:
    """x / 2 (1 + tanh(u)) = x / (1 + exp(-2 u)) with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    u = _TWICE_ROOT * (x + _CUBE * x * x * x)
    return x / (_ONE + _power(-u * _LOG2_E))


@part
def _normalise(x: Any) -> None:
    """Takes its mean from each row and divides by its deviation."""
    share = _ONE / np.float32(x.shape[1])
    for t in range(x.shape[0]):
        row = x[t]
        mean, square = np.float32(0), np.float32(0)
        for c in range(row.size):
            mean += row[c]
        mean *= share
        for c in range(row.size):
            centred = row[c] - mean
            square += centred * centred
        scale = _ONE / np.float32(math.sqrt(square * share + _EPSILON))
        for c in range(row.size):
            row[c] = (row[c] - mean) * scale


@compiled(
    "f4[:,:]", "f4[:,:]", "f4[:,:,:]", "f4[:]", "f4[:]", "f4[:]", "i8", "f4[:,:]", "f4[:,:]", fastmath=_FAST,
)  # fmt: skip
def embed(
    held: Any, x: Any, taps: Any, bias: Any, factor: Any, shift: Any, routine: int, rows: Any, out: Any
) -> None:
    """A convolution of seven taps of all channels to all, and a layer norm.

    Args:
        held, x: the signal.
        taps: (7, C, C').
        bias: (C').
        factor, shift: (C') of the norm.
        routine: of the products.
        rows: scratch, (n + 6, C), for n outputs that are computed at once.
        out: (some, C').
    """
    kept, most = held.shape[0], rows.shape[0] - 6
    fill_rows(bias, out)
    for first in range(0, out.shape[0], most):
        length = min(most, out.shape[0] - first)
        for t in range(length + 6):
            to, row = rows[t], held[first + t] if first + t < kept else x[first + t - kept]
            for c in range(to.size):
                to[c] = row[c]
        result = out[first : first + length]
        for tap in range(7):
            multiply(routine, rows[tap : tap + length], taps[tap], result, True)
        _normalise(result)
        for t in range(length):
            to = result[t]
            for c in range(to.size):
                to[c] = to[c] * factor[c] + shift[c]


@compiled(
    "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:]", "f4[:,:]", "f4[:]", "f4[:,:]", "f4[:]", "i8",
    "f4[:,:]", "f4[:,:]", "f4[:,:]", fastmath=_FAST,
)  # fmt: skip
def block(
    held: Any, x: Any, weight: Any, bias: Any, expand: Any, expand_bias: Any, contract: Any,
    contract_bias: Any, routine: int, middle: Any, hidden: Any, out: Any,
) -> None:  # fmt: skip
    """A ConvNeXt block: depthwise convolution, norm, two linear layers with a GELU, and the signal added.

    Args:
        held, x: the signal.
        weight, bias: (7, C) and (C), of the convolution.
        expand, expand_bias: (C, H) and (H), with the norm's factors and shifts in them.
        contract, contract_bias: (H, C) and (C), with the block's scales in them.
        routine: of the products.
        middle: scratch, (n, C), for n outputs that are computed at once.
        hidden: scratch, (n, H).
        out: (some, C).
    """
    kept = held.shape[0]
    w0, w1, w2, w3, w4, w5, w6 = weight[0], weight[1], weight[2], weight[3], weight[4], weight[5], weight[6]
    for first in range(0, out.shape[0], middle.shape[0]):
        length = min(middle.shape[0], out.shape[0] - first)
        for t in range(first, first + length):
            r0 = held[t] if t < kept else x[t - kept]
            r1 = held[t + 1] if t + 1 < kept else x[t + 1 - kept]
            r2 = held[t + 2] if t + 2 < kept else x[t + 2 - kept]
            r3 = held[t + 3] if t + 3 < kept else x[t + 3 - kept]
            r4 = held[t + 4] if t + 4 < kept else x[t + 4 - kept]
            r5 = held[t + 5] if t + 5 < kept else x[t + 5 - kept]
            r6 = held[t + 6] if t + 6 < kept else x[t + 6 - kept]
            to, result = middle[t - first], out[t]
            for c in range(to.size):
                y = bias[c] + w0[c] * r0[c] + w1[c] * r1[c] + w2[c] * r2[c] + w3[c] * r3[c]
                to[c] = y + w4[c] * r4[c] + w5[c] * r5[c] + w6[c] * r6[c]
                result[c] = r3[c] + contract_bias[c]
        inner, wide = middle[:length], hidden[:length]
        _normalise(inner)
        multiply(routine, inner, expand, wide, False)
        for t in range(length):
            row = wide[t]
            for h in range(row.size):
                row[h] = _gelu(row[h] + expand_bias[h])
        multiply(routine, wide, contract, out[first : first + length], True)


@compiled("f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:]", "i8", "f4[:,:]", fastmath=_FAST)
def normed(held: Any, x: Any, weight: Any, bias: Any, routine: int, out: Any) -> None:
    """A layer norm and a linear layer.

    Args:
        held: nothing.
        x: (T, C), overwritten.
        weight, bias: (C, C') and (C'), with the norm's factors and shifts in them.
        routine: of the product.
        out: (T, C').
    """
    _normalise(x)
    fill_rows(bias, out)
    multiply(routine, x, weight, out, True)


KERNELS: tuple[Kernel, ...] = (embed, block, normed)
"""What a model of this form needs compiled."""

_TAPS = spectrum.TAPS
_ROWS = 256  # frames that a kernel puts into one product


class Features(Stage):
    """Samples (T, 1) to the features (T / hop, features) that ``snac.spectrum`` describes."""

    def __init__(
        self, config: SpectralConfig, windows: Sequence[np.ndarray], banks: Sequence[np.ndarray]
    ) -> None:
        """``windows`` and the mel ``banks`` (bands, bins) are those of the long and of the short spectra."""
        self._linear_bins, self._phase_bins, self._hop = (
            config.linear_bins,
            config.phase_bins,
            config.hop_length,
        )
        self._windows, self._banks = windows, [bank.T.copy() for bank in banks]
        self.channels = config.features
        self.window, self.step = config.window_length, self._hop
        self.history = self.tail = (self.window - self._hop) // 2
        self.values = max(1, 3 * self.window // self._hop)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        hop, logarithms = self._hop, self.channels - 2 * self._phase_bins
        linear = logarithms - self._linear_bins
        signal = np.concatenate((held, x))[: (steps - 1) * hop + self.window, 0]
        short = self.history - hop // 4  # first of the short windows' samples
        parts = signal, signal[short : short + steps * hop + hop // 2]
        magnitudes = []
        for piece, window, distance in zip(parts, self._windows, (hop, hop // 2), strict=True):
            frames = np.lib.stride_tricks.sliding_window_view(piece, len(window))[::distance] * window
            spectra = np.fft.rfft(frames)
            squares = np.square(spectra.real) + np.square(spectra.imag)
            magnitudes.append(np.asarray(np.sqrt(squares), dtype=np.float32))
            if distance == hop and self._phase_bins:
                low = spectra[:, : self._phase_bins]
                energy = squares[:, : self._phase_bins].sum(axis=1, keepdims=True)
                waveform = out[:, logarithms:]
                np.concatenate((low.real, low.imag), axis=1, out=waveform, casting="same_kind")
                waveform *= (energy + spectrum.QUIET) ** spectrum.POWER
        bands = self._banks[0].shape[1]
        out[:, :bands] = magnitudes[0] @ self._banks[0]
        out[:, bands:linear] = (magnitudes[1] @ self._banks[1]).reshape(steps, -1)
        logs = out[:, :logarithms]
        logs[:, linear:] = magnitudes[0][:, : self._linear_bins]
        np.log(np.maximum(logs, np.float32(spectrum.FLOOR), out=logs), out=logs)
        logs += np.float32(spectrum.SHIFT)
        logs /= np.float32(spectrum.SCALE)
        return np.asarray(out)


class Frames(Stage):
    """The decoder's values (n, values), see ``snac.spectrum``, to windowed frames of samples (n, window + 1).

    The last value is 1: where there is no frame, before the signal and after it, the next stage reads 0.
    """

    def __init__(self, config: SpectralConfig) -> None:
        self._window = spectrum.hann(config.window_length)
        self._phases = spectrum.running_phases(config)
        self._bins, self._phase_bins = config.bins, config.phase_bins
        self.channels = config.window_length + 1
        self.values = 3 * config.window_length

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        bins, low = self._bins, self._phase_bins
        magnitude, phase, a, b = np.split(x, (bins, 2 * bins, 2 * bins + low), axis=1)
        turns = self._phases[np.arange(position, position + steps) % len(self._phases)]
        magnitude = np.exp(np.minimum(magnitude, np.float32(spectrum.LARGEST_LOG_MAGNITUDE)))
        spectra = np.empty(magnitude.shape, dtype=np.complex64)
        angle = phase + turns
        np.cos(angle, out=spectra.real)
        np.sin(angle, out=spectra.imag)
        if low:
            steered = spectra[:, :low]
            steered.real += a
            steered.imag += b
            squares = np.square(steered.real) + np.square(steered.imag)
            steered /= np.sqrt(squares + np.float32(spectrum.LEAST_SQUARE))
        spectra *= magnitude
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
    """From latents (T, C), or what they are a linear map of, to samples (T hop, 1)."""
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
            arena, embed, (taps, weights[f"{at}.embed.bias"], *norm), ((_ROWS + _TAPS - 1, inner),),
            channels=channels, values=max(inner, channels), **local,
        )
    ]  # fmt: skip
    for number in range(blocks):
        here = f"{at}.blocks.{number}"
        scale, expand = weights[f"{here}.scale"], weights[f"{here}.expand.weight"]
        hidden = len(expand)
        arrays = (
            np.ascontiguousarray(weights[f"{here}.depthwise.weight"][:, 0].T),
            weights[f"{here}.depthwise.bias"],
            np.ascontiguousarray((expand * weights[f"{here}.norm.weight"]).T),
            weights[f"{here}.expand.bias"] + expand @ weights[f"{here}.norm.bias"],
            np.ascontiguousarray(weights[f"{here}.contract.weight"].T * scale),
            weights[f"{here}.contract.bias"] * scale,
        )
        scratch = (_ROWS, channels), (_ROWS, hidden)
        stages.append(Layer(arena, block, arrays, scratch, channels=channels, values=hidden, **local))
    linear = weights[f"{at}.{last}.weight"]
    final = (
        np.ascontiguousarray((linear * weights[f"{at}.final_norm.weight"]).T),
        weights[f"{at}.{last}.bias"] + linear @ weights[f"{at}.final_norm.bias"],
    )
    stages.append(Layer(arena, normed, final, (), channels=len(linear), values=max(linear.shape)))
    return stages
