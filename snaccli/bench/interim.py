"""Coding between samples and ``.snac`` files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from snaccli.bench.tracks import Samples
from snaccli.codec import Codec, Span, dumps, loads


def encode(codec: Codec, blocks: Iterable[Samples], rate: int) -> bytes:
    """Returns the bytes of the file."""
    return dumps(codec.encode(blocks, rate, 1), codec.codebooks)


def decode(
    codec: Codec, coded: Path, levels: int | None, start: float = 0.0, duration: float | None = None
) -> Iterator[Samples]:
    """Yields blocks (n, 1) at the recording's rate."""
    with coded.open("rb") as file:
        recording = loads(file, path=coded).decode(codec, levels)
    yield from codec.decode(recording, span=Span(start, duration))
