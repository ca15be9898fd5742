"""Which codewords lie close to each other, by integers alone, so that every machine finds the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codebook = npt.NDArray[np.floating]

NEIGHBOURS = 24  # codewords that share a count, the counted one first
GRID = 512  # codewords are scaled to this length and rounded
BLOCK = 512  # rows of the distance table held at once


def codeword_grid(codebook: Codebook) -> npt.NDArray[np.int64]:
    """Return the directions of the codewords (size, dim) as integers of length about ``GRID``."""
    largest = np.abs(codebook).max(axis=1, keepdims=True).astype(np.float32)
    _, exponents = np.frexp(largest)
    # A power of two changes the exponent alone, so this product is exact before it is rounded.
    fixed = np.rint(np.ldexp(codebook.astype(np.float64), 20 - exponents)).astype(np.int64)
    length = integer_sqrt((fixed * fixed).sum(axis=1, keepdims=True))
    directions: npt.NDArray[np.int64] = (2 * GRID * fixed + length) // np.maximum(2 * length, 1)
    return directions


def integer_sqrt(squares: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the square roots, rounded down, of integers below 2^52."""
    roots = np.sqrt(squares.astype(np.float64)).astype(np.int64)
    roots -= roots * roots > squares
    roots += (roots + 1) * (roots + 1) <= squares
    return roots


def neighbour_table(codebook: Codebook) -> npt.NDArray[np.int64]:
    """Return each codeword's nearest codewords (size, neighbours), nearest first, ties by number."""
    grid = codeword_grid(codebook).astype(np.float64)
    size = len(grid)
    kept = min(NEIGHBOURS, size)
    squares = (grid * grid).sum(axis=1)
    table = np.empty((size, kept), dtype=np.int64)
    for start in range(0, size, BLOCK):
        rows = grid[start : start + BLOCK]
        # Integers below 2^53 throughout: the products are exact in any order of summation.
        distances = (squares - 2 * (rows @ grid.T)).astype(np.int64)
        keys = distances * size + np.arange(size)
        keys[np.arange(len(rows)), np.arange(start, start + len(rows))] = np.iinfo(np.int64).min
        nearest = np.partition(keys, kept - 1, axis=1)[:, :kept]
        nearest.sort(axis=1)
        table[start : start + BLOCK] = nearest % size
        table[start : start + len(rows), 0] = np.arange(start, start + len(rows))
    return table
