"""The adaptive coder token by token in NumPy, and constriction's decoder: what the kernel is held against.

Numbers are integers. Some are held in floats because NumPy is faster on these; they stay below 2^24 in
float32 and 2^53 in float64, so every sum and product is exact in any order.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from snaccli.codes import Tokens
from snaccli.entropy.adaptive import Context
from snaccli.entropy.arithmetic import LIMIT, OCTAVE, PEAK_BITS, WEIGHT, WEIGHT_BITS, Points
from snaccli.entropy.kernel import (
    BASE_BITS,
    BIAS,
    CAP,
    ERROR_BITS,
    GRADIENT_SHIFT,
    HALVE,
    HEAP_SHARE,
    HEAPS,
    KERNEL_SHIFTS,
    MASS_BITS,
    MIX_BITS,
    SCORE_SHIFT,
    SPIKES,
    START,
    STEP,
    STEP_CAP,
    STEP_START,
    TILT_LIMIT,
    TILT_SHARE,
    TILT_SHIFT,
    UNIFORM,
)
from snaccli.entropy.payloads import TOTAL, Encoder, undecodable

Floats = npt.NDArray[np.float64]
Frequencies = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

_Categorical: Any = constriction.stream.model.Categorical

# 2^15 * 2^(-i / 32), rounded; spelled out, since no two libraries promise the same last digit.
MANTISSAS = (
    32768, 32066, 31379, 30706, 30048, 29405, 28774, 28158, 27554, 26964, 26386, 25821, 25268, 24726, 24196,
    23678, 23170, 22674, 22188, 21713, 21247, 20792, 20347, 19911, 19484, 19066, 18658, 18258, 17867, 17484,
    17109, 16743,
)  # fmt: skip
UNSHIFT = 0.5**MIX_BITS
KEPT = 1 << 23  # numbers of spread counts that are kept at hand


class RowEncoder(Encoder):
    """Writes symbols under whole rows, which the program needs nowhere."""

    def encode(self, symbols: npt.NDArray[np.int32], rows_less_one: Frequencies) -> None:
        """Encode symbols (n,) under rows (n, size), each row the frequencies less one."""
        self._encoder.encode(symbols, self._family, rows_less_one)


class Decoder:
    """Reads what :class:`Encoder` wrote."""

    def __init__(self, payload: bytes) -> None:
        # Two words of zeros more than the payload's own: constriction holds 64 bits ahead.
        filled = payload + bytes(-len(payload) % 4 + 8)
        words = np.frombuffer(filled, dtype=">u4").astype(np.uint32)
        self._decoder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, row_less_one: Frequencies) -> int:
        """Read one symbol under one row (size,), given less one.

        Raises:
            StreamInvalidError: no encoder wrote these bytes.
        """
        try:
            return int(self._decoder.decode(_Categorical(row_less_one, lazy=True, perfect=False)))
        except (AssertionError, ValueError) as error:
            raise undecodable() from error


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
        if len(self.kernels) < KEPT // kernels.size:
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


class OracleCoder:
    """Codes one stream, block after block from its first token on.

    Args:
        context: of the stream's tokens.
        payload: its coded bytes if it is decoded.
    """

    def __init__(self, context: Context, payload: bytes = b"") -> None:
        self._context = context
        self._points, self._dim = context.points, context.points.shape[1]
        self._model = Model(context.points, context.phases, context.size, context.own)
        self._decoder = Decoder(payload)
        self._features = np.zeros(context.size, dtype=np.int64)
        self._features[-1] = BIAS
        self._done = 0

    def intervals(self, tokens: Tokens) -> Integers:
        """Return what lies below each of the next tokens (n,) and its frequency, of 2^24 in all (n, 2)."""
        found = np.empty((tokens.size, 2), dtype=np.int64)
        for number, above in enumerate(self._context.above(self._done, tokens.size)):
            token = int(tokens[number])
            row = self._row(above)
            found[number] = int(row[:token].sum()) + token, int(row[token]) + 1
            self._take(token)
        return found

    def tokens(self, count: int) -> Tokens:
        """Decode the next tokens, uint16 (count,).

        Raises:
            StreamInvalidError: no encoder wrote these bytes.
        """
        found = np.empty(count, dtype=np.uint16)
        for number, above in enumerate(self._context.above(self._done, count)):
            found[number] = token = self._decoder.decode(self._row(above))
            self._take(token)
        return found

    def _row(self, above: Integers) -> Floats:
        """Return the frequencies of the next token, less one each."""
        self._features[self._context.own : -1] = above
        return self._model.row(self._done % self._context.phases, self._features)

    def _take(self, token: int) -> None:
        """Learn from a token, and take it as the one before the next."""
        self._model.update(token)
        own = self._features[: self._context.own]
        own[self._dim :] = own[: -self._dim].copy()
        own[: self._dim] = self._points[token]
        self._done += 1
