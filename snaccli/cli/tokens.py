"""``snac tokens``: codes as tokens for language models, out of recordings and back into them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snaccli.batch import Job, Work
from snaccli.cli import options, text
from snaccli.cli.console import Console
from snaccli.cli.convert import check_streams, convert
from snaccli.cli.plan import STREAM, OutputClashError, Plan, Sources, find_sources, is_snac, make_plan
from snaccli.cli.progress import waiting
from snaccli.cli.report import Report
from snaccli.errors import ExitStatus, OutputError, SnacError, UsageError

if TYPE_CHECKING:
    from snaccli.tokens.reading import Line
    from snaccli.tokens.transfer import Exporter, ExportResult, ImportResult

EXPORT_EXAMPLES = """
snac tokens export talk.wav                    writes talk.json: a list a level
snac tokens export talk.snac -o talk.npz       from codes there are, as arrays
snac tokens export recordings -o tokens        JSONL in shards, a line a recording
snac tokens export talk.wav -m 24khz --layout interleaved --offsets --start-id 128266
"""
IMPORT_EXAMPLES = """
snac tokens import talk.json                   writes talk.snac
snac tokens import talk.npz -o talk.wav        or audio, by the ending
snac tokens import tokens -o coded             every recording of JSONL shards
snac tokens import ids.json -m 24khz --offsets --start-id 128266 -o said.wav
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


Offsets = Annotated[
    bool,
    typer.Option("--offsets", help="Interleaved: each position of a frame has a range of ids of its own."),
]
StartId = Annotated[
    int, typer.Option("--start-id", min=0, metavar="N", help="Interleaved: the smallest id; added to all.")
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        metavar="MODEL",
        autocompletion=options.complete_model,
        help="A model's name or folder. By default the one a file names, and mini for audio.",
    ),
]


