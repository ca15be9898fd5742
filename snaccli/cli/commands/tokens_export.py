"""``snac tokens export``: the codes of recordings as tokens for language models."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snaccli.cli import cluster_runs, options
from snaccli.cli.commands import tokens
from snaccli.cli.jobs import Batch, Choices
from snaccli.cli.plan import OutputClashError, Plan, Sources, find_sources, is_snac, make_plan
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.cluster import Place
from snaccli.errors import ExitStatus, FileError, OutputError, SnacError, UsageError
from snaccli.io import remote
from snaccli.io.files import open_input
from snaccli.io.names import STDIO, shown
from snaccli.io.parts import members
from snaccli.progress import Progress
from snaccli.workers import Job, Outcome

if TYPE_CHECKING:
    from snaccli.tokens.transfer import Exporter, ExportResult

EXAMPLES = """
snac tokens export talk.wav                    writes talk.json: a list a level
snac tokens export talk.snac -o talk.npz       from codes there are, as arrays
snac tokens export recordings -o tokens        JSONL in shards, a line a recording
snac tokens export talk.wav -m 24khz --layout interleaved --offsets --start-id 128266
"""


class LayoutChoice(str, Enum):
    """How the tokens of a recording are laid out."""

    nested = "nested"
    interleaved = "interleaved"


class FormatChoice(str, Enum):
    """Of files of tokens."""

    json = "json"
    jsonl = "jsonl"
    npz = "npz"
    parquet = "parquet"
    tar = "tar"


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Audio or .snac files, or .tar of these; folders, of which all such files are taken; URLs of "
        "either, such as s3://...; or - for a .snac file on standard input.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="Write to this file, to this folder when there are several inputs, or to standard output "
        "(-). Without it the output of a single input stands beside it.",
    ),
]
FileFormat = Annotated[
    FormatChoice | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="json or npz: a file for each recording. jsonl, parquet or tar (as of WebDataset): shards of "
        "many. By default by the file extension of -o, else json for one recording and jsonl for several.",
    ),
]
Layout = Annotated[
    LayoutChoice,
    typer.Option("--layout", help="A list for each level, or one sequence in depth-first order."),
]
Levels = Annotated[
    int | None,
    typer.Option("--levels", min=1, metavar="N", help="The N coarsest levels only; all by default."),
]
Channels = Annotated[
    options.ChannelChoice,
    typer.Option("--channels", help="Of audio: mix all down to mono, or keep and code each by itself."),
]
ShardSize = Annotated[
    int,
    typer.Option("--shard-size", min=1, max=100_000, metavar="N", help="Recordings in a shard."),
]


Write = Callable[["Exporter", Job, Progress], "ExportResult"]


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


def export(
    context: typer.Context,
    inputs: Inputs,
    model: tokens.Model = None,
    output: Output = None,
    file_format: FileFormat = None,
    layout: Layout = LayoutChoice.nested,
    offsets: tokens.Offsets = False,
    start_id: tokens.StartId = 0,
    levels: Levels = None,
    channels: Channels = options.ChannelChoice.mono,
    shard_size: ShardSize = 1000,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    jobs: options.Jobs = None,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
    cluster: cluster_runs.Cluster = None,
    cpus: cluster_runs.CpusPerWorker = 1,
    gpus: cluster_runs.GpusPerWorker = 0.0,
) -> ExitStatus:
    """Write the codes of recordings as tokens for language models.

    From .snac files, or straight from audio. docs/tokens.md describes the files, the order and the ids.
    """
    console: Console = context.obj
    if layout is LayoutChoice.nested and (offsets or start_id):
        raise UsageError("--offsets and --start-id are for one sequence: add --layout interleaved")
    output = None if output is None else remote.localised(output)
    found = find_sources(inputs, wanted=_is_input, kind="audio, .snac or .tar file")
    sources = _without_originals(_with_members(found))
    form = _form(output, file_format, sources.batch)
    interleaved = layout is LayoutChoice.interleaved
    how = Export(interleaved, offsets, start_id, levels, channels, model, device)
    choices = Choices(force, skip_existing, jobs, threads)
    if form in ("parquet", "tar") or (form == "jsonl" and sources.batch):
        place = None if cluster is None else Place(cluster, cpus, gpus, jobs)
        return _export_shards(console, sources, output, form, shard_size, how, choices, place)
    if cluster is not None:
        raise UsageError("--cluster makes shards: give several recordings, and -o a folder")
    return _export_files(console, sources, make_plan(sources, output, extension=f".{form}"), how, choices)


def _form(output: str | None, wanted: FormatChoice | None, batch: bool) -> str:
    """The format of the output."""
    extension = os.path.splitext(output or "")[1].lower().lstrip(".")
    if wanted is not None:
        return wanted.value
    if batch:
        return "jsonl"
    if output in (None, STDIO) or os.path.isdir(str(output)) or str(output).endswith(("/", os.sep)):
        return "json"
    if extension not in ("json", "jsonl", "npz"):
        raise UsageError(f"{shown(str(output))}: tokens are written as .json, .jsonl or .npz; name a file so")
    return extension


def _export_files(
    console: Console, sources: Sources, plan: Plan, how: Export, choices: Choices
) -> ExitStatus:
    """Export each recording to a file of its own."""
    batch = Batch(console, plan, choices)
    below = dict(sources.files)
    force = choices.force

    def write(exporter: Exporter, job: Job, progress: Progress) -> ExportResult:
        path = _portable(below[job.source])
        return exporter.to_file(job.source, job.output, path=path, overwrite=force, progress=progress)

    return batch.run(_Exporting(console, how, batch, write))


def _export_shards(
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

        def write(exporter: Exporter, job: Job, progress: Progress) -> ExportResult:
            started = time.perf_counter()
            try:
                recording = exporter.recording(job.source, paths[job.source], progress)
                told = draft(recording, exporter.form)
                beside = companions(job.source) if form == "tar" else ()
            except Exception:
                shards.put(turns[job.source], None)
                raise
            shard = shards.put(turns[job.source], told, beside)
            return exporter.result(recording, job.source, shard, 0, started)

        return batch.run(_Exporting(console, how, batch, write))


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
    from snaccli.tokens.cluster import ShardWork, shard_units
    from snaccli.tokens.recording import Form
    from snaccli.tokens.shards import existing, next_number, remove

    if choices.force:
        remove(existing(folder))
    if not remote.is_url(folder):
        make_folder(folder)
    found = [(cluster_runs.anywhere(source), path) for source, path in recordings]
    units = shard_units(found, cluster_runs.anywhere(folder), form, shard_size, next_number(folder))
    work = ShardWork(
        model=cluster_runs.model_anywhere(how.model),
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
    return cluster_runs.run(console, told, work, units, len(recordings), place, verb="exported")


class _Exporting:
    """Exports recordings, each by `write`: to a file of its own, or to a line of a shard."""

    verb = "exported"
    line = staticmethod(tokens.line)
    total = staticmethod(tokens.total)

    def __init__(self, console: Console, how: Export, batch: Batch, write: Write) -> None:
        self._console = console
        self._how = how
        self._batch = batch
        self._write = write

    def prepare(self) -> None:
        """Loads the model, where it is known before a file is read."""
        _ = self._exporter

    def __call__(self, job: Job, progress: Progress) -> ExportResult:
        """Exports one recording."""
        return self._write(self._exporter, job, progress)

    @functools.cached_property
    def _exporter(self) -> Exporter:
        return _exporter(self._console, self._how, self._batch.waiting, self._batch.threads)


def _distinct_paths(sources: Sources) -> dict[str, str]:
    """The name of each recording within the shards."""
    paths: dict[str, str] = {}
    owners: dict[str, str] = {}
    for source, below in sources.files:
        path = _portable(below)
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
        self._coded = {_portable(below): source for source, below in sources.files if is_snac(source)}
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


def _exporter(console: Console, how: Export, jobs: Sequence[Job], threads: int) -> Exporter:
    """What exports recordings, its model loaded where it is known before the first file is read."""
    with waiting(console, "loading the model"):
        from snaccli.codec import ModelPool
        from snaccli.tokens.recording import Form
        from snaccli.tokens.transfer import Exporter

        models = ModelPool(how.model, device=how.device.value, threads=threads)
        if how.model is not None or any(not is_snac(job.source) for job in jobs if job.source != STDIO):
            codec = models.for_audio()
            console.detail(f"model {codec.name}, fingerprint {codec.fingerprint}, on {codec.device}")
    form = Form(how.interleaved, how.offsets, how.start_id)
    return Exporter(models, form, how.levels, how.channels.value)


def _is_input(name: str) -> bool:
    return name.lower().endswith(".tar") or _is_recording(name)


def _with_members(sources: Sources) -> Sources:
    """Puts the recordings within tar archives in the place of these."""
    archives = [source for source, _ in sources.files if source.lower().endswith(".tar")]
    if not archives:
        return sources
    sources.batch = True
    files: list[tuple[str, str]] = []
    for source, below in sources.files:
        if not source.lower().endswith(".tar"):
            files.append((source, below))
            continue
        try:
            with open_input(source) as file:
                parts = list(members(source, file, _is_recording))
        except SnacError as error:
            sources.problems.append((source, error))
            continue
        if not parts:
            sources.problems.append((source, FileError("no audio or .snac file is in this archive")))
        inside = os.path.splitext(below)[0] if len(archives) > 1 else ""
        files += [(part, os.path.join(inside, part.below)) for part in parts]
    sources.files = files
    return sources


def _is_recording(name: str) -> bool:
    from snaccli.audio import is_audio_name

    return is_snac(name) or is_audio_name(name)


def _without_originals(sources: Sources) -> Sources:
    """Of a recording and the .snac file made of it, both there, only the latter: its codes are the same."""
    coded = {os.path.splitext(source)[0] for source, _ in sources.files if is_snac(source)}
    kept = [
        (source, below)
        for source, below in sources.files
        if is_snac(source) or os.path.splitext(source)[0] not in coded
    ]
    if left := len(sources.files) - len(kept):
        verb = "is" if left == 1 else "are"
        sources.remarks.append(f"{text.count(left, 'audio file')} {verb} left out, whose .snac file is taken")
    sources.files = kept
    return sources


def _portable(path: str) -> str:
    return path.replace(os.sep, "/")
