"""``snac tokens``: what ``export`` and ``import`` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from snaccli.cli import options
from snaccli.cli.ui import text

if TYPE_CHECKING:
    from snaccli.tokens.transfer import ExportResult, ImportResult

__all__ = ["Model", "Offsets", "StartId", "line", "total"]

Offsets = Annotated[
    bool,
    typer.Option("--offsets", help="Interleaved: each position of a frame has a range of ids of its own."),
]
StartId = Annotated[
    int, typer.Option("--start-id", min=0, metavar="N", help="Interleaved: the smallest id; added to all.")
]
Model = Annotated[
    str | None,
    options.model("A model's name or folder. By default the one a file names, and mini for audio."),
]


def line(result: ExportResult | ImportResult) -> str:
    """Word the result of one recording."""
    levels = "" if result.levels == 1 else f"in {result.levels} levels"
    return text.joined(
        text.arrow(result.source, result.output),
        text.clock(result.duration_s),
        f"{result.tokens:,} tokens {levels}".rstrip(),
        text.speed(result.duration_s, result.seconds),
    )


def total(results: Sequence[ExportResult | ImportResult], wall_seconds: float) -> str:
    """Word the sum of several results."""
    audio_seconds = sum(result.duration_s for result in results)
    return text.joined(
        f"{text.clock(audio_seconds)} of audio",
        f"{sum(result.tokens for result in results):,} tokens",
        text.speed(audio_seconds, wall_seconds),
    )
