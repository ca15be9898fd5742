"""The adaptive model of coder 1: what the next token is likely to be, in integers alone.

It is learned from the tokens already coded, in three steps:

- two *heaps* of counts over the codewords. Each token adds one token's mass around its codeword, spread
  by a kernel over the distance of the points (kernel density estimation): widely on the first heap,
  narrowly and with a spike on the second. Their mixture follows their past success;
- the mixture is *tilted*: each codeword is weighted by 2^(point . tilt), where ``tilt`` is a linear map of
  the context, learned online by gradient steps that shrink with the root of the tokens seen (a log-bilinear
  model; Mnih and Hinton, 2007);
- plain and tilted mixture are mixed in turn by past success, over an even floor.

Weights follow past success by fixed share (Herbster and Warmuth, 1998). All numbers are integers. Some are
held in floats because numpy is faster on these; they stay below 2^24 in float32 and 2^53 in float64, so
every sum and product is exact in any order. docs/format.md gives the same steps as pseudo-code.
"""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from snaccli.entropy.directions import LIMIT, Points
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

MASS_BITS = 16  # of the counts that one token adds, the spike aside
START = 50  # tokens' mass that lie evenly on each heap at first
HEAPS = 2  # the wide one and the narrow one
KERNEL_SHIFTS = (7, 5)  # from squared distances to steps of the table
SPIKES = (0, 45_875)  # what a token's own codeword gets beside the kernel
HALVE = 1 << 13  # tokens after which all counts are halved
KERNELS = 1 << 23  # numbers of spread counts that are kept at hand

WEIGHT_BITS = 16  # of the sum of two weights that follow success
WEIGHT = 1 << WEIGHT_BITS
HEAP_SHARE, TILT_SHARE = 328, 164  # of it, what each of the two is given anew at each token
BASE_BITS = 26  # of the sum of the mixed heaps

BIAS = 64  # the constant feature of a context
STEP = 800_000  # of the gradient, over 64 times the root of the tokens seen
STEP_START, STEP_CAP = 40, 4096
ERROR_BITS = 4
GRADIENT_SHIFT = 14
TILT_SHIFT = 16
TILT_LIMIT = 1 << 11
SCORE_SHIFT = 9  # from point . tilt to steps of the table

UNIFORM = TOTAL >> 7
MIX_BITS = 28
UNSHIFT = 0.5**MIX_BITS
CAP = TOTAL // 16 * 15 - 1  # of a frequency, less one


