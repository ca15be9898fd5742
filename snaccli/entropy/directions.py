"""The codewords' directions as integers, so that every machine finds the same.

SNAC looks codewords up by cosine, so a codeword's direction says which others could have stood in its place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codebook = npt.NDArray[np.floating]
Directions = npt.NDArray[np.int64]

UNIT = 128  # the length of a direction
FIXED_BITS = 20  # of a codeword's largest coordinate, before its length is taken


def directions(codebook: Codebook) -> Directions:
    """Return the codewords' directions (size, dim), integers of length about ``UNIT``.

    Args:
        codebook: finite float32 numbers (size, dim); a codeword of zeros has no direction and stays zero.

    Raises:
        ValueError: the codebook is not a table of finite numbers.
    """
    if codebook.ndim != 2 or not codebook.size or not np.isfinite(codebook).all():
        raise ValueError("a codebook is not a table of finite numbers")
    words = codebook.astype(np.float32).astype(np.float64)
    _, exponents = np.frexp(np.abs(words).max(axis=1, keepdims=True))
    # Scaling by a power of two is exact, so rounding (half to even) is the only step that loses anything.
    fixed = np.rint(np.ldexp(words, FIXED_BITS - exponents)).astype(np.int64)
    lengths = np.maximum(integer_sqrt((fixed * fixed).sum(axis=1, keepdims=True)), 1)
    result: Directions = (2 * UNIT * fixed + lengths) // (2 * lengths)
    return result


def integer_sqrt(squares: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the square roots, rounded down, of integers from 0 to 2^52."""
    roots = np.sqrt(squares.astype(np.float64)).astype(np.int64)
    roots -= roots * roots > squares
    roots += (roots + 1) * (roots + 1) <= squares
    return roots
