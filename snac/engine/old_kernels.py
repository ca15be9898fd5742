"""Layers of the inference form as few passes over memory, compiled by numba for the processor they run on.

Most of a codec's time on a CPU goes into reading and writing activations; here a residual unit's first snake,
depthwise convolution and second snake cost one reading and one writing. All arrays are float32, C-contiguous,
channels by time. The kernels release the interpreter lock and use one thread each.

The snake x + sin^2(a x) / a is computed as x + s sin^2(pi r) with s = 1 / a and r = a x / pi less its nearest
integer: sin^2 has the period pi, and on that period it is r^2 times a polynomial in r^2 (least-squares fit at
Chebyshev nodes; within 3e-7 in float32). Below, ``rate`` is a / pi and ``scale`` is 1 / a.

Strided and transposed convolutions of twice as many taps as their stride are sums of two matrix products a
frame, y[f] = W0 d[f] + W1 d[f + 1]. For two frames at once three products suffice (Winograd 1980,
"Arithmetic Complexity of Computations", F(2, 2)): m0 = W0 (d0 - d1), m1 = (W0 + W1) d1, m2 = W1 (d1 - d2)
give y0 = m0 + m1 and y1 = m1 - m2. The ``split`` kernels write the right sides, the ``join`` kernels the
sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c)
    for c in (9.8696041107, -32.469669342, 42.72719574, -30.101465225, 13.050099373, -3.3565926552)
)
_ROUND = np.float32(1.5 * 2**23)  # added and taken off again, it rounds to the nearest integer
_HALF = np.float32(0.5)
# Fused multiply-add alone: reassociation would undo the rounding.
_FAST = {"contract", "nsz"}

KERNEL = 7
"""Taps of the depthwise convolutions."""


def interpreted() -> bool:
    """Whether numba was told not to compile, and the kernels would be slower than any other way."""
    return bool(getattr(numba.config, "DISABLE_JIT", False))


def _inlined(function: Callable[..., Any]) -> Any:
    return numba.njit(fastmath=_FAST, inline="always")(function)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compiled at the first call on a machine, then kept beside the package or in the user's cache."""
    try:
        return numba.njit(fastmath=_FAST, nogil=True, cache=True)(function)
    except RuntimeError:  # neither place can be written
        return numba.njit(fastmath=_FAST, nogil=True)(function)


def _snaked_(x: Any, rate: Any, scale: Any) -> Any:
    turns = x * rate
    rest = turns - ((turns + _ROUND) - _ROUND)
    rest = min(max(rest, -_HALF), _HALF)  # beyond 2^22 turns nothing is left to round
    u = rest * rest
    return x + scale * (u * (_C1 + u * (_C2 + u * (_C3 + u * (_C4 + u * (_C5 + u * _C6))))))


_snaked = _inlined(_snaked_)


def _unit(
    x: Any, shift: Any, snake1: Any, weight: Any, bias: Any, snake2: Any, dilation: int, out: Any
) -> None:
    channels, length = x.shape
    pad = 3 * dilation
    line = np.zeros(length + 2 * pad, dtype=np.float32)
    for c in range(channels):
        row, rate, scale, add = x[c], snake1[0, c], snake1[1, c], shift[c]
        for t in range(length):
            line[pad + t] = _snaked(row[t], rate, scale)
            row[t] += add
        w0, w1, w2, w3 = weight[c, 0], weight[c, 1], weight[c, 2], weight[c, 3]
        w4, w5, w6, b = weight[c, 4], weight[c, 5], weight[c, 6], bias[c]
        to, rate, scale = out[c], snake2[0, c], snake2[1, c]
        for t in range(length):
            y = b + w0 * line[t] + w1 * line[t + dilation] + w2 * line[t + 2 * dilation]
            y += w3 * line[t + 3 * dilation] + w4 * line[t + 4 * dilation]
            y += w5 * line[t + 5 * dilation] + w6 * line[t + 6 * dilation]
            to[t] = _snaked(y, rate, scale)


_unit_inlined = _inlined(_unit)


def _depthwise_unit(
    x: Any, shift: Any, snake1: Any, weight: Any, bias: Any, snake2: Any, dilation: int, out: Any
) -> None:
    """Snake, depthwise convolution of seven taps, snake: from ``x`` to ``out``, both (C, T).

    Args:
        x: gets ``shift`` added, the bias of the product that the caller adds to it next.
        shift: (C).
        snake1, snake2: (2, C), rates and scales.
        weight: (C, 7).
        bias: (C).
        dilation: 1, 3 or 9: as constants they let the compiler see that the taps lie in one array.
        out: overwritten.
    """
    if dilation == 1:
        _unit_inlined(x, shift, snake1, weight, bias, snake2, 1, out)
    elif dilation == 3:
        _unit_inlined(x, shift, snake1, weight, bias, snake2, 3, out)
    else:
        _unit_inlined(x, shift, snake1, weight, bias, snake2, 9, out)


