"""What ``snac tokens`` does: how recordings are exported, to shards too, and how results are worded.

Shards of many recordings are gone on with where they are there.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snaccli.cli import options
from snaccli.cli.batch import Batch, Choices, FileWork, anywhere, model_anywhere, run_on_cluster
from snaccli.cli.plan import OutputClashError, Plan, Sources, is_snac
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import STDIO, ExitStatus, OutputError, SnacError, UsageError, shown
from snaccli.io import elsewhere
from snaccli.io.files import open_input
from snaccli.progress import Progress
from snaccli.workers import Job, Outcome

if TYPE_CHECKING:
    from snaccli.codec.cluster import Place
    from snaccli.tokens.transfer import Exporter, ExportResult, ImportResult

__all__ = ["Export", "export_shards", "exporting", "facts", "portable", "total"]


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


def export_shards(
    console: Console,
    sources: Sources,
    folder: str | None,
    form: str,
    shard_size: int,
    how: Export,
    choices: Choices,
    place: Place | None,
) -> ExitStatus:
    """Exports to shards in `folder`; recordings that are in its shards already are passed over."""
    from snaccli.tokens.files import draft
    from snaccli.tokens.formats import FORMATS
    from snaccli.tokens.shards import ShardWriter
    from snaccli.tokens.transfer import companions

    if folder is None or folder == STDIO or os.path.splitext(folder)[1].lower() == f".{form}":
        raise UsageError("several recordings are written in shards; give -o a folder for them")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{shown(folder)} is a file; for several inputs -o names a folder")
    paths = _distinct_paths(sources)
    done = _done(folder, form, how, sources, choices)
    todo = [source for source, path in paths.items() if path not in done]
    if len(todo) < len(paths):
        console.note(f"{len(paths) - len(todo)} of {text.count(len(paths), 'recording')} are there already")
    plan = Plan(
        [Job(source, os.path.join(folder, "")) for source in todo], True, sources.problems, sources.remarks
    )
    batch = Batch(console, plan, choices)
    if place is not None:
        recordings = [(source, paths[source]) for source in todo]
        return _export_on_cluster(console, plan, recordings, folder, form, shard_size, how, choices, place)
    turns = {source: turn for turn, source in enumerate(todo)}
    kind = FORMATS[form]
    with ShardWriter(folder, kind, shard_size, len(todo), fresh=choices.force) as shards:

        def write(exporter: Exporter, source: str, output: str, progress: Progress) -> ExportResult:
            started = time.perf_counter()
            try:
                recording = exporter.recording(source, paths[source], progress)
                told = draft(recording, exporter.form)
                beside = companions(source) if form == "tar" else ()
            except Exception:
                shards.put(turns[source], None)
                raise
            shard = shards.put(turns[source], told, beside)
            return exporter.result(recording, source, shard, 0, started)

        def lost() -> dict[str, Exception]:
            return {todo[turn]: error for turn, error in shards.finish().items()}

        return batch.run(dataclasses.replace(exporting(console, how, batch, write), settle=lost))


def _export_on_cluster(
    console: Console,
    plan: Plan,
    recordings: list[tuple[str, str]],
    folder: str,
    form: str,
    shard_size: int,
    how: Export,
    choices: Choices,
    place: Place,
) -> ExitStatus:
    """The same by the workers of a cluster, to the same shards."""
    from snaccli.io.files import make_folder
    from snaccli.tokens.recording import Form
    from snaccli.tokens.shards import ShardWork, existing, next_number, remove, shard_units

    if choices.force:
        remove(existing(folder))
    if not elsewhere.is_url(folder):
        make_folder(folder)
    found = [(anywhere(source), path) for source, path in recordings]
    units = shard_units(found, anywhere(folder), form, shard_size, next_number(folder))
    work = ShardWork(
        model=model_anywhere(how.model),
        device=how.device.value,
        threads=place.cpus,
        form=Form(how.interleaved, how.offsets, how.start_id),
        levels=how.levels,
        channels=how.channels.value,
        extension=form,
        audio=not all(is_snac(source) for source, _ in recordings),
    )
    told = [Outcome[object](Job(name, ""), error=problem) for name, problem in plan.problems]
    for remark in plan.remarks:
        console.note(remark)
    return run_on_cluster(console, told, work, units, len(recordings), place, verb="exported")


def _distinct_paths(sources: Sources) -> dict[str, str]:
    """The name of each recording within the shards."""
    paths: dict[str, str] = {}
    owners: dict[str, str] = {}
    for source, below in sources.files:
        path = portable(below)
        if owners.setdefault(path, source) != source:
            raise OutputClashError(
                f"{shown(owners[path])} and {shown(source)} would both be called "
                f"{shown(path)}; name the folder that holds both, or give each a folder of shards"
            )
        paths[source] = path
    return paths


def _done(folder: str, form: str, how: Export, sources: Sources, choices: Choices) -> set[str]:
    """The paths of recordings that need not be exported again.

    Raises:
        OutputError: there are shards, and neither resuming nor overwriting was asked for.
        TokenFileError: they hold tokens of another kind.
    """
    from snaccli.tokens.shards import existing, paths_done

    if choices.force or not existing(folder):
        return set()
    if not choices.skip_existing:
        raise OutputError(
            f"{shown(folder)} holds shards already: --skip-existing goes on with them, -f replaces them"
        )
    return paths_done(folder, form, _Expected(how, sources).of)


class _Expected:
    """What the records of a run say beside their tokens, by path: what resuming compares."""

    def __init__(self, how: Export, sources: Sources) -> None:
        self._common: dict[str, Any] = {"layout": "interleaved" if how.interleaved else "nested"}
        if how.interleaved:
            self._common |= {"offsets": how.offsets, "start_id": how.start_id}
        self._levels = how.levels
        self._coded = {portable(below): source for source, below in sources.files if is_snac(source)}
        self._audio: dict[str, Any] | None = None
        if how.model is not None or len(self._coded) < len(sources.files):
            from snac.hub.checkpoint import load_checkpoint
            from snac.hub.registry import DEFAULT_MODEL

            model = load_checkpoint(how.model or DEFAULT_MODEL)
            config = model.config
            self._audio = self._facts(model.fingerprint, config.vq_strides, config.codebook_size)
            # A recording that has one channel has one either way; one mixed down says so.
            self._audio |= {"mixed_from": None} if how.channels == "keep" else {"channels": 1}

    def of(self, path: str) -> list[dict[str, Any]]:
        """What the record of that path says; for a path that the run has not, what any of its records may."""
        if path in self._coded:
            return [self._of_file(self._coded[path])]
        if self._audio is not None:
            return [self._audio]
        return [self._of_file(source) for source in self._coded.values()]

    @functools.cache  # noqa: B019 (it lives as long as the run)
    def _of_file(self, source: str) -> dict[str, Any]:
        from snaccli.container import read_header

        try:
            with open_input(source) as file:
                header = read_header(file).header
        except (SnacError, OSError):  # told when it is exported, or not needed
            return {}
        facts = self._facts(header.fingerprint.hex(), header.strides, header.codebook_size)
        return facts | {"channels": header.channels}

    def _facts(self, fingerprint: str, strides: Sequence[int], codebook_size: int) -> dict[str, Any]:
        return self._common | {
            "fingerprint": fingerprint,
            "strides": list(strides[: self._levels]),
            "codebook_size": codebook_size,
        }
