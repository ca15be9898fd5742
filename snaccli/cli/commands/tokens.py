"""``snac tokens``: the codes of recordings as tokens for language models, and back into recordings."""

from __future__ import annotations

import os
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from snaccli.cli import options
from snaccli.cli.batch import Batch, Choices, FileWork
from snaccli.cli.commands.exporting import Export, export_shards, exporting, facts, portable, total
from snaccli.cli.plan import Plan, Sources, check_format, find_sources, is_snac, make_plan
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import STDIO, ExitStatus, FileError, SnacError, UsageError, shown
from snaccli.io import elsewhere
from snaccli.io.elsewhere import members
from snaccli.io.files import open_input
from snaccli.progress import Progress

if TYPE_CHECKING:
    from snaccli.tokens.files import Line
    from snaccli.tokens.transfer import Exporter, ExportResult, ImportResult

EXPORT_EXAMPLES = """
snac tokens export talk.wav                    writes talk.json: a list a level
snac tokens export talk.snac -o talk.npz       from codes there are, as arrays
snac tokens export recordings -o tokens        JSONL in shards, a line a recording
snac tokens export talk.wav -m 24khz --layout interleaved --offsets --start-id 128266
"""


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
    options.LayoutChoice,
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


def export(
    context: typer.Context,
    inputs: Inputs,
    model: options.TokensModel = None,
    output: Output = None,
    file_format: FileFormat = None,
    layout: Layout = options.LayoutChoice.nested,
    offsets: options.Offsets = False,
    start_id: options.StartId = 0,
    levels: Levels = None,
    channels: Channels = options.ChannelChoice.mono,
    shard_size: ShardSize = 1000,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    jobs: options.Jobs = None,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
    cluster: options.Cluster = None,
    cpus: options.CpusPerWorker = 1,
    gpus: options.GpusPerWorker = 0.0,
) -> ExitStatus:
    """Write the codes of recordings as tokens for language models.

    From .snac files, or straight from audio. docs/tokens.md describes the files, the order and the ids.
    """
    console: Console = context.obj
    if layout is options.LayoutChoice.nested and (offsets or start_id):
        raise UsageError("--offsets and --start-id are for one sequence: add --layout interleaved")
    output = None if output is None else elsewhere.localised(output)
    found = find_sources(inputs, wanted=_is_input, kind="audio, .snac or .tar file")
    sources = _without_originals(_with_members(found))
    form = _form(output, file_format, sources.batch)
    interleaved = layout is options.LayoutChoice.interleaved
    how = Export(interleaved, offsets, start_id, levels, channels, model, device)
    choices = Choices(force, skip_existing, jobs, threads)
    if form in ("parquet", "tar") or (form == "jsonl" and sources.batch):
        place = None
        if cluster is not None:
            from snaccli.codec.cluster import Place

            place = Place(cluster, cpus, gpus, jobs)
        return export_shards(console, sources, output, form, shard_size, how, choices, place)
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

    def write(exporter: Exporter, source: str, output: str, progress: Progress) -> ExportResult:
        path = portable(below[source])
        return exporter.to_file(source, output, path=path, overwrite=force, progress=progress)

    return batch.run(exporting(console, how, batch, write))


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


IMPORT_EXAMPLES = """
snac tokens import talk.json                   writes talk.snac
snac tokens import talk.npz -o talk.wav        or audio: the file extension says which
snac tokens import tokens -o coded             every recording of JSONL shards
snac tokens import ids.json -m 24khz --offsets --start-id 128266 -o said.wav
"""

TokenFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files of tokens (.npz, .json, .jsonl, .parquet, .tar); folders, of which all such files are "
        "taken; URLs of either; or - for standard input.",
    ),
]
TokenFilesModel = Annotated[
    str | None, options.model("A model's name or folder. By default the one a file names.")
]
AudioFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="snac, or wav, flac, opus, ... for outputs whose names you do not give; snac by default.",
    ),
]


def import_tokens(
    context: typer.Context,
    inputs: TokenFiles,
    model: TokenFilesModel = None,
    output: options.Output = None,
    audio_format: AudioFormat = None,
    offsets: options.Offsets = False,
    start_id: options.StartId = 0,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    jobs: options.Jobs = None,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Turn tokens back into .snac files, or into audio.

    What a file says of itself counts; --offsets and --start-id are for files that say nothing, such as a bare
    list of the ids that a language model generated.
    """
    console: Console = context.obj
    sources = find_sources(inputs, wanted=_is_tokens, kind="file of tokens")
    lines = _lines(sources)
    if lines and output is None:
        raise UsageError("the recordings of a shard need a folder: give it with -o")
    extension = "." + (audio_format or "snac").lower().lstrip(".")
    plan = make_plan(sources, output, extension=extension)
    if plan.jobs and audio_format is not None:
        check_format(plan.jobs[0].output, audio_format)
    batch = Batch(console, plan, Choices(force, skip_existing, jobs, threads))

    from snaccli.codec import ModelPool
    from snaccli.tokens.recording import Form
    from snaccli.tokens.transfer import Importer

    models = ModelPool(model, device=device.value, threads=batch.threads)
    importer = Importer(models, Form(True, offsets, start_id), audio_format, force)

    def convert(source: str, output: str, progress: Progress) -> ImportResult:
        """Imports a file, or one of the lines that stand for the recordings of a file."""
        if source in lines:
            path, line = lines[source]
            return importer.from_line(path, line, output, progress=progress)
        return importer.from_file(source, output, progress=progress)

    return batch.run(FileWork("imported", convert, facts, total))


def _is_tokens(name: str) -> bool:
    return name.lower().endswith((".npz", ".json", ".jsonl", ".parquet", ".tar"))


def _lines(sources: Sources) -> dict[str, tuple[str, Line]]:
    """Puts the recordings of JSONL files in the place of these, each by the name ``FILE:LINE``."""
    from snaccli.tokens.files import safe_path
    from snaccli.tokens.formats import format_of

    found: dict[str, tuple[str, Line]] = {}
    files: list[tuple[str, str]] = []
    for source, below in sources.files:
        kind = format_of(source)
        if kind is None:
            files.append((source, below))
            continue
        sources.batch = True
        try:
            for line in kind.places(source):
                name = f"{source}:{line.number}"
                try:
                    path = safe_path(line.path) or f"{os.path.splitext(below)[0]}-{line.number:06d}.json"
                except SnacError as error:
                    sources.problems.append((name, error))
                    continue
                files.append((name, path))
                found[name] = source, line
        except SnacError as error:
            sources.problems.append((source, error))
    sources.files = files
    return found