def _split_frames(x: Any, snake: Any, out: Any) -> None:
    """Right sides of a transposed convolution's products, after a snake.

    Args:
        x: (C, F).
        snake: (2, C), rates and scales.
        out: (3, C, P), P = F // 2 + 1 pairs of the F + 1 overlapping frames.
    """
    channels, frames = x.shape
    pairs = out.shape[2]
    line = np.zeros(2 * pairs + 1, dtype=np.float32)
    for c in range(channels):
        row, rate, scale = x[c], snake[0, c], snake[1, c]
        for f in range(frames):
            line[f + 1] = _snaked(row[f], rate, scale)
        for i in range(pairs):
            d0, d1, d2 = line[2 * i], line[2 * i + 1], line[2 * i + 2]
            out[0, c, i] = d0 - d1
            out[1, c, i] = d1
            out[2, c, i] = d1 - d2


def _join_samples(products: Any, bias: Any, first: int, out: Any) -> None:
    """Samples of a transposed convolution from its products.

    Args:
        products: (3, S, C, P).
        bias: (C).
        first: samples to leave out at the start.
        out: (C, S F), overwritten.
    """
    stride, channels, pairs = products.shape[1:]
    length = out.shape[1]
    # All but the ends, where some samples of a pair of frames lie outside.
    inner = (length + first) // (2 * stride)
    for c in range(channels):
        to, add = out[c], bias[c]
        for p in range(stride):
            m0, m1, m2 = products[0, p, c], products[1, p, c], products[2, p, c]
            even = p - first
            odd = even + stride
            if even >= 0:
                to[even] = m0[0] + m1[0] + add
            if odd < length:
                to[odd] = m1[0] - m2[0] + add
            for i in range(1, inner):
                to[2 * stride * i + even] = m0[i] + m1[i] + add
                to[2 * stride * i + odd] = m1[i] - m2[i] + add
            for i in range(max(inner, 1), pairs):
                if 2 * stride * i + even < length:
                    to[2 * stride * i + even] = m0[i] + m1[i] + add
                if 2 * stride * i + odd < length:
                    to[2 * stride * i + odd] = m1[i] - m2[i] + add


def _split_phases(x: Any, snake: Any, pad: int, out: Any) -> None:
    """Right sides of a strided convolution's products, after a snake.

    Args:
        x: (C, S F).
        snake: (2, C), rates and scales.
        pad: zeros before the signal.
        out: (3, S, C, P), P = (F + 1) // 2.
    """
    channels, length = x.shape
    stride, pairs = out.shape[1], out.shape[3]
    line = np.zeros((2 * pairs + 1) * stride, dtype=np.float32)
    for c in range(channels):
        row, rate, scale = x[c], snake[0, c], snake[1, c]
        for t in range(length):
            line[pad + t] = _snaked(row[t], rate, scale)
        for p in range(stride):
            for i in range(pairs):
                at = 2 * stride * i + p
                d0, d1, d2 = line[at], line[at + stride], line[at + 2 * stride]
                out[0, p, c, i] = d0 - d1
                out[1, p, c, i] = d1
                out[2, p, c, i] = d1 - d2


def _join_frames(products: Any, bias: Any, out: Any) -> None:
    """Frames of a strided convolution, ``out`` (C, F), from its products (3, C, P)."""
    channels, frames = out.shape
    for c in range(channels):
        m0, m1, m2, add, to = products[0, c], products[1, c], products[2, c], bias[c], out[c]
        for i in range(frames // 2):
            to[2 * i] = m0[i] + m1[i] + add
            to[2 * i + 1] = m1[i] - m2[i] + add
        if frames % 2:
            to[frames - 1] = m0[frames // 2] + m1[frames // 2] + add


def _output(x: Any, snake: Any, weight: Any, bias: float, out: Any) -> None:
    """Snake and a convolution of seven taps to one channel: ``x`` (C, T), ``weight`` (C, 7), ``out`` (T)."""
    channels, length = x.shape
    line = np.zeros(length + 6, dtype=np.float32)
    out[:] = bias
    for c in range(channels):
        row, rate, scale = x[c], snake[0, c], snake[1, c]
        for t in range(length):
            line[t + 3] = _snaked(row[t], rate, scale)
        w0, w1, w2, w3 = weight[c, 0], weight[c, 1], weight[c, 2], weight[c, 3]
        w4, w5, w6 = weight[c, 4], weight[c, 5], weight[c, 6]
        for t in range(length):
            y = w0 * line[t] + w1 * line[t + 1] + w2 * line[t + 2] + w3 * line[t + 3]
            out[t] += y + w4 * line[t + 4] + w5 * line[t + 5] + w6 * line[t + 6]


def _add_scaled(x: Any, product: Any, factors: Any) -> None:
    """x += product * factors, where ``x`` and ``product`` are (C, T), and ``factors`` (T)."""
    channels, length = x.shape
    for c in range(channels):
        to, row = x[c], product[c]
        for t in range(length):
            to[t] += row[t] * factors[t]


depthwise_unit = _compiled(_depthwise_unit)
split_frames = _compiled(_split_frames)
join_samples = _compiled(_join_samples)
split_phases = _compiled(_split_phases)
join_frames = _compiled(_join_frames)
output = _compiled(_output)
add_scaled = _compiled(_add_scaled)
