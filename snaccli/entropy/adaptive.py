"""Coder 1: frequencies learned from the tokens already coded, of this level and of the coarser one.

What is likely to come next is learned in three steps, in integers alone:

- two *heaps* of counts over the codewords. Each token adds one token's mass around its codeword, spread by
  a kernel over the distance of the points (kernel density estimation): widely on the first heap, narrowly
  and with a spike on the second. Their mixture follows their past success;
- the mixture is *tilted*: each codeword is weighted by 2^(point . tilt), where ``tilt`` is a linear map of
  the context, learned online by gradient steps that shrink with the root of the tokens seen (a log-bilinear
  model; Mnih and Hinton, 2007);
- plain and tilted mixture are mixed in turn by past success, over an even floor.

Weights follow past success by fixed share (Herbster and Warmuth, 1998). docs/format.md gives the same steps
as pseudo-code. This module prepares a stream's context and state; kernel.py does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import isqrt

import numpy as np
import numpy.typing as npt

from snac import jit
from snaccli.codes import TOKENS_PER_BYTE, Tokens
from snaccli.entropy import arithmetic, kernel
from snaccli.entropy.points import Points
from snaccli.entropy.prior import PriorStream, nothing
from snaccli.entropy.rangecoder import Encoder, undecodable

__all__ = ["Context", "Parent", "StreamCoder", "decode", "encode", "smallest_size"]

Integers = npt.NDArray[np.int64]
Count = Callable[[int], None]

MAX_PHASES = 16
EARLIER = 2  # tokens of the same level that a context holds
KERNELS = 1 << 23  # numbers of spread counts that are kept at hand
NOTHING = nothing()


@dataclass(frozen=True)
class Parent:
    """The coarser level next to the one that is coded, of the same channel.

    Attributes:
        tokens: uint16 (n,).
        points: its codewords (size, dim).
        stride: latent frames per token.
    """

    tokens: Tokens
    points: Points
    stride: int

    def features(self, positions: Integers) -> Integers:
        """Returns tokens' points, and the slopes across them by the root of a half (n, 2 * dim)."""
        left = self._points(positions - 1)
        right = self._points(positions + 1)
        return np.concatenate([self._points(positions), (right - left) * 181 >> 8], axis=1)

    def _points(self, positions: Integers) -> Points:
        """Returns the points of tokens (n, dim), 0 before the first and after the last."""
        inside = (positions >= 0) & (positions < self.tokens.size)
        found: Points = self.points[self.tokens[np.where(inside, positions, 0)]]
        return found * inside[:, None]


