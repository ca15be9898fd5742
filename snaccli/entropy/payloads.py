"""The bytes of a stream: tokens packed raw, and constriction's range encoder.

Coder 0 writes each token in the same number of bits, most significant bit first. The others use the range
encoder, held to the part of it that the file format pins; kernel.py decodes. Its words have 32 bits, its
state 64, frequencies 24. A payload is the coder's words as big-endian bytes, cut to the shortest string that
still decodes: a reader takes what is missing at the end for zeros.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from snaccli.codes import Tokens, packed_size, token_bits
from snaccli.entropy.kernel import TOTAL
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


_Categorical: Any = constriction.stream.model.Categorical


class Encoder:
    """Writes symbols under integer frequencies that are at least 1 and sum to 2^24.

    constriction gets rows of them *less one*, as floats: it adds 1 to every entry of a row and scales the
    rest to 2^24 less their number. The scale is then exactly 1, and no step rounds.
    """

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()
        self._family = _Categorical(perfect=False)

    def encode_intervals(self, intervals: npt.NDArray[np.int64]) -> None:
        """Encodes symbols of which no more than their intervals is known.

        Args:
            intervals: the frequencies below a symbol's, and its own (n, 2), no symbol's above 15/16 of all.
        """
        below, own = intervals.T
        first, last = below == 0, below + own == TOTAL
        # The middle one of three symbols; where there is nothing on one side, the other is split.
        symbols = np.where(first, 0, np.where(last, 2, 1)).astype(np.int32)
        left = np.where(first, own, np.where(last, 1, below))
        middle = np.where(first, 1, np.where(last, below - 1, own))
        rows = np.stack([left, middle, TOTAL - left - middle], axis=1)
        self._encoder.encode(symbols, self._family, (rows - 1).astype(np.float64))

    def payload(self) -> bytes:
        """Returns the shortest bytes that decode to the symbols so far."""
        words = self._encoder.get_compressed()
        position, (lower, size) = self._encoder.pos()
        if not position and not words.size:
            return b""
        # The coded number may be any in [low, low + size); `words` is one of them, its last 64 bits are
        # congruent to the state's up to what was added to `lower`.
        digits = 4 * (int(position) + 2)
        coded = int.from_bytes(words.astype(">u4").tobytes().ljust(digits, b"\0")[:digits], "big")
        low = coded - ((coded - int(lower)) & ((1 << 64) - 1))
        return shortest_bytes(low, low + int(size), digits)


def shortest_bytes(low: int, high: int, digits: int) -> bytes:
    """Returns the shortest bytes that, filled up with zeros to ``digits``, are a number in [low, high)."""
    length = digits
    number = low
    for cut in range(1, digits + 1):
        unit = 1 << (8 * cut)
        candidate = -(-low // unit) * unit
        if candidate >= high or candidate >> (8 * digits):
            break
        length, number = digits - cut, candidate
    return number.to_bytes(digits, "big")[:length]


def undecodable() -> StreamInvalidError:
    """Returns the error for bytes that no encoder wrote."""
    return StreamInvalidError("a coded stream does not decode; encode the recording again")
