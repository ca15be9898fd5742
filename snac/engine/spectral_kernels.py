"""Layers of the spectral form, compiled: see ``snac.engine.kernels`` for what all kernels have in common.

Layer norms are over the channels at each time; their factors and shifts are part of the linear layer that
follows, where there is one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from snac.engine.kernels import fill_rows, multiply
from snac.jit import compiled, inlined, part

# Sums over channels may be taken in any order, several at once.
_FAST = frozenset({"contract", "nsz", "reassoc"})

_EPSILON = np.float32(1e-6)  # of the norms: snac.spectrum.NORM_EPSILON
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
