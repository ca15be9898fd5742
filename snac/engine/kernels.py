"""Layers of the published form as few passes over memory, compiled for the processor at hand (``snac.jit``).

All arrays are float32, C-contiguous, times by channels. Inputs come in two arrays, ``held`` (m, C) of what
was kept from before and ``x`` (n, C) of what follows; kernels read them as one signal of m + n times, and
write as many outputs as fit into it, without any padding. ``routine`` is that of ``snac.products``.

The snake x + sin^2(a x) / a is computed as x + s sin^2(pi r) with s = 1 / a and r = a x / pi less its nearest
integer: sin^2 has the period pi, and on that period it is r^2 times a polynomial in r^2 (least-squares fit at
Chebyshev nodes; within 3e-7 in float32). ``snake`` (2, C) has the rates a / pi and the scales 1 / a.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from snac.jit import compiled, inlined, multiply_by, part

_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c)
    for c in (9.8696041107, -32.469669342, 42.72719574, -30.101465225, 13.050099373, -3.3565926552)
)
_HALF = np.float32(0.5)
# Fused multiply-add alone: reassociation would undo the rounding.
FAST = frozenset({"contract", "nsz"})

_STRIP, _LEAST_ROWS = 1 << 17, 128  # values, and times, for which a product stays in the cache
_CHUNK = 512  # columns of a few rows that stay in the cache nearest to the processor

TAPS = 7
"""Taps of the convolutions that keep the rate."""


@inlined
def _snaked(x: Any, rate: Any, scale: Any) -> Any:
    turns = x * rate
    rest = turns - np.floor(turns + _HALF)
    u = rest * rest
    return x + scale * (u * (_C1 + u * (_C2 + u * (_C3 + u * (_C4 + u * (_C5 + u * _C6))))))


@part
def multiply(routine: int, a: Any, b: Any, out: Any, add: bool) -> None:
    """``out`` = a b, or, to ``add``, out + a b."""
    if routine != 0:
        multiply_by(routine, a, b, out, add)
        return
    for i in range(a.shape[0]):
        to = out[i]
        if not add:
            for j in range(to.size):
                to[j] = 0
        for k in range(a.shape[1]):
            factor, row = a[i, k], b[k]
            for j in range(to.size):
                to[j] += factor * row[j]


@part
def snake_rows(held: Any, x: Any, first: int, last: int, snake: Any, out: Any) -> None:
    """The snake of the signal from ``first`` to ``last``, to the first rows of ``out``."""
    kept, rate, scale = held.shape[0], snake[0], snake[1]
    for t in range(first, min(last, kept)):
        row, to = held[t], out[t - first]
        for c in range(row.size):
            to[c] = _snaked(row[c], rate[c], scale[c])
    for t in range(max(first, kept), last):
        row, to = x[t - kept], out[t - first]
        for c in range(row.size):
            to[c] = _snaked(row[c], rate[c], scale[c])


@part
def fill_rows(row: Any, out: Any) -> None:
    """Sets each row of ``out``."""
    for t in range(out.shape[0]):
        to = out[t]
        for c in range(to.size):
            to[c] = row[c]


@compiled(
    "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:]", "f4[:,:]", "i8", "f4[:,:]", "f4[:]", "i8",
    "f4[:,:]", "f4[:,:]", "f4[:,:]", fastmath=FAST,
)  # fmt: skip
def unit(
    held: Any, x: Any, snake1: Any, weight: Any, bias: Any, snake2: Any, dilation: int, product: Any,
    shift: Any, routine: int, rows: Any, middle: Any, out: Any,
) -> None:  # fmt: skip
    """A residual unit: snake, depthwise convolution, snake, product, and the signal itself added.

    Args:
        held, x: the signal.
        snake1, snake2: (2, C).
        weight: (7, C).
        bias: (C) of the convolution.
        dilation: times from one tap to the next.
        product: (C, C).
        shift: (C), the bias of the product.
        routine: of the product.
        rows: scratch, (times of the signal, C).
        middle: scratch, (some, C): outputs that are computed at once.
        out: (some, C).
    """
    kept, length, most = held.shape[0], out.shape[0], middle.shape[0]
    w0, w1, w2, w3, w4, w5, w6 = weight[0], weight[1], weight[2], weight[3], weight[4], weight[5], weight[6]
    rate, scale = snake2[0], snake2[1]
    snake_rows(held, x, 0, length + 6 * dilation, snake1, rows)
    # Some rows at a time, so that the product finds them in the cache.
    for first in range(0, length, most):
        last = min(length, first + most)
        for t in range(first, last):
            r0, r1, r2, r3 = rows[t], rows[t + dilation], rows[t + 2 * dilation], rows[t + 3 * dilation]
            r4, r5, r6 = rows[t + 4 * dilation], rows[t + 5 * dilation], rows[t + 6 * dilation]
            to, result = middle[t - first], out[t]
            centre = t + 3 * dilation
            row = held[centre] if centre < kept else x[centre - kept]
            for c in range(to.size):
                y = bias[c] + w0[c] * r0[c] + w1[c] * r1[c] + w2[c] * r2[c] + w3[c] * r3[c]
                y += w4[c] * r4[c] + w5[c] * r5[c] + w6[c] * r6[c]
                to[c] = _snaked(y, rate[c], scale[c])
                result[c] = row[c] + shift[c]
        multiply(routine, middle[: last - first], product, out[first:last], True)


@compiled(
    "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:,:]", "f4[:]", "i8", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]",
    "f4[:,:]", fastmath=FAST,
)  # fmt: skip
def resample(
    held: Any, x: Any, snake: Any, products: Any, bias: Any, routine: int,
    rows: Any, frames: Any, first: Any, second: Any, out: Any,
) -> None:  # fmt: skip
    """A snake and a strided or transposed convolution of twice as many taps as its stride S.

    Both are sums of two products a frame, y[f] = W0 d[f] + W1 d[f + 1]: frames d of S times for a strided
    convolution, frames y of S times for a transposed one. For two frames at once three products suffice
    (Winograd 1980, "Arithmetic Complexity of Computations", F(2, 2)): y0 = W0 (d0 - d1) + (W0 + W1) d1 and
    y1 = W1 (d2 - d1) + (W0 + W1) d1. For a few frames the plain sums are faster: they read less of the
    weights, which is then most of the work.

    Args:
        held, x: (m, C) and (n, C).
        snake: (2, C).
        products: (3, K, N): W0, W0 + W1 and W1, transposed.
        bias: (N).
        routine: of the products.
        rows: scratch, C values a row.
        frames: the same memory with K values a row; F + 2 rows for F frames that are computed at once.
        first, second: scratch, (F / 2, K) each for three products, no rows for plain sums.
        out: (some, N).
    """
    length, inner, most = out.shape[0], frames.shape[1], frames.shape[0] - 2
    stride = inner // x.shape[1]
    for begin in range(0, length, most):
        count = min(most, length - begin)
        snake_rows(held, x, begin * stride, (begin + count + 1) * stride, snake, rows)
        to = out[begin : begin + count]
        if first.shape[0] == 0:
            fill_rows(bias, to)
            multiply(routine, frames[:count], products[0], to, True)
            multiply(routine, frames[1 : count + 1], products[2], to, True)
        else:
            _pairwise(frames, products, bias, routine, first, second, to)


@part
def _pairwise(frames: Any, products: Any, bias: Any, routine: int, first: Any, second: Any, out: Any) -> None:
    """The frames of :func:`resample` by three products for two of them."""
    count, inner = out.shape[0], frames.shape[1]
    pairs = (count + 1) // 2
    if count % 2:
        end = frames[count + 1]
        for k in range(inner):
            end[k] = 0
    for i in range(pairs):
        d0, d1, d2, to, other = frames[2 * i], frames[2 * i + 1], frames[2 * i + 2], first[i], second[i]
        for k in range(inner):
            to[k] = d0[k] - d1[k]
            other[k] = d2[k] - d1[k]
    even, odd = out[0::2], out[1::2]
    multiply(routine, frames[1 : 2 * pairs : 2], products[1], even, False)
    for i in range(pairs):
        to = even[i]
        for k in range(to.size):
            to[k] += bias[k]
        if i < odd.shape[0]:
            other = odd[i]
            for k in range(to.size):
                other[k] = to[k]
    multiply(routine, first[:pairs], products[0], even, True)
    multiply(routine, second[: odd.shape[0]], products[2], odd, True)


@compiled(
    "f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:,:]", "f8", "i8", "f4[:,:]", "f4[:,:]", "f4[:,:]", fastmath=FAST
)  # fmt: skip
def output(
    held: Any, x: Any, snake: Any, weight: Any, bias: float, routine: int, rows: Any, products: Any, out: Any
) -> None:
    """A snake and a convolution of seven taps to one channel.

    Args:
        held, x: (m, C) and (n, C).
        snake: (2, C).
        weight: (C, 7).
        bias: of the one channel.
        routine: of the product.
        rows: scratch, (n + 6, C), for n outputs that are computed at once.
        products: scratch, (n + 6, 7).
        out: (some, 1).
    """
    most = rows.shape[0] - 6
    for first in range(0, out.shape[0], most):
        last = min(out.shape[0], first + most)
        count = last - first + 6
        snake_rows(held, x, first, last + 6, snake, rows)
        multiply(routine, rows[:count], weight, products[:count], False)
        for t in range(last - first):
            y = np.float32(bias)
            for tap in range(7):
                y += products[t + tap, tap]
            out[first + t, 0] = y


@compiled("f4[:,:]", "f4[:,:]", "f4[:]", "i8", "f4[:,:]", fastmath=FAST)
def noisy(x: Any, linear: Any, noise: Any, routine: int, out: Any) -> None:
    """``x`` (T, C) and, added to it, ``x`` times ``linear`` (C, C) times ``noise`` (T): ``out`` (T, C)."""
    most = max(_LEAST_ROWS, _STRIP // x.shape[1])
    for first in range(0, x.shape[0], most):
        last = min(x.shape[0], first + most)
        multiply(routine, x[first:last], linear, out[first:last], False)
        for t in range(first, last):
            to, row, factor = out[t], x[t], noise[t]
            for c in range(to.size):
                to[c] = row[c] + to[c] * factor


@compiled("f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:]", "i8", "f4[:,:]", fastmath=FAST)
def dense(held: Any, x: Any, weight: Any, bias: Any, routine: int, out: Any) -> None:
    """A linear layer: ``x`` (T, C) times ``weight`` (C, C') plus ``bias`` (C') is ``out`` (T, C')."""
    fill_rows(bias, out)
    multiply(routine, x, weight, out, True)


@compiled("f4[:,:]", "f4[:,:]", "f4[:,:]", "f4[:]", "i8", "f4[:,:]", fastmath=FAST)
def spread(held: Any, x: Any, weight: Any, bias: Any, routine: int, out: Any) -> None:
    """A convolution of seven taps from one channel to many: ``weight`` (7, C), ``bias`` (C)."""
    kept = held.shape[0]
    w0, w1, w2, w3, w4, w5, w6 = weight[0], weight[1], weight[2], weight[3], weight[4], weight[5], weight[6]
    for t in range(out.shape[0]):
        to = out[t]
        s0 = held[t, 0] if t < kept else x[t - kept, 0]
        s1 = held[t + 1, 0] if t + 1 < kept else x[t + 1 - kept, 0]
        s2 = held[t + 2, 0] if t + 2 < kept else x[t + 2 - kept, 0]
        s3 = held[t + 3, 0] if t + 3 < kept else x[t + 3 - kept, 0]
        s4 = held[t + 4, 0] if t + 4 < kept else x[t + 4 - kept, 0]
        s5 = held[t + 5, 0] if t + 5 < kept else x[t + 5 - kept, 0]
        s6 = held[t + 6, 0] if t + 6 < kept else x[t + 6 - kept, 0]
        for c in range(to.size):
            y = bias[c] + w0[c] * s0 + w1[c] * s1 + w2[c] * s2 + w3[c] * s3
            to[c] = y + w4[c] * s4 + w5[c] * s5 + w6[c] * s6


@compiled("f4[:,:]", "f4[:,:]", "f4[:,:]", fastmath=FAST)
def snaked(x: Any, snake: Any, out: Any) -> None:
    """The snake of ``x`` (T, C) with ``snake`` (2, C)."""
    snake_rows(x[:0], x, 0, x.shape[0], snake, out)


@compiled("f4[:,:]", "f4[:,:]", "f4[:,:]", fastmath=FAST)
def add_few(x: Any, weight: Any, out: Any) -> None:
    """Adds ``x`` (n, C) times ``weight`` (C, C') to ``out`` (n, C'), for a few rows n.

    A BLAS reorders the weights in memory before it computes. For a few rows, as a stream has them at the rate
    of the latents, that takes longer than the products: here the weights are read once.
    """
    rows, inner, columns = x.shape[0], x.shape[1], out.shape[1]
    for first in range(0, columns, _CHUNK):
        last = min(columns, first + _CHUNK)
        for k in range(0, inner - 3, 4):
            b0, b1 = weight[k, first:last], weight[k + 1, first:last]
            b2, b3 = weight[k + 2, first:last], weight[k + 3, first:last]
            for i in range(rows):
                f0, f1, f2, f3, to = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3], out[i, first:last]
                for j in range(to.size):
                    to[j] += (f0 * b0[j] + f1 * b1[j]) + (f2 * b2[j] + f3 * b3[j])
        for k in range(inner - inner % 4, inner):
            row = weight[k, first:last]
            for i in range(rows):
                factor, to = x[i, k], out[i, first:last]
                for j in range(to.size):
                    to[j] += factor * row[j]