def export(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Audio or .snac files; folders, of which all such files are taken; or - for a .snac file on "
            "standard input.",
        ),
    ],
    model: Model = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="Write to this file, to this folder when there are several inputs, or to standard output "
            "(-). Without it the output of a single input stands beside it.",
        ),
    ] = None,
    file_format: Annotated[
        FormatChoice | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="json, npz, or jsonl. By default by the ending of -o, else json for one file and jsonl, in "
            "shards, for several.",
        ),
    ] = None,
    layout: Annotated[
        LayoutChoice,
        typer.Option("--layout", help="A list for each level, or one sequence in depth-first order."),
    ] = LayoutChoice.nested,
    offsets: Offsets = False,
    start_id: StartId = 0,
    levels: Annotated[
        int | None,
        typer.Option("--levels", min=1, metavar="N", help="The N coarsest levels only; all by default."),
    ] = None,
    channels: Annotated[
        options.ChannelChoice,
        typer.Option("--channels", help="Of audio: mix all down to mono, or keep and code each by itself."),
    ] = options.ChannelChoice.mono,
    shard_size: Annotated[
        int,
        typer.Option("--shard-size", min=1, max=100_000, metavar="N", help="Recordings in a shard of JSONL."),
    ] = 1000,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    jobs: options.Jobs = None,
    device: options.Device = options.DeviceChoice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Write the codes of recordings as tokens for language models.

    From .snac files, or straight from audio. docs/tokens.md describes the files, the order and the ids.
    """
    console: Console = context.obj
    if layout is LayoutChoice.nested and (offsets or start_id):
        raise UsageError("--offsets and --start-id are for one sequence: add --layout interleaved")
    sources = _without_originals(find_sources(inputs, wanted=_is_recording, kind="audio or .snac file"))
    form = _form(output, file_format, sources.batch)
    order = {"interleaved": layout is LayoutChoice.interleaved, "offsets": offsets, "start_id": start_id}
    how = {
        "order": order,
        "levels": levels,
        "channels": channels.value,
        "model": model,
        "device": device.value,
    }
    run: dict[str, Any] = {"force": force, "skip_existing": skip_existing, "jobs": jobs, "threads": threads}
    if form == "jsonl" and sources.batch:
        return _export_shards(console, sources, output, shard_size, how, run)
    plan = make_plan(sources, output, ending=f".{form}")
    check_streams(console, plan)
    below = dict(sources.files)

    def prepare(_jobs: Sequence[Job], each: int) -> Work[ExportResult]:
        exporter = _exporter(console, how, _jobs, each)
        return lambda job, progress: exporter.to_file(
            job.source, job.output, path=_portable(below[job.source]), overwrite=force, progress=progress
        )

    report = Report(console, batch=plan.batch, verb="exported", line=_line, total=_total)
    return convert(console, plan, report, prepare, _seconds, **run)


def _form(output: str | None, wanted: FormatChoice | None, batch: bool) -> str:
    """The format of the output: json, jsonl or npz."""
    ending = os.path.splitext(output or "")[1].lower().lstrip(".")
    if wanted is not None:
        return wanted.value
    if batch:
        return "jsonl"
    if output in (None, STREAM) or os.path.isdir(str(output)) or str(output).endswith(("/", os.sep)):
        return "json"
    if ending not in FormatChoice.__members__:
        raise UsageError(
            f"{text.display(str(output))}: tokens are written as .json, .jsonl or .npz, by the ending"
        )
    return ending


def _export_shards(
    console: Console,
    sources: Sources,
    folder: str | None,
    shard_size: int,
    how: dict[str, Any],
    run: dict[str, Any],
) -> ExitStatus:
    """Export to JSONL shards in `folder`; recordings that are in its shards already are passed over."""
    from snaccli.tokens.shards import ShardWriter

    if folder is None or folder == STREAM or os.path.splitext(folder)[1].lower() == ".jsonl":
        raise UsageError("several recordings are written as JSONL in shards; give -o a folder for them")
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{text.display(folder)} is a file; for several inputs -o names a folder")
    paths = _distinct_paths(sources)
    done = _done(folder, how, sources, run)
    jobs = [Job(source, os.path.join(folder, "")) for source, path in paths.items() if path not in done]
    if len(jobs) < len(paths):
        console.note(f"{len(paths) - len(jobs)} of {text.count(len(paths), 'recording')} are there already")
    plan = Plan(jobs, True, sources.problems, sources.remarks)
    report = Report(console, batch=True, verb="exported", line=_line, total=_total)
    with ShardWriter(folder, shard_size, fresh=run["force"]) as shards:

        def prepare(jobs: Sequence[Job], each: int) -> Work[ExportResult]:
            return _line_writer(_exporter(console, how, jobs, each), paths, shards.write)

        return convert(console, plan, report, prepare, _seconds, **run)


def _line_writer(
    exporter: Exporter, paths: dict[str, str], write: Callable[[bytes], str]
) -> Callable[[Job, Callable[[float], None]], ExportResult]:
    import time

    from snaccli.tokens.writing import to_json

    def work(job: Job, progress: Callable[[float], None]) -> ExportResult:
        started = time.perf_counter()
        recording = exporter.recording(job.source, paths[job.source], progress)
        line = to_json(recording, exporter.form)
        return exporter.result(recording, job.source, write(line), len(line), started)

    return work


def _distinct_paths(sources: Sources) -> dict[str, str]:
    """The name of each recording within the shards."""
    paths: dict[str, str] = {}
    owners: dict[str, str] = {}
    for source, below in sources.files:
        path = _portable(below)
        if owners.setdefault(path, source) != source:
            raise OutputClashError(
                f"{text.display(owners[path])} and {text.display(source)} would both be called "
                f"{text.display(path)}; name the folder that holds both, or give each a folder of shards"
            )
        paths[source] = path
    return paths


def _done(folder: str, how: dict[str, Any], sources: Sources, run: dict[str, Any]) -> set[str]:
    """The paths of recordings that need not be exported again.

    Raises:
        OutputError: there are shards, and neither resuming nor overwriting was asked for.
        TokenFileError: they hold tokens of another kind.
    """
    from snac.registry import DEFAULT_MODEL, resolve
    from snaccli.tokens.shards import existing, paths_done

    if run["force"] or not existing(folder):
        return set()
    if not run["skip_existing"]:
        raise OutputError(
            f"{text.display(folder)} holds shards already: --skip-existing goes on with them, -f replaces "
            "them"
        )
    order = how["order"]
    facts: dict[str, Any] = {"layout": "interleaved" if order["interleaved"] else "nested"}
    if order["interleaved"]:
        facts |= {"offsets": order["offsets"], "start_id": order["start_id"]}
    if how["model"] is not None or not any(is_snac(source) for source, _ in sources.files):
        facts["model"] = resolve(how["model"] or DEFAULT_MODEL).name
    return paths_done(folder, facts)


def _exporter(console: Console, how: dict[str, Any], jobs: Sequence[Job], threads: int) -> Exporter:
    """What exports recordings, its model loaded where it is known before the first file is read."""
    with waiting(console, "loading the model"):
        from snaccli.tokens.models import Models
        from snaccli.tokens.recording import Form
        from snaccli.tokens.transfer import Exporter

        models = Models(how["model"], device=how["device"], threads=threads)
        if how["model"] is not None or any(not is_snac(job.source) for job in jobs if job.source != STREAM):
            codec = models.for_audio()
            console.detail(f"model {codec.name}, fingerprint {codec.fingerprint}, on {codec.device}")
    return Exporter(models, Form(**how["order"]), how["levels"], how["channels"])


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


def _seconds(job: Job) -> float | None:
    if job.source == STREAM:
        return None
    if is_snac(job.source):
        from snaccli.container import read_header

        with open(job.source, "rb") as file:
            header = read_header(file).header
        return header.samples / header.sample_rate
    from snaccli.audio import probe

    return probe(job.source).duration_s


def import_tokens(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Files of tokens, .npz, .json or .jsonl; folders, of which all such files are taken; or - "
            "for standard input.",
        ),
    ],
    model: Model = None,
    output: options.Output = None,
    audio_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="ENDING",
            help="snac, or wav, flac, opus, ... for outputs whose names you do not give; snac by default.",
        ),
    ] = None,
    offsets: Offsets = False,
    start_id: StartId = 0,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    jobs: options.Jobs = None,
    device: options.Device = options.DeviceChoice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Turn tokens back into .snac files, or into audio.

    What a file says of itself counts; --offsets and --start-id are for files that say nothing, such as a bare
    list of the ids that a language model generated.
    """
    console: Console = context.obj
    sources = find_sources(inputs, wanted=_is_tokens, kind=".npz, .json or .jsonl file")
    lines = _lines(sources)
    if lines and output is None:
        raise UsageError("the recordings of a JSONL file need a folder: give it with -o")
    ending = "." + (audio_format or "snac").lower().lstrip(".")
    plan = make_plan(sources, output, ending=ending)
    check_streams(console, plan)

    def prepare(_: Sequence[Job], each: int) -> Work[ImportResult]:
        from snaccli.tokens.models import Models
        from snaccli.tokens.recording import Form
        from snaccli.tokens.transfer import Importer

        models = Models(model, device=device.value, threads=each)
        importer = Importer(models, Form(True, offsets, start_id), audio_format, force)

        def work(job: Job, progress: Callable[[float], None]) -> ImportResult:
            if job.source in lines:
                path, line = lines[job.source]
                return importer.from_line(path, line, job.output, progress=progress)
            return importer.from_file(job.source, job.output, progress=progress)

        return work

    report = Report(console, batch=plan.batch, verb="imported", line=_line, total=_total)
    return convert(
        console,
        plan,
        report,
        prepare,
        lambda job: None,
        force=force,
        skip_existing=skip_existing,
        jobs=jobs,
        threads=threads,
    )


