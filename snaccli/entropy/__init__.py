"""Tokens to bytes and back, exactly, on every machine. Knows no torch and no file.

``encode`` gives every level and channel of a token grid the smallest of the coders' payloads, ``decode``
turns payloads into the grid again. docs/format.md describes the coders down to the last rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np

from snaccli.codes import CodedStream, Codes, Tokens
from snaccli.entropy import adaptive, raw
from snaccli.entropy.neighbours import Codebook
from snaccli.errors import StreamInvalidError

__all__ = ["Codebook", "Coder", "decode", "encode"]


class Coder(IntEnum):
    """The coders' numbers in the file."""

    RAW = 0
    ADAPTIVE = 1
    PRIOR = 2


def encode(
    codes: Codes,
    codebooks: Sequence[Codebook] | None = None,
    *,
    progress: Callable[[float], None] | None = None,
) -> list[CodedStream]:
    """Code a token grid: one stream a level and channel, coarse to fine, channel by channel.

    Args:
        codes: the tokens.
        codebooks: the checkpoint's codebooks, one float array (codebook size, dimension) a level; without
            them every stream is packed raw.
        progress: called with the fraction done, 0 to 1.

    Returns:
        The streams in the file's order, none larger than its packed raw form.
    """
    streams = []
    for level, tokens in enumerate(codes.levels):
        for channel in tokens:
            streams.append(
                _encode_stream(channel, codes.codebook_size, None if codebooks is None else codebooks[level])
            )
            if progress is not None:
                progress(len(streams) / (len(codes.levels) * codes.channels))
    return streams


def decode(
    streams: Sequence[CodedStream],
    *,
    strides: Sequence[int],
    channels: int,
    frames: int,
    codebook_size: int,
    codebooks: Sequence[Codebook] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Codes:
    """Undo :func:`encode`, for all levels or for the coarsest ones alone.

    Args:
        streams: as :func:`encode` gave them, of the first ``len(streams) // channels`` levels.
        strides: latent frames per token of these levels or of all levels.
        channels: audio channels.
        frames: latent frames per channel.
        codebook_size: codewords of every codebook.
        codebooks: the checkpoint's codebooks; adaptive streams cannot be read without them.
        progress: called with the fraction done, 0 to 1.

    Raises:
        StreamInvalidError: a stream does not decode to as many tokens, or needs what is not there.
    """
    used = len(streams) // channels
    levels = []
    for level, stride in enumerate(strides[:used]):
        rows: list[Tokens] = []
        for stream in streams[level * channels : (level + 1) * channels]:
            codebook = None if codebooks is None else codebooks[level]
            rows.append(_decode_stream(stream, frames // stride, codebook_size, codebook))
            if progress is not None:
                progress((level * channels + len(rows)) / len(streams))
        levels.append(np.stack(rows))
    return Codes(tuple(levels), tuple(strides[:used]), codebook_size)


def _encode_stream(tokens: Tokens, size: int, codebook: Codebook | None) -> CodedStream:
    plain = CodedStream(Coder.RAW, raw.pack(tokens, size))
    if codebook is None or not tokens.size:
        return plain
    coded = CodedStream(Coder.ADAPTIVE, adaptive.encode(tokens, codebook))
    return coded if len(coded.payload) < len(plain.payload) else plain


def _decode_stream(stream: CodedStream, tokens: int, size: int, codebook: Codebook | None) -> Tokens:
    if stream.coder == Coder.RAW:
        return raw.unpack(stream.payload, tokens, size)
    if stream.coder != Coder.ADAPTIVE:
        raise StreamInvalidError(f"coder {stream.coder} is not known here; update snaccli")
    if codebook is None:
        raise StreamInvalidError("an adaptive stream needs the model's codebooks; name the model with -m")
    return adaptive.decode(stream.payload, tokens, codebook)
