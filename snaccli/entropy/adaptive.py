"""Coder 1: frequencies learned from the tokens already coded, in integers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from snaccli.codes import Tokens
from snaccli.entropy.neighbours import Codebook, neighbour_table
from snaccli.entropy.rangecoder import TOTAL, Decoder, Encoder

WEIGHT = 1 << 16  # what the weights of the three models sum to
SHARE = 1 << 9  # of it, what each step hands out again in equal parts
FLOOR = 1 << 12  # of it, what the uniform model always keeps
MAX_TOKENS_PER_BYTE = 85
BLOCK = 64  # rows encoded at once


class Model:
    """Mixes uniform, plain counts and counts shared with neighbouring codewords."""

    def __init__(self, size: int, table: npt.NDArray[np.int64]) -> None:
        self.size = size
        self.table = table
        self.kernel = 64 - 2 * np.arange(table.shape[1])
        self.plain = np.ones(size, dtype=np.int64)
        self.shared = np.ones(size, dtype=np.int64)
        self.totals = [size, size]
        self.weights = [WEIGHT * 3 // 4, WEIGHT // 8, WEIGHT // 8]

    def row(self) -> npt.NDArray[np.float64]:
        """Return the frequencies of the next token, less one: they sum to 2^24 less the size."""
        free = TOTAL - self.size
        weights = self.weights
        factors = [free * weights[1] // self.totals[0], free * weights[2] // self.totals[1]]
        uniform = free * weights[0] // self.size
        row = (self.plain * factors[0] + self.shared * factors[1] + uniform) >> 16
        row[0] += free - int(row.sum())
        return row.astype(np.float64)

    def update(self, token: int) -> None:
        """Learn from the token that was coded."""
        shares = [
            TOTAL // self.size,
            int(self.plain[token]) * TOTAL // self.totals[0],
            int(self.shared[token]) * TOTAL // self.totals[1],
        ]
        scores = [weight * share for weight, share in zip(self.weights, shares, strict=True)]
        free = WEIGHT - FLOOR - 3 * SHARE
        whole = sum(scores) or 1
        self.weights = [SHARE + free * score // whole for score in scores]
        self.weights[0] += WEIGHT - sum(self.weights)
        self.plain[token] += 16
        self.totals[0] += 16
        self.shared[self.table[token]] += self.kernel
        self.totals[1] += int(self.kernel.sum())


def encode(tokens: Tokens, codebook: Codebook) -> bytes:
    """Code the tokens of one level and channel (uint16, (n,))."""
    model = Model(len(codebook), neighbour_table(codebook))
    encoder = Encoder()
    for start in range(0, tokens.size, BLOCK):
        block = tokens[start : start + BLOCK].astype(np.int32)
        rows = np.empty((block.size, model.size))
        for number, token in enumerate(block.tolist()):
            rows[number] = model.row()
            model.update(token)
        encoder.encode(block, rows)
    return encoder.payload().ljust(smallest_size(tokens.size), b"\0")


def decode(payload: bytes, tokens: int, codebook: Codebook) -> Tokens:
    """Undo :func:`encode`."""
    model = Model(len(codebook), neighbour_table(codebook))
    decoder = Decoder(payload)
    values = np.empty(tokens, dtype=np.uint16)
    for number in range(tokens):
        values[number] = token = decoder.decode(model.row())
        model.update(token)
    return values


def smallest_size(tokens: int) -> int:
    """Return the fewest bytes that a stream of so many tokens may have."""
    return tokens // MAX_TOKENS_PER_BYTE
