"""The published form: its layers as stages, built from the arrays of a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from snac.config import ATTENTION_HEAD, WaveformConfig
from snac.engine import kernels
from snac.engine.chain import Stage
from snac.engine.cpu import Arena, Layer, Weights
from snac.jit import Kernel
from snac.noise import Noise
from snac.products import LIBRARY

_TAPS = kernels.TAPS
_DILATIONS = (1, 3, 9)
_TILE_VALUES, _LEAST_ROWS = 1 << 15, 128  # activations, and times, that a kernel puts into one product
_FEW = 8  # frames up to which the weights are best read once
_PAIRWISE = 48  # frames from which on three products for two frames are faster than four
_MOST_FRAMES = 512  # that a kernel resamples at once
_LARGE = 1 << 19  # weights of a product that want as many frames at once as there are
_SNAKE_EPSILON = 1e-9  # keeps 1 / alpha finite; part of the published activation
_NORM_EPSILON = 1e-5  # of the attention's layer norm

KERNELS: tuple[Kernel, ...] = (
    kernels.unit, kernels.resample, kernels.output, kernels.noisy, kernels.dense, kernels.spread,
    kernels.snaked, kernels.add_few,
)  # fmt: skip
"""What a depthwise model needs compiled."""


def _transposed(matrix: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matrix.T)


def _snake(alpha: np.ndarray) -> np.ndarray:
    """Rates and scales (2, C) of a snake activation, see ``snac.engine.kernels``."""
    wide = alpha.reshape(-1).astype(np.float64) + _SNAKE_EPSILON
    return np.stack((wide / np.pi, 1 / wide)).astype(np.float32)


def _convolved(x: np.ndarray, taps: np.ndarray, bias: np.ndarray, dilation: int, length: int) -> np.ndarray:
    """(T, C) to (length, C') by a matrix (C, C') a tap: a sum of one product a tap."""
    total: np.ndarray = x[:length] @ taps[0] + bias
    for number, tap in enumerate(taps[1:], 1):
        total += x[number * dilation : number * dilation + length] @ tap
    return total


def _unit(arena: Arena, weights: Weights, at: str, dilation: int) -> Layer:
    """A depthwise residual unit."""
    product = _transposed(weights[f"{at}.block.3.weight"][:, :, 0])
    channels = len(product)
    rows = max(_LEAST_ROWS, _TILE_VALUES // channels)
    return Layer(
        arena, kernels.unit,
        (
            _snake(weights[f"{at}.block.0.alpha"]),
            _transposed(weights[f"{at}.block.1.weight"][:, 0]), weights[f"{at}.block.1.bias"],
            _snake(weights[f"{at}.block.2.alpha"]), dilation, product, weights[f"{at}.block.3.bias"],
        ),
        ((0, channels), (rows, channels)),
        channels=channels, values=channels, window=6 * dilation + 1, history=3 * dilation, tail=3 * dilation,
    )  # fmt: skip


class FullUnit(Stage):
    """A residual unit whose convolution is of all channels to all."""

    def __init__(self, weights: Weights, at: str, dilation: int) -> None:
        self._snakes = _snake(weights[f"{at}.block.0.alpha"]), _snake(weights[f"{at}.block.2.alpha"])
        self._taps = _transposed(weights[f"{at}.block.1.weight"])
        self._bias = weights[f"{at}.block.1.bias"]
        self._product = _transposed(weights[f"{at}.block.3.weight"][:, :, 0])
        self._shift = weights[f"{at}.block.3.bias"]
        self._dilation = dilation
        self.window, self.history, self.tail = 6 * dilation + 1, 3 * dilation, 3 * dilation
        self.channels = self.values = len(self._bias)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        centre, signal = 3 * self._dilation, np.concatenate((held, x))
        snaked = np.empty_like(signal)
        kernels.snaked(signal, self._snakes[0], snaked)
        middle = _convolved(snaked, self._taps, self._bias, self._dilation, steps)
        snaked = snaked[:steps]
        kernels.snaked(middle, self._snakes[1], snaked)
        np.matmul(snaked, self._product, out=out)
        out += signal[centre : centre + steps]
        out += self._shift
        return np.asarray(out)


class Convolution(Stage):
    """A convolution of seven taps of each channel by itself, at the rate of the latents."""

    def __init__(self, weights: Weights, at: str) -> None:
        self._weight, self._bias = _transposed(weights[f"{at}.weight"][:, 0]), weights[f"{at}.bias"]
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.channels = self.values = len(self._bias)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        signal = np.concatenate((held, x))
        out[:] = self._bias
        for tap, weight in enumerate(self._weight):
            out += weight * signal[tap : tap + steps]
        return np.asarray(out)


class FullConvolution(Stage):
    """A convolution of seven taps of all channels to all."""

    def __init__(self, weights: Weights, at: str) -> None:
        self._taps, self._bias = _transposed(weights[f"{at}.weight"]), weights[f"{at}.bias"]
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.channels, self.values = len(self._bias), max(self._taps.shape[1:])

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        out[:] = _convolved(np.concatenate((held, x)), self._taps, self._bias, 1, steps)
        return np.asarray(out)


class _Resampling(Stage):
    """A snake and a convolution that changes the rate by its stride, of twice as many taps.

    Args:
        arena: for what the kernels need beside the outputs.
        snake: rates and scales (2, C).
        early, late: what the convolution makes of the earlier and of the later of two neighbouring frames,
            each (K, N): K values a frame going in, N coming out.
        bias: (N).
    """

    def __init__(
        self, arena: Arena, snake: np.ndarray, early: np.ndarray, late: np.ndarray, bias: np.ndarray
    ) -> None:
        self._arena, self._snake, self._bias = arena, snake, bias
        self._products = np.stack((early, early + late, late))

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        take, inner, result = self._arena.take, self._products.shape[1], out.reshape(steps, -1)
        if steps <= _FEW:  # reading the weights is most of the work
            signal = np.concatenate((held, x))[: (steps + 1) * self.step]
            rows = take(*signal.shape)
            kernels.snaked(signal, self._snake, rows)
            frames = rows.reshape(steps + 1, -1)
            result[:] = self._bias
            kernels.add_few(frames[:-1], self._products[0], result)
            kernels.add_few(frames[1:], self._products[2], result)
            return np.asarray(out)
        most = steps if self._products[0].size > _LARGE else min(steps, _MOST_FRAMES)
        most += most % 2
        pairs = most // 2 if steps >= _PAIRWISE else 0
        frames = take(most + 2, inner)
        rows = frames.reshape((most + 2) * self.step, -1)
        kernels.resample(
            held, x, self._snake, self._products, self._bias, LIBRARY.routine,
            rows, frames, take(pairs, inner), take(pairs, inner), result,
        )  # fmt: skip
        return np.asarray(out)


class Down(_Resampling):
    """A snake and a strided convolution of twice as many taps as its stride."""

    def __init__(self, arena: Arena, weights: Weights, snake: str, at: str, stride: int) -> None:
        taps = weights[f"{at}.weight"].transpose(2, 1, 0)  # 2S C C'
        early, late = (half.reshape(-1, taps.shape[2]) for half in np.split(taps, 2))
        super().__init__(arena, _snake(weights[f"{snake}.alpha"]), early, late, weights[f"{at}.bias"])
        pad = (stride + 1) // 2
        self.window, self.step, self.history, self.tail = 2 * stride, stride, pad, stride - pad
        self.values, self.channels = taps.shape[1:]


class Up(_Resampling):
    """A snake and a transposed convolution of twice as many taps as its stride."""

    def __init__(self, arena: Arena, weights: Weights, snake: str, at: str, stride: int) -> None:
        taps = weights[f"{at}.weight"].transpose(0, 2, 1)  # C 2S C'
        early, late = (half.reshape(len(taps), -1) for half in np.split(taps, 2, axis=1))
        bias = np.tile(weights[f"{at}.bias"], stride)
        # A frame's samples come from itself and, their second half, from the frame before.
        super().__init__(arena, _snake(weights[f"{snake}.alpha"]), late, early, bias)
        self.window, self.up, self.history, self.tail = 2, stride, 1, 1
        self.skip = (stride + 1) // 2
        self.channels = taps.shape[2]
        self.values = max(taps.shape[0], taps.shape[2])


class NoiseBlock(Stage):
    """Noise times a linear function of the signal, added to it."""

    def __init__(self, weights: Weights, at: str, layer: int) -> None:
        self._layer = layer
        self._linear = _transposed(weights[f"{at}.linear.weight"][:, :, 0])
        self._noise = Noise.none()
        self.channels = self.values = len(self._linear)

    def of(self, noise: Noise) -> NoiseBlock:
        """The same block with other noise."""
        other = NoiseBlock.__new__(NoiseBlock)
        other.__dict__.update(self.__dict__, _noise=noise)
        return other

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        noise = self._noise.draw(self._layer, position, steps)
        kernels.noisy(x, self._linear, noise, LIBRARY.routine, out)
        return np.asarray(out)


class Attention(Stage):
    """Multi-head attention within windows that do not overlap, with a residual."""

    def __init__(self, weights: Weights, at: str, window: int) -> None:
        self._norm = weights[f"{at}.norm.weight"], weights[f"{at}.norm.bias"]
        self._inner = _transposed(weights[f"{at}.to_qkv.weight"])
        self._outer = _transposed(weights[f"{at}.to_out.weight"])
        rates = weights[f"{at}.rel_pos.inv_freq"]
        angles = np.arange(window, dtype=np.float32)[:, None] * rates
        angles = np.concatenate((angles, angles), axis=1)
        self._turn = np.cos(angles), np.sin(angles)
        self.window = self.step = self.up = window
        self.channels = self.values = len(self._outer)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        length = steps * self.window
        signal = np.concatenate((held, x))[:length]
        centred = signal - signal.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(_NORM_EPSILON))
        wanted = (centred / deviation * self._norm[0] + self._norm[1]) @ self._inner
        q, k, v = (
            part.reshape(steps, self.window, -1, ATTENTION_HEAD).transpose(0, 2, 1, 3)
            for part in np.split(wanted, 3, axis=1)
        )  # windows, heads, frames, channels
        turned = []
        for part in (q, k):
            low, high = np.split(part, 2, axis=3)
            turned.append(part * self._turn[0] + np.concatenate((-high, low), axis=3) * self._turn[1])
        weights = turned[0] @ turned[1].swapaxes(2, 3) * np.float32(ATTENTION_HEAD**-0.5)
        weights = np.exp(weights - weights.max(axis=3, keepdims=True))
        weights /= weights.sum(axis=3, keepdims=True)
        heard = (weights @ v).transpose(0, 2, 1, 3).reshape(length, -1)
        np.matmul(heard, self._outer, out=out)
        out += signal
        return np.asarray(out)


class Output(Stage):
    """The last snake, a convolution to one channel, and tanh."""

    def __init__(self, arena: Arena, weights: Weights, snake: str, at: str) -> None:
        self._arena, self._snake = arena, _snake(weights[f"{snake}.alpha"])
        self._weight, self._bias = weights[f"{at}.weight"][0], float(weights[f"{at}.bias"][0])
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.channels, self.values = 1, len(self._weight)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int, out: Any) -> np.ndarray:
        """See ``Stage.run``."""
        take, rows = self._arena.take, max(_LEAST_ROWS, _TILE_VALUES // self.values)
        kernels.output(
            held, x, self._snake, self._weight, self._bias, LIBRARY.routine,
            take(rows + _TAPS - 1, self.values), take(rows + _TAPS - 1, _TAPS), out,
        )  # fmt: skip
        return np.tanh(out, out=out)  # type: ignore[no-any-return]


def encoder_stages(config: WaveformConfig, weights: Weights, arena: Arena) -> list[Stage]:
    """From samples (T, 1) to latents (T / hop, C)."""
    first = _transposed(weights["encoder.block.0.weight"][:, 0])
    stages: list[Stage] = [
        Layer(
            arena, kernels.spread, (first, weights["encoder.block.0.bias"]), (), channels=first.shape[1],
            values=first.shape[1], window=_TAPS, history=_TAPS // 2, tail=_TAPS // 2,
        )
    ]  # fmt: skip
    for number, stride in enumerate(config.encoder_rates, 1):
        at = f"encoder.block.{number}.block"
        for place, dilation in enumerate(_DILATIONS):
            if config.depthwise:
                stages.append(_unit(arena, weights, f"{at}.{place}", dilation))
            else:
                stages.append(FullUnit(weights, f"{at}.{place}", dilation))
        stages.append(Down(arena, weights, f"{at}.3", f"{at}.4", stride))
    number = len(config.encoder_rates) + 1
    if config.attn_window_size is not None:
        stages.append(Attention(weights, f"encoder.block.{number}", config.attn_window_size))
        number += 1
    convolution = Convolution if config.depthwise else FullConvolution
    stages.append(convolution(weights, f"encoder.block.{number}"))
    return stages


def decoder_stages(config: WaveformConfig, weights: Weights, arena: Arena) -> list[Stage]:
    """From latents (T, C) to samples (T hop, 1)."""
    convolution = Convolution if config.depthwise else FullConvolution
    stages: list[Stage] = [convolution(weights, "decoder.model.0")]
    number = 1
    if config.depthwise:
        product = _transposed(weights["decoder.model.1.weight"][:, :, 0])
        data = product, weights["decoder.model.1.bias"]
        stages.append(
            Layer(arena, kernels.dense, data, (), channels=product.shape[1], values=max(product.shape))
        )
        number = 2
    if config.attn_window_size is not None:
        stages.append(Attention(weights, f"decoder.model.{number}", config.attn_window_size))
        number += 1
    for layer, stride in enumerate(config.decoder_rates):
        at = f"decoder.model.{number + layer}.block"
        stages.append(Up(arena, weights, f"{at}.0", f"{at}.1", stride))
        place = 2
        if config.noise:
            stages.append(NoiseBlock(weights, f"{at}.{place}", layer))
            place += 1
        for unit, dilation in enumerate(_DILATIONS, place):
            if config.depthwise:
                stages.append(_unit(arena, weights, f"{at}.{unit}", dilation))
            else:
                stages.append(FullUnit(weights, f"{at}.{unit}", dilation))
    number += len(config.decoder_rates)
    stages.append(Output(arena, weights, f"decoder.model.{number}", f"decoder.model.{number + 1}"))
    return stages