@dataclass(frozen=True)
class Context:
    """Where the features of one stream's tokens come from: docs/format.md, section 6.3.

    The features are the points of the two tokens before, of the coarser token above and of the slope
    across it, and a constant; a token that does not exist counts as the point 0.

    Attributes:
        points: the level's codewords (size, dim).
        stride: latent frames per token.
        parent: the coarser level, None at the coarsest.
    """

    points: Points
    stride: int
    parent: Parent | None

    @property
    def phases(self) -> int:
        """Tokens under one of the coarser level, 1 if that is not a number from 1 to 16."""
        ratio, rest = divmod(self.parent.stride if self.parent else 1, self.stride)
        return ratio if not rest and 1 <= ratio <= MAX_PHASES else 1

    @property
    def own(self) -> int:
        """Features that are points of this level; they come first."""
        return EARLIER * int(self.points.shape[1])

    @property
    def size(self) -> int:
        """Features in all, the constant one included."""
        return self.own + (2 * self.parent.points.shape[1] if self.parent else 0) + 1

    def above(self, start: int, count: int) -> Integers:
        """Returns the features from the coarser level of ``count`` tokens (count, 2 * its dim)."""
        if self.parent is None:
            return np.zeros((count, 0), dtype=np.int64)
        return self.parent.features(np.arange(start, start + count) * self.stride // self.parent.stride)


class StreamCoder:
    """Codes one stream, block after block from its first token on.

    The kernel runs compiled where numba can be had, else as the Python that it is: slowly, with the same
    result.

    Args:
        context: of the stream's tokens.
        payload: its coded bytes if it is decoded.
        prior: what a learned prior says of the stream: with it coder 2 is at work, beside coder 1.
    """

    def __init__(self, context: Context, payload: bytes = b"", prior: PriorStream | None = None) -> None:
        self.context = context
        self._prior = prior
        self.state = beginning(context)
        self._code = kernel.code_narrow if self.state.points.dtype == np.float32 else kernel.code_wide
        self._payload = np.frombuffer(payload.ljust(8, b"\0"), dtype=np.uint8)
        offset = int.from_bytes(self._payload[:8].tobytes(), "big")
        self._reader = np.array([(1 << 64) - 1, offset, 8], dtype=np.uint64)
        self._done = 0

    @property
    def block(self) -> int:
        """Tokens between two looks at the progress."""
        return 1024 if jit.available() else 16

    def intervals(self, tokens: Tokens) -> Integers:
        """Returns what lies below each of the next tokens (n,) and its frequency, of 2^24 in all.

        The result is (n, 2), with a prior (n, 4): for coder 1, then for coder 2.
        """
        found = np.zeros((tokens.size, 2 if self._prior is None else 4), dtype=np.int64)
        self._run(tokens.astype(np.uint16), found)
        return found

    def tokens(self, count: int) -> Tokens:
        """Decodes the next tokens, uint16 (count,).

        Raises:
            StreamInvalidError: no encoder wrote these bytes.
        """
        found = np.zeros(count, dtype=np.uint16)
        if self._run(found, np.zeros((0, 2), dtype=np.int64)) < count:
            raise undecodable()
        return found

    def _run(self, tokens: Tokens, intervals: Integers) -> int:
        """Codes the next tokens; returns how many could be."""
        above = self.context.above(self._done, tokens.size)
        start, self._done = self._done, self._done + tokens.size
        learned = NOTHING if self._prior is None else self._prior.block(start, tokens.size)
        arguments = (self.state, learned, start, above, tokens, intervals, self._payload, self._reader)
        with np.errstate(over="ignore"):  # of the kernel as Python: its integers wrap around
            return int(self._code(*arguments))


def beginning(context: Context) -> kernel.State:
    """Returns the state of a stream's start: docs/format.md, section 6.4."""
    size, dim = context.points.shape
    padded = -(-dim // kernel.ABREAST) * kernel.ABREAST
    number = np.float32 if _narrow(context.points) else np.float64
    points = np.zeros((padded, size), dtype=number)
    points[:dim] = context.points.T
    features = np.zeros(context.size, dtype=np.int64)
    features[-1] = kernel.BIAS
    start = (kernel.START << kernel.MASS_BITS) // size
    kept = min(size, KERNELS // size)
    weights = np.array([[arithmetic.WEIGHT // 2], [arithmetic.WEIGHT // 4]], dtype=np.int64)
    return kernel.State(
        points=points,
        squares=(context.points * context.points).sum(axis=1).astype(number),
        features=features,
        maps=np.zeros((context.phases, context.size, dim), dtype=np.int64),
        rates=learning_rates(),
        steps=np.zeros(context.phases, dtype=np.int64),
        weights=np.repeat(weights, context.phases, axis=1),
        counts=np.full((kernel.HEAPS, size), start, dtype=np.int32),
        wholes=np.full(kernel.HEAPS, start * size, dtype=np.int64),
        seen=np.zeros(2, dtype=np.int64),
        kept=np.empty((kept + 1, kernel.HEAPS, size), dtype=np.uint16),
        kept_sums=np.zeros((kept + 1, kernel.HEAPS), dtype=np.int64),
        slots=np.zeros(size, dtype=np.int32),
        gains=np.zeros(size, dtype=number),
        mixed=np.zeros((2, size)),
        row=np.zeros(size, dtype=np.int32),
        tilt=np.zeros(padded, dtype=number),
        error=np.zeros(padded, dtype=np.int64),
        sums=np.zeros(5, dtype=np.int64),
    )


def _narrow(points: Points) -> bool:
    """Whether float32 holds all sums over the coordinates: scores, products and squared distances."""
    scores = int(np.abs(points).sum(axis=1).max()) * kernel.TILT_LIMIT
    return max(scores, 4 * int((points * points).sum(axis=1).max())) < 1 << 24


@cache
def learning_rates() -> Integers:
    """Returns the rates of learning by the tokens seen, int64 (STEP_CAP + 1,)."""
    seen = range(kernel.STEP_CAP + 1)
    rates = np.array([kernel.STEP // isqrt((n + kernel.STEP_START) << 12) for n in seen], dtype=np.int64)
    rates.flags.writeable = False
    return rates


def encode(
    tokens: Tokens,
    points: Points,
    stride: int,
    parent: Parent | None,
    count: Count,
    prior: PriorStream | None = None,
) -> tuple[bytes, ...]:
    """Codes the tokens of one level and channel; returns coder 1's bytes and, with a prior, coder 2's.

    Args:
        tokens: uint16 (n,), below the number of codewords.
        points: the level's codewords (size, dim).
        stride: latent frames per token.
        parent: the coarser level, None at the coarsest.
        count: called now and then with the number of tokens coded since the last call.
        prior: what a learned prior says of the stream.
    """
    coder = StreamCoder(Context(points, stride, parent), prior=prior)
    encoders = [Encoder()] if prior is None else [Encoder(), Encoder()]
    for start in range(0, tokens.size, coder.block):
        block = tokens[start : start + coder.block]
        intervals = coder.intervals(block)
        for number, encoder in enumerate(encoders):
            encoder.encode_intervals(intervals[:, 2 * number : 2 * number + 2])
        count(block.size)
    smallest = smallest_size(tokens.size)
    return tuple(encoder.payload().ljust(smallest, b"\0") for encoder in encoders)


def decode(
    payload: bytes,
    tokens: int,
    points: Points,
    stride: int,
    parent: Parent | None,
    count: Count,
    prior: PriorStream | None = None,
) -> Tokens:
    """Undoes :func:`encode`: coder 1's bytes, with a prior coder 2's; the result is uint16 (tokens,).

    Raises:
        StreamInvalidError: no encoder wrote these bytes.
    """
    coder = StreamCoder(Context(points, stride, parent), payload, prior)
    values = np.empty(tokens, dtype=np.uint16)
    for start in range(0, tokens, coder.block):
        block = values[start : start + coder.block]
        block[:] = coder.tokens(block.size)
        count(block.size)
    return values


def smallest_size(tokens: int) -> int:
    """Returns the fewest bytes that a stream of so many tokens may have."""
    return tokens // TOKENS_PER_BYTE
