"""The bytes of a stream: tokens packed raw, or what a range coder makes of tokens and their frequencies.

Coder 0 writes each token in the same number of bits, most significant bit first. The others use
constriction's range encoder, held to the part of it that the file format pins, and a decoder of its own that
is part of their kernel (docs/format.md, section 5). Words have 32 bits, the state 64, frequencies 24. A
payload is the coder's words as big-endian bytes, cut to the shortest string that still decodes: a reader
takes what is missing at the end for zeros.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from snac.jit import part
from snaccli.codes import Tokens, packed_size, token_bits
from snaccli.entropy.arithmetic import Integer
from snaccli.errors import StreamInvalidError

PRECISION = 24  # bits of the sum of all frequencies
TOTAL = 1 << PRECISION

PIECE = 256  # codewords whose frequencies are summed up together
BLOCK = 1 << 16  # tokens unpacked at once; a multiple of 8, so that blocks end on whole bytes


L, V = np.int64, np.uint64
Array = npt.NDArray[Any]


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


@part
def _below(row: Array, token: Integer, extra: int) -> Any:
    """Returns the sum of the frequencies before a token's."""
    total = L(0)
    for c in range(token):
        total += row[c]
    return total + extra * token


@part
def interval(row: Array, token: Integer, extra: int, out: Array) -> None:
    """Sets the frequencies before a token's, and its own."""
    out[0] = _below(row, token, extra)
    out[1] = row[token] + extra


@part
def decode_token(row: Array, extra: int, payload: Array, reader: Array) -> Any:
    """Decodes a token: docs/format.md, section 5. Returns -1 if no encoder wrote these bytes."""
    scale = reader[0] >> V(PRECISION)
    quantile = L(reader[1] // scale)
    if quantile >= TOTAL:
        return -1
    token, below, mass = 0, L(0), L(0)
    while below + mass <= quantile:  # whole pieces first
        below += mass
        end = min(token + PIECE, row.size)
        mass = _below(row[token:end], end - token, extra)
        token = end
    token = (token - 1) // PIECE * PIECE
    while below + row[token] + extra <= quantile:
        below += row[token] + extra
        token += 1
    reader[0] = scale * V(row[token] + extra)
    reader[1] -= scale * V(below)
    if not reader[0] >> V(32):
        reader[0] <<= V(32)
        for at in range(L(reader[2]), L(reader[2]) + 4):
            reader[1] = reader[1] << V(8) | V(payload[at] if at < payload.size else 0)
        reader[2] += V(4)
    return token
