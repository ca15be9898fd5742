"""``snac tokens import``: tokens of language models back into ``.snac`` files or audio."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from snaccli.cli import options
from snaccli.cli.batch import Batch, Choices, FileWork
from snaccli.cli.commands import tokens
from snaccli.cli.plan import Sources, find_sources, make_plan
from snaccli.cli.ui.console import Console
from snaccli.errors import ExitStatus, SnacError, UsageError
from snaccli.progress import Progress

if TYPE_CHECKING:
    from snaccli.tokens.files import Line
    from snaccli.tokens.transfer import ImportResult

EXAMPLES = """
snac tokens import talk.json                   writes talk.snac
snac tokens import talk.npz -o talk.wav        or audio: the file extension says which
snac tokens import tokens -o coded             every recording of JSONL shards
snac tokens import ids.json -m 24khz --offsets --start-id 128266 -o said.wav
"""

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files of tokens (.npz, .json, .jsonl, .parquet, .tar); folders, of which all such files are "
        "taken; URLs of either; or - for standard input.",
    ),
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
    inputs: Inputs,
    model: options.TokensModel = None,
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

    return batch.run(FileWork("imported", convert, tokens.facts, tokens.total))


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
