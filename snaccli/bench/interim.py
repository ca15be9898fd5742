"""Coding between samples and ``.snac`` files, until the codec offers it in this form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from snaccli.bench.tracks import Samples
from snaccli.codec import Codec
from snaccli.codec.decoding import DecodeOptions, read_coded, start_decoding
from snaccli.codec.encoding import encode_samples


def encode(codec: Codec, blocks: Iterable[Samples], rate: int) -> bytes:
    """Returns the bytes of the file."""
    return encode_samples(codec, blocks, rate, 1)[0]


def decode(
    codec: Codec, coded: Path, levels: int | None, start: float = 0.0, duration: float | None = None
) -> Iterator[Samples]:
    """Yields blocks (n, 1) at the recording's rate."""
    options = DecodeOptions(codec, "original", levels, False, start, duration, 0, False, "auto", None)
    yield from start_decoding(read_coded(coded, options), options).blocks
