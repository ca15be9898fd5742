"""Coder 1: frequencies learned from the tokens already coded, of this level and of the coarser one."""

from __future__ import annotations

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


class Context:
    """What is known of a token before it is coded: its phase and its features."""

    def __init__(self, points: Points, stride: int, parent: Parent | None) -> None:
        self.points = points
        self.dim = points.shape[1]
        self.stride = stride
        self.phases = 1
        self.parents: Integers = np.zeros((0, 0), dtype=np.int64)
        self.parent_stride = stride
        if parent is not None:
            ratio, rest = divmod(parent.stride, stride)
            self.phases = ratio if not rest and 1 <= ratio <= MAX_PHASES else 1
            self.parent_stride = parent.stride
            self.parents = _parent_features(parent)
        self.own = EARLIER * self.dim
        self.features = np.zeros(self.own + self.parents.shape[1] + 1, dtype=np.int64)
        self.features[-1] = BIAS

    def model(self) -> Model:
        """Return a model that has seen nothing."""
        return Model(self.points, self.phases, self.features.size, self.own)

    def at(self, position: int) -> tuple[int, Integers]:
        """Return phase and features of the token at ``position``; the features hold until the next call."""
        if self.parents.shape[1]:
            self.features[self.own : -1] = self.parents[position * self.stride // self.parent_stride]
        return position % self.phases, self.features

    def coded(self, token: int) -> None:
        """Take the token that was coded as the one before the next."""
        self.features[self.dim : self.own] = self.features[: self.own - self.dim].copy()
        self.features[: self.dim] = self.points[token]


def _parent_features(parent: Parent) -> Integers:
    """Return, for each coarser token, its point and the slope across it (tokens, 2 * dim)."""
    here = parent.points[parent.tokens]
    edged = np.pad(here, ((1, 1), (0, 0)))
    return np.concatenate([here, (edged[2:] - edged[:-2]) * 181 >> 8], axis=1)


def encode(tokens: Tokens, points: Points, stride: int, parent: Parent | None) -> bytes:
    """Code the tokens of one level and channel (uint16, (n,)).

    Args:
        tokens: what to code.
        points: the level's codewords (size, dim).
        stride: latent frames per token.
        parent: the coarser level, None at the coarsest.
    """
    context = Context(points, stride, parent)
    model = context.model()
    encoder = Encoder()
    for start in range(0, tokens.size, BLOCK):
        block = tokens[start : start + BLOCK].astype(np.int32)
        rows = np.empty((block.size, model.size))
        for number, token in enumerate(block.tolist()):
            rows[number] = model.row(*context.at(start + number))
            model.update(token)
            context.coded(token)
        encoder.encode(block, rows)
    return encoder.payload().ljust(smallest_size(tokens.size), b"\0")


def decode(payload: bytes, tokens: int, points: Points, stride: int, parent: Parent | None) -> Tokens:
    """Undo :func:`encode`."""
    context = Context(points, stride, parent)
    model = context.model()
    decoder = Decoder(payload)
    values = np.empty(tokens, dtype=np.uint16)
    for number in range(tokens):
        values[number] = token = decoder.decode(model.row(*context.at(number)))
        model.update(token)
        context.coded(token)
    return values


def smallest_size(tokens: int) -> int:
    """Return the fewest bytes that a stream of so many tokens may have."""
    return tokens // MAX_TOKENS_PER_BYTE
