"""``snac tokens``: what its commands have in common: how exporting is done, how results are worded."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snaccli.cli import options
from snaccli.cli.batch import Batch, FileWork
from snaccli.cli.plan import is_snac
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.errors import STDIO
from snaccli.progress import Progress

if TYPE_CHECKING:
    from snaccli.tokens.transfer import Exporter, ExportResult, ImportResult

__all__ = ["Export", "exporting", "facts", "portable", "total"]


@dataclass(frozen=True)
class Export:
    """How the recordings of a run become tokens: see the options of these names."""

    interleaved: bool
    offsets: bool
    start_id: int
    levels: int | None
    channels: options.ChannelChoice
    model: str | None
    device: options.CodingDevice


Write = Callable[["Exporter", str, str, Progress], "ExportResult"]


def exporting(console: Console, how: Export, batch: Batch, write: Write) -> FileWork[ExportResult]:
    """Returns the work of exporting recordings.

    Args:
        console: of the run.
        how: the options.
        batch: the recordings.
        write: exports one: ``write(exporter, source, output, progress)``.
    """
    exporter = functools.cache(functools.partial(_exporter, console, how, batch))

    def convert(source: str, output: str, progress: Progress) -> ExportResult:
        return write(exporter(), source, output, progress)

    return FileWork("exported", convert, facts, total, exporter)


def _exporter(console: Console, how: Export, batch: Batch) -> Exporter:
    """Returns what exports recordings, its model loaded where it is known before the first file is read."""
    with waiting(console, "loading the model"):
        from snaccli.codec import ModelPool
        from snaccli.tokens.recording import Form
        from snaccli.tokens.transfer import Exporter

        models = ModelPool(how.model, device=how.device.value, threads=batch.threads)
        sources = [job.source for job in batch.waiting if job.source != STDIO]
        if how.model is not None or not all(is_snac(source) for source in sources):
            codec = models.get()
            console.detail(f"model {codec.name}, fingerprint {codec.fingerprint}, on {codec.device}")
    form = Form(how.interleaved, how.offsets, how.start_id)
    return Exporter(models, form, how.levels, how.channels.value)


def portable(path: str) -> str:
    """Returns the name of a recording as files of tokens have it, the same on every system."""
    return path.replace(os.sep, "/")


def facts(result: ExportResult | ImportResult) -> Sequence[str]:
    """Words the result of one recording."""
    levels = "" if result.levels == 1 else f"in {result.levels} levels"
    return (
        text.clock(result.duration_s),
        f"{result.tokens:,} tokens {levels}".rstrip(),
        text.speed(result.duration_s, result.seconds),
    )


def total(results: Sequence[ExportResult | ImportResult], wall_seconds: float) -> str:
    """Words the sum of several results."""
    audio_seconds = sum(result.duration_s for result in results)
    return text.joined(
        f"{text.clock(audio_seconds)} of audio",
        f"{sum(result.tokens for result in results):,} tokens",
        text.speed(audio_seconds, wall_seconds),
    )
