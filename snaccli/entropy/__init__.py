"""Tokens to bytes and back, exactly, on every machine. Knows no torch and no file.

``encode`` gives every level and channel of a token grid the smallest of the coders' payloads, ``decode``
turns payloads into the grid again. docs/format.md describes the coders down to the last rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np

from snac.products import one_thread_each
from snaccli.codes import FINGERPRINT_BYTES, CodedStream, Coder, Codes, Tokens, packed_size, token_bits
from snaccli.entropy.adaptive import Context, Parent, Row, StreamCoder, in_step, smallest_size
from snaccli.entropy.arithmetic import Codebook, Points, points_of
from snaccli.entropy.payloads import Encoder, pack, unpack
from snaccli.entropy.prior import Prior, PriorStream
from snaccli.errors import ModelMismatchError, Remedy, StreamInvalidError
from snaccli.progress import rising

__all__ = ["Codebook", "Prior", "context_of", "decode", "encode", "space_of"]


def encode(
    codes: Codes,
    codebooks: Sequence[Codebook] | None = None,
    *,
    prior: Prior | None = None,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> list[CodedStream]:
    """Codes a token grid: one stream a level and channel, coarse to fine, channel by channel.

    Args:
        codes: the tokens.
        codebooks: the checkpoint's codebooks, one float32 array (codebook size, dimension) a level;
            without them every stream is packed raw.
        prior: of the same checkpoint; streams may then be coder 2's, where that makes the file smaller.
        threads: that may code side by side; two are as good as more.
        progress: called with the fraction done, 0 to 1.

    Returns:
        The streams in the file's order, none larger than its packed raw form.

    Raises:
        ModelMismatchError: the codebooks or the prior are not those of the tokens.
    """
    size = codes.codebook_size
    space = None if codebooks is None else space_of(codebooks, size, len(codes.levels))
    if prior is not None:
        prior.check_grid(codes.strides, size)
    told, done = rising(progress), 0
    found: list[list[list[CodedStream]]] = []  # of each channel and level the forms there are
    for channel in range(codes.channels):
        tokens = [level[channel] for level in codes.levels]
        rows = [
            Row(row, stride, None, done=row.size) for row, stride in zip(tokens, codes.strides, strict=True)
        ]
        if space is not None and codes.frames:
            for level, row in enumerate(rows):
                learned = None if prior is None else PriorStream(prior, level, tokens[:level])
                context = context_of(space, codes.strides, tokens[:level])
                row.coder = StreamCoder(context, prior=learned)
                row.encoders, row.done = [Encoder() for _ in range(1 if prior is None else 2)], 0
        with one_thread_each(), closing(in_step(rows, threads)) as steps:
            for _ in steps:
                told((done + sum(row.done for row in rows)) / codes.tokens)
        done += sum(row.done for row in rows)
        found.append([])
        for row in rows:
            payloads = [each.payload().ljust(smallest_size(row.tokens.size), b"\0") for each in row.encoders]
            forms = [
                CodedStream(*form) for form in zip((Coder.ADAPTIVE, Coder.PRIOR), payloads, strict=False)
            ]
            if not forms or max(map(_size, forms)) >= packed_size(row.tokens.size, token_bits(size)):
                forms.insert(0, CodedStream(Coder.RAW, pack(row.tokens, size)))
            found[-1].append(forms)
    in_order = [forms for level in zip(*found, strict=True) for forms in level]
    alone = [min((form for form in forms if form.coder != Coder.PRIOR), key=_size) for forms in in_order]
    streams = [min(forms, key=_size) for forms in in_order]
    told(1.0)
    # A file names the prior that it needs, and must not become larger by that.
    saved = sum(map(_size, alone)) - sum(map(_size, streams))
    return streams if saved > FINGERPRINT_BYTES else alone


def decode(
    streams: Sequence[CodedStream],
    *,
    strides: Sequence[int],
    channels: int,
    frames: int,
    codebook_size: int,
    codebooks: Sequence[Codebook] | None = None,
    prior: Prior | None = None,
    threads: int = 1,
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
        threads: as for :func:`encode`.
        progress: called with the fraction done, 0 to 1.

    Raises:
        StreamInvalidError: a stream does not decode to as many tokens, or needs what is not there.
        ModelMismatchError: the codebooks or the prior are not those of the tokens.
    """
    strides = tuple(strides[: len(streams) // channels])
    space = None if codebooks is None else space_of(codebooks, codebook_size, len(strides))
    if prior is not None:
        prior.check_grid(strides, codebook_size)
    told, done = rising(progress), 0
    whole = sum(channels * (frames // stride) for stride in strides)
    found: list[list[Tokens]] = []  # of each channel
    for channel in range(channels):
        rows: list[Row] = []
        for stride, (number, payload) in zip(strides, streams[channel::channels], strict=True):
            count = frames // stride
            if number == Coder.RAW:
                rows.append(Row(unpack(payload, count, codebook_size), stride, None, done=count))
                continue
            if space is None:
                raise StreamInvalidError("an adaptive stream needs the model's codebooks; name the model")
            coarser = [row.tokens for row in rows]
            learned = None
            if number != Coder.ADAPTIVE:
                if prior is None or number != Coder.PRIOR:
                    raise StreamInvalidError("a stream needs a learned prior that is not here")
                learned = PriorStream(prior, len(rows), coarser)
            coder = StreamCoder(context_of(space, strides, coarser), payload, learned)
            rows.append(Row(np.zeros(count, np.uint16), stride, coder, coarser=tuple(rows)))
        with one_thread_each(), closing(in_step(rows, threads)) as steps:
            for _ in steps:
                told((done + sum(row.done for row in rows)) / whole)
        done += sum(row.done for row in rows)
        found.append([row.tokens for row in rows])
    told(1.0)
    return Codes(tuple(np.stack(level) for level in zip(*found, strict=True)), strides, codebook_size)


def _size(stream: CodedStream) -> int:
    return len(stream.payload)


def space_of(codebooks: Sequence[Codebook], size: int, levels: int) -> list[Points]:
    """Returns the codewords of each level as points.

    Args:
        codebooks: float32 (size, dimension) a level; there may be more than are wanted.
        size: codewords that each must have.
        levels: that are wanted.

    Raises:
        ModelMismatchError: there are fewer codebooks, or others.
    """
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


def context_of(space: Sequence[Points], strides: Sequence[int], coarser: Sequence[Tokens]) -> Context:
    """Returns the context of the stream that follows on the coarser levels of its channel."""
    level = len(coarser)
    parent = Parent(coarser[-1], space[level - 1], strides[level - 1]) if coarser else None
    return Context(space[level], strides[level], parent)