def powers() -> Floats:
    """Return 2^15 * 2^(-i / 32), rounded down from the first octave on; the last entry is 0."""
    table = [MANTISSAS[i % OCTAVE] >> (i // OCTAVE) for i in range(OCTAVE * (PEAK_BITS + 1))]
    return np.array([*table, 0], dtype=np.float64)


POWERS = powers()


class Heaps:
    """Counts over the codewords, each token's spread to its neighbours: ``counts`` (heaps, size).

    Args:
        points: the codewords (size, dim).
    """

    def __init__(self, points: Points) -> None:
        self.size, dim = points.shape
        # Squared distances reach 4 dim LIMIT^2: exact in float32 up to 16 dimensions.
        self.points = points.astype(np.float32 if dim <= 16 else np.float64)
        self.across = np.ascontiguousarray(self.points.T)
        self.squares = (self.points * self.points).sum(axis=1)
        self.counts = np.full((HEAPS, self.size), (START << MASS_BITS) // self.size, dtype=np.float64)
        self.wholes = self.counts.sum(axis=1).astype(np.int64)
        self.seen = 0
        self.kernels: dict[int, tuple[npt.NDArray[np.float32], Integers]] = {}

    def add(self, token: int) -> None:
        """Add a token's mass."""
        kernels, sums = self.kernels.get(token) or self._kernels(token)
        self.counts += kernels
        self.wholes += sums
        self.seen += 1
        if self.seen == HALVE:
            self.seen //= 2
            self.counts = np.floor((self.counts + 1) * 0.5)
            self.wholes = self.counts.sum(axis=1).astype(np.int64)

    def _kernels(self, token: int) -> tuple[npt.NDArray[np.float32], Integers]:
        """Return what each heap gains from a token, and the sums of it."""
        distances = self.points[token] @ self.across
        distances *= -2
        distances += self.squares
        distances += self.squares[token]
        kernels = np.empty((HEAPS, self.size), dtype=np.float32)
        for row, shift in zip(kernels, KERNEL_SHIFTS, strict=True):
            steps = (distances * 0.5**shift).astype(np.int64)
            spread = POWERS.take(steps, mode="clip")
            spread *= ((1 << MASS_BITS + PEAK_BITS) // int(spread.sum())) * 0.5**PEAK_BITS
            np.floor(spread, out=row, casting="same_kind")
        kernels[:, token] += SPIKES
        found = kernels, kernels.sum(axis=1, dtype=np.float64).astype(np.int64)
        if len(self.kernels) < KERNELS // kernels.size:
            self.kernels[token] = found
        return found


class Model:
    """Frequencies of the next token of one level and channel; see the module's text.

    Args:
        points: the level's codewords (size, dim).
        phases: tokens under one of the coarser level; each has its own linear map and weights.
        features: of a context, the constant one included.
        own: features at the start of a context that are points of this level, a multiple of ``dim``.
    """

    def __init__(self, points: Points, phases: int, features: int, own: int) -> None:
        self.size, self.dim = points.shape
        self.points, self.own = points, own
        self.heaps = Heaps(points)
        # One row a coordinate, and a last row of ones: a single product gives the moments and the sum.
        self.moments_of = np.ones((self.dim + 1, self.size))
        self.moments_of[:-1] = points.T
        self.ones = self.moments_of[-1]
        exact = self.dim * LIMIT * TILT_LIMIT < 1 << 24
        self.scores_of = points.T.astype(np.float32 if exact else np.float64, order="C")
        self.maps = np.zeros((phases, features, self.dim), dtype=np.int64)
        self.heap_weights = [WEIGHT // 2] * phases  # of the wide heap
        self.plain_weights = [WEIGHT // 4] * phases  # of the mixture that is not tilted
        self.seen = [0] * phases
        self.gains, self.tilted, self.frequencies, self.scratch = np.empty((4, self.size))

    def row(self, phase: int, context: Integers) -> Floats:
        """Return the frequencies of the next token, less one each; with the ones they sum to 2^24.

        Args:
            phase: the token's place under the coarser level's token.
            context: its features, the last of them ``BIAS``.

        Returns:
            A buffer (size,) that holds until the next call.
        """
        self.phase, self.context = phase, context
        self._weigh(context @ self.maps[phase] >> TILT_SHIFT)
        self._mix_heaps(self.heap_weights[phase])
        np.multiply(self.base, self.gains, out=self.tilted)
        self.moments = (self.moments_of @ self.tilted).astype(np.int64)
        self.tilted_whole = int(self.moments[-1])
        free = TOTAL - self.size - UNIFORM
        plain = free * self.plain_weights[phase] >> WEIGHT_BITS
        # The three factors shift right by MIX_BITS at once; what is rounded down is the sum.
        tilted_factor = ((free - plain << MIX_BITS) // self.tilted_whole) * UNSHIFT
        plain_factor = ((plain << MIX_BITS) // self.base_whole) * UNSHIFT
        row: Floats = np.multiply(self.tilted, tilted_factor, out=self.frequencies)
        row += np.multiply(self.base, plain_factor, out=self.scratch)
        row += ((UNIFORM << MIX_BITS) // self.size) * UNSHIFT
        np.floor(row, out=row)
        top = row.argmax()
        row[top] += TOTAL - self.size - int(self.ones @ row)
        if row[top] > CAP:
            spare = (int(row[top]) - CAP) // (self.size - 1) + 1
            row += spare
            row[top] -= spare * self.size
        return row

    def _weigh(self, tilt: Integers) -> None:
        """Set ``gains`` to 2^(point . tilt), the largest to 2^15."""
        tilt = np.minimum(np.maximum(tilt, -TILT_LIMIT), TILT_LIMIT)
        scores = tilt.astype(self.scores_of.dtype) @ self.scores_of
        np.subtract(scores[scores.argmax()], scores, out=scores)
        scores *= 0.5**SCORE_SHIFT
        POWERS.take(scores.astype(np.int64), mode="clip", out=self.gains)

    def _mix_heaps(self, wide: int) -> None:
        """Set ``base`` to the mixture of the heaps: positive, with a sum of about 2^26."""
        shares = np.array((wide, WEIGHT - wide))
        factors = ((shares << BASE_BITS) // self.heaps.wholes) * 0.5**WEIGHT_BITS
        self.base = factors @ self.heaps.counts
        np.floor(self.base, out=self.base)
        self.base += 1
        self.base_whole = int(self.ones @ self.base)

    def update(self, token: int) -> None:
        """Learn from the token that was coded under the last row."""
        phase = self.phase
        wide, narrow = self.heaps.counts[:, token].astype(int).tolist()
        all_wide, all_narrow = (self.heaps.counts @ self.gains).astype(int).tolist()
        self.heap_weights[phase] = fixed_share(
            self.heap_weights[phase], wide * all_narrow, narrow * all_wide, HEAP_SHARE
        )
        plain, tilted = int(self.base[token]) * self.tilted_whole, int(self.tilted[token]) * self.base_whole
        self.plain_weights[phase] = fixed_share(self.plain_weights[phase], plain, tilted, TILT_SHARE)
        self._turn(token)
        self.heaps.add(token)

    def _turn(self, token: int) -> None:
        """Turn the maps towards the point that came, away from the one that was expected."""
        expected = (self.moments[:-1] << ERROR_BITS) // self.tilted_whole
        error = (self.points[token] << ERROR_BITS) - expected
        gradient = self.context[:, None] * error
        # A number that all coordinates of an earlier token share learns faster than a matrix does.
        for start in range(0, self.own, self.dim):
            square = gradient[start : start + self.dim].reshape(-1)
            square[:: self.dim + 1] += self.context[start : start + self.dim] @ error
        gradient *= STEP // isqrt((min(self.seen[self.phase], STEP_CAP) + STEP_START) << 12)
        gradient >>= GRADIENT_SHIFT
        self.maps += gradient
        self.maps[self.phase] += gradient
        self.seen[self.phase] += 1


def fixed_share(weight: int, first: int, second: int, share: int) -> int:
    """Return the new weight of the first of two predictors, by what each gave the token."""
    first, second = weight * first, (WEIGHT - weight) * second
    return share + (WEIGHT - 2 * share) * first // (first + second)
