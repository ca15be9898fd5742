"""The codewords as points of a small integer grid, so that every machine sees the same geometry.

SNAC looks codewords up by cosine, so what matters of a codeword is its direction. Trained codebooks fill a
part of the sphere only; hence the points are centred and scaled to the spread of the codebook.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codebook = npt.NDArray[np.floating]
Points = npt.NDArray[np.int64]

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
    """Divides and round to the nearest integer, halves up; by 1 instead of 0."""
    divisor = np.maximum(divisor, 1)
    result: Points = (2 * values + divisor) // (2 * divisor)
    return result
