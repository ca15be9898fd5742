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

The streams of one channel are coded in step. A token's context reaches one token beyond the one above it, at
each coarser level, so a stream can be decoded as soon as the coarser ones are a token ahead. The finest level
has about as many tokens as all others together: with one thread for it and one for the others two processors
have work to the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

from snac import jit
from snaccli.codes import TOKENS_PER_BYTE, Tokens
from snaccli.entropy import arithmetic, kernel
from snaccli.entropy.arithmetic import Points
from snaccli.entropy.payloads import Encoder, undecodable
from snaccli.entropy.prior import NOTHING, PriorStream
from snaccli.workers import read_ahead

__all__ = ["Context", "Parent", "Row", "StreamCoder", "in_step", "smallest_size"]

Integers = npt.NDArray[np.int64]

MAX_PHASES = 16
EARLIER = 2  # tokens of the same level that a context holds
KERNELS = 1 << 21  # numbers of spread counts that are kept at hand for each stream
LEARNING_RATES = np.array(
    [kernel.STEP // isqrt((seen + kernel.STEP_START) << 12) for seen in range(kernel.STEP_CAP + 1)],
    dtype=np.int64,
)  # by the tokens seen
LEARNING_RATES.flags.writeable = False
READING = np.zeros((0, 2), dtype=np.int64)
GIVEN = kernel.Choice(np.zeros((0, 0), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


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
        """Returns the features from the coarser level of ``count`` tokens (count, 2 * its dim).

        They are the point of the token above, and the slope across it by the root of a half.
        """
        if self.parent is None:
            return np.zeros((count, 0), dtype=np.int64)
        tokens = self.parent.tokens
        places = np.arange(start, start + count) * self.stride // self.parent.stride + [[-1], [0], [1]]
        inside = (places >= 0) & (places < tokens.size)
        points = self.parent.points[tokens[np.where(inside, places, 0)]] * inside[:, :, None]
        left, here, right = points  # (count, dim) each
        return np.concatenate([here, (right - left) * 181 >> 8], axis=1)


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
        self._payload = np.frombuffer(payload.ljust(8, b"\0"), dtype=np.uint8)
        offset = int.from_bytes(self._payload[:8].tobytes(), "big")
        self._reader = np.array([(1 << 64) - 1, offset, 8], dtype=np.uint64)
        self._done = 0
        # The state of a stream's start: docs/format.md, section 6.4.
        (size, dim), squares = context.points.shape, (context.points * context.points).sum(axis=1)
        # Whether 32 bits hold all sums over the coordinates: scores, products and squared distances.
        scores = int(np.abs(context.points).sum(axis=1).max()) * kernel.TILT_LIMIT
        narrow = max(scores, 4 * int(squares.max())) < 1 << 30
        self._code = kernel.code_narrow if narrow else kernel.code_wide
        axis, number = (np.int16, np.int32) if narrow else (np.int64, np.int64)
        padded = -(-dim // kernel.ABREAST) * kernel.ABREAST
        points = np.zeros((padded, size), dtype=np.float32)
        points[:dim] = context.points.T
        features = np.zeros(context.size, dtype=np.int64)
        features[-1] = kernel.BIAS
        start = (kernel.START << kernel.MASS_BITS) // size
        kept = min(size, KERNELS // size)
        weights = np.array([[arithmetic.WEIGHT // 2], [arithmetic.WEIGHT // 4]], dtype=np.int64)
        self.state = kernel.State(
            points=points,
            axes=points.astype(axis),
            squares=squares.astype(number),
            features=features,
            maps=np.zeros((context.phases, context.size, dim), dtype=np.int64),
            rates=LEARNING_RATES,
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
            tilt=np.zeros(padded, dtype=axis),
            error=np.zeros(padded, dtype=np.int64),
            sums=np.zeros(5, dtype=np.int64),
        )

    @property
    def block(self) -> int:
        """Tokens that are coded at a time where all their contexts are there."""
        return 1024 if jit.available() else 16

    def code(self, tokens: Tokens, intervals: Integers = READING, choice: kernel.Choice = GIVEN) -> int:
        """Codes the next tokens.

        Args:
            tokens: uint16 (n,), written unless ``intervals`` alone are given.
            intervals: int64 (n, 2), with a prior (n, 4), written: what lies below each token and its
                frequency, of 2^24 in all, for coder 1, then for coder 2. ``READING`` to decode the payload.
            choice: what each codeword costs beside its bits, to choose the tokens by; ``GIVEN`` for none.

        Returns:
            how many could be coded: fewer than n if no encoder wrote the payload.
        """
        start, self._done = self._done, self._done + tokens.size
        above = self.context.above(start, tokens.size)
        learned = NOTHING if self._prior is None else self._prior.block(start, tokens.size)
        arguments = (self.state, learned, choice, start, above, tokens, intervals)
        with np.errstate(over="ignore"):  # of the kernel as Python: its integers wrap around
            return int(self._code(*arguments, self._payload, self._reader))

    def choose(self, costs: npt.NDArray[np.float32]) -> Tokens:
        """Chooses the next tokens, uint16 (n,): of each the codeword of which costs and bits are least.

        Args:
            costs: float32 (n, codewords), overwritten: what is to be added to the bits that a codeword takes
                under the frequencies of its token, with a prior those of coder 2.
        """
        chosen, logs = np.zeros(len(costs), dtype=np.uint16), np.zeros(costs.shape[1], dtype=np.float32)
        self.code(chosen, choice=kernel.Choice(costs, logs, logs.view(np.int32)))
        return chosen


def smallest_size(tokens: int) -> int:
    """Returns the fewest bytes that a stream of so many tokens may have."""
    return tokens // TOKENS_PER_BYTE


# Streams in step


@dataclass
class Row:
    """One level of one channel on its way between tokens and bytes.

    Attributes:
        tokens: uint16 (n,); written where they are decoded.
        stride: latent frames of a token.
        coder: at the stream's start; None where there is nothing to code.
        encoders: of coder 1's bytes and, with a prior, of coder 2's; none to decode.
        coarser: rows that are decoded with this one, coarse to fine.
        done: tokens coded so far.
    """

    tokens: Tokens
    stride: int
    coder: StreamCoder | None
    encoders: Sequence[Encoder] = ()
    coarser: Sequence[Row] = ()
    done: int = 0

    @property
    def ready(self) -> int:
        """How many tokens can have been coded by now: those whose context is there."""
        ready = self.tokens.size
        for row in self.coarser:
            if row.done < row.tokens.size:
                ready = min(ready, max(0, -(-(row.done - 1) * row.stride // self.stride)))
        return ready


_LAST = object()


def in_step(rows: Sequence[Row], threads: int = 1) -> Generator[None, None, None]:
    """Codes rows to their ends; yields after each step.

    Args:
        rows: of one channel, coarse to fine.
        threads: with two or more all but the last row are coded in a thread, which has ended when the
            generator has, also an early one.

    Raises:
        StreamInvalidError: no encoder wrote the bytes that are decoded.
    """
    if not rows:
        return
    ahead: Generator[object, None, None] = (None for _ in ())
    if threads > 1 and any(row.coder for row in rows[:-1]):
        # As far ahead as it gets: a step has a token or more.
        rows, ahead = rows[-1:], read_ahead(in_step(rows[:-1]), rows[-1].tokens.size + 1)
    frames = rows[-1].stride * max((row.coder.block for row in rows if row.coder), default=1)
    with closing(ahead):
        for end in itertools.count(frames, frames):
            if all(row.done == row.tokens.size for row in rows):
                break
            for row in rows:
                stop = min(end // row.stride, row.tokens.size)
                while row.ready < stop and next(ahead, _LAST) is not _LAST:
                    pass
                stop = min(stop, row.ready)
                if row.coder is None or stop <= row.done:
                    continue
                block = row.tokens[row.done : stop]
                if row.encoders:
                    block = block.astype(np.uint16)
                    intervals = np.zeros((block.size, 2 * len(row.encoders)), dtype=np.int64)
                    row.coder.code(block, intervals)
                    for number, encoder in enumerate(row.encoders):
                        encoder.encode_intervals(intervals[:, 2 * number : 2 * number + 2])
                elif row.coder.code(block) < block.size:
                    raise undecodable()
                row.done = stop
            yield
        for _ in ahead:
            yield
