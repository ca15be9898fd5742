"""``snac prepare``: folders of recordings to a data set for training."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import CaptionBar
from snaccli.errors import ExitStatus, shown

if TYPE_CHECKING:
    from snaccli.training.data import Row, Settings, Summary

EXAMPLES = """
snac prepare recordings -o dataset
snac prepare book-one book-two -o dataset --split-by folder -j 4
snac prepare music -o dataset --rate 44100 --link
"""


class SplitBy(str, Enum):
    """What stays together on one side."""

    recording = "recording"
    folder = "folder"


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="DIR",
        help="Folders of recordings, or single ones. A folder with train/ and val/ keeps that split.",
    ),
]
Output = Annotated[
    str,
    typer.Option(
        "-o",
        "--output",
        metavar="DATASET",
        help="Folder of the data set. What is there already is kept: run the same command to resume, or "
        "with other folders to add to it.",
    ),
]
Rate = Annotated[
    int,
    typer.Option(
        "--rate", min=1000, max=768_000, metavar="HZ", help="Sample rate of the model to be trained."
    ),
]
Val = Annotated[
    float,
    typer.Option("--val", min=0, max=50, metavar="PERCENT", help="Share of recordings for validation."),
]
Split = Annotated[
    SplitBy,
    typer.Option(
        "--split-by",
        help="Split recording by recording, or keep each folder (a speaker, a book) on one side.",
    ),
]
Link = Annotated[
    bool,
    typer.Option(
        "--link",
        help="Link recordings of any rate and number of channels instead of converting them: saves disk, "
        "costs time in training.",
    ),
]
MinSeconds = Annotated[
    float, typer.Option("--min-seconds", min=0, metavar="S", help="Refuse shorter recordings.")
]
MaxClipping = Annotated[
    float,
    typer.Option(
        "--max-clipping", min=0, max=1, metavar="SHARE", help="Refuse those with more clipped samples."
    ),
]
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, metavar="N", help="Work on N recordings at once.")]


def prepare(
    context: typer.Context,
    inputs: Inputs,
    output: Output,
    rate: Rate = 24000,
    val: Val = 5.0,
    split_by: Split = SplitBy.recording,
    link: Link = False,
    min_seconds: MinSeconds = 0.5,
    max_clipping: MaxClipping = 0.01,
    jobs: Jobs = 2,
) -> ExitStatus:
    """Check recordings, split them into train/ and val/, and make them ready for training.

    Recordings that are mono and of the right rate are linked, the others converted to FLAC. Unreadable,
    short, silent and clipped ones are left out; manifest.jsonl has a line for each, and why.
    """
    from snaccli.training.data import Settings

    settings = Settings(rate, val, split_by.value, link, min_seconds, max_clipping)
    return _run(context.obj, inputs, output, settings, jobs)


def _run(console: Console, inputs: list[str], output: str, settings: Settings, jobs: int) -> ExitStatus:
    from snaccli.training import data

    with CaptionBar(console) as bar:

        def progress(done: int, total: int, row: Row | None) -> None:
            bar.advance(done / max(total, 1), f"{done:,}/{total:,} recordings")
            if row is not None and row.problem is not None:
                console.detail(f"left out: {shown(row.source)}: {row.problem}")

        summary = data.prepare(inputs, output, settings, workers=jobs, progress=progress, remark=console.note)
    console.emit({"output": output, **dataclasses.asdict(summary)})
    if not console.quiet:
        _tell(console, summary, output, settings)
    return ExitStatus.OK


def _tell(console: Console, summary: Summary, output: str, settings: Settings) -> None:
    for split, count in summary.recordings.items():
        length = text.clock(summary.seconds[split])
        console.result(f"{split + ':':<7}{text.count(count, 'recording'):>18}  {length:>10}")
    if not summary.recordings["val"]:
        console.note("no recording for validation: add some, or raise --val with another -o")
    if summary.narrow:
        console.note(
            f"{text.count(summary.narrow, 'recording')} below {settings.rate} Hz: silent in the highest band"
        )
    if summary.refused:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.refused.items()))
        console.note(f"left out: {kinds}; {shown(output)}/manifest.jsonl says why")
        for source, problem in summary.examples[:5] if not console.verbose else []:
            console.note(f"  {shown(source)}: {problem}")
