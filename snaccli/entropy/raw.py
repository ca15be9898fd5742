"""Coder 0: each token in the same number of bits, most significant bit first."""

from __future__ import annotations

import numpy as np

from snaccli.codes import Tokens, packed_size, token_bits
from snaccli.errors import StreamInvalidError

BLOCK = 1 << 16  # tokens unpacked at once; a multiple of 8, so that blocks end on whole bytes


def pack(tokens: Tokens, codebook_size: int) -> bytes:
    """Packs tokens (uint16, (n,)); the last byte is filled up with zero bits."""
    shifts = np.arange(token_bits(codebook_size) - 1, -1, -1, dtype=np.uint16)
    parts = []
    for start in range(0, tokens.size, BLOCK):
        bits = (tokens[start : start + BLOCK, None] >> shifts) & 1
        parts.append(np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes())
    return b"".join(parts)


def unpack(payload: bytes, tokens: int, codebook_size: int) -> Tokens:
    """Undoes :func:`pack`; the result is uint16 (tokens,).

    Raises:
        StreamInvalidError: the payload has another length, padding bits that are not zero, or a token beyond
            the codebook.
    """
    bits = token_bits(codebook_size)
    if len(payload) != packed_size(tokens, bits):
        raise StreamInvalidError(f"a raw stream of {tokens} tokens has {len(payload)} bytes; encode it again")
    spare = 8 * len(payload) - tokens * bits
    if spare and payload[-1] & ((1 << spare) - 1):
        raise StreamInvalidError("a raw stream ends with bits that are not zero; encode it again")
    values = np.zeros(tokens, dtype=np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.int64)
    data = np.frombuffer(payload, dtype=np.uint8)
    for start in range(0, tokens, BLOCK):
        count = min(BLOCK, tokens - start)
        first = start * bits // 8
        piece = np.unpackbits(data[first : first + packed_size(count, bits)])[: count * bits]
        values[start : start + count] = piece.reshape(count, bits) @ weights
    if tokens and int(values.max()) >= codebook_size:
        raise StreamInvalidError(f"a raw stream has a token beyond the codebook of {codebook_size}")
    return values
