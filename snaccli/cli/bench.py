"""``snac bench``: what the codec costs and keeps, measured on recordings."""

from __future__ import annotations

from typing import Annotated

import typer

from snaccli.cli import options
from snaccli.cli.console import Console
from snaccli.cli.plan import expand
from snaccli.cli.progress import Stages
from snaccli.errors import ExitStatus, UsageError

EXAMPLES = """
snac bench                               the recordings shipped in examples/
snac bench talk.wav music -m mini -m 24khz
snac bench music --csv > music.csv
"""


def bench(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            show_default=False,
            help="Audio files or folders; without any, the recordings shipped in examples/.",
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            metavar="MODEL",
            autocompletion=options.complete_model,
            help="A model to measure; give it several times to compare. [default: mini]",
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print the figures as CSV, one line a file.")] = False,
    device: options.Device = options.DeviceChoice.auto,
    threads: options.Threads = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> ExitStatus:
    """Measure bit rate, quality and speed on recordings."""
    console: Console = context.obj
    if json and csv:
        raise UsageError("--json and --csv would both go to standard output; give one of them")
    with Stages(console) as stages:
        from snaccli import bench as measuring

        results = measuring.run(
            expand(inputs or []), models or [options.DEFAULT_MODEL], device.value, threads, stages.advance
        )
    if json:
        console.print(measuring.to_json(results))
    elif csv:
        console.print(measuring.to_csv(results).rstrip("\n"))
    else:
        console.table(measuring.table(results))
    failed = [(result.model, file) for result in results for file in result.failed]
    if json or csv:  # the table tells of them itself
        for model, file in failed:
            console.complain(f"{file.path}: {file.error} (model {model})")
    return ExitStatus.FAILED if failed else ExitStatus.OK
