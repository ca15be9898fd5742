"""Coder 1: frequencies learned from the tokens already coded, of this level and of the coarser one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from snaccli.codes import Tokens
from snaccli.entropy.directions import Points
from snaccli.entropy.model import BIAS, Integers, Model
from snaccli.entropy.rangecoder import Decoder, Encoder

MAX_TOKENS_PER_BYTE = 85
BLOCK = 64  # rows encoded at once
MAX_PHASES = 16
EARLIER = 2  # tokens of the same level that a context holds


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

    def features(self, position: int) -> Integers:
        """Return a token's point and the slope across it (2 * dim,), scaled by the root of a half."""
        before, after = max(position - 1, 0), min(position + 1, self.tokens.size - 1)
        left, here, right = found = self.points[self.tokens[[before, position, after]]]
        if before == position:
            found[0] = 0
        if after == position:
            found[2] = 0
        return np.concatenate([here, (right - left) * 181 >> 8])


class Context:
    """What is known of a token before it is coded: its phase and its features.

    The features are the points of the two tokens before, of the coarser token above and of the slope
    across it, and a constant; what is not there counts as the point 0.

    Args:
        points: the level's codewords (size, dim).
        stride: latent frames per token.
        parent: the coarser level, None at the coarsest.
    """

    def __init__(self, points: Points, stride: int, parent: Parent | None) -> None:
        self.points = points
        self.stride = stride
        self.parent = parent
        self.dim = points.shape[1]
        self.own = EARLIER * self.dim
        self.phases = 1
        above = 0
        if parent is not None:
            ratio, rest = divmod(parent.stride, stride)
            self.phases = ratio if not rest and 1 <= ratio <= MAX_PHASES else 1
            above = 2 * parent.points.shape[1]
        self.features = np.zeros(self.own + above + 1, dtype=np.int64)
        self.features[-1] = BIAS
        self.above = -1  # the coarser token that the features hold

    def model(self) -> Model:
        """Return a model that has seen nothing."""
        return Model(self.points, self.phases, self.features.size, self.own)

    def at(self, position: int) -> tuple[int, Integers]:
        """Return phase and features of the token at ``position``; the features hold until the next call."""
        if self.parent is not None:
            above = position * self.stride // self.parent.stride
            if above != self.above:
                self.above = above
                self.features[self.own : -1] = self.parent.features(above)
        return position % self.phases, self.features

    def coded(self, token: int) -> None:
        """Take the token that was coded as the one before the next."""
        self.features[self.dim : self.own] = self.features[: self.own - self.dim].copy()
        self.features[: self.dim] = self.points[token]


def encode(
    tokens: Tokens, points: Points, stride: int, parent: Parent | None, count: Callable[[int], None]
) -> bytes:
    """Code the tokens of one level and channel.

    Args:
        tokens: uint16 (n,), below the number of codewords.
        points: the level's codewords (size, dim).
        stride: latent frames per token.
        parent: the coarser level, None at the coarsest.
        count: called now and then with the number of tokens coded since the last call.
    """
    context = Context(points, stride, parent)
    model = context.model()
    encoder = Encoder()
    rows = np.empty((BLOCK, model.size))
    for start in range(0, tokens.size, BLOCK):
        block = tokens[start : start + BLOCK].astype(np.int32)
        for number, token in enumerate(block.tolist()):
            rows[number] = model.row(*context.at(start + number))
            model.update(token)
            context.coded(token)
        encoder.encode(block, rows[: block.size])
        count(block.size)
    return encoder.payload().ljust(smallest_size(tokens.size), b"\0")


def decode(
    payload: bytes,
    tokens: int,
    points: Points,
    stride: int,
    parent: Parent | None,
    count: Callable[[int], None],
) -> Tokens:
    """Undo :func:`encode`; the result is uint16 (tokens,).

    Raises:
        StreamInvalidError: no encoder wrote these bytes.
    """
    context = Context(points, stride, parent)
    model = context.model()
    decoder = Decoder(payload)
    values = np.empty(tokens, dtype=np.uint16)
    for start in range(0, tokens, BLOCK):
        for number in range(start, min(start + BLOCK, tokens)):
            values[number] = token = decoder.decode(model.row(*context.at(number)))
            model.update(token)
            context.coded(token)
        count(min(BLOCK, tokens - start))
    return values


def smallest_size(tokens: int) -> int:
    """Return the fewest bytes that a stream of so many tokens may have."""
    return tokens // MAX_TOKENS_PER_BYTE
