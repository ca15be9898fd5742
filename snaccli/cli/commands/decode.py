"""``snac decode``: ``.snac`` files to audio files."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from snaccli.cli import options
from snaccli.cli.batch import Batch, Choices, FileWork
from snaccli.cli.plan import check_format, find_sources, is_snac, make_plan
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ExitStatus

if TYPE_CHECKING:
    from snaccli.codec import DecodeResult

EXAMPLES = """
snac decode song.snac                   writes song.wav beside it
snac decode song.snac -o song.flac      the file extension says the format
snac decode coded -o restored --format flac
snac decode talk.snac --start 1:30 --duration 10
snac decode - < song.snac | aplay
"""


AudioFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="wav, flac, ogg, opus, mp3, ... for outputs whose names you do not give; wav by default.",
    ),
]
Model = Annotated[
    str | None,
    options.model("Take this model, by name or folder, instead of the one that the file names."),
]
AnyWeights = Annotated[
    bool,
    typer.Option(
        "--any-weights",
        help="Decode even if the file was made with other weights; right if only their decoder differs.",
    ),
]
Rate = Annotated[
    options.RateChoice, typer.Option("--rate", help="The recording's own sample rate, or the model's.")
]
Levels = Annotated[
    int | None,
    typer.Option("--levels", min=1, metavar="N", help="Use the N coarsest levels only; all by default."),
]
Salvage = Annotated[
    bool, typer.Option("--salvage", help="Decode what is intact of a damaged or cut-off file.")
]
Start = Annotated[
    float | None,
    typer.Option(
        "--start", parser=options.seconds, metavar="TIME", help="Begin here: 90, or 1:30; by default at 0."
    ),
]
Duration = Annotated[
    float | None,
    typer.Option(
        "--duration",
        parser=options.seconds,
        metavar="TIME",
        help="Decode this much: 10, or 1:30; by default all.",
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, metavar="N", help="Of the model's noise; another seed sounds a little different."
    ),
]
NoNoise = Annotated[bool, typer.Option("--no-noise", help="Leave the model's noise out.")]


def decode(
    context: typer.Context,
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT", help=options.SNAC_FILES)],
    output: options.Output = None,
    audio_format: AudioFormat = None,
    model: Model = None,
    any_weights: AnyWeights = False,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    rate: Rate = options.RateChoice.original,
    levels: Levels = None,
    salvage: Salvage = False,
    start: Start = None,
    duration: Duration = None,
    seed: Seed = 0,
    no_noise: NoNoise = False,
    prior: options.Prior = None,
    jobs: options.Jobs = None,
    device: options.Device = options.CodingDevice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Turn .snac files back into audio."""
    console: Console = context.obj
    extension = "." + (audio_format or "wav").lower().lstrip(".")
    sources = find_sources(inputs, wanted=is_snac, kind=".snac file")
    plan = make_plan(sources, output, extension=extension, replaces=".snac")
    if plan.jobs:
        from snaccli.audio import output_format

        check_format(plan.jobs[0].output, audio_format)
        output_format(plan.jobs[0].output, audio_format=audio_format)  # checks it; a batch has one format
    batch = Batch(console, plan, Choices(force, skip_existing, jobs, threads))

    from snaccli.codec import ModelPool, decode_file

    learned = True if prior is None else prior
    models = ModelPool(model, device=device.value, threads=batch.threads, prior=learned)
    convert = functools.partial(
        decode_file,
        model=models,
        rate=rate.value,
        levels=levels,
        salvage=salvage,
        start=start or 0.0,
        duration=duration,
        seed=seed,
        noise=not no_noise,
        any_weights=any_weights,
        audio_format=audio_format,
        overwrite=force,
    )
    prepare = None if model is None else functools.partial(models.get, model)
    return batch.run(FileWork("decoded", convert, _facts, _total, prepare), models)


def _facts(result: DecodeResult) -> Sequence[str]:
    return (
        text.clock(result.duration_s),
        f"{result.sample_rate} Hz",
        "mono" if result.channels == 1 else f"{result.channels} channels",
        f"({result.note})" if result.note else "",
        text.speed(result.duration_s, result.seconds),
    )


def _total(results: Sequence[DecodeResult], wall_seconds: float) -> str:
    audio_seconds = sum(result.duration_s for result in results)
    noted = sum(bool(result.note) for result in results)
    return text.joined(
        f"{text.clock(audio_seconds)} of audio",
        f"({text.count(noted, 'file')} with a remark)" if noted else "",
        text.speed(audio_seconds, wall_seconds),
    )
