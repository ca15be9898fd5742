"""Coder 1: frequencies learned from the tokens already coded, of this level and of the coarser one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from snaccli.codes import Tokens
from snaccli.entropy.compiled import TokenCoder
from snaccli.entropy.context import Context, Parent
from snaccli.entropy.directions import Points
from snaccli.entropy.plain import PlainCoder
from snaccli.entropy.rangecoder import Encoder

__all__ = ["MAX_TOKENS_PER_BYTE", "Parent", "decode", "encode", "smallest_size"]

MAX_TOKENS_PER_BYTE = 85


def encode(
    tokens: Tokens,
    points: Points,
    stride: int,
    parent: Parent | None,
    count: Callable[[int], None],
    coder: type[TokenCoder] = PlainCoder,
) -> bytes:
    """Code the tokens of one level and channel.

    Args:
        tokens: uint16 (n,), below the number of codewords.
        points: the level's codewords (size, dim).
        stride: latent frames per token.
        parent: the coarser level, None at the coarsest.
        count: called now and then with the number of tokens coded since the last call.
        coder: what to code with; the bytes are the same.
    """
    learner = coder(Context(points, stride, parent))
    encoder = Encoder()
    for start in range(0, tokens.size, coder.block):
        block = tokens[start : start + coder.block]
        encoder.encode_intervals(learner.intervals(block))
        count(block.size)
    return encoder.payload().ljust(smallest_size(tokens.size), b"\0")


def decode(
    payload: bytes,
    tokens: int,
    points: Points,
    stride: int,
    parent: Parent | None,
    count: Callable[[int], None],
    coder: type[TokenCoder] = PlainCoder,
) -> Tokens:
    """Undo :func:`encode`; the result is uint16 (tokens,).

    Raises:
        StreamInvalidError: no encoder wrote these bytes.
    """
    learner = coder(Context(points, stride, parent), payload)
    values = np.empty(tokens, dtype=np.uint16)
    for start in range(0, tokens, coder.block):
        block = values[start : start + coder.block]
        block[:] = learner.tokens(block.size)
        count(block.size)
    return values


def smallest_size(tokens: int) -> int:
    """Return the fewest bytes that a stream of so many tokens may have."""
    return tokens // MAX_TOKENS_PER_BYTE
