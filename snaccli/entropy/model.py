"""The adaptive model of coder 1: what the next token is likely to be, in integers alone.

Two predictors over the codewords, learned from the tokens already coded, and a floor beneath them:

- *counts*: each token leaves a heap of one token's weight around its codeword, spread by a kernel over the
  angle between codewords (kernel density estimation), on top of an even start;
- *tilted counts*: the same, each codeword weighted by 2^(direction . tilt), where ``tilt`` is a linear map
  of the context's directions (the log-bilinear model of Mnih and Hinton, 2007), learned online by gradient
  steps that shrink with the square root of the tokens seen;
- the two are mixed by weights that follow their past success (fixed share; Herbster and Warmuth, 1998).

All numbers are integers. Some are held in floats because numpy is faster on these; all stay below 2^24 in
float32 and 2^53 in float64, so every sum and product is exact in any order, on any machine.
docs/format.md gives the same steps as pseudo-code.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from snaccli.entropy.directions import Directions
from snaccli.entropy.rangecoder import TOTAL

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

OCTAVE = 32  # steps of the table of powers per factor of two
PEAK_BITS = 15
# 2^15 * 2^(-i / 32), rounded; spelled out, since no two libraries promise the same last digit.
MANTISSAS = (
    32768, 32066, 31379, 30706, 30048, 29405, 28774, 28158, 27554, 26964, 26386, 25821, 25268, 24726, 24196,
    23678, 23170, 22674, 22188, 21713, 21247, 20792, 20347, 19911, 19484, 19066, 18658, 18258, 17867, 17484,
    17109, 16743,
)  # fmt: skip

MASS = 1 << 16  # what the counts of one token sum to
START = 50 * MASS  # what the even start sums to
KERNELS = 1 << 24  # numbers of spread counts that are kept at hand
SPIKE = MASS // 20  # what a token's own codeword gets beside the kernel
KERNEL_SCALE = np.float32(0.5**6)  # from differences of inner products (UNIT^2 is the cosine 1) to steps
HALVE = 1 << 13  # tokens after which all counts are halved

BIAS = 32  # the constant feature, in units of a direction's length
STEP = 694_000  # of the gradient, over 64 times the square root of the tokens seen
STEP_START = 40
STEP_CAP = 4096
ERROR_BITS = 4
TILT_BITS = 10
TILT_SHIFT = 13
GRADIENT_SHIFT = 14
TILT_LIMIT = 1 << 14
SCORE_SCALE = np.float32(0.5**12)  # from direction . tilt to steps of the table

WEIGHT = 1 << 16  # what the two predictors' weights sum to
SHARE = 1 << 8  # of it, what each is given anew at each token
UNIFORM = TOTAL >> 6
MIX_BITS = 28
UNSHIFT = 0.5**MIX_BITS
CAP = TOTAL // 16 * 15


def powers() -> Floats:
    """Return 2^15 * 2^(-i / 32), rounded down from the first octave on; the last entry is 0."""
    table = [MANTISSAS[i % OCTAVE] >> (i // OCTAVE) for i in range(OCTAVE * (PEAK_BITS + 1))]
    return np.array([*table, 0], dtype=np.float64)


POWERS = powers()


class Model:
    """Frequencies of the next token of one level and channel; see the module's text.

    Args:
        directions: the level's codewords (size, dim).
        phases: tokens under one of the coarser level; each has its own linear map beside the common one.
        features: entries of the context, the constant one left out; the first ``dim`` of them are the
            direction of the token before.
    """

    def __init__(self, directions: Directions, phases: int, features: int) -> None:
        self.size, self.dim = directions.shape
        self.directions = directions
        # One row a coordinate, and a last row of ones: a single product gives the moments and the sum.
        self.across = np.ones((self.dim + 1, self.size))
        self.across[:-1] = directions.T
        self.across32 = self.across[:-1].astype(np.float32)
        self.toward = directions.astype(np.float32) * KERNEL_SCALE
        self.ones = self.across[-1]
        self.kernels: dict[int, npt.NDArray[np.float32]] = {}
        self.counts = np.full(self.size, max(START // self.size, 1), dtype=np.float64)
        self.whole = int(self.counts.sum())
        self.seen = 0
        self.maps = np.zeros((phases, features + 1, self.dim), dtype=np.int64)
        self.weights = [WEIGHT // 2] * phases
        self.tokens = [0] * phases
        self.tilted, self.frequencies, self.scratch = (np.empty(self.size) for _ in range(3))
        self.scores, self.steps = np.empty(self.size, np.float32), np.empty(self.size, np.int64)

    def row(self, phase: int, context: Integers) -> Floats:
        """Return the frequencies of the next token, less one each; with the ones they sum to 2^24.

        Args:
            phase: the token's place under the coarser level's token.
            context: its features (features + 1,), the last of them ``BIAS``.

        Returns:
            A buffer (size,) that holds until the next call.
        """
        self.phase, self.context = phase, context
        self._weigh(context @ self.maps[phase] >> TILT_SHIFT)
        free = TOTAL - self.size - UNIFORM
        weight = free * self.weights[phase] // WEIGHT
        plain = (weight << MIX_BITS) // self.whole
        tilted = ((free - weight) << MIX_BITS) // self.tilted_whole
        even = (UNIFORM << MIX_BITS) // self.size
        # Shifted right by MIX_BITS, as an exact factor; what is rounded down is the sum of the three.
        row: Floats = np.multiply(self.tilted, tilted * UNSHIFT, out=self.frequencies)
        row += np.multiply(self.counts, plain * UNSHIFT, out=self.scratch)
        row += even * UNSHIFT
        np.floor(row, out=row)
        top = row.argmax()
        row[top] += TOTAL - self.size - int(self.ones @ row)
        if row[top] >= CAP:
            spare = (int(row[top]) - CAP) // self.size + 1
            row += spare
            row[top] -= spare * self.size
        return row

    def _weigh(self, tilt: Integers) -> None:
        """Set ``tilted`` to the counts, each weighted by 2^(direction . tilt), and sum them."""
        tilt = np.minimum(np.maximum(tilt, -TILT_LIMIT), TILT_LIMIT)
        scores = np.matmul(tilt.astype(np.float32) * SCORE_SCALE, self.across32, out=self.scores)
        np.subtract(scores.max(), scores, out=scores)
        self.steps[:] = scores
        POWERS.take(self.steps, mode="clip", out=self.tilted)
        self.tilted *= self.counts
        self.moments = (self.across @ self.tilted).astype(np.int64)
        self.tilted_whole = int(self.moments[-1])

    def update(self, token: int) -> None:
        """Learn from the token that was coded under the last row."""
        plain, tilted = int(self.counts[token]), int(self.tilted[token])
        self._mix(plain * self.tilted_whole, tilted * self.whole)
        self._tilt(token)
        self._count(token)

    def _mix(self, plain: int, tilted: int) -> None:
        weight = self.weights[self.phase]
        plain, tilted = weight * plain, (WEIGHT - weight) * tilted
        self.weights[self.phase] = SHARE + (WEIGHT - 2 * SHARE) * plain // (plain + tilted)

    def _tilt(self, token: int) -> None:
        """Turn the maps towards the direction that came, away from the one that was expected."""
        expected = (self.moments[:-1] << ERROR_BITS) // self.tilted_whole
        error = (self.directions[token] << ERROR_BITS) - expected
        gradient = self.context[:, None] * error
        # A number that all coordinates of the token before share learns faster than a matrix does.
        gradient.reshape(-1)[: self.dim * self.dim : self.dim + 1] += self.context[: self.dim] @ error
        seen = min(self.tokens[self.phase], STEP_CAP)
        gradient *= STEP // isqrt((seen + STEP_START) << 12)
        gradient >>= GRADIENT_SHIFT
        self.maps += gradient
        self.maps[self.phase] += gradient
        self.tokens[self.phase] += 1

    def _count(self, token: int) -> None:
        self.counts += self._kernel(token)
        self.seen += 1
        if self.seen == HALVE:
            self.seen //= 2
            self.counts = np.floor((self.counts + 1) * 0.5)
        self.whole = int(self.ones @ self.counts)

    def _kernel(self, token: int) -> npt.NDArray[np.float32]:
        """Return what the counts gain from a token: its weight, spread over nearby codewords."""
        kernel = self.kernels.get(token)
        if kernel is None:
            scores = np.matmul(self.toward[token], self.across32, out=self.scores)
            self.steps[:] = np.subtract(scores[token], scores, out=scores)
            spread = POWERS.take(self.steps, mode="clip", out=self.scratch)
            spread *= ((MASS << PEAK_BITS) // int(self.ones @ spread)) * 0.5**PEAK_BITS
            kernel = np.floor(spread).astype(np.float32)
            kernel[token] += SPIKE
            if len(self.kernels) < KERNELS // self.size:
                self.kernels[token] = kernel
        return kernel
