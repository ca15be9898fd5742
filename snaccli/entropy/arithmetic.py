"""Exact arithmetic of the coders: codewords as integer points, powers of two, a quotient of 128 bits.

SNAC looks codewords up by cosine, so what matters of a codeword is its direction. Trained codebooks fill a
part of the sphere only; hence the points are centred and scaled to the spread of the codebook. So every
machine sees the same geometry. Powers and quotient are parts of the kernel that both coders use.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from snac.jit import inlined, part

Codebook = npt.NDArray[np.floating]
Points = npt.NDArray[np.int64]
Integer: TypeAlias = "int | np.integer[Any]"
"""What a kernel's parts take for a number: NumPy's where it comes out of an array."""

SPREAD = 128  # root of the mean square length of the points
LIMIT = 511  # no coordinate of a point is larger
FIXED_BITS = 20  # of a codeword's largest coordinate, before its length is taken
UNIT = 4096  # length of a direction, before centring


def points_of(codebook: Codebook) -> Points:
    """Returns the codewords as integer points (size, dim).

    Args:
        codebook: finite float32 numbers (size, dim); a codeword of zeros has no direction and stays zero.

    Raises:
        ValueError: the codebook is not a table of finite numbers.
    """
    if codebook.ndim != 2 or not codebook.size or not np.isfinite(codebook).all():
        raise ValueError("a codebook is not a table of finite numbers")
    size = len(codebook)
    words = codebook.astype(np.float32).astype(np.float64)
    _, exponents = np.frexp(np.abs(words).max(axis=1, keepdims=True))
    # Scaling by a power of two is exact, so rounding (half to even) is the only step that loses anything.
    fixed = np.rint(np.ldexp(words, FIXED_BITS - exponents)).astype(np.int64)
    directions = _divide(UNIT * fixed, integer_sqrt((fixed * fixed).sum(axis=1, keepdims=True)))
    centred = directions - _divide(directions.sum(axis=0), np.int64(size))
    spread = integer_sqrt((centred * centred).sum() // size)
    return np.clip(_divide(SPREAD * centred, spread), -LIMIT, LIMIT)


def integer_sqrt(squares: npt.NDArray[np.int64] | np.int64) -> npt.NDArray[np.int64]:
    """Returns the square roots, rounded down, of integers from 0 to 2^52."""
    roots = np.sqrt(np.asarray(squares, dtype=np.float64)).astype(np.int64)
    roots -= roots * roots > squares
    roots += (roots + 1) * (roots + 1) <= squares
    return roots


def _divide(values: Points, divisor: npt.NDArray[np.int64] | np.int64) -> Points:
    """Divides and rounds to the nearest integer, halves up; by 1 instead of 0."""
    divisor = np.maximum(divisor, 1)
    result: Points = (2 * values + divisor) // (2 * divisor)
    return result


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
def _product(a: Integer, b: Integer) -> tuple[Any, Any]:
    """Multiplies two positive 64-bit integers to one of 128 bits: its high and its low half."""
    half, low_half = V(32), V(0xFFFFFFFF)
    a0, a1, b0, b1 = V(a) & low_half, V(a) >> half, V(b) & low_half, V(b) >> half
    low = a0 * b0
    left = a1 * b0 + (low >> half)
    right = a0 * b1 + (left & low_half)
    return a1 * b1 + (left >> half) + (right >> half), (right << half) | (low & low_half)


@part
def share(weight: Integer, a: Integer, b: Integer, c: Integer, d: Integer, rest: Integer) -> Any:
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
