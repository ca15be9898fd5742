"""Tokens to bytes and back, exactly, on every machine. Knows no torch and no file.

``encode`` gives every level and channel of a token grid the smallest of the coders' payloads, ``decode``
turns payloads into the grid again. docs/format.md describes the coders down to the last rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from snaccli.codes import FINGERPRINT_BYTES, CodedStream, Coder, Codes, Tokens
from snaccli.entropy import adaptive, raw
from snaccli.entropy.adaptive import Parent
from snaccli.entropy.points import Codebook, Points, points_of
from snaccli.entropy.prior import Prior
from snaccli.errors import ModelMismatchError, Remedy, StreamInvalidError

__all__ = ["Codebook", "Prior", "decode", "encode"]


def encode(
    codes: Codes,
    codebooks: Sequence[Codebook] | None = None,
    *,
    prior: Prior | None = None,
    progress: Callable[[float], None] | None = None,
) -> list[CodedStream]:
    """Codes a token grid: one stream a level and channel, coarse to fine, channel by channel.

    Args:
        codes: the tokens.
        codebooks: the checkpoint's codebooks, one float32 array (codebook size, dimension) a level;
            without them every stream is packed raw.
        prior: of the same checkpoint; streams may then be coder 2's, where that makes the file smaller.
        progress: called with the fraction done, 0 to 1.

    Returns:
        The streams in the file's order, none larger than its packed raw form.

    Raises:
        ModelMismatchError: the codebooks or the prior are not those of the tokens.
    """
    space = None if codebooks is None else _space(codebooks, codes.codebook_size, len(codes.levels))
    if prior is not None:
        prior.check_grid(codes.strides, codes.codebook_size)
    steps = Steps(codes.tokens, progress)
    alone: list[CodedStream] = []
    streams: list[CodedStream] = []
    for level, tokens in enumerate(codes.levels):
        for channel in range(codes.channels):
            learned = None
            best = CodedStream(Coder.RAW, raw.pack(tokens[channel], codes.codebook_size))
            if space is not None and tokens.size:
                parent = _parent(codes.levels, codes.strides, space, level, channel)
                if prior is not None:
                    learned = prior.stream(level, _of(codes.levels[:level], channel))
                coded = adaptive.encode(
                    tokens[channel], space[level], codes.strides[level], parent, steps.count, learned
                )
                best = _smaller(best, CodedStream(Coder.ADAPTIVE, coded[0]))
            alone.append(best)
            if learned is not None:
                best = _smaller(best, CodedStream(Coder.PRIOR, coded[1]))
            streams.append(best)
    steps.end()
    # A file names the prior that it needs, and must not become larger by that.
    return streams if _size(streams) + FINGERPRINT_BYTES < _size(alone) else alone


def decode(
    streams: Sequence[CodedStream],
    *,
    strides: Sequence[int],
    channels: int,
    frames: int,
    codebook_size: int,
    codebooks: Sequence[Codebook] | None = None,
    prior: Prior | None = None,
    progress: Callable[[float], None] | None = None,
) -> Codes:
    """Undoes :func:`encode`, for all levels or for the coarsest ones alone.

    Args:
        streams: as :func:`encode` gave them, of the first ``len(streams) // channels`` levels.
        strides: latent frames per token of these levels or of all levels.
        channels: audio channels.
        frames: latent frames per channel.
        codebook_size: codewords of every codebook.
        codebooks: the checkpoint's codebooks; adaptive streams cannot be read without them.
        prior: that which the file names; streams of coder 2 cannot be read without it.
        progress: called with the fraction done, 0 to 1.

    Raises:
        StreamInvalidError: a stream does not decode to as many tokens, or needs what is not there.
        ModelMismatchError: the codebooks or the prior are not those of the tokens.
    """
    used = len(streams) // channels
    space = None if codebooks is None else _space(codebooks, codebook_size, used)
    if prior is not None:
        prior.check_grid(strides[:used], codebook_size)
    steps = Steps(sum(channels * (frames // stride) for stride in strides[:used]), progress)
    levels: list[Tokens] = []
    for level, stride in enumerate(strides[:used]):
        rows: list[Tokens] = []
        for channel, (number, payload) in enumerate(streams[level * channels : (level + 1) * channels]):
            tokens = frames // stride
            if number == Coder.RAW:
                rows.append(raw.unpack(payload, tokens, codebook_size))
                continue
            if space is None:
                raise StreamInvalidError("an adaptive stream needs the model's codebooks; name the model")
            learned = None
            if number != Coder.ADAPTIVE:
                if prior is None or number != Coder.PRIOR:
                    raise StreamInvalidError("a stream needs a learned prior that is not here")
                learned = prior.stream(level, _of(levels, channel))
            parent = _parent(levels, strides, space, level, channel)
            rows.append(adaptive.decode(payload, tokens, space[level], stride, parent, steps.count, learned))
        levels.append(np.stack(rows))
    steps.end()
    return Codes(tuple(levels), tuple(strides[:used]), codebook_size)


def _smaller(first: CodedStream, second: CodedStream) -> CodedStream:
    """Returns the stream of fewer bytes, the first if they have as many."""
    return second if len(second.payload) < len(first.payload) else first


def _size(streams: Sequence[CodedStream]) -> int:
    return sum(len(stream.payload) for stream in streams)


class Steps:
    """Turns counts of tokens into calls of ``progress`` with the fraction done."""

    def __init__(self, whole: int, progress: Callable[[float], None] | None) -> None:
        self.whole, self.progress, self.done = whole, progress, 0

    def count(self, tokens: int) -> None:
        """Takes so many tokens as done."""
        self.done += tokens
        if self.progress is not None and self.done < self.whole:
            self.progress(self.done / self.whole)

    def end(self) -> None:
        """Takes all tokens as done."""
        if self.progress is not None:
            self.progress(1.0)


def _space(codebooks: Sequence[Codebook], size: int, levels: int) -> list[Points]:
    """Returns the codewords of each level as points."""
    if len(codebooks) < levels:
        raise ModelMismatchError(
            f"the tokens have {levels} levels, the model has {len(codebooks)} codebooks",
            remedy=Remedy.OTHER_MODEL,
        )
    other = next((len(codebook) for codebook in codebooks[:levels] if len(codebook) != size), size)
    if other != size:
        raise ModelMismatchError(
            f"the tokens are of codebooks of {size} codewords, the model's codebooks have {other}",
            remedy=Remedy.OTHER_MODEL,
        )
    return [points_of(codebook) for codebook in codebooks[:levels]]


def _of(levels: Sequence[Tokens], channel: int) -> list[Tokens]:
    """Returns the tokens of one channel, level by level."""
    return [level[channel] for level in levels]


def _parent(
    levels: Sequence[Tokens], strides: Sequence[int], space: Sequence[Points], level: int, channel: int
) -> Parent | None:
    """Returns the coarser level of the same channel, if there is one."""
    if not level:
        return None
    return Parent(levels[level - 1][channel], space[level - 1], strides[level - 1])
