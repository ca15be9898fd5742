"""Powers of two and a quotient of 128 bits, in integers: parts of the kernel that both coders use."""

from __future__ import annotations

from typing import Any

import numpy as np

from snac.jit import inlined, part

OCTAVE = 32  # steps of `power` per factor of two
PEAK_BITS = 15  # of `power(0)`
WEIGHT_BITS = 16
WEIGHT = 1 << WEIGHT_BITS  # the sum of two weights that follow past success

S, I, L = np.float32, np.int32, np.int64  # noqa: E741
U, V = np.uint32, np.uint64

# A polynomial in i that rounds down to 2^15 * 2^(-i / 32), rounded, for i from 0 to 31. Its distance from
# the middle between two roundings is at least 0.03, that of float32 from it below 0.01.
P0, P1, P2, P3, P4 = (
    S(32768.52938531), S(-22711.50247403 / 2**5), S(7854.30644681 / 2**10),
    S(-1759.89815508 / 2**15), S(233.50648223 / 2**20),
)  # fmt: skip


@inlined
def power(step: Any) -> Any:
    """Returns 2^15 * 2^(-step / 32), rounded, then shifted right octave by octave; 0 from 512 on."""
    step = step if step < U(511) else U(511)
    i = S(I(step & U(31)))
    top = U(I(P0 + i * (P1 + i * (P2 + i * (P3 + i * P4)))))
    return I(U(top >> U(U(step >> U(5)) & U(15))))


@part
def _product(a: int, b: int) -> tuple[Any, Any]:
    """Multiplies two positive 64-bit integers to one of 128 bits: its high and its low half."""
    half, low_half = V(32), V(0xFFFFFFFF)
    a0, a1, b0, b1 = V(a) & low_half, V(a) >> half, V(b) & low_half, V(b) >> half
    low = a0 * b0
    left = a1 * b0 + (low >> half)
    right = a0 * b1 + (left & low_half)
    return a1 * b1 + (left >> half) + (right >> half), (right << half) | (low & low_half)


@part
def share(weight: int, a: int, b: int, c: int, d: int, rest: int) -> Any:
    """Returns ``share`` of docs/format.md, section 6.6, the successes being ``a * b`` and ``c * d``.

    The quotient has at most 17 bits; it is found by long division, which needs no number above 2^95.
    """
    first_high, first_low = _product(weight * a, b)
    second_high, second_low = _product((WEIGHT - weight) * c, d)
    low = first_low + second_low
    high = first_high + second_high + V(low < first_low)
    rest_high, rest_low, quotient = V(0), V(0), L(0)
    for bit in range(WEIGHT_BITS, -1, -1):
        rest_high = (rest_high << V(1)) | (rest_low >> V(63))
        rest_low = rest_low << V(1)
        quotient *= 2
        if ((WEIGHT - 2 * rest) >> bit) & 1:
            rest_low += first_low
            rest_high += first_high + V(rest_low < first_low)
        while rest_high > high or (rest_high == high and rest_low >= low):
            rest_high -= high + V(rest_low < low)
            rest_low -= low
            quotient += 1
    return rest + quotient