def _is_tokens(name: str) -> bool:
    return name.lower().endswith((".npz", ".json", ".jsonl"))


def _lines(sources: Sources) -> dict[str, tuple[str, Line]]:
    """Put the recordings of JSONL files in the place of these, each by the name ``FILE:LINE``."""
    from snaccli.tokens.reading import lines, safe_path

    found: dict[str, tuple[str, Line]] = {}
    files: list[tuple[str, str]] = []
    for source, below in sources.files:
        if not source.lower().endswith(".jsonl"):
            files.append((source, below))
            continue
        sources.batch = True
        try:
            for line in lines(source):
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


def _line(result: ExportResult | ImportResult) -> str:
    levels = "" if result.levels == 1 else f"in {result.levels} levels"
    parts = [
        text.arrow(result.source, result.output),
        text.clock(result.duration_s),
        f"{result.tokens:,} tokens {levels}".rstrip(),
        text.speed(result.duration_s, result.seconds),
    ]
    return "  ".join(part for part in parts if part)


def _total(results: Sequence[ExportResult | ImportResult], wall_seconds: float) -> str:
    audio_seconds = sum(result.duration_s for result in results)
    parts = [
        f"{text.clock(audio_seconds)} of audio",
        f"{sum(result.tokens for result in results):,} tokens",
        text.speed(audio_seconds, wall_seconds),
    ]
    return "  ".join(part for part in parts if part)
