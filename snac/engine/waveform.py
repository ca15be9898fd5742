"""The published form: its layers as stages, built from the arrays of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snac.config import ATTENTION_HEAD, WaveformConfig
from snac.engine import kernels
from snac.engine.arena import Arena
from snac.engine.chain import Stage
from snac.engine.products import library
from snac.engine.weights import Weights
from snac.jit import Kernel
from snac.noise import Noise

_TAPS = kernels.TAPS
_DILATIONS = (1, 3, 9)
_TILE_VALUES, _LEAST_ROWS = 1 << 15, 128  # activations, and times, that a unit puts into one product
_FEW = 8  # frames up to which the weights are best read once
_PAIRWISE = 48  # frames from which on three products for two frames are faster than four
_NORM_EPSILON = 1e-5  # of the attention's layer norm

KERNELS: tuple[Kernel, ...] = (
    kernels.unit, kernels.resample, kernels.output, kernels.noisy, kernels.dense, kernels.snaked,
    kernels.add_few,
)  # fmt: skip
"""What a depthwise model needs compiled."""


class First(Stage):
    """The first convolution, of seven taps, from one channel to many: a product with what it spans."""

    def __init__(self, arena: Arena, weights: Weights) -> None:
        self._arena = arena
        self._weight, self._bias = _transposed(weights.weight()[:, 0]), weights["bias"]
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.values = len(self._bias)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        spans, out = self._arena.take(steps, _TAPS), self._arena.take(steps, self.values)
        signal = self._arena.joined((held, x))[:, 0]
        spans[:] = np.lib.stride_tricks.sliding_window_view(signal, _TAPS)
        kernels.dense(spans, self._weight, self._bias, library().routine, out)
        return out


class Convolution(Stage):
    """A convolution of seven taps of each channel by itself, at the rate of the latents."""

    def __init__(self, arena: Arena, weights: Weights) -> None:
        self._arena = arena
        self._weight, self._bias = _transposed(weights.weight()[:, 0]), weights["bias"]
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.values = len(self._bias)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        signal, out = self._arena.joined((held, x)), self._arena.take(steps, self.values)
        out[:] = self._bias
        for tap, weight in enumerate(self._weight):
            out += weight * signal[tap : tap + steps]
        return out


class FullConvolution(Stage):
    """A convolution of seven taps of all channels to all."""

    def __init__(self, arena: Arena, weights: Weights) -> None:
        self._arena = arena
        self._taps, self._bias = _taps(weights), weights["bias"]
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.values = max(self._taps.shape[1:])

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        return _convolved(self._arena.joined((held, x)), self._taps, self._bias, 1, steps)


class Pointwise(Stage):
    """A linear layer at each time."""

    def __init__(self, arena: Arena, weights: Weights) -> None:
        self._arena = arena
        self._weight, self._bias = _transposed(weights.weight()[:, :, 0]), weights["bias"]
        self.values = max(self._weight.shape)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        out = self._arena.take(steps, len(self._bias))
        kernels.dense(x, self._weight, self._bias, library().routine, out)
        return out


class Unit(Stage):
    """A depthwise residual unit."""

    def __init__(self, arena: Arena, weights: Weights, dilation: int) -> None:
        self._arena = arena
        first, filtered, second, product = (weights.within("block", number) for number in range(4))
        self._snakes = first.snake(), second.snake()
        self._weight, self._bias = _transposed(filtered.weight()[:, 0]), filtered["bias"]
        self._product, self._shift = _transposed(product.weight()[:, :, 0]), product["bias"]
        self._dilation = dilation
        self.window, self.history, self.tail = 6 * dilation + 1, 3 * dilation, 3 * dilation
        self.values = len(self._bias)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        take = self._arena.take
        rows = min(steps, max(_LEAST_ROWS, _TILE_VALUES // self.values))
        out, middle = take(steps, self.values), take(rows, self.values)
        kernels.unit(
            held, x, self._snakes[0], self._weight, self._bias, self._snakes[1], self._dilation,
            self._product, self._shift, library().routine, take(len(held) + len(x), self.values), middle, out,
        )  # fmt: skip
        return out


class FullUnit(Stage):
    """A residual unit whose convolution is of all channels to all."""

    def __init__(self, arena: Arena, weights: Weights, dilation: int) -> None:
        self._arena = arena
        first, filtered, second, product = (weights.within("block", number) for number in range(4))
        self._snakes = first.snake(), second.snake()
        self._taps, self._bias = _taps(filtered), filtered["bias"]
        self._product, self._shift = _transposed(product.weight()[:, :, 0]), product["bias"]
        self._dilation = dilation
        self.window, self.history, self.tail = 6 * dilation + 1, 3 * dilation, 3 * dilation
        self.values = len(self._bias)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        centre, signal = 3 * self._dilation, self._arena.joined((held, x))
        snaked, out = self._arena.take(*signal.shape), self._arena.take(steps, self.values)
        kernels.snaked(signal, self._snakes[0], snaked)
        middle = _convolved(snaked, self._taps, self._bias, self._dilation, steps)
        kernels.snaked(middle, self._snakes[1], out)
        np.matmul(out, self._product, out=middle)
        middle += signal[centre : centre + steps]
        middle += self._shift
        return middle


def _transposed(matrix: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matrix.T)


def _taps(weights: Weights) -> np.ndarray:
    """A convolution's weight (C', C, taps) as one matrix (C, C') a tap."""
    return np.ascontiguousarray(weights.weight().transpose(2, 1, 0))


def _convolved(x: np.ndarray, taps: np.ndarray, bias: np.ndarray, dilation: int, length: int) -> np.ndarray:
    """(T, C) to (length, C'): a sum of one product a tap."""
    total: np.ndarray = x[:length] @ taps[0] + bias
    for number, tap in enumerate(taps[1:], 1):
        total += x[number * dilation : number * dilation + length] @ tap
    return total


class _Resampling(Stage):
    """A snake and a convolution that changes the rate by its stride, of twice as many taps.

    Args:
        early, late: what the convolution makes of the earlier and of the later of two neighbouring frames,
            each (K, N): K values a frame going in, N coming out.
        bias: (N).
    """

    def __init__(
        self, arena: Arena, snake: Weights, early: np.ndarray, late: np.ndarray, bias: np.ndarray
    ) -> None:
        self._arena, self._snake, self._bias = arena, snake.snake(), bias
        self._products = np.stack((early, early + late, late))

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        if steps <= _FEW:
            return self._run_few(held, x, steps)
        take, inner = self._arena.take, self._products.shape[1]
        pairs = (steps + 1) // 2 if steps >= _PAIRWISE else 0
        count = max(steps + 2, -(-(len(held) + len(x)) // self.step))
        frames = take(count, inner)
        out = take(steps, len(self._bias))
        kernels.resample(
            held, x, self._snake, self._products, self._bias, library().routine,
            frames.reshape(count * self.step, -1), frames, take(pairs, inner), take(pairs, inner), out,
        )  # fmt: skip
        return out.reshape(steps * self.up, -1)

    def _run_few(self, held: np.ndarray, x: np.ndarray, steps: int) -> np.ndarray:
        """The same for so few frames that reading the weights is most of the work."""
        signal = self._arena.joined((held, x))[: (steps + 1) * self.step]
        rows, out = self._arena.take(*signal.shape), self._arena.take(steps, len(self._bias))
        kernels.snaked(signal, self._snake, rows)
        frames = rows.reshape(steps + 1, -1)
        out[:] = self._bias
        kernels.add_few(frames[:-1], self._products[0], out)
        kernels.add_few(frames[1:], self._products[2], out)
        return out.reshape(steps * self.up, -1)


class Down(_Resampling):
    """A snake and a strided convolution of twice as many taps as its stride."""

    def __init__(self, arena: Arena, snake: Weights, weights: Weights, stride: int) -> None:
        taps = weights.weight().transpose(2, 1, 0)  # 2S C C'
        early, late = (half.reshape(-1, taps.shape[2]) for half in np.split(taps, 2))
        super().__init__(arena, snake, early, late, weights["bias"])
        pad = (stride + 1) // 2
        self.window, self.step, self.history, self.tail = 2 * stride, stride, pad, stride - pad
        self.values = taps.shape[1]


class Up(_Resampling):
    """A snake and a transposed convolution of twice as many taps as its stride."""

    def __init__(self, arena: Arena, snake: Weights, weights: Weights, stride: int) -> None:
        taps = weights.weight().transpose(0, 2, 1)  # C 2S C'
        early, late = (half.reshape(len(taps), -1) for half in np.split(taps, 2, axis=1))
        # A frame's samples come from itself and, their second half, from the frame before.
        super().__init__(arena, snake, late, early, np.tile(weights["bias"], stride))
        self.window, self.up, self.history, self.tail = 2, stride, 1, 1
        self.skip = (stride + 1) // 2
        self.values = max(taps.shape[0], taps.shape[2])


class NoiseBlock(Stage):
    """Noise times a linear function of the signal, added to it."""

    def __init__(self, arena: Arena, weights: Weights, layer: int) -> None:
        self._arena, self._layer = arena, layer
        self._linear = _transposed(weights.within("linear").weight()[:, :, 0])
        self._noise = Noise.none()
        self.values = len(self._linear)

    def of(self, noise: Noise) -> NoiseBlock:
        """The same block with other noise."""
        other = NoiseBlock.__new__(NoiseBlock)
        other.__dict__.update(self.__dict__, _noise=noise)
        return other

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``; changes ``x``."""
        noise = self._noise.draw(self._layer, position, steps)
        kernels.noisy(x, self._linear, noise, library().routine, self._arena.take(*x.shape))
        return x


class Attention(Stage):
    """Multi-head attention within windows that do not overlap, with a residual."""

    def __init__(self, arena: Arena, weights: Weights, window: int) -> None:
        self._arena = arena
        self._norm = weights.within("norm")["weight"], weights.within("norm")["bias"]
        self._inner = _transposed(weights.within("to_qkv")["weight"])
        self._outer = _transposed(weights.within("to_out")["weight"])
        rates = weights.within("rel_pos")["inv_freq"]
        angles = np.arange(window, dtype=np.float32)[:, None] * rates
        angles = np.concatenate((angles, angles), axis=1)
        self._turn = np.cos(angles), np.sin(angles)
        self.window = self.step = self.up = window
        self.values = len(self._outer)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        length = steps * self.window
        signal = self._arena.joined((held, x))[:length]
        centred = signal - signal.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(_NORM_EPSILON))
        wanted = (centred / deviation * self._norm[0] + self._norm[1]) @ self._inner
        q, k, v = (
            part.reshape(steps, self.window, -1, ATTENTION_HEAD).transpose(0, 2, 1, 3)
            for part in np.split(wanted, 3, axis=1)
        )  # windows, heads, frames, channels
        q, k = (self._turned(part) for part in (q, k))
        weights = q @ k.swapaxes(2, 3) * np.float32(ATTENTION_HEAD**-0.5)
        weights = np.exp(weights - weights.max(axis=3, keepdims=True))
        weights /= weights.sum(axis=3, keepdims=True)
        heard = (weights @ v).transpose(0, 2, 1, 3).reshape(length, -1)
        signal += heard @ self._outer
        return signal

    def _turned(self, x: np.ndarray) -> np.ndarray:
        low, high = np.split(x, 2, axis=3)
        turned: np.ndarray = x * self._turn[0] + np.concatenate((-high, low), axis=3) * self._turn[1]
        return turned


class Output(Stage):
    """The last snake, a convolution to one channel, and tanh."""

    def __init__(self, arena: Arena, snake: Weights, weights: Weights) -> None:
        self._arena, self._snake = arena, snake.snake()
        self._weight, self._bias = weights.weight()[0], float(weights["bias"][0])
        self.window, self.history, self.tail = _TAPS, _TAPS // 2, _TAPS // 2
        self.values = len(self._weight)

    def run(self, held: np.ndarray, x: np.ndarray, steps: int, position: int) -> np.ndarray:
        """See ``Stage.run``."""
        take, length = self._arena.take, len(held) + len(x)
        out = take(steps, 1)
        kernels.output(
            held, x, self._snake, self._weight, self._bias, library().routine,
            take(length, self.values), take(length, _TAPS), out,
        )  # fmt: skip
        np.tanh(out, out=out)
        return out


def encoder_stages(config: WaveformConfig, weights: Weights, arena: Arena) -> Iterator[Stage]:
    """From samples (T, 1) to latents (T / hop, C)."""
    layers = weights.within("encoder", "block")
    yield First(arena, layers.within(0))
    unit, convolution = _kinds(config)
    for number, stride in enumerate(config.encoder_rates, 1):
        block = layers.within(number, "block")
        for place, dilation in enumerate(_DILATIONS):
            yield unit(arena, block.within(place), dilation)
        yield Down(arena, block.within(3), block.within(4), stride)
    number = len(config.encoder_rates) + 1
    if config.attn_window_size is not None:
        yield Attention(arena, layers.within(number), config.attn_window_size)
        number += 1
    yield convolution(arena, layers.within(number))


def decoder_stages(config: WaveformConfig, weights: Weights, arena: Arena) -> Iterator[Stage]:
    """From latents (T, C) to samples (T hop, 1)."""
    layers = weights.within("decoder", "model")
    unit, convolution = _kinds(config)
    yield convolution(arena, layers.within(0))
    number = 1
    if config.depthwise:
        yield Pointwise(arena, layers.within(1))
        number = 2
    if config.attn_window_size is not None:
        yield Attention(arena, layers.within(number), config.attn_window_size)
        number += 1
    for layer, stride in enumerate(config.decoder_rates):
        block = layers.within(number + layer, "block")
        yield Up(arena, block.within(0), block.within(1), stride)
        place = 2
        if config.noise:
            yield NoiseBlock(arena, block.within(place), layer)
            place += 1
        for dilation in _DILATIONS:
            yield unit(arena, block.within(place), dilation)
            place += 1
    number += len(config.decoder_rates)
    yield Output(arena, layers.within(number), layers.within(number + 1))


def _kinds(config: WaveformConfig) -> tuple[type[Unit | FullUnit], type[Convolution | FullConvolution]]:
    return (Unit, Convolution) if config.depthwise else (FullUnit, FullConvolution)
